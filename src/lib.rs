//! txconnect
