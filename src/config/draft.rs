//! The blocks of a file as types, as far as they can be read, so that a mistake in one block does not hide
//! those in others.

use std::collections::BTreeSet;
use std::num::NonZeroU16;

use serde::de::DeserializeOwned;
use txconnect_connector_api::{ByteSize, HumanDuration};

use super::diagnose::Mistake;
use super::located::{Located, Spot};
use super::model::{BatchLimits, DeadLetters, Decode, OnErrorSetting, PipelineName, Source, Validate};
use super::registry::SinkBlock;
use super::typed;

/// One block of a file.
pub(super) enum Block<T> {
    /// The user has written it, and it can be read.
    Given(T),
    /// The user has not written it.
    Absent,
    /// It holds a mistake that has been reported.
    Flawed,
}

impl<T> Block<T> {
    /// The block or its default; `None` where it is flawed.
    pub(super) fn or(self, default: T) -> Option<T> {
        match self {
            Block::Given(value) => Some(value),
            Block::Absent => Some(default),
            Block::Flawed => None,
        }
    }

    /// The block, where it is given and right.
    pub(super) fn given(self) -> Option<T> {
        match self {
            Block::Given(value) => Some(value),
            Block::Absent | Block::Flawed => None,
        }
    }

    /// Changes a given block. `map(Some).or(None)` tells a block that is not there from one that is flawed.
    pub(super) fn map<U>(self, change: impl FnOnce(T) -> U) -> Block<U> {
        match self {
            Block::Given(value) => Block::Given(change(value)),
            Block::Absent => Block::Absent,
            Block::Flawed => Block::Flawed,
        }
    }
}

/// A [`super::model::PipelineFile`] of which blocks may be missing.
pub(super) struct Draft {
    pub(super) name: Block<PipelineName>,
    pub(super) source: Block<Source>,
    pub(super) decode: Block<Decode>,
    pub(super) validate: Block<Validate>,
    pub(super) on_error: Block<OnErrorSetting>,
    pub(super) batch: Block<BatchLimits>,
    pub(super) dead_letters: Block<DeadLetters>,
    pub(super) memory: Block<ByteSize>,
    pub(super) lanes: Block<NonZeroU16>,
    pub(super) stalled_after: Block<HumanDuration>,
    pub(super) sink: Block<SinkBlock>,
}

impl Draft {
    /// Reads every block that is not `flawed`.
    pub(super) fn read(located: &Located, flawed: &BTreeSet<String>, found: &mut Vec<Mistake>) -> Self {
        let mut reader = Reader { located, flawed, found };
        Self {
            name: reader.block("name"),
            source: reader.block("source"),
            decode: reader.block("decode"),
            validate: reader.block("validate"),
            on_error: reader.block("on_error"),
            batch: reader.block("batch"),
            dead_letters: reader.block("dead_letters"),
            memory: reader.block("memory"),
            lanes: reader.block("lanes"),
            stalled_after: reader.block("stalled_after"),
            sink: reader.block("sink"),
        }
    }
}

struct Reader<'r> {
    located: &'r Located,
    flawed: &'r BTreeSet<String>,
    found: &'r mut Vec<Mistake>,
}

impl Reader<'_> {
    fn block<T: DeserializeOwned>(&mut self, key: &str) -> Block<T> {
        if self.flawed.contains(key) {
            return Block::Flawed;
        }
        let Some(entry) = self.located.root.entry(key) else { return Block::Absent };
        let read = serde_yaml::to_value(entry.value.to_json())
            .map_err(|error| typed::WrongValue { pointer: String::new(), message: error.to_string() })
            .and_then(typed::read);
        match read {
            Ok(value) => Block::Given(value),
            Err(wrong) => {
                let pointer = format!("/{key}{}", wrong.pointer);
                self.found.push(self.located.error(&pointer, Spot::Value, &wrong.message, None));
                Block::Flawed
            }
        }
    }
}
