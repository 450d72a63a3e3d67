//! What a guest has answered, checked: every index points somewhere, every end lies inside its data, names are UTF-8.

use std::collections::HashSet;

use crate::batch::{Column, Headers};

/// The longest name of a topic that Kafka takes, in bytes.
const LONGEST_TOPIC: usize = 249;
/// The most topics that one answer names: rows are sorted by topic afterwards, outside the guest's time.
pub(crate) const MOST_TOPICS: usize = 1000;
/// The longest class of a failure, in bytes.
pub(crate) const LONGEST_CODE: usize = 64;
/// The longest message of a failure, in bytes.
const LONGEST_MESSAGE: usize = 1024;

/// What a guest has answered, as the interface has it; nothing in it is known to make sense.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Columns {
    /// For each row the place of its record in the batch.
    pub sources: Vec<u32>,
    /// The rows' keys; `None`: those of their records.
    pub keys: Option<Column>,
    /// The rows' values; `None`: those of their records.
    pub values: Option<Column>,
    /// Topics, and for each row the index of its own; `None`: those of their records.
    pub topics: Option<(Vec<String>, Vec<u32>)>,
    /// The rows' headers; `None`: those of their records.
    pub headers: Option<Headers>,
    /// Rows that keep a part of their record although others do not.
    pub kept: Kept,
    /// Records that failed, with the guest's own codes.
    pub failures: Vec<RecordFailure>,
}

/// For each row whether it keeps a part of its record although a column is there; empty where none does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Kept {
    /// The key.
    pub keys: Vec<bool>,
    /// The value.
    pub values: Vec<bool>,
    /// The topic.
    pub topics: Vec<bool>,
    /// The headers.
    pub headers: Vec<bool>,
}

/// An answer that makes no sense: what is wrong with it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Malformed(pub String);

/// What became of a batch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Output {
    columns: Columns,
    /// Where the headers of each row begin, where there are any.
    first_header: Vec<u32>,
}

/// A record that could not be transformed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordFailure {
    /// Its place in the batch.
    pub record: u32,
    /// A short stable class: `transform.` and what the guest said.
    pub code: String,
    /// What is wrong, in one line.
    pub message: String,
}

/// One row. A part that is `None` is what it was in the record.
#[derive(Clone, Copy, Debug)]
pub struct Row<'a> {
    output: &'a Output,
    index: usize,
}

impl Output {
    /// Checks an answer to a batch of `records` records, of which each may become `most_rows` rows. A record that became
    /// more has failed: `transform.too_many_rows`.
    ///
    /// # Errors
    /// Lengths that differ, ends that fall or lie outside their data, sources that fall or are no record's place, topics
    /// that Kafka does not take, names that are not UTF-8, failures of no record or of one that has rows.
    pub fn checked(mut columns: Columns, records: usize, most_rows: u32) -> Result<Self, Malformed> {
        let rows = columns.sources.len();
        sources(&columns.sources, records)?;
        let Kept { keys, values, topics, headers } = &columns.kept;
        for kept in [keys, values, topics, headers] {
            length("a mark for each row that keeps something", kept.len(), rows, true)?;
        }
        for (name, column) in [("keys", &columns.keys), ("values", &columns.values)] {
            if let Some(column) = column {
                check_column(name, column, rows)?;
            }
        }
        if let Some((names, of)) = &columns.topics {
            check_topics(names, of, rows)?;
        }
        let first_header = columns.headers.as_ref().map_or(Ok(Vec::new()), |all| check_headers(all, rows))?;
        let overflowing = overflowing(&columns.sources, most_rows);
        check_failures(&mut columns, records)?;
        let mut output = Self { columns, first_header };
        if !overflowing.is_empty() {
            output.take_out(&overflowing, most_rows);
        }
        Ok(output)
    }

    /// Makes failures of records that became too many rows.
    fn take_out(&mut self, records: &HashSet<u32>, most_rows: u32) {
        let all = std::mem::take(self);
        let stays: Vec<usize> =
            (0..all.len()).filter(|&row| !records.contains(&all.columns.sources[row])).collect();
        let mut columns = Columns::default();
        let marks = |marks: &[bool]| stays.iter().filter_map(|&row| marks.get(row).copied()).collect();
        columns.kept = Kept {
            keys: marks(&all.columns.kept.keys),
            values: marks(&all.columns.kept.values),
            topics: marks(&all.columns.kept.topics),
            headers: marks(&all.columns.kept.headers),
        };
        let some = |column: &Option<Column>| {
            column.as_ref().map(|column| {
                let mut left = Column::default();
                for &row in &stays {
                    left.push(column.get(row));
                }
                left
            })
        };
        columns.keys = some(&all.columns.keys);
        columns.values = some(&all.columns.values);
        columns.sources = stays.iter().map(|&row| all.columns.sources[row]).collect();
        columns.topics = all.columns.topics.as_ref().map(|(names, of)| {
            (names.clone(), stays.iter().filter_map(|&row| of.get(row).copied()).collect())
        });
        let mut first_header = Vec::new();
        columns.headers = all.columns.headers.as_ref().map(|headers| {
            let mut left = Headers::default();
            for &row in &stays {
                let (first, count) = (all.first_header[row], headers.counts[row]);
                first_header.push(u32::try_from(left.names.len()).unwrap_or(u32::MAX));
                left.counts.push(count);
                for index in first as usize..(first + count) as usize {
                    left.names.push(headers.names.get(index));
                    left.values.push(headers.values.get(index));
                }
            }
            left
        });
        columns.failures = all.columns.failures;
        let message = format!("it became more than {most_rows} rows (`limits.max_outputs_per_record`)");
        columns.failures.extend(records.iter().map(|&record| RecordFailure {
            record,
            code: "transform.too_many_rows".to_owned(),
            message: message.clone(),
        }));
        columns.failures.sort_unstable_by_key(|failure| failure.record);
        *self = Self { columns, first_header };
    }

    /// How many rows there are.
    pub fn len(&self) -> usize {
        self.columns.sources.len()
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.columns.sources.is_empty()
    }

    /// Row `index`, which must be below [`Self::len`].
    pub fn row(&self, index: usize) -> Row<'_> {
        Row { output: self, index }
    }

    /// For each row the place of its record in the batch; never falling.
    pub fn sources(&self) -> &[u32] {
        &self.columns.sources
    }

    /// Records that failed, in their order. None of them has a row.
    pub fn failures(&self) -> &[RecordFailure] {
        &self.columns.failures
    }

    /// Bytes that the output takes, without the text of its failures.
    pub fn size(&self) -> usize {
        let column = |column: &Column| {
            column.data.capacity() + column.nulls.capacity() + column.ends.capacity() * size_of::<u32>()
        };
        let Columns { sources, keys, values, topics, headers, .. } = &self.columns;
        let words = sources.capacity()
            + self.first_header.capacity()
            + topics.as_ref().map_or(0, |(_, of)| of.capacity())
            + headers.as_ref().map_or(0, |headers| headers.counts.capacity());
        words * size_of::<u32>()
            + keys.as_ref().map_or(0, column)
            + values.as_ref().map_or(0, column)
            + headers.as_ref().map_or(0, |headers| column(&headers.names) + column(&headers.values))
    }
}

impl<'a> Row<'a> {
    fn kept(&self, marks: &[bool]) -> bool {
        marks.get(self.index).copied().unwrap_or(false)
    }

    /// The place of its record in the batch.
    pub fn source(&self) -> u32 {
        self.output.columns.sources.get(self.index).copied().unwrap_or(u32::MAX)
    }

    /// Its key, where the guest has given one: the inner `None` is no key.
    pub fn key(&self) -> Option<Option<&'a [u8]>> {
        let Columns { keys, kept, .. } = &self.output.columns;
        keys.as_ref().filter(|_| !self.kept(&kept.keys)).map(|keys| keys.get(self.index))
    }

    /// Its value, where the guest has given one: the inner `None` is a tombstone.
    pub fn value(&self) -> Option<Option<&'a [u8]>> {
        let Columns { values, kept, .. } = &self.output.columns;
        values.as_ref().filter(|_| !self.kept(&kept.values)).map(|values| values.get(self.index))
    }

    /// Its topic, where the guest has given one.
    pub fn topic(&self) -> Option<&'a str> {
        let Columns { topics, kept, .. } = &self.output.columns;
        let (names, of) = topics.as_ref().filter(|_| !self.kept(&kept.topics))?;
        names.get(*of.get(self.index)? as usize).map(String::as_str)
    }

    /// Its headers, where the guest has given some.
    pub fn headers(&self) -> Option<impl Iterator<Item = (&'a str, Option<&'a [u8]>)> + use<'a>> {
        let Columns { headers, kept, .. } = &self.output.columns;
        let headers = headers.as_ref().filter(|_| !self.kept(&kept.headers))?;
        let first = *self.output.first_header.get(self.index)? as usize;
        let count = *headers.counts.get(self.index)? as usize;
        Some((first..first + count).map(|index| {
            // Names are checked to be UTF-8.
            let name = std::str::from_utf8(headers.names.get(index).unwrap_or_default()).unwrap_or_default();
            (name, headers.values.get(index))
        }))
    }
}

fn malformed(what: impl Into<String>) -> Malformed {
    Malformed(what.into())
}

fn length(what: &str, found: usize, wanted: usize, may_be_empty: bool) -> Result<(), Malformed> {
    if found == wanted || (may_be_empty && found == 0) {
        return Ok(());
    }
    Err(malformed(format!("it has {found} of {what}, and {wanted} were expected")))
}

fn sources(sources: &[u32], records: usize) -> Result<(), Malformed> {
    if !sources.is_sorted() {
        return Err(malformed("the sources of its rows fall"));
    }
    match sources.last() {
        Some(&last) if last as usize >= records => {
            Err(malformed(format!("a row's source is {last}, and the batch has {records} records")))
        }
        _ => Ok(()),
    }
}

fn check_column(name: &str, column: &Column, rows: usize) -> Result<(), Malformed> {
    length(&format!("the ends of {name}"), column.ends.len(), rows, false)?;
    length(&format!("the nulls of {name}"), column.nulls.len(), rows, true)?;
    if column.nulls.iter().any(|&null| null > 1) {
        return Err(malformed(format!("a null of {name} is neither 0 nor 1")));
    }
    if !column.ends.is_sorted() {
        return Err(malformed(format!("the ends of {name} fall")));
    }
    let end = column.ends.last().map_or(0, |&end| end as usize);
    if end != column.data.len() {
        let bytes = column.data.len();
        return Err(malformed(format!(
            "the last of the ends of {name} is {end}, and there are {bytes} bytes"
        )));
    }
    Ok(())
}

fn check_topics(names: &[String], of: &[u32], rows: usize) -> Result<(), Malformed> {
    length("the topics of rows", of.len(), rows, false)?;
    if names.len() > MOST_TOPICS {
        return Err(malformed(format!("it names {} topics, and {MOST_TOPICS} are the most", names.len())));
    }
    if let Some(topic) = of.iter().find(|&&topic| topic as usize >= names.len()) {
        return Err(malformed(format!(
            "a row's topic is number {topic}, and it names {} topics",
            names.len()
        )));
    }
    let fits = |name: &String| {
        (1..=LONGEST_TOPIC).contains(&name.len())
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'))
            && name != "."
            && name != ".."
    };
    if names.iter().all(fits) { Ok(()) } else { Err(malformed("it names a topic that Kafka does not take")) }
}

/// Where each row's headers begin.
fn check_headers(headers: &Headers, rows: usize) -> Result<Vec<u32>, Malformed> {
    length("the counts of headers", headers.counts.len(), rows, false)?;
    let mut first = Vec::with_capacity(rows);
    let mut next = 0_u32;
    for &count in &headers.counts {
        first.push(next);
        next = next.checked_add(count).ok_or_else(|| malformed("it has more headers than can be counted"))?;
    }
    check_column("header names", &headers.names, next as usize)?;
    check_column("header values", &headers.values, next as usize)?;
    let is_name =
        |index: usize| headers.names.get(index).is_some_and(|name| std::str::from_utf8(name).is_ok());
    if (0..headers.names.len()).all(is_name) {
        Ok(first)
    } else {
        Err(malformed("the name of a header is null or not UTF-8"))
    }
}

/// Records with more rows than they may have.
fn overflowing(sources: &[u32], most_rows: u32) -> HashSet<u32> {
    let runs = sources.chunk_by(|one, other| one == other);
    runs.filter(|run| run.len() > most_rows as usize).map(|run| run[0]).collect()
}

fn check_failures(columns: &mut Columns, records: usize) -> Result<(), Malformed> {
    columns.failures.sort_by_key(|failure| failure.record);
    let mut previous = None;
    for failure in &mut columns.failures {
        if failure.record as usize >= records {
            let record = failure.record;
            return Err(malformed(format!(
                "record {record} has failed, and the batch has {records} records"
            )));
        }
        if previous.replace(failure.record) == Some(failure.record) {
            return Err(malformed("a record has failed twice"));
        }
        if columns.sources.binary_search(&failure.record).is_ok() {
            return Err(malformed("a record that has failed has rows"));
        }
        failure.code = format!("transform.{}", code(&failure.code));
        failure.message = one_line(&failure.message);
    }
    Ok(())
}

/// The guest's code, where it is one.
fn code(text: &str) -> &str {
    let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
    if (1..=LONGEST_CODE).contains(&text.len()) && text.bytes().all(fits) { text } else { "failed" }
}

/// Text in one line, not endless, without characters that steer a terminal.
pub(crate) fn one_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len().min(LONGEST_MESSAGE));
    for character in text.chars() {
        if line.len() >= LONGEST_MESSAGE {
            line.push('…');
            break;
        }
        line.push(if steers(character) { ' ' } else { character });
    }
    line
}

/// Whether a character does something to a line instead of standing in it.
fn steers(character: char) -> bool {
    // Line and paragraph separators, and what turns the direction of text round.
    character.is_control() || matches!(character, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}
