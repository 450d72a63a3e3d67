//! Write streams: rows at positions, and when they become visible.
//!
//! What each type promises and refuses is from BigQuery's pages on the Storage Write API and from the comments of its
//! protobuf definition. A stream belongs to one table, not to a name: a table of the same name that is made later has
//! none of its streams.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::stream_name::{StreamId, StreamName};
use super::table::{Columns, NewContent, Table};
use super::{Store, TableName};

/// The most streams that are remembered. Finalized ones cost a few hundred bytes each.
const MOST_STREAMS: usize = 100_000;
/// How long a stream lives that nothing is done with, in milliseconds: three days for COMMITTED (documented) …
const COMMITTED_MS: u64 = 3 * 24 * 60 * 60 * 1_000;
/// … and seven for BUFFERED; for PENDING nothing is documented, so that the same is taken.
const INVISIBLE_MS: u64 = 7 * 24 * 60 * 60 * 1_000;

/// When the rows of a stream that was made become visible.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StreamType {
    /// As soon as the append is acknowledged.
    Committed,
    /// When the stream is committed.
    Pending,
    /// Up to where it was flushed.
    Buffered,
}

/// Why a stream refuses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum StreamError {
    TableNotFound(TableName),
    StreamNotFound(StreamName),
    TooManyStreams,
    Finalized(StreamName),
    /// Rows are stored at this offset already.
    OffsetExists {
        expected: i64,
        given: i64,
    },
    /// The stream ends before this offset.
    OffsetBeyond {
        expected: i64,
        given: i64,
    },
    OffsetOnDefault,
    /// The method is not for streams of this type.
    WrongType(StreamName, &'static str),
    FlushBeyondEnd {
        end: i64,
        given: i64,
    },
    AlreadyFlushed {
        flushed: i64,
        given: i64,
    },
    FlushOfFinalized(StreamName),
    AlreadyCommitted(StreamName),
    NotFinalized(StreamName),
    OtherTable(StreamName),
}

/// Every stream that was made and has not expired.
#[derive(Debug, Default)]
pub(super) struct Streams {
    by_name: BTreeMap<StreamName, Stream>,
    made: u64,
}

/// A stream.
#[derive(Debug)]
pub(crate) struct Stream {
    pub(crate) kind: StreamType,
    /// The table it belongs to, which is not any table of that name.
    table: u64,
    /// What is not visible yet.
    waiting: VecDeque<Waiting>,
    /// How many rows were appended.
    pub(crate) rows: i64,
    /// How many of them are visible.
    pub(crate) visible: i64,
    pub(crate) finalized: bool,
    pub(crate) committed_ms: Option<u64>,
    pub(crate) created_ms: u64,
    used_ms: u64,
}

/// The rows of one append that are not visible yet.
#[derive(Debug)]
struct Waiting {
    rows: u64,
    content: NewContent,
}

/// What a writer has to know of a table before it reads rows.
#[derive(Debug, Clone)]
pub(crate) struct WriterView {
    pub(crate) identity: u64,
    pub(crate) columns: Columns,
    /// Whether rows may carry changes by primary key.
    pub(crate) keyed: bool,
}

impl NewContent {
    /// How many rows it has.
    pub(crate) fn count(&self) -> u64 {
        match self {
            NewContent::Rows(_, rows) => u64::try_from(rows.len()).unwrap_or(u64::MAX),
            NewContent::Counted { rows, .. } => *rows,
        }
    }

    /// Its first rows, which are taken out of it.
    fn take_first(&mut self, count: u64) -> NewContent {
        match self {
            NewContent::Rows(columns, rows) => {
                let at = usize::try_from(count).map_or(rows.len(), |count| count.min(rows.len()));
                let rest = rows.split_off(at);
                NewContent::Rows(Arc::clone(columns), std::mem::replace(rows, rest))
            }
            NewContent::Counted { rows, bytes } => {
                let count = count.min(*rows);
                // The sizes of single rows are not known; each counts as the average one.
                let share = u128::from(*bytes) * u128::from(count) / u128::from((*rows).max(1));
                let share = u64::try_from(share).unwrap_or(*bytes);
                *rows -= count;
                *bytes -= share;
                NewContent::Counted { rows: count, bytes: share }
            }
        }
    }
}

impl Stream {
    fn lifetime_ms(&self) -> u64 {
        match self.kind {
            StreamType::Committed => COMMITTED_MS,
            StreamType::Pending | StreamType::Buffered => INVISIBLE_MS,
        }
    }

    fn expired(&self, now_ms: u64) -> bool {
        now_ms.saturating_sub(self.used_ms) >= self.lifetime_ms()
    }

    /// Takes the rows that become visible when `count` of them are to be, and counts them as visible.
    fn publish(&mut self, count: i64) -> Vec<NewContent> {
        let mut left = u64::try_from(count.saturating_sub(self.visible)).unwrap_or(0);
        let mut published = Vec::new();
        while let Some(first) = self.waiting.front_mut().filter(|_| left > 0) {
            if first.rows <= left {
                left -= first.rows;
                published.extend(self.waiting.pop_front().map(|waiting| waiting.content));
            } else {
                first.rows -= left;
                published.push(first.content.take_first(left));
                left = 0;
            }
        }
        self.visible = self.visible.max(count);
        published
    }
}

impl Store {
    fn table_of_stream(&self, name: &StreamName) -> Result<&Table, StreamError> {
        self.table(&name.table).map_err(|_| StreamError::TableNotFound(name.table.clone()))
    }

    /// A stream that was made, has not expired, and whose table is still the same.
    fn made_stream(&mut self, name: &StreamName, now_ms: u64) -> Result<&mut Stream, StreamError> {
        let identity = self.table_of_stream(name)?.identity();
        let stream = self.streams.by_name.get_mut(name);
        let stream = stream.filter(|stream| stream.table == identity && !stream.expired(now_ms));
        stream.ok_or_else(|| StreamError::StreamNotFound(name.clone()))
    }

    /// Makes a stream.
    pub(crate) fn create_stream(
        &mut self,
        table: &TableName,
        kind: StreamType,
        now_ms: u64,
    ) -> Result<StreamName, StreamError> {
        let found = self.table(table).map_err(|_| StreamError::TableNotFound(table.clone()))?;
        let identity = found.identity();
        if self.streams.by_name.len() >= MOST_STREAMS {
            self.streams.by_name.retain(|_, stream| !stream.expired(now_ms));
        }
        if self.streams.by_name.len() >= MOST_STREAMS {
            return Err(StreamError::TooManyStreams);
        }
        self.streams.made += 1;
        let stream = StreamId::Made(stream_id(now_ms, self.streams.made));
        let name = StreamName { table: table.clone(), stream };
        let stream = Stream {
            kind,
            table: identity,
            waiting: VecDeque::new(),
            rows: 0,
            visible: 0,
            finalized: false,
            committed_ms: (kind == StreamType::Committed).then_some(now_ms),
            created_ms: now_ms,
            used_ms: now_ms,
        };
        self.streams.by_name.insert(name.clone(), stream);
        Ok(name)
    }

    /// A stream that was made.
    pub(crate) fn stream(&mut self, name: &StreamName, now_ms: u64) -> Result<&Stream, StreamError> {
        self.made_stream(name, now_ms).map(|stream| &*stream)
    }

    /// What a writer to a stream has to know of its table. `lag_ms`: how late it learns of a schema change; `hidden_ms`:
    /// how old table and stream must be to be found.
    pub(crate) fn writer_view(
        &mut self,
        name: &StreamName,
        lag_ms: u64,
        hidden_ms: u64,
        now_ms: u64,
    ) -> Result<WriterView, StreamError> {
        let young = |created_ms: u64| now_ms.saturating_sub(created_ms) < hidden_ms;
        let is_default = name.stream == StreamId::Default;
        if !is_default && young(self.made_stream(name, now_ms)?.created_ms) {
            return Err(StreamError::StreamNotFound(name.clone()));
        }
        let table = self.table_of_stream(name)?;
        if young(table.created_ms()) {
            return Err(StreamError::TableNotFound(name.table.clone()));
        }
        Ok(WriterView {
            identity: table.identity(),
            columns: Arc::clone(table.columns_seen_late(lag_ms, now_ms)),
            keyed: is_default && table.has_key(),
        })
    }

    /// Whether an append at an offset would be taken, before its rows are looked at.
    pub(crate) fn check_append(
        &mut self,
        name: &StreamName,
        offset: Option<i64>,
        now_ms: u64,
    ) -> Result<(), StreamError> {
        if name.stream == StreamId::Default {
            self.table_of_stream(name)?;
            return if offset.is_some() { Err(StreamError::OffsetOnDefault) } else { Ok(()) };
        }
        let stream = self.made_stream(name, now_ms)?;
        if stream.finalized {
            return Err(StreamError::Finalized(name.clone()));
        }
        let expected = stream.rows;
        match offset {
            Some(given) if given < expected => Err(StreamError::OffsetExists { expected, given }),
            Some(given) if given > expected => Err(StreamError::OffsetBeyond { expected, given }),
            _ => Ok(()),
        }
    }

    /// Appends to a stream and answers with the offset of the first row; the default stream has none. `identity` is that
    /// of the table the rows were read for.
    pub(crate) fn append(
        &mut self,
        name: &StreamName,
        offset: Option<i64>,
        content: NewContent,
        identity: u64,
        now_ms: u64,
    ) -> Result<Option<i64>, StreamError> {
        self.check_append(name, offset, now_ms)?;
        if self.table_of_stream(name)?.identity() != identity {
            return Err(StreamError::TableNotFound(name.table.clone()));
        }
        if name.stream == StreamId::Default {
            self.show(name, content, now_ms)?;
            return Ok(None);
        }
        let stream = self.made_stream(name, now_ms)?;
        let first = stream.rows;
        let rows = content.count();
        stream.rows = stream.rows.saturating_add(i64::try_from(rows).unwrap_or(i64::MAX));
        stream.used_ms = now_ms;
        if stream.kind == StreamType::Committed {
            stream.visible = stream.rows;
            self.show(name, content, now_ms)?;
        } else if rows > 0 {
            stream.waiting.push_back(Waiting { rows, content });
        }
        Ok(Some(first))
    }

    fn show(&mut self, name: &StreamName, content: NewContent, now_ms: u64) -> Result<(), StreamError> {
        let table =
            self.table_mut(&name.table).map_err(|_| StreamError::TableNotFound(name.table.clone()))?;
        table.add(content, now_ms);
        Ok(())
    }

    /// Makes the rows of a BUFFERED stream visible up to and with the one at `offset`, and answers with that offset.
    pub(crate) fn flush(&mut self, name: &StreamName, offset: i64, now_ms: u64) -> Result<i64, StreamError> {
        const ONLY: &str = "FlushRows is for streams of type BUFFERED only";
        if name.stream == StreamId::Default {
            return Err(StreamError::WrongType(name.clone(), ONLY));
        }
        let stream = self.made_stream(name, now_ms)?;
        if stream.kind != StreamType::Buffered {
            return Err(StreamError::WrongType(name.clone(), ONLY));
        }
        if stream.finalized {
            return Err(StreamError::FlushOfFinalized(name.clone()));
        }
        if offset >= stream.rows || offset < 0 {
            return Err(StreamError::FlushBeyondEnd { end: stream.rows, given: offset });
        }
        if offset < stream.visible {
            return Err(StreamError::AlreadyFlushed { flushed: stream.visible, given: offset });
        }
        stream.used_ms = now_ms;
        for content in stream.publish(offset.saturating_add(1)) {
            self.show(name, content, now_ms)?;
        }
        Ok(offset)
    }

    /// Ends a stream and answers with the number of its rows. Again: the same.
    pub(crate) fn finalize(&mut self, name: &StreamName, now_ms: u64) -> Result<i64, StreamError> {
        if name.stream == StreamId::Default {
            return Err(StreamError::WrongType(name.clone(), "The default stream cannot be finalized"));
        }
        let stream = self.made_stream(name, now_ms)?;
        stream.finalized = true;
        stream.used_ms = now_ms;
        if stream.kind == StreamType::Buffered {
            // What was not flushed will never be seen.
            stream.waiting = VecDeque::new();
        }
        Ok(stream.rows)
    }

    /// Makes all rows of some PENDING streams of a table visible, or those of none. The errors are those of each stream
    /// that cannot be committed.
    pub(crate) fn commit_streams(
        &mut self,
        parent: &TableName,
        names: &[StreamName],
        now_ms: u64,
    ) -> Result<(), Vec<StreamError>> {
        let errors: Vec<StreamError> =
            names.iter().filter_map(|name| self.check_commit(parent, name, now_ms).err()).collect();
        if !errors.is_empty() {
            return Err(errors);
        }
        for name in names {
            let Ok(stream) = self.made_stream(name, now_ms) else {
                continue;
            };
            stream.committed_ms = Some(now_ms);
            for content in stream.publish(stream.rows) {
                self.show(name, content, now_ms).map_err(|error| vec![error])?;
            }
        }
        Ok(())
    }

    fn check_commit(
        &mut self,
        parent: &TableName,
        name: &StreamName,
        now_ms: u64,
    ) -> Result<(), StreamError> {
        const ONLY: &str = "BatchCommitWriteStreams is for streams of type PENDING only";
        if name.table != *parent {
            return Err(StreamError::OtherTable(name.clone()));
        }
        if name.stream == StreamId::Default {
            return Err(StreamError::WrongType(name.clone(), ONLY));
        }
        let stream = self.made_stream(name, now_ms)?;
        match stream {
            Stream { kind: StreamType::Committed | StreamType::Buffered, .. } => {
                Err(StreamError::WrongType(name.clone(), ONLY))
            }
            Stream { committed_ms: Some(_), .. } => Err(StreamError::AlreadyCommitted(name.clone())),
            Stream { finalized: false, .. } => Err(StreamError::NotFinalized(name.clone())),
            Stream { .. } => Ok(()),
        }
    }

    /// Every stream that was made and is still known, in the order of their names.
    pub(crate) fn all_streams(&self, now_ms: u64) -> impl Iterator<Item = (&StreamName, &Stream)> {
        self.streams.by_name.iter().filter(move |(name, stream)| {
            let table = self.table(&name.table).ok();
            !stream.expired(now_ms) && table.is_some_and(|table| table.identity() == stream.table)
        })
    }

    /// Lets streams expire that a filter picks, and says how many.
    pub(crate) fn expire_streams(&mut self, pick: impl Fn(&StreamName) -> bool) -> usize {
        let before = self.streams.by_name.len();
        self.streams.by_name.retain(|name, _| !pick(name));
        before - self.streams.by_name.len()
    }
}

/// An id of the length and look that BigQuery's have: 55 letters, digits, `-` and `_`.
fn stream_id(now_ms: u64, number: u64) -> String {
    // The multiplier is odd, so that no two numbers give the same.
    let mixed = number.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let text = format!(
        "{:08x}-0000-{:04x}-{:04x}-{:012x}:s1",
        now_ms & 0xFFFF_FFFF,
        mixed >> 48,
        mixed >> 32 & 0xFFFF,
        (mixed & 0xFFFF_FFFF) << 16 | now_ms >> 32 & 0xFFFF,
    );
    URL_SAFE_NO_PAD.encode([b"\x0a\x27", text.as_bytes()].concat())
}

#[cfg(test)]
#[path = "streams_tests.rs"]
mod tests;
