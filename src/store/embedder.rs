//! Owns text → vector. Knows nothing of evidence, of projects or of where the vectors are kept.
//!
//! Vectors are L2-normalised, so that cosine similarity is a dot product. One process has one embedder and so
//! one model: vectors of two models are never compared.
//!
//! A question's vector comes from memory, or from another request that asks the same at the time, or from Redis, or
//! from the model, in this order. Questions that wait for the model are bounded in number.

#[cfg(feature = "minilm")]
mod bert;
mod flights;
mod http;
#[cfg(feature = "minilm")]
pub mod minilm;
mod recent;
#[cfg(feature = "minilm")]
mod workers;

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::config::{Config, EmbedderKind};
use crate::error::{Code, Error, Result};
use crate::store::redis::Redis;
use crate::telemetry::{Kind, Metrics};
use flights::Flights;
use recent::Recent;

/// How many query vectors stay in memory, and how many numbers they have together: 16 MB.
const RECENT_QUERIES_MAX: usize = 4_096;
const RECENT_NUMBERS_MAX: usize = 4 * 1024 * 1024;
/// How long they stay in Redis. It bounds memory, not staleness: a text's vector does not change.
const SHARED_LIFETIME: Duration = Duration::from_secs(24 * 60 * 60);

/// The name of the model inside the process.
pub const MINILM: &str = "all-MiniLM-L6-v2";

type Vector = Arc<[f32]>;

/// What turns text into vectors, or nothing. Cheap to clone; every clone shares one model and one cache.
#[derive(Clone)]
pub struct Embedder(Option<Arc<Shared>>);

struct Shared {
    model: Model,
    recent: Recent,
    redis: Redis,
    flights: Arc<Flights<Result<Vector>>>,
    /// For questions that wait for the model or are being embedded.
    places: Arc<Semaphore>,
    metrics: Arc<Metrics>,
}

enum Model {
    #[cfg(feature = "minilm")]
    MiniLm(minilm::MiniLm),
    Http(http::Http),
}

impl Embedder {
    /// The embedder that the settings name.
    ///
    /// `minilm` blocks for about half a second while it reads its files; a missing one is an error that names it. An
    /// endpoint is asked only if the settings do not say how long its vectors are.
    pub async fn open(config: &Config, redis: Redis, metrics: Arc<Metrics>) -> Result<Self> {
        let settings = &config.embedding;
        let model = match settings.embedder {
            EmbedderKind::Off => return Ok(Self::off()),
            #[cfg(feature = "minilm")]
            EmbedderKind::Minilm => Model::MiniLm(minilm::MiniLm::load(&config.model_dir())?),
            #[cfg(not(feature = "minilm"))]
            EmbedderKind::Minilm => {
                let text = "this program was built without the feature minilm; choose --embedder http or off";
                return Err(Error::new(Code::Unavailable, text));
            }
            EmbedderKind::Http => Model::Http(http::Http::open(settings).await?),
        };
        let queue = usize::try_from(settings.embedder_queue).unwrap_or(Semaphore::MAX_PERMITS);
        Self::over(model, queue, redis, metrics)
    }

    /// No embedder: whatever needs one answers UNAVAILABLE.
    pub fn off() -> Self {
        Self(None)
    }

    fn over(model: Model, queue: usize, redis: Redis, metrics: Arc<Metrics>) -> Result<Self> {
        let places = Arc::new(Semaphore::new(queue));
        let free = Arc::clone(&places);
        let help = "Questions that wait for the embedder or are being embedded.";
        let waiting = move || queue.saturating_sub(free.available_permits()) as f64;
        metrics.pull("embedder_queue_length", help, Kind::Gauge, waiting)?;
        let recent = RECENT_NUMBERS_MAX.checked_div(model.dimension()).unwrap_or(0).min(RECENT_QUERIES_MAX);
        let recent = Recent::new(recent);
        let flights = Flights::new();
        Ok(Self(Some(Arc::new(Shared { model, recent, redis, flights, places, metrics }))))
    }

    /// Whether there is one. It may be out of reach all the same.
    pub fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// The name of the model, part of every cache key and of the vector index's identity.
    pub fn model(&self) -> &str {
        self.0.as_ref().map_or("off", |shared| shared.model.name())
    }

    /// How many numbers a vector has.
    pub fn dimension(&self) -> usize {
        self.0.as_ref().map_or(0, |shared| shared.model.dimension())
    }

    /// Embeds texts for the index, in their order, without hurry: queries overtake between two batches.
    ///
    /// Text beyond the model's window does not count. Dropping the future abandons what has not begun. `UNAVAILABLE`
    /// if the model is out of reach.
    pub async fn embed(&self, texts: Vec<String>) -> Result<Vec<Vec<f32>>> {
        let shared = self.0.as_ref().ok_or_else(off)?;
        if texts.is_empty() {
            return Ok(Vec::new());
        }
        let begun = Instant::now();
        let vectors = match &shared.model {
            #[cfg(feature = "minilm")]
            Model::MiniLm(model) => model.embed(texts).await,
            Model::Http(model) => model.embed(&texts).await,
        };
        shared.metrics.embedder.embedded("index", vectors.is_ok(), begun.elapsed());
        vectors
    }

    /// Embeds one text at once, ahead of all indexing; the same text again comes from memory.
    ///
    /// `UNAVAILABLE` if the model is out of reach, or at once if too many questions wait for it.
    pub async fn embed_query(&self, text: &str) -> Result<Arc<[f32]>> {
        let shared = self.0.as_ref().ok_or_else(off)?;
        let key = cache_key(shared.model.name(), text);
        if let Some(vector) = shared.recent.get(&key) {
            shared.metrics.embedder.found("memory");
            return Ok(vector);
        }
        let start = || Arc::clone(shared).find(key.clone(), text.to_owned());
        let (flight, is_new) = shared.flights.join(&key, start);
        if !is_new {
            shared.metrics.embedder.found("shared");
        }
        flight.await
    }
}

impl Shared {
    async fn find(self: Arc<Self>, key: String, text: String) -> Result<Vector> {
        // The one who did the same may have ended between the caller's look and this flight.
        if let Some(vector) = self.recent.get(&key) {
            self.metrics.embedder.found("memory");
            return Ok(vector);
        }
        let bytes = self.redis.get(&key).await;
        if let Some(vector) = bytes.and_then(|bytes| from_bytes(&bytes, self.model.dimension())) {
            self.metrics.embedder.found("redis");
            self.recent.put(key, Arc::clone(&vector));
            return Ok(vector);
        }
        let vector = self.compute(&text).await?;
        self.metrics.embedder.found("model");
        self.recent.put(key.clone(), Arc::clone(&vector));
        if self.redis.is_on() {
            let (redis, bytes) = (self.redis.clone(), to_bytes(&vector));
            // Nobody waits for that.
            tokio::spawn(async move { redis.set(&key, &bytes, SHARED_LIFETIME).await });
        }
        Ok(vector)
    }

    async fn compute(&self, text: &str) -> Result<Vector> {
        let place = Arc::clone(&self.places).try_acquire_owned().map_err(|_| {
            self.metrics.refused("embedder_queue");
            Error::new(Code::Unavailable, "too many questions wait for the embedder; try again later")
        })?;
        let begun = Instant::now();
        let vector = self.model.embed_now(text, place).await;
        self.metrics.embedder.embedded("query", vector.is_ok(), begun.elapsed());
        Ok(vector?.into())
    }
}

impl Model {
    fn name(&self) -> &str {
        match self {
            #[cfg(feature = "minilm")]
            Self::MiniLm(_) => MINILM,
            Self::Http(model) => model.name(),
        }
    }

    fn dimension(&self) -> usize {
        match self {
            #[cfg(feature = "minilm")]
            Self::MiniLm(_) => minilm::DIMENSION,
            Self::Http(model) => model.dimension(),
        }
    }

    async fn embed_now(&self, text: &str, place: OwnedSemaphorePermit) -> Result<Vec<f32>> {
        match self {
            #[cfg(feature = "minilm")]
            Self::MiniLm(model) => model.embed_now(text, place).await,
            Self::Http(model) => model.embed_now(text, place).await,
        }
    }
}

impl fmt::Debug for Embedder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Embedder({}, {})", self.model(), self.dimension())
    }
}

/// `embed:{model}:{sha256 of the text}`: the key of a query vector in any cache, of this process or shared.
fn cache_key(model: &str, text: &str) -> String {
    format!("embed:{model}:{:x}", Sha256::digest(text))
}

/// As in Redis: each number in four bytes, the lowest first.
fn to_bytes(vector: &[f32]) -> Vec<u8> {
    vector.iter().flat_map(|number| number.to_le_bytes()).collect()
}

/// None if it is no vector of this length: somebody else's, or of the same model cut to another length.
fn from_bytes(bytes: &[u8], dimension: usize) -> Option<Vector> {
    let (numbers, rest) = bytes.as_chunks();
    let vector: Vector = numbers.iter().map(|number| f32::from_le_bytes(*number)).collect();
    let sound =
        rest.is_empty() && vector.len() == dimension && vector.iter().all(|number| number.is_finite());
    sound.then_some(vector)
}

fn off() -> Error {
    Error::new(Code::Unavailable, "semantic search is switched off on this server")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn off_answers_unavailable() {
        let embedder = Embedder::off();
        assert!(!embedder.is_on());
        assert_eq!(embedder.embed_query("anything").await.unwrap_err().code(), Code::Unavailable);
        assert_eq!(embedder.embed(vec!["anything".into()]).await.unwrap_err().code(), Code::Unavailable);
    }

    #[test]
    fn the_cache_key_names_model_and_text() {
        let sha256 = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(cache_key("some-model", "abc"), format!("embed:some-model:{sha256}"));
    }

    #[test]
    fn bytes_are_a_vector_of_the_length_or_nothing() {
        let vector = [1.0, -0.5, f32::MIN_POSITIVE];
        let bytes = to_bytes(&vector);
        assert_eq!(bytes[..4], [0, 0, 0x80, 0x3f]);
        assert_eq!(from_bytes(&bytes, 3).as_deref(), Some(&vector[..]));
        for (bytes, dimension) in [
            (&bytes[..], 2),
            (&bytes[..11], 3),
            (&bytes[..8], 3),
            (&[], 3),
            (&to_bytes(&[1.0, f32::NAN, 1.0]), 3),
        ] {
            assert_eq!(from_bytes(bytes, dimension), None, "{bytes:?}");
        }
    }
}
