//! How fast streams are created.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// The time between two creations in the long run. A project may create 10,000 streams an hour
/// (<https://cloud.google.com/bigquery/quotas#createwritestream>).
const INTERVAL: Duration = Duration::from_millis(400);

/// How many streams may be created at once after a rest. Many more a second make BigQuery slow.
const AT_ONCE: u32 = 20;

/// Says when the next stream may be created.
#[derive(Debug, Default)]
pub(super) struct Creations {
    /// When the streams that were asked for so far would be created, one per interval.
    booked_until: Mutex<Option<Instant>>,
}

impl Creations {
    /// Books a creation and answers how long to wait for it.
    pub(super) fn book(&self, now: Instant) -> Duration {
        let mut booked = self.booked_until.lock().unwrap_or_else(PoisonError::into_inner);
        let start = booked.map_or(now, |until| until.max(now));
        *booked = Some(start + INTERVAL);
        (start - now).saturating_sub(INTERVAL * (AT_ONCE - 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn some_streams_are_created_at_once_and_the_others_one_by_one() {
        let creations = Creations::default();
        let start = Instant::now();
        let waits: Vec<Duration> = (0..AT_ONCE + 2).map(|_| creations.book(start)).collect();
        assert!(waits[..AT_ONCE as usize].iter().all(Duration::is_zero));
        assert_eq!(waits[AT_ONCE as usize..], [INTERVAL, INTERVAL * 2]);
        let later = start + INTERVAL * (AT_ONCE + 2);
        assert!((0..AT_ONCE).all(|_| creations.book(later).is_zero()));
        assert_eq!(creations.book(later), INTERVAL);
    }
}
