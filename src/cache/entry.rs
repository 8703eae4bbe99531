//! An entry: the bytes of an answer and what must hold for them to be served.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64};
use std::time::{Duration, Instant};

use bytes::Bytes;
use serde_json::json;
use sha2::{Digest, Sha256};

use crate::cache::key::{Key, hexadecimal};
use crate::cache::sources::{Kept, Sources};
use crate::model::change::Snapshot;
use crate::model::graph;
use crate::store::db::reads::{Hint, Noted};
use crate::telemetry::CacheMetrics;

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
    pub sources: Kept,
    /// What the tail of the process that made it had passed when the request began.
    pub as_of: Arc<Snapshot>,
    /// Up to which of our batches it is known to hold.
    pub checked: AtomicU64,
    /// How often it was found here.
    pub hits: AtomicU32,
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
    /// What is said of its age besides; the lifetime is counted in already.
    pub hint: Hint,
    /// Whether it is for one person only.
    pub personal: bool,
}

impl Entry {
    /// The hash of a body: 128 bits as hexadecimal digits.
    pub fn hash_of(body: &[u8]) -> Box<str> {
        let hash = Sha256::digest(body);
        hexadecimal(&hash[..16]).into()
    }

    /// An answer to a request that began when the tail had passed this batch, as our process counts, and all that the
    /// snapshot sees.
    pub fn new(body: Bytes, origin: Origin, sources: Sources, began: (u64, Arc<Snapshot>)) -> Self {
        Self::known(Self::hash_of(&body), body, origin, sources.into(), began)
    }

    /// The same of a body whose hash is known.
    pub(super) fn known(
        hash: Box<str>,
        body: Bytes,
        origin: Origin,
        sources: Kept,
        (batch, as_of): (u64, Arc<Snapshot>),
    ) -> Self {
        let (checked, hits) = (AtomicU64::new(batch), AtomicU32::new(0));
        Self { body, hash, origin, sources, as_of, checked, hits }
    }

    /// How long ago the request began that it answered.
    pub fn age(&self) -> Duration {
        self.origin.begun.elapsed()
    }

    /// How old it may become: after its lifetime it is shown for a while, as long as it holds.
    pub fn end(&self) -> Duration {
        self.origin.lifetime + Duration::from_secs(self.origin.hint.stale_while_revalidate_s.into())
    }

    /// How old it may be when nothing newer can be had, whether it holds or not.
    pub fn end_if_error(&self) -> Duration {
        Duration::from_secs(self.origin.hint.stale_if_error_s.into())
    }

    /// What it was made of and how long it lives, for people. Of many rows it shows the first.
    pub fn describe(&self) -> serde_json::Value {
        let unread = Sources::default();
        let sources = self.sources.get().unwrap_or(&unread);
        let lists =
            sources.lists.iter().map(|(list, keys)| json!({"table": list.table, "parents": keys.len()}));
        json!({
            "ageMs": u64::try_from(self.age().as_millis()).unwrap_or(u64::MAX),
            "lifetimeMs": u64::try_from(self.origin.lifetime.as_millis()).unwrap_or(u64::MAX),
            "staleWhileRevalidateMs": u64::from(self.origin.hint.stale_while_revalidate_s) * 1_000,
            "staleIfErrorMs": u64::from(self.origin.hint.stale_if_error_s) * 1_000,
            "scope": if self.origin.personal { "PRIVATE" } else { "PUBLIC" },
            "rows": sources.rows.len(),
            "tags": sources.rows.iter().take(SHOWN).collect::<Vec<_>>(),
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

/// Counts what is pushed out.
#[derive(Debug, Clone)]
pub struct CountEvictions(pub CacheMetrics);

impl quick_cache::Lifecycle<Key, Arc<Entry>> for CountEvictions {
    type RequestState = ();

    fn begin_request(&self) {}

    fn on_evict(&self, (): &mut (), _: Key, _: Arc<Entry>) {
        self.0.evicted.inc();
    }
}

/// How old an answer may be: the strictest word of all that it shows, lists or counts.
pub fn hint_of(noted: &Noted) -> Hint {
    let lists = noted.lists.iter().map(|(list, _)| graph().hint_of(&list.table));
    noted.hint.into_iter().chain(lists).reduce(Hint::strictest).unwrap_or(Hint::NONE)
}
