//! Why a call failed, in words for the user.

#![forbid(unsafe_code)]

use rdkafka::error::KafkaError as ClientError;
use rdkafka::types::RDKafkaErrorCode as Code;

/// Why a call to Kafka failed. Every message is one line, names cause and way out, and never holds a
/// password or a value of a record.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KafkaError {
    /// No broker answered.
    #[error(
        "no Kafka broker of `{brokers}` answers: {cause}; check `brokers`, the network, and whether the port expects TLS"
    )]
    Unreachable {
        /// The configured addresses.
        brokers: String,
        /// What the client saw last.
        cause: String,
    },
    /// The broker refused the TLS handshake or the login.
    #[error("Kafka refused the login: {cause}; check `sasl` and `tls`")]
    Authentication {
        /// What the broker or the handshake said.
        cause: String,
    },
    /// Logged in, but not allowed to.
    #[error("Kafka does not permit this: {cause}; grant the user the rights on the topic and the group")]
    Authorization {
        /// What was not permitted.
        cause: String,
    },
    /// The topic is not there.
    #[error("the topic `{topic}` does not exist; create it or correct the name")]
    UnknownTopic {
        /// The topic's name.
        topic: String,
    },
    /// A setting that the client does not accept.
    #[error("the Kafka setting `{name}` is not accepted: {message}")]
    InvalidSetting {
        /// The setting, as librdkafka or the pipeline file names it.
        name: String,
        /// Why, without its value.
        message: String,
    },
    /// The brokers are reachable, but an answer did not come in time.
    #[error("Kafka did not answer in time: {what}; it is retried")]
    Timeout {
        /// The request.
        what: String,
    },
    /// The client is beyond use and must be made anew.
    #[error("the Kafka client cannot continue: {cause}; it has to be started anew")]
    Fatal {
        /// What happened.
        cause: String,
    },
    /// Anything else.
    #[error("Kafka: {what} failed: {cause}")]
    Other {
        /// The request.
        what: String,
        /// What the client or the broker said.
        cause: String,
    },
}

/// The families of librdkafka's error codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Family {
    Unreachable,
    TimedOut,
    Authentication,
    Authorization,
    UnknownTopic,
    MembershipLost,
    Fatal,
    Other,
}

/// Which family a code belongs to.
pub(crate) fn family(code: Code) -> Family {
    match code {
        Code::BrokerTransportFailure
        | Code::AllBrokersDown
        | Code::Resolve
        | Code::BrokerNotAvailable
        | Code::NetworkException => Family::Unreachable,
        Code::OperationTimedOut
        | Code::TimedOutQueue
        | Code::RequestTimedOut
        | Code::MessageTimedOut
        | Code::WaitingForCoordinator => Family::TimedOut,
        Code::Authentication
        | Code::SaslAuthenticationFailed
        | Code::UnsupportedSASLMechanism
        | Code::IllegalSASLState
        | Code::SSL => Family::Authentication,
        Code::TopicAuthorizationFailed
        | Code::GroupAuthorizationFailed
        | Code::ClusterAuthorizationFailed
        | Code::TransactionalIdAuthorizationFailed => Family::Authorization,
        Code::UnknownTopic | Code::UnknownPartition | Code::UnknownTopicOrPartition => Family::UnknownTopic,
        Code::UnknownMemberId | Code::PollExceeded | Code::AssignmentLost => Family::MembershipLost,
        Code::Fatal | Code::Fenced | Code::FencedInstanceId | Code::ProducerFenced => Family::Fatal,
        _ => Family::Other,
    }
}

/// A code as a short text: librdkafka's description.
pub(crate) fn describe(code: Code) -> String {
    let text = code.to_string();
    // The code's Display is `Name (description)`; the description alone reads better.
    match (text.find('('), text.ends_with(')')) {
        (Some(open), true) => text[open + 1..text.len() - 1].to_owned(),
        _ => text,
    }
}

impl KafkaError {
    /// The error of request `what`, about `topic` where it concerns one.
    pub(crate) fn from_code(code: Code, what: &str, topic: Option<&str>, brokers: &str) -> Self {
        let cause = describe(code);
        match (family(code), topic) {
            (Family::Unreachable, _) => Self::Unreachable { brokers: brokers.to_owned(), cause },
            (Family::TimedOut, _) => Self::Timeout { what: what.to_owned() },
            (Family::Authentication, _) => Self::Authentication { cause },
            (Family::Authorization, topic) => Self::Authorization {
                cause: topic.map_or_else(
                    || format!("{what}: {cause}"),
                    |topic| format!("{what} of `{topic}`: {cause}"),
                ),
            },
            (Family::UnknownTopic, Some(topic)) => Self::UnknownTopic { topic: topic.to_owned() },
            (Family::Fatal, _) => Self::Fatal { cause },
            _ => Self::Other { what: what.to_owned(), cause },
        }
    }

    /// The error of a call through the binding.
    pub(crate) fn from_client(error: &ClientError, what: &str, topic: Option<&str>, brokers: &str) -> Self {
        match error {
            ClientError::ClientConfig(_, reason, name, value) => Self::invalid_setting(name, reason, value),
            ClientError::ClientCreation(reason) => Self::from_creation(reason),
            ClientError::AdminOp(code) => Self::from_code(*code, what, topic, brokers),
            other => match other.rdkafka_error_code() {
                Some(code) => Self::from_code(code, what, topic, brokers),
                None => Self::Other { what: what.to_owned(), cause: other.to_string() },
            },
        }
    }

    /// librdkafka quotes the value in its reason: it is cut out, it may be a secret.
    fn invalid_setting(name: &str, reason: &str, value: &str) -> Self {
        let message = if value.is_empty() { reason.to_owned() } else { reason.replace(value, "…") };
        Self::InvalidSetting { name: name.to_owned(), message: one_line(&message) }
    }

    /// The reason librdkafka gives when it refuses to make a client: it begins with, or quotes, the setting.
    fn from_creation(reason: &str) -> Self {
        let name = reason
            .split(|c: char| !(c.is_ascii_alphanumeric() || c == '.' || c == '_'))
            .find(|word| word.contains('.') && !word.ends_with('.') && !word.starts_with('.'))
            .unwrap_or("properties");
        Self::InvalidSetting { name: name.to_owned(), message: one_line(reason) }
    }
}

/// The text on one line.
pub(crate) fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use rdkafka::types::RDKafkaConfRes;

    #[test]
    fn codes_become_errors_that_name_the_way_out() {
        let error = |code, topic| KafkaError::from_code(code, "reading offsets", topic, "kafka:9092");
        assert_eq!(
            error(Code::UnknownTopicOrPartition, Some("cash_ins")),
            KafkaError::UnknownTopic { topic: "cash_ins".into() }
        );
        let unreachable = error(Code::BrokerTransportFailure, None);
        assert!(matches!(unreachable, KafkaError::Unreachable { .. }));
        assert!(unreachable.to_string().contains("kafka:9092"));
        assert!(matches!(error(Code::SaslAuthenticationFailed, None), KafkaError::Authentication { .. }));
        assert!(error(Code::TopicAuthorizationFailed, Some("t")).to_string().contains("of `t`"));
        assert!(matches!(error(Code::Fatal, None), KafkaError::Fatal { .. }));
        assert!(matches!(error(Code::UnknownTopic, None), KafkaError::Other { .. }));
    }

    #[test]
    fn the_value_of_a_refused_setting_is_not_shown() {
        let refused = ClientError::ClientConfig(
            RDKafkaConfRes::RD_KAFKA_CONF_INVALID,
            "Invalid value \"hunter2\" for configuration property \"ssl.key.pem\"".into(),
            "ssl.key.pem".into(),
            "hunter2".into(),
        );
        let error = KafkaError::from_client(&refused, "connecting", None, "");
        assert!(!error.to_string().contains("hunter2"), "{error}");
        assert!(error.to_string().contains("ssl.key.pem"), "{error}");
    }

    #[test]
    fn a_refused_client_names_the_setting() {
        let refused = ClientError::ClientCreation(
            "`session.timeout.ms` is not supported with `group.protocol=consumer`".into(),
        );
        let KafkaError::InvalidSetting { name, .. } =
            KafkaError::from_client(&refused, "connecting", None, "")
        else {
            panic!("not a setting")
        };
        assert_eq!(name, "session.timeout.ms");
    }
}
