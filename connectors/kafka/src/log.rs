//! librdkafka's log lines, handed to `tracing` under the target `kafka`.

#![forbid(unsafe_code)]

use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::KafkaError as ClientError;

/// Logs and does nothing else.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct LogContext;

impl ClientContext for LogContext {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        write(level as i32, facility, line);
    }

    fn error(&self, error: ClientError, reason: &str) {
        tracing::debug!(target: "kafka", "{error}: {reason}");
    }
}

/// Logs one line. `level` is a syslog level, 0 to 7.
pub(crate) fn write(level: i32, facility: &str, line: &str) {
    // A broker that is away is repeated every second; it is reported as trouble, once.
    if matches!(facility, "FAIL" | "ERROR") {
        tracing::debug!(target: "kafka", facility, "{line}");
        return;
    }
    match level {
        ..=2 => tracing::error!(target: "kafka", facility, "{line}"),
        3..=4 => tracing::warn!(target: "kafka", facility, "{line}"),
        5 => tracing::info!(target: "kafka", facility, "{line}"),
        _ => tracing::debug!(target: "kafka", facility, "{line}"),
    }
}
