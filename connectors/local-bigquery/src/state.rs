//! What every call shares: the clock, the credentials, the store, the script and the counts.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::clock::Clock;
use crate::faults::Script;
use crate::store::Store;
use crate::traffic::Traffic;

/// What all calls share.
pub(crate) struct State {
    pub(crate) clock: Clock,
    required_token: Option<String>,
    pub(crate) foreign_emulator: bool,
    /// Rows are counted and not kept.
    pub(crate) count_only: bool,
    /// How long an `AppendRows` connection may be idle.
    pub(crate) append_idle: Duration,
    store: Mutex<Store>,
    script: Mutex<Script>,
    traffic: Arc<Mutex<Traffic>>,
}

/// How a caller's credentials are wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BadCredentials {
    Missing,
    Wrong,
}

impl State {
    /// The state of an empty server.
    pub(crate) fn new(options: crate::Options) -> State {
        State {
            clock: options.clock,
            required_token: options.required_token,
            foreign_emulator: options.foreign_emulator,
            count_only: options.count_only,
            append_idle: options.append_idle,
            store: Mutex::new(Store::new(options.auto_create_datasets)),
            script: Mutex::new(Script::new(options.faults)),
            traffic: Arc::default(),
        }
    }

    /// The store, locked. Nothing waits while it holds the lock; after a panic elsewhere the data is still good.
    pub(crate) fn store(&self) -> MutexGuard<'_, Store> {
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn script(&self) -> MutexGuard<'_, Script> {
        self.script.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The counts, locked.
    pub(crate) fn traffic(&self) -> MutexGuard<'_, Traffic> {
        self.traffic.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The counts, for something that counts for as long as it lives.
    pub(crate) fn shared_traffic(&self) -> &Arc<Mutex<Traffic>> {
        &self.traffic
    }

    /// Checks the value of an `Authorization` header against the token that is required, if one is.
    pub(crate) fn authenticate(&self, authorization: Option<&str>) -> Result<(), BadCredentials> {
        let Some(required) = &self.required_token else {
            return Ok(());
        };
        match authorization.and_then(|header| header.strip_prefix("Bearer ")) {
            Some(token) if token == required => Ok(()),
            Some(_) => Err(BadCredentials::Wrong),
            None => Err(BadCredentials::Missing),
        }
    }
}
