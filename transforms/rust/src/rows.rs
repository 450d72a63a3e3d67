//! What becomes of a batch: rows, and records that failed.

use std::rc::Rc;

use serde::Serialize;

use crate::columns::{Batch, Column, Header, Headers, narrow};
use crate::{Error, Json, Record, Result, Wants};

/// What a row says of itself. A part that is `None` is what it was in the record.
#[derive(Clone, Copy, Debug, Default)]
pub struct Row<'a> {
    /// Its key; the inner `None` is no key. The transform must want `keys`.
    pub key: Option<Option<&'a [u8]>>,
    /// Its value; the inner `None` is a tombstone.
    pub value: Option<Option<&'a [u8]>>,
    /// Its topic, one of `output.topics` of the pipeline file.
    pub topic: Option<&'a str>,
    /// Its headers. The transform must want `headers`.
    pub headers: Option<&'a [Header]>,
}

/// What becomes of a batch. A column is begun with the first row that changes it; where none does, none is sent.
#[derive(Debug)]
pub struct Rows {
    batch: Rc<Batch>,
    wants: Wants,
    pub(crate) sources: Vec<u32>,
    pub(crate) keys: Option<Column>,
    pub(crate) values: Option<Column>,
    pub(crate) topics: Vec<String>,
    pub(crate) topic_of: Option<Vec<u32>>,
    pub(crate) headers: Option<Headers>,
    pub(crate) failures: Vec<(u32, Error)>,
}

impl Rows {
    pub(crate) fn new(batch: Rc<Batch>, wants: Wants) -> Self {
        Self {
            wants,
            sources: Vec::with_capacity(batch.len()),
            batch,
            keys: None,
            values: None,
            topics: Vec::new(),
            topic_of: None,
            headers: None,
            failures: Vec::new(),
        }
    }

    pub(crate) fn batch(&self) -> &Rc<Batch> {
        &self.batch
    }

    /// Appends a row of record `source`. Rows are in the order of their records: `source` never falls.
    ///
    /// # Errors
    /// It changes a key or headers, and the transform does not want to see them: those of other rows could not be kept.
    pub fn push(&mut self, source: usize, row: Row<'_>) -> Result<()> {
        let refusal = |part: &str| {
            let message = format!("a transform that sets {part} must want to see them: #[transform({part})]");
            Err(Error::new(format!("{part}_not_wanted"), message))
        };
        if row.key.is_some() && !self.wants.keys {
            return refusal("keys");
        }
        if row.headers.is_some() && !self.wants.headers {
            return refusal("headers");
        }
        let (batch, sources) = (&*self.batch, &self.sources);
        append(&mut self.keys, row.key, &batch.keys, sources, source);
        append(&mut self.values, row.value, &batch.values, sources, source);
        if let Some(topic) = row.topic {
            if self.topic_of.is_none() {
                let before = sources.iter().map(|&source| batch.topic(source as usize));
                self.topic_of = Some(before.map(|topic| number_of(&mut self.topics, topic)).collect());
            }
            self.topic_of.get_or_insert_default().push(number_of(&mut self.topics, topic));
        } else if let Some(of) = &mut self.topic_of {
            of.push(number_of(&mut self.topics, batch.topic(source)));
        }
        if let Some(given) = row.headers {
            let headers = self.headers.get_or_insert_with(|| {
                let mut all = Headers::default();
                for &source in sources {
                    all.push(batch.headers(source as usize));
                }
                all
            });
            headers.push(given.iter().map(|(name, value)| (name.as_str(), value.as_deref())));
        } else if let Some(headers) = &mut self.headers {
            headers.push(batch.headers(source));
        }
        self.sources.push(narrow(source));
        Ok(())
    }

    /// Appends a row that is record `source` as it was.
    pub fn keep(&mut self, source: usize) {
        // Nothing is changed, so nothing can be refused.
        let _ = self.push(source, Row::default());
    }

    /// Appends a row that is record `source` with another value.
    pub fn replace(&mut self, source: usize, value: &[u8]) {
        // Values are always seen, so nothing can be refused.
        let _ = self.push(source, Row { value: Some(Some(value)), ..Row::default() });
    }

    /// Says that a record could not be transformed. It loses the rows that it has, and gets no others.
    pub fn fail(&mut self, source: usize, error: Error) {
        let record = narrow(source);
        let left = self.sources.partition_point(|&source| source < record);
        self.truncate(left);
        self.failures.push((record, error));
    }

    fn truncate(&mut self, count: usize) {
        self.sources.truncate(count);
        for column in [&mut self.keys, &mut self.values].into_iter().flatten() {
            column.truncate(count);
        }
        if let Some(of) = &mut self.topic_of {
            of.truncate(count);
        }
        if let Some(headers) = &mut self.headers {
            headers.truncate(count);
        }
    }
}

/// Appends what a row says of a column, or what its record has there.
fn append(
    column: &mut Option<Column>,
    given: Option<Option<&[u8]>>,
    from: &Column,
    sources: &[u32],
    source: usize,
) {
    if given.is_some() && column.is_none() {
        let mut all = Column::default();
        all.data.reserve(from.data.len() + from.data.len() / 8);
        all.ends.reserve(from.len());
        for &source in sources {
            all.push(from.get(source as usize));
        }
        *column = Some(all);
    }
    if let Some(column) = column {
        column.push(given.unwrap_or_else(|| from.get(source)));
    }
}

fn number_of(topics: &mut Vec<String>, topic: &str) -> u32 {
    let known = topics.iter().position(|known| known == topic);
    narrow(known.unwrap_or_else(|| {
        topics.push(topic.to_owned());
        topics.len() - 1
    }))
}

/// Where the rows of one record go.
#[derive(Debug)]
pub struct RowsOfRecord<'r> {
    pub(crate) rows: &'r mut Rows,
    pub(crate) source: usize,
}

impl RowsOfRecord<'_> {
    /// Appends a row.
    ///
    /// # Errors
    /// As [`Rows::push`].
    pub fn push(&mut self, row: &Record) -> Result<()> {
        let row = Row {
            key: row.key.as_ref().map(Option::as_deref),
            value: row.value.as_ref().map(Option::as_deref),
            topic: row.topic.as_deref(),
            headers: row.headers.as_deref(),
        };
        self.rows.push(self.source, row)
    }

    /// Appends a row that is the record with another value.
    ///
    /// # Errors
    /// The value cannot be written as JSON.
    pub fn push_json<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<()> {
        self.rows.replace(self.source, &serde_json::to_vec(value)?);
        Ok(())
    }
}

/// What a transform may return: rows.
///
/// [`Record`], [`Json`], and `Option` (`None`: the record is filtered out), `Vec`, arrays and [`Result`] of them.
pub trait IntoRows {
    /// Appends the rows of one record, in their order; none filter it out.
    ///
    /// # Errors
    /// The record could not be transformed.
    fn into_rows(self, rows: &mut RowsOfRecord<'_>) -> Result<()>;
}

impl IntoRows for Record {
    fn into_rows(self, rows: &mut RowsOfRecord<'_>) -> Result<()> {
        rows.push(&self)
    }
}

impl<T: Serialize> IntoRows for Json<T> {
    fn into_rows(self, rows: &mut RowsOfRecord<'_>) -> Result<()> {
        rows.push_json(&self.0)
    }
}

impl<T: IntoRows> IntoRows for Option<T> {
    fn into_rows(self, rows: &mut RowsOfRecord<'_>) -> Result<()> {
        self.map_or(Ok(()), |row| row.into_rows(rows))
    }
}

impl<T: IntoRows> IntoRows for Vec<T> {
    fn into_rows(self, rows: &mut RowsOfRecord<'_>) -> Result<()> {
        self.into_iter().try_for_each(|row| row.into_rows(rows))
    }
}

impl<T: IntoRows, const N: usize> IntoRows for [T; N] {
    fn into_rows(self, rows: &mut RowsOfRecord<'_>) -> Result<()> {
        self.into_iter().try_for_each(|row| row.into_rows(rows))
    }
}

impl<T: IntoRows> IntoRows for Result<T> {
    fn into_rows(self, rows: &mut RowsOfRecord<'_>) -> Result<()> {
        self?.into_rows(rows)
    }
}
