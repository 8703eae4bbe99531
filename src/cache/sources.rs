//! What an answer was made of: the rows that it shows and the lists that it shows, counts or measures. As another
//! process sent them they stay packed until something changes: most answers are sent without anybody looking.

use std::sync::OnceLock;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::store::db::reads::{List, Noted};

/// What an answer was made of.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Sources {
    /// The rows that it shows, in order.
    pub rows: Vec<Uuid>,
    /// The lists that it shows, counts or measures, each with the ids of its parents in order.
    pub lists: Vec<(List, Vec<Uuid>)>,
}

impl Sources {
    /// From what was noted.
    pub fn new(noted: Noted) -> Self {
        let Noted { mut rows, mut lists, .. } = noted;
        for ids in lists.iter_mut().map(|(_, keys)| keys).chain([&mut rows]) {
            ids.sort_unstable();
            ids.dedup();
            ids.shrink_to_fit();
        }
        Self { rows, lists }
    }

    /// About how many bytes they take.
    fn weight(&self) -> usize {
        let lists = self.lists.iter().map(|(_, keys)| 256 + keys.len() * 16);
        self.rows.len() * 16 + lists.sum::<usize>()
    }
}

/// The sources of an entry, read or still packed.
#[derive(Debug)]
pub struct Kept {
    packed: Bytes,
    read: OnceLock<Option<Sources>>,
    weight: usize,
}

impl Kept {
    /// As [`Self::pack`] made them.
    pub(super) fn packed(packed: Bytes) -> Self {
        // Names take a byte for each character there and many more here.
        let weight = packed.len() * 6;
        Self { packed, read: OnceLock::new(), weight }
    }

    /// The sources; `None` if they cannot be read, and nobody can tell whether the answer holds.
    pub fn get(&self) -> Option<&Sources> {
        self.read.get_or_init(|| postcard::from_bytes(&self.packed).ok()).as_ref()
    }

    /// In a form that does not depend on the process.
    pub(super) fn pack(&self) -> Option<Vec<u8>> {
        postcard::to_stdvec(self.get()?).ok()
    }

    /// About how many bytes they take when they have been read; it is always the same.
    pub(super) fn weight(&self) -> usize {
        self.weight
    }
}

impl From<Sources> for Kept {
    fn from(sources: Sources) -> Self {
        let weight = sources.weight();
        Self { packed: Bytes::new(), read: Some(sources).into(), weight }
    }
}
