//! Where logs go and how they look.

use std::io::{self, IsTerminal};

use clap::ValueEnum;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt;

use super::CommandError;
use crate::terminal::progress::Screen;
use crate::terminal::style::Colours;

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people
    #[default]
    Text,
    /// One JSON object in a line
    Json,
}

/// Sends logs to the standard error output, past the bars of `screen`. What is logged is said by
/// `TXCONNECT_LOG`, else `RUST_LOG`, else it is `info` and above.
pub fn start(format: LogFormat, screen: &Screen) -> Result<(), CommandError> {
    start_from(format, screen, "info")
}

/// As [`start`] for commands whose result tells all: only warnings, in text, unless the environment asks for
/// more.
pub fn start_quiet(screen: &Screen) -> Result<(), CommandError> {
    start_from(LogFormat::Text, screen, "warn")
}

fn start_from(format: LogFormat, screen: &Screen, default: &str) -> Result<(), CommandError> {
    let filter = filter(&|name| std::env::var(name).ok(), default)?;
    let screen = screen.clone();
    let writer = move || screen.log_writer();
    // A standard error output that cannot be written to is no reason to end: without this setting the library
    // reports it there, and panics.
    let lines = fmt().with_env_filter(filter).with_writer(writer).log_internal_errors(false);
    let started = match format {
        LogFormat::Text => {
            lines.with_ansi(io::stderr().is_terminal() && Colours::for_stderr() == Colours::On).try_init()
        }
        LogFormat::Json => lines.json().flatten_event(true).try_init(),
    };
    started.map_err(|error| CommandError::Failed(format!("cannot start logging: {error}")))
}

fn filter(environment: &dyn Fn(&str) -> Option<String>, default: &str) -> Result<EnvFilter, CommandError> {
    for name in ["TXCONNECT_LOG", "RUST_LOG"] {
        if let Some(text) = environment(name).filter(|text| !text.is_empty()) {
            return EnvFilter::try_new(&text).map_err(|error| {
                CommandError::Usage(format!(
                    "{name} is no log filter: {error}; write for example `debug` or `info,kafka=debug`"
                ))
            });
        }
    }
    Ok(EnvFilter::new(default))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_variable_comes_before_the_common_one_and_a_wrong_filter_is_a_usage_error() {
        let both = |name: &str| Some(if name == "RUST_LOG" { "trace" } else { "warn" }.to_owned());
        assert_eq!(filter(&both, "info").unwrap().to_string(), "warn");
        assert_eq!(filter(&|_| None, "info").unwrap().to_string(), "info");
        assert_eq!(filter(&|_| Some(String::new()), "info").unwrap().to_string(), "info");
        let wrong = filter(&|_| Some("info,=x=y".to_owned()), "info");
        assert!(matches!(wrong, Err(CommandError::Usage(_))));
    }
}
