//! The order of values in PostgreSQL's binary form, as `newest_by` needs it.

use std::cmp::Ordering;

use crate::numeric;
use crate::plan::ColumnType;

/// Compares two values of one column as the server's `<` does. Bytes that are no value of the type, and types that have
/// no order here (see [`crate::TablePlan::new`], which refuses them), count as equal.
pub fn compare(column_type: &ColumnType, left: &[u8], right: &[u8]) -> Ordering {
    match column_type {
        ColumnType::SmallInt => integers(left, right, i16::from_be_bytes),
        ColumnType::Integer | ColumnType::Date => integers(left, right, i32::from_be_bytes),
        ColumnType::BigInt | ColumnType::TimestampTz | ColumnType::Timestamp | ColumnType::Time => {
            integers(left, right, i64::from_be_bytes)
        }
        // Neither NaN nor an infinity comes out of a record.
        ColumnType::Real => floats(left, right, |bytes| f64::from(f32::from_be_bytes(bytes))),
        ColumnType::Double => floats(left, right, f64::from_be_bytes),
        ColumnType::Numeric(_) => numeric::compare(left, right).unwrap_or(Ordering::Equal),
        ColumnType::Uuid => left.cmp(right),
        ColumnType::Boolean
        | ColumnType::Text
        | ColumnType::Varchar(_)
        | ColumnType::Char(_)
        | ColumnType::Labelled(_)
        | ColumnType::Bytea
        | ColumnType::Json
        | ColumnType::Jsonb => Ordering::Equal,
    }
}

fn integers<const N: usize, T: Ord>(left: &[u8], right: &[u8], read: fn([u8; N]) -> T) -> Ordering {
    match (left.try_into(), right.try_into()) {
        (Ok(left), Ok(right)) => read(left).cmp(&read(right)),
        _ => Ordering::Equal,
    }
}

fn floats<const N: usize>(left: &[u8], right: &[u8], read: fn([u8; N]) -> f64) -> Ordering {
    match (left.try_into(), right.try_into()) {
        (Ok(left), Ok(right)) => read(left).partial_cmp(&read(right)).unwrap_or(Ordering::Equal),
        _ => Ordering::Equal,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn bytes_of_another_length_count_as_equal() {
        assert_eq!(compare(&ColumnType::BigInt, &[1], &[0; 8]), Ordering::Equal);
        assert_eq!(compare(&ColumnType::Numeric(None), &[], &[]), Ordering::Equal);
        assert_eq!(compare(&ColumnType::Text, b"a", b"b"), Ordering::Equal);
    }

    proptest! {
        #[test]
        fn numbers_are_ordered_by_value(left in any::<i64>(), right in any::<i64>()) {
            let expected = left.cmp(&right);
            for column_type in [ColumnType::BigInt, ColumnType::TimestampTz, ColumnType::Time] {
                prop_assert_eq!(compare(&column_type, &left.to_be_bytes(), &right.to_be_bytes()), expected);
            }
        }

        #[test]
        fn doubles_are_ordered_by_value(left in -1e9_f64..1e9, right in -1e9_f64..1e9) {
            let found = compare(&ColumnType::Double, &left.to_be_bytes(), &right.to_be_bytes());
            prop_assert_eq!(Some(found), left.partial_cmp(&right));
        }

        #[test]
        fn no_bytes_make_it_panic(left in prop::collection::vec(any::<u8>(), 0..20), right in prop::collection::vec(any::<u8>(), 0..20)) {
            for column_type in [ColumnType::Numeric(None), ColumnType::Real, ColumnType::Uuid, ColumnType::Integer] {
                let _ = compare(&column_type, &left, &right);
            }
        }
    }
}
