//! Owns what is under way: the same thing wanted by many at once is done once, and not at all when nobody wants it
//! any more.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared, WeakShared};

/// Whoever holds one drives it; it ends unfinished when the last holder lets it go.
pub(super) type Flight<T> = Shared<BoxFuture<'static, T>>;

pub(super) struct Flights<T: Clone> {
    state: Mutex<State<T>>,
}

struct State<T: Clone> {
    started: u64,
    under_way: HashMap<String, (u64, WeakShared<BoxFuture<'static, T>>)>,
}

impl<T: Clone + Send + Sync + 'static> Flights<T> {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self { state: Mutex::new(State { started: 0, under_way: HashMap::new() }) })
    }

    /// The flight of this key that is under way, or a new one; and whether it is new.
    pub(super) fn join<F>(self: &Arc<Self>, key: &str, start: impl FnOnce() -> F) -> (Flight<T>, bool)
    where
        F: Future<Output = T> + Send + 'static,
    {
        let mut state = self.state();
        if let Some(flight) = state.under_way.get(key).and_then(|(_, flight)| flight.upgrade()) {
            return (flight, false);
        }
        state.started += 1;
        let number = state.started;
        let landing = Landing { flights: Arc::clone(self), key: key.to_owned(), number };
        let work = start();
        let flight = async move {
            let _landing = landing;
            work.await
        };
        let flight = flight.boxed().shared();
        if let Some(weak) = flight.downgrade() {
            state.under_way.insert(key.to_owned(), (number, weak));
        }
        (flight, true)
    }
}

impl<T: Clone> Flights<T> {
    /// Nothing that holds this lock can panic half-way, so a poisoned one is as good as new.
    fn state(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T: Clone> fmt::Debug for Flights<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Flights")
    }
}

/// Part of the work: dropped with it, finished or not.
struct Landing<T: Clone> {
    flights: Arc<Flights<T>>,
    key: String,
    number: u64,
}

impl<T: Clone> Drop for Landing<T> {
    fn drop(&mut self) {
        let mut state = self.flights.state();
        // The key may have a later flight, when this one was given up.
        if state.under_way.get(&self.key).is_some_and(|(number, _)| *number == self.number) {
            state.under_way.remove(&self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn the_same_is_done_once_and_outlives_the_one_who_began_it() {
        let flights = Flights::<u32>::new();
        let (finish, finished) = oneshot::channel();
        let (first, is_new) = flights.join("a", || finished.map(|number| number.unwrap()));
        assert!(is_new);
        let first = tokio::spawn(first);
        tokio::task::yield_now().await;
        let (second, is_new) = flights.join("a", std::future::pending);
        assert!(!is_new);
        let (_, is_new) = flights.join("b", std::future::pending);
        assert!(is_new);
        first.abort();
        assert!(first.await.unwrap_err().is_cancelled());
        finish.send(7).unwrap();
        assert_eq!(second.await, 7);
        assert!(flights.state().under_way.is_empty());
    }

    #[tokio::test]
    async fn what_nobody_wants_ends() {
        let flights = Flights::<u32>::new();
        let (mut finish, finished) = oneshot::channel::<u32>();
        let (flight, _) = flights.join("a", || finished.map(|number| number.unwrap()));
        let other = flight.clone();
        drop(flight);
        assert!(!finish.is_closed());
        drop(other);
        finish.closed().await;
        assert!(flights.join("a", std::future::pending).1);
    }
}
