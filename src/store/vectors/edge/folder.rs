//! Owns the folder of an index: who has it open, what it was made for, and the files of the engine inside.
//!
//! - `lock` is locked by the process that has the index open.
//! - `index.json` says for which layout it was made.
//! - `in-use` is there from the opening to the closing: who finds it knows that a process was killed.
//! - `shard/` is the engine's own.

use std::collections::BTreeMap;
use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use qdrant_edge::{Distance, EdgeConfig, EdgeShard, EdgeSparseVectorParams, EdgeVectorParams, WalOptions};
use serde::{Deserialize, Serialize};

use super::super::{BM25, DENSE, FORMAT, Layout};
use super::shard;
use crate::error::{Code, Error, Result};

/// The size of one file of the engine's log, made in advance.
const LOG_FILE_BYTES: usize = 8 * 1024 * 1024;

/// The name of the mark of an open folder.
const IN_USE: &str = "in-use";

/// What to do with an index of another layout that is already there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Existing {
    /// Refuse it.
    Keep,
    /// Delete it.
    Replace,
}

/// What an index was made for, as its folder tells it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Made {
    model: String,
    dimension: usize,
    keys: String,
    format: u32,
}

#[derive(Debug)]
pub(super) struct Folder {
    dir: PathBuf,
    layout: Layout,
    /// Whether the mark is ours.
    is_marked: bool,
    /// Whether it was somebody's who never closed the folder.
    was_killed: bool,
    /// The lock ends with the file: also when the process is killed.
    _lock: File,
}

impl Folder {
    pub(super) fn open(dir: &Path, layout: &Layout, existing: Existing) -> Result<Self> {
        fs::create_dir_all(dir).map_err(|cause| broken(dir, cause))?;
        let lock = lock(dir)?;
        let folder = Self {
            dir: dir.to_owned(),
            layout: layout.clone(),
            is_marked: false,
            was_killed: false,
            _lock: lock,
        };
        let there = match existing {
            Existing::Keep => folder.read_made()?,
            Existing::Replace => folder.read_made().ok().flatten().filter(|there| *there == folder.made()),
        };
        match there {
            Some(there) if there == folder.made() => {}
            Some(there) => {
                let place = format!("in {}", dir.display());
                return Err(layout.refuse(&place, &there.model, there.dimension, there.format));
            }
            // Without the file, what there is comes from an opening or a deletion that was cut short.
            None => {
                folder.delete_shard()?;
                folder.write_made()?;
            }
        }
        Ok(folder)
    }

    /// Opens the engine for the first time.
    ///
    /// The engine writes its indexes of payload keys to their files at once, and the points that belong to them when it
    /// is flushed, and trusts its log for the difference, which it never reads. After a kill, the next points in the
    /// place of those that were lost would have their entries, such as that they are deleted.
    pub(super) fn open_shard(&mut self) -> Result<EdgeShard> {
        let shard = self.load_shard()?;
        let mark = self.dir.join(IN_USE);
        self.was_killed = mark.exists();
        if self.was_killed {
            tracing::info!("the vector index was not closed; its payload keys are indexed anew");
        }
        shard::ensure_payload_indexes(&shard, &self.layout, self.was_killed)?;
        shard.flush();
        File::create(mark).map_err(|cause| self.broken(cause))?;
        self.is_marked = true;
        Ok(shard)
    }

    /// Opens the engine again: after [`Self::delete_shard`], and to shorten its log.
    pub(super) fn reopen_shard(&self) -> Result<EdgeShard> {
        let shard = self.load_shard()?;
        shard::ensure_payload_indexes(&shard, &self.layout, false)?;
        Ok(shard)
    }

    fn load_shard(&self) -> Result<EdgeShard> {
        let path = self.shard_path();
        let shard = if path.join("segments").is_dir() {
            self.shorten_log()?;
            EdgeShard::load(&path, Some(self.config()))
        } else {
            fs::create_dir_all(&path).map_err(|cause| self.broken(cause))?;
            EdgeShard::new(&path, self.config())
        };
        shard.map_err(|cause| self.broken(cause))
    }

    /// The shard must not be open.
    pub(super) fn delete_shard(&self) -> Result<()> {
        match fs::remove_dir_all(self.shard_path()) {
            Err(cause) if cause.kind() != io::ErrorKind::NotFound => Err(self.broken(cause)),
            _ => Ok(()),
        }
    }

    /// How many finished files the engine's log has.
    pub(super) fn log_files(&self) -> Result<usize> {
        Ok(self.finished_log_files()?.len())
    }

    /// Deletes the finished files of the log except the last, from which the engine reads at which number to go on.
    /// The shard must not be open; nothing is lost by it, because the engine never reads these files again.
    fn shorten_log(&self) -> Result<()> {
        let mut files = self.finished_log_files()?;
        files.pop_last();
        files.values().try_for_each(fs::remove_file).map_err(|cause| self.broken(cause))
    }

    /// By the number of their first entry, as the engine names them: `closed-{number}`.
    fn finished_log_files(&self) -> Result<BTreeMap<u64, PathBuf>> {
        let mut files = BTreeMap::new();
        for entry in fs::read_dir(self.shard_path().join("wal")).map_err(|cause| self.broken(cause))? {
            let entry = entry.map_err(|cause| self.broken(cause))?;
            let name = entry.file_name();
            if let Some(first) = name.to_str().and_then(|name| name.strip_prefix("closed-")?.parse().ok()) {
                files.insert(first, entry.path());
            }
        }
        Ok(files)
    }

    fn config(&self) -> EdgeConfig {
        let dense = EdgeVectorParams::builder(self.layout.dimension, Distance::Cosine).build();
        let bm25 = EdgeSparseVectorParams::builder().build();
        EdgeConfig::builder()
            .vector(DENSE, dense)
            .sparse_vector(BM25, bm25)
            .wal_options(WalOptions { segment_capacity: LOG_FILE_BYTES, ..WalOptions::default() })
            .build()
    }

    /// Whether the process that had it open before was killed.
    pub(super) fn was_killed(&self) -> bool {
        self.was_killed
    }

    /// Has the next one who opens it take this process for killed.
    pub(super) fn keep_mark(&mut self) {
        self.is_marked = false;
    }

    /// Whether nobody deleted it.
    pub(super) fn is_there(&self) -> bool {
        self.shard_path().is_dir()
    }

    fn shard_path(&self) -> PathBuf {
        self.dir.join("shard")
    }

    fn read_made(&self) -> Result<Option<Made>> {
        match fs::read(self.dir.join("index.json")) {
            Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(|cause| self.broken(cause)),
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(cause) => Err(self.broken(cause)),
        }
    }

    fn write_made(&self) -> Result<()> {
        let bytes = serde_json::to_vec(&self.made()).map_err(Error::internal)?;
        // Renamed into place, so that the file is there as a whole or not at all.
        let draft = self.dir.join("index.json.new");
        fs::write(&draft, bytes)
            .and_then(|()| fs::rename(&draft, self.dir.join("index.json")))
            .map_err(|cause| self.broken(cause))
    }

    fn made(&self) -> Made {
        let Layout { model, dimension, .. } = &self.layout;
        Made { model: model.clone(), dimension: *dimension, keys: self.layout.keys_text(), format: FORMAT }
    }

    fn broken(&self, cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
        broken(&self.dir, cause)
    }
}

impl Drop for Folder {
    /// The engine is closed by now, and flushed if that did not panic.
    fn drop(&mut self) {
        if self.is_marked
            && !std::thread::panicking()
            && let Err(error) = fs::remove_file(self.dir.join(IN_USE))
        {
            tracing::debug!(%error, "the folder of the vector index keeps its mark");
        }
    }
}

fn lock(dir: &Path) -> Result<File> {
    let file = File::create(dir.join("lock")).map_err(|cause| broken(dir, cause))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => {
            let text = format!("the vector index in {} is open in another process", dir.display());
            Err(Error::new(Code::Unavailable, text))
        }
        Err(TryLockError::Error(cause)) => Err(broken(dir, cause)),
    }
}

pub(super) fn broken(dir: &Path, cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    let text = format!("the vector index in {} cannot be used; rebuild it with `reindex`", dir.display());
    Error::new(Code::Unavailable, text).because(cause)
}
