//! The server's clock: the system's, which a test can move forward.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The time the server goes by: the system clock plus whatever [`Clock::advance`] has added.
///
/// Clones share the shift, so a test keeps one and hands another to
/// [`Options`](crate::Options): a minute of `insertId` memory then passes at once.
#[derive(Debug, Clone, Default)]
pub struct Clock {
    shift_ms: Arc<AtomicU64>,
}

impl Clock {
    /// A clock that agrees with the system's until it is advanced.
    pub fn system() -> Clock {
        Clock::default()
    }

    /// Moves the clock forward; it cannot go back.
    pub fn advance(&self, by: Duration) {
        let by = u64::try_from(by.as_millis()).unwrap_or(u64::MAX);
        let moved = |shift: u64| Some(shift.saturating_add(by));
        // The closure always returns a value, so the update cannot be refused.
        let _: Result<u64, u64> = self.shift_ms.fetch_update(Ordering::SeqCst, Ordering::SeqCst, moved);
    }

    /// Milliseconds since 1970-01-01 UTC. A system clock set before 1970 counts as 1970.
    pub(crate) fn now_ms(&self) -> u64 {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let system = u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX);
        system.saturating_add(self.shift_ms.load(Ordering::SeqCst))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clone_moves_with_its_original() {
        let clock = Clock::system();
        let before = clock.clone().now_ms();
        clock.advance(Duration::from_hours(1));
        assert!(clock.clone().now_ms() >= before + 3_600_000);
    }
}
