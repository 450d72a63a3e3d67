//! The blocks `transform` and `output`: modules that can be loaded and take their config, limits that make sense,
//! routes that name topics.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use txconnect_connector_api::{ByteSize, HumanDuration};
use txconnect_transform_host::{Interrupt, Limits, LogLevel, Module, Reports, TransformConfig};

use super::super::located::{Spot, child};
use super::super::model::{Output, TransformSettings, UnknownFieldsSetting, ValidateSettings};
use super::super::modules::Modules;
use super::Checks;
use crate::publish::input::is_topic_name;

/// Less memory than this holds no guest, more no guest can have: its addresses have 32 bits.
const MEMORY: (ByteSize, ByteSize) = (ByteSize(1 << 20), ByteSize(4 << 30));
/// The shortest time that can be measured, and the longest that a lane may be held up.
const TIME: (HumanDuration, HumanDuration) =
    (HumanDuration(Duration::from_millis(1)), HumanDuration(Duration::from_mins(1)));

/// What the block `output` says.
#[derive(Default)]
pub(in super::super) struct CheckedOutput {
    /// The schema of its own.
    pub(in super::super) schema: Option<ValidateSettings>,
    /// Topics that records may be routed to.
    pub(in super::super) routes: Vec<String>,
}

/// What a guest says while a file is checked is of no interest: it says it again when the pipeline runs.
struct Unheard;

impl Reports for Unheard {
    fn log(&self, _: LogLevel, _: &str) {}

    fn count(&self, _: &str, _: u64) {}
}

impl Checks<'_> {
    /// Loads the modules and shows them their configs. An element is `None` where it holds a mistake that has been
    /// reported. The result is complete where nothing is wrong.
    pub(in super::super) fn transforms(
        &mut self,
        blocks: Vec<Option<TransformConfig>>,
        modules: &Modules,
        drain: Option<HumanDuration>,
    ) -> Option<Vec<TransformSettings>> {
        let checked: Vec<Option<TransformSettings>> = blocks
            .into_iter()
            .enumerate()
            .map(|(index, block)| self.transform(&format!("/transform/{index}"), block?, modules, drain))
            .collect();
        checked.into_iter().collect()
    }

    fn transform(
        &mut self,
        place: &str,
        block: TransformConfig,
        modules: &Modules,
        drain: Option<HumanDuration>,
    ) -> Option<TransformSettings> {
        let TransformConfig { wasm, config, limits, allow } = block;
        if !self.limits(place, limits, drain) {
            return None;
        }
        let module = match modules.load(&self.base_dir.join(wasm), limits, &allow) {
            Ok(module) => module,
            Err(error) => {
                let (message, help) = (error.to_string(), error.help.as_deref());
                let mistake = self.located.error(&child(place, "wasm"), Spot::Value, &message, help);
                self.found.push(mistake);
                return None;
            }
        };
        let problems = module.config_problems(config.as_ref());
        self.problems(&child(place, "config"), "", &problems);
        if !problems.is_empty() || !self.starts(place, &module, config.as_ref()) {
            return None;
        }
        Some(TransformSettings { module, config, limits })
    }

    /// Whether the limits make sense.
    fn limits(&mut self, place: &str, limits: Limits, drain: Option<HumanDuration>) -> bool {
        let before = self.found.len();
        let block = child(place, "limits");
        if !(MEMORY.0..=MEMORY.1).contains(&limits.memory) {
            let message = format!("must be from {} to {}", MEMORY.0, MEMORY.1);
            self.error(&child(&block, "memory"), Spot::Value, &message, "256MiB suits most");
        }
        let time = child(&block, "time_per_batch");
        if !(TIME.0..=TIME.1).contains(&limits.time_per_batch) {
            let message = format!("must be from {} to {}", TIME.0, TIME.1);
            self.error(&time, Spot::Value, &message, "2s suits most");
        }
        let is_right = self.found.len() == before;
        if is_right && limits.interrupt == Interrupt::None && self.located.node(&time).is_some() {
            self.warning(
                &time,
                Spot::Value,
                "has no effect: with `interrupt: none` a batch may take for ever",
                "remove one of the two",
            );
        } else if let Some(drain) = drain
            && is_right
            && limits.interrupt != Interrupt::None
            && limits.time_per_batch.0 > drain.0 / 2
        {
            let message = format!(
                "is long for a pipeline that must hand over a partition within {drain}: what is not finished then is \
                 done again elsewhere"
            );
            let half = HumanDuration(drain.0 / 2);
            let help = format!(
                "write at most {half}, or a longer `source.kafka.rebalance.drain_timeout`, or make `batch.rows` smaller"
            );
            let place = if self.located.node(&time).is_some() { &time } else { place };
            self.warning(place, Spot::Value, &message, &help);
        }
        is_right
    }

    /// Whether the guest takes its config: better asked now than when everything is connected.
    fn starts(&mut self, place: &str, module: &Arc<Module>, config: Option<&serde_json::Value>) -> bool {
        let Err(error) = module.start(config, Arc::new(Unheard)) else { return true };
        let key = if config.is_some() { "config" } else { "wasm" };
        let mistake = self.located.error(&child(place, key), Spot::Key, &error.to_string(), None);
        self.found.push(mistake);
        false
    }

    /// What leaves the last transform. `transformed` says whether there is one, where that is known.
    pub(in super::super) fn output(
        &mut self,
        output: Option<Output>,
        transformed: Option<bool>,
    ) -> CheckedOutput {
        const BLOCK: &str = "/output";
        let Some(Output { schema, unknown_fields, topics }) = output else { return CheckedOutput::default() };
        if transformed == Some(false) {
            self.error(
                BLOCK,
                Spot::Key,
                "says what leaves the transforms, and there is no `transform`",
                "add `transform: [{ wasm: … }]`, or write the schema under `validate`",
            );
        }
        if schema.is_none() && self.located.node("/output/unknown_fields").is_some() {
            self.error(
                "/output/unknown_fields",
                Spot::Key,
                "is about the fields of `output.schema`, which is missing",
                "add `schema`, or write this under `validate`",
            );
        }
        let mut seen = BTreeSet::new();
        for (index, topic) in topics.iter().enumerate() {
            let place = format!("{BLOCK}/topics/{index}");
            if !is_topic_name(topic) {
                self.error(
                    &place,
                    Spot::Value,
                    "this is not the name of a topic",
                    "a topic's name has at most 249 letters, digits, `.`, `_` and `-`",
                );
            } else if !seen.insert(topic) {
                self.error(&place, Spot::Value, "this topic is listed twice", "name every topic once");
            }
        }
        let unknown_fields: UnknownFieldsSetting = unknown_fields;
        let schema = schema.map(|schema| ValidateSettings { schema, unknown_fields: unknown_fields.into() });
        let routes: Vec<String> = topics.iter().filter(|topic| is_topic_name(topic)).cloned().collect();
        CheckedOutput { schema, routes }
    }
}
