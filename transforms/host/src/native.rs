//! Batches as native code reads them: for tests and measurements that put a function of their own in a guest's place.
//! [`crate::Output::checked`] makes what it answers.

use crate::batch::{Batch, Column, Headers};

impl Batch {
    /// The topic of record `index`, or nothing where there is no such record.
    pub fn topic(&self, index: usize) -> &str {
        let topic = self.topic_of.get(index).and_then(|&topic| self.topics.get(topic as usize));
        topic.map_or("", String::as_str)
    }

    /// The keys, empty unless they are needed.
    pub fn keys(&self) -> &Column {
        &self.keys
    }

    /// The values.
    pub fn values(&self) -> &Column {
        &self.values
    }

    /// The headers, empty unless they are needed.
    pub fn headers(&self) -> &Headers {
        &self.headers
    }
}
