//! Which topics a pipeline reads.

#![forbid(unsafe_code)]

use regex::Regex;

use super::KafkaSourceConfig;

/// The longest name that Kafka permits.
const LONGEST_NAME: usize = 249;

/// Which topics a pipeline reads, ready to be asked many times.
#[derive(Clone, Debug)]
pub enum TopicFilter {
    /// By name.
    Names(Vec<String>),
    /// By pattern.
    Pattern(Regex),
}

impl TopicFilter {
    /// Whether the topic is read. Internal topics match by name only.
    pub fn matches(&self, topic: &str) -> bool {
        match self {
            Self::Names(names) => names.iter().any(|name| name == topic),
            Self::Pattern(pattern) => !topic.starts_with("__") && pattern.is_match(topic),
        }
    }
}

impl KafkaSourceConfig {
    /// The topics by name or pattern. An expression that does not compile, which
    /// [`KafkaSourceConfig::problems`] reports, reads nothing.
    pub fn topic_filter(&self) -> TopicFilter {
        match self.pattern.as_deref().map(whole_name) {
            Some(Ok(pattern)) => TopicFilter::Pattern(pattern),
            _ => TopicFilter::Names(self.topics.clone().unwrap_or_default()),
        }
    }

    /// Whether the pipeline reads the topic. To ask for many, make a [`Self::topic_filter`] once.
    pub fn topic_matches(&self, topic: &str) -> bool {
        self.topic_filter().matches(topic)
    }
}

/// The expression that matches whole names only.
pub(super) fn whole_name(pattern: &str) -> Result<Regex, regex::Error> {
    // First alone: an expression such as `a)(b` is wrong, although it would be right between brackets.
    Regex::new(pattern)?;
    Regex::new(&format!("^(?:{pattern})$"))
}

/// Why Kafka would not permit the name.
pub(crate) fn wrong_name(name: &str) -> Option<String> {
    let wrong = |why: &str| Some(format!("`{name}` is not a topic name: {why}"));
    if name.is_empty() {
        wrong("it is empty")
    } else if name == "." || name == ".." {
        wrong("`.` and `..` are not permitted")
    } else if name.len() > LONGEST_NAME {
        wrong("it is longer than 249 characters")
    } else if !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte)) {
        wrong("only letters, digits, `.`, `_` and `-` are permitted")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::config;
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_pattern_matches_whole_names_and_never_internal_topics() {
        let config = config(serde_json::json!({ "pattern": "cash_.*|_*offsets" }));
        assert!(config.topic_matches("cash_ins"));
        assert!(config.topic_matches("_offsets"));
        assert!(!config.topic_matches("old_cash_ins"));
        assert!(!config.topic_matches("__offsets"));
        assert!(!config.topic_matches("offsets_2"));
    }

    #[test]
    fn topics_match_by_name_only() {
        let config = config(serde_json::json!({ "topics": ["a.b"] }));
        assert!(config.topic_matches("a.b"));
        assert!(!config.topic_matches("aXb"));
    }

    #[test]
    fn brackets_cannot_break_out_of_the_whole_name() {
        assert!(whole_name("a)|(b").is_err());
        assert!(whole_name("(").is_err());
    }

    #[test]
    fn names_that_kafka_refuses_are_found() {
        let long = "a".repeat(250);
        for wrong in ["", ".", "..", "a b", "ä", "a/b", "a\0b", long.as_str()] {
            assert!(wrong_name(wrong).is_some(), "{wrong}");
        }
        assert_eq!(wrong_name("Cash-ins_2.v1"), None);
    }

    proptest! {
        #[test]
        fn a_literal_pattern_matches_exactly_its_name(name in "[a-z0-9._-]{1,20}", other in "[a-z0-9._-]{1,20}") {
            let config = config(serde_json::json!({ "pattern": regex::escape(&name) }));
            prop_assert!(config.topic_matches(&name) || name.starts_with("__"));
            prop_assert_eq!(config.topic_matches(&other), name == other && !other.starts_with("__"));
        }

        #[test]
        fn no_pattern_makes_the_filter_panic(pattern in any::<String>(), topic in any::<String>()) {
            let config = config(serde_json::json!({ "pattern": pattern }));
            let _ = config.topic_matches(&topic);
        }
    }
}
