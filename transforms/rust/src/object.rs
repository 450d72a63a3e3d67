//! The members of a JSON object, as text: only what is asked for is read, and what is not changed stays as it was
//! written, digit by digit.

use std::borrow::Cow;
use std::ops::Range;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::error::expectation;
use crate::scan::{Scanner, Span};
use crate::{Error, Result};

/// The members of a JSON object, in their order. Values are JSON text.
///
/// Where a name occurs more than once, its last value counts, as for most readers of JSON; what changes or removes a
/// member leaves none of the others behind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Object<'a> {
    text: &'a str,
    members: Vec<Member<'a>>,
    changed: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Member<'a> {
    name: Cow<'a, str>,
    value: Cow<'a, str>,
    /// Where name and value stand in the text, and which of its members this is; `None` where something was changed.
    place: Option<(usize, Range<usize>)>,
}

impl<'a> Object<'a> {
    /// Reads an object. Members inside members are not looked at.
    ///
    /// # Errors
    /// The text is not one JSON object.
    pub fn parse(text: &'a [u8]) -> Result<Self> {
        let not_an_object =
            |at: usize| Error::new("shape", format!("the value is not a JSON object, at column {}", at + 1));
        let text = std::str::from_utf8(text)?;
        let mut scanner = Scanner::new(text);
        let mut members = Vec::with_capacity(12);
        loop {
            match scanner.member() {
                Ok(Some(Span { name, escaped, value, whole })) => {
                    let name = if escaped {
                        Cow::Owned(serde_json::from_str(&text[name.start - 1..=name.end])?)
                    } else {
                        Cow::Borrowed(&text[name])
                    };
                    let place = Some((members.len(), whole));
                    members.push(Member { name, value: Cow::Borrowed(&text[value]), place });
                }
                Ok(None) => return Ok(Self { text, members, changed: false }),
                Err(at) => return Err(not_an_object(at)),
            }
        }
    }

    /// The value of a member, or `None` where there is no such member, or a `null`.
    ///
    /// # Errors
    /// The value is not a `T`.
    pub fn get<'o, T: Deserialize<'o>>(&'o self, name: &str) -> Result<Option<T>> {
        match self.raw(name) {
            None | Some("null") => Ok(None),
            Some(raw) => serde_json::from_str(raw).map(Some).map_err(|error| {
                let mut message = format!("the field `{name}` has another shape than expected");
                if let Some(expected) = expectation(&error) {
                    message.push_str(": ");
                    message.push_str(&expected);
                }
                Error::new("shape", message)
            }),
        }
    }

    /// The value of a member as JSON text.
    pub fn raw(&self, name: &str) -> Option<&str> {
        self.members.iter().rfind(|member| member.name == name).map(|member| &*member.value)
    }

    /// Gives a member a value. A new member comes last.
    ///
    /// # Errors
    /// The value cannot be written as JSON.
    pub fn set<T: Serialize + ?Sized>(&mut self, name: &str, value: &T) -> Result<()> {
        let text = serde_json::to_string(value)
            .map_err(|_| Error::new("shape", format!("the field `{name}` cannot be written as JSON")))?;
        self.put(name, text);
        Ok(())
    }

    /// The same for a value that is JSON text already, such as the digits of a decimal.
    ///
    /// # Errors
    /// The text is not JSON.
    pub fn set_raw(&mut self, name: &str, json: impl Into<String>) -> Result<()> {
        let json = json.into();
        serde_json::from_str::<&RawValue>(&json).map_err(|_| {
            Error::new("shape", format!("the field `{name}` was given text that is not JSON"))
        })?;
        self.put(name, json);
        Ok(())
    }

    fn put(&mut self, name: &str, text: String) {
        self.changed = true;
        match self.only(name) {
            Some(member) => {
                member.value = Cow::Owned(text);
                member.place = None;
            }
            None => self.members.push(Member {
                name: Cow::Owned(name.to_owned()),
                value: Cow::Owned(text),
                place: None,
            }),
        }
    }

    /// The last member of a name, once those before it are gone.
    fn only(&mut self, name: &str) -> Option<&mut Member<'a>> {
        let last = self.members.iter().rposition(|member| member.name == name)?;
        let mut index = 0;
        self.members.retain(|member| {
            index += 1;
            index > last || member.name != name
        });
        self.members.iter_mut().rfind(|member| member.name == name)
    }

    /// Takes a member out; says whether it was there.
    pub fn remove(&mut self, name: &str) -> bool {
        let before = self.members.len();
        self.members.retain(|member| member.name != name);
        let removed = self.members.len() < before;
        self.changed |= removed;
        removed
    }

    /// Gives a member another name; says whether it was there. A member that had that name is replaced.
    pub fn rename(&mut self, name: &str, new: &str) -> bool {
        let found = self.raw(name).is_some();
        if found && name != new {
            self.remove(new);
            if let Some(member) = self.only(name) {
                member.name = Cow::Owned(new.to_owned());
                member.place = None;
                self.changed = true;
            }
        }
        found
    }

    /// The members' names, in their order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.members.iter().map(|member| &*member.name)
    }

    /// Whether something was set, removed or renamed.
    pub fn is_changed(&self) -> bool {
        self.changed
    }

    /// The object as JSON text. Members that were not changed are written as they were.
    pub fn to_json(&self) -> Vec<u8> {
        let changed = self.members.iter().filter(|member| member.place.is_none());
        let longer: usize = changed.map(|member| member.name.len() + member.value.len() + 4).sum();
        let mut out = Vec::with_capacity(self.text.len() + longer + 2);
        out.push(b'{');
        let mut rest = self.members.as_slice();
        while let Some((first, after)) = rest.split_first() {
            if out.len() > 1 {
                out.push(b',');
            }
            rest = after;
            let Some((mut number, mut run)) = first.place.clone() else {
                write_name(&first.name, &mut out);
                out.push(b':');
                out.extend_from_slice(first.value.as_bytes());
                continue;
            };
            // Neighbours in the text are copied together.
            while let Some((Some((next, whole)), after)) =
                rest.split_first().map(|(next, after)| (&next.place, after))
                && *next == number + 1
            {
                (number, run.end, rest) = (*next, whole.end, after);
            }
            out.extend_from_slice(&self.text.as_bytes()[run]);
        }
        out.push(b'}');
        out
    }
}

/// Appends a name as a JSON string.
fn write_name(name: &str, out: &mut Vec<u8>) {
    if name.bytes().all(|byte| byte >= 0x20 && byte != b'"' && byte != b'\\') {
        out.push(b'"');
        out.extend_from_slice(name.as_bytes());
        out.push(b'"');
    } else {
        // Text can always be written into memory.
        serde_json::to_writer(out, name).unwrap_or_default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(object: &Object<'_>) -> String {
        String::from_utf8(object.to_json()).unwrap()
    }

    #[test]
    fn what_is_not_changed_stays_as_it_was_written() {
        let json = br#" {"amount": 12345678901234567890.10, "n": { "b" : 1e2 } ,"k\u0065y": "\u00e9"} "#;
        let mut object = Object::parse(json).unwrap();
        assert!(!object.is_changed());
        object.set("new", &7).unwrap();
        assert!(object.is_changed());
        assert_eq!(
            text(&object),
            r#"{"amount": 12345678901234567890.10, "n": { "b" : 1e2 } ,"k\u0065y": "\u00e9","new":7}"#
        );
        object.set("n", "x").unwrap();
        assert_eq!(
            text(&object),
            r#"{"amount": 12345678901234567890.10,"n":"x","k\u0065y": "\u00e9","new":7}"#
        );
        assert_eq!(object.get::<String>("key").unwrap().as_deref(), Some("é"));
    }

    #[test]
    fn members_are_read_set_renamed_and_removed() {
        let mut object = Object::parse(br#"{"a":1,"b":null,"c":"x"}"#).unwrap();
        assert_eq!(object.get::<u32>("a").unwrap(), Some(1));
        assert_eq!(object.get::<&str>("c").unwrap(), Some("x"));
        assert_eq!(object.get::<String>("b").unwrap(), None);
        assert_eq!(object.get::<u32>("missing").unwrap(), None);
        assert!(object.rename("c", "b") && !object.rename("missing", "x"));
        assert!(object.remove("a") && !object.remove("a"));
        object.set_raw("d", "3122.21").unwrap();
        assert!(object.set_raw("d", "3122.").is_err());
        assert_eq!(text(&object), r#"{"b":"x","d":3122.21}"#);
        assert_eq!(object.names().collect::<Vec<_>>(), ["b", "d"]);
        let mut empty = Object::parse(b"{ }").unwrap();
        assert_eq!(text(&empty), "{}");
        empty.set("a", &Some(1)).unwrap();
        assert_eq!(text(&empty), r#"{"a":1}"#);
    }

    #[test]
    fn a_member_of_another_type_is_told_by_its_name_and_not_by_its_value() {
        let object = Object::parse(br#"{"account":"secret"}"#).unwrap();
        let error = object.get::<u32>("account").unwrap_err();
        assert_eq!(error.code(), "shape");
        assert_eq!(error.message(), "the field `account` has another shape than expected: expected u32");
    }

    #[test]
    fn a_name_that_occurs_twice_leaves_no_value_behind() {
        let json = br#"{"account":"1234","id":7,"acc\u006funt":"5678"}"#;
        let mut object = Object::parse(json).unwrap();
        assert_eq!(object.get::<&str>("account").unwrap(), Some("5678"));
        object.set("account", "****").unwrap();
        assert_eq!(text(&object), r#"{"id":7,"account":"****"}"#);
        let mut object = Object::parse(json).unwrap();
        assert!(object.rename("account", "number"));
        assert_eq!(text(&object), r#"{"id":7,"number":"5678"}"#);
        let mut object = Object::parse(json).unwrap();
        assert!(object.remove("account"));
        assert_eq!(text(&object), r#"{"id":7}"#);
    }

    #[test]
    fn other_json_is_no_object_and_no_value_is_told() {
        for json in
            [&b"[1]"[..], b"7", b"\"secret\"", b"{", b"", b"{\"a\":1} x", b"{\"secret\":1,}", b"\xff{}"]
        {
            let error = Object::parse(json).unwrap_err();
            assert!(["shape", "value"].contains(&error.code()));
            assert!(!error.message().contains("secret"), "{error}");
        }
    }

    #[test]
    fn names_with_quotes_are_escaped_again() {
        let mut object = Object::parse(br#"{"a\"b\\":1}"#).unwrap();
        object.set("a\"b\\", &2).unwrap();
        object.set("c\"", &3).unwrap();
        assert_eq!(text(&object), r#"{"a\"b\\":2,"c\"":3}"#);
    }
}
