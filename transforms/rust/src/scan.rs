//! Where the members of a JSON object stand, found without reading what they hold.
//!
//! A value may hold nonsense between its quotes or brackets: whoever reads it finds that, and the runtime reads again what
//! a transform has changed.

use std::ops::Range;

/// A member of an object, by places in the text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    /// Between the quotes.
    pub(crate) name: Range<usize>,
    /// Whether the name has escapes.
    pub(crate) escaped: bool,
    pub(crate) value: Range<usize>,
    /// From the first quote to the end of the value.
    pub(crate) whole: Range<usize>,
}

/// Finds one member after the other. Places it tells are those of single-byte characters or the text's end.
#[derive(Debug)]
pub(crate) struct Scanner<'a> {
    text: &'a [u8],
    at: usize,
    begun: bool,
}

impl<'a> Scanner<'a> {
    pub(crate) fn new(text: &'a str) -> Self {
        Self { text: text.as_bytes(), at: 0, begun: false }
    }

    /// The next member, `None` behind the last, or the place of what is wrong.
    pub(crate) fn member(&mut self) -> Result<Option<Span>, usize> {
        self.space();
        if self.begun {
            match self.next() {
                Some(b',') => self.space(),
                Some(b'}') => return self.end(),
                _ => return Err(self.at.saturating_sub(1)),
            }
        } else {
            self.expect(b'{')?;
            self.begun = true;
            self.space();
            if self.peek() == Some(b'}') {
                self.at += 1;
                return self.end();
            }
        }
        let start = self.at;
        self.expect(b'"')?;
        let escaped = self.string()?;
        let name = start + 1..self.at - 1;
        self.space();
        self.expect(b':')?;
        self.space();
        let value = self.at;
        self.value()?;
        Ok(Some(Span { name, escaped, value: value..self.at, whole: start..self.at }))
    }

    fn end(&mut self) -> Result<Option<Span>, usize> {
        self.space();
        if self.at == self.text.len() { Ok(None) } else { Err(self.at) }
    }

    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    fn next(&mut self) -> Option<u8> {
        let byte = self.peek();
        self.at += usize::from(byte.is_some());
        byte
    }

    fn expect(&mut self, wanted: u8) -> Result<(), usize> {
        if self.peek() != Some(wanted) {
            return Err(self.at);
        }
        self.at += 1;
        Ok(())
    }

    fn space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\n' | b'\t' | b'\r')) {
            self.at += 1;
        }
    }

    /// Goes behind the closing quote of a string whose opening quote is behind us; says whether it has escapes.
    fn string(&mut self) -> Result<bool, usize> {
        let start = self.at;
        let mut escaped = false;
        loop {
            self.at += plain(&self.text[self.at..]);
            match self.next() {
                Some(b'"') => return Ok(escaped),
                Some(b'\\') => {
                    escaped = true;
                    self.next();
                }
                Some(_) => {}
                None => return Err(start),
            }
        }
    }

    fn value(&mut self) -> Result<(), usize> {
        match self.peek() {
            Some(b'"') => {
                self.at += 1;
                self.string().map(|_| ())
            }
            Some(b'{' | b'[') => self.nested(),
            _ => self.literal(),
        }
    }

    /// Goes behind the bracket that closes the one in front of us.
    fn nested(&mut self) -> Result<(), usize> {
        let start = self.at;
        let mut depth = 0_usize;
        loop {
            match self.next().ok_or(start)? {
                b'"' => {
                    self.string()?;
                }
                b'{' | b'[' => depth += 1,
                b'}' | b']' => {
                    depth -= 1;
                    if depth == 0 {
                        return Ok(());
                    }
                }
                _ => {}
            }
        }
    }

    /// Goes behind a number, `true`, `false` or `null`.
    fn literal(&mut self) -> Result<(), usize> {
        let start = self.at;
        while matches!(self.peek(), Some(b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E' | b'a'..=b'z')) {
            self.at += 1;
        }
        let literal = &self.text[start..self.at];
        if matches!(literal, b"true" | b"false" | b"null") || is_number(literal) {
            Ok(())
        } else {
            Err(start)
        }
    }
}

/// How many bytes come before the first quote or backslash, or before the last few: eight are looked at together.
fn plain(bytes: &[u8]) -> usize {
    const ONES: u64 = u64::MAX / 255;
    const HIGHS: u64 = ONES << 7;
    // The lowest byte that is zero is marked by its highest bit; bytes above it may be marked by mistake.
    let zeros = |word: u64| word.wrapping_sub(ONES) & !word & HIGHS;
    let (words, _) = bytes.as_chunks::<8>();
    for (index, word) in words.iter().enumerate() {
        let word = u64::from_le_bytes(*word);
        let found = zeros(word ^ (ONES * u64::from(b'"'))) | zeros(word ^ (ONES * u64::from(b'\\')));
        if found != 0 {
            return index * 8 + found.trailing_zeros() as usize / 8;
        }
    }
    words.len() * 8
}

/// Whether this is a number as JSON writes them.
fn is_number(text: &[u8]) -> bool {
    let digits = |text: &[u8]| text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let mut rest = text.strip_prefix(b"-").unwrap_or(text);
    let whole = digits(rest);
    if whole == 0 || (whole > 1 && rest[0] == b'0') {
        return false;
    }
    rest = &rest[whole..];
    if let Some(fraction) = rest.strip_prefix(b".") {
        let count = digits(fraction);
        if count == 0 {
            return false;
        }
        rest = &fraction[count..];
    }
    if let [b'e' | b'E', exponent @ ..] = rest {
        let sign = matches!(exponent, [b'+' | b'-', ..]);
        let exponent = &exponent[usize::from(sign)..];
        let count = digits(exponent);
        return count > 0 && count == exponent.len();
    }
    rest.is_empty()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    /// Names and values, or `None` where the text is no object.
    fn members(text: &str) -> Option<Vec<(String, String)>> {
        let mut scanner = Scanner::new(text);
        let mut members = Vec::new();
        loop {
            match scanner.member() {
                Ok(Some(span)) => members.push((text[span.name].to_owned(), text[span.value].to_owned())),
                Ok(None) => return Some(members),
                Err(at) => {
                    assert!(at <= text.len());
                    return None;
                }
            }
        }
    }

    #[test]
    fn numbers_are_those_of_json() {
        for number in ["0", "-0", "10", "1.50", "-1e5", "1E+10", "0.1e-1", "123456789012345678901234567890"] {
            assert!(is_number(number.as_bytes()), "{number}");
        }
        for text in ["", "-", "01", "1.", ".5", "1e", "+1", "1e+", "0x1", "1.5.2", "1e5e", "--1"] {
            assert!(!is_number(text.as_bytes()), "{text}");
        }
    }

    #[test]
    fn strings_end_where_they_end() {
        let text = r#"{"a":"0123456\"89","b":"01234567","c":"\\","d":{"e":["]}"]},"f":""}"#;
        let values: Vec<String> = members(text).unwrap().into_iter().map(|(_, value)| value).collect();
        assert_eq!(values, [r#""0123456\"89""#, r#""01234567""#, r#""\\""#, r#"{"e":["]}"]}"#, r#""""#]);
    }

    fn json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            any::<String>().prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 24, 6, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
                prop::collection::btree_map(any::<String>(), inner, 0..6)
                    .prop_map(|members| Value::Object(members.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn every_member_of_every_object_is_found(
            object in prop::collection::btree_map(any::<String>(), json(), 0..6),
            pretty in any::<bool>(),
        ) {
            let object: serde_json::Map<String, Value> = object.into_iter().collect();
            let text = if pretty { serde_json::to_string_pretty(&object) } else { serde_json::to_string(&object) };
            let found = members(&text.unwrap()).unwrap();
            let read: serde_json::Map<String, Value> = found
                .iter()
                .map(|(name, value)| {
                    let name: String = serde_json::from_str(&format!("\"{name}\"")).unwrap();
                    (name, serde_json::from_str(value).unwrap())
                })
                .collect();
            prop_assert_eq!(read, object);
        }

        #[test]
        fn whatever_the_text_the_scanner_comes_to_an_end(text in r#"\{?("(a|\\.)*"|[0-9a-e:,{}\[\] "\\é.-]){0,40}\}?"#) {
            let found = members(&text);
            if serde_json::from_str::<serde_json::Map<String, Value>>(&text).is_ok() {
                prop_assert!(found.is_some());
            }
        }

        #[test]
        fn the_first_quote_or_backslash_is_where_it_is(bytes in prop::collection::vec(0x1f_u8..0x60, 0..40)) {
            let first = bytes.iter().position(|&byte| byte == b'"' || byte == b'\\').unwrap_or(bytes.len());
            let skipped = plain(&bytes);
            prop_assert!(skipped <= first);
            prop_assert!(skipped == first || first - skipped < 8 && bytes.len() - skipped < 8);
        }
    }
}
