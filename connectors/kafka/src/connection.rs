//! Brokers, TLS, SASL and librdkafka properties, shared by every client of a pipeline.

#![forbid(unsafe_code)]

use std::collections::BTreeMap;

use rdkafka::ClientConfig;
use rdkafka::config::RDKafkaLogLevel;

use crate::config::{KafkaSourceConfig, Sasl, Scalar, Tls};
use crate::consumer::Tuning;
use crate::error::KafkaError;
use crate::native;

/// Properties that describe the connection and so apply to producers and administration too. The others in
/// a source's `properties` are about consuming.
const OF_THE_CONNECTION: [&str; 14] = [
    "ssl.",
    "sasl.",
    "security.",
    "socket.",
    "broker.",
    "client.",
    "metadata.",
    "topic.metadata.",
    "reconnect.",
    "connections.",
    "api.version.",
    "enable.ssl.",
    "enable.sasl.",
    "resolve.",
];

fn is_of_the_connection(name: &str) -> bool {
    OF_THE_CONNECTION.iter().any(|prefix| name.starts_with(prefix))
}

/// How to reach a cluster and log in.
#[derive(Clone)]
pub struct Connection {
    brokers: String,
    login: Vec<(&'static str, String)>,
    properties: BTreeMap<String, Scalar>,
    watches_for_topics: bool,
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection").field("brokers", &self.brokers).finish_non_exhaustive()
    }
}

impl From<&KafkaSourceConfig> for Connection {
    fn from(config: &KafkaSourceConfig) -> Self {
        Self {
            brokers: config.brokers.clone(),
            login: login(config.tls.as_ref(), config.sasl.as_ref()),
            properties: config.properties.clone(),
            watches_for_topics: config.pattern.is_some(),
        }
    }
}

impl Connection {
    /// A plain connection without login.
    pub fn plain(brokers: impl Into<String>) -> Self {
        Self {
            brokers: brokers.into(),
            login: Vec::new(),
            properties: BTreeMap::new(),
            watches_for_topics: false,
        }
    }

    /// A connection with librdkafka's `properties`.
    ///
    /// # Errors
    /// [`KafkaError::InvalidSetting`] for a property that does not concern the connection: it would have no effect.
    pub fn with_properties(
        brokers: impl Into<String>,
        properties: &[(String, String)],
    ) -> Result<Self, KafkaError> {
        let mut connection = Self::plain(brokers);
        for (name, value) in properties {
            if !is_of_the_connection(name) {
                return Err(KafkaError::InvalidSetting {
                    name: name.clone(),
                    message: format!(
                        "it does not concern the connection; those begin with {}",
                        OF_THE_CONNECTION.join(", ")
                    ),
                });
            }
            connection.properties.insert(name.clone(), Scalar::from(value.as_str()));
        }
        Ok(connection)
    }

    /// The configured addresses.
    pub fn brokers(&self) -> &str {
        &self.brokers
    }

    /// Settings of a client that is no consumer. `role` becomes part of its `client.id`.
    pub(crate) fn client(&self, role: &str) -> ClientConfig {
        let mut settings = self.base(role);
        for (name, value) in &self.properties {
            if is_of_the_connection(name) {
                settings.set(name, value.as_str());
            }
        }
        settings
    }

    /// Settings of a member of `group`.
    pub(crate) fn consumer(&self, group: &str, tuning: Tuning) -> ClientConfig {
        let mut settings = self.base(group);
        settings.set("group.id", group);
        self.add_consumer_settings(&mut settings, tuning);
        settings
    }

    /// Asks librdkafka whether it takes all settings together. Connects to nothing.
    pub(crate) fn try_consumer(&self, tuning: Tuning) -> Result<(), KafkaError> {
        let mut settings = self.base("check");
        settings.remove("bootstrap.servers");
        self.add_consumer_settings(&mut settings, tuning);
        native::Handle::open(&settings).map(drop).map_err(|error| self.refused(&error))
    }

    /// The error of a client that could not be made.
    pub(crate) fn refused(&self, error: &rdkafka::error::KafkaError) -> KafkaError {
        KafkaError::from_client(error, "connecting", None, &self.brokers)
    }

    fn base(&self, role: &str) -> ClientConfig {
        let mut settings = ClientConfig::new();
        settings.set("bootstrap.servers", &self.brokers);
        settings.set("client.id", format!("txconnect-{role}"));
        for (name, value) in &self.login {
            settings.set(*name, value);
        }
        // `tracing` decides what is shown.
        settings.set_log_level(RDKafkaLogLevel::Info);
        settings
    }

    fn add_consumer_settings(&self, settings: &mut ClientConfig, tuning: Tuning) {
        let kilobytes = (tuning.queue_bytes_per_lane / 1024).clamp(1, 2_097_151).to_string();
        let refresh = if self.watches_for_topics { "10000" } else { "30000" };
        for (name, value) in [
            ("auto.offset.reset", "error"),
            ("queued.max.messages.kbytes", kilobytes.as_str()),
            // Bytes decide how much is prefetched, not the number of records.
            ("queued.min.messages", "1000000"),
            // A lane that has caught up with its queue would else pause for a whole second.
            ("fetch.queue.backoff.ms", "5"),
            ("fetch.wait.max.ms", "50"),
            ("fetch.min.bytes", "1"),
            ("fetch.max.bytes", "2097152"),
            ("max.partition.fetch.bytes", "1048576"),
            ("topic.metadata.refresh.interval.ms", refresh),
            ("isolation.level", "read_committed"),
        ] {
            settings.set(name, value);
        }
        // Brokers assign under the newer protocol and librdkafka refuses these settings with it.
        let brokers_assign = self
            .properties
            .get("group.protocol")
            .is_some_and(|protocol| protocol.as_str().eq_ignore_ascii_case("consumer"));
        if !brokers_assign {
            settings.set("partition.assignment.strategy", "cooperative-sticky");
            settings.set("session.timeout.ms", "45000");
            settings.set("heartbeat.interval.ms", "3000");
        }
        for (name, value) in &self.properties {
            settings.set(name, value.as_str());
        }
        for name in ["enable.auto.commit", "enable.auto.offset.store", "enable.partition.eof"] {
            settings.set(name, "false");
        }
    }
}

/// Asks librdkafka whether it knows the property and takes the value.
pub(crate) fn try_property(name: &str, value: &Scalar) -> Result<(), KafkaError> {
    let mut settings = ClientConfig::new();
    settings.set(name, value.as_str());
    match settings.create_native_config() {
        Ok(_) => Ok(()),
        Err(rdkafka::error::KafkaError::Nul(_)) => Err(KafkaError::InvalidSetting {
            name: name.to_owned(),
            message: "name or value hold a NUL".to_owned(),
        }),
        Err(error) => Err(KafkaError::from_client(&error, "checking properties", None, "")),
    }
}

fn login(tls: Option<&Tls>, sasl: Option<&Sasl>) -> Vec<(&'static str, String)> {
    let mut settings = Vec::new();
    let protocol = match (tls, sasl) {
        (None, None) => return settings,
        (Some(_), None) => "ssl",
        (None, Some(_)) => "sasl_plaintext",
        (Some(_), Some(_)) => "sasl_ssl",
    };
    settings.push(("security.protocol", protocol.to_owned()));
    if let Some(tls) = tls {
        let files = [
            ("ssl.ca.location", &tls.ca),
            ("ssl.certificate.location", &tls.certificate),
            ("ssl.key.location", &tls.key),
        ];
        for (name, file) in files {
            if let Some(file) = file {
                settings.push((name, file.to_string_lossy().into_owned()));
            }
        }
        if let Some(password) = &tls.key_password {
            settings.push(("ssl.key.password", password.expose().to_owned()));
        }
        let check = if tls.verify_hostname { "https" } else { "none" };
        settings.push(("ssl.endpoint.identification.algorithm", check.to_owned()));
    }
    if let Some(sasl) = sasl {
        settings.push(("sasl.mechanism", sasl.mechanism.name().to_owned()));
        settings.push(("sasl.username", sasl.username.clone()));
        settings.push(("sasl.password", sasl.password.expose().to_owned()));
    }
    settings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tests::config;

    #[test]
    fn the_users_properties_win_except_for_the_owned_ones() {
        let config = config(serde_json::json!({
            "topics": ["a"],
            "properties": { "fetch.wait.max.ms": 7, "enable.partition.eof": true },
        }));
        let settings = Connection::from(&config).consumer("g", Tuning { queue_bytes_per_lane: 1 << 20 });
        assert_eq!(settings.get("fetch.wait.max.ms"), Some("7"));
        assert_eq!(settings.get("enable.partition.eof"), Some("false"));
        assert_eq!(settings.get("queued.max.messages.kbytes"), Some("1024"));
        assert_eq!(settings.get("partition.assignment.strategy"), Some("cooperative-sticky"));
        assert_eq!(settings.get("group.id"), Some("g"));
    }

    #[test]
    fn the_newer_group_protocol_leaves_out_what_librdkafka_refuses_with_it() {
        let config = config(serde_json::json!({
            "topics": ["a"], "properties": { "group.protocol": "consumer" },
        }));
        let settings = Connection::from(&config).consumer("g", Tuning::default());
        assert_eq!(settings.get("session.timeout.ms"), None);
        assert_eq!(settings.get("partition.assignment.strategy"), None);
    }

    #[test]
    fn producers_take_over_the_connection_but_nothing_about_consuming() {
        let config = config(serde_json::json!({
            "topics": ["a"],
            "properties": { "fetch.wait.max.ms": 7, "socket.keepalive.enable": true },
        }));
        let settings = Connection::from(&config).client("dead-letters");
        assert_eq!(settings.get("fetch.wait.max.ms"), None);
        assert_eq!(settings.get("socket.keepalive.enable"), Some("true"));
        assert_eq!(settings.get("client.id"), Some("txconnect-dead-letters"));
    }

    #[test]
    fn tls_and_sasl_decide_the_protocol() {
        let settings = |json| Connection::from(&config(json)).client("x");
        let sasl = serde_json::json!({ "mechanism": "scram-sha-256", "username": "u", "password": "p" });
        let both = settings(serde_json::json!({ "tls": { "verify_hostname": false }, "sasl": sasl }));
        assert_eq!(both.get("security.protocol"), Some("sasl_ssl"));
        assert_eq!(both.get("ssl.endpoint.identification.algorithm"), Some("none"));
        assert_eq!(both.get("sasl.mechanism"), Some("SCRAM-SHA-256"));
        assert_eq!(
            settings(serde_json::json!({ "sasl": sasl })).get("security.protocol"),
            Some("sasl_plaintext")
        );
        assert_eq!(settings(serde_json::json!({ "tls": {} })).get("security.protocol"), Some("ssl"));
        assert_eq!(settings(serde_json::json!({})).get("security.protocol"), None);
    }
}
