//! Answers of guests, from those that make sense to those that do not.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::subsequence;
use txconnect_transform_host::{Column, Columns, Headers, Kept, Output, RecordFailure};

type Bytes = Option<Vec<u8>>;
type NamedBytes = Vec<(String, Bytes)>;

/// What a row says of itself; `None` is what it keeps of its record.
#[derive(Clone, Debug, PartialEq)]
struct Told {
    source: u32,
    key: Option<Bytes>,
    value: Option<Bytes>,
    topic: Option<String>,
    headers: Option<NamedBytes>,
}

fn column(parts: &[Bytes]) -> Column {
    let mut column = Column::default();
    for part in parts {
        column.push(part.as_deref());
    }
    column
}

fn told(output: &Output) -> Vec<Told> {
    (0..output.len())
        .map(|index| {
            let row = output.row(index);
            assert_eq!(row.source(), output.sources()[index]);
            let owned = |part: Option<&[u8]>| part.map(<[u8]>::to_vec);
            Told {
                source: row.source(),
                key: row.key().map(owned),
                value: row.value().map(owned),
                topic: row.topic().map(str::to_owned),
                headers: row
                    .headers()
                    .map(|all| all.map(|(name, value)| (name.to_owned(), owned(value))).collect()),
            }
        })
        .collect()
}

/// Columns that say the same. A part that every row keeps is left out when `lean`.
fn columns_of(rows: &[Told], lean: bool) -> Columns {
    fn marks(lean: bool, kept: impl Iterator<Item = bool>) -> (bool, Vec<bool>) {
        let kept: Vec<bool> = kept.collect();
        let given = if lean { kept.contains(&false) } else { true };
        let marks = if given && kept.contains(&true) { kept } else { Vec::new() };
        (given, marks)
    }
    let (has_keys, keys) = marks(lean, rows.iter().map(|row| row.key.is_none()));
    let (has_values, values) = marks(lean, rows.iter().map(|row| row.value.is_none()));
    let (has_topics, topics) = marks(lean, rows.iter().map(|row| row.topic.is_none()));
    let (has_headers, headers) = marks(lean, rows.iter().map(|row| row.headers.is_none()));
    let parts = |part: fn(&Told) -> &Option<Bytes>| -> Vec<Bytes> {
        rows.iter().map(|row| part(row).clone().flatten()).collect()
    };
    let mut names: Vec<String> = vec!["unused".to_owned()];
    let topic_of = rows
        .iter()
        .map(|row| {
            let topic = row.topic.clone().unwrap_or_else(|| "unused".to_owned());
            names.iter().position(|name| *name == topic).unwrap_or_else(|| {
                names.push(topic);
                names.len() - 1
            })
        })
        .map(|index| u32::try_from(index).unwrap())
        .collect();
    let mut all = Headers::default();
    for row in rows {
        let headers = row.headers.as_deref().unwrap_or_default();
        all.counts.push(u32::try_from(headers.len()).unwrap());
        for (name, value) in headers {
            all.names.push(Some(name.as_bytes()));
            all.values.push(value.as_deref());
        }
    }
    Columns {
        sources: rows.iter().map(|row| row.source).collect(),
        keys: has_keys.then(|| column(&parts(|row| &row.key))),
        values: has_values.then(|| column(&parts(|row| &row.value))),
        topics: has_topics.then_some((names, topic_of)),
        headers: has_headers.then_some(all),
        kept: Kept { keys, values, topics, headers },
        failures: Vec::new(),
    }
}

fn bytes() -> impl Strategy<Value = Bytes> {
    option::of(vec(any::<u8>(), 0..6))
}

fn row() -> impl Strategy<Value = Told> {
    let headers = vec(("[a-zé]{0,4}", bytes()), 0..3);
    (option::of(bytes()), option::of(bytes()), option::of("[a-c]{1,2}"), option::of(headers))
        .prop_map(|(key, value, topic, headers)| Told { source: 0, key, value, topic, headers })
}

/// Rows of a batch in order, and the records that have failed.
fn batch() -> impl Strategy<Value = (usize, Vec<Told>, Vec<u32>)> {
    (1..12_usize)
        .prop_flat_map(|records| {
            let failed = subsequence((0..records).collect::<Vec<_>>(), 0..=records);
            (Just(records), vec(vec(row(), 0..5), records), failed)
        })
        .prop_map(|(records, mut rows, failed)| {
            for &record in &failed {
                rows[record].clear();
            }
            let numbered = rows.into_iter().enumerate().flat_map(|(record, rows)| {
                let source = u32::try_from(record).unwrap();
                rows.into_iter().map(move |row| Told { source, ..row })
            });
            (
                records,
                numbered.collect(),
                failed.iter().map(|&record| u32::try_from(record).unwrap()).collect(),
            )
        })
}

fn failure(record: u32) -> RecordFailure {
    RecordFailure { record, code: "account_missing".to_owned(), message: "no account".to_owned() }
}

proptest! {
    #[test]
    fn every_row_says_what_its_columns_say((records, rows, failed) in batch(), lean: bool) {
        let failures = failed.iter().rev().copied().map(failure).collect();
        let output = Output::checked(Columns { failures, ..columns_of(&rows, lean) }, records, 1000).unwrap();
        prop_assert_eq!(told(&output), rows);
        let found: Vec<u32> = output.failures().iter().map(|failure| failure.record).collect();
        prop_assert_eq!(found, failed);
    }

    #[test]
    fn a_record_of_too_many_rows_fails_and_the_rows_of_others_stay((records, rows, failed) in batch(), most in 1..4_u32) {
        let failures = failed.iter().copied().map(failure).collect();
        let output = Output::checked(Columns { failures, ..columns_of(&rows, true) }, records, most).unwrap();
        let overflows = |source: u32| rows.iter().filter(|row| row.source == source).count() > most as usize;
        let stay: Vec<Told> = rows.iter().filter(|row| !overflows(row.source)).cloned().collect();
        prop_assert_eq!(told(&output), stay);
        let wanted: Vec<(u32, &str)> = (0..u32::try_from(records).unwrap())
            .filter_map(|record| {
                let overflowing = overflows(record).then_some((record, "transform.too_many_rows"));
                overflowing.or(failed.contains(&record).then_some((record, "transform.account_missing")))
            })
            .collect();
        let found: Vec<_> =
            output.failures().iter().map(|failure| (failure.record, failure.code.as_str())).collect();
        prop_assert_eq!(found, wanted);
    }

    #[test]
    fn nonsense_is_refused_or_can_be_read(columns in nonsense(), records in 0..6_usize, most in 1..4_u32) {
        if let Ok(output) = Output::checked(columns, records, most) {
            let rows = told(&output);
            prop_assert!(rows.is_sorted_by_key(|row| row.source));
            for row in &rows {
                prop_assert!((row.source as usize) < records);
                prop_assert!(output.failures().iter().all(|failure| failure.record != row.source));
            }
            for failure in output.failures() {
                prop_assert!((failure.record as usize) < records);
                prop_assert!(failure.message.len() <= 1030);
                prop_assert!(failure.code.strip_prefix("transform.").is_some_and(|code| (1..=64).contains(&code.len())));
            }
        }
    }
}

/// Columns of small numbers, so that some of them make sense by chance.
fn nonsense() -> impl Strategy<Value = Columns> {
    fn column() -> impl Strategy<Value = Column> {
        (vec(any::<u8>(), 0..4), vec(0..4_u32, 0..4), vec(0..3_u8, 0..4))
            .prop_map(|(data, ends, nulls)| Column { data, ends, nulls })
    }
    let small = || vec(0..4_u32, 0..4);
    let headers =
        (small(), column(), column()).prop_map(|(counts, names, values)| Headers { counts, names, values });
    let marks = || vec(any::<bool>(), 0..4);
    let kept = (marks(), marks(), marks(), marks()).prop_map(|(keys, values, topics, headers)| Kept {
        keys,
        values,
        topics,
        headers,
    });
    let failure = (0..5_u32, ".{0,9}", ".{0,9}").prop_map(|(record, code, message)| RecordFailure {
        record,
        code,
        message,
    });
    let topics = (vec("[a./]{0,3}", 0..3), small());
    (
        small(),
        option::of(column()),
        option::of(column()),
        option::of(topics),
        option::of(headers),
        kept,
        vec(failure, 0..3),
    )
        .prop_map(|(sources, keys, values, topics, headers, kept, failures)| Columns {
            sources,
            keys,
            values,
            topics,
            headers,
            kept,
            failures,
        })
}

/// Two rows of two records, with every column.
fn sound() -> Columns {
    let two = || column(&[Some(b"one".to_vec()), None]);
    Columns {
        sources: vec![0, 1],
        keys: Some(two()),
        values: Some(two()),
        topics: Some((vec!["refunds".to_owned()], vec![0, 0])),
        headers: Some(Headers {
            counts: vec![0, 1],
            names: column(&[Some(b"h".to_vec())]),
            values: column(&[None]),
        }),
        kept: Kept::default(),
        failures: vec![failure(2)],
    }
}

#[track_caller]
fn refused(spoil: impl FnOnce(&mut Columns), words: &str) {
    let mut columns = sound();
    Output::checked(columns.clone(), 3, 10).unwrap();
    spoil(&mut columns);
    let error = Output::checked(columns, 3, 10).unwrap_err().to_string();
    assert!(error.contains(words), "{error}");
}

fn keys(columns: &mut Columns) -> &mut Column {
    columns.keys.as_mut().unwrap()
}

fn headers(columns: &mut Columns) -> &mut Headers {
    columns.headers.as_mut().unwrap()
}

fn topics(columns: &mut Columns) -> &mut (Vec<String>, Vec<u32>) {
    columns.topics.as_mut().unwrap()
}

#[test]
fn a_source_that_falls_or_is_no_record_is_refused() {
    refused(|columns| columns.sources = vec![1, 0], "fall");
    refused(|columns| columns.sources = vec![1, 3], "source is 3, and the batch has 3 records");
}

#[test]
fn columns_of_other_lengths_than_the_rows_are_refused() {
    refused(|columns| columns.sources = vec![0], "the ends of keys");
    refused(|columns| columns.values.as_mut().unwrap().ends.push(3), "the ends of values");
    refused(|columns| keys(columns).nulls.push(0), "the nulls of keys");
    refused(|columns| columns.kept.topics = vec![true], "1 of a mark");
    refused(|columns| topics(columns).1.push(0), "the topics of rows");
    refused(|columns| headers(columns).counts.push(0), "the counts of headers");
}

#[test]
fn ends_that_fall_or_miss_the_data_are_refused() {
    refused(|columns| keys(columns).ends = vec![4, 3], "the ends of keys fall");
    refused(
        |columns| keys(columns).ends = vec![3, 4],
        "the last of the ends of keys is 4, and there are 3 bytes",
    );
    refused(|columns| keys(columns).ends = vec![2, 2], "is 2, and there are 3 bytes");
    refused(|columns| keys(columns).nulls = vec![0, 2], "neither 0 nor 1");
}

#[test]
fn topics_that_kafka_does_not_take_are_refused() {
    for name in ["", ".", "..", "a b", "é", "a/b", &"a".repeat(250)] {
        refused(|columns| topics(columns).0[0] = name.to_owned(), "a topic that Kafka does not take");
    }
    refused(|columns| topics(columns).1[1] = 1, "a row's topic is number 1");
    refused(
        |columns| topics(columns).0 = (0..2000).map(|number| number.to_string()).collect(),
        "2000 topics",
    );
}

#[test]
fn headers_that_do_not_add_up_or_have_no_name_are_refused() {
    refused(|columns| headers(columns).counts = vec![1, 1], "the ends of header names");
    refused(|columns| headers(columns).counts = vec![u32::MAX, 1], "more headers than can be counted");
    refused(|columns| headers(columns).values.push(None), "the ends of header values");
    refused(|columns| headers(columns).names = column(&[None]), "null or not UTF-8");
    refused(|columns| headers(columns).names = column(&[Some(vec![0xff])]), "null or not UTF-8");
}

#[test]
fn failures_of_no_record_of_one_twice_or_of_one_with_rows_are_refused() {
    refused(|columns| columns.failures[0].record = 3, "record 3 has failed, and the batch has 3");
    refused(|columns| columns.failures.push(failure(2)), "failed twice");
    refused(|columns| columns.failures[0].record = 1, "a record that has failed has rows");
}

#[test]
fn what_a_guest_says_of_a_failure_is_cut_to_one_line_and_one_word() {
    let said = |code: &str, message: &str| {
        let failures = vec![RecordFailure { record: 0, code: code.to_owned(), message: message.to_owned() }];
        let output = Output::checked(Columns { failures, ..Columns::default() }, 1, 1).unwrap();
        (output.failures()[0].code.clone(), output.failures()[0].message.clone())
    };
    assert_eq!(
        said("no_account", "a\nb\u{1b}[31m\u{202e}"),
        ("transform.no_account".into(), "a b [31m ".into())
    );
    for code in ["", "No", "a-b", "é", &"a".repeat(65)] {
        assert_eq!(said(code, "").0, "transform.failed");
    }
    let (_, message) = said("a", &"é".repeat(5000));
    assert!(message.ends_with('…') && message.len() <= 1030, "{}", message.len());
}

#[test]
fn nothing_at_all_is_a_batch_of_which_everything_was_filtered() {
    let output = Output::checked(Columns::default(), 5, 1).unwrap();
    assert!(output.is_empty() && output.failures().is_empty());
}
