//! Pauses between attempts: doubling, bounded, with jitter so that lanes do not knock all at once.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::Duration;

/// The first pause.
const FIRST: Duration = Duration::from_millis(100);
/// The longest pause.
const LONGEST: Duration = Duration::from_secs(30);

/// Growing pauses for one thing that is tried again and again.
#[derive(Debug)]
pub(crate) struct Backoff {
    next: Duration,
}

impl Backoff {
    pub(crate) fn new() -> Self {
        Self { next: FIRST }
    }

    /// The next pause: what the server asked for, else between half of and the whole of the next step.
    pub(crate) fn next(&mut self, asked: Option<Duration>) -> Duration {
        let step = self.next;
        self.next = (step * 2).min(LONGEST);
        asked.unwrap_or_else(|| {
            // Every hasher is seeded anew: randomness enough to spread pauses.
            let random = RandomState::new().build_hasher().finish() % 1000;
            step / 2 + step / 2 * u32::try_from(random).unwrap_or(0) / 1000
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_bound_and_the_server_has_its_way() {
        let mut backoff = Backoff::new();
        let mut longest = Duration::ZERO;
        for step in 0..20_u32 {
            let pause = backoff.next(None);
            let whole = (FIRST * 2_u32.pow(step.min(10))).min(LONGEST);
            assert!(pause >= whole / 2 && pause <= whole, "{step}: {pause:?}");
            longest = longest.max(pause);
        }
        assert!(longest >= LONGEST / 2);
        assert_eq!(backoff.next(Some(Duration::from_mins(10))), Duration::from_mins(10));
    }
}
