//! Where positions are to go.

use std::str::FromStr;

use txconnect_kafka::Start;

/// Where to go on reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// At the first record there is.
    Earliest,
    /// With records that come from now on.
    Latest,
    /// At the first record that is not older: milliseconds since 1970.
    Time(i64),
    /// At this offset.
    Offset(i64),
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong =
            || "write earliest, latest, a time such as 2026-01-31T00:00:00Z, or an offset such as 1200";
        if text.bytes().all(|byte| byte.is_ascii_digit()) {
            return text.parse().map(Self::Offset).map_err(|_| wrong().to_owned());
        }
        match text.parse() {
            Ok(Start::Earliest) => Ok(Self::Earliest),
            Ok(Start::Latest) => Ok(Self::Latest),
            Ok(Start::Timestamp(millis)) => Ok(Self::Time(millis)),
            Err(_) => Err(wrong().to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn words_times_and_offsets_are_told_apart() {
        assert_eq!("earliest".parse(), Ok(Target::Earliest));
        assert_eq!("latest".parse(), Ok(Target::Latest));
        assert_eq!("0".parse(), Ok(Target::Offset(0)));
        assert_eq!("1970-01-01T00:00:02+00:00".parse(), Ok(Target::Time(2_000)));
        for wrong in ["", "-1", "1.5", "2026-01-31", "newest", "99999999999999999999"] {
            assert!(wrong.parse::<Target>().is_err(), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_the_parser_panic(text in any::<String>()) {
            let _ = text.parse::<Target>();
        }
    }
}
