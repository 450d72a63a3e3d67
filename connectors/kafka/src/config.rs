//! The `kafka:` block of a pipeline file.
//!
//! The doc comments of the fields are the user documentation. What types cannot show is found by
//! [`KafkaSourceConfig::problems`], without connecting to anything.

#![forbid(unsafe_code)]

mod checks;
mod scalar;
mod start;
mod topics;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;
use txconnect_connector_api::{HumanDuration, Secret};

pub use scalar::Scalar;
pub use start::Start;
pub use topics::TopicFilter;

/// Where the records come from.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct KafkaSourceConfig {
    /// Addresses to find the cluster by, `host:port` separated by commas. The port defaults to 9092.
    pub brokers: String,
    /// The topics to read, by name. Either this or `pattern`.
    #[serde(default)]
    pub topics: Option<Vec<String>>,
    /// A regular expression that the whole name of a topic must match, for example `cash_.*`. New topics are
    /// noticed within seconds; internal topics (`__…`) never match. Either this or `topics`.
    #[serde(default)]
    pub pattern: Option<String>,
    /// The consumer group. Default: `connect-` and the pipeline's name. Two pipelines with one group share
    /// the partitions between them.
    #[serde(default)]
    pub group: Option<String>,
    /// Where to begin in a partition for which the group has no position yet: `earliest`, `latest`, or a
    /// timestamp such as `2026-01-31T00:00:00Z`.
    #[serde(default)]
    pub start: Start,
    /// What to do when the group's position is not in the log any more, because retention has removed the
    /// records or the topic was made anew: `stop` the pipeline with a message, or go on at the `earliest`
    /// or `latest` record, which loses or repeats records.
    #[serde(default)]
    pub on_lost_offsets: OnLostOffsets,
    /// Encrypts the connection. `tls: {}` trusts the system's certificate authorities.
    #[serde(default)]
    pub tls: Option<Tls>,
    /// Logs in with a user name and password.
    #[serde(default)]
    pub sasl: Option<Sasl>,
    /// How partitions are handed over to other members of the group.
    #[serde(default)]
    pub rebalance: Rebalance,
    /// How often positions are committed to Kafka.
    #[serde(default = "default_commit_interval")]
    pub commit_interval: HumanDuration,
    /// Further librdkafka properties, for example `client.rack: eu-1`. They win over txconnect's own
    /// choices, except for those that txconnect must decide itself.
    #[serde(default)]
    pub properties: BTreeMap<String, Scalar>,
}

/// What to do when the group's position is not in the log any more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnLostOffsets {
    /// Stop the pipeline with a message.
    #[default]
    Stop,
    /// Go on at the first record there is.
    Earliest,
    /// Go on with records that come from now on.
    Latest,
}

/// Encryption of the connection.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    /// A PEM file with the certificate authorities to trust instead of the system's.
    #[serde(default)]
    pub ca: Option<PathBuf>,
    /// A PEM file with the client's certificate, where the brokers ask for one. Needs `key`.
    #[serde(default)]
    pub certificate: Option<PathBuf>,
    /// A PEM file with the private key of `certificate`.
    #[serde(default)]
    pub key: Option<PathBuf>,
    /// The password of `key`, where it has one.
    #[serde(default)]
    pub key_password: Option<Secret>,
    /// Whether the broker's certificate must be issued for its host name.
    #[serde(default = "yes")]
    pub verify_hostname: bool,
}

/// Login with a user name and password.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Sasl {
    /// How the password is presented: `plain`, `scram-sha-256` or `scram-sha-512`.
    pub mechanism: SaslMechanism,
    /// The user's name.
    pub username: String,
    /// The user's password.
    pub password: Secret,
}

/// How a password is presented.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
pub enum SaslMechanism {
    /// As it is: use it with `tls` only.
    #[serde(rename = "plain")]
    Plain,
    /// Salted challenge and response with SHA-256.
    #[serde(rename = "scram-sha-256")]
    ScramSha256,
    /// Salted challenge and response with SHA-512.
    #[serde(rename = "scram-sha-512")]
    ScramSha512,
}

impl SaslMechanism {
    /// The mechanism's registered name.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Plain => "PLAIN",
            Self::ScramSha256 => "SCRAM-SHA-256",
            Self::ScramSha512 => "SCRAM-SHA-512",
        }
    }
}

/// How partitions are handed over to other members of the group.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Rebalance {
    /// For how long a partition that is taken away may still finish what is in flight. What is not finished
    /// then is read again by the next owner.
    #[serde(default = "default_drain_timeout")]
    pub drain_timeout: HumanDuration,
}

impl Default for Rebalance {
    fn default() -> Self {
        Self { drain_timeout: default_drain_timeout() }
    }
}

fn default_drain_timeout() -> HumanDuration {
    HumanDuration(Duration::from_secs(10))
}

fn default_commit_interval() -> HumanDuration {
    HumanDuration(Duration::from_secs(1))
}

fn yes() -> bool {
    true
}

impl KafkaSourceConfig {
    /// Makes the relative paths of the `tls` block relative to `folder`. Call it before
    /// [`Self::problems`], which opens the files.
    pub fn resolve_paths(&mut self, folder: &Path) {
        let Some(tls) = &mut self.tls else { return };
        for path in [&mut tls.ca, &mut tls.certificate, &mut tls.key].into_iter().flatten() {
            *path = folder.join(&*path);
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A config from JSON, with brokers given.
    #[expect(clippy::needless_pass_by_value, reason = "the tests write the block in place")]
    pub(crate) fn config(json: serde_json::Value) -> KafkaSourceConfig {
        let mut block = serde_json::json!({ "brokers": "localhost:9092" });
        block.as_object_mut().unwrap().extend(json.as_object().unwrap().clone());
        serde_json::from_value(block).unwrap()
    }

    #[test]
    fn defaults_are_the_documented_ones() {
        let config = config(serde_json::json!({ "topics": ["a"] }));
        assert_eq!(config.start, Start::Earliest);
        assert_eq!(config.on_lost_offsets, OnLostOffsets::Stop);
        assert_eq!(config.rebalance.drain_timeout.0, Duration::from_secs(10));
        assert_eq!(config.commit_interval.0, Duration::from_secs(1));
    }

    #[test]
    fn unknown_keys_are_errors() {
        for block in [
            serde_json::json!({ "brokers": "b", "topic": "a" }),
            serde_json::json!({ "brokers": "b", "tls": { "cert": "x" } }),
            serde_json::json!({ "brokers": "b", "rebalance": { "timeout": "1s" } }),
        ] {
            assert!(serde_json::from_value::<KafkaSourceConfig>(block).is_err());
        }
    }

    #[test]
    fn secrets_do_not_show_in_debug_output() {
        let config = config(serde_json::json!({
            "topics": ["a"],
            "sasl": { "mechanism": "plain", "username": "u", "password": "hunter2" },
            "properties": { "ssl.keystore.password": "hunter2" },
        }));
        assert!(!format!("{config:?}").contains("hunter2"));
    }

    #[test]
    fn relative_paths_become_relative_to_the_given_folder() {
        let mut config = config(serde_json::json!({ "tls": { "ca": "ca.pem", "key": "/etc/key.pem" } }));
        config.resolve_paths(Path::new("/pipelines"));
        let tls = config.tls.unwrap();
        assert_eq!(tls.ca.unwrap(), Path::new("/pipelines/ca.pem"));
        assert_eq!(tls.key.unwrap(), Path::new("/etc/key.pem"));
    }

    #[test]
    fn the_block_has_a_json_schema() {
        let schema = serde_json::to_value(schemars::schema_for!(KafkaSourceConfig)).unwrap();
        assert_eq!(schema["additionalProperties"], false);
        assert!(schema["properties"]["brokers"]["description"].is_string());
    }
}
