//! The members of a JSON object, as text: only what is asked for is read, and what is not changed stays as it was
//! written, digit by digit.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, DeserializeOwned, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::{Error, Result};

/// The members of a JSON object, in their order. Values are JSON text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Object<'a> {
    members: Vec<(Cow<'a, str>, Cow<'a, str>)>,
    changed: bool,
}

impl<'a> Object<'a> {
    /// Reads an object. Members inside members are not looked at.
    ///
    /// # Errors
    /// The text is not one JSON object.
    pub fn parse(text: &'a [u8]) -> Result<Self> {
        let Members(members) = serde_json::from_slice(text)?;
        Ok(Self { members, changed: false })
    }

    /// The value of a member, or `None` where there is no such member. A `null` is `None` too; to tell them apart, ask
    /// for a `serde_json::Value`.
    ///
    /// # Errors
    /// The value is not a `T`.
    pub fn get<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>> {
        let Some(raw) = self.raw(name) else { return Ok(None) };
        if raw == "null" {
            return Ok(serde_json::from_str::<Option<T>>(raw).ok().flatten());
        }
        serde_json::from_str(raw)
            .map(Some)
            .map_err(|_| Error::new("shape", format!("the field `{name}` has another type than expected")))
    }

    /// The value of a member as JSON text.
    pub fn raw(&self, name: &str) -> Option<&str> {
        self.members.iter().find(|(known, _)| known == name).map(|(_, value)| &**value)
    }

    /// Gives a member a value. A new member comes last.
    ///
    /// # Errors
    /// The value cannot be written as JSON.
    pub fn set<T: serde::Serialize + ?Sized>(&mut self, name: &str, value: &T) -> Result<()> {
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
        serde_json::from_str::<&RawValue>(&json)
            .map_err(|_| Error::new("shape", format!("the field `{name}` was given text that is not JSON")))?;
        self.put(name, json);
        Ok(())
    }

    fn put(&mut self, name: &str, text: String) {
        self.changed = true;
        match self.members.iter_mut().find(|(known, _)| known == name) {
            Some((_, value)) => *value = Cow::Owned(text),
            None => self.members.push((Cow::Owned(name.to_owned()), Cow::Owned(text))),
        }
    }

    /// Takes a member out; says whether it was there.
    pub fn remove(&mut self, name: &str) -> bool {
        let before = self.members.len();
        self.members.retain(|(known, _)| known != name);
        let removed = self.members.len() < before;
        self.changed |= removed;
        removed
    }

    /// Gives a member another name; says whether it was there. A member that had that name is replaced.
    pub fn rename(&mut self, name: &str, new: &str) -> bool {
        if name == new || self.raw(name).is_none() {
            return self.raw(name).is_some();
        }
        self.members.retain(|(known, _)| known != new);
        for (known, _) in &mut self.members {
            if known == name {
                *known = Cow::Owned(new.to_owned());
            }
        }
        self.changed = true;
        true
    }

    /// The members' names, in their order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.members.iter().map(|(name, _)| &**name)
    }

    /// Whether something was set, removed or renamed.
    pub fn is_changed(&self) -> bool {
        self.changed
    }

    /// The object as JSON text without white space between its members.
    pub fn to_json(&self) -> Vec<u8> {
        let length = self.members.iter().map(|(name, value)| name.len() + value.len() + 4).sum::<usize>();
        let mut out = Vec::with_capacity(length + 2);
        out.push(b'{');
        for (index, (name, value)) in self.members.iter().enumerate() {
            if index > 0 {
                out.push(b',');
            }
            write_name(name, &mut out);
            out.push(b':');
            out.extend_from_slice(value.as_bytes());
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

struct Members<'a>(Vec<(Cow<'a, str>, Cow<'a, str>)>);

/// A name, borrowed where it has no escapes.
struct Name<'a>(Cow<'a, str>);

impl<'de> Deserialize<'de> for Name<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;

        impl<'de> Visitor<'de> for Text {
            type Value = Name<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a name")
            }

            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(Name(Cow::Borrowed(text)))
            }

            fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
                Ok(Name(Cow::Owned(text.to_owned())))
            }
        }

        deserializer.deserialize_str(Text)
    }
}

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Map;

        impl<'de> Visitor<'de> for Map {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::with_capacity(8);
                while let Some((Name(name), raw)) = map.next_entry::<Name<'de>, &'de RawValue>()? {
                    members.push((name, Cow::Borrowed(raw.get())));
                }
                Ok(Members(members))
            }
        }

        deserializer.deserialize_map(Map)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(object: &Object<'_>) -> String {
        String::from_utf8(object.to_json()).unwrap()
    }

    #[test]
    fn what_is_not_changed_stays_digit_by_digit() {
        let json = br#"{"amount": 12345678901234567890.10, "n": { "b" : 1e2 }, "k\u0065y": "\u00e9"}"#;
        let mut object = Object::parse(json).unwrap();
        assert!(!object.is_changed());
        object.set("new", &7).unwrap();
        assert!(object.is_changed());
        let expected = r#"{"amount":12345678901234567890.10,"n":{ "b" : 1e2 },"key":"\u00e9","new":7}"#;
        assert_eq!(text(&object), expected);
    }

    #[test]
    fn members_are_read_set_renamed_and_removed() {
        let mut object = Object::parse(br#"{"a":1,"b":null,"c":"x"}"#).unwrap();
        assert_eq!(object.get::<u32>("a").unwrap(), Some(1));
        assert_eq!(object.get::<String>("b").unwrap(), None);
        assert_eq!(object.get::<u32>("missing").unwrap(), None);
        assert_eq!(object.get::<u32>("c").unwrap_err().code(), "shape");
        assert!(object.rename("c", "b") && !object.rename("missing", "x"));
        assert!(object.remove("a") && !object.remove("a"));
        object.set_raw("d", "3122.21").unwrap();
        assert!(object.set_raw("d", "3122.").is_err());
        assert_eq!(text(&object), r#"{"b":"x","d":3122.21}"#);
        assert_eq!(object.names().collect::<Vec<_>>(), ["b", "d"]);
    }

    #[test]
    fn other_json_is_no_object_and_no_value_is_told() {
        for json in [&b"[1]"[..], b"7", b"\"secret\"", b"{", b"", b"{\"a\":1} x"] {
            let error = Object::parse(json).unwrap_err();
            assert_eq!(error.code(), "shape");
            assert!(!error.message().contains("secret"), "{error}");
        }
    }

    #[test]
    fn names_with_quotes_are_escaped_again() {
        let object = Object::parse(br#"{"a\"b\\":1}"#).unwrap();
        assert_eq!(text(&object), r#"{"a\"b\\":1}"#);
    }
}
