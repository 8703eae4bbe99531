//! Standing searches: how near new texts are to the questions that are waiting for them. The vectors of a batch are
//! read from the index once for all of them; nothing is embedded a second time.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::OnceCell;
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use crate::changes::batch::Batch;
use crate::changes::tail::held;
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

/// What the first who wants it reads.
type Reading = OnceCell<Arc<Texts>>;

/// Reads vectors for all standing searches of the process. All clones are the same.
#[derive(Clone)]
pub(super) struct Standing(Arc<Shared>);

struct Shared {
    searcher: Searcher,
    db: Db,
    /// By the tail's numbers.
    batches: Mutex<VecDeque<(u64, Arc<Reading>)>>,
}

impl Standing {
    pub(super) fn new(searcher: Searcher, db: Db) -> Self {
        Self(Arc::new(Shared { searcher, db, batches: Mutex::default() }))
    }

    /// The vectors of all texts of a table that a batch brought.
    pub(super) async fn texts(&self, batch: &Batch, table: &str) -> Arc<Texts> {
        let Some(number) = batch.number else { return Arc::new(self.read(batch, table).await) };
        let cell = {
            let mut batches = held(&self.0.batches);
            let known = batches.iter().find(|(known, _)| *known == number).map(|(_, cell)| cell.clone());
            known.unwrap_or_else(|| {
                let cell = Arc::<Reading>::default();
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
        let changes = batch.changes.iter().zip(batch.images());
        let brought = changes.filter(|(change, image)| brings_text(change, image, table));
        self.get(brought.filter_map(|(change, _)| version(change))).await
    }

    /// The vectors of rows, of these versions or later ones.
    pub(super) async fn get(&self, rows: impl Iterator<Item = (Uuid, i64)>) -> Texts {
        let mut wanted: HashMap<Uuid, i64> = HashMap::new();
        for (id, version) in rows {
            let known = wanted.entry(id).or_insert(version);
            *known = version.max(*known);
        }
        if wanted.is_empty() {
            return Texts::new();
        }
        let all: Vec<Uuid> = wanted.keys().copied().collect();
        let late = self.wait(wanted).await;
        let begun = Instant::now();
        let found = loop {
            match self.0.searcher.vectors.vectors(&all).await {
                Ok(found) => break found,
                // Nobody knows whether they match, and that is said.
                Err(_) if begun.elapsed() > PATIENCE => {
                    return all.into_iter().map(|id| (id, None)).collect();
                }
                Err(_) => sleep(PAUSE.1).await,
            }
        };
        let found = found.into_iter().map(|(id, text)| (id, Some(text)));
        found.chain(late.into_iter().map(|id| (id, None))).collect()
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

/// The version that a change made of its row.
pub(super) fn version(change: &Change) -> Option<(Uuid, i64)> {
    let version = change.keys.get("version").and_then(serde_json::Value::as_i64);
    Some((change.id?, version.unwrap_or(0)))
}

/// Whether a row has another text than before.
pub(super) fn brings_text(change: &Change, image: &Image, table: &str) -> bool {
    change.entity == table
        && match change.op {
            Op::Insert => true,
            Op::Update => changes_text(table, image),
            Op::Delete | Op::Truncate => false,
        }
}

/// How near a text is to a question.
pub(super) fn nearness(question: &[f32], text: &[f32]) -> f64 {
    f64::from(cosine(question, text))
}
