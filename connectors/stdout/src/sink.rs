//! The stdout sink itself: what the runtime holds.

use std::io::Write;
use std::sync::Arc;

use txconnect_connector_api::{Encoder, Protocol, Sink, SinkError, SinkLimits, TableSchema, Writer};

use crate::config::StdoutConfig;
use crate::encode::LineEncoder;
use crate::output::{Output, sink_error};
use crate::writer::StdoutWriter;

/// No server sets a limit; this keeps sizes far from overflow.
const MAX_BATCH_BYTES: usize = 1 << 30;

/// Writes records to stdout as lines of JSON.
pub struct StdoutSink {
    config: StdoutConfig,
    output: Output,
}

impl StdoutSink {
    /// Prepares a sink for the process's stdout. All sinks of a process share it and take turns by batches.
    ///
    /// # Errors
    /// [`SinkError::Fatal`] where the process has no stdout.
    pub fn new(config: StdoutConfig) -> Result<Self, SinkError> {
        let output = Output::stdout().map_err(|error| sink_error(&error))?;
        Ok(Self { config, output })
    }

    /// Prepares a sink that writes somewhere else, for tests.
    pub fn with_output(config: StdoutConfig, output: Box<dyn Write + Send>) -> Self {
        Self { config, output: Output::new(output) }
    }
}

impl Sink for StdoutSink {
    fn name(&self) -> &'static str {
        "stdout"
    }

    fn protocol(&self) -> Protocol {
        Protocol::AtLeastOnce
    }

    fn limits(&self) -> SinkLimits {
        SinkLimits {
            request_bytes: MAX_BATCH_BYTES,
            request_rows: MAX_BATCH_BYTES,
            in_flight: 1,
            batches_mix_partitions: true,
            usual_rows: 500,
        }
    }

    fn table(&self, _topic: &str) -> Arc<str> {
        "stdout".into()
    }

    fn encoder(&self, _topic: &str, _schema: Option<&TableSchema>) -> Result<Box<dyn Encoder>, SinkError> {
        Ok(Box::new(LineEncoder::new(self.config.envelope)))
    }

    fn writer(&self, _pipeline: &str) -> Box<dyn Writer> {
        Box::new(StdoutWriter::new(self.output.clone()))
    }
}
