//! The `txconnect` program: parses the command line and calls one command.

#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    txconnect::commands::run_command_line(std::env::args_os())
}
