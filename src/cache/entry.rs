//! An entry: the bytes of an answer and what must hold for them to be served.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use bytes::Bytes;
use serde_json::json;
use sha2::{Digest, Sha256};

use crate::cache::freshness::Sources;
use crate::cache::key::Key;
use crate::model::change::Snapshot;

/// Rows that a description names.
const SHOWN: usize = 100;
/// What an entry costs besides what it holds.
const OVERHEAD: u64 = 512;

/// A whole answer.
#[derive(Debug)]
pub struct Entry {
    /// The JSON, ready to be sent.
    pub body: Bytes,
    /// A hash of it, as hexadecimal digits.
    pub hash: Box<str>,
    /// Where it comes from.
    pub origin: Origin,
    /// What it was made of.
    pub sources: Sources,
    /// What the tail of the process that made it had passed when the request began.
    pub as_of: Arc<Snapshot>,
    /// Up to which of our batches it is known to hold.
    pub checked: AtomicU64,
}

/// The request that an answer was made for.
#[derive(Debug, Clone)]
pub struct Origin {
    /// The operation's name, for logs and metrics.
    pub operation: Option<Box<str>>,
    /// When it began.
    pub begun: Instant,
    /// For how long its answer may be served.
    pub lifetime: Duration,
    /// How old it may be when nothing newer can be had, whether it holds or not.
    pub stale_if_error: Duration,
}

impl Entry {
    /// The hash of a body: 128 bits as hexadecimal digits.
    pub fn hash_of(body: &[u8]) -> Box<str> {
        let hash = Sha256::digest(body);
        hash[..16].iter().map(|byte| format!("{byte:02x}")).collect::<String>().into()
    }

    /// An answer to a request that began when the tail had passed this batch, as our process counts, and all that the
    /// snapshot sees.
    pub fn new(body: Bytes, origin: Origin, sources: Sources, (batch, as_of): (u64, Arc<Snapshot>)) -> Self {
        Self { hash: Self::hash_of(&body), body, origin, sources, as_of, checked: AtomicU64::new(batch) }
    }

    /// How long ago the request began that it answered.
    pub fn age(&self) -> Duration {
        self.origin.begun.elapsed()
    }

    /// What it was made of and how long it lives, for people. Of many rows it shows the first.
    pub fn describe(&self) -> serde_json::Value {
        let lists =
            self.sources.lists.iter().map(|(list, keys)| json!({"table": list.table, "parents": keys.len()}));
        json!({
            "ageMs": u64::try_from(self.age().as_millis()).unwrap_or(u64::MAX),
            "lifetimeMs": u64::try_from(self.origin.lifetime.as_millis()).unwrap_or(u64::MAX),
            "rows": self.sources.rows.len(),
            "tags": self.sources.rows.iter().take(SHOWN).collect::<Vec<_>>(),
            "lists": lists.collect::<Vec<_>>(),
            "bytes": self.weight(),
        })
    }

    /// About how many bytes of memory it takes.
    pub fn weight(&self) -> u64 {
        OVERHEAD + (self.body.len() + self.sources.weight()) as u64
    }
}

/// Weighs entries by their bytes.
#[derive(Debug, Clone, Copy)]
pub struct Weigh;

impl quick_cache::Weighter<Key, Arc<Entry>> for Weigh {
    fn weight(&self, _: &Key, entry: &Arc<Entry>) -> u64 {
        entry.weight()
    }
}
