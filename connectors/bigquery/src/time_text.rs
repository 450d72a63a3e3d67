//! Dates and times in the text forms that BigQuery reads.
//!
//! BigQuery keeps microseconds and the years 1 to 9999
//! (<https://cloud.google.com/bigquery/docs/reference/standard-sql/data-types#timestamp_type>). A leap
//! second (`23:59:60`) has no place in it and is refused.

use txconnect_connector_api::{Number, TimeUnit};

use crate::config::FinerTimes;

const MICROS_A_SECOND: i64 = 1_000_000;
const SECONDS_A_DAY: i64 = 86_400;

/// 0001-01-01T00:00:00Z in seconds since 1970.
const FIRST_SECOND: i64 = -62_135_596_800;

/// 9999-12-31T23:59:59Z in seconds since 1970.
const LAST_SECOND: i64 = 253_402_300_799;

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

    /// `HH:MM:SS[.fraction]` as seconds of the day and microseconds.
    fn time(&mut self, finer: FinerTimes) -> Result<(i64, i64), Misfit> {
        let hour = self.digits(2)?;
        self.one_of(b":")?;
        let minute = self.digits(2)?;
        self.one_of(b":")?;
        let second = self.digits(2)?;
        let micros = self.fraction(finer)?;
        if hour > 23 || minute > 59 || second > 59 {
            return Err(Misfit::OutOfRange);
        }
        Ok((hour * 3600 + minute * 60 + second, micros))
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

/// Checks a date, `2026-11-23`.
pub(crate) fn check_date(text: &str) -> Result<(), Misfit> {
    let mut reader = Reader(text.as_bytes());
    reader.date()?;
    reader.end()
}

/// Appends a time of day, `12:30:00[.fraction]`. BigQuery's TIME knows no zone, so RFC 3339's offset may be
/// left out or be zero.
pub(crate) fn write_time(text: &str, finer: FinerTimes, out: &mut Vec<u8>) -> Result<(), Misfit> {
    let mut reader = Reader(text.as_bytes());
    let (second, micros) = reader.time(finer)?;
    if !reader.0.is_empty() && reader.offset()? != 0 {
        return Err(Misfit::OutOfRange);
    }
    reader.end()?;
    write_time_of_day(second, micros, out);
    Ok(())
}

/// Appends an RFC 3339 time as UTC, `2026-11-23T12:30:00.25Z`.
pub(crate) fn write_timestamp(text: &str, finer: FinerTimes, out: &mut Vec<u8>) -> Result<(), Misfit> {
    let mut reader = Reader(text.as_bytes());
    let days = reader.date()?;
    reader.one_of(b"Tt ")?;
    let (second, micros) = reader.time(finer)?;
    let offset = reader.offset()?;
    reader.end()?;
    write_instant(days * SECONDS_A_DAY + second - offset, micros, out)
}

/// Appends a count of `unit` since 1970 as UTC.
pub(crate) fn write_epoch(
    number: &Number<'_>,
    unit: TimeUnit,
    finer: FinerTimes,
    out: &mut Vec<u8>,
) -> Result<(), Misfit> {
    let (units_a_second, power) = match unit {
        TimeUnit::Seconds => (1, 6),
        TimeUnit::Milliseconds => (1_000, 3),
        TimeUnit::Microseconds => (1_000_000, 0),
        TimeUnit::Nanoseconds => (1_000_000_000, -3),
    };
    if let Some(value) = number.as_i64() {
        let seconds = value.div_euclid(units_a_second);
        let rest = value.rem_euclid(units_a_second);
        let micros = if power >= 0 {
            rest * (MICROS_A_SECOND / units_a_second)
        } else if finer == FinerTimes::BadRecord && rest % 1_000 != 0 {
            return Err(Misfit::TooFine);
        } else {
            rest / 1_000
        };
        return write_instant(seconds, micros, out);
    }
    // A fraction, or a number beyond 64 bits: exact by shifting the decimal point.
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
    let micros = if decimal.negative { -magnitude - i64::from(dropped) } else { magnitude };
    write_instant(micros.div_euclid(MICROS_A_SECOND), micros.rem_euclid(MICROS_A_SECOND), out)
}

fn write_instant(seconds: i64, micros: i64, out: &mut Vec<u8>) -> Result<(), Misfit> {
    if !(FIRST_SECOND..=LAST_SECOND).contains(&seconds) {
        return Err(Misfit::OutOfRange);
    }
    let (year, month, day) = civil_from_days(seconds.div_euclid(SECONDS_A_DAY));
    write_digits(year, 4, out);
    out.push(b'-');
    write_digits(month, 2, out);
    out.push(b'-');
    write_digits(day, 2, out);
    out.push(b'T');
    write_time_of_day(seconds.rem_euclid(SECONDS_A_DAY), micros, out);
    out.push(b'Z');
    Ok(())
}

fn write_time_of_day(second: i64, micros: i64, out: &mut Vec<u8>) {
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
        let mut out = Vec::new();
        write_timestamp(text, FinerTimes::BadRecord, &mut out).map(|()| String::from_utf8(out).unwrap())
    }

    fn epoch(literal: &str, unit: TimeUnit, finer: FinerTimes) -> Result<String, Misfit> {
        let mut out = Vec::new();
        write_epoch(&Number::from_literal(literal), unit, finer, &mut out)
            .map(|()| String::from_utf8(out).unwrap())
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
        let mut out = Vec::new();
        write_timestamp("2026-11-23T12:30:00.123456789Z", FinerTimes::Truncate, &mut out).unwrap();
        assert_eq!(out, b"2026-11-23T12:30:00.123456Z");
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
            let mut out = Vec::new();
            let result = write_time(text, FinerTimes::BadRecord, &mut out);
            assert_eq!(
                result.map(|()| String::from_utf8(out).unwrap()),
                expected.map(str::to_owned),
                "{text}"
            );
        }
    }

    #[test]
    fn dates_exist_or_are_refused() {
        assert_eq!(check_date("2024-02-29"), Ok(()));
        assert_eq!(check_date("1900-02-29"), Err(Misfit::OutOfRange));
        assert_eq!(check_date("2026-13-01"), Err(Misfit::OutOfRange));
        assert_eq!(check_date("2026-1-01"), Err(Misfit::Form));
        assert_eq!(check_date("2026-01-01T"), Err(Misfit::Form));
    }

    proptest! {
        #[test]
        fn instants_agree_with_another_calendar(micros in FIRST_SECOND * MICROS_A_SECOND..=LAST_SECOND * MICROS_A_SECOND) {
            let text = epoch(&micros.to_string(), TimeUnit::Microseconds, FinerTimes::BadRecord).unwrap();
            let parsed = OffsetDateTime::parse(&text, &Rfc3339).unwrap();
            prop_assert_eq!(parsed.unix_timestamp_nanos(), i128::from(micros) * 1_000);
            prop_assert_eq!(timestamp(&text), Ok(text));
        }

        #[test]
        fn no_text_makes_the_readers_panic(text in any::<String>()) {
            let _ = timestamp(&text);
            let _ = check_date(&text);
            let _ = write_time(&text, FinerTimes::Truncate, &mut Vec::new());
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
