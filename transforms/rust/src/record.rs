//! One record of a batch, and what a transform makes of it.

use std::rc::Rc;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::columns::{Batch, Header};
use crate::object::Object;
use crate::{Error, Result};

/// A record of a Kafka topic, and the row that it becomes. Copies are cheap until they are changed.
#[derive(Clone, Debug)]
pub struct Record {
    batch: Rc<Batch>,
    index: usize,
    pub(crate) key: Option<Option<Vec<u8>>>,
    pub(crate) value: Option<Option<Vec<u8>>>,
    pub(crate) topic: Option<String>,
    pub(crate) headers: Option<Vec<Header>>,
}

impl Record {
    pub(crate) fn of(batch: &Rc<Batch>, index: usize) -> Self {
        Self { batch: Rc::clone(batch), index, key: None, value: None, topic: None, headers: None }
    }

    /// A record that comes from nowhere, for tests of a transform.
    pub fn for_test(topic: &str, value: impl AsRef<[u8]>) -> Self {
        Self::of(&Rc::new(Batch::of_one(topic, Some(value.as_ref()))), 0)
    }

    /// Its topic: what it was routed to, or what it was read from.
    pub fn topic(&self) -> &str {
        self.topic.as_deref().unwrap_or_else(|| self.batch.topic(self.index))
    }

    /// Its row goes where rows of `topic` go. The pipeline file must name it under `output.topics`.
    pub fn route(&mut self, topic: impl Into<String>) {
        self.topic = Some(topic.into());
    }

    /// Its partition, with `#[transform(positions)]`; else `None`, as the next two.
    pub fn partition(&self) -> Option<i32> {
        self.batch.partition(self.index)
    }

    /// Its offset.
    pub fn offset(&self) -> Option<i64> {
        self.batch.offset(self.index)
    }

    /// Milliseconds since 1970, where the broker gave one.
    pub fn timestamp(&self) -> Option<i64> {
        self.batch.timestamp(self.index)
    }

    /// Its key, with `#[transform(keys)]`.
    pub fn key(&self) -> Option<&[u8]> {
        match &self.key {
            Some(key) => key.as_deref(),
            None => self.batch.key(self.index),
        }
    }

    /// Gives it another key, or none. The transform must be a `#[transform(keys)]`.
    pub fn set_key(&mut self, key: Option<Vec<u8>>) {
        self.key = Some(key);
    }

    /// Its value; `None` is a tombstone.
    pub fn value(&self) -> Option<&[u8]> {
        match &self.value {
            Some(value) => value.as_deref(),
            None => self.batch.value(self.index),
        }
    }

    /// Gives it another value; `None` makes it a tombstone.
    pub fn set_value(&mut self, value: Option<Vec<u8>>) {
        self.value = Some(value);
    }

    /// Its value as a type of yours.
    ///
    /// # Errors
    /// The value is not JSON, or not of this shape, or the record is a tombstone.
    pub fn parse<T: DeserializeOwned>(&self) -> Result<T> {
        Ok(serde_json::from_slice(self.json()?)?)
    }

    /// Gives it a value of a type of yours.
    ///
    /// # Errors
    /// It cannot be written as JSON.
    pub fn set<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<()> {
        self.value = Some(Some(serde_json::to_vec(value)?));
        Ok(())
    }

    /// The members of its value.
    ///
    /// # Errors
    /// The value is not a JSON object, or the record is a tombstone.
    pub fn object(&self) -> Result<Object<'_>> {
        Object::parse(self.json()?)
    }

    /// Changes members of its value. Where nothing is changed the value stays as it was.
    ///
    /// # Errors
    /// The value is not a JSON object, or the record is a tombstone, or what `change` says.
    pub fn edit<T>(&mut self, change: impl FnOnce(&mut Object<'_>) -> Result<T>) -> Result<T> {
        let mut object = self.object()?;
        let answer = change(&mut object)?;
        if object.is_changed() {
            let json = object.to_json();
            self.value = Some(Some(json));
        }
        Ok(answer)
    }

    /// Its headers, with `#[transform(headers)]`, in their order.
    pub fn headers(&self) -> Vec<(&str, Option<&[u8]>)> {
        match &self.headers {
            Some(headers) => headers.iter().map(|(name, value)| (name.as_str(), value.as_deref())).collect(),
            None => self.batch.headers(self.index).collect(),
        }
    }

    /// Gives it other headers. The transform must be a `#[transform(headers)]`.
    pub fn set_headers(&mut self, headers: Vec<Header>) {
        self.headers = Some(headers);
    }

    fn json(&self) -> Result<&[u8]> {
        self.value().ok_or_else(|| Error::new("tombstone", "the record has no value"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_that_is_not_changed_keeps_its_value() {
        let mut record = Record::for_test("t", r#"{"a": 1}"#);
        record.edit(|value| value.get::<u32>("a")).unwrap();
        assert_eq!(record.value, None);
        record.edit(|value| value.set("a", &2)).unwrap();
        assert_eq!(record.value(), Some(&br#"{"a":2}"#[..]));
        record.route("other");
        assert_eq!(record.topic(), "other");
    }

    #[test]
    fn a_tombstone_has_no_value_to_edit() {
        let mut record = Record::for_test("t", "{}");
        record.set_value(None);
        assert_eq!(record.edit(|_| Ok(())).unwrap_err().code(), "tombstone");
    }
}
