//! Cuts a stream of bytes into whole JSON values, holding no more than one of them.
//!
//! The splitter follows strings, escapes and nesting only as far as it needs to find where a value ends;
//! whether the value is JSON is for [`super::record`] to say. A top-level array is opened: its elements are
//! the records. Anything else at the top level is a record itself, so that a JSON array, one value per line
//! and values one after the other are all read, whatever the file is called.

use std::fmt;

use memchr::{memchr_iter, memchr2};

/// The largest record taken, in bytes. More than Kafka takes with any sensible setting, and what bounds the
/// memory that a file without an end to its first value can use.
pub const MAX_RECORD_BYTES: usize = 64 << 20;

/// The UTF-8 byte order mark that some editors put before the text.
const BYTE_ORDER_MARK: [u8; 3] = [0xEF, 0xBB, 0xBF];

/// A place in the input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// The line, from 1.
    pub line: u64,
    /// The byte, from 0, counted from the start of the input.
    pub byte: u64,
}

impl Position {
    /// The first byte of an input.
    pub const START: Position = Position { line: 1, byte: 0 };

    /// The place behind `passed`, where `self` is the place of its first byte.
    #[must_use]
    pub fn after(self, passed: &[u8]) -> Self {
        let lines = memchr_iter(b'\n', passed).count();
        Self { line: self.line + lines as u64, byte: self.byte + passed.len() as u64 }
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}, byte {}", self.line, self.byte)
    }
}

/// One value of the input, without the white space around it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RawRecord<'a> {
    /// The value's bytes as they stand.
    pub bytes: &'a [u8],
    /// Where the first of them is.
    pub start: Position,
}

/// Input that cannot be cut into records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SplitError {
    /// A byte that can stand neither between records nor start one.
    #[error("expected {expected}, found {}", Shown(*found))]
    Unexpected {
        /// Where the byte is.
        at: Position,
        /// The byte.
        found: u8,
        /// What could have stood there.
        expected: &'static str,
    },
    /// A record is larger than [`MAX_RECORD_BYTES`].
    #[error("the record that starts here is larger than {limit} bytes")]
    TooLarge {
        /// Where the record starts.
        start: Position,
        /// The limit it exceeds.
        limit: usize,
    },
    /// The input ends inside a record.
    #[error("the input ends inside the record that starts here")]
    Unfinished {
        /// Where the record starts.
        start: Position,
    },
    /// The input ends inside the array that holds the records.
    #[error("the input ends before the array that starts here is closed with `]`")]
    UnfinishedArray {
        /// Where the array starts.
        start: Position,
    },
}

impl SplitError {
    /// The place the error is about.
    pub fn position(&self) -> Position {
        match self {
            Self::Unexpected { at, .. } => *at,
            Self::TooLarge { start, .. } | Self::Unfinished { start } | Self::UnfinishedArray { start } => {
                *start
            }
        }
    }
}

/// A byte as a message shows it.
struct Shown(u8);

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_ascii_graphic() {
            write!(f, "`{}`", char::from(self.0))
        } else {
            write!(f, "the byte 0x{:02x}", self.0)
        }
    }
}

/// Where the next byte stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// At the start of the input, after this many bytes of a byte order mark.
    Start(u8),
    /// At the top level, between values.
    TopLevel,
    /// Behind the `[` of an array of records.
    ArrayOpened,
    /// Behind a `,` of an array of records.
    ArrayComma,
    /// Behind an element of an array of records.
    ArrayElement,
    /// Inside a record.
    Value(Value),
}

/// How far the scan of one value has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Value {
    /// A number, `true`, `false`, `null` or something misspelt: ends before the next delimiter.
    Bare,
    /// A string, object or array: ends with its closing byte.
    Enclosed {
        /// How many objects and arrays are open.
        depth: usize,
        /// Inside a string.
        quoted: bool,
        /// Behind the backslash of an escape.
        escaped: bool,
    },
}

impl Value {
    fn starting_with(byte: u8) -> Self {
        match byte {
            b'"' | b'{' | b'[' => Self::Enclosed { depth: 0, quoted: false, escaped: false },
            _ => Self::Bare,
        }
    }

    /// Goes over `bytes` and answers how many of them belong to the value, once its end is among them.
    fn scan(&mut self, bytes: &[u8]) -> Option<usize> {
        let (depth, quoted, escaped) = match self {
            Self::Bare => return bytes.iter().position(|&byte| ends_bare_value(byte)),
            Self::Enclosed { depth, quoted, escaped } => (depth, quoted, escaped),
        };
        let mut at = 0;
        while at < bytes.len() {
            if *escaped {
                *escaped = false;
                at += 1;
            } else if *quoted {
                at += memchr2(b'"', b'\\', &bytes[at..])?;
                if bytes[at] == b'"' {
                    *quoted = false;
                } else {
                    *escaped = true;
                }
                at += 1;
                if *depth == 0 && !*quoted {
                    return Some(at);
                }
            } else {
                match bytes[at] {
                    b'"' => *quoted = true,
                    b'{' | b'[' => *depth += 1,
                    b'}' | b']' => *depth = depth.saturating_sub(1),
                    _ => {}
                }
                at += 1;
                if *depth == 0 && !*quoted {
                    return Some(at);
                }
            }
        }
        None
    }
}

fn ends_bare_value(byte: u8) -> bool {
    is_white_space(byte) || matches!(byte, b',' | b':' | b'"' | b'[' | b']' | b'{' | b'}')
}

fn is_white_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r')
}

/// Cuts pushed bytes into records. See the module's documentation for what a record is.
#[derive(Debug)]
pub struct Splitter {
    place: Place,
    /// Where the next byte of the input is.
    position: Position,
    /// Where the record being read starts.
    start: Position,
    /// Where the open array of records starts.
    array: Option<Position>,
    /// The part of a record that came with earlier chunks.
    carried: Vec<u8>,
    /// Whether `carried` holds a record that has been handed out.
    handed_out: bool,
    limit: usize,
}

impl Default for Splitter {
    fn default() -> Self {
        Self::new(MAX_RECORD_BYTES)
    }
}

impl Splitter {
    /// A splitter that refuses records of more than `limit` bytes.
    pub fn new(limit: usize) -> Self {
        Self {
            place: Place::Start(0),
            position: Position::START,
            start: Position::START,
            array: None,
            carried: Vec::new(),
            handed_out: false,
            limit,
        }
    }

    /// Takes bytes off the front of `input` up to the end of the next record and answers that record, or
    /// `None` when the input is used up. Call again with the rest until then, with [`Splitter::finish`]
    /// after the last chunk. After an error the splitter is of no more use.
    pub fn next_record<'s, 'c: 's>(
        &'s mut self,
        input: &mut &'c [u8],
    ) -> Result<Option<RawRecord<'s>>, SplitError> {
        if self.handed_out {
            self.carried.clear();
            self.handed_out = false;
        }
        let chunk: &'c [u8] = input;
        let mut at = 0;
        while at < chunk.len() {
            let Place::Value(mut value) = self.place else {
                let byte = chunk[at];
                if let Some(next) = self.between(byte)? {
                    self.place = next;
                    self.position = self.position.after(&[byte]);
                    at += 1;
                } else {
                    self.start = self.position;
                    self.place = Place::Value(Value::starting_with(byte));
                }
                continue;
            };
            let rest = &chunk[at..];
            let end = value.scan(rest);
            let part = &rest[..end.unwrap_or(rest.len())];
            if self.carried.len() + part.len() > self.limit {
                let room = self.limit.saturating_sub(self.carried.len());
                self.carried.extend_from_slice(&part[..room]);
                return Err(SplitError::TooLarge { start: self.start, limit: self.limit });
            }
            self.position = self.position.after(part);
            if end.is_none() {
                self.place = Place::Value(value);
                self.carried.extend_from_slice(part);
                *input = &[];
                return Ok(None);
            }
            self.place = self.behind_record();
            *input = &rest[part.len()..];
            let bytes = if self.carried.is_empty() {
                part
            } else {
                self.carried.extend_from_slice(part);
                self.handed_out = true;
                &self.carried
            };
            return Ok(Some(RawRecord { bytes, start: self.start }));
        }
        *input = &[];
        Ok(None)
    }

    /// Says that the input has ended. Answers the last record where only the end could tell that it is whole.
    pub fn finish(&mut self) -> Result<Option<RawRecord<'_>>, SplitError> {
        if self.handed_out {
            self.carried.clear();
            self.handed_out = false;
        }
        match (self.place, self.array) {
            (Place::Start(1..) | Place::Value(Value::Enclosed { .. }), _) => {
                Err(SplitError::Unfinished { start: self.start })
            }
            (_, Some(start)) => Err(SplitError::UnfinishedArray { start }),
            (Place::Value(Value::Bare), None) => {
                self.place = Place::TopLevel;
                self.handed_out = true;
                Ok(Some(RawRecord { bytes: &self.carried, start: self.start }))
            }
            _ => Ok(None),
        }
    }

    /// The bytes of the record that was being read when an error ended the splitting.
    pub fn unfinished(&self) -> &[u8] {
        if self.handed_out { &[] } else { &self.carried }
    }

    fn behind_record(&self) -> Place {
        if self.array.is_some() { Place::ArrayElement } else { Place::TopLevel }
    }

    /// Where `byte`, which stands outside any record, leads; `None` where it starts a record.
    fn between(&mut self, byte: u8) -> Result<Option<Place>, SplitError> {
        if let Place::Start(seen) = self.place {
            if BYTE_ORDER_MARK.get(usize::from(seen)) == Some(&byte) {
                let whole = usize::from(seen) + 1 == BYTE_ORDER_MARK.len();
                return Ok(Some(if whole { Place::TopLevel } else { Place::Start(seen + 1) }));
            }
            if seen > 0 {
                return Err(self.unexpected(byte, "the rest of a byte order mark"));
            }
            self.place = Place::TopLevel;
        }
        if is_white_space(byte) {
            return Ok(Some(self.place));
        }
        match (self.place, byte) {
            (Place::TopLevel, b'[') => {
                self.array = Some(self.position);
                Ok(Some(Place::ArrayOpened))
            }
            (Place::ArrayOpened | Place::ArrayElement, b']') => {
                self.array = None;
                Ok(Some(Place::TopLevel))
            }
            (Place::ArrayElement, b',') => Ok(Some(Place::ArrayComma)),
            (Place::ArrayElement, _) => Err(self.unexpected(byte, "`,` or `]` after the record")),
            (_, b',' | b':' | b']' | b'}') => Err(self.unexpected(byte, "a record")),
            _ => Ok(None),
        }
    }

    fn unexpected(&self, found: u8, expected: &'static str) -> SplitError {
        SplitError::Unexpected { at: self.position, found, expected }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    type Outcome = (Vec<(Vec<u8>, Position)>, Option<SplitError>);

    fn split<'a>(chunks: impl IntoIterator<Item = &'a [u8]>, limit: usize) -> Outcome {
        let mut splitter = Splitter::new(limit);
        let mut records = Vec::new();
        for chunk in chunks {
            let mut rest = chunk;
            loop {
                match splitter.next_record(&mut rest) {
                    Ok(Some(record)) => records.push((record.bytes.to_vec(), record.start)),
                    Ok(None) => break,
                    Err(error) => return (records, Some(error)),
                }
            }
            assert!(rest.is_empty());
        }
        match splitter.finish() {
            Ok(last) => {
                records.extend(last.map(|record| (record.bytes.to_vec(), record.start)));
                (records, None)
            }
            Err(error) => (records, Some(error)),
        }
    }

    fn texts(input: &str) -> Vec<String> {
        let (records, error) = split([input.as_bytes()], MAX_RECORD_BYTES);
        assert_eq!(error, None, "{input}");
        records.into_iter().map(|(bytes, _)| String::from_utf8(bytes).unwrap()).collect()
    }

    #[test]
    fn arrays_lines_and_values_in_a_row_give_the_same_records() {
        let expected = ["{\"a\":[1,\"]}\\\"\"]}", "2", "\"x,y\"", "null"];
        for input in [
            "[{\"a\":[1,\"]}\\\"\"]}, 2 ,\"x,y\",null]",
            "{\"a\":[1,\"]}\\\"\"]}\n2\r\n\"x,y\"\nnull\n",
            "{\"a\":[1,\"]}\\\"\"]}2\"x,y\"null",
            "\u{feff}[{\"a\":[1,\"]}\\\"\"]}][2,\"x,y\"]\nnull",
        ] {
            assert_eq!(texts(input), expected, "{input}");
        }
    }

    #[test]
    fn nothing_gives_no_record() {
        for input in ["", " \n ", "[]", "[ ]\n", "\u{feff}"] {
            assert!(texts(input).is_empty(), "{input:?}");
        }
    }

    #[test]
    fn records_keep_their_inner_newlines_and_know_where_they_start() {
        let (records, _) = split([&b"[\n  {\n\"a\": 1\n},\n  7\n]"[..]], MAX_RECORD_BYTES);
        assert_eq!(records[0], (b"{\n\"a\": 1\n}".to_vec(), Position { line: 2, byte: 4 }));
        assert_eq!(records[1], (b"7".to_vec(), Position { line: 5, byte: 18 }));
    }

    #[test]
    fn what_cannot_be_cut_is_refused_where_it_stands() {
        for (input, message, line, byte) in [
            ("[1 2]", "expected `,` or `]` after the record, found `2`", 1, 3),
            ("[1,\n]", "expected a record, found `]`", 2, 4),
            ("{}\n}", "expected a record, found `}`", 2, 3),
            ("1,2", "expected a record, found `,`", 1, 1),
            ("[1,\n2", "the input ends before the array that starts here is closed with `]`", 1, 0),
            ("1\n{\"a\"", "the input ends inside the record that starts here", 2, 2),
            ("\"\\\"", "the input ends inside the record that starts here", 1, 0),
            ("[1]]", "expected a record, found `]`", 1, 3),
        ] {
            let (_, error) = split([input.as_bytes()], MAX_RECORD_BYTES);
            let error = error.expect(input);
            assert_eq!(error.to_string(), message, "{input}");
            assert_eq!(error.position(), Position { line, byte }, "{input}");
        }
        let (_, error) = split([&b"\xEF\xBB1"[..]], MAX_RECORD_BYTES);
        assert_eq!(error.unwrap().to_string(), "expected the rest of a byte order mark, found `1`");
    }

    #[test]
    fn a_record_above_the_limit_is_refused_before_it_is_read_whole() {
        let chunks = std::iter::repeat_n(&b"\"aaaaaaaa"[..1], 1).chain(std::iter::repeat(&b"aaaa"[..]));
        let (records, error) = split(chunks, 100);
        assert!(records.is_empty());
        assert_eq!(error, Some(SplitError::TooLarge { start: Position::START, limit: 100 }));
        let exact = format!("\"{}\"", "a".repeat(98));
        assert_eq!(split([exact.as_bytes()], 100).0.len(), 1);
        assert!(split([exact.as_bytes()], 99).1.is_some());
    }

    fn cut<'a>(bytes: &'a [u8], cuts: &[usize]) -> Vec<&'a [u8]> {
        let mut bounds: Vec<usize> = cuts.iter().map(|cut| cut % (bytes.len() + 1)).collect();
        bounds.extend([0, bytes.len()]);
        bounds.sort_unstable();
        bounds.windows(2).map(|pair| &bytes[pair[0]..pair[1]]).collect()
    }

    fn json_like() -> impl Strategy<Value = Vec<u8>> {
        let piece = prop::sample::select(vec![
            "[",
            "]",
            "{",
            "}",
            ",",
            ":",
            "\"",
            "\\",
            "\n",
            " ",
            "a",
            "1",
            "true",
            "{\"a\":1}",
            "\u{feff}",
            "é",
        ]);
        prop::collection::vec(piece, 0..40).prop_map(|pieces| pieces.concat().into_bytes())
    }

    proptest! {
        #[test]
        fn where_the_chunks_are_cut_changes_nothing(
            bytes in prop_oneof![json_like(), prop::collection::vec(any::<u8>(), 0..200)],
            cuts in prop::collection::vec(any::<usize>(), 0..12),
            limit in 1_usize..64,
        ) {
            prop_assert_eq!(split(cut(&bytes, &cuts), limit), split([&bytes[..]], limit));
        }

        #[test]
        fn written_values_are_found_again(
            values in prop::collection::vec(
                prop_oneof![
                    any::<i64>().prop_map(serde_json::Value::from),
                    any::<String>().prop_map(serde_json::Value::from),
                    prop::collection::vec((any::<String>(), any::<Option<String>>()), 0..5)
                        .prop_map(|members| members.into_iter().collect()),
                ],
                0..9,
            ),
            cuts in prop::collection::vec(any::<usize>(), 0..12),
        ) {
            let lines = values.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
            let array = serde_json::to_string_pretty(&values).unwrap();
            for input in [lines, array] {
                let (records, error) = split(cut(input.as_bytes(), &cuts), MAX_RECORD_BYTES);
                prop_assert_eq!(error, None);
                let found: Vec<serde_json::Value> =
                    records.iter().map(|(bytes, _)| serde_json::from_slice(bytes).unwrap()).collect();
                prop_assert_eq!(&found, &values);
            }
        }
    }
}
