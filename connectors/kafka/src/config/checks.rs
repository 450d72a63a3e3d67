//! What is wrong with a `kafka:` block beyond its types.

#![forbid(unsafe_code)]

use std::collections::BTreeSet;
use std::time::Duration;

use txconnect_connector_api::ConfigProblem;

use super::KafkaSourceConfig;
use super::topics::{whole_name, wrong_name};
use crate::connection::{self, Connection};
use crate::consumer::Tuning;
use crate::error::KafkaError;

/// librdkafka's default of `max.poll.interval.ms`.
const MAX_POLL_INTERVAL: Duration = Duration::from_mins(5);

/// Properties that txconnect decides: why, and what to write instead.
const OWNED: [(&str, &str, &str); 10] = [
    ("bootstrap.servers", "the addresses belong in `brokers`", "write them in `brokers`"),
    ("metadata.broker.list", "the addresses belong in `brokers`", "write them in `brokers`"),
    ("group.id", "the group belongs in `group`", "write it in `group`"),
    (
        "enable.auto.commit",
        "positions are committed when the sink has confirmed",
        "remove it; see `commit_interval`",
    ),
    (
        "auto.commit.interval.ms",
        "positions are committed when the sink has confirmed",
        "write `commit_interval` instead",
    ),
    ("enable.auto.offset.store", "positions are committed when the sink has confirmed", "remove it"),
    (
        "auto.offset.reset",
        "a lost position is never skipped silently",
        "write `start` or `on_lost_offsets` instead",
    ),
    ("enable.partition.eof", "end-of-partition events make librdkafka read partitions again", "remove it"),
    ("offset.store.method", "positions are committed to Kafka", "remove it"),
    ("log.queue", "log lines go to txconnect's log", "remove it; see the log level"),
];

/// Properties that say the same as a block.
const IN_BLOCKS: [(&str, &str); 13] = [
    ("ssl.ca.location", "tls"),
    ("ssl.ca.pem", "tls"),
    ("ssl.certificate.location", "tls"),
    ("ssl.certificate.pem", "tls"),
    ("ssl.key.location", "tls"),
    ("ssl.key.pem", "tls"),
    ("ssl.key.password", "tls"),
    ("ssl.endpoint.identification.algorithm", "tls"),
    ("sasl.mechanism", "sasl"),
    ("sasl.mechanisms", "sasl"),
    ("sasl.username", "sasl"),
    ("sasl.password", "sasl"),
    ("security.protocol", "tls"),
];

impl KafkaSourceConfig {
    /// What is wrong with the block beyond its types. Opens the files of `tls`, connects to nothing.
    pub fn problems(&self) -> Vec<ConfigProblem> {
        let mut found = Vec::new();
        self.check_brokers(&mut found);
        self.check_topics(&mut found);
        self.check_login(&mut found);
        self.check_times(&mut found);
        self.check_properties(&mut found);
        found
    }

    fn check_brokers(&self, found: &mut Vec<ConfigProblem>) {
        let wrong = self.brokers.split(',').map(str::trim).find(|address| !is_address(address));
        if let Some(address) = wrong {
            found.push(problem(
                "/brokers",
                format!("`{address}` is not an address"),
                "write host:port, several separated by commas",
            ));
        }
        if let Some(group) = &self.group
            && (group.trim().is_empty() || group.contains('\0'))
        {
            found.push(problem("/group", "the group has no name", "write a name or remove `group`"));
        }
    }

    fn check_topics(&self, found: &mut Vec<ConfigProblem>) {
        match (&self.topics, &self.pattern) {
            (Some(_), Some(_)) => found.push(problem(
                "/pattern",
                "`topics` and `pattern` exclude each other",
                "keep one of the two",
            )),
            (None, None) => {
                found.push(problem(
                    "",
                    "no topics are named",
                    "write `topics: [name]` or `pattern: expression`",
                ));
            }
            _ => {}
        }
        let topics = self.topics.as_deref().unwrap_or_default();
        if self.topics.is_some() && topics.is_empty() {
            found.push(problem("/topics", "the list is empty", "name at least one topic"));
        }
        let mut seen = BTreeSet::new();
        for (index, topic) in topics.iter().enumerate() {
            let path = format!("/topics/{index}");
            if let Some(why) = wrong_name(topic) {
                let help = if topic.contains(['*', '+', '|', '[', '(', '^']) {
                    "an expression belongs in `pattern`"
                } else {
                    "correct the name"
                };
                found.push(problem(path, why, help));
            } else if !seen.insert(topic) {
                found.push(problem(path, format!("`{topic}` is named twice"), "remove one of the two"));
            }
        }
        if let Some(Err(error)) = self.pattern.as_deref().map(whole_name) {
            let reason = error.to_string();
            let reason = reason.lines().last().unwrap_or_default().trim_start_matches("error: ");
            found.push(problem(
                "/pattern",
                format!("not a regular expression: {reason}"),
                "the syntax is that of the Rust crate `regex`, for example `cash_.*`",
            ));
        }
    }

    fn check_login(&self, found: &mut Vec<ConfigProblem>) {
        if let Some(tls) = &self.tls {
            match (&tls.certificate, &tls.key) {
                (Some(_), None) => {
                    found.push(problem("/tls/certificate", "the certificate has no key", "add `key`"));
                }
                (None, Some(_)) => {
                    found.push(problem("/tls/key", "the key has no certificate", "add `certificate`"));
                }
                _ => {}
            }
            if tls.key.is_none() && tls.key_password.is_some() {
                found.push(problem("/tls/key_password", "there is no key to open", "add `key`"));
            }
        }
        if let Some(sasl) = &self.sasl {
            for (field, text) in [("username", sasl.username.as_str()), ("password", sasl.password.expose())]
            {
                if text.is_empty() || text.contains('\0') {
                    found.push(problem(
                        format!("/sasl/{field}"),
                        format!("the {field} is empty or holds a NUL"),
                        "check the variable or file that it comes from",
                    ));
                }
            }
        }
    }

    fn check_times(&self, found: &mut Vec<ConfigProblem>) {
        if self.commit_interval.0.is_zero() {
            found.push(problem("/commit_interval", "the interval is zero", "write for example 1s"));
        }
        let longest = self
            .properties
            .get("max.poll.interval.ms")
            .and_then(|value| value.as_str().parse().ok())
            .map_or(MAX_POLL_INTERVAL, Duration::from_millis);
        let drain = self.rebalance.drain_timeout;
        if drain.0.is_zero() || drain.0 >= longest {
            found.push(problem(
                "/rebalance/drain_timeout",
                format!("{drain} is not between 0 and max.poll.interval.ms ({} ms)", longest.as_millis()),
                "Kafka gives the partitions away after max.poll.interval.ms: write a shorter time, for example 10s",
            ));
        }
    }

    fn check_properties(&self, found: &mut Vec<ConfigProblem>) {
        let before = found.len();
        for name in self.properties.keys() {
            let path = format!("/properties/{}", escape(name));
            if let Some((_, why, help)) = OWNED.iter().find(|(owned, ..)| owned == name) {
                found.push(problem(path, format!("`{name}` cannot be set: {why}"), *help));
            } else if let Some(block) = self.block_that_says(name) {
                found.push(problem(
                    path,
                    format!("`{name}` contradicts the block `{block}`"),
                    format!("write it in `{block}` only"),
                ));
            } else if let Some(value) = self.properties.get(name)
                && let Err(KafkaError::InvalidSetting { message, .. }) = connection::try_property(name, value)
            {
                found.push(problem(path, message, "librdkafka's CONFIGURATION.md lists the properties"));
            }
        }
        if found.len() > before {
            return;
        }
        // Every property is right on its own: what is left is what librdkafka says of all together, which
        // includes reading the certificates.
        if let Err(KafkaError::InvalidSetting { name, message }) =
            Connection::from(self).try_consumer(Tuning::default())
        {
            let path = match name.as_str() {
                "ssl.ca.location" => "/tls/ca".to_owned(),
                "ssl.certificate.location" => "/tls/certificate".to_owned(),
                "ssl.key.location" => "/tls/key".to_owned(),
                name if self.properties.contains_key(name) => format!("/properties/{}", escape(name)),
                name if name.starts_with("ssl.") && self.tls.is_some() => "/tls".to_owned(),
                _ => "/properties".to_owned(),
            };
            found.push(problem(path, message, "correct the setting that the message names"));
        }
    }

    /// The block in this file that decides what property `name` would decide.
    fn block_that_says(&self, name: &str) -> Option<&'static str> {
        let (_, block) = IN_BLOCKS.iter().find(|(property, _)| *property == name)?;
        let tls = self.tls.is_some().then_some("tls");
        let sasl = self.sasl.is_some().then_some("sasl");
        match (name, *block) {
            ("security.protocol", _) => tls.or(sasl),
            (_, "tls") => tls,
            _ => sasl,
        }
    }
}

fn problem(path: impl Into<String>, message: impl Into<String>, help: impl Into<String>) -> ConfigProblem {
    ConfigProblem { path: path.into(), message: message.into(), help: Some(help.into()) }
}

/// A key as one token of a JSON pointer.
fn escape(key: &str) -> String {
    key.replace('~', "~0").replace('/', "~1")
}

/// Whether the text is `host` or `host:port`, with an IPv6 address in square brackets.
fn is_address(text: &str) -> bool {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (text, None),
    };
    let host_is_right = if let Some(inner) = host.strip_prefix('[') {
        inner.strip_suffix(']').is_some_and(|inner| inner.parse::<std::net::Ipv6Addr>().is_ok())
    } else {
        !host.is_empty() && host.chars().all(|c| c.is_alphanumeric() || "._-".contains(c))
    };
    host_is_right && port.is_none_or(|port| port.parse::<u16>().is_ok_and(|port| port > 0))
}

#[cfg(test)]
mod tests {
    use super::super::tests::config;
    use super::*;
    use proptest::prelude::*;

    fn paths(json: serde_json::Value) -> Vec<String> {
        config(json).problems().into_iter().map(|problem| problem.path).collect()
    }

    #[test]
    fn a_right_block_has_no_problems() {
        let none: Vec<String> = Vec::new();
        assert_eq!(paths(serde_json::json!({ "topics": ["a", "b"] })), none);
        assert_eq!(
            paths(serde_json::json!({
                "pattern": "cash_.*", "group": "g", "start": "latest",
                "sasl": { "mechanism": "scram-sha-512", "username": "u", "password": "p" },
                "tls": {},
                "properties": { "client.rack": "eu-1", "queued.min.messages": 5, "check.crcs": true },
            })),
            none
        );
    }

    #[test]
    fn topics_and_pattern_exclude_each_other_and_one_is_needed() {
        assert_eq!(paths(serde_json::json!({ "topics": ["a"], "pattern": "a" })), ["/pattern"]);
        assert_eq!(paths(serde_json::json!({})), [""]);
        assert_eq!(paths(serde_json::json!({ "topics": [] })), ["/topics"]);
    }

    #[test]
    fn wrong_and_repeated_topics_are_found_all_at_once() {
        assert_eq!(
            paths(serde_json::json!({ "topics": ["a", "b c", "a", "x.*"] })),
            ["/topics/1", "/topics/2", "/topics/3"]
        );
        assert_eq!(paths(serde_json::json!({ "pattern": "(" })), ["/pattern"]);
    }

    #[test]
    fn properties_that_txconnect_decides_are_refused_with_the_way_out() {
        let block = config(serde_json::json!({
            "topics": ["a"], "properties": { "group.id": "g", "auto.offset.reset": "earliest" },
        }));
        let problems = block.problems();
        assert_eq!(problems.len(), 2);
        assert!(problems.iter().all(|problem| problem.help.is_some()));
        assert!(problems[0].message.contains("auto.offset.reset"));
    }

    #[test]
    fn properties_that_librdkafka_does_not_know_are_refused_without_their_value() {
        let block = config(serde_json::json!({
            "topics": ["a"], "properties": { "no.such.thing": "hunter2", "queued.min.messages": "hunter2" },
        }));
        let problems = block.problems();
        assert_eq!(problems.len(), 2, "{problems:?}");
        assert!(problems.iter().all(|problem| !problem.message.contains("hunter2")));
    }

    #[test]
    fn properties_that_contradict_each_other_are_refused() {
        let found = paths(serde_json::json!({
            "topics": ["a"],
            "properties": { "group.protocol": "consumer", "session.timeout.ms": 6000 },
        }));
        assert_eq!(found, ["/properties/session.timeout.ms"]);
        let alone = serde_json::json!({ "topics": ["a"], "properties": { "group.protocol": "consumer" } });
        assert!(paths(alone).is_empty());
    }

    #[test]
    fn a_block_and_a_property_cannot_say_the_same() {
        let found = paths(serde_json::json!({
            "topics": ["a"], "tls": {}, "properties": { "security.protocol": "ssl", "sasl.username": "u" },
        }));
        assert_eq!(found, ["/properties/security.protocol"]);
    }

    #[test]
    fn certificates_that_cannot_be_read_are_found() {
        let found = paths(serde_json::json!({ "topics": ["a"], "tls": { "ca": "/does/not/exist.pem" } }));
        assert_eq!(found, ["/tls/ca"]);
        assert_eq!(paths(serde_json::json!({ "topics": ["a"], "tls": { "key": "k" } }))[0], "/tls/key");
    }

    #[test]
    fn the_drain_timeout_stays_below_the_poll_interval() {
        let drain = |drain: &str, properties: serde_json::Value| {
            paths(serde_json::json!({
                "topics": ["a"], "rebalance": { "drain_timeout": drain }, "properties": properties,
            }))
        };
        assert_eq!(drain("5m", serde_json::json!({})), ["/rebalance/drain_timeout"]);
        assert_eq!(drain("0s", serde_json::json!({})), ["/rebalance/drain_timeout"]);
        assert!(drain("5m", serde_json::json!({ "max.poll.interval.ms": 600_000 })).is_empty());
    }

    #[test]
    fn addresses_are_checked() {
        for right in ["a", "a:1", "kafka-1.example.com:9092", "[::1]:9092", "10.0.0.1:65535"] {
            assert!(is_address(right), "{right}");
        }
        for wrong in ["", ":9092", "a:", "a:0", "a:65536", "a b:1", "kafka://a:1", "[::g]:1", "a:1:2"] {
            assert!(!is_address(wrong), "{wrong}");
        }
    }

    proptest! {
        // Each case makes a client.
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn no_text_makes_the_checks_panic(brokers in any::<String>(), topic in any::<String>(), group in any::<String>()) {
            let block = serde_json::json!({ "brokers": brokers, "topics": [topic, "a"], "group": group });
            let block: KafkaSourceConfig = serde_json::from_value(block).unwrap();
            let _ = block.problems();
        }
    }
}
