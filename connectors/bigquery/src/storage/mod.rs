//! The Storage Write API: rows as protobuf.
//!
//! | module | what it does |
//! |---|---|
//! | `descriptor` | the schema of the rows, as a request carries it |
//! | `sequence` | which of two rows with one key is the newer one |

pub(crate) mod descriptor;
pub(crate) mod sequence;
