//! A gate before a store that may be down: while it is, callers turn away at once instead of each waiting for it, and
//! from time to time one of them tries.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Open at first.
#[derive(Debug, Default)]
pub(super) struct Gate {
    /// When the next one may try, while the store is down.
    shut_until: Mutex<Option<Instant>>,
}

impl Gate {
    /// Whether to go to the store. Whoever tries while it is down keeps the others away for as long as that may
    /// take; it must say how it went, or the next one tries after that.
    pub(super) fn pass(&self, trial: Duration) -> bool {
        let mut shut_until = self.state();
        match *shut_until {
            None => true,
            Some(until) if Instant::now() < until => false,
            Some(_) => {
                *shut_until = Some(Instant::now() + trial);
                true
            }
        }
    }

    /// The store answers.
    pub(super) fn open(&self) {
        *self.state() = None;
    }

    /// It does not; nobody tries for this long.
    pub(super) fn shut(&self, pause: Duration) {
        *self.state() = Some(Instant::now() + pause);
    }

    /// One value: a poisoned lock is as good as new.
    fn state(&self) -> MutexGuard<'_, Option<Instant>> {
        self.shut_until.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_at_a_time_tries_a_store_that_is_down() {
        let (gate, moment, long) = (Gate::default(), Duration::from_millis(1), Duration::from_secs(600));
        assert!(gate.pass(long) && gate.pass(long));
        gate.shut(long);
        assert!(!gate.pass(long));
        gate.shut(Duration::ZERO);
        assert!(gate.pass(moment));
        // The one that tried was dropped; the next one may.
        std::thread::sleep(moment);
        assert!(gate.pass(long) && !gate.pass(long));
        gate.open();
        assert!(gate.pass(long) && gate.pass(long));
    }
}
