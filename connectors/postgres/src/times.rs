//! Dates and times as PostgreSQL counts them: microseconds and days since 2000-01-01.
//!
//! PostgreSQL keeps microseconds. Its timestamps reach from 4714-11-24 BC to the year 294276
//! (<https://www.postgresql.org/docs/current/datatype-datetime.html>); texts have four digits for the year, and the year
//! 0, which PostgreSQL does not know, is refused. So is a leap second (`23:59:60`), which has no place of its own.

use txconnect_connector_api::{Number, TimeUnit};

const MICROS_A_SECOND: i64 = 1_000_000;
const SECONDS_A_DAY: i64 = 86_400;

/// 2000-01-01 in days since 1970-01-01.
const EPOCH_DAYS: i64 = 10_957;

/// 2000-01-01T00:00:00Z in microseconds since 1970-01-01T00:00:00Z.
const EPOCH_MICROS: i128 = EPOCH_DAYS as i128 * SECONDS_A_DAY as i128 * MICROS_A_SECOND as i128;

/// The first and the last timestamp (`MIN_TIMESTAMP` and `END_TIMESTAMP` − 1 in PostgreSQL's
/// `src/include/datatype/timestamp.h`).
const TIMESTAMPS: std::ops::RangeInclusive<i64> = -211_813_488_000_000_000..=9_223_371_331_199_999_999;

/// Why a value is no date or time of PostgreSQL's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Misfit {
    /// The text does not have the form.
    Form,
    /// A day, hour or year that does not exist or that PostgreSQL does not have.
    OutOfRange,
    /// Finer than a microsecond.
    TooFine,
}

/// Reads the bytes of a fixed form from the left.
struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn digits<const COUNT: usize>(&mut self) -> Result<i64, Misfit> {
        let (digits, rest) = self.0.split_first_chunk::<COUNT>().ok_or(Misfit::Form)?;
        self.0 = rest;
        let mut value = 0;
        for byte in digits {
            let digit = byte.wrapping_sub(b'0');
            if digit > 9 {
                return Err(Misfit::Form);
            }
            value = value * 10 + i64::from(digit);
        }
        Ok(value)
    }

    fn one_of(&mut self, allowed: &[u8]) -> Result<u8, Misfit> {
        match self.0.split_first() {
            Some((byte, rest)) if allowed.contains(byte) => {
                self.0 = rest;
                Ok(*byte)
            }
            _ => Err(Misfit::Form),
        }
    }

    /// `YYYY-MM-DD` as days since 2000-01-01.
    fn date(&mut self) -> Result<i64, Misfit> {
        let year = self.digits::<4>()?;
        self.one_of(b"-")?;
        let month = self.digits::<2>()?;
        self.one_of(b"-")?;
        let day = self.digits::<2>()?;
        if year < 1 || !(1..=12).contains(&month) || day < 1 || day > days_in_month(year, month) {
            return Err(Misfit::OutOfRange);
        }
        Ok(days_from_civil(year, month, day) - EPOCH_DAYS)
    }

    /// `HH:MM:SS[.fraction]` as microseconds of the day.
    fn time(&mut self) -> Result<i64, Misfit> {
        let hour = self.digits::<2>()?;
        self.one_of(b":")?;
        let minute = self.digits::<2>()?;
        self.one_of(b":")?;
        let second = self.digits::<2>()?;
        let micros = self.fraction()?;
        if hour > 23 || minute > 59 || second > 59 {
            return Err(Misfit::OutOfRange);
        }
        Ok((hour * 3600 + minute * 60 + second) * MICROS_A_SECOND + micros)
    }

    fn fraction(&mut self) -> Result<i64, Misfit> {
        if self.one_of(b".").is_err() {
            return Ok(0);
        }
        let length = self.0.iter().take_while(|byte| byte.is_ascii_digit()).count();
        if length == 0 {
            return Err(Misfit::Form);
        }
        let (digits, rest) = self.0.split_at(length);
        self.0 = rest;
        let (kept, dropped) = digits.split_at(length.min(6));
        if dropped.iter().any(|digit| *digit != b'0') {
            return Err(Misfit::TooFine);
        }
        let mut micros = kept.iter().fold(0, |value, digit| value * 10 + i64::from(digit - b'0'));
        for _ in kept.len()..6 {
            micros *= 10;
        }
        Ok(micros)
    }

    /// `Z` or `±HH:MM` as microseconds east of UTC.
    fn offset(&mut self) -> Result<i64, Misfit> {
        let sign = match self.one_of(b"Zz+-")? {
            b'+' => 1,
            b'-' => -1,
            _ => return Ok(0),
        };
        let hours = self.digits::<2>()?;
        self.one_of(b":")?;
        let minutes = self.digits::<2>()?;
        if hours > 23 || minutes > 59 {
            return Err(Misfit::OutOfRange);
        }
        Ok(sign * (hours * 3600 + minutes * 60) * MICROS_A_SECOND)
    }

    fn end(&self) -> Result<(), Misfit> {
        if self.0.is_empty() { Ok(()) } else { Err(Misfit::Form) }
    }
}

/// A date, `2026-11-23`, as days.
pub(crate) fn date(text: &str) -> Result<i32, Misfit> {
    let mut reader = Reader(text.as_bytes());
    let days = reader.date()?;
    reader.end()?;
    i32::try_from(days).map_err(|_| Misfit::OutOfRange)
}

/// A time of day, `12:30:00[.fraction]`, as microseconds. PostgreSQL's `time` has no zone, so RFC 3339's offset may be
/// left out or be zero.
pub(crate) fn time_of_day(text: &str) -> Result<i64, Misfit> {
    let mut reader = Reader(text.as_bytes());
    let micros = reader.time()?;
    if !reader.0.is_empty() && reader.offset()? != 0 {
        return Err(Misfit::OutOfRange);
    }
    reader.end()?;
    Ok(micros)
}

/// An RFC 3339 time as microseconds.
pub(crate) fn timestamp(text: &str) -> Result<i64, Misfit> {
    let mut reader = Reader(text.as_bytes());
    let days = reader.date()?;
    reader.one_of(b"Tt ")?;
    let time = reader.time()?;
    let offset = reader.offset()?;
    reader.end()?;
    Ok(days * SECONDS_A_DAY * MICROS_A_SECOND + time - offset)
}

/// A count of `unit` since 1970 as microseconds.
pub(crate) fn epoch(number: Number<'_>, unit: TimeUnit) -> Result<i64, Misfit> {
    // A unit is ten to this power microseconds.
    let power: i32 = match unit {
        TimeUnit::Seconds => 6,
        TimeUnit::Milliseconds => 3,
        TimeUnit::Microseconds => 0,
        TimeUnit::Nanoseconds => -3,
    };
    let micros = match number.literal().parse::<i64>() {
        Ok(value) if power >= 0 => i128::from(value) * 10_i128.pow(power.unsigned_abs()),
        Ok(value) if value % 1_000 == 0 => i128::from(value / 1_000),
        Ok(_) => return Err(Misfit::TooFine),
        // A fraction, an exponent or a number beyond 64 bits: exact by shifting the decimal point.
        Err(_) => {
            let decimal = number.decimal().ok_or(Misfit::OutOfRange)?;
            let exponent = decimal.exponent.checked_add(power).ok_or(Misfit::OutOfRange)?;
            let zeros = u32::try_from(exponent).map_err(|_| Misfit::TooFine)?;
            let magnitude: i128 = decimal.digits.parse().map_err(|_| Misfit::OutOfRange)?;
            let factor = 10_i128.checked_pow(zeros).ok_or(Misfit::OutOfRange)?;
            let magnitude = magnitude.checked_mul(factor).ok_or(Misfit::OutOfRange)?;
            if decimal.negative { -magnitude } else { magnitude }
        }
    };
    let micros = micros.checked_sub(EPOCH_MICROS).and_then(|micros| i64::try_from(micros).ok());
    micros.filter(|micros| TIMESTAMPS.contains(micros)).ok_or(Misfit::OutOfRange)
}

/// Milliseconds since 1970, as Kafka counts them, as microseconds.
pub(crate) fn milliseconds(since_1970: i64) -> Result<i64, Misfit> {
    let micros = i64::try_from(i128::from(since_1970) * 1_000 - EPOCH_MICROS);
    micros.ok().filter(|micros| TIMESTAMPS.contains(micros)).ok_or(Misfit::OutOfRange)
}

/// Whether a time has no more than `digits` digits behind the second.
pub(crate) fn has_digits(micros: i64, digits: u8) -> bool {
    let dropped = 6_u32.saturating_sub(digits.into());
    micros % 10_i64.pow(dropped) == 0
}

fn days_in_month(year: i64, month: i64) -> i64 {
    match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days since 1970-01-01 in the proleptic Gregorian calendar. Years are counted from March, so that the leap
/// day is the last of its year, and in eras of 400 years, which all have 146,097 days.
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use time::format_description::well_known::Rfc3339;
    use time::macros::datetime;
    use time::{Date, Month, OffsetDateTime};

    /// Microseconds since 2000 by another library.
    fn micros_since_2000(moment: OffsetDateTime) -> i64 {
        i64::try_from((moment - datetime!(2000-01-01 00:00 UTC)).whole_microseconds()).unwrap()
    }

    #[test]
    fn times_become_microseconds_since_2000() {
        for (text, expected) in [
            ("2000-01-01T00:00:00Z", Ok(0)),
            ("1999-12-31t23:59:59.999999z", Ok(-1)),
            ("2000-01-01 02:00:00.1234560+02:00", Ok(123_456)),
            ("2026-11-23T12:30:00Z", Ok(848_752_200_000_000)),
            ("0001-01-01T00:00:00+23:59", Ok(-63_082_367_940_000_000)),
            ("0000-12-31T00:00:00Z", Err(Misfit::OutOfRange)),
            ("2026-02-29T00:00:00Z", Err(Misfit::OutOfRange)),
            ("2026-01-01T24:00:00Z", Err(Misfit::OutOfRange)),
            ("2016-12-31T23:59:60Z", Err(Misfit::OutOfRange)),
            ("2026-01-01T00:00:00+24:00", Err(Misfit::OutOfRange)),
            ("2026-11-23T12:30:00.0000001Z", Err(Misfit::TooFine)),
            ("2026-11-23T12:30:00", Err(Misfit::Form)),
            ("2026-11-23T12:30Z", Err(Misfit::Form)),
            ("2026-11-23T12:30:00.Z", Err(Misfit::Form)),
            ("2026-11-23T12:30:00Z ", Err(Misfit::Form)),
            ("２026-11-23T12:30:00Z", Err(Misfit::Form)),
            ("", Err(Misfit::Form)),
        ] {
            assert_eq!(timestamp(text), expected, "{text}");
        }
    }

    #[test]
    fn epochs_keep_every_digit_they_have() {
        use TimeUnit::{Microseconds, Milliseconds, Nanoseconds, Seconds};
        let since_1970 = |micros: i64| Ok(micros - 946_684_800_000_000);
        for (literal, unit, expected) in [
            ("0", Seconds, since_1970(0)),
            ("-1", Milliseconds, since_1970(-1_000)),
            ("1763900000123", Milliseconds, since_1970(1_763_900_000_123_000)),
            ("1763900000.5", Seconds, since_1970(1_763_900_000_500_000)),
            ("1.7639000001234e12", Milliseconds, since_1970(1_763_900_000_123_400)),
            ("-0.5", Seconds, since_1970(-500_000)),
            ("-0.0", Seconds, since_1970(0)),
            ("1763900000123456", Microseconds, since_1970(1_763_900_000_123_456)),
            ("-1763900000123456000", Nanoseconds, since_1970(-1_763_900_000_123_456)),
            ("1763900000123456001", Nanoseconds, Err(Misfit::TooFine)),
            ("-1", Nanoseconds, Err(Misfit::TooFine)),
            ("0.0000001", Seconds, Err(Misfit::TooFine)),
            ("1e-300", Seconds, Err(Misfit::TooFine)),
            ("9223372036854775807", Seconds, Err(Misfit::OutOfRange)),
            ("99999999999999999999", Nanoseconds, Err(Misfit::TooFine)),
            ("1e300", Seconds, Err(Misfit::OutOfRange)),
            // The ends of PostgreSQL's range: 4714-11-24 BC and the last microsecond of 294276.
            ("-210866803200", Seconds, Ok(-211_813_488_000_000_000)),
            ("-210866803201", Seconds, Err(Misfit::OutOfRange)),
            ("9224318015999999999", Microseconds, Ok(9_223_371_331_199_999_999)),
            ("9224318015.999999999e9", Microseconds, Ok(9_223_371_331_199_999_999)),
            ("9224318016000000000", Microseconds, Err(Misfit::OutOfRange)),
            ("9223372036854775807", Microseconds, since_1970(9_223_372_036_854_775_807)),
            ("9224318016000", Seconds, Err(Misfit::OutOfRange)),
            ("9224318015999", Seconds, Ok(9_223_371_331_199_000_000)),
        ] {
            assert_eq!(epoch(Number::from_literal(literal), unit), expected, "{literal}");
        }
    }

    #[test]
    fn a_time_of_day_has_no_zone() {
        for (text, expected) in [
            ("00:00:00", Ok(0)),
            ("12:30:00.5", Ok(45_000_500_000)),
            ("12:30:00Z", Ok(45_000_000_000)),
            ("12:30:00+00:00", Ok(45_000_000_000)),
            ("23:59:59.999999", Ok(86_399_999_999)),
            ("12:30:00+01:00", Err(Misfit::OutOfRange)),
            ("24:00:00", Err(Misfit::OutOfRange)),
            ("12:30", Err(Misfit::Form)),
            ("12:30:00Zulu", Err(Misfit::Form)),
        ] {
            assert_eq!(time_of_day(text), expected, "{text}");
        }
    }

    #[test]
    fn dates_exist_or_are_refused() {
        assert_eq!(date("2000-01-01"), Ok(0));
        assert_eq!(date("2024-02-29"), Ok(8_825));
        assert_eq!(date("0001-01-01"), Ok(-730_119));
        assert_eq!(date("1900-02-29"), Err(Misfit::OutOfRange));
        assert_eq!(date("0000-01-01"), Err(Misfit::OutOfRange));
        assert_eq!(date("2026-1-01"), Err(Misfit::Form));
        assert_eq!(date("2026-01-01T"), Err(Misfit::Form));
    }

    #[test]
    fn digits_behind_the_second_are_counted() {
        for (micros, digits) in [(0, 0), (1_000_000, 0), (1_500_000, 1), (-1_120_000, 2), (123_456, 6)] {
            assert!(has_digits(micros, digits), "{micros}");
            assert!(digits == 0 || !has_digits(micros, digits - 1), "{micros}");
        }
    }

    proptest! {
        #[test]
        fn every_moment_is_read_as_the_time_crate_reads_it(
            seconds in -62_135_596_800_i64..253_402_300_800, micros in 0_i128..1_000_000, minutes in -1439_i32..1440
        ) {
            let moment = OffsetDateTime::from_unix_timestamp_nanos(i128::from(seconds) * 1_000_000_000 + micros * 1_000).unwrap();
            let zone = time::UtcOffset::from_whole_seconds(minutes * 60).unwrap();
            if let Some(local) = moment.checked_to_offset(zone).filter(|local| (1..=9999).contains(&local.year())) {
                prop_assert_eq!(timestamp(&local.format(&Rfc3339).unwrap()), Ok(micros_since_2000(moment)));
            }
        }

        #[test]
        fn every_day_is_read_as_the_time_crate_reads_it(year in 1_i32..=9999, month in 1_u8..=12, day in 1_u8..=31) {
            let expected = Date::from_calendar_date(year, Month::try_from(month).unwrap(), day)
                .map(|date| date.to_julian_day() - 2_451_545).map_err(|_| Misfit::OutOfRange);
            prop_assert_eq!(date(&format!("{year:04}-{month:02}-{day:02}")), expected);
        }

        #[test]
        fn all_units_of_an_epoch_agree(millis in -210_866_803_200_000_i64..9_224_318_016_000_000) {
            let of = |literal: String, unit| epoch(Number::from_literal(&literal), unit);
            let expected = of(millis.to_string(), TimeUnit::Milliseconds);
            prop_assert!(expected.is_ok());
            prop_assert_eq!(of(format!("{millis}e3"), TimeUnit::Microseconds), expected);
            prop_assert_eq!(of(format!("{millis}e-3"), TimeUnit::Seconds), expected);
            prop_assert_eq!(of(format!("{millis}000000"), TimeUnit::Nanoseconds), expected);
        }

        #[test]
        fn no_text_makes_it_panic(text in any::<String>(), likely in "[0-9TZ:. +-]{0,32}") {
            for text in [text, likely] {
                let _ = (date(&text), time_of_day(&text), timestamp(&text));
            }
        }
    }
}
