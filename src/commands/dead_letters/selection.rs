//! Which letters a command is about.

use clap::Args;
use txconnect_kafka::Start;

use super::letter::Letter;

/// Letters chosen by what is wrong with them and when.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Which letters")]
pub struct CauseArguments {
    /// Only records of this topic; may be repeated
    #[arg(long = "topic", value_name = "TOPIC")]
    pub topics: Vec<String>,
    /// Only those of this stage: decode, validate, encode or write; may be repeated
    #[arg(long = "stage", value_name = "STAGE")]
    pub stages: Vec<String>,
    /// Only those of this class, or of all that begin with it: validate.required, validate; may be repeated
    #[arg(long = "class", value_name = "CLASS")]
    pub classes: Vec<String>,
    /// Only records that are not older, for example 2026-01-31T00:00:00Z
    #[arg(long, value_name = "TIME", value_parser = millis)]
    pub since: Option<i64>,
    /// Only records that are older
    #[arg(long, value_name = "TIME", value_parser = millis)]
    pub until: Option<i64>,
}

fn millis(text: &str) -> Result<i64, String> {
    match text.parse() {
        Ok(Start::Timestamp(millis)) => Ok(millis),
        _ => Err("write a time such as 2026-01-31T00:00:00Z".to_owned()),
    }
}

impl CauseArguments {
    /// Whether nothing is chosen.
    pub(super) fn is_empty(&self) -> bool {
        self.topics.is_empty()
            && self.stages.is_empty()
            && self.classes.is_empty()
            && self.since.is_none()
            && self.until.is_none()
    }

    /// Whether the letter is one of these.
    pub(super) fn matches(&self, letter: &Letter<'_>) -> bool {
        let among = |wanted: &[String], told: Option<&str>, fits: fn(&str, &str) -> bool| {
            wanted.is_empty() || told.is_some_and(|told| wanted.iter().any(|wanted| fits(wanted, told)))
        };
        let same = |wanted: &str, told: &str| wanted == told;
        // The times last: without a timestamp a letter is neither before nor after any.
        among(&self.topics, letter.origin().map(|origin| origin.topic), same)
            && among(&self.stages, letter.stage().as_deref(), same)
            && among(&self.classes, letter.class().as_deref(), is_class)
            && self.since.is_none_or(|since| letter.timestamp.is_some_and(|time| time >= since))
            && self.until.is_none_or(|until| letter.timestamp.is_some_and(|time| time < until))
    }
}

/// Whether `told` is the class `wanted` or one below it.
fn is_class(wanted: &str, told: &str) -> bool {
    told.strip_prefix(wanted).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

#[cfg(test)]
mod tests {
    use super::super::letter::tests::{bare_letter, letter};
    use super::*;

    fn chosen(change: impl FnOnce(&mut CauseArguments)) -> bool {
        let mut arguments = CauseArguments::default();
        change(&mut arguments);
        arguments.matches(&letter(&[]))
    }

    #[test]
    fn a_letter_must_fit_in_everything_that_is_asked() {
        assert!(chosen(|_| {}));
        assert!(chosen(|wanted| wanted.topics = vec!["else".into(), "cash_ins".into()]));
        assert!(!chosen(|wanted| wanted.topics = vec!["cash_ins.dead-letters".into()]));
        assert!(chosen(|wanted| wanted.stages = vec!["validate".into()]));
        assert!(!chosen(|wanted| {
            wanted.topics = vec!["cash_ins".into()];
            wanted.stages = vec!["decode".into()];
        }));
    }

    #[test]
    fn a_class_stands_for_those_below_it() {
        for (class, fits) in [
            ("validate.required", true),
            ("validate", true),
            ("valid", false),
            ("validate.", false),
            ("x", false),
        ] {
            assert_eq!(chosen(|wanted| wanted.classes = vec![class.into()]), fits, "{class}");
        }
    }

    #[test]
    fn times_bound_from_since_to_before_until() {
        let time = 1_700_000_000_000;
        assert!(chosen(|wanted| (wanted.since, wanted.until) = (Some(time), Some(time + 1))));
        assert!(!chosen(|wanted| wanted.until = Some(time)));
        assert!(!chosen(|wanted| wanted.since = Some(time + 1)));
        assert!(millis("earliest").is_err() && millis("2026-01-31").is_err());
    }

    #[test]
    fn a_letter_without_headers_fits_only_where_nothing_is_asked() {
        let by_class = CauseArguments { classes: vec!["validate".into()], ..CauseArguments::default() };
        assert!(!by_class.matches(&bare_letter()));
        assert!(CauseArguments::default().matches(&bare_letter()));
    }
}
