//! The Storage Write API: rows as protobuf.
//!
//! | module | what it does |
//! |---|---|
//! | `descriptor` | the schema of the rows, as a request carries it |
//! | `encode`, `values`, `wire` | record → row, value by value |
//! | `sequence` | which of two rows with one key is the newer one |
//! | `key` | the key of a record → the row that is deleted |

pub(crate) mod descriptor;
pub(crate) mod encode;
mod key;
pub(crate) mod sequence;
mod values;
mod wire;
