//! What transforms tell: into the log and the books.

use std::sync::Arc;

use txconnect_transform_host::{LogLevel, Reports};

use super::shared::Shared;

/// Hears one transform of a lane.
pub(super) struct TransformReports {
    shared: Arc<Shared>,
    transform: String,
}

impl TransformReports {
    pub(super) fn new(shared: &Arc<Shared>, transform: &str) -> Self {
        Self { shared: Arc::clone(shared), transform: transform.to_owned() }
    }
}

impl Reports for TransformReports {
    fn log(&self, level: LogLevel, message: &str) {
        let (pipeline, transform) = (&self.shared.name, &self.transform);
        match level {
            LogLevel::Debug => tracing::debug!(%pipeline, %transform, "{message}"),
            LogLevel::Info => tracing::info!(%pipeline, %transform, "{message}"),
            LogLevel::Warn => tracing::warn!(%pipeline, %transform, "{message}"),
            LogLevel::Error => tracing::error!(%pipeline, %transform, "{message}"),
        }
    }

    fn count(&self, counter: &str, delta: u64) {
        self.shared.books.counted(&self.transform, counter, delta);
    }
}
