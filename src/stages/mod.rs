//! What happens to a record between Kafka and the sink: decode → validate → encode.
//!
//! Functions over the bytes of one record at a time, inside a batch: no I/O, no Kafka, no clock. One arena is
//! reset per record, so a record in flight allocates nothing once the arena has grown.

pub mod decode;
pub mod validate;
