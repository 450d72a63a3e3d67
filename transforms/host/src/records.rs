//! Guests that take one record at a time: a batch is handed to them record by record.

use wasmtime::Store;

use crate::batch::{Batch, Column, Headers};
use crate::bindings::records::exports::txconnect::transform::records as wit;
use crate::guest::{MemoryExhausted, State};
use crate::output::{Columns, LONGEST_CODE, MOST_TOPICS, RecordFailure, one_line};

/// Hands every record over and gathers the answers, of at most `most_bytes` together. The rows of a record with more than
/// `most_rows` are not gathered but for one too many, by which it is recognized.
pub(crate) fn transform(
    guest: &wit::Guest,
    store: &mut Store<State>,
    batch: &Batch,
    most_rows: u32,
    most_bytes: usize,
) -> wasmtime::Result<Columns> {
    let mut gathered = Gathered { left: most_bytes, ..Gathered::default() };
    let most_rows = usize::try_from(most_rows).unwrap_or(usize::MAX);
    let mut header = 0;
    for index in 0..batch.len() {
        let count = batch.headers.counts.get(index).map_or(0, |&count| count as usize);
        let headers: Vec<wit::HeaderParam<'_>> = (header..header + count)
            .map(|index| wit::HeaderParam {
                // The runtime has filled it from text.
                name: std::str::from_utf8(batch.headers.names.get(index).unwrap_or_default())
                    .unwrap_or_default(),
                value: batch.headers.values.get(index),
            })
            .collect();
        header += count;
        let topic = batch.topic_of.get(index).and_then(|&topic| batch.topics.get(topic as usize));
        let input = wit::Input {
            topic: topic.map_or("", String::as_str),
            partition: batch.partitions.get(index).copied().unwrap_or(-1),
            offset: batch.offsets.get(index).copied().unwrap_or(-1),
            timestamp: batch.timestamps.get(index).copied().filter(|&timestamp| timestamp >= 0),
            key: batch.keys.get(index),
            value: batch.values.get(index),
            headers: &headers,
        };
        let record = u32::try_from(index).unwrap_or(u32::MAX);
        match guest.call_transform(&mut *store, input)? {
            Ok(rows) => {
                for row in rows.into_iter().take(most_rows.saturating_add(1)) {
                    gathered.push(record, row).map_err(|Full| MemoryExhausted { limit: most_bytes })?;
                }
            }
            Err(failure) => {
                // Cut at once: failures of a whole batch are to be held beside each other.
                let (mut code, message) = (failure.code, one_line(&failure.message));
                if code.len() > LONGEST_CODE {
                    code.clear();
                }
                gathered.columns.failures.push(RecordFailure { record, code, message });
            }
        }
    }
    Ok(gathered.finish())
}

/// Rows on their way into columns.
#[derive(Default)]
struct Gathered {
    /// Bytes that there is still room for.
    left: usize,
    columns: Columns,
    keys: Column,
    values: Column,
    topics: Vec<String>,
    topic_of: Vec<u32>,
    headers: Headers,
}

/// Too many bytes have been gathered.
struct Full;

/// What a row takes beside its bytes, roughly.
const ROW: usize = 64;

fn bytes(row: &wit::Row) -> usize {
    let change = |change: &wit::Change| match change {
        wit::Change::Replace(Some(bytes)) => bytes.len(),
        wit::Change::Replace(None) | wit::Change::Keep => 0,
    };
    let header =
        |header: &wit::HeaderResult| ROW + header.name.len() + header.value.as_ref().map_or(0, Vec::len);
    let headers: usize = row.headers.iter().flatten().map(header).sum();
    ROW + change(&row.key) + change(&row.value) + row.topic.as_ref().map_or(0, String::len) + headers
}

impl Gathered {
    fn push(&mut self, record: u32, row: wit::Row) -> Result<(), Full> {
        self.left = self.left.checked_sub(bytes(&row)).ok_or(Full)?;
        let wit::Row { key, value, topic, headers } = row;
        let kept = &mut self.columns.kept;
        self.columns.sources.push(record);
        for (change, column, kept) in
            [(key, &mut self.keys, &mut kept.keys), (value, &mut self.values, &mut kept.values)]
        {
            kept.push(matches!(change, wit::Change::Keep));
            match change {
                wit::Change::Keep => column.push(None),
                wit::Change::Replace(bytes) => column.push(bytes.as_deref()),
            }
        }
        kept.topics.push(topic.is_none());
        let topic = topic.map_or(0, |topic| {
            // Beyond the most that an answer may name the look-up would cost more and more, for an answer that is refused.
            let known = self.topics.iter().take(MOST_TOPICS).position(|known| *known == topic);
            known.unwrap_or_else(|| {
                self.topics.push(topic);
                self.topics.len() - 1
            })
        });
        self.topic_of.push(u32::try_from(topic).unwrap_or(u32::MAX));
        kept.headers.push(headers.is_none());
        let headers = headers.unwrap_or_default();
        self.headers.counts.push(u32::try_from(headers.len()).unwrap_or(u32::MAX));
        for wit::HeaderResult { name, value } in headers {
            self.headers.names.push(Some(name.as_bytes()));
            self.headers.values.push(value.as_deref());
        }
        Ok(())
    }

    /// Columns that no row has given are left out.
    fn finish(self) -> Columns {
        let Self { mut columns, keys, values, mut topics, topic_of, headers, .. } = self;
        let given = |kept: &[bool]| kept.contains(&false);
        columns.keys = given(&columns.kept.keys).then_some(keys);
        columns.values = given(&columns.kept.values).then_some(values);
        // Rows that keep their topic point at the first one.
        if topics.is_empty() {
            columns.topics = None;
        } else {
            columns.topics = Some((std::mem::take(&mut topics), topic_of));
        }
        columns.headers = given(&columns.kept.headers).then_some(headers);
        columns
    }
}
