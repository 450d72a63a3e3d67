//! The Storage Write API from outside, over real gRPC, with the client that the production code uses.
#![forbid(unsafe_code)]

mod changes;
mod connections;
mod count_only;
mod faults;
mod python;
mod rate;
mod rows;
mod streams;
mod support;
mod types;
