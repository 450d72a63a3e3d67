//! Which of two rows with one key is the newer one.

/// The digits of a decimal whose order is kept.
pub(crate) const MAX_DECIMAL_DIGITS: u32 = 38;
