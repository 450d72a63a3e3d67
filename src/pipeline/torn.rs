//! Records of which a stream has refused a row when others of their rows may lie in other streams already.
//!
//! Nothing can be taken out of a stream. So the partition is started anew with other streams, and the record comes again.
//! Whatever its transforms make of it then, it is bad: it would only come to the same end.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use txconnect_connector_api::BadRecord;

use crate::delivery::Slot;

/// So many records are remembered. The next ones are when these are through.
const MOST: usize = 10_000;

/// What lanes and writers know of such records.
#[derive(Debug, Default)]
pub(super) struct TornRecords {
    /// Whether there are any: mostly there are none.
    any: AtomicBool,
    records: Mutex<BTreeMap<(Slot, i64), BadRecord>>,
}

impl TornRecords {
    /// The record at this offset will be bad when it comes again.
    pub(super) fn remember(&self, slot: Slot, offset: i64, why: BadRecord) {
        let mut records = self.records();
        if records.len() < MOST {
            records.insert((slot, offset), why);
            self.any.store(true, Ordering::Release);
        }
    }

    /// Why the record at this offset is bad, if it is.
    pub(super) fn why(&self, slot: Slot, offset: i64) -> Option<BadRecord> {
        if !self.any.load(Ordering::Acquire) {
            return None;
        }
        self.records().get(&(slot, offset)).cloned()
    }

    /// Everything of a partition before this offset is where it belongs.
    pub(super) fn passed(&self, slot: Slot, offset: i64) {
        if self.any.load(Ordering::Acquire) {
            let mut records = self.records();
            records.retain(|(of, at), _| *of != slot || *at >= offset);
            self.any.store(!records.is_empty(), Ordering::Release);
        }
    }

    fn records(&self) -> MutexGuard<'_, BTreeMap<(Slot, i64), BadRecord>> {
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn why() -> BadRecord {
        BadRecord::new("sink.rejected", "", "refused")
    }

    #[test]
    fn a_record_is_remembered_until_its_partition_has_passed_it() {
        let torn = TornRecords::default();
        assert_eq!(torn.why(Slot(1), 7), None);
        for (slot, offset) in [(1, 7), (1, 9), (2, 7)] {
            torn.remember(Slot(slot), offset, why());
        }
        assert_eq!(torn.why(Slot(1), 7), Some(why()));
        assert_eq!(torn.why(Slot(1), 8), None);
        torn.passed(Slot(1), 8);
        assert_eq!((torn.why(Slot(1), 7), torn.why(Slot(1), 9)), (None, Some(why())));
        torn.passed(Slot(1), 10);
        assert_eq!((torn.why(Slot(1), 9), torn.why(Slot(2), 7)), (None, Some(why())));
        torn.passed(Slot(2), 8);
        assert_eq!(torn.why(Slot(2), 7), None);
    }

    #[test]
    fn no_more_are_remembered_than_there_is_room_for() {
        let torn = TornRecords::default();
        let most = i64::try_from(MOST).unwrap();
        for offset in 0..=most {
            torn.remember(Slot(0), offset, why());
        }
        assert_eq!((torn.why(Slot(0), most - 1), torn.why(Slot(0), most)), (Some(why()), None));
        torn.passed(Slot(0), most);
        torn.remember(Slot(0), most, why());
        assert_eq!(torn.why(Slot(0), most), Some(why()));
    }
}
