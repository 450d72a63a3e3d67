//! Bytes → [`Value`]: JSON, text or bytes as they are.
//!
//! JSON is parsed once, by sonic-rs' parser, into a [`Document`] whose strings and numbers borrow from the
//! record. Refused, each with the byte where it happened: invalid UTF-8, text that is not JSON, two members of
//! one name, nesting beyond [`MAX_DEPTH`], numbers that no double reaches.

use bumpalo::Bump;
use bumpalo::collections::Vec as ArenaVec;
use sonic_rs::Read;
use sonic_rs::parser::Parser;
use txconnect_connector_api::{BadRecord, Document, Member, Number, Object, Value};

/// How the value of a record is read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// One JSON value.
    #[default]
    Json,
    /// UTF-8 text.
    Text,
    /// Bytes, untouched.
    Bytes,
}

/// Arrays and objects inside one another. 128 is what `serde_json` allows too; real records stay below 20.
pub const MAX_DEPTH: usize = 128;

/// Objects up to this size are searched for duplicate names pair by pair.
const SMALL_OBJECT: usize = 24;

/// Reads the value of a record. `None` is a tombstone in every format.
///
/// # Errors
/// Classes `decode.utf8`, `decode.json`, `decode.duplicate_key`, `decode.depth`, `decode.number`.
pub fn decode<'a>(
    format: Format,
    payload: Option<&'a [u8]>,
    arena: &'a Bump,
) -> Result<Value<'a>, BadRecord> {
    let Some(payload) = payload else { return Ok(Value::Tombstone) };
    match format {
        Format::Bytes => Ok(Value::Bytes(payload)),
        Format::Text => Ok(Value::Text(utf8(payload)?)),
        Format::Json => {
            let text = utf8(payload)?;
            let document = arena.alloc(parse(text, arena)?);
            Ok(Value::Json { text, document })
        }
    }
}

/// Parses one JSON value with nothing but white space around it.
///
/// # Errors
/// As [`decode`].
pub fn parse<'a>(text: &'a str, arena: &'a Bump) -> Result<Document<'a>, BadRecord> {
    let mut reader = JsonReader { parser: Parser::new(Read::from(text)), unescaped: Vec::new(), arena };
    let first = reader.next_token()?;
    let document = reader.value(first, 0)?;
    match reader.parser.skip_space() {
        None => Ok(document),
        Some(_) => Err(reader.syntax("there is more text after the end of the value")),
    }
}

fn utf8(payload: &[u8]) -> Result<&str, BadRecord> {
    std::str::from_utf8(payload).map_err(|error| {
        BadRecord::new(
            "decode.utf8",
            "",
            format!("the value is not UTF-8 from byte {} on", error.valid_up_to()),
        )
    })
}

struct JsonReader<'a> {
    parser: Parser<Read<'a>>,
    /// Scratch of the parser for strings with escapes.
    unescaped: Vec<u8>,
    arena: &'a Bump,
}

impl<'a> JsonReader<'a> {
    fn value(&mut self, first: u8, depth: usize) -> Result<Document<'a>, BadRecord> {
        match first {
            b'"' => self.string().map(Document::String),
            b'-' | b'0'..=b'9' => self.number(first).map(Document::Number),
            b'{' => self.object(depth + 1),
            b'[' => self.array(depth + 1),
            b't' => self.literal("rue", Document::Bool(true)),
            b'f' => self.literal("alse", Document::Bool(false)),
            b'n' => self.literal("ull", Document::Null),
            _ => Err(self.syntax("a JSON value was expected")),
        }
    }

    fn object(&mut self, depth: usize) -> Result<Document<'a>, BadRecord> {
        self.check_depth(depth)?;
        let mut members: ArenaVec<'a, Member<'a>> = ArenaVec::new_in(self.arena);
        let mut token = self.next_token()?;
        if token == b'}' {
            return Ok(Document::Object(Object::new(&[])));
        }
        loop {
            if token != b'"' {
                return Err(self.syntax("a member's name was expected"));
            }
            let name = self.string()?;
            if self.next_token()? != b':' {
                return Err(self.syntax("`:` was expected after a member's name"));
            }
            let first = self.next_token()?;
            let value = self.value(first, depth)?;
            members.push(Member { name, value });
            match self.next_token()? {
                b',' => token = self.next_token()?,
                b'}' => break,
                _ => return Err(self.syntax("`,` or `}` was expected after a member")),
            }
        }
        let members = members.into_bump_slice();
        self.check_names(members)?;
        Ok(Document::Object(Object::new(members)))
    }

    fn array(&mut self, depth: usize) -> Result<Document<'a>, BadRecord> {
        self.check_depth(depth)?;
        let mut elements: ArenaVec<'a, Document<'a>> = ArenaVec::new_in(self.arena);
        let mut token = self.next_token()?;
        if token == b']' {
            return Ok(Document::Array(&[]));
        }
        loop {
            elements.push(self.value(token, depth)?);
            match self.next_token()? {
                b',' => token = self.next_token()?,
                b']' => return Ok(Document::Array(elements.into_bump_slice())),
                _ => return Err(self.syntax("`,` or `]` was expected after an element")),
            }
        }
    }

    fn string(&mut self) -> Result<&'a str, BadRecord> {
        use sonic_rs::parser::Reference;
        match self.parser.parse_str(&mut self.unescaped) {
            Ok(Reference::Borrowed(text)) => Ok(text),
            Ok(Reference::Copied(text)) => Ok(self.arena.alloc_str(text)),
            Err(_) => Err(self.syntax("a string with a closing quote and valid escapes was expected")),
        }
    }

    fn number(&mut self, first: u8) -> Result<Number<'a>, BadRecord> {
        let Ok(literal) = self.parser.skip_number(first) else {
            return Err(self.syntax("a number was expected"));
        };
        // Only an exponent or hundreds of digits lead out of a double's range.
        if (literal.len() > 300 || literal.bytes().any(|byte| matches!(byte, b'e' | b'E')))
            && !literal.parse::<f64>().is_ok_and(f64::is_finite)
        {
            let message = format!("the number at byte {} is larger than any double", self.at());
            return Err(BadRecord::new("decode.number", "", message));
        }
        Ok(Number::from_literal(literal))
    }

    fn literal(&mut self, rest: &str, value: Document<'a>) -> Result<Document<'a>, BadRecord> {
        match self.parser.parse_literal(rest) {
            Ok(()) => Ok(value),
            Err(_) => Err(self.syntax("`true`, `false` or `null` was expected")),
        }
    }

    fn next_token(&mut self) -> Result<u8, BadRecord> {
        self.parser.skip_space().ok_or_else(|| self.syntax("the text ends in the middle of a value"))
    }

    fn check_depth(&self, depth: usize) -> Result<(), BadRecord> {
        if depth <= MAX_DEPTH {
            return Ok(());
        }
        let message =
            format!("more than {MAX_DEPTH} arrays and objects inside one another at byte {}", self.at());
        Err(BadRecord::new("decode.depth", "", message))
    }

    fn check_names(&self, members: &[Member<'a>]) -> Result<(), BadRecord> {
        let duplicate = if members.len() <= SMALL_OBJECT {
            members
                .iter()
                .enumerate()
                .any(|(index, member)| members[..index].iter().any(|earlier| earlier.name == member.name))
        } else {
            let mut names: ArenaVec<'_, &str> =
                ArenaVec::from_iter_in(members.iter().map(|member| member.name), self.arena);
            names.sort_unstable();
            names.windows(2).any(|pair| pair[0] == pair[1])
        };
        if duplicate {
            let message = format!("the object that ends at byte {} has two members of one name", self.at());
            return Err(BadRecord::new("decode.duplicate_key", "", message));
        }
        Ok(())
    }

    #[cold]
    fn syntax(&self, expected: &str) -> BadRecord {
        BadRecord::new("decode.json", "", format!("the value is not JSON: {expected}, at byte {}", self.at()))
    }

    fn at(&self) -> usize {
        self.parser.offset()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn class_of(payload: &[u8]) -> String {
        let arena = Bump::new();
        match decode(Format::Json, Some(payload), &arena) {
            Ok(_) => "ok".to_owned(),
            Err(bad) => bad.class.into_owned(),
        }
    }

    #[test]
    fn each_kind_of_broken_json_has_its_class() {
        for (payload, class) in [
            (&b"{\"a\": [1, 2.50, -0e5, \"\\u00e9\\n\", null, true, false, {}] }"[..], "ok"),
            (b" 7 ", "ok"),
            (b"", "decode.json"),
            (b"{", "decode.json"),
            (b"{\"a\":1,}", "decode.json"),
            (b"[1,]", "decode.json"),
            (b"[1 2]", "decode.json"),
            (b"{\"a\" 1}", "decode.json"),
            (b"{a:1}", "decode.json"),
            (b"nul", "decode.json"),
            (b"tru\x00", "decode.json"),
            (b"01", "decode.json"),
            (b"1.", "decode.json"),
            (b"-", "decode.json"),
            (b"+1", "decode.json"),
            (b"NaN", "decode.json"),
            (b"{} {}", "decode.json"),
            (b"\"open", "decode.json"),
            (b"\"\\x\"", "decode.json"),
            (b"\"tab\tinside\"", "decode.json"),
            (b"\"\\ud800\"", "decode.json"),
            (b"\xff", "decode.utf8"),
            (b"{\"a\":1,\"b\":2,\"a\":3}", "decode.duplicate_key"),
            (b"{\"a\":1,\"\\u0061\":3}", "decode.duplicate_key"),
            (b"1e999", "decode.number"),
            (b"-1E+400", "decode.number"),
        ] {
            assert_eq!(class_of(payload), class, "{}", String::from_utf8_lossy(payload));
        }
        let many = (0..60).map(|index| format!("\"k{index}\":0,")).collect::<Vec<_>>().concat();
        assert_eq!(class_of(format!("{{{many}\"k7\":1}}").as_bytes()), "decode.duplicate_key");
        assert_eq!(class_of(format!("{{{many}\"other\":1}}").as_bytes()), "ok");
        assert_eq!(class_of("9".repeat(400).as_bytes()), "decode.number");
    }

    #[test]
    fn ten_thousand_levels_are_refused_and_128_are_read() {
        let nested = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
        assert_eq!(class_of(nested(MAX_DEPTH).as_bytes()), "ok");
        assert_eq!(class_of(nested(MAX_DEPTH + 1).as_bytes()), "decode.depth");
        assert_eq!(class_of("{\"a\":".repeat(10_000).as_bytes()), "decode.depth");
    }

    #[test]
    fn number_literals_are_kept_as_they_were_written() {
        let arena = Bump::new();
        let text = "[1.10, 12345678901234567890123456789.00, 1e2, -0]";
        let mut out = Vec::new();
        parse(text, &arena).unwrap().write_json(&mut out);
        assert_eq!(String::from_utf8(out).unwrap(), text.replace(' ', ""));
    }

    #[test]
    fn other_formats_look_only_at_what_they_must() {
        let arena = Bump::new();
        assert!(matches!(decode(Format::Bytes, Some(b"\xff"), &arena), Ok(Value::Bytes(b"\xff"))));
        assert!(matches!(decode(Format::Text, Some(b"{"), &arena), Ok(Value::Text("{"))));
        assert!(decode(Format::Text, Some(b"\xff"), &arena).is_err());
        for format in [Format::Json, Format::Text, Format::Bytes] {
            assert!(matches!(decode(format, None, &arena), Ok(Value::Tombstone)));
        }
    }

    fn any_value() -> impl Strategy<Value = serde_json::Value> {
        let leaf = prop_oneof![
            Just(serde_json::Value::Null),
            any::<bool>().prop_map(Into::into),
            any::<i64>().prop_map(Into::into),
            any::<f64>().prop_filter("finite", |x| x.is_finite()).prop_map(Into::into),
            any::<String>().prop_map(Into::into),
        ];
        leaf.prop_recursive(6, 60, 8, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..8).prop_map(Into::into),
                prop::collection::vec((any::<String>(), inner), 0..8)
                    .prop_map(|members| members.into_iter().collect::<serde_json::Map<_, _>>().into()),
            ]
        })
    }

    proptest! {
        #[test]
        fn what_serde_json_writes_is_read_alike(value in any_value(), pretty in any::<bool>()) {
            let text = if pretty { serde_json::to_string_pretty(&value) } else { serde_json::to_string(&value) }.unwrap();
            let arena = Bump::new();
            let mut out = Vec::new();
            parse(&text, &arena).unwrap().write_json(&mut out);
            let again: serde_json::Value = serde_json::from_slice(&out).unwrap();
            prop_assert_eq!(again, value);
        }

        #[test]
        fn bytes_are_accepted_exactly_when_serde_json_accepts_them(
            bytes in prop::collection::vec(prop::sample::select(&b"{}[]\",:0123.eE-+ \\untrfalse\x00\xc3\xa9"[..]), 0..24)
        ) {
            let mine = class_of(&bytes);
            let theirs = serde_json::from_slice::<serde_json::Value>(&bytes);
            // serde_json keeps the last of two members and the nearest double.
            if mine != "decode.duplicate_key" && mine != "decode.number" {
                prop_assert_eq!(mine == "ok", theirs.is_ok(), "{:?} {:?}", mine, theirs);
            }
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            class_of(&bytes);
        }
    }
}
