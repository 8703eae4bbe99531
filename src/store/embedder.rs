//! Owns text → vector. Knows nothing of evidence, of projects or of where the vectors are kept.
//!
//! Vectors are L2-normalised, so that cosine similarity is a dot product. One process has one embedder and so
//! one model: vectors of two models are never compared.

#[cfg(feature = "minilm")]
mod bert;
#[cfg(feature = "minilm")]
pub mod minilm;
mod recent;
#[cfg(feature = "minilm")]
mod workers;

use std::path::Path;
use std::sync::Arc;

use sha2::{Digest, Sha256};

use crate::error::{Code, Error, Result};
use recent::Recent;

/// How many query vectors stay in memory: at 384 dimensions about 7 MB.
const RECENT_QUERIES_MAX: usize = 4_096;

/// What turns text into vectors. Cheap to clone; every clone shares one model and one cache.
#[derive(Debug, Clone)]
pub struct Embedder {
    model: Model,
    recent: Arc<Recent>,
}

#[derive(Debug, Clone)]
enum Model {
    #[cfg(feature = "minilm")]
    MiniLm(Arc<minilm::MiniLm>),
    Off,
}

impl Embedder {
    /// all-MiniLM-L6-v2, computed by this process from the files in `dir`.
    ///
    /// Blocks for about half a second while it reads them; a missing file is an error that names it.
    pub fn minilm(dir: &Path) -> Result<Self> {
        #[cfg(feature = "minilm")]
        return Ok(Self::over(Model::MiniLm(Arc::new(minilm::MiniLm::load(dir)?))));
        #[cfg(not(feature = "minilm"))]
        Err(Error::new(Code::Unavailable, "this program was built without the feature minilm")
            .because(format!("the model in {} cannot be used", dir.display())))
    }

    /// No embedder: whatever needs one answers UNAVAILABLE.
    pub fn off() -> Self {
        Self::over(Model::Off)
    }

    fn over(model: Model) -> Self {
        Self { model, recent: Arc::new(Recent::new(RECENT_QUERIES_MAX)) }
    }

    /// Whether texts can be embedded at all.
    pub fn is_on(&self) -> bool {
        !matches!(self.model, Model::Off)
    }

    /// The name of the model, part of every cache key and of the vector index's identity.
    pub fn model(&self) -> &str {
        match &self.model {
            #[cfg(feature = "minilm")]
            Model::MiniLm(_) => minilm::NAME,
            Model::Off => "off",
        }
    }

    /// How many numbers a vector has.
    pub fn dimension(&self) -> usize {
        match &self.model {
            #[cfg(feature = "minilm")]
            Model::MiniLm(_) => minilm::DIMENSION,
            Model::Off => 0,
        }
    }

    /// Embeds texts for the index, in their order, without hurry: queries overtake between two batches.
    ///
    /// Text beyond the model's window does not count. Dropping the future abandons what has not begun.
    #[cfg_attr(not(feature = "minilm"), allow(unused_variables, reason = "nobody is there to be given them"))]
    pub async fn embed(&self, texts: Vec<String>) -> Result<Vec<Vec<f32>>> {
        match &self.model {
            #[cfg(feature = "minilm")]
            Model::MiniLm(model) => model.embed(texts).await,
            Model::Off => Err(off()),
        }
    }

    /// Embeds one text at once, ahead of all indexing; the same text again comes from memory.
    pub async fn embed_query(&self, text: &str) -> Result<Arc<[f32]>> {
        let key = self.cache_key(text);
        if let Some(vector) = self.recent.get(&key) {
            return Ok(vector);
        }
        let vector: Arc<[f32]> = self.compute_now(text).await?.into();
        self.recent.put(key, Arc::clone(&vector));
        Ok(vector)
    }

    #[cfg_attr(not(feature = "minilm"), allow(unused_variables, reason = "nobody is there to be given it"))]
    async fn compute_now(&self, text: &str) -> Result<Vec<f32>> {
        match &self.model {
            #[cfg(feature = "minilm")]
            Model::MiniLm(model) => model.embed_now(text).await,
            Model::Off => Err(off()),
        }
    }

    /// `embed:{model}:{sha256 of the text}`: the key of a query vector in any cache, of this process or shared.
    pub fn cache_key(&self, text: &str) -> String {
        format!("embed:{}:{:x}", self.model(), Sha256::digest(text))
    }
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
        assert_eq!(
            Embedder::off().cache_key("abc"),
            "embed:off:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
    }
}
