//! Records on their way through the transforms of a pipeline.
//!
//! A [`Chain`] takes records in batches through one transform after the other, column by column: a column that no
//! transform has changed stays where it was, and there is no JSON in between. It is resumable: [`Chain::step`] calls one
//! guest once, so that whoever drives it can do something else between any two calls.
//!
//! A call that fails costs no record but the guilty one: the batch is halved until it is alone. What has become of the
//! records comes back in their order, in [`Part`]s.
//!
//! | module | what it holds |
//! |---|---|
//! | [`chain`] | the order of calls, bisecting, and when it is given up |
//! | [`rows`] | what has become of records |
//! | [`guest`] | a transform of the host as a link of the chain |

pub mod chain;
pub mod guest;
pub mod rows;

#[cfg(test)]
mod tests;

pub use chain::{Chain, ChainFailure, Guest, Input, Step};
pub use rows::{Outcome, Part, Row, too_large, unlisted_topic};
