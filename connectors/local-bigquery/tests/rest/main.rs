//! The REST interface from outside, over real HTTP.
#![forbid(unsafe_code)]

mod client;
mod faults;
mod insert_all;
mod support;
mod tables;
