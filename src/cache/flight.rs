//! Flights: of many who want the same answer at once, one executes and the others wait for it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use crate::cache::key::Key;

/// Who executes what.
#[derive(Debug, Clone, Default)]
pub struct Flights(Arc<Mutex<HashMap<Key, watch::Receiver<Landing>>>>);

/// How a flight ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Landing {
    /// It did not, as yet.
    Flying,
    /// The answer is in the cache.
    Kept,
    /// It is there for the person who executed; for another one of the same scope it is another one.
    KeptForPerson,
    /// There is an answer, and it cannot be kept: everyone makes their own.
    NotKept,
    /// Whoever executed is gone; another one should.
    Lost,
}

/// One's part in a flight.
#[derive(Debug)]
pub enum Part {
    /// To execute, and to say how it ended.
    Lead(Lead),
    /// To wait.
    Wait(Wait),
}

/// Held by the one who executes. Dropped without a word, the flight is lost.
#[derive(Debug)]
pub struct Lead {
    flights: Flights,
    key: Key,
    landing: watch::Sender<Landing>,
}

/// Held by one who waits.
#[derive(Debug)]
pub struct Wait(watch::Receiver<Landing>);

impl Flights {
    /// Takes the lead, or joins those who wait.
    pub fn join(&self, key: Key) -> Part {
        let mut flights = self.lock();
        if let Some(flight) = flights.get(&key) {
            return Part::Wait(Wait(flight.clone()));
        }
        let (landing, flight) = watch::channel(Landing::Flying);
        flights.insert(key, flight);
        Part::Lead(Lead { flights: self.clone(), key, landing })
    }

    /// Whether somebody executes it.
    pub fn is_flying(&self, key: &Key) -> bool {
        self.lock().contains_key(key)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Key, watch::Receiver<Landing>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lead {
    /// What is executed.
    pub const fn key(&self) -> Key {
        self.key
    }

    /// Says how it ended.
    pub fn land(self, landing: Landing) {
        self.landing.send_replace(landing);
    }
}

impl Drop for Lead {
    fn drop(&mut self) {
        self.flights.lock().remove(&self.key);
    }
}

impl Wait {
    /// Waits for the end.
    pub async fn landed(mut self) -> Landing {
        let landed = self.0.wait_for(|landing| *landing != Landing::Flying).await;
        landed.map_or(Landing::Lost, |landing| *landing)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::key::Keys;
    use crate::model::viewer::{Credential, Grant, Holder, Role, Standing, Viewer};

    fn nobody() -> Viewer {
        let grant = Grant { holder: Holder::Nobody, role: Role::Viewer, projects: None };
        Viewer::admitted(&grant, &Standing::default(), Credential::None)
    }

    #[tokio::test]
    async fn one_leads_and_the_others_learn_how_it_ended() {
        let flights = Flights::default();
        let keys = Keys::new("", "", b"");
        let key = keys.of_operation(&nobody(), false, b"one");
        let other = keys.of_operation(&nobody(), false, b"two");
        let Part::Lead(lead) = flights.join(key) else { panic!("nobody leads yet") };
        assert!(matches!(flights.join(other), Part::Lead(_)));
        for landing in [Landing::Kept, Landing::NotKept] {
            let lead = match flights.join(other) {
                Part::Lead(lead) => lead,
                Part::Wait(_) => panic!("the last flight is over"),
            };
            let Part::Wait(wait) = flights.join(other) else { panic!("there is a leader") };
            lead.land(landing);
            assert_eq!(wait.landed().await, landing);
        }
        let Part::Wait(wait) = flights.join(key) else { panic!("there is a leader") };
        drop(lead);
        assert_eq!(wait.landed().await, Landing::Lost);
        assert!(matches!(flights.join(key), Part::Lead(_)));
    }
}
