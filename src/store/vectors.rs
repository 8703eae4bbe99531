//! Owns the vector index: points with a dense vector, a vector of words and a payload, found again by nearness, by
//! words and by conditions. Knows ids, keys and vectors, no entities.
//!
//! The index is a copy. Whatever is lost here is rebuilt from PostgreSQL, so every failure says what to rebuild
//! and none is repaired by guessing.
//!
//! **Of two writes of one id the higher version stays**, in whichever order they arrive and whoever sends them, also
//! when one of them is a deletion: a deletion leaves the id, its version and the moment behind, and nothing that a
//! search or a count could find, until [`Vectors::purge`].

#[cfg(feature = "edge")]
pub mod edge;
mod filter;
pub mod qdrant;
mod rank;
mod rarity;
mod stages;
mod words;

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use serde_json::{Map, Value};
use uuid::Uuid;

use crate::config::VectorSettings;
use crate::error::{Code, Error, Result};

pub use filter::Filter;
pub use rank::{Ranked, Stage, cosine, diversify, toward};
pub use words::Words;

/// The payload key of [`Point::version`].
pub const VERSION: &str = "version";
/// When a point was deleted, in its payload. Points that are there have none.
const DELETED_AT: &str = "deleted_at";
/// The payload key under which a point may say what its dense vector was made of, such as a hash of its text.
pub const DIGEST: &str = "digest";
/// The payload key of the bookmark, which only the point [`BOOKMARK_ID`] has.
const BOOKMARK: &str = "bookmark";
/// The point that keeps the bookmark, and passes for deleted.
const BOOKMARK_ID: Uuid = Uuid::nil();
/// When the bookmark passes for deleted: no purge reaches it.
const NEVER: &str = "9999-12-31T23:59:59Z";
/// Values of a key that are counted: the most frequent ones.
const FACET_VALUES_MAX: usize = 1_000;
/// The deepest hit that a search may ask for: each costs memory in every segment.
pub const WINDOW_MAX: usize = 10_000;
/// The vector of the embedder.
const DENSE: &str = "dense";
/// The vector of the words.
const BM25: &str = "bm25";
/// How points are laid out. Raised when that changes, so that an index of another layout is refused.
const FORMAT: u32 = 3;
/// How many near points an engine keeps in mind while it walks its graph, which it builds beyond about 6,700 vectors.
/// Its own default, 100, missed 2 of 500 true neighbours among 10,000 points; this missed none, in up to twice the time.
const GRAPH_CANDIDATES: usize = 256;

/// What an index is made for. An index of another layout is refused: its numbers mean something else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    /// Who made the dense vectors.
    pub model: String,
    /// Numbers of a dense vector.
    pub dimension: usize,
    /// The payload keys that can be filtered by.
    pub keys: &'static [(&'static str, Kind)],
}

/// What the values of a payload key are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The id by which most questions are limited; the points of one are kept close together.
    Tenant,
    /// Ids.
    Id,
    /// Words of a closed or open set. They can be counted by [`Vectors::facets`], as flags and ids can.
    Keyword,
    /// Numbers.
    Number,
    /// true or false.
    Flag,
    /// Times, as RFC 3339 says.
    Time,
}

/// Weights by index; equal indices are equal words.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Sparse {
    /// Each at most once.
    pub indices: Vec<u32>,
    /// As many.
    pub values: Vec<f32>,
}

/// One row of the index.
#[derive(Debug, Clone)]
pub struct Point {
    /// The id of the row that it stands for; not the nil id, which is taken.
    pub id: Uuid,
    /// The row's version.
    pub version: i32,
    /// As many finite numbers as the layout says.
    pub dense: Vec<f32>,
    /// What words find it; may be empty.
    pub sparse: Sparse,
    /// The values of the layout's keys, and what is kept under [`DIGEST`]. `version` and `deleted_at` belong to the
    /// index.
    pub payload: Map<String, Value>,
}

/// What a search looks for: points near to a vector, points with some words, or both lists at once.
#[derive(Debug, Clone, Default)]
pub struct Question {
    /// The nearest to this make the list `dense`.
    pub dense: Option<Vec<f32>>,
    /// Those that these words fit best make the list `sparse`.
    pub sparse: Option<Sparse>,
    /// Only such points; words are weighed by how rare they are among these.
    pub scope: Option<Filter>,
    /// And of these only such points.
    pub filter: Option<Filter>,
    /// At most so many hits in each list; up to [`WINDOW_MAX`].
    pub limit: usize,
    /// Compare every vector instead of trusting the graph.
    pub exact: bool,
    /// Give the dense vectors of the hits too, for [`diversify`].
    pub with_vectors: bool,
}

/// One hit of one list.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Hit {
    /// The id of the point.
    pub id: Uuid,
    /// In `dense` the cosine of the angle to the question, -1 to 1; in `sparse` BM25. More is better.
    pub score: f32,
}

/// What a question found. Lists are best first, equal hits by id.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Answer {
    /// By nearness.
    pub dense: Vec<Hit>,
    /// By words.
    pub sparse: Vec<Hit>,
    /// Dense vectors of the hits, of length 1, if they were asked for.
    pub vectors: HashMap<Uuid, Vec<f32>>,
}

/// The values of one key and how many points have each, most frequent first, equal ones by value.
pub type Facet = Vec<(String, usize)>;

/// A vector store. Cheap to clone; every clone is the same index.
#[derive(Debug, Clone)]
pub enum Vectors {
    /// Qdrant's engine inside this process, in a folder of its own.
    #[cfg(feature = "edge")]
    Edge(Arc<edge::Edge>),
    /// A Qdrant server or cluster.
    Qdrant(Arc<qdrant::Qdrant>),
    /// No index: whatever needs one answers UNAVAILABLE.
    Off,
}

/// Calls the store that there is. One place says what "off" answers.
macro_rules! with_store {
    ($vectors:expr, $store:ident => $call:expr) => {
        match $vectors {
            #[cfg(feature = "edge")]
            Vectors::Edge($store) => $call,
            Vectors::Qdrant($store) => $call,
            Vectors::Off => {
                Err(Error::new(Code::Unavailable, "semantic search is switched off on this server"))
            }
        }
    };
}

impl Vectors {
    /// Opens the index, or makes an empty one: on the Qdrant server that the settings name, or else in `dir`.
    ///
    /// Fails when the index has another layout, and in a folder when another process has it open. A Qdrant server may
    /// be down: calls then fail until it is back, and the layout is checked as soon as it is.
    pub async fn open(settings: &VectorSettings, dir: &Path, layout: Layout) -> Result<Self> {
        if settings.qdrant_url.is_some() {
            return Ok(Self::Qdrant(Arc::new(qdrant::Qdrant::open(settings, layout).await?)));
        }
        #[cfg(feature = "edge")]
        return Ok(Self::Edge(Arc::new(edge::Edge::open(dir, layout).await?)));
        #[cfg(not(feature = "edge"))]
        Err(without_edge(dir, &layout))
    }

    /// Opens the draft of a new index beside the present one, which goes on serving: the one that a former attempt
    /// left, if it has this layout, or else an empty one. The present index may be of any layout, or broken.
    ///
    /// Fails when another process has the draft open, and when a Qdrant server is down.
    pub async fn draft(settings: &VectorSettings, dir: &Path, layout: Layout) -> Result<Self> {
        if settings.qdrant_url.is_some() {
            return Ok(Self::Qdrant(Arc::new(qdrant::Qdrant::draft(settings, layout).await?)));
        }
        #[cfg(feature = "edge")]
        return Ok(Self::Edge(Arc::new(edge::Edge::draft(dir, layout).await?)));
        #[cfg(not(feature = "edge"))]
        Err(without_edge(dir, &layout))
    }

    /// Puts a draft in the place of the index, at once and as a whole, and deletes the former one. Processes on a Qdrant
    /// server see it with their next call; the one that has a folder open, with its next [`Self::refresh`]. The
    /// draft is closed by this, and other clones of it are of no use any more.
    ///
    /// What was written to the former index since the draft's bookmark must be written again.
    pub async fn publish(&self) -> Result<()> {
        with_store!(self, store => store.publish().await)
    }

    /// Looks whether another index was published, and goes over to it. Cheap if not. The bookmark then is that one's.
    ///
    /// Fails if that one has another layout; the former one then goes on serving, as far as it is still there.
    pub async fn refresh(&self) -> Result<bool> {
        with_store!(self, store => store.refresh().await)
    }

    /// Whether there is an index at all.
    pub fn is_on(&self) -> bool {
        !matches!(self, Self::Off)
    }

    /// What names the index for all processes that may write to it; none if only this one can.
    pub fn shared_name(&self) -> Option<String> {
        match self {
            Self::Qdrant(store) => Some(store.shared_name()),
            _ => None,
        }
    }

    /// Whether the process was killed that had it open before: what was written since the last [`Self::flush`] may be
    /// there in part, with the version of one write and the vector of another.
    pub fn was_killed(&self) -> bool {
        match self {
            #[cfg(feature = "edge")]
            Self::Edge(store) => store.was_killed(),
            _ => false,
        }
    }

    /// Writes points, each as a whole; a point of which the index has the same or a higher version is left out.
    ///
    /// Searches see them at once; they outlive a crash only after [`Self::flush`].
    pub async fn upsert(&self, points: Vec<Point>) -> Result<()> {
        with_store!(self, store => store.upsert(points).await)
    }

    /// Deletes points up to a version, each; a point with a higher version stays. Later writes of these or lower
    /// versions are left out, until [`Self::purge`]. Not durable before [`Self::flush`].
    pub async fn delete(&self, versions: &[(Uuid, i32)]) -> Result<()> {
        with_store!(self, store => store.delete(versions, Utc::now()).await)
    }

    /// Removes points and whatever deletions left of them, versions too: any write of these ids is then news. For rows
    /// that began again at a lower version, as after a restore.
    pub async fn forget(&self, ids: &[Uuid]) -> Result<()> {
        with_store!(self, store => store.forget(ids).await)
    }

    /// Forgets deletions before a moment. No older write may be on its way any more.
    pub async fn purge(&self, before: DateTime<Utc>) -> Result<()> {
        with_store!(self, store => store.purge(before).await)
    }

    /// The indexed versions of those of `ids` that are there.
    pub async fn versions(&self, ids: &[Uuid]) -> Result<HashMap<Uuid, i32>> {
        with_store!(self, store => store.versions(ids).await)
    }

    /// All points that are there in the order of their ids, `limit` after an id, with their versions.
    pub async fn scroll(&self, after: Option<Uuid>, limit: usize) -> Result<Vec<(Uuid, i32)>> {
        with_store!(self, store => store.scroll(after, limit).await)
    }

    /// The dense vectors, of length 1, of those of `ids` that are there.
    pub async fn vectors(&self, ids: &[Uuid]) -> Result<HashMap<Uuid, Vec<f32>>> {
        with_store!(self, store => store.vectors(ids).await)
    }

    /// The dense vectors, of length 1, of those of `ids` that are there and say what theirs was made of: each after that.
    pub async fn digests(&self, ids: &[Uuid]) -> Result<HashMap<Uuid, (String, Vec<f32>)>> {
        with_store!(self, store => store.digests(ids).await)
    }

    /// Answers questions, in their order: one request to the store for all of them, and few more if hundreds of equal
    /// scores stand where a list ends, or if words have not been counted lately.
    pub async fn ask(&self, questions: Vec<Question>) -> Result<Vec<Answer>> {
        stages::answer(self, questions).await
    }

    async fn lists(&self, asks: Vec<stages::Ask>) -> Result<Vec<stages::List>> {
        with_store!(self, store => store.lists(asks).await)
    }

    async fn weigh(&self, questions: &mut [Question]) -> Result<()> {
        with_store!(self, store => store.rarity().weigh(self, questions).await)
    }

    fn dimension(&self) -> Result<usize> {
        with_store!(self, store => Ok(store.layout().dimension))
    }

    /// How many points fit the filter, exactly.
    pub async fn count(&self, filter: Option<Filter>) -> Result<usize> {
        let Some(filter) = stages::living(filter) else { return Ok(0) };
        with_store!(self, store => store.count(filter).await)
    }

    /// For each key its most frequent values among the points that fit the filter, `limit` at most, counted exactly.
    pub async fn facets(
        &self,
        keys: &[&'static str],
        filter: Option<Filter>,
        limit: usize,
    ) -> Result<Vec<Facet>> {
        let Some(filter) = stages::living(filter) else { return Ok(vec![Vec::new(); keys.len()]) };
        let mut facets = with_store!(self, store => store.facets(keys, filter).await)?;
        for facet in &mut facets {
            facet.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
            facet.truncate(limit);
        }
        Ok(facets)
    }

    /// Keeps a text with the index, as durable as the points written before it: how far the indexer came. It is
    /// gone when the index is.
    pub async fn set_bookmark(&self, text: &str) -> Result<()> {
        with_store!(self, store => store.set_bookmark(text).await)
    }

    /// Replaces the text that was kept last. False if that is not `from`: then this is another index than the one of
    /// which the caller knows, one that was published, restored or made anew, and its text stays.
    pub async fn move_bookmark(&self, from: &str, to: &str) -> Result<bool> {
        with_store!(self, store => store.move_bookmark(from, to).await)
    }

    /// The text that was kept last.
    pub async fn bookmark(&self) -> Result<Option<String>> {
        with_store!(self, store => store.bookmark().await)
    }

    /// Merges and indexes what was written since: in a folder every search compares every vector without it. A Qdrant
    /// server does it itself. Searches go on meanwhile, writes wait. Answers whether there was anything to do.
    pub async fn optimize(&self) -> Result<bool> {
        with_store!(self, store => store.optimize().await)
    }

    /// Makes everything written so far durable. Call it once per batch, before remembering how far the batch went.
    pub async fn flush(&self) -> Result<()> {
        with_store!(self, store => store.flush().await)
    }

    /// Deletes every point and the bookmark, for good.
    pub async fn clear(&self) -> Result<()> {
        with_store!(self, store => store.clear().await)
    }
}

impl Layout {
    /// The keys and their kinds as one text.
    fn keys_text(&self) -> String {
        let keys: Vec<String> = self.keys.iter().map(|(key, kind)| format!("{key}:{kind:?}")).collect();
        keys.join(",")
    }

    /// Every key that the engine gets an index for.
    fn indexed(&self) -> impl Iterator<Item = (&'static str, Indexed)> {
        let time = Indexed::Of(Kind::Time);
        // A cluster may refuse conditions on what has no index.
        let own = [(VERSION, Indexed::Integer), (DELETED_AT, time), (BOOKMARK, Indexed::Of(Kind::Keyword))];
        own.into_iter().chain(self.keys.iter().map(|(key, kind)| (*key, Indexed::Of(*kind))))
    }

    /// What an engine would write and no search could compare, and notice much later.
    fn check(&self, points: &[Point]) -> Result<()> {
        points
            .iter()
            .try_for_each(|point| stages::check(&point.dense, self.dimension).map_err(Error::internal))
    }

    fn refuse(&self, place: &str, model: &str, dimension: usize, format: u32) -> Error {
        let text = if (model, dimension) == (self.model.as_str(), self.dimension) {
            format!("the vector index {place} was made by another version of the program (format {format})")
        } else {
            let (own, numbers) = (&self.model, self.dimension);
            format!(
                "the vector index {place} was made for {model} ({dimension} dimensions), not for {own} ({numbers})"
            )
        };
        Error::new(Code::Unavailable, format!("{text}; rebuild it with `reindex`"))
    }
}

/// The index of a payload key.
enum Indexed {
    Integer,
    Of(Kind),
}

/// Of several points of one id the one with the highest version.
fn newest(points: Vec<Point>) -> Vec<Point> {
    let mut newest: HashMap<Uuid, Point> = HashMap::with_capacity(points.len());
    for point in points {
        if newest.get(&point.id).is_none_or(|other| other.version < point.version) {
            newest.insert(point.id, point);
        }
    }
    newest.into_values().collect()
}

#[cfg(not(feature = "edge"))]
fn without_edge(dir: &Path, layout: &Layout) -> Error {
    Error::new(Code::Unavailable, "this program was built without the feature edge; give it a --qdrant-url")
        .because(format!("no index {layout:?} in {}", dir.display()))
}
