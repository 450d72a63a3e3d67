//! What a pipeline file says of a transform.

use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;
use txconnect_connector_api::{ByteSize, HumanDuration};

/// A transform: a WebAssembly component that records pass through.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TransformConfig {
    /// The component's file. Relative to the folder of the pipeline file, or to its parent where that folder is named
    /// `pipelines`.
    pub wasm: PathBuf,
    /// Handed to the transform as it is; what may stand here the transform itself says (`txconnect transform inspect`).
    #[serde(default)]
    pub config: Option<serde_json::Value>,
    /// What the transform may use up.
    #[serde(default)]
    pub limits: Limits,
    /// What the transform may see of the machine beside its records: `clock`, `random`. Default: nothing.
    #[serde(default)]
    pub allow: Vec<Grant>,
}

/// What a transform may see of the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Grant {
    /// The time of day, and a clock that only moves forward.
    Clock,
    /// Random bytes.
    Random,
}

/// What a transform may use up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// The most memory of one instance; every lane has an instance. Beside the pipeline's `memory`. Default: `256MiB`.
    pub memory: ByteSize,
    /// How long one batch may take. Default: `2s`.
    pub time_per_batch: HumanDuration,
    /// How a transform that takes longer is stopped: `epoch` looks at a clock every few milliseconds; `fuel` counts
    /// instructions, always the same for the same records; `none` lets it run for ever and is the fastest. Default:
    /// `epoch`.
    pub interrupt: Interrupt,
    /// The most rows that one record may become. Default: `1000`.
    pub max_outputs_per_record: NonZeroU32,
    /// After more than so many records in a row that make the transform trap or overstep its limits the pipeline fails.
    /// Default: `10`.
    pub max_failures: u32,
}

impl Default for Limits {
    fn default() -> Self {
        const OUTPUTS: NonZeroU32 = match NonZeroU32::new(1000) {
            Some(outputs) => outputs,
            None => NonZeroU32::MIN,
        };
        Self {
            memory: ByteSize(256 << 20),
            time_per_batch: HumanDuration(Duration::from_secs(2)),
            interrupt: Interrupt::Epoch,
            max_outputs_per_record: OUTPUTS,
            max_failures: 10,
        }
    }
}

/// How a transform that takes too long is stopped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Interrupt {
    /// By a clock.
    #[default]
    Epoch,
    /// By counting instructions: a million for each millisecond.
    Fuel,
    /// Not at all.
    None,
}
