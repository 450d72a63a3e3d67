//! The txconnect command.
fn main() {}
