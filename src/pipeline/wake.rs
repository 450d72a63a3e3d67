//! A flag that a lane sleeps on: records, a command, or room for another flush.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Remembers one notification, so that one that comes just before the sleep is not lost.
#[derive(Debug, Default)]
pub(crate) struct Wake {
    notified: Mutex<bool>,
    condition: Condvar,
}

impl Wake {
    /// Wakes the lane, now or at its next sleep. Takes one short lock and calls nothing else.
    pub(crate) fn notify(&self) {
        *self.lock() = true;
        self.condition.notify_one();
    }

    /// Sleeps until notified or until `deadline`.
    pub(crate) fn wait_until(&self, deadline: Instant) {
        let mut notified = self.lock();
        while !*notified {
            let left = deadline.saturating_duration_since(Instant::now());
            if left == Duration::ZERO {
                return;
            }
            notified = match self.condition.wait_timeout(notified, left) {
                Ok((guard, _)) => guard,
                Err(poisoned) => poisoned.into_inner().0,
            };
        }
        *notified = false;
    }

    fn lock(&self) -> MutexGuard<'_, bool> {
        // A flag has no state that a panic elsewhere could leave half changed.
        self.notified.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn a_notification_before_the_sleep_is_not_lost() {
        let wake = Wake::default();
        wake.notify();
        wake.wait_until(Instant::now() + Duration::from_mins(10));
    }

    #[test]
    fn a_notification_from_another_thread_ends_the_sleep() {
        let wake = Arc::new(Wake::default());
        let other = Arc::clone(&wake);
        let thread = std::thread::spawn(move || other.notify());
        wake.wait_until(Instant::now() + Duration::from_mins(10));
        thread.join().unwrap();
    }
}
