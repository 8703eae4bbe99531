//! Owns Qdrant's engine in this process: one shard in one folder, opened by one process at a time.
//!
//! The engine blocks, so every call runs on a blocking thread. Its `flush` panics when it meets a write, and it
//! has no place to ask for versions inside a write: so writes of every kind go one after the other. Searches do
//! not wait for them.
//!
//! Two habits of the engine decide the shape of this file. It never replays its write-ahead log, so what was not
//! flushed is lost in a crash and the caller must write it again. And it never shortens that log, so we do, when
//! nobody has it open.

mod folder;
mod shard;

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard};
use std::thread;

use qdrant_edge::EdgeShard;
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;
use uuid::Uuid;

use super::{Hit, Point, Question, WINDOW_MAX};
use crate::error::{Error, Result};
pub use folder::Existing;
use folder::Folder;

/// Points per call to the engine: one record of its log.
const BATCH_POINTS_MAX: usize = 256;
/// Finished files of the engine's log, 8 MiB each, before a flush puts them away.
const LOG_FILES_MAX: usize = 4;

/// An open index.
#[derive(Debug)]
pub struct Edge {
    state: Arc<State>,
    dimension: usize,
    /// Searches at one time: each is busy with a core of its own.
    searches: Semaphore,
}

#[derive(Debug)]
struct State {
    /// Held by every write, for its whole length, and taken before `shard`.
    writing: Mutex<()>,
    /// Written only to put another shard in its place; `None` after that failed half-way.
    shard: RwLock<Option<EdgeShard>>,
    /// Comes last, so that the folder is free only when the shard is closed.
    folder: Folder,
}

impl Edge {
    /// Opens the folder, which is made when it is not there.
    pub async fn open(dir: &Path, model: &str, dimension: usize, existing: Existing) -> Result<Self> {
        let (dir, model) = (dir.to_owned(), model.to_owned());
        let state = spawn_blocking(move || {
            let folder = Folder::open(&dir, &model, dimension, existing)?;
            let shard = folder.open_shard()?;
            Ok::<_, Error>(State { writing: Mutex::new(()), shard: RwLock::new(Some(shard)), folder })
        });
        let state = Arc::new(state.await.map_err(Error::internal)??);
        let searches = Semaphore::new(thread::available_parallelism().map_or(1, usize::from));
        Ok(Self { state, dimension, searches })
    }

    /// See [`super::Vectors::upsert`].
    pub async fn upsert(&self, points: Vec<Point>) -> Result<usize> {
        for point in &points {
            self.check(&point.vector).map_err(Error::internal)?;
        }
        self.write(move |shard| shard::upsert(shard, points, BATCH_POINTS_MAX)).await
    }

    /// See [`super::Vectors::delete`].
    pub async fn delete(&self, ids: &[Uuid]) -> Result<()> {
        let ids = ids.to_vec();
        self.write(move |shard| shard::delete(shard, &ids)).await
    }

    /// See [`super::Vectors::versions`].
    pub async fn versions(&self, ids: &[Uuid]) -> Result<HashMap<Uuid, i32>> {
        let ids = ids.to_vec();
        self.read(move |shard| shard::versions(shard, &ids)).await
    }

    /// See [`super::Vectors::search`].
    pub async fn search(&self, question: Question<'_>) -> Result<Vec<Hit>> {
        self.check(question.vector).map_err(|text| Error::bad_input("vector", text))?;
        let end = question.offset.saturating_add(question.limit);
        if end > WINDOW_MAX {
            return Err(Error::bad_input("first", format!("a search goes no deeper than {WINDOW_MAX} hits")));
        }
        if question.limit == 0 || question.projects.is_some_and(<[_]>::is_empty) {
            return Ok(Vec::new());
        }
        let vector = question.vector.to_vec();
        let projects = question.projects.map(<[_]>::to_vec);
        let _turn = self.searches.acquire().await.map_err(Error::internal)?;
        let mut hits =
            self.read(move |shard| shard::nearest(shard, &vector, projects.as_deref(), end)).await?;
        Ok(hits.split_off(question.offset.min(hits.len())))
    }

    /// See [`super::Vectors::count`].
    pub async fn count(&self) -> Result<usize> {
        self.read(shard::count).await
    }

    /// See [`super::Vectors::optimize`].
    pub async fn optimize(&self) -> Result<bool> {
        self.write(|shard| shard.optimize().map_err(unavailable)).await
    }

    /// See [`super::Vectors::flush`].
    pub async fn flush(&self) -> Result<()> {
        self.blocking(|state| {
            let _writing = state.writing();
            state.shard()?.as_ref().ok_or_else(closed)?.flush();
            if state.folder.log_files()? > LOG_FILES_MAX { state.replace(Folder::open_shard) } else { Ok(()) }
        })
        .await
    }

    /// See [`super::Vectors::clear`].
    pub async fn clear(&self) -> Result<()> {
        self.blocking(|state| {
            let _writing = state.writing();
            state.replace(|folder| {
                folder.delete_shard()?;
                folder.open_shard()
            })
        })
        .await
    }

    /// The engine would write a vector that no search can compare, and notice much later.
    fn check(&self, vector: &[f32]) -> Result<(), String> {
        if vector.len() != self.dimension {
            return Err(format!("a vector has {} numbers here, not {}", self.dimension, vector.len()));
        }
        if vector.iter().all(|number| number.is_finite()) {
            Ok(())
        } else {
            Err("a vector has finite numbers only".to_owned())
        }
    }

    async fn read<T: Send + 'static>(
        &self,
        call: impl FnOnce(&EdgeShard) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        self.blocking(move |state| call(state.shard()?.as_ref().ok_or_else(closed)?)).await
    }

    async fn write<T: Send + 'static>(
        &self,
        call: impl FnOnce(&EdgeShard) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        self.blocking(move |state| {
            let _writing = state.writing();
            call(state.shard()?.as_ref().ok_or_else(closed)?)
        })
        .await
    }

    /// A panic of the engine ends here, as an internal error of this one call.
    async fn blocking<T: Send + 'static>(
        &self,
        call: impl FnOnce(&State) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let state = Arc::clone(&self.state);
        spawn_blocking(move || call(&state)).await.map_err(Error::internal)?
    }
}

impl State {
    /// A panic under this lock is the engine's: the next call meets the engine as it is, not a poisoned lock.
    fn writing(&self) -> std::sync::MutexGuard<'_, ()> {
        self.writing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn shard(&self) -> Result<RwLockReadGuard<'_, Option<EdgeShard>>> {
        Ok(self.shard.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Closes the shard, which flushes it, and puts another in its place. Searches wait meanwhile.
    fn replace(&self, open: impl FnOnce(&Folder) -> Result<EdgeShard>) -> Result<()> {
        let mut shard = self.shard.write().unwrap_or_else(PoisonError::into_inner);
        drop(shard.take());
        *shard = Some(open(&self.folder)?);
        Ok(())
    }
}

fn closed() -> Error {
    Error::unavailable("the vector index", "the shard could not be opened again; see the log above")
}

fn unavailable(cause: qdrant_edge::OperationError) -> Error {
    Error::unavailable("the vector index", cause)
}
