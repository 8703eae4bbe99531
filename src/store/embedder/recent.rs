//! Owns the vectors of recent queries: bounded, least recently used out first.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

#[derive(Debug)]
pub(super) struct Recent {
    capacity: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Counts uses; the time of this cache.
    clock: u64,
    vectors: HashMap<Arc<str>, (u64, Arc<[f32]>)>,
    /// Last use → key: the first entry is the one to go.
    by_use: BTreeMap<u64, Arc<str>>,
}

impl Recent {
    pub(super) fn new(capacity: usize) -> Self {
        Self { capacity, state: Mutex::default() }
    }

    pub(super) fn get(&self, key: &str) -> Option<Arc<[f32]>> {
        // A panic cannot leave the maps half changed in a way that matters: at worst one entry lives on.
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let state = &mut *state;
        let (last_use, vector) = state.vectors.get_mut(key)?;
        state.clock += 1;
        if let Some(key) = state.by_use.remove(last_use) {
            state.by_use.insert(state.clock, key);
        }
        *last_use = state.clock;
        Some(Arc::clone(vector))
    }

    pub(super) fn put(&self, key: String, vector: Arc<[f32]>) {
        let key: Arc<str> = key.into();
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.clock += 1;
        let now = state.clock;
        if let Some((last_use, _)) = state.vectors.insert(Arc::clone(&key), (now, vector)) {
            state.by_use.remove(&last_use);
        }
        state.by_use.insert(now, key);
        if state.vectors.len() > self.capacity
            && let Some((_, oldest)) = state.by_use.pop_first()
        {
            state.vectors.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_recently_used_goes_first() {
        let recent = Recent::new(2);
        recent.put("a".into(), [1.0].into());
        recent.put("b".into(), [2.0].into());
        assert!(recent.get("a").is_some());
        recent.put("c".into(), [3.0].into());
        assert!(recent.get("b").is_none());
        assert_eq!(recent.get("a").as_deref(), Some(&[1.0][..]));
        assert_eq!(recent.get("c").as_deref(), Some(&[3.0][..]));
    }

    #[test]
    fn the_same_key_twice_is_one_entry() {
        let recent = Recent::new(2);
        recent.put("a".into(), [1.0].into());
        recent.put("a".into(), [2.0].into());
        recent.put("b".into(), [3.0].into());
        assert_eq!(recent.get("a").as_deref(), Some(&[2.0][..]));
        assert_eq!(recent.state.lock().unwrap().by_use.len(), 2);
    }
}
