//! The rows that events show, read once for all feeds that show the same of them to the same viewers, whatever their
//! filters. Who wants rows joins the round that is to be read next; while one is read, the next one gathers.

use std::sync::{Arc, Mutex};

use tokio::sync::{OnceCell, Semaphore};
use tokio::task::yield_now;

use crate::cache::key::Key;
use crate::changes::tail::held;
use crate::graphql::Graph;
use crate::graphql::events::{Rows, Shown, Wanted};
use crate::live::Live;
use crate::store::db::Db;

/// A round waits for as long as others join it, and no longer than it takes all other tasks to run so often.
const YIELDS: usize = 16;
/// So often in a row nobody joined it: then nobody is about to.
const QUIET: usize = 3;

/// Reads rows for feeds.
pub(super) struct Reader {
    shown: Shown,
    graph: Graph,
    db: Db,
    live: Live,
    key: Key,
    /// Gathers; none if nobody has come since the last one was read.
    next: Mutex<Option<Arc<Round>>>,
    /// One round is read at a time.
    turn: Semaphore,
}

/// What is read at once.
#[derive(Default)]
struct Round {
    /// With how many have come to want it.
    wanted: Mutex<(Wanted, usize)>,
    rows: OnceCell<Arc<Rows>>,
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.live.forget_reader(&self.key);
    }
}

impl Reader {
    pub(super) fn new(shown: Shown, graph: Graph, db: Db, live: Live, key: Key) -> Arc<Self> {
        let (next, turn) = (Mutex::default(), Semaphore::new(1));
        Arc::new(Self { shown, graph, db, live, key, next, turn })
    }

    /// Rows as they are now or later.
    pub(super) async fn read(&self, wanted: Wanted) -> Arc<Rows> {
        if wanted.is_empty() || !self.shown.is_any() {
            return self.read_alone(&wanted).await;
        }
        let round = self.join(wanted);
        // If who reads goes away, the next one of those who wait does it.
        round.rows.get_or_init(|| self.read_round(&round)).await.clone()
    }

    /// The same, without waiting for anybody.
    pub(super) async fn read_alone(&self, wanted: &Wanted) -> Arc<Rows> {
        Arc::new(self.graph.rows(self.shown.clone(), wanted, self.db.session()).await)
    }

    fn join(&self, wanted: Wanted) -> Arc<Round> {
        let mut next = held(&self.next);
        let round = next.get_or_insert_default().clone();
        // Before the round can begin to be read.
        let mut gathered = held(&round.wanted);
        gathered.0.extend(wanted);
        gathered.1 += 1;
        drop(gathered);
        round
    }

    async fn read_round(&self, round: &Arc<Round>) -> Arc<Rows> {
        // Neither of the semaphores is ever closed.
        let _turn = self.turn.acquire().await;
        let _one_of_few = self.live.loading().acquire().await;
        // Those who were told of the same changes are about to come.
        let (mut joined, mut quiet) = (0, 0);
        for _ in 0..YIELDS {
            let now = held(&round.wanted).1;
            quiet = if now == joined { quiet + 1 } else { 0 };
            if quiet == QUIET {
                break;
            }
            joined = now;
            yield_now().await;
        }
        {
            let mut next = held(&self.next);
            if next.as_ref().is_some_and(|next| Arc::ptr_eq(next, round)) {
                *next = None;
            }
        }
        let wanted = held(&round.wanted).0.clone();
        self.read_alone(&wanted).await
    }
}
