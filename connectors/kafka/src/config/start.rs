//! Where to begin without a position.

#![forbid(unsafe_code)]

use std::borrow::Cow;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Deserialize, Deserializer, Error};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// Where to begin in a partition for which the group has no position yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Start {
    /// At the first record there is.
    #[default]
    Earliest,
    /// With records that come from now on.
    Latest,
    /// At the first record that is not older: milliseconds since 1970.
    Timestamp(i64),
}

impl FromStr for Start {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "earliest" => return Ok(Self::Earliest),
            "latest" => return Ok(Self::Latest),
            _ => {}
        }
        let wrong =
            || format!("`{text}` is not `earliest`, `latest` or a timestamp such as 2026-01-31T00:00:00Z");
        let instant = OffsetDateTime::parse(text, &Rfc3339).map_err(|_| wrong())?;
        let milliseconds = i64::try_from(instant.unix_timestamp_nanos().div_euclid(1_000_000));
        // Negative numbers have other meanings in Kafka's protocol.
        milliseconds.ok().filter(|&milliseconds| milliseconds >= 0).map(Self::Timestamp).ok_or_else(wrong)
    }
}

impl<'de> Deserialize<'de> for Start {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

impl JsonSchema for Start {
    fn schema_name() -> Cow<'static, str> {
        "Start".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "earliest, latest, or a timestamp such as 2026-01-31T00:00:00Z",
            "anyOf": [
                { "enum": ["earliest", "latest"] },
                { "type": "string", "format": "date-time" },
            ],
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn words_and_timestamps_are_read() {
        assert_eq!("earliest".parse(), Ok(Start::Earliest));
        assert_eq!("latest".parse(), Ok(Start::Latest));
        assert_eq!("1970-01-01T00:00:01.5Z".parse(), Ok(Start::Timestamp(1_500)));
        assert_eq!("1970-01-01T01:00:00+01:00".parse(), Ok(Start::Timestamp(0)));
        for wrong in ["", "newest", "2026-01-31", "1969-12-31T23:59:59Z", "2026-13-01T00:00:00Z"] {
            assert!(wrong.parse::<Start>().is_err(), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_the_parser_panic(text in any::<String>()) {
            let _ = text.parse::<Start>();
        }

        #[test]
        fn a_written_timestamp_is_read_back(seconds in 0_i64..4_000_000_000) {
            let text = OffsetDateTime::from_unix_timestamp(seconds).unwrap().format(&Rfc3339).unwrap();
            prop_assert_eq!(text.parse(), Ok(Start::Timestamp(seconds * 1000)));
        }
    }
}
