//! What goes wrong on its own, between calls.

#![forbid(unsafe_code)]

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use rdkafka::types::RDKafkaErrorCode as Code;

use crate::error::{Family, describe, family, one_line};

/// Something the client reports by itself. Most of it heals alone: the client goes on trying.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// What sort of trouble it is.
    pub kind: TroubleKind,
    /// One line: what the client or the broker said. Never a password.
    pub message: String,
}

/// The sorts of [`Trouble`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TroubleKind {
    /// A broker cannot be reached; retried for ever.
    Unreachable,
    /// The TLS handshake or the login is refused; retried for ever, but only a new configuration helps.
    Authentication,
    /// A subscribed topic does not exist; it is noticed when it appears.
    UnknownTopic {
        /// The topic's name, where the report names one.
        topic: Option<String>,
    },
    /// A right is missing.
    Authorization,
    /// The group has thrown this member out; a revocation follows.
    MembershipLost,
    /// The client is beyond use: drop it and connect anew.
    Fatal,
    /// Anything else.
    Other,
}

impl Trouble {
    /// From an error event.
    pub(crate) fn from_event(code: Code, fatal: bool, text: &str) -> Self {
        let message = if text.trim().is_empty() { describe(code) } else { one_line(text) };
        let kind = match family(code) {
            _ if fatal => TroubleKind::Fatal,
            Family::Unreachable | Family::TimedOut => TroubleKind::Unreachable,
            Family::Authentication => TroubleKind::Authentication,
            Family::Authorization => TroubleKind::Authorization,
            Family::UnknownTopic => TroubleKind::UnknownTopic { topic: named_topic(&message) },
            Family::MembershipLost => TroubleKind::MembershipLost,
            Family::Fatal => TroubleKind::Fatal,
            Family::Other => TroubleKind::Other,
        };
        Self { kind, message }
    }
}

/// librdkafka writes `Subscribed topic not available: NAME: reason`.
fn named_topic(message: &str) -> Option<String> {
    let (_, rest) = message.split_once("topic not available: ")?;
    let name = rest.split(':').next()?.trim();
    (!name.is_empty()).then(|| name.to_owned())
}

/// How many different troubles are remembered.
const REMEMBERED: usize = 16;
/// For how long a repetition is left out.
const QUIET: Duration = Duration::from_secs(10);

/// Lets a trouble through and holds back its repetitions for ten seconds.
#[derive(Debug, Default)]
pub(crate) struct Repetitions {
    seen: VecDeque<(Trouble, Instant)>,
}

impl Repetitions {
    /// Whether `trouble` is a repetition at time `now`.
    pub(crate) fn hold_back(&mut self, trouble: &Trouble, now: Instant) -> bool {
        self.seen.retain(|(_, since)| now.saturating_duration_since(*since) < QUIET);
        let message = stable_part(&trouble.message);
        if self.seen.iter().any(|(seen, _)| seen.kind == trouble.kind && seen.message == message) {
            return true;
        }
        if self.seen.len() == REMEMBERED {
            self.seen.pop_front();
        }
        self.seen.push_back((Trouble { kind: trouble.kind.clone(), message: message.to_owned() }, now));
        false
    }
}

/// The message without the times and counts that librdkafka appends, `(after 3ms in state CONNECT, …)`.
fn stable_part(message: &str) -> &str {
    message.split_once(" (after ").map_or(message, |(stable, _)| stable)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(milliseconds: u32) -> Trouble {
        let text =
            format!("localhost:1/bootstrap: Connection refused (after {milliseconds}ms in state CONNECT)");
        Trouble::from_event(Code::BrokerTransportFailure, false, &text)
    }

    #[test]
    fn a_repetition_is_held_back_until_ten_seconds_have_passed() {
        let mut repetitions = Repetitions::default();
        let start = Instant::now();
        assert!(!repetitions.hold_back(&refused(0), start));
        assert!(repetitions.hold_back(&refused(7), start + Duration::from_secs(9)));
        assert!(!repetitions.hold_back(&refused(8), start + Duration::from_secs(11)));
    }

    #[test]
    fn different_troubles_pass_and_memory_stays_bounded() {
        let mut repetitions = Repetitions::default();
        let now = Instant::now();
        for number in 0..100 {
            let trouble = Trouble { kind: TroubleKind::Other, message: format!("number {number}") };
            assert!(!repetitions.hold_back(&trouble, now));
        }
        assert_eq!(repetitions.seen.len(), REMEMBERED);
    }

    #[test]
    fn an_unknown_topic_is_named() {
        let trouble = Trouble::from_event(
            Code::UnknownTopicOrPartition,
            false,
            "Subscribed topic not available: cash_ins: Broker: Unknown topic or partition",
        );
        assert_eq!(trouble.kind, TroubleKind::UnknownTopic { topic: Some("cash_ins".into()) });
    }

    #[test]
    fn a_fatal_event_is_fatal_whatever_its_code() {
        assert_eq!(Trouble::from_event(Code::InvalidRequest, true, "").kind, TroubleKind::Fatal);
        assert_eq!(Trouble::from_event(Code::PollExceeded, false, "").kind, TroubleKind::MembershipLost);
    }
}
