//! Standing searches: how near new texts are to the questions that are waiting for them. The vectors of a batch are
//! read from the index once for all of them; nothing is embedded a second time.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::OnceCell;
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use crate::changes::tail::Batch;
use crate::graphql::search::Searcher;
use crate::model::change::{Change, Image, Op};
use crate::model::searched::{changes_text, read_standing};
use crate::store::db::Db;
use crate::store::vectors::cosine;

/// For so long the index is waited for, which follows the table. What it has not got then is told without a score.
const PATIENCE: Duration = Duration::from_secs(20);
/// Between two looks: at first, and at most.
const PAUSE: (Duration, Duration) = (Duration::from_millis(25), Duration::from_millis(500));
/// Batches whose vectors are remembered, until the slowest of those who wait has asked.
const KEPT: usize = 16;

/// The vectors of texts; `None` for one that the index did not get in time. Rows that are gone are left out.
type Texts = HashMap<Uuid, Option<Vec<f32>>>;

/// Reads vectors for all standing searches of the process. All clones are the same.
#[derive(Clone)]
pub(super) struct Standing(Arc<Shared>);

struct Shared {
    searcher: Searcher,
    db: Db,
    /// By the tail's numbers.
    batches: Mutex<VecDeque<(u64, Arc<OnceCell<Arc<Texts>>>)>>,
}

impl Standing {
    pub(super) fn new(searcher: Searcher, db: Db) -> Self {
        Self(Arc::new(Shared { searcher, db, batches: Mutex::default() }))
    }

    /// The vectors of all texts of a table that a batch brought.
    pub(super) async fn texts(&self, batch: &Batch, table: &str) -> Arc<Texts> {
        let Some(number) = batch.number else { return Arc::new(self.read(batch, table).await) };
        let cell = {
            let mut batches = self.0.batches.lock().unwrap_or_else(PoisonError::into_inner);
            let known = batches.iter().find(|(known, _)| *known == number).map(|(_, cell)| cell.clone());
            known.unwrap_or_else(|| {
                let cell = Arc::new(OnceCell::new());
                batches.push_back((number, cell.clone()));
                if batches.len() > KEPT {
                    batches.pop_front();
                }
                cell
            })
        };
        cell.get_or_init(async || Arc::new(self.read(batch, table).await)).await.clone()
    }

    async fn read(&self, batch: &Batch, table: &str) -> Texts {
        let mut wanted: HashMap<Uuid, i64> = HashMap::new();
        for change in batch.changes.iter().filter(|change| brings_text(change, table)) {
            let version = change.keys.get("version").and_then(serde_json::Value::as_i64).unwrap_or(0);
            if let Some(id) = change.id {
                let known = wanted.entry(id).or_insert(version);
                *known = version.max(*known);
            }
        }
        let all: Vec<Uuid> = wanted.keys().copied().collect();
        let late = self.wait(wanted).await;
        let mut texts = self.of(&all).await;
        texts.extend(late.into_iter().map(|id| (id, None)));
        texts
    }

    /// The vectors of texts that the index should have already.
    pub(super) async fn of(&self, ids: &[Uuid]) -> Texts {
        let begun = Instant::now();
        loop {
            match self.0.searcher.vectors.vectors(ids).await {
                Ok(found) => return found.into_iter().map(|(id, text)| (id, Some(text))).collect(),
                // Nobody knows whether they match, and that is said.
                Err(_) if begun.elapsed() > PATIENCE => return ids.iter().map(|id| (*id, None)).collect(),
                Err(_) => sleep(PAUSE.1).await,
            }
        }
    }

    /// Waits until the index has these versions or later ones, and says which it did not get. Those that are gone are
    /// not waited for.
    async fn wait(&self, mut wanted: HashMap<Uuid, i64>) -> Vec<Uuid> {
        let (begun, mut pause) = (Instant::now(), PAUSE.0);
        while !wanted.is_empty() {
            let ids: Vec<Uuid> = wanted.keys().copied().collect();
            let present = self.0.searcher.vectors.versions(&ids).await.unwrap_or_default();
            wanted.retain(|id, version| present.get(id).is_none_or(|present| i64::from(*present) < *version));
            if wanted.is_empty() || begun.elapsed() > PATIENCE {
                break;
            }
            if pause >= PAUSE.1
                && let Ok(standing) = read_standing(&self.0.db.session(), &ids).await
            {
                wanted.retain(|id, _| standing.get(id).is_some_and(|standing| !standing.is_deleted));
            }
            sleep(pause).await;
            pause = (pause * 2).min(PAUSE.1);
        }
        wanted.into_keys().collect()
    }
}

/// Whether a row has another text than before.
pub(super) fn brings_text(change: &Change, table: &str) -> bool {
    change.entity == table
        && match change.op {
            Op::Insert => true,
            Op::Update => changes_text(table, &Image::new(change)),
            Op::Delete | Op::Truncate => false,
        }
}

/// How near a text is to a question.
pub(super) fn nearness(question: &[f32], text: &[f32]) -> f64 {
    f64::from(cosine(question, text))
}
