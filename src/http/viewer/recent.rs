//! What was looked up a moment ago: a bounded map whose entries live for so long and no longer.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Entries of one map at most.
const MAX_ENTRIES: usize = 10_000;

/// Values by key, each with the moment at which its look-up began.
pub(super) struct Recent<K, V> {
    lifetime: Duration,
    entries: Mutex<HashMap<K, (Instant, V)>>,
}

impl<K: Hash + Eq, V: Clone> Recent<K, V> {
    /// An empty map. A lifetime of zero keeps it so.
    pub(super) fn new(lifetime: Duration) -> Self {
        Self { lifetime, entries: Mutex::default() }
    }

    /// The value, if it is recent enough.
    pub(super) fn get(&self, key: &K) -> Option<V> {
        let entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        entries.get(key).filter(|(begun, _)| begun.elapsed() < self.lifetime).map(|(_, value)| value.clone())
    }

    /// Keeps a value whose look-up began at that moment: what changed since then must not wait any longer.
    pub(super) fn put(&self, key: K, value: V, begun: Instant) {
        if self.lifetime.is_zero() {
            return;
        }
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        if entries.len() >= MAX_ENTRIES {
            entries.retain(|_, (begun, _)| begun.elapsed() < self.lifetime);
        }
        // So many at once cost a look-up more each; which of them were wanted again nobody knows.
        if entries.len() >= MAX_ENTRIES {
            entries.clear();
        }
        entries.insert(key, (begun, value));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_live_for_so_long_and_are_so_many() {
        let recent = Recent::new(Duration::from_secs(60));
        let now = Instant::now();
        for key in 0..=2 * MAX_ENTRIES {
            recent.put(key, key, now);
            assert!(recent.entries.lock().unwrap().len() <= MAX_ENTRIES);
        }
        assert_eq!((recent.get(&(2 * MAX_ENTRIES)), recent.get(&0)), (Some(2 * MAX_ENTRIES), None));
        recent.put(1, 1, now.checked_sub(Duration::from_secs(61)).unwrap());
        assert_eq!(recent.get(&1), None);
        let off = Recent::new(Duration::ZERO);
        off.put(1, 1, now);
        assert!(off.get(&1).is_none() && off.entries.lock().unwrap().is_empty());
    }
}
