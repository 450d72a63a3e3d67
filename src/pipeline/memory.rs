//! The memory that records of one pipeline may take: copied, in open batches and on their way.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A budget in bytes, shared by the lanes and writers of a pipeline.
///
/// Nobody is refused: a lane looks at [`Memory::is_full`] before it takes more records. So one batch of records
/// may pass the limit, never more.
#[derive(Debug)]
pub(crate) struct Memory {
    used: AtomicUsize,
    limit: usize,
}

/// Bytes charged to a budget until dropped.
#[derive(Debug)]
pub(crate) struct Charge {
    memory: Arc<Memory>,
    bytes: usize,
}

impl Memory {
    pub(crate) fn with_limit(limit: usize) -> Arc<Self> {
        Arc::new(Self { used: AtomicUsize::new(0), limit })
    }

    /// Whether lanes have to wait for writers.
    pub(crate) fn is_full(&self) -> bool {
        self.used.load(Ordering::Relaxed) >= self.limit
    }

    /// Charges `bytes` until the answer is dropped.
    pub(crate) fn charge(self: &Arc<Self>, bytes: usize) -> Charge {
        let mut charge = Charge { memory: Arc::clone(self), bytes: 0 };
        charge.set(bytes);
        charge
    }
}

impl Charge {
    /// Changes what is charged.
    pub(crate) fn set(&mut self, bytes: usize) {
        if bytes >= self.bytes {
            self.memory.used.fetch_add(bytes - self.bytes, Ordering::Relaxed);
        } else {
            self.memory.used.fetch_sub(self.bytes - bytes, Ordering::Relaxed);
        }
        self.bytes = bytes;
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.set(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_charged_is_given_back() {
        let memory = Memory::with_limit(100);
        let mut first = memory.charge(60);
        assert!(!memory.is_full());
        let second = memory.charge(40);
        assert!(memory.is_full());
        first.set(10);
        assert!(!memory.is_full());
        drop((first, second));
        assert_eq!(memory.used.load(Ordering::Relaxed), 0);
    }
}
