//! Documents by their hashes: those that clients sent once (automatic persisted queries), in memory and in Redis, and
//! those that an operator registered, in the database.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::model::document::{DocumentHash, find};
use crate::store::db::Db;
use crate::store::redis::Redis;

/// Bytes of all documents in memory.
const BYTES: u64 = 32 << 20;
/// About how many documents that are.
const ITEMS: usize = 16_384;
/// How long Redis keeps what clients sent, after it was sent last.
const LIFETIME: Duration = Duration::from_secs(7 * 86_400);
/// How long a document is believed to be registered by nobody.
const UNTRUSTED: Duration = Duration::from_secs(10);

/// A document.
#[derive(Debug, Clone)]
pub struct Document {
    /// The text.
    pub text: Arc<str>,
    /// Whether an operator registered it.
    pub trusted: bool,
    looked: Instant,
}

/// The documents. All clones are the same.
#[derive(Clone)]
pub struct Documents {
    known: Arc<quick_cache::sync::Cache<DocumentHash, Document, Weigh>>,
    redis: Redis,
    db: Db,
}

/// Weighs documents by their bytes.
#[derive(Debug, Clone, Copy)]
struct Weigh;

impl quick_cache::Weighter<DocumentHash, Document> for Weigh {
    fn weight(&self, _: &DocumentHash, document: &Document) -> u64 {
        document.text.len() as u64 + 128
    }
}

impl Documents {
    /// None are known yet.
    pub fn new(redis: Redis, db: Db) -> Self {
        Self { known: Arc::new(quick_cache::sync::Cache::with_weighter(ITEMS, BYTES, Weigh)), redis, db }
    }

    /// The document of a hash. With `trusted` it matters whether an operator registered it.
    pub async fn find(&self, hash: DocumentHash, trusted: bool) -> Option<Document> {
        let known = self.known.get(&hash);
        if known.as_ref().is_some_and(|known| known.trusted || !trusted || known.looked.elapsed() < UNTRUSTED)
        {
            return known;
        }
        // A session of its own: what a request costs does not depend on who was here before. Without the database
        // there is nobody to ask, and Redis may still know.
        let registered = find(&self.db.session(), hash).await.unwrap_or_else(|error| {
            tracing::debug!(?error, "registered documents cannot be read");
            None
        });
        let is_registered = registered.is_some();
        let text = match (registered, known) {
            (Some(text), _) => Some(text.into()),
            (None, Some(known)) => Some(known.text),
            (None, None) => self.shared(hash).await,
        };
        let document = Document { text: text?, trusted: is_registered, looked: Instant::now() };
        self.known.insert(hash, document.clone());
        Some(document)
    }

    /// Keeps what a client sent, whose hash it is.
    pub fn keep(&self, hash: DocumentHash, text: &str) {
        if self.known.get(&hash).is_some() {
            return;
        }
        self.known.insert(hash, Document { text: text.into(), trusted: false, looked: Instant::now() });
        let (redis, text) = (self.redis.clone(), text.to_owned());
        tokio::spawn(async move { redis.set(&format!("document:{hash}"), text.as_bytes(), LIFETIME).await });
    }

    async fn shared(&self, hash: DocumentHash) -> Option<Arc<str>> {
        let text = String::from_utf8(self.redis.get(&format!("document:{hash}")).await?).ok()?;
        (DocumentHash::of(&text) == hash).then(|| text.into())
    }
}
