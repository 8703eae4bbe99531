//! The response cache: whole answers, kept in memory (L1) and in Redis (L2), and never staler than the bound. An
//! entry is served only while [`freshness`] finds that nothing it was made of has changed, and only while the tail of
//! the change log hears from PostgreSQL; so nothing is ever deleted from it by hand.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::cache::entry::{CountEvictions, Entry, Weigh};
use crate::cache::flight::Flights;
use crate::cache::freshness::{Freshness, Verdict};
use crate::cache::key::{Key, Keys};
use crate::cache::purges::Purges;
use crate::cache::shared::SharedCache;
use crate::config::CacheBounds;
use crate::error::Result;
use crate::model::tag::Tag;
use crate::store::db::reads::Hint;
use crate::store::redis::Redis;
use crate::telemetry::CacheMetrics;

pub mod documents;
pub mod entry;
pub mod freshness;
pub mod key;

pub mod flight;
mod image;
mod purges;
pub mod shared;
pub mod sources;

/// About how many bytes an answer has, to size the tables.
const USUAL: u64 = 4_096;
/// Requests that are recognised by their bytes, and operations that are known not to be cached.
const KNOWN: usize = 65_536;
/// The larger part of the memory for one answer would push everything else out.
const LARGEST_SHARE: u64 = 16;
/// An answer that was found so often is made anew when so many hundredths of its life have passed.
const HOT: u32 = 8;
const EARLY: u32 = 90;

/// Answers in memory.
type Answers =
    quick_cache::sync::Cache<Key, Arc<Entry>, Weigh, quick_cache::DefaultHashBuilder, CountEvictions>;

/// The cache. All clones are the same one.
#[derive(Clone)]
pub struct Cache(Arc<Shared>);

struct Shared {
    bounds: CacheBounds,
    keys: Keys,
    freshness: Freshness,
    shared: SharedCache,
    answers: Answers,
    /// From the bytes of a request of a viewer to the key of its answer.
    known: quick_cache::sync::Cache<Key, Key>,
    /// What turned out not to be cacheable.
    hopeless: quick_cache::sync::Cache<Key, ()>,
    flights: Flights,
    purges: Purges,
    metrics: CacheMetrics,
}

/// What the cache has for a request.
#[derive(Debug, Clone)]
pub enum Found {
    /// An answer that holds.
    Fresh(Arc<Entry>),
    /// One that holds, and is so old that it should be made anew while it is served.
    Due(Arc<Entry>),
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
    /// It is served, and made anew meanwhile.
    Due,
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
            Self::Due => "due",
        }
    }
}

impl Cache {
    /// An empty cache. Fails for no reason that is known.
    pub fn new(
        bounds: CacheBounds,
        keys: Keys,
        redis: Redis,
        freshness: Freshness,
        metrics: CacheMetrics,
    ) -> Result<Self> {
        let items = usize::try_from(bounds.bytes / USUAL).unwrap_or(usize::MAX).clamp(1, 1 << 20);
        Ok(Self(Arc::new(Shared {
            bounds,
            shared: SharedCache::new(redis, &keys)?,
            keys,
            freshness,
            answers: Answers::with(
                items,
                bounds.bytes,
                Weigh,
                quick_cache::DefaultHashBuilder::default(),
                CountEvictions(metrics.clone()),
            ),
            known: quick_cache::sync::Cache::new(KNOWN),
            hopeless: quick_cache::sync::Cache::new(KNOWN),
            flights: Flights::default(),
            purges: Purges::default(),
            metrics,
        })))
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
        if self.0.purges.include(&entry) {
            return Found::Nothing(Miss::Absent);
        }
        let found = self.judge(entry);
        if let Found::Fresh(entry) | Found::Due(entry) = &found {
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

    /// The key of the answer to a request that came before in the same bytes.
    pub fn known(&self, bytes: &Key) -> Option<Key> {
        self.0.known.get(bytes)
    }

    /// Has [`Self::known`] find this key by those bytes.
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
        let checked = entry.checked.load(Ordering::Acquire);
        let miss = match self.0.freshness.judge(|| entry.sources.get(), checked) {
            Verdict::Fresh(batch) => {
                if batch > checked {
                    entry.checked.fetch_max(batch, Ordering::AcqRel);
                }
                let (age, lifetime) = (entry.age(), entry.origin.lifetime);
                let hot = entry.hits.fetch_add(1, Ordering::Relaxed) >= HOT;
                if age < lifetime && !(hot && age >= lifetime * EARLY / 100) {
                    return Found::Fresh(entry);
                }
                if age < entry.end() {
                    return Found::Due(entry);
                }
                Miss::Expired
            }
            Verdict::Touched(by) => {
                self.0.metrics.invalidated(&by);
                Miss::Changed
            }
            Verdict::Forgotten => Miss::Forgotten,
        };
        Found::Stale(entry, miss)
    }

    /// Keeps an answer in memory, unless it is too large or was purged meanwhile; whether it is of use to others, in
    /// memory or by Redis.
    pub fn put(&self, key: Key, entry: Arc<Entry>) -> bool {
        let fits = entry.weight() <= self.0.bounds.bytes / LARGEST_SHARE;
        if fits {
            self.0.answers.insert(key, entry.clone());
        }
        // Afterwards, so that a purge either finds it or is found.
        if self.0.purges.include(&entry) {
            self.0.answers.remove(&key);
            return false;
        }
        fits || self.0.shared.is_on()
    }

    /// Remembers that there is no use in looking for an answer.
    pub fn give_up(&self, key: Key) {
        self.0.hopeless.insert(key, ());
    }

    /// How long an answer may live of which this is said.
    pub fn lifetime(&self, hint: Hint) -> Duration {
        let wanted = hint.max_age_s.map(|seconds| Duration::from_secs(seconds.into()));
        wanted.map_or(self.0.bounds.lifetime, |wanted| wanted.min(self.0.bounds.lifetime))
    }

    /// Bytes and answers in memory.
    pub fn size(&self) -> (u64, usize) {
        (self.0.answers.weight(), self.0.answers.len())
    }

    /// Forgets what has this tag, or everything; nor is anything served that others have of it.
    pub fn purge(&self, tag: Option<Tag>) {
        self.0.purges.add(tag);
        self.0.answers.retain(|_, entry| !self.0.purges.include(entry));
        if tag.is_none() {
            self.0.known.clear();
            self.0.hopeless.clear();
        }
    }
}
