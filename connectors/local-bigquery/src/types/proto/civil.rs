//! DATETIME and TIME as a packed integer: the layout of the `CivilTimeEncoder` class of Google's Java client.
//!
//! From the lowest bit: 20 bits of microseconds, 6 of seconds, 6 of minutes, 5 of hours; for a DATETIME then 5 of days,
//! 4 of months and 14 of years.

use time::{Date, Month};

use super::super::temporal;

/// Microseconds in a day.
const DAY_US: i64 = 86_400_000_000;

/// A TIME as microseconds since midnight, or nothing where a part is out of its range.
pub(super) fn time(packed: i64) -> Option<i64> {
    let (micros, rest) = time_of_day(packed.cast_unsigned())?;
    (rest == 0).then_some(micros)
}

/// A DATETIME as microseconds since 1970-01-01T00:00:00, or nothing where a part is out of its range.
pub(super) fn datetime(packed: i64) -> Option<i64> {
    let (micros, rest) = time_of_day(packed.cast_unsigned())?;
    let month = Month::try_from(u8::try_from(rest >> 5 & 0xF).ok()?).ok()?;
    let year = i32::try_from(rest >> 9).ok().filter(|year| (1..=9999).contains(year))?;
    let date = Date::from_calendar_date(year, month, u8::try_from(rest & 0x1F).ok()?).ok()?;
    Some(i64::from(temporal::days_of(date)) * DAY_US + micros)
}

/// The microseconds since midnight, and the bits above them.
fn time_of_day(packed: u64) -> Option<(i64, u64)> {
    let (micros, seconds) = (packed & 0xF_FFFF, packed >> 20 & 0x3F);
    let (minutes, hours) = (packed >> 26 & 0x3F, packed >> 32 & 0x1F);
    if micros > 999_999 || seconds > 59 || minutes > 59 || hours > 23 {
        return None;
    }
    let of_day = ((hours * 60 + minutes) * 60 + seconds) * 1_000_000 + micros;
    Some((i64::try_from(of_day).ok()?, packed >> 37))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn packed(parts: [i64; 7]) -> i64 {
        let [year, month, day, hour, minute, second, micro] = parts;
        let date = (year << 9 | month << 5 | day) << 17;
        (date | hour << 12 | minute << 6 | second) << 20 | micro
    }

    #[test]
    fn a_packed_moment_is_the_moment_that_its_text_means() {
        let moment = packed([2026, 11, 23, 21, 5, 9, 123_456]);
        assert_eq!(datetime(moment), temporal::parse_datetime("2026-11-23T21:05:09.123456"));
        assert_eq!(time(packed([0, 0, 0, 23, 59, 59, 999_999])), temporal::parse_time("23:59:59.999999"));
        for wrong in [
            [2026, 2, 30, 0, 0, 0, 0],
            [2026, 13, 1, 0, 0, 0, 0],
            [0, 1, 1, 0, 0, 0, 0],
            [2026, 1, 1, 24, 0, 0, 0],
            [2026, 1, 1, 0, 60, 0, 0],
            [2026, 1, 1, 0, 0, 0, 1_000_000],
        ] {
            assert_eq!(datetime(packed(wrong)), None, "{wrong:?}");
        }
        assert_eq!(time(packed([1, 1, 1, 0, 0, 0, 0])), None);
        assert_eq!(datetime(-1), None);
    }

    proptest! {
        #[test]
        fn no_number_makes_it_panic(number: i64) {
            let _ = (time(number), datetime(number));
        }
    }
}
