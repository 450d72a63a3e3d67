//! What goes wrong between us and Kafka: told once, waited out, or the end of the pipeline.

use std::time::{Duration, Instant};

use txconnect_kafka::{KafkaError, Trouble, TroubleKind};

use super::{Source, kafka_failure};
use crate::pipeline::shared::Failure;

/// How often a lasting outage of the brokers is told again.
const REMIND: Duration = Duration::from_secs(30);

impl Source {
    pub(super) fn trouble(&mut self, trouble: &Trouble) -> Result<(), Failure> {
        let message = &trouble.message;
        match &trouble.kind {
            TroubleKind::Unreachable => {
                let brokers = &self.pipeline.source.brokers;
                self.tell_outage(&format!("no Kafka broker answers at {brokers}, trying again: {message}"));
            }
            TroubleKind::Authentication => {
                return Err(Failure::fatal(
                    format!("Kafka refuses the login: {message}"),
                    Some("check `sasl:` and `tls:` in the pipeline file".to_owned()),
                ));
            }
            TroubleKind::Authorization => {
                return Err(Failure::fatal(
                    format!("Kafka refuses access: {message}"),
                    Some(format!(
                        "give the user READ and DESCRIBE on the topics and READ on the group `{}`",
                        self.pipeline.group
                    )),
                ));
            }
            TroubleKind::Fatal => {
                return Err(Failure::fatal(format!("the Kafka client has failed: {message}"), None));
            }
            // Told by `look_for_topics`, in our words.
            TroubleKind::UnknownTopic { .. } => {}
            TroubleKind::MembershipLost => {
                tracing::warn!(pipeline = %self.shared.name, "the group has dropped this member, joining again: {message}");
            }
            _ => tracing::warn!(pipeline = %self.shared.name, "{message}"),
        }
        Ok(())
    }

    /// Warns of a lasting outage of the brokers, now and then.
    fn tell_outage(&mut self, message: &str) {
        if self.troubled.is_none_or(|since| since.elapsed() >= REMIND) {
            self.troubled = Some(Instant::now());
            tracing::warn!(pipeline = %self.shared.name, "{message}");
        }
    }

    /// An error that heals by itself is told and waited out; another one ends the pipeline.
    pub(super) fn ask_again_later(&mut self, error: &KafkaError) -> Result<(), Failure> {
        match error {
            KafkaError::Unreachable { .. } | KafkaError::Timeout { .. } | KafkaError::Other { .. } => {
                self.tell_outage(&format!("{error}; trying again"));
                self.shared.retrying(&error.to_string());
                Ok(())
            }
            KafkaError::UnknownTopic { .. } if !self.options.until_end => Ok(()),
            _ => Err(kafka_failure(error)),
        }
    }
}
