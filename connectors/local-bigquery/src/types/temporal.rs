//! DATE, TIME, DATETIME and TIMESTAMP text to counts of days and microseconds, and back.
//!
//! The forms read are those of BigQuery's literals: `YYYY-[M]M-[D]D`, `[H]H:[M]M:[S]S[.F]` with at most six digits of
//! fraction (more only when they are zeros), `T` or a space between them, and for TIMESTAMP a zone as `Z`, `UTC` or
//! `±H[H][:MM]`. Zone names other than UTC are refused.

use time::{Date, Month};

/// Microseconds in a day.
const DAY_US: i64 = 86_400_000_000;
/// 0001-01-01T00:00:00Z in microseconds since 1970: the smallest TIMESTAMP and DATETIME.
const FIRST_US: i64 = -62_135_596_800_000_000;
/// 9999-12-31T23:59:59.999999Z in microseconds since 1970: the largest TIMESTAMP and DATETIME.
const LAST_US: i64 = 253_402_300_799_999_999;
/// 0001-01-01 in days since 1970-01-01: the smallest DATE.
const FIRST_DAY: i32 = -719_162;
/// 9999-12-31 in days since 1970-01-01: the largest DATE.
const LAST_DAY: i32 = 2_932_896;
/// The Julian day of 1970-01-01.
const EPOCH_JULIAN_DAY: i32 = 2_440_588;

/// The unread rest of a text.
struct Scanner<'a> {
    rest: &'a [u8],
}

impl<'a> Scanner<'a> {
    fn new(text: &'a str) -> Scanner<'a> {
        Scanner { rest: text.trim().as_bytes() }
    }

    fn eat(&mut self, wanted: u8) -> bool {
        let found = self.rest.first() == Some(&wanted);
        if found {
            self.rest = &self.rest[1..];
        }
        found
    }

    fn eat_any_case(&mut self, word: &str) -> bool {
        let found =
            self.rest.get(..word.len()).is_some_and(|start| start.eq_ignore_ascii_case(word.as_bytes()));
        if found {
            self.rest = &self.rest[word.len()..];
        }
        found
    }

    /// A number of `least` to `most` digits; `most` stays below ten, so that it fits.
    fn number(&mut self, least: usize, most: usize) -> Option<u32> {
        let digits = self.rest.iter().take(most).take_while(|byte| byte.is_ascii_digit()).count();
        if digits < least {
            return None;
        }
        let (number, rest) = self.rest.split_at(digits);
        self.rest = rest;
        Some(number.iter().fold(0, |sum, digit| sum * 10 + u32::from(digit - b'0')))
    }

    /// `YYYY-[M]M-[D]D` as days since 1970-01-01.
    fn date(&mut self) -> Option<i32> {
        let year = i32::try_from(self.number(4, 4)?).ok().filter(|year| *year >= 1)?;
        let month = self.eat(b'-').then(|| self.number(1, 2))??;
        let day = self.eat(b'-').then(|| self.number(1, 2))??;
        let month = Month::try_from(u8::try_from(month).ok()?).ok()?;
        let date = Date::from_calendar_date(year, month, u8::try_from(day).ok()?).ok()?;
        Some(days_of(date))
    }

    /// `[H]H:[M]M:[S]S[.F]` as microseconds since midnight.
    fn time(&mut self) -> Option<i64> {
        let hour = self.number(1, 2)?;
        let minute = self.eat(b':').then(|| self.number(1, 2))??;
        let second = self.eat(b':').then(|| self.number(1, 2))??;
        if hour > 23 || minute > 59 || second > 59 {
            return None;
        }
        let seconds = i64::from(hour * 3600 + minute * 60 + second);
        Some(seconds * 1_000_000 + self.fraction()?)
    }

    /// `.F` as microseconds; nothing is 0.
    fn fraction(&mut self) -> Option<i64> {
        if !self.eat(b'.') {
            return Some(0);
        }
        let digits = self.rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
        let (fraction, rest) = self.rest.split_at(digits);
        if fraction.iter().skip(6).any(|digit| *digit != b'0') {
            return None;
        }
        self.rest = rest;
        let digit = |at: usize| fraction.get(at).map_or(0, |digit| i64::from(digit - b'0'));
        Some((0..6).fold(0, |sum, at| sum * 10 + digit(at)))
    }

    /// A zone's offset in microseconds; no zone is UTC.
    fn zone(&mut self) -> Option<i64> {
        while self.eat(b' ') {}
        if self.rest.is_empty() || self.eat_any_case("UTC") || self.eat_any_case("Z") {
            return Some(0);
        }
        let sign = if self.eat(b'+') {
            1
        } else if self.eat(b'-') {
            -1
        } else {
            return None;
        };
        let hours = self.number(1, 2)?;
        let minutes = if self.eat(b':') || self.rest.len() == 2 { self.number(2, 2)? } else { 0 };
        (hours <= 14 && minutes <= 59).then(|| sign * i64::from(hours * 60 + minutes) * 60_000_000)
    }

    /// `DATE[(T| )TIME]` as microseconds since 1970, on whichever clock the text means.
    fn date_and_time(&mut self) -> Option<i64> {
        let days = i64::from(self.date()?);
        let separated = self.rest.len() > 1
            && self.rest[1].is_ascii_digit()
            && (self.eat_any_case("T") || self.eat(b' '));
        let time = if separated { self.time()? } else { 0 };
        Some(days * DAY_US + time)
    }

    fn end<T>(&self, value: T) -> Option<T> {
        self.rest.is_empty().then_some(value)
    }
}

/// A date as days since 1970-01-01.
pub(crate) fn days_of(date: Date) -> i32 {
    date.to_julian_day() - EPOCH_JULIAN_DAY
}

/// A count of days since 1970-01-01, where the day lies in the years 1 to 9999.
pub(crate) fn date_in_range(days: i64) -> Option<i32> {
    i32::try_from(days).ok().filter(|days| (FIRST_DAY..=LAST_DAY).contains(days))
}

/// A count of microseconds since 1970, where the moment lies in the years 1 to 9999.
pub(crate) fn in_range(micros: i64) -> Option<i64> {
    (FIRST_US..=LAST_US).contains(&micros).then_some(micros)
}

/// A DATE as days since 1970-01-01.
pub(crate) fn parse_date(text: &str) -> Option<i32> {
    let mut scanner = Scanner::new(text);
    let days = scanner.date()?;
    scanner.end(days)
}

/// A TIME as microseconds since midnight.
pub(crate) fn parse_time(text: &str) -> Option<i64> {
    let mut scanner = Scanner::new(text);
    let micros = scanner.time()?;
    scanner.end(micros)
}

/// A DATETIME as microseconds since 1970-01-01T00:00:00 on the wall clock.
pub(crate) fn parse_datetime(text: &str) -> Option<i64> {
    let mut scanner = Scanner::new(text);
    let micros = scanner.date_and_time()?;
    scanner.end(micros)
}

/// A TIMESTAMP as microseconds since 1970-01-01T00:00:00Z: a date and time with an optional zone, or seconds as a number.
pub(crate) fn parse_timestamp(text: &str) -> Option<i64> {
    let mut scanner = Scanner::new(text);
    let civil = scanner.date_and_time().and_then(|local| Some(local - scanner.zone()?));
    match civil {
        Some(micros) => in_range(scanner.end(micros)?),
        None => from_seconds(text.trim().parse().ok()?),
    }
}

/// A TIMESTAMP given as whole seconds since 1970.
pub(crate) fn from_whole_seconds(seconds: i64) -> Option<i64> {
    seconds.checked_mul(1_000_000).and_then(in_range)
}

/// A TIMESTAMP given as seconds since 1970, rounded to microseconds.
pub(crate) fn from_seconds(seconds: f64) -> Option<i64> {
    let micros = (seconds * 1e6).round();
    // Written so that NaN fails; both bounds are far inside what i64 and f64 hold.
    #[allow(clippy::cast_possible_truncation, reason = "the range was checked on the line above")]
    let whole = (micros >= FIRST_US as f64 && micros <= LAST_US as f64).then_some(micros as i64);
    whole.and_then(in_range)
}

/// `YYYY-MM-DD`.
pub(crate) fn format_date(days: i32) -> String {
    let julian = days.saturating_add(EPOCH_JULIAN_DAY);
    // A day outside year 1 to 9999 cannot have been stored; it would show as its count.
    Date::from_julian_day(julian).map_or_else(
        |_| days.to_string(),
        |date| format!("{:04}-{:02}-{:02}", date.year(), u8::from(date.month()), date.day()),
    )
}

/// `HH:MM:SS[.ffffff]`.
pub(crate) fn format_time(micros: i64) -> String {
    let (seconds, fraction) = (micros / 1_000_000, micros % 1_000_000);
    let clock = format!("{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60);
    if fraction == 0 { clock } else { format!("{clock}.{fraction:06}") }
}

/// `YYYY-MM-DDTHH:MM:SS[.ffffff]`.
pub(crate) fn format_datetime(micros: i64) -> String {
    let days = i32::try_from(micros.div_euclid(DAY_US)).unwrap_or(i32::MAX);
    format!("{}T{}", format_date(days), format_time(micros.rem_euclid(DAY_US)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn every_documented_form_of_a_timestamp_means_the_same_moment() {
        let moment = Some(1_408_452_095_220_000);
        for text in [
            "2014-08-19T12:41:35.22Z",
            "2014-08-19 12:41:35.22",
            "2014-08-19 12:41:35.220000 UTC",
            "2014-08-19 12:41:35.220000000Z",
            "2014-8-19T05:41:35.22-07:00",
            "2014-08-19T05:41:35.22-7",
            "2014-08-19T18:11:35.22 +05:30",
            "2014-08-19T18:11:35.22+0530",
            "1408452095.22",
            "1.40845209522E9",
        ] {
            assert_eq!(parse_timestamp(text), moment, "{text}");
        }
        assert_eq!(parse_timestamp("2014-08-19"), Some(1_408_406_400_000_000));
        assert_eq!(from_seconds(1_408_452_095.22), moment);
        assert_eq!(parse_timestamp("-1.5"), Some(-1_500_000));
    }

    #[test]
    fn a_moment_outside_the_years_1_to_9999_is_refused() {
        assert_eq!(parse_timestamp("0001-01-01T00:00:00Z"), Some(FIRST_US));
        assert_eq!(parse_timestamp("9999-12-31T23:59:59.999999Z"), Some(LAST_US));
        assert_eq!(parse_timestamp("0001-01-01T00:00:00+01:00"), None);
        assert_eq!(parse_timestamp("9999-12-31T23:59:59-01:00"), None);
        assert_eq!(parse_timestamp("0000-01-01"), None);
        assert_eq!(from_seconds(1e300), None);
        assert_eq!(from_seconds(f64::NAN), None);
        assert_eq!(parse_timestamp("NaN"), None);
    }

    #[test]
    fn what_is_no_date_or_time_is_refused() {
        for text in ["", "2026-02-30", "2026-13-01", "26-01-01", "2026-01-01x", "2026/01/01", "2026-01-01T"] {
            assert_eq!(parse_date(text), None, "{text}");
            assert_eq!(parse_timestamp(text), None, "{text}");
        }
        for text in ["24:00:00", "12:60:00", "12:00", "12:00:61", "12:00:00.1234567"] {
            assert_eq!(parse_time(text), None, "{text}");
        }
        assert_eq!(parse_timestamp("2026-01-01T00:00:00 Europe/Berlin"), None);
        assert_eq!(parse_datetime("2026-01-01T00:00:00Z"), None);
    }

    proptest! {
        #[test]
        fn a_moment_survives_being_written_and_read(micros in FIRST_US..=LAST_US) {
            let text = format_datetime(micros);
            prop_assert_eq!(parse_datetime(&text), Some(micros));
            let timestamp = format!("{text}Z");
            prop_assert_eq!(parse_timestamp(&timestamp), Some(micros));
        }

        #[test]
        fn no_text_makes_it_panic(text in "[-+0-9:.TZ UTC]{0,40}|.{0,20}") {
            let _ = (parse_date(&text), parse_time(&text), parse_datetime(&text), parse_timestamp(&text));
        }
    }
}
