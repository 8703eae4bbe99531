//! Loaders: the only way by which related rows are read. One loader per statement and request; it takes the keys
//! of a whole level, reads those that it does not have yet by one statement, and remembers them.

use std::collections::HashMap;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};

use dataloader::BatchFn;
use dataloader::cached::Loader;
use uuid::Uuid;

use crate::error::{Error, Result};
use crate::graphql::search::Searcher;
use crate::model::select::types_of;
use crate::model::viewer::Viewer;
use crate::store::db::Session;
use crate::store::db::rows::{RowRef, RowSet};
use crate::store::db::sql::Sql;
use crate::telemetry::Metrics;

/// Keys per statement. A level is bounded by the limits on pages, so this is a fuse and no tuning knob.
const MAX_BATCH: usize = 10_000;

/// The rows that belong to one key: a run of a shared answer.
#[derive(Debug, Clone)]
pub(crate) struct Loaded {
    set: Arc<RowSet>,
    start: usize,
    len: usize,
}

impl Loaded {
    pub(crate) const fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn row(&self, place: usize) -> RowRef {
        RowRef { set: self.set.clone(), row: self.start + place }
    }

    /// The count that a counting statement gives for a key.
    pub(crate) fn count(&self) -> i64 {
        self.set.bigint(self.start, 1).unwrap_or(0)
    }
}

struct Batch {
    sql: Sql,
    session: Session,
    metrics: Arc<Metrics>,
}

impl BatchFn<Uuid, Result<Loaded>> for Batch {
    fn load(&mut self, keys: &[Uuid]) -> impl Future<Output = HashMap<Uuid, Result<Loaded>>> {
        self.metrics.batch_keys.observe(keys.len() as f64);
        let sql = self.sql.with_keys(keys.to_vec());
        let (session, keys) = (self.session.clone(), keys.to_vec());
        async move {
            match session.rows(&sql).await {
                Ok(rows) => group(&keys, Arc::new(rows)),
                Err(error) => keys.into_iter().map(|key| (key, Err(error.clone()))).collect(),
            }
        }
    }
}

/// Gives each key its run of rows; a key without rows gets an empty run.
fn group(keys: &[Uuid], set: Arc<RowSet>) -> HashMap<Uuid, Result<Loaded>> {
    let mut groups: HashMap<Uuid, Result<Loaded>> = HashMap::with_capacity(keys.len());
    let mut row = 0;
    while row < set.len() {
        let key = set.uuid(row, 0);
        let start = row;
        while row < set.len() && set.cell(row, 0) == set.cell(start, 0) {
            row += 1;
        }
        if let Some(key) = key {
            groups.insert(key, Ok(Loaded { set: set.clone(), start, len: row - start }));
        }
    }
    for key in keys {
        groups.entry(*key).or_insert_with(|| Ok(Loaded { set: set.clone(), start: 0, len: 0 }));
    }
    groups
}

type RowLoader = Loader<Uuid, Result<Loaded>, Batch>;

/// The loaders of one request, made as they are needed. Equal statements share one.
pub(crate) struct Loaders {
    pub(crate) viewer: Viewer,
    pub(crate) session: Session,
    pub(crate) searcher: Searcher,
    metrics: Arc<Metrics>,
    loaders: Mutex<HashMap<Sql, RowLoader>>,
    /// What the client should know of the answer besides errors.
    warnings: Arc<Mutex<Vec<&'static str>>>,
}

impl Loaders {
    pub(crate) fn new(viewer: Viewer, session: Session, searcher: Searcher, metrics: Arc<Metrics>) -> Self {
        Self { viewer, session, searcher, metrics, loaders: Mutex::default(), warnings: Arc::default() }
    }

    /// Has the answer say this, once.
    pub(crate) fn warn(&self, text: &'static str) {
        let mut warnings = self.warnings.lock().unwrap_or_else(PoisonError::into_inner);
        if !warnings.contains(&text) {
            warnings.push(text);
        }
    }

    /// What the answer shall say besides errors.
    pub(crate) fn warnings(&self) -> Vec<&'static str> {
        self.warnings.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The same viewer's loaders, which have loaded nothing yet.
    pub(crate) fn renewed(&self) -> Self {
        let (viewer, session) = (self.viewer.clone(), self.session.clone());
        Self::new(viewer, session, self.searcher.clone(), self.metrics.clone())
    }

    /// Of which entity each id is, as the entity's place among the entities.
    pub(crate) async fn types_of(&self, ids: &[Uuid]) -> Result<HashMap<Uuid, usize>> {
        let rows = self.session.rows(&types_of(&self.viewer, ids.to_vec())).await?;
        let place = |row| Some((rows.uuid(row, 0)?, usize::try_from(rows.bigint(row, 1)?).ok()?));
        let found: HashMap<_, _> = (0..rows.len()).filter_map(place).collect();
        if ids.iter().any(|id| !found.contains_key(id)) {
            // It may come as one of those that are not logged.
            self.session.notes().give_up();
        }
        Ok(found)
    }

    /// The rows of each key.
    pub(crate) async fn load(&self, sql: &Sql, keys: Vec<Uuid>) -> Result<HashMap<Uuid, Loaded>> {
        let loader = {
            let mut loaders = self.loaders.lock().unwrap_or_else(PoisonError::into_inner);
            match loaders.get(sql) {
                Some(loader) => loader.clone(),
                None => {
                    let (session, metrics) = (self.session.clone(), self.metrics.clone());
                    let batch = Batch { sql: sql.clone(), session, metrics };
                    // One yield: the sibling relations of the level have then added their keys.
                    let loader = Loader::new(batch).with_max_batch_size(MAX_BATCH).with_yield_count(1);
                    loaders.insert(sql.clone(), loader.clone());
                    loader
                }
            }
        };
        let loaded = loader.try_load_many(keys).await.map_err(Error::internal)?;
        loaded.into_iter().map(|(key, rows)| Ok((key, rows?))).collect()
    }
}
