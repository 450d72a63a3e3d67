//! JSON values compared to the last digit: as numbers `1.50` is `1.5`, and `0.1` is nothing else that a float rounds to it.

use std::collections::BTreeMap;

use sonic_rs::{JsonType, JsonValueTrait, LazyValue};

/// A JSON value without what does not matter: blanks, escapes, the order of members, how a number is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Exact {
    Null,
    Bool(bool),
    Number(Number),
    Text(String),
    List(Vec<Exact>),
    Members(BTreeMap<String, Exact>),
}

/// A number: `digits` × 10^`exponent`, without zeros at either end of the digits; zero has no digits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Number {
    negative: bool,
    digits: String,
    exponent: i128,
}

impl Exact {
    /// Reads a text that is known to be JSON, nested no deeper than serde's parser allows.
    pub(super) fn read(text: &str) -> Option<Self> {
        Self::from_lazy(sonic_rs::from_str(text).ok()?)
    }

    fn from_lazy(value: LazyValue<'_>) -> Option<Self> {
        Some(match value.get_type() {
            JsonType::Null => Self::Null,
            JsonType::Boolean => Self::Bool(value.as_bool()?),
            JsonType::Number => Self::Number(Number::read(value.as_raw_str())?),
            JsonType::String => Self::Text(value.as_str()?.to_owned()),
            JsonType::Array => Self::List(
                value.into_array_iter()?.map(|one| Self::from_lazy(one.ok()?)).collect::<Option<_>>()?,
            ),
            JsonType::Object => Self::Members(
                value
                    .into_object_iter()?
                    .map(|member| {
                        let (name, value) = member.ok()?;
                        Some((name.to_string(), Self::from_lazy(value)?))
                    })
                    .collect::<Option<_>>()?,
            ),
        })
    }

    /// The same, with a failure written as `transform.code` taken for one written as `code`.
    pub(super) fn with_short_code(self) -> Self {
        match self {
            Self::Members(mut members) if members.len() == 1 => {
                if let Some(Self::Text(code)) = members.get_mut("failed")
                    && let Some(short) = code.strip_prefix("transform.")
                {
                    *code = short.to_owned();
                }
                Self::Members(members)
            }
            other => other,
        }
    }
}

impl Number {
    fn read(text: &str) -> Option<Self> {
        let (negative, text) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
        let (mantissa, exponent) = match text.split_once(['e', 'E']) {
            // Beyond this nobody tells numbers apart.
            Some((mantissa, exponent)) => (mantissa, exponent.parse::<i64>().ok()?),
            None => (text, 0),
        };
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let all = format!("{whole}{fraction}");
        let digits = all.trim_end_matches('0');
        let exponent = i128::from(exponent) - i128::try_from(fraction.len()).ok()?
            + i128::try_from(all.len() - digits.len()).ok()?;
        let digits = digits.trim_start_matches('0').to_owned();
        if digits.is_empty() {
            return Some(Self { negative: false, digits, exponent: 0 });
        }
        Some(Self { negative, digits, exponent })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn same(one: &str, other: &str) -> bool {
        Exact::read(one).unwrap() == Exact::read(other).unwrap()
    }

    #[test]
    fn what_does_not_matter_is_not_compared() {
        assert!(same(r#"{"a": 1.50, "b": "\u00e4"}"#, r#"{"b":"ä","a":15e-1}"#));
        for (one, other) in [("0", "-0.0e5"), ("100", "1E+2"), ("0.0120", "12e-3"), ("-7", "-7.0")] {
            assert!(same(one, other), "{one} {other}");
        }
    }

    #[test]
    fn what_matters_is_compared_to_the_last_digit() {
        for (one, other) in [
            ("0.1", "0.1000000000000000055"),
            ("9007199254740993", "9007199254740992"),
            ("1", "\"1\""),
            ("1", "-1"),
            ("1", "10"),
            ("[1,2]", "[2,1]"),
            ("{\"a\":null}", "{}"),
            ("null", "false"),
        ] {
            assert!(!same(one, other), "{one} {other}");
        }
    }

    #[test]
    fn a_failure_may_be_written_with_its_class() {
        let short = |text: &str| Exact::read(text).unwrap().with_short_code();
        assert_eq!(short(r#"{"failed":"transform.four"}"#), short(r#"{"failed":"four"}"#));
        assert_ne!(short(r#"{"x":"transform.four"}"#), short(r#"{"x":"four"}"#));
    }

    proptest! {
        #[test]
        fn numbers_equal_themselves_however_they_are_written(number: i64, zeros in 0_usize..5, shift in 0_i64..5) {
            let padded = format!("{number}.{}", "0".repeat(zeros + 1));
            prop_assert!(same(&number.to_string(), &padded));
            let shifted = format!("{number}{}e-{shift}", "0".repeat(usize::try_from(shift).unwrap()));
            prop_assert!(same(&number.to_string(), &shifted));
            prop_assert!(number == i64::MAX || !same(&number.to_string(), &(number + 1).to_string()));
        }
    }
}
