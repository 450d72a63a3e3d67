//! Single values of a record, checked and read, whatever a row is written as.

use txconnect_connector_api::{BadRecord, Document, Number, Record, TimeUnit};

use crate::config::FinerTimes;
use crate::record::{below, in_element, pointer_part};
use crate::{decimal, time_text};

/// An integer column's value: `1.0` counts as 1.
pub(crate) fn integer(number: Number<'_>) -> Result<i64, BadRecord> {
    number.as_i64().ok_or_else(|| {
        if number.is_integer() {
            out_of_range("a 64-bit integer")
        } else {
            BadRecord::new("encode.type", "", "the column takes an integer, the record has a fraction")
        }
    })
}

/// A double column's value.
pub(crate) fn float(number: Number<'_>) -> Result<f64, BadRecord> {
    let value = number.as_f64();
    if value.is_finite() { Ok(value) } else { Err(out_of_range("a double")) }
}

/// Appends a decimal column's value with its digits as they stand in the record.
pub(crate) fn decimal(literal: &str, whole: u32, scale: u32, out: &mut Vec<u8>) -> Result<(), BadRecord> {
    decimal::write(literal, whole, scale, out).map_err(|misfit| match misfit {
        decimal::Misfit::NotANumber => {
            BadRecord::new("encode.format", "", "the text is not a decimal number")
        }
        decimal::Misfit::OutOfRange => BadRecord::new(
            "encode.out_of_range",
            "",
            format!("the number has more than {whole} digits before the point"),
        ),
        decimal::Misfit::TooFine => BadRecord::new(
            "encode.inexact",
            "",
            format!("the number has more than {scale} digits behind the point"),
        ),
    })
}

/// Days since 1970-01-01.
pub(crate) fn date(text: &str) -> Result<i32, BadRecord> {
    time_text::date_days(text).map_err(|misfit| bad_time(misfit, "a date"))
}

/// Microseconds of the day.
pub(crate) fn time_of_day(text: &str, finer: FinerTimes) -> Result<i64, BadRecord> {
    time_text::time_of_day_micros(text, finer)
        .map_err(|misfit| bad_time(misfit, "a time of day without a zone"))
}

/// Microseconds since 1970 of an RFC 3339 time.
pub(crate) fn timestamp(text: &str, finer: FinerTimes) -> Result<i64, BadRecord> {
    time_text::timestamp_micros(text, finer).map_err(|misfit| bad_time(misfit, "an RFC 3339 time"))
}

/// Microseconds since 1970 of an epoch.
pub(crate) fn epoch(number: Number<'_>, unit: TimeUnit, finer: FinerTimes) -> Result<i64, BadRecord> {
    time_text::epoch_micros(number, unit, finer).map_err(|misfit| bad_time(misfit, "an epoch"))
}

/// Microseconds since 1970 of the time that Kafka keeps with the record.
pub(crate) fn kafka_timestamp(record: &Record<'_>) -> Result<Option<i64>, BadRecord> {
    let Some(milliseconds) = record.timestamp else { return Ok(None) };
    time_text::milliseconds_to_micros(milliseconds)
        .map(Some)
        .map_err(|misfit| bad_time(misfit, "a time of Kafka"))
}

/// Text that is base64 with padding (RFC 4648).
pub(crate) fn base64(text: &str) -> Result<(), BadRecord> {
    if is_base64(text) {
        return Ok(());
    }
    Err(BadRecord::new("encode.format", "", "the text is not base64 (RFC 4648, with padding)"))
}

/// A value that a JSON column keeps as it is: BigQuery turns integers beyond 64 bits into doubles without a word.
pub(crate) fn json(document: &Document<'_>) -> Result<(), BadRecord> {
    match document {
        Document::Number(number) => {
            let plain = !number.literal().bytes().any(|byte| matches!(byte, b'.' | b'e' | b'E'));
            if plain && number.as_i64().is_none() && number.as_u64().is_none() {
                return Err(out_of_range("a 64-bit integer, which is all a JSON column keeps exactly"));
            }
            Ok(())
        }
        Document::Array(elements) => elements
            .iter()
            .enumerate()
            .try_for_each(|(index, element)| json(element).map_err(|bad| in_element(index, bad))),
        Document::Object(object) => object
            .members()
            .iter()
            .try_for_each(|member| json(&member.value).map_err(|bad| below(&pointer_part(member.name), bad))),
        Document::Null | Document::Bool(_) | Document::String(_) => Ok(()),
    }
}

fn is_base64(text: &str) -> bool {
    let bytes = text.as_bytes();
    let padding = bytes.iter().rev().take(2).take_while(|byte| **byte == b'=').count();
    bytes.len().is_multiple_of(4)
        && bytes[..bytes.len() - padding]
            .iter()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/'))
}

fn out_of_range(range: &str) -> BadRecord {
    BadRecord::new("encode.out_of_range", "", format!("the number does not fit {range}"))
}

fn bad_time(misfit: time_text::Misfit, wanted: &str) -> BadRecord {
    match misfit {
        time_text::Misfit::Form => BadRecord::new("encode.format", "", format!("the value is not {wanted}")),
        time_text::Misfit::OutOfRange => BadRecord::new(
            "encode.out_of_range",
            "",
            format!("the value is not {wanted} that exists and that BigQuery keeps (years 1 to 9999)"),
        ),
        time_text::Misfit::TooFine => BadRecord::new(
            "encode.inexact",
            "",
            "the time is finer than a microsecond, which is all BigQuery keeps (`finer_times: truncate` drops the rest)",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn base64_is_the_standard_alphabet_with_padding() {
        for fine in ["", "QQ==", "QUI=", "QUJD", "+/+/"] {
            assert!(is_base64(fine), "{fine}");
        }
        for wrong in ["QQ", "Q===", "====", "QUI_", "QU I", "QQ==QQ=="] {
            assert!(!is_base64(wrong), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn whatever_is_encoded_as_base64_is_recognised(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            use base64::Engine as _;
            prop_assert!(is_base64(&base64::engine::general_purpose::STANDARD.encode(&bytes)));
        }
    }
}
