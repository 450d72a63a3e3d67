use super::*;
use crate::{Json, bail};

/// What became of a batch, row by row: its record, key, value, topic and headers as they are after it.
#[derive(Debug, PartialEq, Eq)]
struct Answer {
    source: u32,
    key: Option<String>,
    value: Option<String>,
    topic: String,
    headers: Vec<(String, Option<String>)>,
}

fn text(bytes: Option<&[u8]>) -> Option<String> {
    bytes.map(|bytes| String::from_utf8(bytes.to_vec()).unwrap())
}

/// Records `{"n":0}`, `{"n":1}` … of two topics in turn, each with a key and a header.
fn batch(count: usize) -> Batch {
    let mut batch = Batch { topics: vec!["even".into(), "odd".into()], ..Batch::default() };
    for index in 0..count {
        batch.topic_of.push(u32::from(index % 2 == 1));
        batch.keys.push(Some(format!("k{index}").as_bytes()));
        batch.values.push(Some(format!("{{\"n\":{index}}}").as_bytes()));
        batch.headers.push([("h", Some(index.to_string().as_bytes()))]);
    }
    batch
}

fn run<T: BatchTransform>(config: &str, batch: Batch) -> (Rows, Vec<Answer>) {
    let started = Started::<T>::not_yet();
    started.init(config).unwrap();
    let rows = started.transform(batch).unwrap();
    let headers = Batch { headers: rows.headers.clone().unwrap_or_default(), ..Batch::default() };
    let headers = &mut { headers };
    headers.index_headers();
    let batch = rows.batch();
    let answers = (0..rows.sources.len())
        .map(|row| {
            let source = rows.sources[row] as usize;
            let topic = rows.topic_of.as_ref().map(|of| rows.topics[of[row] as usize].clone());
            let of_row: Vec<_> = match &rows.headers {
                Some(_) => headers.headers(row).collect(),
                None => batch.headers(source).collect(),
            };
            Answer {
                source: rows.sources[row],
                key: text(rows.keys.as_ref().map_or(batch.key(source), |keys| keys.get(row))),
                value: text(rows.values.as_ref().map_or(batch.value(source), |values| values.get(row))),
                topic: topic.unwrap_or_else(|| batch.topic(source).to_owned()),
                headers: of_row.into_iter().map(|(name, value)| (name.to_owned(), text(value))).collect(),
            }
        })
        .collect();
    (rows, answers)
}

fn answer(source: u32, value: &str) -> Answer {
    Answer {
        source,
        key: Some(format!("k{source}")),
        value: Some(value.to_owned()),
        topic: if source.is_multiple_of(2) { "even" } else { "odd" }.to_owned(),
        headers: vec![("h".to_owned(), Some(source.to_string()))],
    }
}

macro_rules! function {
    ($name:ident, $wants:expr, $config:ty, $function:expr) => {
        struct $name;

        impl Function for $name {
            type Config = $config;
            const NAME: &'static str = "test";
            const VERSION: &'static str = "1.0.0";
            const WANTS: Wants = $wants;

            fn call(record: Record, config: &Self::Config, rows: &mut RowsOfRecord<'_>) -> Result<()> {
                let function: fn(Record, &Self::Config) -> _ = $function;
                crate::IntoRows::into_rows(function(record, config), rows)
            }
        }
    };
}

function!(Untouched, Wants::NOTHING, NoConfig, |record, _| record);

#[test]
fn what_is_not_touched_is_not_sent() {
    let (rows, answers) = run::<Each<Untouched>>("null", batch(3));
    assert!(
        rows.keys.is_none() && rows.values.is_none() && rows.topic_of.is_none() && rows.headers.is_none()
    );
    assert_eq!(answers.iter().map(|answer| answer.source).collect::<Vec<_>>(), [0, 1, 2]);
}

function!(OddOnes, Wants::NOTHING, NoConfig, |record, _| {
    let odd = record.topic() == "odd";
    odd.then_some(record)
});

#[test]
fn none_filters_a_record_out() {
    let (rows, answers) = run::<Each<OddOnes>>("null", batch(4));
    assert_eq!(answers, [answer(1, r#"{"n":1}"#), answer(3, r#"{"n":3}"#)]);
    assert!(rows.failures.is_empty());
}

function!(Everything, Wants { keys: true, headers: true, ..Wants::NOTHING }, NoConfig, |mut record, _| {
    let n: u32 = record.object()?.get("n")?.unwrap_or_default();
    let mut second = record.clone();
    match n {
        1 => {
            second.set_key(None);
            second.route("second");
            Ok(vec![record, second])
        }
        2 => {
            record.set_headers(vec![("new".to_owned(), None)]);
            record.set_value(None);
            Ok(vec![record])
        }
        3 => bail!("three", "the {} is three", "number"),
        _ => Ok(vec![record]),
    }
});

#[test]
fn a_column_that_begins_late_has_what_the_rows_before_it_were() {
    let (rows, answers) = run::<Each<Everything>>("null", batch(5));
    let second = Answer { key: None, topic: "second".to_owned(), ..answer(1, r#"{"n":1}"#) };
    let third = Answer { value: None, headers: vec![("new".to_owned(), None)], ..answer(2, "") };
    assert_eq!(
        answers,
        [answer(0, r#"{"n":0}"#), answer(1, r#"{"n":1}"#), second, third, answer(4, r#"{"n":4}"#)]
    );
    assert_eq!(rows.failures, [(3, Error::new("three", "the number is three"))]);
}

function!(SetsKey, Wants::NOTHING, NoConfig, |mut record, _| {
    let untouched = record.clone();
    record.set_key(None);
    [untouched, record]
});

#[test]
fn who_changes_keys_must_have_seen_them_and_no_row_of_a_failed_record_is_left() {
    let (rows, answers) = run::<Each<SetsKey>>("null", batch(2));
    assert_eq!(answers, []);
    assert_eq!(
        rows.failures.iter().map(|(record, error)| (*record, error.code())).collect::<Vec<_>>(),
        [(0, "keys_not_wanted"), (1, "keys_not_wanted")]
    );
}

function!(Fails, Wants::NOTHING, NoConfig, |_, _| -> Result<Record> { bail!("always", "it always fails") });
function!(FailsOnTombstones, Wants { tombstones: true, ..Wants::NOTHING }, NoConfig, |_,
                                                                                      _|
 -> Result<Record> {
    bail!("always", "it always fails")
});

#[test]
fn tombstones_pass_by_who_does_not_want_them() {
    let tombstone = || {
        let mut batch = batch(0);
        batch.topic_of.push(0);
        batch.values.push(None);
        batch
    };
    let (rows, answers) = run::<Each<Fails>>("null", tombstone());
    assert_eq!((answers.len(), rows.failures.len()), (1, 0));
    let (rows, answers) = run::<Each<FailsOnTombstones>>("null", tombstone());
    assert_eq!((answers.len(), rows.failures.len()), (0, 1));
}

#[derive(serde::Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Factor {
    #[serde(default = "two")]
    factor: u64,
}

fn two() -> u64 {
    2
}

#[derive(serde::Deserialize, serde::Serialize)]
struct Number {
    n: u64,
}

function!(Multiply, Wants::NOTHING, Factor, |record, config| -> Result<_> {
    let Json(Number { n }) = crate::FromRecord::from_record(record)?;
    Ok(Json(Number { n: n * config.factor }))
});

#[test]
fn records_may_be_types_and_a_config_may_be_left_out_where_all_of_it_has_defaults() {
    let (_, answers) = run::<Each<Multiply>>("null", batch(2));
    assert_eq!(answers, [answer(0, r#"{"n":0}"#), answer(1, r#"{"n":2}"#)]);
    let (_, answers) = run::<Each<Multiply>>(r#"{"factor":10}"#, batch(2));
    assert_eq!(answers[1], answer(1, r#"{"n":10}"#));
}

#[test]
fn a_wrong_config_is_told_without_its_values() {
    let started = Started::<Each<Multiply>>::not_yet();
    let error = started.init(r#"{"factor":"secret"}"#).unwrap_err();
    assert_eq!(error, "the config has another shape than expected: expected u64, at line 1 column 18");
    let error = started.transform(batch(1)).unwrap_err();
    assert_eq!(error, "the transform was not given its config");
}

#[test]
fn the_schema_of_a_config_is_that_of_its_type() {
    let schema: serde_json::Value = serde_json::from_str(&Factor::schema()).unwrap();
    assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema");
    assert_eq!(schema["additionalProperties"], false);
    assert_eq!(schema["properties"]["factor"]["default"], 2);
    assert_eq!(NoConfig::schema(), "");
}
