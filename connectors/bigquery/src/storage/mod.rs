//! The Storage Write API: <https://cloud.google.com/bigquery/docs/write-api>.
//!
//! | module | what it does |
//! |---|---|
//! | `descriptor` | the schema of the rows, as a request carries it |
//! | `encode`, `values`, `wire` | record → row, value by value |
//! | `sequence` | which of two rows with one key is the newer one |
//! | `key` | the key of a record → the row that is deleted |
//! | `channel` | connections, access tokens, calls with one answer |
//! | `request` | an append request around the rows of a batch |
//! | `connection` | appends on their way, matched with their answers |
//! | `refusal`, `row_errors` | what answers mean, without values of rows |
//! | `target` | what is known of a table that rows go to |
//! | `default_stream` | `delivery: at_least_once` and `write: upsert` |
//! | `streams`, `name`, `creations` | `delivery: exactly_once` |

mod channel;
mod connection;
mod creations;
mod default_stream;
pub(crate) mod descriptor;
pub(crate) mod encode;
mod key;
mod name;
mod refusal;
mod request;
mod row_errors;
pub(crate) mod sequence;
mod streams;
mod target;
mod values;
mod wire;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;

pub(crate) use default_stream::DefaultStreamWriter;
pub(crate) use streams::TableStreams;

use crate::config::{BigQueryConfig, StorageEndpoint};
use crate::rest::Server;
use crate::table::Table;
use channel::Link;
use target::Target;

/// What all lanes share of the Storage Write API.
pub(crate) struct Storage {
    link: Arc<Link>,
    targets: Mutex<HashMap<Arc<str>, Arc<Target>>>,
}

impl Storage {
    /// Prepares calls that end within `timeout` each; touches neither network nor files.
    pub(crate) fn new(server: Arc<Server>, address: StorageEndpoint, timeout: Duration) -> Self {
        Self { link: Arc::new(Link::new(server, address, timeout)), targets: Mutex::default() }
    }

    /// The table as a destination of rows.
    fn target(&self, table: &Arc<Table>, config: &BigQueryConfig) -> Arc<Target> {
        let mut targets = self.targets.lock().unwrap_or_else(PoisonError::into_inner);
        let target = targets
            .entry(Arc::clone(&table.name))
            .or_insert_with(|| Arc::new(Target::new(Arc::clone(table), config)));
        Arc::clone(target)
    }
}

/// The bytes of a batch while they are on their way. Puts them back in the end, also where nobody waits any more.
struct Lent<'a> {
    home: &'a mut Vec<u8>,
    bytes: Bytes,
}

impl<'a> Lent<'a> {
    fn new(home: &'a mut Vec<u8>) -> Self {
        let bytes = Bytes::from(std::mem::take(home));
        Self { home, bytes }
    }
}

impl Drop for Lent<'_> {
    fn drop(&mut self) {
        // Nothing is copied where the connection has let go of them.
        *self.home = Vec::from(std::mem::take(&mut self.bytes));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_that_were_lent_come_back_and_stay_where_they_are() {
        let mut rows = Vec::with_capacity(64);
        rows.extend_from_slice(b"rows");
        let place = rows.as_ptr();
        let lent = Lent::new(&mut rows);
        let on_their_way = lent.bytes.clone();
        assert_eq!(&on_their_way[..], b"rows");
        drop(on_their_way);
        drop(lent);
        assert_eq!((&rows[..], rows.as_ptr()), (&b"rows"[..], place));
    }

    #[test]
    fn bytes_that_the_connection_still_holds_come_back_as_a_copy() {
        let mut rows = b"rows".to_vec();
        let lent = Lent::new(&mut rows);
        let on_their_way = lent.bytes.clone();
        drop(lent);
        assert_eq!((&rows[..], &on_their_way[..]), (&b"rows"[..], &b"rows"[..]));
    }
}
