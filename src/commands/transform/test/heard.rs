//! What a transform logs and counts while it is tested.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use txconnect_transform_host::{LogLevel, Reports};

use super::super::super::say;

/// Says what is logged, and adds up what is counted, until it is silenced.
#[derive(Default)]
pub(super) struct Heard {
    silent: AtomicBool,
    counters: Mutex<BTreeMap<String, u64>>,
}

impl Heard {
    /// From now on nothing is heard: further passes say the same again.
    pub(super) fn silence(&self) {
        self.silent.store(true, Ordering::Relaxed);
    }

    /// What was counted, by name.
    pub(super) fn counters(&self) -> BTreeMap<String, u64> {
        self.counters.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn is_silent(&self) -> bool {
        self.silent.load(Ordering::Relaxed)
    }
}

impl Reports for Heard {
    fn log(&self, level: LogLevel, message: &str) {
        if self.is_silent() {
            return;
        }
        let level = match level {
            LogLevel::Debug => "debug",
            LogLevel::Info => "info",
            LogLevel::Warn => "warn",
            LogLevel::Error => "error",
        };
        say(&format!("{level}: {message}"));
    }

    fn count(&self, counter: &str, delta: u64) {
        if self.is_silent() {
            return;
        }
        let mut counters = self.counters.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counters.entry(counter.to_owned()).or_default();
        *count = count.saturating_add(delta);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_add_up_until_they_are_silenced() {
        let heard = Heard::default();
        heard.count("a", 2);
        heard.count("a", u64::MAX);
        heard.silence();
        heard.count("b", 1);
        assert_eq!(heard.counters(), BTreeMap::from([("a".to_owned(), u64::MAX)]));
    }
}
