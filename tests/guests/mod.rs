//! A transform for tests.

/// `by_number.wat` as a component whose config must follow `schema`.
///
/// # Panics
/// Panics where the schema has characters that WebAssembly's text cannot hold as they are.
pub fn by_number(schema: &str) -> Vec<u8> {
    let length = u32::try_from(schema.len()).expect("a short schema").to_le_bytes();
    let length: String = length.iter().map(|byte| format!("\\{byte:02x}")).collect();
    let text = include_str!("by_number.wat")
        .replace("\"SCHEMA\"", &format!("\"{}\"", schema.replace('"', "\\\"")))
        .replace("LENGTH", &length);
    wat::parse_str(text).expect("a component in WebAssembly's text format")
}
