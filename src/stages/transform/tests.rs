//! Chains of native functions against what they must do to records one by one.

use std::collections::BTreeSet;

use std::time::Duration;

use proptest::prelude::*;
use txconnect_connector_api::BadRecord;
use txconnect_transform_host::{
    Batch, CallError, Column, Columns, Headers, InitError, InputRecord, Needs, Output, RecordFailure,
};

use super::*;

/// What a fake guest does with a record, by the number that its value begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Deed {
    Keep,
    Drop,
    /// As many rows, with other values.
    Split(u32),
    /// Another topic and key.
    Route,
    /// Other headers.
    Mark,
    /// The guest says itself that it is bad.
    Refuse,
    /// The guest dies.
    Trap,
}

/// A guest that has a deed for each record.
#[derive(Clone, Debug)]
struct Fake {
    name: String,
    deeds: Vec<Deed>,
    max_failures: u32,
    /// The time of each call.
    times: Vec<Duration>,
    does_not_start: bool,
}

impl Fake {
    fn new(name: &str, deeds: &[Deed]) -> Self {
        Self {
            name: name.to_owned(),
            deeds: deeds.to_vec(),
            max_failures: u32::MAX,
            times: Vec::new(),
            does_not_start: false,
        }
    }
}

/// The record that a value belongs to.
fn number(value: &[u8]) -> usize {
    let text = std::str::from_utf8(value).unwrap();
    text.split('/').next().unwrap().parse().unwrap()
}

impl Guest for Fake {
    type Replacement = Fake;

    fn name(&self) -> &str {
        &self.name
    }

    fn needs(&self) -> Needs {
        Needs { keys: true, headers: true, positions: false }
    }

    fn time_per_batch(&self) -> Duration {
        Duration::from_secs(1)
    }

    fn max_failures(&self) -> u32 {
        self.max_failures
    }

    fn call(&mut self, batch: &Batch, time: Duration) -> Result<Output, CallError> {
        self.times.push(time);
        if self.does_not_start {
            return Err(InitError { name: self.name.clone(), why: "no".into() }.into());
        }
        let values: Vec<&[u8]> = (0..batch.len()).map(|index| batch.values().get(index).unwrap()).collect();
        let deeds: Vec<Deed> = values.iter().map(|value| self.deeds[number(value)]).collect();
        if deeds.contains(&Deed::Trap) {
            let backtrace = Some("at guest".to_owned());
            return Err(CallError::Trap { message: "unreachable".into(), backtrace });
        }
        let has = |wanted: fn(&Deed) -> bool| deeds.iter().any(wanted);
        let mut columns = Columns::default();
        let mut new_values = has(|deed| matches!(deed, Deed::Split(_))).then(Column::default);
        let mut new_keys = has(|deed| *deed == Deed::Route).then(Column::default);
        let mut new_headers = has(|deed| *deed == Deed::Mark).then(Headers::default);
        let mut topics = has(|deed| *deed == Deed::Route).then(|| (Vec::<String>::new(), Vec::<u32>::new()));
        for (index, (value, deed)) in values.iter().zip(&deeds).enumerate() {
            let source = u32::try_from(index).unwrap();
            let rows = match deed {
                Deed::Drop => 0,
                Deed::Refuse => {
                    let (code, message) = ("no".to_owned(), "I do not want it".to_owned());
                    columns.failures.push(RecordFailure { record: source, code, message });
                    0
                }
                Deed::Split(rows) => *rows,
                _ => 1,
            };
            for row in 0..rows {
                columns.sources.push(source);
                let changed = [value, &b"/"[..], row.to_string().as_bytes()].concat();
                let splits = matches!(deed, Deed::Split(_));
                if let Some(values) = &mut new_values {
                    values.push(Some(if splits { &changed } else { value }));
                }
                let routes = *deed == Deed::Route;
                if let Some(keys) = &mut new_keys {
                    keys.push(if routes { Some(self.name.as_bytes()) } else { batch.keys().get(index) });
                }
                if let Some((names, of)) = &mut topics {
                    let name = if routes { self.name.clone() } else { batch.topic(index).to_owned() };
                    of.push(u32::try_from(names.len()).unwrap());
                    names.push(name);
                }
                if let Some(headers) = &mut new_headers {
                    if *deed == Deed::Mark {
                        headers.counts.push(1);
                        headers.names.push(Some(self.name.as_bytes()));
                        headers.values.push(None);
                    } else {
                        // The fake's records have one header each.
                        headers.counts.push(1);
                        headers.names.push(batch.headers().names.get(index));
                        headers.values.push(batch.headers().values.get(index));
                    }
                }
            }
        }
        columns.keys = new_keys;
        columns.values = new_values;
        columns.topics = topics;
        columns.headers = new_headers;
        Ok(Output::checked(columns, batch.len(), 1000).unwrap())
    }

    fn replace(&mut self, by: &Fake) -> Result<(), InitError> {
        if by.does_not_start {
            return Err(InitError { name: by.name.clone(), why: "no".into() });
        }
        *self = by.clone();
        Ok(())
    }
}

/// Records whose values are their numbers, in turn of two topics.
struct Numbers(Vec<String>);

impl Numbers {
    fn new(count: usize) -> Self {
        Self((0..count).map(|number| number.to_string()).collect())
    }
}

impl Input for Numbers {
    fn record(&self, index: usize) -> InputRecord<'_> {
        InputRecord {
            topic: if index.is_multiple_of(2) { "even" } else { "odd" },
            partition: 0,
            offset: 0,
            timestamp: None,
            key: None,
            value: Some(self.0[index].as_bytes()),
        }
    }

    fn headers(&self, _: usize) -> impl Iterator<Item = (&str, Option<&[u8]>)> {
        [("own", None)].into_iter()
    }
}

/// A row as text: topic, key, value, name of the header.
type Seen = (String, Option<String>, String, String);

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// Everything that comes out, record by record.
fn drive(chain: &mut Chain<Fake>, count: usize) -> Result<Vec<Result<Vec<Seen>, BadRecord>>, ChainFailure> {
    let input = Numbers::new(count);
    chain.begin(count);
    let mut all = Vec::new();
    loop {
        match chain.step(&input)? {
            Step::Done => return Ok(all),
            Step::Again => {}
            Step::Part(mut part) => {
                assert_eq!(part.records().start, all.len(), "records stay in order");
                while let Some(outcome) = part.take_next() {
                    let record = input.record(all.len());
                    all.push(match outcome {
                        Outcome::Bad(why) => Err(why),
                        Outcome::Rows(rows) => Ok(rows
                            .map(|index| {
                                let row = part.row(index);
                                let header = row.headers().map_or("own", |mut all| all.next().unwrap().0);
                                (
                                    row.topic().unwrap_or(record.topic).to_owned(),
                                    row.key().unwrap_or(record.key).map(text),
                                    text(row.value().unwrap_or(record.value).unwrap()),
                                    header.to_owned(),
                                )
                            })
                            .collect()),
                    });
                }
            }
        }
    }
}

/// The same, one record and one deed at a time: the class where it is bad.
fn model(guests: &[Fake], record: usize) -> Result<Vec<Seen>, String> {
    let topic = if record.is_multiple_of(2) { "even" } else { "odd" };
    let mut rows: Vec<Seen> = vec![(topic.to_owned(), None, record.to_string(), "own".to_owned())];
    for guest in guests {
        if rows.is_empty() {
            return Ok(rows);
        }
        rows = match guest.deeds[record] {
            Deed::Keep => rows,
            Deed::Drop => Vec::new(),
            Deed::Refuse => return Err("transform.no".to_owned()),
            Deed::Trap => return Err("transform.trap".to_owned()),
            Deed::Split(parts) => rows
                .iter()
                .flat_map(|row| {
                    (0..parts).map(|part| {
                        (row.0.clone(), row.1.clone(), format!("{}/{part}", row.2), row.3.clone())
                    })
                })
                .collect(),
            Deed::Route => rows
                .into_iter()
                .map(|row| (guest.name.clone(), Some(guest.name.clone()), row.2, row.3))
                .collect(),
            Deed::Mark => rows.into_iter().map(|row| (row.0, row.1, row.2, guest.name.clone())).collect(),
        };
    }
    Ok(rows)
}

fn classes(outcomes: &[Result<Vec<Seen>, BadRecord>]) -> Vec<Result<Vec<Seen>, String>> {
    let class =
        |outcome: &Result<Vec<Seen>, BadRecord>| outcome.clone().map_err(|why| why.class.into_owned());
    outcomes.iter().map(class).collect()
}

fn calls(chain: &Chain<Fake>, link: usize) -> &[Duration] {
    &chain.guest(link).times
}

#[test]
fn an_empty_chain_leaves_every_record_as_it_is() {
    let mut chain = Chain::new(Vec::new());
    let seen = drive(&mut chain, 3).unwrap();
    assert_eq!(seen[2], Ok(vec![("even".into(), None, "2".into(), "own".into())]));
    assert_eq!(drive(&mut chain, 0), Ok(Vec::new()));
}

#[test]
fn a_batch_without_failures_is_one_call_for_each_transform() {
    let deeds = [Deed::Keep; 100];
    let mut chain = Chain::new(vec![Fake::new("a", &deeds), Fake::new("b", &deeds)]);
    assert_eq!(drive(&mut chain, 100).unwrap().len(), 100);
    assert_eq!((calls(&chain, 0).len(), calls(&chain, 1).len()), (1, 1));
}

#[test]
fn the_guilty_record_alone_is_bad_with_its_backtrace() {
    let mut deeds = [Deed::Keep; 500];
    deeds[321] = Deed::Trap;
    let mut chain = Chain::new(vec![Fake::new("mask", &deeds)]);
    let seen = drive(&mut chain, 500).unwrap();
    let bad: Vec<usize> = (0..500).filter(|index| seen[*index].is_err()).collect();
    assert_eq!(bad, [321]);
    let why = seen[321].clone().unwrap_err();
    assert_eq!((&*why.class, &*why.message), ("transform.trap", "the transform mask failed: unreachable"));
    assert_eq!(why.trace.as_deref(), Some("at guest"));
    // Nine halvings, two calls each, and the first.
    assert!(calls(&chain, 0).len() <= 19, "{}", calls(&chain, 0).len());
    let times = calls(&chain, 0);
    assert_eq!((times[0], times[1]), (Duration::from_secs(1), Duration::from_millis(500)));
    assert!(times.iter().all(|time| *time >= Duration::from_millis(50)));
}

#[test]
fn all_rows_of_a_record_fall_with_one_of_them() {
    let splits = [Deed::Split(3), Deed::Split(2)];
    for (second, class) in [(Deed::Trap, "transform.trap"), (Deed::Refuse, "transform.no")] {
        let mut chain = Chain::new(vec![Fake::new("a", &splits), Fake::new("b", &[second, Deed::Keep])]);
        let seen = drive(&mut chain, 2).unwrap();
        assert_eq!(seen[0].clone().unwrap_err().class, class);
        assert_eq!(seen[1].clone().unwrap().len(), 2);
    }
}

#[test]
fn too_many_failures_in_a_row_end_it_with_the_name_and_the_reason() {
    let mut guest = Fake::new("mask", &[Deed::Trap; 9]);
    guest.max_failures = 3;
    let failure = drive(&mut Chain::new(vec![guest.clone()]), 9).unwrap_err();
    assert_eq!(
        failure.to_string(),
        "the transform mask has failed at 4 records in a row, at the last: unreachable"
    );
    // As many, but not in a row.
    for index in [2, 4, 6, 8] {
        guest.deeds[index] = Deed::Keep;
    }
    assert!(drive(&mut Chain::new(vec![guest]), 9).is_ok());
}

#[test]
fn a_guest_that_does_not_start_again_ends_it() {
    let mut guest = Fake::new("mask", &[Deed::Keep]);
    guest.does_not_start = true;
    assert!(matches!(drive(&mut Chain::new(vec![guest]), 1), Err(ChainFailure::Init(_))));
}

#[test]
fn a_swapped_guest_takes_over_with_the_next_batch() {
    let mut chain = Chain::new(vec![Fake::new("old", &[Deed::Keep; 4])]);
    drive(&mut chain, 4).unwrap();
    let mut broken = Fake::new("broken", &[Deed::Drop; 4]);
    broken.does_not_start = true;
    assert!(chain.swap(0, &broken).is_err());
    assert_eq!(drive(&mut chain, 4).unwrap()[0].clone().unwrap().len(), 1, "the old one goes on");
    chain.swap(0, &Fake::new("new", &[Deed::Drop; 4])).unwrap();
    assert_eq!(drive(&mut chain, 4).unwrap(), vec![Ok(Vec::new()); 4]);
}

#[test]
fn a_large_batch_is_given_in_parts() {
    struct Large(Vec<u8>);
    impl Input for Large {
        fn record(&self, index: usize) -> InputRecord<'_> {
            let (topic, partition, offset) = ("t", 0, i64::try_from(index).unwrap());
            InputRecord { topic, partition, offset, timestamp: None, key: None, value: Some(&self.0) }
        }
        fn headers(&self, _: usize) -> impl Iterator<Item = (&str, Option<&[u8]>)> {
            std::iter::empty()
        }
    }
    let mut value = b"0/".to_vec();
    value.resize(3 << 20, b'x');
    let mut chain = Chain::new(vec![Fake::new("a", &[Deed::Keep])]);
    chain.begin(7);
    let mut ends = Vec::new();
    loop {
        match chain.step(&Large(value.clone())).unwrap() {
            Step::Part(part) => ends.push(part.records()),
            Step::Again => {}
            Step::Done => break,
        }
    }
    assert_eq!(ends, [0..3, 3..6, 6..7]);
}

fn any_deed() -> impl Strategy<Value = Deed> {
    prop_oneof![
        6 => Just(Deed::Keep),
        1 => Just(Deed::Drop),
        1 => (1_u32..4).prop_map(Deed::Split),
        1 => Just(Deed::Route),
        1 => Just(Deed::Mark),
        1 => Just(Deed::Refuse),
        1 => Just(Deed::Trap),
    ]
}

proptest! {
    /// Whatever the guests do: what comes out of a chain is what comes out record by record, in their order, and the
    /// number of calls is bounded.
    #[test]
    fn a_chain_does_to_batches_what_it_does_to_records(
        deeds in prop::collection::vec(prop::collection::vec(any_deed(), 40), 1..4),
        count in 0_usize..40,
    ) {
        let names = ["a", "b", "c"];
        let guests: Vec<Fake> =
            deeds.iter().zip(names).map(|(deeds, name)| Fake::new(name, deeds)).collect();
        let mut chain = Chain::new(guests.clone());
        let seen = classes(&drive(&mut chain, count).unwrap());
        let expected: Vec<_> = (0..count).map(|record| model(&guests, record)).collect();
        prop_assert_eq!(seen, expected);
        let mut parts = 1;
        for (link, deeds) in deeds.iter().enumerate() {
            let traps: BTreeSet<usize> = (0..count).filter(|record| deeds[*record] == Deed::Trap).collect();
            // Each guilty record costs two calls for each halving, on top of one for each part that comes in.
            prop_assert!(calls(&chain, link).len() <= parts + 2 * 6 * traps.len());
            parts = (parts + 2 * 6 * traps.len()).min(count.max(1));
        }
    }
}
