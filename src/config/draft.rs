//! The blocks of a file as types, as far as they can be read, so that a mistake in one block does not hide
//! those in others.

use std::collections::BTreeSet;
use std::num::NonZeroU16;

use serde::de::DeserializeOwned;
use txconnect_connector_api::{ByteSize, HumanDuration};
use txconnect_transform_host::TransformConfig;

use super::diagnose::Mistake;
use super::locate::{Content, Node};
use super::located::{Located, Spot, segments};
use super::model::{
    BatchLimits, DeadLetters, Decode, OnErrorSetting, Output, PipelineName, Source, Validate,
};
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

/// The list of blocks, each of which is read by itself.
const LIST: &str = "transform";

/// The block that a JSON pointer leads into: a top-level key, or an element of the list of blocks. `None` for the file
/// as a whole.
pub(super) fn block_at(pointer: &str) -> Option<String> {
    let mut segments = segments(pointer);
    let top = segments.next()?;
    match segments.next() {
        Some(element) if top == LIST => Some(element_name(&element)),
        _ => Some(top),
    }
}

/// The same for a path as messages have it, such as `transform[0].wasm`.
pub(super) fn block_of(path: &str) -> String {
    let top = path.split(['.', '[']).next().unwrap_or_default();
    let element = path[top.len()..].strip_prefix('[').and_then(|rest| rest.split_once(']'));
    match element {
        Some((element, _)) if top == LIST => element_name(element),
        _ => top.to_owned(),
    }
}

fn element_name(index: &str) -> String {
    format!("{LIST}[{index}]")
}

/// A [`super::model::PipelineFile`] of which blocks may be missing.
pub(super) struct Draft {
    pub(super) name: Block<PipelineName>,
    pub(super) source: Block<Source>,
    pub(super) decode: Block<Decode>,
    pub(super) validate: Block<Validate>,
    /// An element is `None` where it is flawed.
    pub(super) transform: Block<Vec<Option<TransformConfig>>>,
    pub(super) output: Block<Output>,
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
            transform: reader.list(),
            output: reader.block("output"),
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
        self.read(&format!("/{key}"), &entry.value).map_or(Block::Flawed, Block::Given)
    }

    fn list<T: DeserializeOwned>(&mut self) -> Block<Vec<Option<T>>> {
        if self.flawed.contains(LIST) {
            return Block::Flawed;
        }
        let Some(entry) = self.located.root.entry(LIST) else { return Block::Absent };
        // Another shape has been reported.
        let Content::Sequence(elements) = &entry.value.content else { return Block::Flawed };
        let read = elements.iter().enumerate().map(|(index, node)| {
            if self.flawed.contains(&element_name(&index.to_string())) {
                return None;
            }
            self.read(&format!("/{LIST}/{index}"), node)
        });
        Block::Given(read.collect())
    }

    fn read<T: DeserializeOwned>(&mut self, place: &str, node: &Node) -> Option<T> {
        let read = serde_yaml::to_value(node.to_json())
            .map_err(|error| typed::WrongValue { pointer: String::new(), message: error.to_string() })
            .and_then(typed::read);
        match read {
            Ok(value) => Some(value),
            Err(wrong) => {
                let pointer = format!("{place}{}", wrong.pointer);
                self.found.push(self.located.error(&pointer, Spot::Value, &wrong.message, None));
                None
            }
        }
    }
}
