//! A transform for tests.
#![allow(dead_code, reason = "not every test that has this module needs all of it")]

/// The text of `by_number.wat` with a config that must follow `schema`.
pub(crate) fn by_number_text(schema: &str) -> String {
    let [a, b, c, d] = u32::try_from(schema.len()).expect("a short schema").to_le_bytes();
    let length = format!("\\{a:02x}\\{b:02x}\\{c:02x}\\{d:02x}");
    include_str!("by_number.wat")
        .replace("\"SCHEMA\"", &format!("\"{}\"", schema.replace('"', "\\\"")))
        .replace("LENGTH", &length)
}

/// The same as a component.
pub(crate) fn by_number(schema: &str) -> Vec<u8> {
    component(&by_number_text(schema))
}

/// A component's text as a component that wants a clock, too.
pub(crate) fn with_clock(text: &str) -> Vec<u8> {
    const CLOCK: &str = "(component (import \"wasi:clocks/monotonic-clock@0.2.0\" (instance (export \"now\" (func (result u64)))))";
    component(&text.replacen("(component", CLOCK, 1))
}

fn component(text: &str) -> Vec<u8> {
    wat::parse_str(text).expect("a component in WebAssembly's text format")
}
