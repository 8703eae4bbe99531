//! Owns the vector index: points with a payload, found again by nearness. Knows ids and projects, no entities.
//!
//! The index is a copy. Whatever is lost here is rebuilt from PostgreSQL, so every failure says what to rebuild
//! and none is repaired by guessing.

#[cfg(feature = "edge")]
pub mod edge;

use std::collections::HashMap;
use std::path::Path;
#[cfg(feature = "edge")]
use std::sync::Arc;

use serde_json::{Map, Value};
use uuid::Uuid;

use crate::error::{Code, Error, Result};

/// The payload key of [`Point::version`].
pub const VERSION: &str = "version";
/// The payload key of [`Point::project_id`].
pub const PROJECT_ID: &str = "project_id";
/// The deepest hit that a search may ask for, `offset + limit`: each costs memory in every segment.
pub const WINDOW_MAX: usize = 10_000;

/// One row of the index.
#[derive(Debug, Clone)]
pub struct Point {
    /// The id of the row that it stands for.
    pub id: Uuid,
    /// The row's version: of two writes of one id the higher version stays, in whichever order they come.
    pub version: i32,
    /// As many numbers as the index was made for.
    pub vector: Vec<f32>,
    /// Who may find it: searches are limited to projects.
    pub project_id: Uuid,
    /// What searches may filter by, besides. `version` and `project_id` are added by the index.
    pub payload: Map<String, Value>,
}

/// One answer of a search.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Hit {
    /// The id of the point.
    pub id: Uuid,
    /// The cosine of the angle to the question, -1 to 1; more is nearer.
    pub score: f32,
}

/// What a search looks for.
#[derive(Debug, Clone, Copy)]
pub struct Question<'a> {
    /// The nearest to this are the best.
    pub vector: &'a [f32],
    /// Only points of these projects; `None` is every project, an empty slice is none.
    pub projects: Option<&'a [Uuid]>,
    /// At most so many hits.
    pub limit: usize,
    /// Leave out so many of the best.
    pub offset: usize,
}

/// A vector store. Cheap to clone; every clone is the same index.
#[derive(Debug, Clone)]
pub enum Vectors {
    /// Qdrant's engine inside this process, in a folder of its own.
    #[cfg(feature = "edge")]
    Edge(Arc<edge::Edge>),
    /// No index: whatever needs one answers UNAVAILABLE.
    Off,
}

/// Calls the store that there is. One place says what "off" answers.
macro_rules! with_store {
    ($vectors:expr, $store:ident => $call:expr) => {
        match $vectors {
            #[cfg(feature = "edge")]
            Vectors::Edge($store) => $call,
            Vectors::Off => {
                Err(Error::new(Code::Unavailable, "semantic search is switched off on this server"))
            }
        }
    };
}

#[cfg_attr(not(feature = "edge"), allow(unused_variables, reason = "nobody is there to be given them"))]
impl Vectors {
    /// Opens the index in `dir`, or makes an empty one there.
    ///
    /// Fails when another process has it open, or when it was made with another model or dimension.
    pub async fn open(dir: &Path, model: &str, dimension: usize) -> Result<Self> {
        #[cfg(feature = "edge")]
        return Ok(Self::Edge(Arc::new(
            edge::Edge::open(dir, model, dimension, edge::Existing::Keep).await?,
        )));
        #[cfg(not(feature = "edge"))]
        Err(without_edge(dir, model, dimension))
    }

    /// Makes an empty index in `dir` and deletes the one that was there, of whatever model: the start of a reindex.
    ///
    /// Fails when another process has it open.
    pub async fn recreate(dir: &Path, model: &str, dimension: usize) -> Result<Self> {
        #[cfg(feature = "edge")]
        return Ok(Self::Edge(Arc::new(
            edge::Edge::open(dir, model, dimension, edge::Existing::Delete).await?,
        )));
        #[cfg(not(feature = "edge"))]
        Err(without_edge(dir, model, dimension))
    }

    /// Whether there is an index at all.
    pub fn is_on(&self) -> bool {
        !matches!(self, Self::Off)
    }

    /// Writes points, each as a whole; a point of which the index has the same or a higher version is left out.
    /// Answers how many were written.
    ///
    /// Searches see them at once; they outlive a crash only after [`Self::flush`].
    pub async fn upsert(&self, points: Vec<Point>) -> Result<usize> {
        with_store!(self, store => store.upsert(points).await)
    }

    /// Deletes points; unknown ids are fine. Not durable before [`Self::flush`].
    ///
    /// A deleted point leaves no version behind: an older write that comes later would bring it back.
    /// So whoever writes must read the row anew, or write in order.
    pub async fn delete(&self, ids: &[Uuid]) -> Result<()> {
        with_store!(self, store => store.delete(ids).await)
    }

    /// The indexed versions of those of `ids` that are indexed.
    pub async fn versions(&self, ids: &[Uuid]) -> Result<HashMap<Uuid, i32>> {
        with_store!(self, store => store.versions(ids).await)
    }

    /// The nearest points, best first, equal ones by id.
    pub async fn search(&self, question: Question<'_>) -> Result<Vec<Hit>> {
        with_store!(self, store => store.search(question).await)
    }

    /// How many points there are.
    pub async fn count(&self) -> Result<usize> {
        with_store!(self, store => store.count().await)
    }

    /// Merges and indexes what was written since: without it every search compares every vector.
    /// Searches go on meanwhile, writes wait. Answers whether there was anything to do.
    pub async fn optimize(&self) -> Result<bool> {
        with_store!(self, store => store.optimize().await)
    }

    /// Makes everything written so far durable. Call it once per batch, before remembering how far the batch went.
    pub async fn flush(&self) -> Result<()> {
        with_store!(self, store => store.flush().await)
    }

    /// Deletes every point, for good.
    pub async fn clear(&self) -> Result<()> {
        with_store!(self, store => store.clear().await)
    }
}

#[cfg(not(feature = "edge"))]
fn without_edge(dir: &Path, model: &str, dimension: usize) -> Error {
    Error::new(Code::Unavailable, "this program was built without the feature edge")
        .because(format!("no index of {model} ({dimension} dimensions) in {}", dir.display()))
}

#[cfg(test)]
mod tests;
