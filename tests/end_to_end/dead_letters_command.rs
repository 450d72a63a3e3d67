//! Dead letters counted, looked at and sent back, as users do it.

use serde_json::Value as Json;
use txconnect_local_bigquery::{Fault, Method, What};

use crate::support::events::SCHEMA;
use crate::support::{
    BigQuery, Ended, Event, Kafka, Pipeline, Running, SHORT_SESSION, Signal, Tables, Topic, event, events,
    eventually, numbers, txconnect, unique,
};

/// `txconnect dead-letters VERB FILE …`, started.
fn start(pipeline: &Pipeline, verb: &str, arguments: &[&str]) -> Running {
    let mut command = txconnect();
    command.envs(pipeline.variables());
    Running::start(command.args(["dead-letters", verb]).arg(pipeline.write()).args(arguments))
}

fn dead_letters(pipeline: &Pipeline, verb: &str, arguments: &[&str]) -> Ended {
    start(pipeline, verb, arguments).wait()
}

fn replay(pipeline: &Pipeline, arguments: &[&str]) -> Ended {
    dead_letters(pipeline, "replay", &[arguments, &["--yes"]].concat())
}

/// The causes with their counts, the most frequent first.
fn causes(pipeline: &Pipeline) -> Vec<Json> {
    lines(&dead_letters(pipeline, "list", &["--json"]).succeeded())
}

fn lines(ended: &Ended) -> Vec<Json> {
    ended.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Letters that wait and letters that were replayed, all causes together.
fn waiting_and_replayed(pipeline: &Pipeline) -> (u64, u64) {
    let sum = |name: &str| causes(pipeline).iter().map(|cause| cause[name].as_u64().unwrap()).sum();
    (sum("waiting"), sum("replayed"))
}

fn replay_group(pipeline: &Pipeline) -> String {
    format!("{}-replay", pipeline.group())
}

fn values(events: &[Event]) -> Vec<String> {
    events
        .iter()
        .map(|event| String::from_utf8_lossy(event.value.as_deref().unwrap_or_default()).into())
        .collect()
}

/// What is in the topic beyond the first `count` records.
fn beyond(topic: &Topic<'_>, count: usize) -> Vec<Event> {
    topic.read().split_off(count)
}

fn bad(number: u32) -> Event {
    Event::of(format!("{{bad {number}")).key(format!("key {number}"))
}

/// A pipeline to stdout with a topic of one partition that holds these records, run to the end.
fn run_once<'k>(kafka: &'k Kafka, name: &str, records: &[Event]) -> (Topic<'k>, Pipeline) {
    let topic = kafka.topic(name, 1);
    topic.send(records);
    let pipeline = Pipeline::into_stdout(kafka, &[&topic])
        .with("validate: { schema: schemas/event.json }")
        .with_dead_letters();
    pipeline.until_end().succeeded();
    (topic, pipeline)
}

#[test]
fn letters_are_counted_by_cause_and_listed_one_by_one_without_values() {
    let Some(kafka) = Kafka::of_the_tests() else { return };
    let records =
        [bad(0), event(1), Event::of("{\"id\":\"hunter2\"}"), bad(3), Event::of("{\"note\":\"hunter2\"}")];
    let (topic, pipeline) = run_once(&kafka, "listed", &records);
    let told = dead_letters(&pipeline, "list", &[]).succeeded();
    let told = told.says("4 dead letters: 4 waiting, 0 replayed").says("validate.required").says(&topic.name);
    assert!(!told.told().contains("hunter2"), "{}", told.told());

    let causes = causes(&pipeline);
    assert_eq!(causes.len(), 3);
    assert_eq!((&causes[0]["class"], &causes[0]["letters"]), (&"decode.json".into(), &2.into()));
    assert_eq!(causes[0]["written_by"], pipeline.name());
    let list = |arguments: &[&str]| {
        lines(&dead_letters(&pipeline, "list", &[arguments, &["--json"]].concat()).succeeded())
    };
    assert_eq!(list(&["--stage", "validate"]).len(), 2);
    assert_eq!(list(&["--class", "validate.type", "--class", "decode"]).len(), 2);
    assert_eq!(list(&["--limit", "1"]).len(), 1);
    assert_eq!(list(&["--until", "2020-01-01T00:00:00Z"]).len(), 0);
    assert_eq!(list(&["--since", "2020-01-01T00:00:00Z", "--topic", &topic.name]).len(), 3);

    let each = dead_letters(&pipeline, "list", &["--each"]).succeeded();
    assert!(!each.told().contains("hunter2"), "{}", each.told());
    assert_eq!(each.stdout.lines().count(), 4);
    let first = format!("{0}.dead-letters/0/0  waiting  ", topic.name);
    assert!(each.stdout.starts_with(&first), "{}", each.stdout);
    let record = format!("  {}/0/2  validate  validate.type  /id  ", topic.name);
    assert!(each.stdout.lines().nth(1).unwrap().contains(&record), "{}", each.stdout);
    let each = list(&["--each", "--limit", "2"]);
    assert_eq!(each.len(), 2);
    assert_eq!(each[1]["record"]["offset"], 2);
    assert_eq!(each[1]["value_bytes"], "{\"id\":\"hunter2\"}".len());
}

#[test]
fn one_letter_is_shown_by_its_own_place_and_by_that_of_its_record() {
    let Some(kafka) = Kafka::of_the_tests() else { return };
    let record = Event::of(b"{\"id\":\"\xff".to_vec()).key("customer 7").header("trace", Some(b"hunter2"));
    let (topic, pipeline) = run_once(&kafka, "shown", &[event(0), record]);
    let letter = format!("{}.dead-letters/0/0", topic.name);
    let show = |arguments: &[&str]| dead_letters(&pipeline, "show", arguments);
    let told = show(&[&letter]).succeeded().says("decode.utf8").says("trace: 7 bytes").says("8 bytes");
    assert!(!told.stdout.contains("hunter2") && !told.stdout.contains("customer"), "{}", told.stdout);
    let by_record = show(&[&format!("{}/0/1", topic.name)]).succeeded();
    assert_eq!(by_record.stdout, told.stdout);
    show(&[&letter, "--values"])
        .succeeded()
        .says("utf-8: customer 7")
        .says("base64: eyJpZCI6Iv8=")
        .says("utf-8: hunter2");
    let document = &lines(&show(&[&letter, "--values", "--json"]).succeeded())[0];
    assert_eq!(document["key"], serde_json::json!({ "encoding": "utf-8", "data": "customer 7" }));

    show(&[&format!("{}.dead-letters/0/7", topic.name)]).failed().says("holds 0 to 0");
    show(&[&format!("{}.dead-letters/9/0", topic.name)]).failed().says("there is no dead letter");
    show(&[&format!("{}/0/0", topic.name)]).failed().says("there is no dead letter");
    show(&["nobody/0/0"]).with_code(2).says("reads no topic nobody");
    show(&["nonsense"]).with_code(2).says("write TOPIC/PARTITION/OFFSET");
}

#[test]
fn a_letter_goes_back_as_the_record_was_and_says_that_it_was_replayed() {
    let Some(kafka) = Kafka::of_the_tests() else { return };
    let topic = kafka.topic("sent-back", 3);
    let record = bad(0).header("trace", Some(b"a\xffb")).header("none", None).partition(2);
    topic.send(&[record.clone(), event(1).partition(1)]);
    let pipeline = Pipeline::into_stdout(&kafka, &[&topic]).with_dead_letters();
    pipeline.until_end().succeeded();
    dead_letters(&pipeline, "replay", &["--all", "--dry-run"]).succeeded().says("1 dead letter to replay");
    dead_letters(&pipeline, "replay", &["--all"]).with_code(2).says("say --yes");
    assert_eq!(topic.read().len(), 2);

    replay(&pipeline, &["--all"]).succeeded().says("1 dead letter sent back");
    let back: Vec<Event> = topic.read().into_iter().filter(|event| event.partition == Some(2)).collect();
    let mut expected = record.clone();
    expected = expected
        .header("txconnect.replay.count", Some(b"1"))
        .header("txconnect.replay.letter", Some(format!("{}.dead-letters/2/0", topic.name).as_bytes()));
    assert_eq!(back, [record, expected]);

    // It fails again, and the next replay counts on.
    pipeline.until_end().succeeded();
    assert_eq!(waiting_and_replayed(&pipeline), (1, 1));
    replay(&pipeline, &["--all", "--most-replays", "1"])
        .succeeded()
        .says("failed each time")
        .says("no dead letter to replay");
    replay(&pipeline, &["--all"]).succeeded();
    let counts: Vec<String> = topic
        .read()
        .iter()
        .filter(|event| event.headers.iter().any(|(name, _)| name == "txconnect.replay.count"))
        .map(|event| event.header_text("txconnect.replay.count"))
        .collect();
    assert_eq!(counts, ["1", "2"]);
}

#[test]
fn the_same_selection_sends_nothing_twice_and_the_rest_still_waits() {
    let Some(kafka) = Kafka::of_the_tests() else { return };
    let records: Vec<Event> = (0..20)
        .map(
            |number| {
                if number % 2 == 0 { bad(number) } else { Event::of(format!("{{\"note\":\"{number}\"}}")) }
            },
        )
        .collect();
    let (topic, pipeline) = run_once(&kafka, "twice", &records);
    let group = replay_group(&pipeline);
    let letters = topic.dead_letters().unwrap();
    replay(&pipeline, &["--class", "validate.required"]).succeeded().says("10 dead letters sent back");
    // The letter below the first replayed one waits: the position cannot move.
    assert_eq!(letters.committed(&group), [(0, 0)].into());
    assert_eq!(waiting_and_replayed(&pipeline), (10, 10));
    let again = replay(&pipeline, &["--class", "validate"]).succeeded();
    again.says("10 letters replayed already").says("no dead letter to replay");
    assert_eq!(topic.ends().unwrap()[&0], 30);

    let place = format!("{}.dead-letters/0/2-5", topic.name);
    replay(&pipeline, &["--offset", &place]).succeeded().says("2 dead letters sent back");
    assert_eq!(values(&beyond(&topic, 30)), ["{bad 2", "{bad 4"]);
    replay(&pipeline, &["--all"]).succeeded().says("8 dead letters sent back");
    assert_eq!(letters.committed(&group), [(0, 20)].into());
    assert_eq!(waiting_and_replayed(&pipeline), (0, 20));
    replay(&pipeline, &["--all"]).succeeded().says("no dead letter to replay");
    assert_eq!(topic.ends().unwrap()[&0], 40);

    replay(&pipeline, &["--offset", &place, "--again"]).succeeded().says("4 dead letters sent back");
    assert_eq!(letters.committed(&group), [(0, 20)].into());
}

#[test]
fn what_cannot_be_remembered_is_not_sent() {
    let Some(kafka) = Kafka::of_the_tests() else { return };
    let records: Vec<Event> = (0..3_000)
        .map(|number| if number % 2 == 0 { bad(number) } else { Event::of("{\"id\":\"x\"}") })
        .collect();
    let (topic, pipeline) = run_once(&kafka, "pieces", &records);
    replay(&pipeline, &["--stage", "decode"]).failed().says("in 1499 pieces").says("nothing was sent");
    assert_eq!(topic.ends().unwrap()[&0], 3_000);
    replay(&pipeline, &["--all"]).succeeded().says("3,000 dead letters sent back");
    assert_eq!(topic.dead_letters().unwrap().committed(&replay_group(&pipeline)), [(0, 3_000)].into());
    let back = values(&beyond(&topic, 3_000));
    assert!(back == values(&records), "other records came back, or in another order");
}

#[test]
fn letters_of_others_stay_and_are_told() {
    let Some(kafka) = Kafka::of_the_tests() else { return };
    let (topic, pipeline) = run_once(&kafka, "foreign", &[bad(0), bad(1)]);
    let letters = topic.dead_letters().unwrap();
    let of_connect = |topic: &str, name: &str| {
        Event::of("hunter2")
            .header("__connect.errors.topic", Some(topic.as_bytes()))
            .header("__connect.errors.partition", Some(b"0"))
            .header("__connect.errors.offset", Some(b"7"))
            .header("__connect.errors.connector.name", Some(name.as_bytes()))
            .header("__connect.errors.stage", Some(b"VALUE_CONVERTER"))
            .header("__connect.errors.exception.message", Some(b"cannot convert hunter2"))
    };
    letters.send(&[
        Event::of("nobody knows why"),
        of_connect("orders", "jdbc-sink"),
        of_connect("elsewhere", pipeline.name()),
        Event::tombstone("gone").header("__connect.errors.topic", Some(b"\xff\xfe")),
        of_connect(&topic.name, pipeline.name()),
    ]);
    let told = dead_letters(&pipeline, "list", &[]).succeeded();
    let told = told.says("7 dead letters").says("jdbc-sink").says("VALUE_CONVERTER").says("3 of others");
    assert!(!told.told().contains("hunter2"), "{}", told.told());
    let each = dead_letters(&pipeline, "list", &["--each"]).succeeded();
    assert!(!each.told().contains("hunter2"), "{}", each.told());
    let place = format!("{}.dead-letters/0/3", topic.name);
    dead_letters(&pipeline, "show", &[&place, "--values"]).succeeded().says("cannot convert hunter2");

    let sent = replay(&pipeline, &["--all"]).succeeded().says("3 dead letters sent back");
    let sent = sent.says("1 letter left to those who have written them: jdbc-sink");
    let sent = sent.says("2 letters left because their headers do not say where they came from");
    sent.says("1 letter left because the pipeline does not read their topics: elsewhere");
    assert_eq!(values(&beyond(&topic, 2)), ["{bad 0", "{bad 1", "hunter2"]);
    // The one from a topic that may be read one day waits: the position stays below it.
    assert_eq!(letters.committed(&replay_group(&pipeline)), [(0, 2)].into());
    letters.send(&[of_connect("orders", "jdbc-sink"), of_connect(&topic.name, pipeline.name())]);
    let place = format!("{}.dead-letters/0/8", topic.name);
    replay(&pipeline, &["--offset", &place]).succeeded();
    assert_eq!(waiting_and_replayed(&pipeline), (1, 4));
}

#[test]
fn two_replays_at_once_are_refused() {
    let Some(kafka) = Kafka::of_the_tests() else { return };
    let (topic, pipeline) = run_once(&kafka, "at-once", &[bad(0)]);
    let group = replay_group(&pipeline);
    // The membership is what counts, whoever has it.
    let elsewhere = kafka.topic("elsewhere", 1);
    let other = Pipeline::into_stdout(&kafka, &[&elsewhere]).source(&format!("group: {group}"));
    let running = other.start(&[]);
    eventually("the group has a member", || (kafka.members(&group) > 0).then_some(()));
    let refused = replay(&pipeline, &["--all"]).failed();
    refused.says("another replay of this pipeline is under way").says("nothing was sent");
    dead_letters(&pipeline, "list", &[]).succeeded();
    dead_letters(&pipeline, "replay", &["--all", "--dry-run"]).succeeded();
    assert_eq!(topic.ends().unwrap()[&0], 1);
    running.terminate().succeeded();
    replay(&pipeline, &["--all"]).succeeded().says("1 dead letter sent back");
}

#[test]
fn what_is_remembered_must_be_certain() {
    let Some(kafka) = Kafka::of_the_tests() else { return };
    let (topic, pipeline) = run_once(&kafka, "certain", &[bad(0), bad(1)]);
    let letters = topic.dead_letters().unwrap();
    let group = replay_group(&pipeline);
    replay(&pipeline, &["--all"]).succeeded();
    let named_differently = Pipeline::into_stdout(&kafka, &[&topic])
        .source(&format!("group: {}", pipeline.group()))
        .with_dead_letters();
    replay(&named_differently, &["--all"])
        .failed()
        .says(&format!("replays of the pipeline {}", pipeline.name()));
    letters.commit_with(&group, 1, "somebody's own words");
    dead_letters(&pipeline, "list", &[]).succeeded().says("another tool has written beside the position");
    replay(&pipeline, &["--all"]).failed().says("another tool").says("kafka-consumer-groups");
    letters.commit_with(&group, 1, "{\"replayed\":9}");
    replay(&pipeline, &["--all"]).failed().says("a newer txconnect");
    letters.commit(&group, 1);
    replay(&pipeline, &["--all"]).succeeded().says("1 dead letter sent back");

    letters.make_anew();
    letters.send(&[Event::of("{")
        .header("__connect.errors.topic", Some(topic.name.as_bytes()))
        .header("__connect.errors.connector.name", Some(pipeline.name().as_bytes()))]);
    replay(&pipeline, &["--all"]).succeeded().says("1 dead letter sent back");
}

#[test]
fn a_pattern_finds_the_dead_letters_of_all_its_topics_and_retention_is_no_trouble() {
    let Some(kafka) = Kafka::of_the_tests() else { return };
    let prefix = unique("found");
    let topics: Vec<Topic<'_>> =
        ["a", "b", "c"].iter().map(|name| kafka.make(format!("{prefix}.{name}"), 2)).collect();
    for topic in &topics[..2] {
        topic.send(&[bad(0).partition(0), bad(1).partition(1), bad(2).partition(1)]);
    }
    let pattern = format!("pattern: '{}\\..*'", prefix.replace('.', "\\."));
    let pipeline = Pipeline::into_stdout(&kafka, &[]).topics(&pattern).with_dead_letters();
    pipeline.until_end().succeeded();
    assert_eq!(waiting_and_replayed(&pipeline), (6, 0));
    let one = ["--topic", &topics[1].name, "--json"];
    assert_eq!(lines(&dead_letters(&pipeline, "list", &one).succeeded())[0]["letters"], 3);
    topics[0].dead_letters().unwrap().delete_below(1);
    replay(&pipeline, &["--all"]).succeeded().says("4 dead letters sent back");
    assert_eq!(waiting_and_replayed(&pipeline), (0, 4));
    dead_letters(&pipeline, "list", &["--topic", "else"]).with_code(2).says("reads no topic else");
}

#[test]
fn large_letters_and_tombstones_go_back_and_what_no_longer_fits_stays() {
    let Some(kafka) = Kafka::of_the_tests() else { return };
    let large = |bytes: usize| Event::of(vec![b'x'; bytes]);
    let (topic, pipeline) = run_once(&kafka, "large", &[large(9 << 20), bad(1)]);
    let letters = topic.dead_letters().unwrap();
    let ours = |event: Event| {
        event
            .header("__connect.errors.topic", Some(topic.name.as_bytes()))
            .header("__connect.errors.connector.name", Some(pipeline.name().as_bytes()))
    };
    letters.send(&[ours(Event::tombstone("gone"))]);
    replay(&pipeline, &["--all"]).succeeded().says("3 dead letters sent back");
    let back = beyond(&topic, 2);
    assert!(back[0].value.as_ref().is_some_and(|value| value.len() == 9 << 20));
    assert_eq!((&back[2].value, back[2].key.as_deref()), (&None, Some(&b"gone"[..])));

    let narrow = kafka.make_narrow(unique("narrow"), 5_000);
    let pipeline = Pipeline::into_stdout(&kafka, &[&narrow]).with_dead_letters();
    let letters = kafka.make(format!("{}.dead-letters", narrow.name), 1);
    let ours = |event: Event| {
        event
            .header("__connect.errors.topic", Some(narrow.name.as_bytes()))
            .header("__connect.errors.connector.name", Some(pipeline.name().as_bytes()))
    };
    letters.send(&[ours(bad(0)), ours(large(20_000)), ours(bad(2))]);
    replay(&pipeline, &["--all"])
        .failed()
        .says("/0/1 stays")
        .says("max.message.bytes")
        .says("2 dead letters sent back");
    assert_eq!(values(&narrow.read()), ["{bad 0", "{bad 2"]);
    assert_eq!(waiting_and_replayed(&pipeline), (1, 2));
}

#[test]
fn a_killed_replay_loses_nothing_and_the_next_one_sends_the_rest() {
    let Some(kafka) = Kafka::of_the_tests() else { return };
    let count = 60_000;
    let records: Vec<Event> = (0..count).map(bad).collect();
    let topic = kafka.topic("killed", 1);
    topic.send(&records);
    let pipeline = Pipeline::into_stdout(&kafka, &[&topic]).source(SHORT_SESSION).with_dead_letters();
    pipeline.until_end().succeeded();
    let mut running = start(&pipeline, "replay", &["--all", "--yes"]);
    eventually("some letters are sent back", || {
        (topic.ends()?[&0] > i64::from(count) + 500 || !running.is_running()).then_some(())
    });
    running.signal(Signal::Kill);
    drop(running);
    let group = replay_group(&pipeline);
    eventually("the session of the killed one is over", || (kafka.members(&group) == 0).then_some(()));
    replay(&pipeline, &["--all"]).succeeded();
    let mut back = values(&beyond(&topic, usize::try_from(count).unwrap()));
    back.sort_unstable();
    back.dedup();
    let mut expected = values(&records);
    expected.sort_unstable();
    assert!(back == expected, "{} of {count} came back", back.len());
    assert_eq!(waiting_and_replayed(&pipeline), (0, u64::from(count)));
}

#[test]
fn a_frozen_replay_that_wakes_up_late_overwrites_nothing() {
    let Some(kafka) = Kafka::of_the_tests() else { return };
    let count = 60_000;
    let topic = kafka.topic("frozen", 1);
    topic.send(&(0..count).map(bad).collect::<Vec<_>>());
    let pipeline = Pipeline::into_stdout(&kafka, &[&topic]).source(SHORT_SESSION).with_dead_letters();
    pipeline.until_end().succeeded();
    let mut frozen = start(&pipeline, "replay", &["--all", "--yes"]);
    eventually("some letters are sent back", || {
        (topic.ends()?[&0] > i64::from(count) || !frozen.is_running()).then_some(())
    });
    frozen.signal(Signal::Stop);
    let group = replay_group(&pipeline);
    eventually("the session of the frozen one is over", || (kafka.members(&group) == 0).then_some(()));
    let was_through = topic.ends().unwrap()[&0] >= 2 * i64::from(count);
    replay(&pipeline, &["--all"]).succeeded();
    let remembered = topic.dead_letters().unwrap().committed(&group);
    assert_eq!(remembered, [(0, i64::from(count))].into());
    frozen.signal(Signal::Continue);
    let ended = frozen.wait();
    if !was_through {
        ended.failed();
    }
    assert_eq!(topic.dead_letters().unwrap().committed(&group), remembered);
    assert_eq!(waiting_and_replayed(&pipeline), (0, u64::from(count)));
}

#[test]
fn a_signal_ends_a_replay_with_what_it_has_done_remembered() {
    let Some(kafka) = Kafka::of_the_tests() else { return };
    let count = 50_000;
    let topic = kafka.topic("signalled", 1);
    topic.send(&(0..count).map(bad).collect::<Vec<_>>());
    let pipeline = Pipeline::into_stdout(&kafka, &[&topic]).with_dead_letters();
    pipeline.until_end().succeeded();
    let running = start(&pipeline, "replay", &["--all", "--yes"]);
    eventually("some letters are sent back", || (topic.ends()?[&0] > i64::from(count)).then_some(()));
    let ended = running.terminate();
    let sent = topic.ends().unwrap()[&0] - i64::from(count);
    let position = topic.dead_letters().unwrap().committed(&replay_group(&pipeline))[&0];
    assert_eq!(position, sent, "{}", ended.told());
    if sent < i64::from(count) {
        ended.failed().says("ended by a signal");
        replay(&pipeline, &["--all"]).succeeded();
    }
    assert_eq!(topic.ends().unwrap()[&0], 2 * i64::from(count));
}

#[test]
fn a_mended_pipeline_takes_what_was_sent_back_while_it_runs() {
    let Some(kafka) = Kafka::of_the_tests() else { return };
    let topic = kafka.topic("mended", 1);
    topic.send(&[event(0), Event::of("{\"note\":\"event 1\"}"), event(2)]);
    let pipeline = Pipeline::into_stdout(&kafka, &[&topic])
        .with("validate: { schema: schemas/event.json }")
        .with_dead_letters();
    assert_eq!(pipeline.until_end().succeeded().stdout.lines().count(), 2);
    let pipeline = pipeline.event_schema("{\"type\":\"object\"}");
    let mut running = pipeline.start(&[]);
    running.wait_for_talk("assigned");
    replay(&pipeline, &["--all"]).succeeded();
    let group = pipeline.group();
    eventually("what was sent back is read", || (topic.committed(&group).get(&0) == Some(&4)).then_some(()));
    let ended = running.terminate().succeeded();
    assert_eq!(ended.stdout, "{\"note\":\"event 1\"}\n");
}

#[test]
fn what_is_not_there_or_not_clear_is_said() {
    let Some(kafka) = Kafka::of_the_tests() else { return };
    let topic = kafka.topic("nothing", 1);
    topic.send(&events(0..3, 1));
    let plain = Pipeline::into_stdout(&kafka, &[&topic]);
    dead_letters(&plain, "list", &[]).with_code(2).says("writes no dead letters");
    let pipeline = plain.with_dead_letters();
    let missing = format!("no dead letter topic {}.dead-letters", topic.name);
    dead_letters(&pipeline, "list", &[]).succeeded().says(&missing).says("0 dead letters");
    replay(&pipeline, &["--all"]).succeeded().says(&missing).says("no dead letter to replay");
    dead_letters(&pipeline, "show", &[&format!("{}.dead-letters/0/0", topic.name)])
        .failed()
        .says("there is no dead letter");
    for (arguments, words) in [
        (&["--yes"][..], "which letters?"),
        (&["--all", "--class", "decode"], "--all means every letter"),
        (&["--all", "--yes", "--dry-run"], "cannot be used with"),
        (&["--offset", "elsewhere/0/1"], "is no partition of a dead letter topic"),
        (&["--offset", "elsewhere"], "write TOPIC/PARTITION/OFFSET"),
        (&["--since", "yesterday"], "write a time"),
    ] {
        dead_letters(&pipeline, "replay", arguments).with_code(2).says(words);
    }
    let away = Pipeline::new("127.0.0.1:1", "topics: [t]", "stdout").with_dead_letters();
    for (verb, arguments) in [("list", &[][..]), ("show", &["t/0/0"]), ("replay", &["--all", "--yes"])] {
        dead_letters(&away, verb, arguments).failed().says("no Kafka broker of `127.0.0.1:1` answers");
    }
}

/// Refuses the ids below 100.
const STRICT: &str = r#"{
    "type": "object",
    "properties": { "id": { "type": "integer", "minimum": 100 }, "note": { "type": "string" } },
    "required": ["id"],
    "additionalProperties": false
}"#;

#[test]
fn letters_go_through_a_mended_pipeline_into_the_tables_of_their_topics() {
    let Some(kafka) = Kafka::of_the_tests() else { return };
    let tables = Tables::new();
    let topics = [kafka.topic("through-a", 2), kafka.topic("through-b", 1)];
    for topic in &topics {
        topic.send(&events(0..10, topic.partitions));
    }
    topics[0].send(&[bad(10).partition(1), event(100).partition(0)]);
    let pipeline = Pipeline::into_postgres(&kafka, &tables, &[&topics[0], &topics[1]])
        .event_schema(STRICT)
        .with_dead_letters();
    pipeline.until_end().succeeded();
    assert_eq!(tables.ids(&topics[0].name), numbers(100..101));
    let positions = tables.positions(&pipeline, &topics[0].name);
    let through = ["--all", "--to", "pipeline"];
    replay(&pipeline, &through)
        .failed()
        .says("20 letters failed again")
        .says("validate.minimum")
        .says("21 letters stay");
    assert_eq!(waiting_and_replayed(&pipeline), (21, 0));

    let pipeline = pipeline.event_schema(SCHEMA);
    let ended = replay(&pipeline, &through).failed().says("20 dead letters through the pipeline");
    ended.says("1 letter failed again").says("decode: decode.json").says("1 letter stays");
    assert_eq!(tables.ids(&topics[0].name), numbers((0..10).chain([100])));
    assert_eq!(tables.ids(&topics[1].name), numbers(0..10));
    assert_eq!(waiting_and_replayed(&pipeline), (1, 20));
    replay(&pipeline, &["--class", "validate", "--to", "pipeline"])
        .succeeded()
        .says("no dead letter to replay");
    // Neither topics nor positions have moved: a further run has nothing to do.
    assert_eq!(topics[0].ends().unwrap().values().sum::<i64>(), 12);
    assert_eq!(tables.positions(&pipeline, &topics[0].name), positions);
    assert_eq!(pipeline.until_end().succeeded().books().read, 0);
}

#[test]
fn rows_that_the_sink_refuses_again_stay_and_a_sink_that_is_away_is_waited_for() {
    let Some(kafka) = Kafka::of_the_tests() else { return };
    let reject = |note: &str| {
        Fault::new(Method::InsertAll, What::RejectValue { field: "note".to_owned(), value: note.into() })
    };
    let bigquery = BigQuery::failing(vec![reject("event 3"), reject("event 7")]);
    let topic = kafka.topic("refused-again", 1);
    topic.send(&events(0..10, 1));
    let pipeline = Pipeline::into_bigquery(&kafka, &bigquery, &[&topic]).with_dead_letters();
    pipeline.until_end().succeeded();
    assert_eq!(waiting_and_replayed(&pipeline), (2, 0));

    let away = What::Error {
        status: 503,
        reason: "backendError".into(),
        message: "later".into(),
        retry_after: None,
    };
    let other = BigQuery::failing(vec![Fault::new(Method::InsertAll, away).times(3), reject("event 7")]);
    let pipeline = pipeline.environment("BIGQUERY_EMULATOR_HOST", &other.address());
    let ended = replay(&pipeline, &["--stage", "write", "--to", "pipeline"]).failed();
    let ended = ended.says("the sink is away, trying again").says("1 dead letter through the pipeline");
    ended.says("1 letter failed again").says("write: bigquery.invalid").says("1 letter stays");
    assert_eq!(other.ids(&topic.name), numbers([3]));
    assert_eq!(waiting_and_replayed(&pipeline), (1, 1));
}

#[test]
fn rows_of_letters_are_alone_on_the_standard_output() {
    let Some(kafka) = Kafka::of_the_tests() else { return };
    let (_topic, pipeline) =
        run_once(&kafka, "lines", &[event(0), Event::of("{\"note\":\"hunter\"}"), event(2)]);
    let pipeline = pipeline.event_schema("{\"type\":\"object\"}");
    let ended = replay(&pipeline, &["--all", "--to", "pipeline"]).succeeded();
    assert_eq!(ended.stdout, "{\"note\":\"hunter\"}\n");
    ended.says("1 dead letter through the pipeline");
}
