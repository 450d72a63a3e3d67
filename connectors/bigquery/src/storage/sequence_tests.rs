use proptest::prelude::*;
use txconnect_connector_api::{Number, TimeUnit, Value};

use super::super::wire::WireType;
use super::*;

fn record(topic: &str, partition: i32, offset: i64, timestamp: Option<i64>) -> Record<'_> {
    Record { topic, partition, offset, row: 0, timestamp, key: None, headers: &[], value: Value::Tombstone }
}

/// The text of the field.
fn text(sequence: &Sequence, record: &Record<'_>, rank: Option<Rank>) -> String {
    let mut out = Vec::new();
    sequence.write(record, rank, &mut out);
    assert_eq!((out[0], usize::from(out[1])), (0x0a, out.len() - 2));
    String::from_utf8(out[2..].to_vec()).unwrap()
}

fn sequence(newest: Newest) -> Sequence {
    Sequence::new(Tag::new(0, WireType::Delimited), newest)
}

/// The numbers of a text, as BigQuery reads them: what is not there is 0.
fn numbers(text: &str) -> [u64; 4] {
    let mut numbers = [0; 4];
    for (index, section) in text.split('/').enumerate() {
        assert!((1..=16).contains(&section.len()), "{text}");
        numbers[index] = u64::from_str_radix(section, 16).unwrap();
    }
    numbers
}

/// The numbers for a value of a column, at one position.
fn of_column(plan: &ValuePlan<()>, document: Option<&Document<'_>>, partition: i32, offset: i64) -> [u64; 4] {
    let rank = rank(plan, document, FinerTimes::BadRecord).unwrap();
    numbers(&text(&sequence(Newest::Column(0)), &record("t", partition, offset, None), Some(rank)))
}

#[test]
fn the_text_has_no_more_digits_than_it_needs() {
    let offset = sequence(Newest::Offset);
    assert_eq!(text(&offset, &record("t", 3, 1_000_000, Some(5)), None), "3/F4240");
    assert_eq!(text(&offset, &record("t", 0, 0, None), None), "0/0");
    let timestamp = sequence(Newest::Timestamp);
    assert_eq!(text(&timestamp, &record("t", 3, 7, Some(1_763_900_000_123)), None), "19AB0A2077C/3/7");
    assert_eq!(text(&timestamp, &record("t", 3, 8, None), None), "0/3/8");
    let largest = record("t", i32::MAX, i64::MAX, Some(i64::MAX));
    assert_eq!(text(&timestamp, &largest, None), "8000000000000000/7FFFFFFF/7FFFFFFFFFFFFFFF");
}

#[test]
fn rows_of_one_record_are_ordered_as_they_come() {
    let rows = |newest, rank| {
        let at = |row| Record { row, ..record("t", 1, 9, Some(4)) };
        [0, 1, 2, u32::MAX].map(|row| text(&sequence(newest), &at(row), rank))
    };
    assert_eq!(rows(Newest::Offset, None), ["1/9", "1/9/1", "1/9/2", "1/9/FFFFFFFF"]);
    assert_eq!(rows(Newest::Timestamp, None), ["5/1/9", "5/1/9/1", "5/1/9/2", "5/1/9/FFFFFFFF"]);
    assert_eq!(
        rows(Newest::Column(0), Some(Rank::Narrow(10))),
        ["A/1/9", "A/1/9/1", "A/1/9/2", "A/1/9/FFFFFFFF"]
    );
}

#[test]
fn a_decimal_leaves_room_for_the_whole_position() {
    let largest = Rank::Wide(u128::MAX);
    let sequence = sequence(Newest::Column(0));
    let at = record("t", i32::MAX, i64::MAX, None);
    assert_eq!(
        text(&sequence, &at, Some(largest)),
        "FFFFFFFFFFFFFFFF/FFFFFFFFFFFFFFFF/7FFFFFFF7FFFFFFF/FFFFFFFF00000000"
    );
    assert!(text(&sequence, &Record { row: 1, ..at }, Some(largest)).ends_with("FFFFFFFF00000001"));
    assert!(text(&sequence, &Record { row: u32::MAX, ..at }, Some(largest)).ends_with("FFFFFFFFFFFFFFFF"));
}

#[test]
fn null_comes_before_every_value() {
    let first = [
        (ValuePlan::<()>::Float, Document::Number(Number::from_literal("-1.7976931348623157e308"))),
        (ValuePlan::Date, Document::String("0001-01-01")),
        (ValuePlan::Time, Document::String("00:00:00")),
        (ValuePlan::Rfc3339, Document::String("0001-01-01T00:00:00Z")),
        (ValuePlan::Epoch(TimeUnit::Seconds), Document::Number(Number::from_literal("-62135596800"))),
        (
            ValuePlan::Numeric { whole: 29, scale: 9 },
            Document::String("-99999999999999999999999999999.999999999"),
        ),
        (ValuePlan::Integer, Document::Number(Number::from_literal("-9223372036854775807"))),
    ];
    for (plan, document) in &first {
        assert!(of_column(plan, None, 5, 5) < of_column(plan, Some(document), 0, 0));
    }
    // The one value that shares the number of null, so that the position decides.
    let smallest = Document::Number(Number::from_literal("-9223372036854775808"));
    let plan = ValuePlan::<()>::Integer;
    assert!(of_column(&plan, None, 0, 0) < of_column(&plan, Some(&smallest), 0, 1));
}

#[test]
fn both_zeros_are_one_value() {
    assert_eq!(float_rank(0.0), float_rank(-0.0));
    assert!(float_rank(f64::MIN_POSITIVE) > float_rank(0.0));
    assert!(float_rank(-f64::MIN_POSITIVE) < float_rank(0.0));
}

fn any_position() -> impl Strategy<Value = (i32, i64)> {
    (prop_oneof![0..4_i32, 0..=i32::MAX], prop_oneof![0..4_i64, 0..=i64::MAX])
}

fn mostly_small() -> impl Strategy<Value = i64> {
    prop_oneof![-3..3_i64, any::<i64>(), Just(i64::MIN), Just(i64::MAX)]
}

/// Two literals of one column in the order of their values.
fn compare(
    plan: &ValuePlan<()>,
    left: (&str, (i32, i64)),
    right: (&str, (i32, i64)),
    as_text: bool,
) -> std::cmp::Ordering {
    let document = |literal| {
        if as_text { Document::String(literal) } else { Document::Number(Number::from_literal(literal)) }
    };
    let of = |(literal, (partition, offset))| of_column(plan, Some(&document(literal)), partition, offset);
    of(left).cmp(&of(right))
}

proptest! {
    #[test]
    fn positions_are_ordered_by_partition_and_offset(left in any_position(), right in any_position()) {
        let of = |(partition, offset)| {
            numbers(&text(&sequence(Newest::Offset), &record("t", partition, offset, None), None))
        };
        prop_assert_eq!(of(left).cmp(&of(right)), left.cmp(&right));
    }

    #[test]
    fn rows_are_ordered_behind_everything_else(
        newest in prop::sample::select(vec![Newest::Offset, Newest::Timestamp, Newest::Column(0)]), wide in any::<bool>(),
        left in (0..2_u64, any_position(), 0..3_u32), right in (0..2_u64, any_position(), prop_oneof![0..3_u32, any::<u32>()]),
    ) {
        let of = |(value, (partition, offset), row): (u64, (i32, i64), u32)| {
            let rank = match newest {
                Newest::Column(_) if wide => Some(Rank::Wide(u128::from(value))),
                Newest::Column(_) => Some(Rank::Narrow(value)),
                Newest::Offset | Newest::Timestamp => None,
            };
            let at = Record { row, ..record("t", partition, offset, Some(value.cast_signed())) };
            numbers(&text(&sequence(newest), &at, rank))
        };
        let place = |(value, position, row)| (if newest == Newest::Offset { 0 } else { value }, position, row);
        prop_assert_eq!(of(left).cmp(&of(right)), place(left).cmp(&place(right)));
    }

    #[test]
    fn timestamps_are_ordered_before_positions(
        left in prop::option::of(prop_oneof![0..3_i64, 0..=i64::MAX]), right in prop::option::of(prop_oneof![0..3_i64, 0..=i64::MAX]),
        here in any_position(), there in any_position(),
    ) {
        let of = |timestamp, (partition, offset)| {
            numbers(&text(&sequence(Newest::Timestamp), &record("t", partition, offset, timestamp), None))
        };
        prop_assert_eq!(of(left, here).cmp(&of(right, there)), (left, here).cmp(&(right, there)));
    }

    #[test]
    fn integers_are_ordered_by_value_and_position(
        left in mostly_small(), right in mostly_small(), here in any_position(), there in any_position()
    ) {
        let found = compare(
            &ValuePlan::Integer, (&left.to_string(), here), (&right.to_string(), there), false,
        );
        prop_assert_eq!(found, (left, here).cmp(&(right, there)));
    }

    #[test]
    fn doubles_are_ordered_by_value_and_position(
        left in prop_oneof![-2.0..2.0, proptest::num::f64::NORMAL | proptest::num::f64::SUBNORMAL],
        right in prop_oneof![-2.0..2.0, proptest::num::f64::NORMAL | proptest::num::f64::SUBNORMAL],
        same in any::<bool>(), here in any_position(), there in any_position(),
    ) {
        let right = if same { left } else { right };
        let found = compare(
            &ValuePlan::Float, (&format!("{left:e}"), here), (&format!("{right:e}"), there), false,
        );
        prop_assert_eq!(Some(found), (left, here).partial_cmp(&(right, there)));
    }

    #[test]
    fn decimals_are_ordered_by_value_and_position(
        left in prop_oneof![-300..300_i128, -99_999_999_999_999_999_999_999_999_999_999_999_999..=99_999_999_999_999_999_999_999_999_999_999_999_999_i128],
        right in prop_oneof![-300..300_i128, -99_999_999_999_999_999_999_999_999_999_999_999_999..=99_999_999_999_999_999_999_999_999_999_999_999_999_i128],
        here in any_position(), there in any_position(), as_text in any::<bool>(),
    ) {
        // Units of the ninth digit behind the point.
        let literal = |value: i128| format!("{value}e-9");
        let plan = ValuePlan::Numeric { whole: 29, scale: 9 };
        let found = compare(&plan, (&literal(left), here), (&literal(right), there), as_text);
        prop_assert_eq!(found, (left, here).cmp(&(right, there)));
    }

    #[test]
    fn times_are_ordered_by_value_and_position(
        left in time_text::FIRST_MICRO..253_402_300_800_000_000, right in time_text::FIRST_MICRO..253_402_300_800_000_000,
        same in any::<bool>(), here in any_position(), there in any_position(),
    ) {
        let right = if same { left } else { right };
        let expected = (left, here).cmp(&(right, there));
        let epochs = compare(
            &ValuePlan::Epoch(TimeUnit::Microseconds), (&left.to_string(), here), (&right.to_string(), there), false,
        );
        prop_assert_eq!(epochs, expected);
        let instant = |micros| {
            let mut out = Vec::new();
            time_text::write_instant(micros, &mut out);
            String::from_utf8(out).unwrap()
        };
        let (left, right) = (instant(left), instant(right));
        prop_assert_eq!(compare(&ValuePlan::Rfc3339, (&left, here), (&right, there), true), expected);
        let days = compare(&ValuePlan::Date, (&left[..10], here), (&right[..10], there), true);
        prop_assert_eq!(days, (&left[..10], here).cmp(&(&right[..10], there)));
        let padded = |time: &str| format!("{:0<15}", time.trim_end_matches('Z'));
        let clock = |instant: &str| {
            let time = instant[11..].trim_end_matches('Z');
            if time.contains('.') { padded(time) } else { format!("{time}.000000") }
        };
        let times = compare(&ValuePlan::Time, (&clock(&left), here), (&clock(&right), there), true);
        prop_assert_eq!(times, (clock(&left), here).cmp(&(clock(&right), there)));
    }
}
