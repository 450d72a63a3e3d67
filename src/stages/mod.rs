//! What happens to a record between Kafka and the sink: decode → validate → transform → validate → encode.
//!
//! Functions over the bytes of one record at a time, inside a batch, and for transforms over whole batches: no I/O, no
//! Kafka, no clock. One arena is reset per record, so a record in flight allocates nothing once the arena has grown.

pub mod decode;
pub mod encode;
pub mod transform;
pub mod validate;

use bumpalo::Bump;
use txconnect_connector_api::{BadRecord, Value};

use decode::{Format, decode};
use validate::Validator;

/// The stage that found a bad record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// The value cannot be decoded.
    Decode,
    /// The value does not follow the schema, before the transforms or after them.
    Validate,
    /// A transform refuses the record or fails at it.
    Transform,
    /// The record cannot become a row.
    Encode,
    /// The server refuses the row.
    Write,
}

impl Stage {
    /// The stage's name in headers and messages.
    pub fn name(self) -> &'static str {
        match self {
            Stage::Decode => "decode",
            Stage::Validate => "validate",
            Stage::Transform => "transform",
            Stage::Encode => "encode",
            Stage::Write => "write",
        }
    }
}

/// Decodes a value and, where there is a validator, validates it. Only JSON is validated.
///
/// # Errors
/// What is wrong with it, and which stage says so.
pub fn read<'a>(
    format: Format,
    validator: Option<&Validator>,
    payload: Option<&'a [u8]>,
    arena: &'a Bump,
) -> Result<Value<'a>, (Stage, BadRecord)> {
    let value = decode(format, payload, arena).map_err(|why| (Stage::Decode, why))?;
    if let (Some(validator), Value::Json { document, .. }) = (validator, &value) {
        validator.validate(document).map_err(|why| (Stage::Validate, why))?;
    }
    Ok(value)
}
