//! The `stdout` block of a pipeline file.

use schemars::JsonSchema;
use serde::Deserialize;

/// Writes every record to standard output as one line of JSON.
///
/// With `decode: json` the value is written as it came, without line breaks; with `decode: string` as a JSON
/// string; with `decode: bytes` as a JSON string of base64. A record without a value is `null`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StdoutConfig {
    /// Whether topic, partition, offset, timestamp, key and headers are written around the value. A key or
    /// header that is not UTF-8 is written as `{"base64": "…"}`.
    #[serde(default)]
    pub envelope: bool,
}
