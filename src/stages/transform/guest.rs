//! Transforms of the host as links of a chain.

use std::sync::Arc;
use std::time::Duration;

use txconnect_transform_host::{Batch, CallError, InitError, Limits, Needs, Output, Reports, Transform};

use super::chain::{Chain, Guest};
use crate::config::TransformSettings;

/// A transform at work, with what it may use up.
pub struct WasmGuest {
    transform: Transform,
    limits: Limits,
}

impl WasmGuest {
    /// Starts an instance.
    ///
    /// # Errors
    /// The guest has refused its config, or did not come to its end.
    pub fn start(settings: &TransformSettings, reports: Arc<dyn Reports>) -> Result<Self, InitError> {
        let transform = settings.module.start(settings.config.as_ref(), reports)?;
        Ok(Self { transform, limits: settings.limits })
    }
}

impl Chain<WasmGuest> {
    /// Starts an instance of every transform. `reports` answers who hears what the transform of that name tells.
    ///
    /// # Errors
    /// The first that does not start.
    pub fn start(
        transforms: &[TransformSettings],
        reports: impl Fn(&str) -> Arc<dyn Reports>,
    ) -> Result<Self, InitError> {
        let guests = transforms
            .iter()
            .map(|settings| WasmGuest::start(settings, reports(&settings.module.description().name)))
            .collect::<Result<_, _>>()?;
        Ok(Self::new(guests))
    }
}

impl Guest for WasmGuest {
    type Replacement = TransformSettings;

    fn name(&self) -> &str {
        &self.transform.module().description().name
    }

    fn needs(&self) -> Needs {
        self.transform.module().description().needs
    }

    fn time_per_batch(&self) -> Duration {
        self.limits.time_per_batch.0
    }

    fn max_failures(&self) -> u32 {
        self.limits.max_failures
    }

    fn call(&mut self, batch: &Batch, time: Duration) -> Result<Output, CallError> {
        self.transform.call(batch, time)
    }

    fn replace(&mut self, by: &TransformSettings) -> Result<(), InitError> {
        self.transform.swap(&by.module, by.config.as_ref())?;
        self.limits = by.limits;
        Ok(())
    }
}
