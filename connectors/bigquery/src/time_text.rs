//! Dates and times: from text and epochs to numbers, and to the text forms that BigQuery reads.
//!
//! BigQuery keeps microseconds and the years 1 to 9999
//! (<https://cloud.google.com/bigquery/docs/reference/standard-sql/data-types#timestamp_type>). A leap
//! second (`23:59:60`) has no place in it and is refused.

use txconnect_connector_api::{Number, TimeUnit};

use crate::config::FinerTimes;

const MICROS_A_SECOND: i64 = 1_000_000;
const MICROS_A_MILLISECOND: i64 = 1_000;
const NANOS_A_MICRO: i64 = 1_000;
const SECONDS_A_DAY: i64 = 86_400;

/// 0001-01-01T00:00:00Z in microseconds since 1970.
pub(crate) const FIRST_MICRO: i64 = -62_135_596_800_000_000;

/// 9999-12-31T23:59:59.999999Z in microseconds since 1970.
const LAST_MICRO: i64 = 253_402_300_799_999_999;

/// 0001-01-01 in days since 1970.
pub(crate) const FIRST_DAY: i32 = -719_162;

/// Why a value is no date or time that BigQuery keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Misfit {
    /// The text does not have the form.
    Form,
    /// A day, hour or year that does not exist or that BigQuery does not have.
    OutOfRange,
    /// Finer than a microsecond.
    TooFine,
}

/// Reads the bytes of a fixed form from the left.
struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn digits(&mut self, count: usize) -> Result<i64, Misfit> {
        let (digits, rest) = self.0.split_at_checked(count).ok_or(Misfit::Form)?;
        self.0 = rest;
        digits.iter().try_fold(0, |value, byte| {
            byte.is_ascii_digit().then(|| value * 10 + i64::from(byte - b'0')).ok_or(Misfit::Form)
        })
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

    /// `YYYY-MM-DD` as days since 1970-01-01.
    fn date(&mut self) -> Result<i64, Misfit> {
        let year = self.digits(4)?;
        self.one_of(b"-")?;
        let month = self.digits(2)?;
        self.one_of(b"-")?;
        let day = self.digits(2)?;
        if year < 1 || !(1..=12).contains(&month) || day < 1 || day > days_in_month(year, month) {
            return Err(Misfit::OutOfRange);
        }
        Ok(days_from_civil(year, month, day))
    }

    /// `HH:MM:SS[.fraction]` as microseconds of the day.
    fn time(&mut self, finer: FinerTimes) -> Result<i64, Misfit> {
        let hour = self.digits(2)?;
        self.one_of(b":")?;
        let minute = self.digits(2)?;
        self.one_of(b":")?;
        let second = self.digits(2)?;
        let micros = self.fraction(finer)?;
        if hour > 23 || minute > 59 || second > 59 {
            return Err(Misfit::OutOfRange);
        }
        Ok((hour * 3600 + minute * 60 + second) * MICROS_A_SECOND + micros)
    }

    fn fraction(&mut self, finer: FinerTimes) -> Result<i64, Misfit> {
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
        if finer == FinerTimes::BadRecord && dropped.iter().any(|digit| *digit != b'0') {
            return Err(Misfit::TooFine);
        }
        let mut micros = kept.iter().fold(0, |value, digit| value * 10 + i64::from(digit - b'0'));
        for _ in kept.len()..6 {
            micros *= 10;
        }
        Ok(micros)
    }

    /// `Z` or `±HH:MM` as seconds east of UTC.
    fn offset(&mut self) -> Result<i64, Misfit> {
        let sign = match self.one_of(b"Zz+-")? {
            b'+' => 1,
            b'-' => -1,
            _ => return Ok(0),
        };
        let hours = self.digits(2)?;
        self.one_of(b":")?;
        let minutes = self.digits(2)?;
        if hours > 23 || minutes > 59 {
            return Err(Misfit::OutOfRange);
        }
        Ok(sign * (hours * 3600 + minutes * 60))
    }

    fn end(&self) -> Result<(), Misfit> {
        if self.0.is_empty() { Ok(()) } else { Err(Misfit::Form) }
    }
}

/// A date, `2026-11-23`, as days since 1970-01-01.
pub(crate) fn date_days(text: &str) -> Result<i32, Misfit> {
    let mut reader = Reader(text.as_bytes());
    let days = reader.date()?;
    reader.end()?;
    i32::try_from(days).map_err(|_| Misfit::OutOfRange)
}

/// A time of day, `12:30:00[.fraction]`, in microseconds. BigQuery's TIME knows no zone, so RFC 3339's offset may be
/// left out or be zero.
pub(crate) fn time_of_day_micros(text: &str, finer: FinerTimes) -> Result<i64, Misfit> {
    let mut reader = Reader(text.as_bytes());
    let micros = reader.time(finer)?;
    if !reader.0.is_empty() && reader.offset()? != 0 {
        return Err(Misfit::OutOfRange);
    }
    reader.end()?;
    Ok(micros)
}

/// An RFC 3339 time in microseconds since 1970.
pub(crate) fn timestamp_micros(text: &str, finer: FinerTimes) -> Result<i64, Misfit> {
    let mut reader = Reader(text.as_bytes());
    let days = reader.date()?;
    reader.one_of(b"Tt ")?;
    let micros = reader.time(finer)?;
    let offset = reader.offset()?;
    reader.end()?;
    kept((days * SECONDS_A_DAY - offset) * MICROS_A_SECOND + micros)
}

/// A count of `unit` since 1970 in microseconds.
pub(crate) fn epoch_micros(number: Number<'_>, unit: TimeUnit, finer: FinerTimes) -> Result<i64, Misfit> {
    if let Some(value) = number.as_i64() {
        return match unit {
            TimeUnit::Seconds => kept(value.checked_mul(MICROS_A_SECOND).ok_or(Misfit::OutOfRange)?),
            TimeUnit::Milliseconds => milliseconds_to_micros(value),
            TimeUnit::Microseconds => kept(value),
            TimeUnit::Nanoseconds if finer == FinerTimes::BadRecord && value % NANOS_A_MICRO != 0 => {
                Err(Misfit::TooFine)
            }
            TimeUnit::Nanoseconds => kept(value.div_euclid(NANOS_A_MICRO)),
        };
    }
    // A fraction, or a number beyond 64 bits: exact by shifting the decimal point.
    let power = match unit {
        TimeUnit::Seconds => 6,
        TimeUnit::Milliseconds => 3,
        TimeUnit::Microseconds => 0,
        TimeUnit::Nanoseconds => -3,
    };
    let decimal = number.decimal().ok_or(Misfit::OutOfRange)?;
    let exponent = decimal.exponent.checked_add(power).ok_or(Misfit::OutOfRange)?;
    let mut digits = decimal.digits;
    let mut dropped = false;
    if exponent < 0 {
        if finer == FinerTimes::BadRecord {
            return Err(Misfit::TooFine);
        }
        let cut = usize::try_from(exponent.unsigned_abs()).unwrap_or(usize::MAX);
        digits.truncate(digits.len().saturating_sub(cut));
        dropped = true;
    }
    for _ in 0..exponent {
        if digits.len() > 18 {
            return Err(Misfit::OutOfRange);
        }
        digits.push('0');
    }
    let magnitude: i64 =
        if digits.is_empty() { 0 } else { digits.parse().map_err(|_| Misfit::OutOfRange)? };
    // Towards the past, as for text: the digits of an instant are dropped, not those of its distance to 1970.
    kept(if decimal.negative { -magnitude - i64::from(dropped) } else { magnitude })
}

/// Milliseconds since 1970 in microseconds.
pub(crate) fn milliseconds_to_micros(milliseconds: i64) -> Result<i64, Misfit> {
    kept(milliseconds.checked_mul(MICROS_A_MILLISECOND).ok_or(Misfit::OutOfRange)?)
}

fn kept(micros: i64) -> Result<i64, Misfit> {
    if (FIRST_MICRO..=LAST_MICRO).contains(&micros) { Ok(micros) } else { Err(Misfit::OutOfRange) }
}

/// Appends microseconds since 1970 as UTC, `2026-11-23T12:30:00.25Z`.
pub(crate) fn write_instant(micros: i64, out: &mut Vec<u8>) {
    let day = SECONDS_A_DAY * MICROS_A_SECOND;
    let (year, month, day_of_month) = civil_from_days(micros.div_euclid(day));
    write_digits(year, 4, out);
    out.push(b'-');
    write_digits(month, 2, out);
    out.push(b'-');
    write_digits(day_of_month, 2, out);
    out.push(b'T');
    write_time_of_day(micros.rem_euclid(day), out);
    out.push(b'Z');
}

/// Appends microseconds of a day as `12:30:00[.fraction]`.
pub(crate) fn write_time_of_day(micros: i64, out: &mut Vec<u8>) {
    let (second, micros) = (micros / MICROS_A_SECOND, micros % MICROS_A_SECOND);
    write_digits(second / 3600, 2, out);
    out.push(b':');
    write_digits(second / 60 % 60, 2, out);
    out.push(b':');
    write_digits(second % 60, 2, out);
    if micros > 0 {
        out.push(b'.');
        write_digits(micros, 6, out);
    }
}

/// Appends `value`, which is not negative, with `count` digits.
fn write_digits(value: i64, count: u32, out: &mut Vec<u8>) {
    for place in (0..count).rev() {
        let digit = value / 10_i64.pow(place) % 10;
        out.push(b"0123456789"[usize::try_from(digit).unwrap_or(0)]);
    }
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

/// The inverse of [`days_from_civil`].
fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use time::OffsetDateTime;
    use time::format_description::well_known::Rfc3339;

    fn timestamp(text: &str) -> Result<String, Misfit> {
        timestamp_micros(text, FinerTimes::BadRecord).map(written)
    }

    fn written(micros: i64) -> String {
        let mut out = Vec::new();
        write_instant(micros, &mut out);
        String::from_utf8(out).unwrap()
    }

    fn epoch(literal: &str, unit: TimeUnit, finer: FinerTimes) -> Result<String, Misfit> {
        epoch_micros(Number::from_literal(literal), unit, finer).map(written)
    }

    #[test]
    fn times_become_utc_within_the_range_of_bigquery() {
        for (text, expected) in [
            ("2026-11-23T12:30:00Z", Ok("2026-11-23T12:30:00Z")),
            ("2026-11-23t12:30:00.250z", Ok("2026-11-23T12:30:00.250000Z")),
            ("2026-11-23 01:30:00.1234560+02:00", Ok("2026-11-22T23:30:00.123456Z")),
            ("0001-01-01T00:00:00Z", Ok("0001-01-01T00:00:00Z")),
            ("9999-12-31T23:59:59.999999Z", Ok("9999-12-31T23:59:59.999999Z")),
            ("0001-01-01T00:00:00+00:01", Err(Misfit::OutOfRange)),
            ("9999-12-31T23:59:59-00:01", Err(Misfit::OutOfRange)),
            ("0000-12-31T00:00:00Z", Err(Misfit::OutOfRange)),
            ("2026-02-29T00:00:00Z", Err(Misfit::OutOfRange)),
            ("2026-01-01T24:00:00Z", Err(Misfit::OutOfRange)),
            ("2016-12-31T23:59:60Z", Err(Misfit::OutOfRange)),
            ("2026-11-23T12:30:00.0000001Z", Err(Misfit::TooFine)),
            ("2026-11-23T12:30:00", Err(Misfit::Form)),
            ("2026-11-23T12:30Z", Err(Misfit::Form)),
            ("2026-11-23T12:30:00.Z", Err(Misfit::Form)),
            ("2026-11-23T12:30:00Z ", Err(Misfit::Form)),
            ("２026-11-23T12:30:00Z", Err(Misfit::Form)),
            ("", Err(Misfit::Form)),
        ] {
            assert_eq!(timestamp(text), expected.map(str::to_owned), "{text}");
        }
    }

    #[test]
    fn epochs_keep_every_digit_they_have() {
        use TimeUnit::{Microseconds, Milliseconds, Nanoseconds, Seconds};
        for (literal, unit, expected) in [
            ("0", Seconds, Ok("1970-01-01T00:00:00Z")),
            ("-1", Milliseconds, Ok("1969-12-31T23:59:59.999000Z")),
            ("1763900000123", Milliseconds, Ok("2025-11-23T12:13:20.123000Z")),
            ("1763900000.5", Seconds, Ok("2025-11-23T12:13:20.500000Z")),
            ("1.7639000001234e12", Milliseconds, Ok("2025-11-23T12:13:20.123400Z")),
            ("-0.5", Seconds, Ok("1969-12-31T23:59:59.500000Z")),
            ("1763900000123456", Microseconds, Ok("2025-11-23T12:13:20.123456Z")),
            ("1763900000123456000", Nanoseconds, Ok("2025-11-23T12:13:20.123456Z")),
            ("1763900000123456001", Nanoseconds, Err(Misfit::TooFine)),
            ("0.0000001", Seconds, Err(Misfit::TooFine)),
            ("9223372036854775807", Seconds, Err(Misfit::OutOfRange)),
            ("1e300", Seconds, Err(Misfit::OutOfRange)),
            ("253402300800", Seconds, Err(Misfit::OutOfRange)),
        ] {
            assert_eq!(epoch(literal, unit, FinerTimes::BadRecord), expected.map(str::to_owned), "{literal}");
        }
    }

    #[test]
    fn digits_beyond_the_microsecond_are_dropped_on_request() {
        let truncated = timestamp_micros("2026-11-23T12:30:00.123456789Z", FinerTimes::Truncate);
        assert_eq!(truncated.map(written).as_deref(), Ok("2026-11-23T12:30:00.123456Z"));
        for (literal, unit, expected) in [
            ("1763900000123456789", TimeUnit::Nanoseconds, "2025-11-23T12:13:20.123456Z"),
            ("-1", TimeUnit::Nanoseconds, "1969-12-31T23:59:59.999999Z"),
            ("-0.0000001", TimeUnit::Seconds, "1969-12-31T23:59:59.999999Z"),
            ("0.0000019", TimeUnit::Seconds, "1970-01-01T00:00:00.000001Z"),
        ] {
            assert_eq!(epoch(literal, unit, FinerTimes::Truncate).as_deref(), Ok(expected), "{literal}");
        }
    }

    #[test]
    fn a_time_of_day_has_no_zone() {
        for (text, expected) in [
            ("12:30:00", Ok("12:30:00")),
            ("12:30:00.5", Ok("12:30:00.500000")),
            ("12:30:00Z", Ok("12:30:00")),
            ("12:30:00+00:00", Ok("12:30:00")),
            ("12:30:00+01:00", Err(Misfit::OutOfRange)),
            ("25:00:00", Err(Misfit::OutOfRange)),
            ("12:30", Err(Misfit::Form)),
            ("12:30:00Zulu", Err(Misfit::Form)),
        ] {
            let result = time_of_day_micros(text, FinerTimes::BadRecord).map(|micros| {
                let mut out = Vec::new();
                write_time_of_day(micros, &mut out);
                String::from_utf8(out).unwrap()
            });
            assert_eq!(result, expected.map(str::to_owned), "{text}");
        }
    }

    #[test]
    fn dates_exist_or_are_refused() {
        assert_eq!(date_days("2024-02-29"), Ok(19_782));
        assert_eq!(date_days("0001-01-01"), Ok(FIRST_DAY));
        assert_eq!(date_days("9999-12-31"), Ok(2_932_896));
        assert_eq!(date_days("1900-02-29"), Err(Misfit::OutOfRange));
        assert_eq!(date_days("2026-13-01"), Err(Misfit::OutOfRange));
        assert_eq!(date_days("2026-1-01"), Err(Misfit::Form));
        assert_eq!(date_days("2026-01-01T"), Err(Misfit::Form));
    }

    proptest! {
        #[test]
        fn instants_agree_with_another_calendar(micros in FIRST_MICRO..=LAST_MICRO) {
            let text = epoch(&micros.to_string(), TimeUnit::Microseconds, FinerTimes::BadRecord).unwrap();
            let parsed = OffsetDateTime::parse(&text, &Rfc3339).unwrap();
            prop_assert_eq!(parsed.unix_timestamp_nanos(), i128::from(micros) * 1_000);
            prop_assert_eq!(timestamp(&text), Ok(text));
        }

        #[test]
        fn no_text_makes_the_readers_panic(text in any::<String>()) {
            let _ = timestamp(&text);
            let _ = date_days(&text);
            let _ = time_of_day_micros(&text, FinerTimes::Truncate);
        }

        #[test]
        fn no_number_makes_the_readers_panic(
            literal in "-?(0|[1-9][0-9]{0,30})(\\.[0-9]{1,30})?([eE][+-]?[0-9]{1,3})?",
            truncate in any::<bool>(),
        ) {
            let finer = if truncate { FinerTimes::Truncate } else { FinerTimes::BadRecord };
            for unit in [TimeUnit::Seconds, TimeUnit::Milliseconds, TimeUnit::Microseconds, TimeUnit::Nanoseconds] {
                let _ = epoch(&literal, unit, finer);
            }
        }
    }
}
