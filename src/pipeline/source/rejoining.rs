//! A new membership: whatever was sent under the old one and is still on its way, the group refuses.

use std::time::{Duration, Instant};

use super::{Source, kafka_failure};
use crate::pipeline::shared::Failure;

/// How long the revocation that comes with leaving is waited for. Where the group has given nothing, none comes.
const REVOCATION: Duration = Duration::from_secs(3);

/// The group is being left.
pub(super) struct Rejoin {
    since: Instant,
    revoked: bool,
}

impl Rejoin {
    /// Everything was given back.
    pub(super) fn revoked(&mut self) {
        self.revoked = true;
    }

    fn is_done(&self) -> bool {
        self.revoked || self.since.elapsed() >= REVOCATION
    }
}

impl Source {
    /// Leaves the group where the delivery machine asks for it, and joins again once everything was given back.
    pub(super) fn rejoin(&mut self) -> Result<(), Failure> {
        if self.shared.take_rejoin() && self.rejoin.is_none() {
            tracing::warn!(
                pipeline = %self.shared.name,
                "a commit was never answered and may still arrive: leaving the group and joining it anew, after which it \
                 counts for nothing"
            );
            self.consumer.unsubscribe().map_err(|error| kafka_failure(&error))?;
            self.rejoin = Some(Rejoin { since: Instant::now(), revoked: false });
        }
        if self.rejoin.as_ref().is_some_and(Rejoin::is_done) {
            self.rejoin = None;
            self.starts.forget();
            self.consumer.subscribe(&self.subscribed).map_err(|error| kafka_failure(&error))?;
        }
        Ok(())
    }
}
