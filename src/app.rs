//! The wired handles. `App::connect` builds the one that main, `dev` and the tests all serve.

use std::ops::Deref;
use std::sync::Arc;

use crate::cache::Cache;
use crate::cache::documents::Documents;
use crate::cache::key::Keys;
use crate::changes::tail::Tail;
use crate::config::{Config, Secret};
use crate::error::Result;
use crate::graphql::Graph;
use crate::graphql::search::Searcher;
use crate::http::health::Health;
use crate::http::live::Sockets;
use crate::http::viewer::{Access, Authenticator};
use crate::live::Live;
use crate::live::limits::Open;
use crate::model::cursor::CursorKey;
use crate::model::searched::INDEX_KEYS;
use crate::store::db::{Db, PoolState};
use crate::store::embedder::Embedder;
use crate::store::redis::Redis;
use crate::store::vectors::{Layout, Vectors, Words};
use crate::telemetry::{Kind, Metrics};

/// Everything a request needs. All clones are the same: every layer of every request takes one.
#[derive(Clone)]
pub struct App(Arc<Wired>);

impl Deref for App {
    type Target = Wired;

    fn deref(&self) -> &Wired {
        &self.0
    }
}

/// The handles.
pub struct Wired {
    /// The settings.
    pub config: Arc<Config>,
    /// PostgreSQL.
    pub db: Db,
    /// The schema.
    pub graph: Graph,
    /// Text to vectors to hits.
    pub searcher: Searcher,
    /// Who is let in.
    pub access: Authenticator,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// What commits, by whomever; it moves while `Tail::run` runs.
    pub changes: Tail,
    /// Documents by their hashes.
    pub documents: Documents,
    /// Answers that still hold.
    pub cache: Cache,
    /// What signs cursors and consistency tokens.
    pub cursors: CursorKey,
    /// Subscriptions and live queries.
    pub live: Live,
    /// The connections that stay.
    pub sockets: Sockets,
    /// Whether it may be sent requests.
    pub health: Arc<Health>,
}

impl App {
    /// Wires the stores. PostgreSQL and Redis may still be down; the model and the index must be there.
    pub async fn connect(config: Config, database_url: &str, secret: &[u8], access: Access) -> Result<Self> {
        let db = Db::connect(database_url, &config.db_options()).await?;
        let metrics = Arc::new(Metrics::new()?);
        let redis = config.redis_url.as_ref().map(Secret::expose);
        let redis = redis.map_or(Ok(Redis::Off), Redis::new)?;
        let embedder = Embedder::open(&config, redis.clone(), metrics.clone()).await?;
        let vectors = if embedder.is_on() {
            Vectors::open(&config.vectors, &config.vectors_dir(), index_layout(&embedder)).await?
        } else {
            Vectors::Off
        };
        let searcher = Searcher { embedder, vectors, words: Words::new()? };
        watch_pool(&metrics, &db)?;
        let cursors = CursorKey::new(secret);
        let graph = Graph::new(searcher.clone(), cursors.clone(), metrics.clone(), config.limits.clone());
        let access = Authenticator::new(access, &config, db.clone());
        let changes = Tail::new(&config, database_url, db.clone(), redis.clone());
        changes.count_in(&metrics)?;
        let keys = Keys::new(Graph::sdl(), database_url, secret);
        let (freshness, counters) = (changes.freshness().clone(), metrics.cache.clone());
        let up = redis.clone();
        metrics.pull(
            "redis_up",
            "Whether Redis answered when it was last asked.",
            Kind::Gauge,
            move || f64::from(up.is_up()),
        )?;
        let documents = Documents::new(redis.clone(), db.clone());
        let cache = Cache::new(config.cache_bounds(), keys, redis, freshness, counters)?;
        watch_cache(&metrics, &cache)?;
        let sockets = Sockets::new(&config.sockets, metrics.clone());
        let live =
            Live::new(Open::new(config.live.clone()), searcher.clone(), db.clone(), metrics.live.clone());
        let (config, health) = (Arc::new(config), Arc::default());
        let wired = Wired {
            config,
            db,
            graph,
            searcher,
            access,
            metrics,
            changes,
            documents,
            cache,
            cursors,
            live,
            sockets,
            health,
        };
        Ok(Self(Arc::new(wired)))
    }
}

/// Shows how much the cache holds.
fn watch_cache(metrics: &Metrics, cache: &Cache) -> Result<()> {
    let of = cache.clone();
    metrics.pull("cache_bytes", "Bytes of cached answers.", Kind::Gauge, move || of.size().0 as f64)?;
    let of = cache.clone();
    metrics.pull("cache_entries", "Cached answers.", Kind::Gauge, move || of.size().1 as f64)
}

/// What the index of evidence is made for, with this embedder.
pub fn index_layout(embedder: &Embedder) -> Layout {
    Layout { model: embedder.model().to_owned(), dimension: embedder.dimension(), keys: INDEX_KEYS }
}

/// Name, description, kind and value of a metric of the pool.
type PoolMetric = (&'static str, &'static str, Kind, fn(PoolState) -> f64);

/// Shows the pool's own counts among the metrics.
fn watch_pool(metrics: &Metrics, db: &Db) -> Result<()> {
    let values: [PoolMetric; 6] = [
        ("database_statements_total", "Statements sent to PostgreSQL by everybody.", Kind::Counter, |pool| {
            pool.statements as f64
        }),
        ("pool_connections", "Connections to PostgreSQL.", Kind::Gauge, |pool| pool.open.into()),
        ("pool_idle_connections", "Connections to PostgreSQL that are idle.", Kind::Gauge, |pool| {
            pool.idle.into()
        }),
        ("pool_waits_total", "Times that a connection was waited for.", Kind::Counter, |pool| {
            pool.waits as f64
        }),
        ("pool_timeouts_total", "Times that none became free in time.", Kind::Counter, |pool| {
            pool.timeouts as f64
        }),
        ("pool_wait_seconds_total", "Time spent waiting for connections.", Kind::Counter, |pool| {
            pool.waited.as_secs_f64()
        }),
    ];
    for (name, help, kind, value) in values {
        let db = db.clone();
        metrics.pull(name, help, kind, move || value(db.pool_state()))?;
    }
    Ok(())
}
