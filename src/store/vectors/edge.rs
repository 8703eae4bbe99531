//! Owns Qdrant's engine in this process: one shard in one folder, opened by one process at a time.
//!
//! The engine blocks, so every call runs on a blocking thread. Its `flush` panics when it meets a write, and it
//! has no place to ask for versions inside a write: so writes of every kind go one after the other. Searches do
//! not wait for them.
//!
//! Two habits of the engine decide the shape of this file. It never replays its write-ahead log, so what was not
//! flushed is lost in a crash and the caller must write it again. And it never shortens that log, so we do, when
//! nobody has it open.

mod filter;
mod folder;
mod generations;
mod shard;

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard};
use std::thread;

use chrono::{DateTime, Utc};
use qdrant_edge::EdgeShard;
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;
use uuid::Uuid;

use super::rarity::Rarity;
use super::stages::{Ask, List};
use super::{Facet, Filter, Layout, Point};
use crate::error::{Error, Result};
use folder::{Existing, Folder};
use generations::Generations;

/// Points per call to the engine: one record of its log.
const BATCH_POINTS_MAX: usize = 256;
/// Finished files of the engine's log, 8 MiB each, before a flush puts them away.
const LOG_FILES_MAX: usize = 4;

/// An open index.
#[derive(Debug)]
pub struct Edge {
    state: Arc<State>,
    layout: Layout,
    rarity: Rarity,
    /// Searches at one time: each is busy with a core of its own.
    searches: Semaphore,
}

#[derive(Debug)]
struct State {
    generations: Generations,
    /// Held by every write, for its whole length, and taken before `open`.
    writing: Mutex<()>,
    /// Written only to put another shard in its place; `None` after that failed half-way, and after `publish`.
    open: RwLock<Option<Open>>,
}

#[derive(Debug)]
struct Open {
    shard: EdgeShard,
    /// Comes last, so that the folder is free only when the shard is closed.
    folder: Folder,
    number: u32,
}

impl Open {
    fn new(generations: &Generations, number: u32, layout: &Layout, existing: Existing) -> Result<Self> {
        let mut folder = Folder::open(&generations.folder(number), layout, existing)?;
        Ok(Self { shard: folder.open_shard()?, folder, number })
    }
}

impl Edge {
    /// Opens the index below `dir`, which is made when it is not there.
    pub async fn open(dir: &Path, layout: Layout) -> Result<Self> {
        Self::start(dir, layout, |generations, layout| {
            let number = generations.present_or_first()?;
            let open = Open::new(generations, number, layout, Existing::Keep)?;
            generations.delete_before(number)?;
            Ok(open)
        })
        .await
    }

    /// See [`super::Vectors::draft`].
    pub async fn draft(dir: &Path, layout: Layout) -> Result<Self> {
        Self::start(dir, layout, |generations, layout| {
            Open::new(generations, generations.draft()?, layout, Existing::Replace)
        })
        .await
    }

    async fn start(
        dir: &Path,
        layout: Layout,
        open: impl FnOnce(&Generations, &Layout) -> Result<Open> + Send + 'static,
    ) -> Result<Self> {
        let (dir, for_thread) = (dir.to_owned(), layout.clone());
        let state = spawn_blocking(move || {
            let generations = Generations::new(&dir)?;
            let open = RwLock::new(Some(open(&generations, &for_thread)?));
            Ok::<_, Error>(State { generations, writing: Mutex::new(()), open })
        });
        let state = Arc::new(state.await.map_err(Error::internal)??);
        let searches = Semaphore::new(thread::available_parallelism().map_or(1, usize::from));
        Ok(Self { state, layout, rarity: Rarity::default(), searches })
    }

    /// See [`super::Vectors::publish`].
    pub async fn publish(&self) -> Result<()> {
        self.blocking(|state| {
            let _writing = state.writing();
            let mut open = state.open.write().unwrap_or_else(PoisonError::into_inner);
            // Closed before it is named, so that whoever reads the name finds it free.
            let number = open.take().ok_or_else(closed)?.number;
            state.generations.set_present(number)
        })
        .await
    }

    /// See [`super::Vectors::refresh`].
    pub async fn refresh(&self) -> Result<bool> {
        let layout = self.layout.clone();
        self.blocking(move |state| {
            let present = state.generations.present()?;
            let number = state.open().as_ref().map(|open| open.number);
            let Some(present) = present.filter(|present| number.is_none_or(|number| number < *present))
            else {
                return Ok(false);
            };
            let open = Open::new(&state.generations, present, &layout, Existing::Keep)?;
            let _writing = state.writing();
            let former = state.open.write().unwrap_or_else(PoisonError::into_inner).replace(open);
            drop(former);
            state.generations.delete_before(present)?;
            Ok(true)
        })
        .await
    }

    pub(super) fn layout(&self) -> &Layout {
        &self.layout
    }

    pub(super) fn rarity(&self) -> &Rarity {
        &self.rarity
    }

    /// See [`super::Vectors::was_killed`].
    pub fn was_killed(&self) -> bool {
        self.state.open().as_ref().is_some_and(|open| open.folder.was_killed())
    }

    /// See [`super::Vectors::upsert`].
    pub async fn upsert(&self, points: Vec<Point>) -> Result<()> {
        self.layout.check(&points)?;
        self.write(move |shard| shard::upsert(shard, points, BATCH_POINTS_MAX)).await
    }

    /// See [`super::Vectors::delete`].
    pub async fn delete(&self, versions: &[(Uuid, i32)], at: DateTime<Utc>) -> Result<()> {
        let versions = versions.to_vec();
        self.write(move |shard| shard::delete(shard, &versions, at, BATCH_POINTS_MAX)).await
    }

    /// See [`super::Vectors::forget`].
    pub async fn forget(&self, ids: &[Uuid]) -> Result<()> {
        let ids = ids.to_vec();
        self.write(move |shard| shard::forget(shard, &ids)).await
    }

    /// See [`super::Vectors::purge`].
    pub async fn purge(&self, before: DateTime<Utc>) -> Result<()> {
        self.write(move |shard| shard::purge(shard, before)).await
    }

    /// See [`super::Vectors::versions`].
    pub async fn versions(&self, ids: &[Uuid]) -> Result<HashMap<Uuid, i32>> {
        let ids = ids.to_vec();
        self.read(move |shard| shard::versions(shard, &ids)).await
    }

    /// See [`super::Vectors::scroll`].
    pub async fn scroll(&self, after: Option<Uuid>, limit: usize) -> Result<Vec<(Uuid, i32)>> {
        self.read(move |shard| shard::scroll(shard, after, limit)).await
    }

    /// See [`super::Vectors::vectors`].
    pub async fn vectors(&self, ids: &[Uuid]) -> Result<HashMap<Uuid, Vec<f32>>> {
        let ids = ids.to_vec();
        self.read(move |shard| shard::vectors(shard, &ids)).await
    }

    /// See [`super::Vectors::digests`].
    pub async fn digests(&self, ids: &[Uuid]) -> Result<HashMap<Uuid, (String, Vec<f32>)>> {
        let ids = ids.to_vec();
        self.read(move |shard| shard::digests(shard, &ids)).await
    }

    pub(super) async fn lists(&self, asks: Vec<Ask>) -> Result<Vec<List>> {
        let _turn = self.searches.acquire().await.map_err(Error::internal)?;
        self.read(move |shard| asks.into_iter().map(|ask| shard::list(shard, ask)).collect()).await
    }

    /// See [`super::Vectors::count`].
    pub async fn count(&self, filter: Filter) -> Result<usize> {
        self.read(move |shard| shard::count(shard, &filter)).await
    }

    /// See [`super::Vectors::facets`].
    pub async fn facets(&self, keys: &[&'static str], filter: Filter) -> Result<Vec<Facet>> {
        let keys = keys.to_vec();
        self.read(move |shard| keys.into_iter().map(|key| shard::facet(shard, key, &filter)).collect()).await
    }

    /// See [`super::Vectors::set_bookmark`].
    pub async fn set_bookmark(&self, text: &str) -> Result<()> {
        let text = text.to_owned();
        self.write(move |shard| shard::set_bookmark(shard, text)).await
    }

    /// See [`super::Vectors::move_bookmark`].
    pub async fn move_bookmark(&self, from: &str, to: &str) -> Result<bool> {
        let (from, to) = (from.to_owned(), to.to_owned());
        self.write(move |shard| {
            let is_same = shard::bookmark(shard)?.as_ref() == Some(&from);
            if is_same { shard::set_bookmark(shard, to).map(|()| true) } else { Ok(false) }
        })
        .await
    }

    /// See [`super::Vectors::bookmark`].
    pub async fn bookmark(&self) -> Result<Option<String>> {
        self.read(shard::bookmark).await
    }

    /// See [`super::Vectors::optimize`].
    pub async fn optimize(&self) -> Result<bool> {
        self.write(|shard| shard.optimize().map_err(unavailable)).await
    }

    /// See [`super::Vectors::flush`].
    pub async fn flush(&self) -> Result<()> {
        self.blocking(|state| {
            let _writing = state.writing();
            let long = {
                let open = state.open();
                let open = open.as_ref().ok_or_else(closed)?;
                open.shard.flush();
                open.folder.log_files()? > LOG_FILES_MAX
            };
            if long { state.reopen(|_| Ok(())) } else { Ok(()) }
        })
        .await
    }

    /// See [`super::Vectors::clear`].
    pub async fn clear(&self) -> Result<()> {
        self.blocking(|state| {
            let _writing = state.writing();
            state.reopen(Folder::delete_shard)
        })
        .await
    }

    async fn read<T: Send + 'static>(
        &self,
        call: impl FnOnce(&EdgeShard) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        self.blocking(move |state| call(&state.open().as_ref().ok_or_else(closed)?.shard)).await
    }

    async fn write<T: Send + 'static>(
        &self,
        call: impl FnOnce(&EdgeShard) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        self.blocking(move |state| {
            let _writing = state.writing();
            call(&state.open().as_ref().ok_or_else(closed)?.shard)
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

    fn open(&self) -> RwLockReadGuard<'_, Option<Open>> {
        self.open.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Closes the shard, which flushes it, and opens it again after a change of its folder. Searches wait meanwhile.
    fn reopen(&self, change: impl FnOnce(&Folder) -> Result<()>) -> Result<()> {
        let mut open = self.open.write().unwrap_or_else(PoisonError::into_inner);
        let Open { shard, folder, number } = open.take().ok_or_else(closed)?;
        drop(shard);
        change(&folder)?;
        *open = Some(Open { shard: folder.reopen_shard()?, folder, number });
        Ok(())
    }
}

impl Drop for State {
    /// The engine flushes while it is dropped, and panics if it cannot, as when its folder is gone. In the middle of
    /// another panic, such as that of the flush before it, this would be the end of the process.
    fn drop(&mut self) {
        let open = self.open.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        let Some(Open { shard, mut folder, .. }) = open else { return };
        if thread::panicking() || !folder.is_there() {
            std::mem::forget(shard);
        } else if catch_unwind(AssertUnwindSafe(|| drop(shard))).is_err() {
            folder.keep_mark();
            tracing::warn!("the vector index was not flushed when it was closed");
        }
    }
}

fn closed() -> Error {
    Error::unavailable(
        "the vector index",
        "it is closed: published, or it could not be opened again; see the log above",
    )
}

fn unavailable(cause: qdrant_edge::OperationError) -> Error {
    Error::unavailable("the vector index", cause)
}
