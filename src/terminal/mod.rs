//! What people see: colours, tables and progress.

pub mod numbers;
pub mod progress;
pub mod style;
pub mod summary;
pub mod table;
