//! The response cache: whole answers, kept in memory (L1) and in Redis (L2), and never staler than the bound. An
//! entry is served only while [`freshness`] finds that nothing it was made of has changed, and only while the tail of
//! the change log hears from PostgreSQL; so nothing is ever deleted from it by hand.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::cache::entry::{Entry, Weigh};
use crate::cache::flight::Flights;
use crate::cache::freshness::{Freshness, Verdict};
use crate::cache::key::{Key, Keys};
use crate::cache::shared::SharedCache;
use crate::config::CacheBounds;
use crate::store::redis::Redis;
use crate::telemetry::CacheMetrics;

pub mod documents;
pub mod entry;
pub mod freshness;
pub mod key;

pub mod flight;
mod image;
pub mod shared;

/// About how many bytes an answer has, to size the tables.
const USUAL: u64 = 4_096;
/// Requests that are recognised by their bytes, and operations that are known not to be cached.
const KNOWN: usize = 65_536;
/// The larger part of the memory for one answer would push everything else out.
const LARGEST_SHARE: u64 = 16;

/// The cache. All clones are the same one.
#[derive(Clone)]
pub struct Cache(Arc<Shared>);

struct Shared {
    bounds: CacheBounds,
    keys: Keys,
    freshness: Freshness,
    shared: SharedCache,
    answers: quick_cache::sync::Cache<Key, Arc<Entry>, Weigh>,
    /// From the bytes of a request of a viewer to the key of its answer.
    known: quick_cache::sync::Cache<Key, Key>,
    /// What turned out not to be cacheable.
    hopeless: quick_cache::sync::Cache<Key, ()>,
    flights: Flights,
    metrics: CacheMetrics,
}

/// What the cache has for a request.
#[derive(Debug, Clone)]
pub enum Found {
    /// An answer that holds.
    Fresh(Arc<Entry>),
    /// One that does not hold, or may not.
    Stale(Arc<Entry>, Miss),
    /// None.
    Nothing(Miss),
}

/// Why an answer is not served from the cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Miss {
    /// Nobody asked before, or it was pushed out.
    Absent,
    /// What it was made of has changed.
    Changed,
    /// Too much has changed since to tell.
    Forgotten,
    /// It is older than it may be.
    Expired,
    /// The tail has not heard from PostgreSQL for too long.
    Behind,
    /// The client wanted none.
    Refused,
    /// What it reads tells of no changes.
    Uncacheable,
}

impl Miss {
    /// The spelling of metrics and headers.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Absent => "absent",
            Self::Changed => "changed",
            Self::Forgotten => "forgotten",
            Self::Expired => "expired",
            Self::Behind => "behind",
            Self::Refused => "refused",
            Self::Uncacheable => "uncacheable",
        }
    }
}

impl Cache {
    /// An empty cache.
    pub fn new(
        bounds: CacheBounds,
        keys: Keys,
        redis: Redis,
        freshness: Freshness,
        metrics: CacheMetrics,
    ) -> Self {
        let items = usize::try_from(bounds.bytes / USUAL).unwrap_or(usize::MAX).clamp(1, 1 << 20);
        Self(Arc::new(Shared {
            bounds,
            shared: SharedCache::new(redis, keys.clone()),
            keys,
            freshness,
            answers: quick_cache::sync::Cache::with_weighter(items, bounds.bytes, Weigh),
            known: quick_cache::sync::Cache::new(KNOWN),
            hopeless: quick_cache::sync::Cache::new(KNOWN),
            flights: Flights::default(),
            metrics,
        }))
    }

    /// Whether there is one.
    pub fn is_on(&self) -> bool {
        self.0.bounds.bytes > 0
    }

    /// What makes keys.
    pub fn keys(&self) -> &Keys {
        &self.0.keys
    }

    /// What counts hits and misses.
    pub fn metrics(&self) -> &CacheMetrics {
        &self.0.metrics
    }

    /// What other processes have.
    pub fn shared(&self) -> &SharedCache {
        &self.0.shared
    }

    /// The entry of another process, if it holds; it is kept in memory, too.
    pub async fn fetch(&self, key: &Key) -> Found {
        let Some(entry) = self.0.shared.get(key, &self.0.freshness).await else {
            return Found::Nothing(Miss::Absent);
        };
        let found = self.judge(entry);
        if let Found::Fresh(entry) = &found {
            self.put(*key, entry.clone());
        }
        found
    }

    /// Who executes what at the moment.
    pub fn flights(&self) -> &Flights {
        &self.0.flights
    }

    /// What tells whether answers still hold.
    pub fn freshness(&self) -> &Freshness {
        &self.0.freshness
    }

    /// The bounds.
    pub fn bounds(&self) -> &CacheBounds {
        &self.0.bounds
    }

    /// Whether the tail has heard from PostgreSQL lately. If not, nothing can be said of any answer.
    pub fn is_current(&self) -> bool {
        self.0.freshness.age() <= self.0.bounds.staleness
    }

    /// The answer to a request that came before in the same bytes.
    pub fn recall(&self, bytes: &Key) -> Found {
        self.known(bytes).map_or(Found::Nothing(Miss::Absent), |key| self.get(&key))
    }

    /// The key of the answer to a request that came before in the same bytes.
    pub fn known(&self, bytes: &Key) -> Option<Key> {
        self.0.known.get(bytes)
    }

    /// Has [`Self::recall`] find this key by those bytes.
    pub fn learn(&self, bytes: Key, key: Key) {
        if self.0.known.peek(&bytes).is_none_or(|known| known != key) {
            self.0.known.insert(bytes, key);
        }
    }

    /// What there is under a key.
    pub fn get(&self, key: &Key) -> Found {
        match self.0.answers.get(key) {
            Some(entry) => self.judge(entry),
            None if self.0.hopeless.get(key).is_some() => Found::Nothing(Miss::Uncacheable),
            None => Found::Nothing(Miss::Absent),
        }
    }

    fn judge(&self, entry: Arc<Entry>) -> Found {
        if self.0.bounds.trust_everything {
            return Found::Fresh(entry);
        }
        if !self.is_current() {
            return Found::Stale(entry, Miss::Behind);
        }
        let miss = match self.0.freshness.judge(&entry.sources, entry.checked.load(Ordering::Acquire)) {
            Verdict::Fresh(batch) => {
                entry.checked.fetch_max(batch, Ordering::AcqRel);
                if entry.age() < entry.origin.lifetime {
                    return Found::Fresh(entry);
                }
                Miss::Expired
            }
            Verdict::Touched(by) => {
                self.0.metrics.invalidated(by.as_deref().unwrap_or("row"));
                Miss::Changed
            }
            Verdict::Forgotten => Miss::Forgotten,
        };
        Found::Stale(entry, miss)
    }

    /// Keeps an answer, unless it is too large or out of date already.
    pub fn put(&self, key: Key, entry: Arc<Entry>) -> bool {
        let fits = entry.weight() <= self.0.bounds.bytes / LARGEST_SHARE;
        if fits {
            self.0.answers.insert(key, entry);
        }
        fits
    }

    /// Remembers that there is no use in looking for an answer.
    pub fn give_up(&self, key: Key) {
        self.0.hopeless.insert(key, ());
    }

    /// How long an answer made of this may live.
    pub fn lifetime(&self, wanted: Option<Duration>) -> Duration {
        wanted.map_or(self.0.bounds.lifetime, |wanted| wanted.min(self.0.bounds.lifetime))
    }

    /// Bytes and answers in memory.
    pub fn size(&self) -> (u64, usize) {
        (self.0.answers.weight(), self.0.answers.len())
    }

    /// Forgets everything in memory.
    pub fn clear(&self) {
        self.0.answers.clear();
        self.0.known.clear();
        self.0.hopeless.clear();
    }
}
