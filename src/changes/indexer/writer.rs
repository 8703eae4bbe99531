//! The writer: brings rows of the index to what the table says now, whatever was said of them before. It asks the
//! table and the index how they stand, so that it can be told the same twice and be stopped at any moment.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::embedding::embed;
use crate::app::App;
use crate::error::Result;
use crate::model::change::{Change, Op};
use crate::model::parked::{self, Parked, Refused};
use crate::model::searched::{Document, is_searched, read_documents, read_standing};
use crate::store::db::Session;
use crate::store::embedder::Embedder;
use crate::store::vectors::{DIGEST, Point, Vectors, Words};
use crate::telemetry::IndexerMetrics;

/// Rows looked at in one piece of work.
pub const LOOK: usize = 256;
/// Rows written at once: small, so that a stop never waits long.
pub const STEP: usize = 64;
/// What is written is made durable this often.
const FLUSH: Duration = Duration::from_secs(1);
/// Letters of a digest: 128 bits of the SHA-256.
const DIGEST_LETTERS: usize = 32;

/// Who writes, from where to where.
pub struct Writer {
    session: Session,
    embedder: Embedder,
    words: Words,
    vectors: Vectors,
    metrics: IndexerMetrics,
    flushed: Instant,
    /// An index of the same model whose vectors may be copied.
    pub source: Option<Vectors>,
    /// Try also what is parked.
    pub insists: bool,
    /// A vector of the index may be of another text than the index says.
    pub distrusts: bool,
    /// Rows written since this was last set to zero.
    pub written: usize,
}

/// Rows whose history in the index may be that of another life: one that was deleted and made again begins with
/// version 1, and so does everything after a restore.
#[derive(Debug, Clone, Copy)]
pub enum Reborn<'a> {
    /// These were inserted, or written by a process that was killed: whatever the index has of them may be of another
    /// life, or of two writes, also under the right version.
    These(&'a HashSet<Uuid>),
    /// All rows are compared: what has a higher version than the table is of another life.
    Compared,
}

impl Reborn<'_> {
    fn is_right(&self, id: &Uuid, indexed: i32, version: i32) -> bool {
        match self {
            Self::These(ids) => !ids.contains(id) && indexed >= version,
            Self::Compared => indexed == version,
        }
    }

    /// Whether nothing that the index has of a row is worth anything.
    fn is_other(&self, id: &Uuid, indexed: Option<i32>, version: i32) -> bool {
        match self {
            Self::These(ids) => ids.contains(id),
            Self::Compared => indexed.is_some_and(|indexed| indexed > version),
        }
    }
}

/// What a batch of changes touches.
#[derive(Debug, Default)]
pub struct Touched {
    /// The rows, each once.
    pub ids: Vec<Uuid>,
    /// Those of them of which the index may have something of another life, as [`Reborn::These`].
    pub reborn: HashSet<Uuid>,
    /// All rows of a table are gone.
    pub truncated: bool,
}

impl Touched {
    /// Of the changes of searched entities among these; of suspect ones the index may have a part.
    pub fn by(changes: &[Change], is_suspect: impl Fn(&Change) -> bool) -> Self {
        let (mut touched, mut seen) = (Self::default(), HashSet::new());
        for change in changes.iter().filter(|change| is_searched(&change.entity)) {
            touched.truncated |= change.op == Op::Truncate;
            let Some(id) = change.id else { continue };
            if seen.insert(id) {
                touched.ids.push(id);
            }
            if change.op == Op::Insert || is_suspect(change) {
                touched.reborn.insert(id);
            }
        }
        touched
    }
}

/// A row that is to be written.
#[derive(Debug, Clone, Copy)]
pub struct Due {
    id: Uuid,
    /// The index has something of it.
    is_there: bool,
    /// And that is worth nothing.
    is_other: bool,
    is_parked: bool,
}

impl Writer {
    /// Writes to the index of the app.
    pub fn new(app: &App) -> Self {
        let (embedder, words) = (app.searcher.embedder.clone(), app.searcher.words.clone());
        Self::to(app.searcher.vectors.clone(), app.db.session(), embedder, words, app.metrics.indexer.clone())
    }

    /// Writes to an index.
    pub fn to(
        vectors: Vectors,
        session: Session,
        embedder: Embedder,
        words: Words,
        metrics: IndexerMetrics,
    ) -> Self {
        let flushed = Instant::now();
        Self {
            session,
            embedder,
            words,
            vectors,
            metrics,
            flushed,
            source: None,
            insists: false,
            distrusts: false,
            written: 0,
        }
    }

    /// Deletes those of some rows that are gone, and says which others the index lacks.
    pub async fn look(&mut self, ids: &[Uuid], reborn: Reborn<'_>) -> Result<Vec<Due>> {
        let rows = read_standing(&self.session, ids).await?;
        let have = self.vectors.versions(ids).await?;
        let parked = parked::of(&self.session, self.embedder.model(), ids).await?;
        let (mut due, mut gone, mut unneeded) = (Vec::new(), Vec::new(), Vec::new());
        for id in ids {
            let indexed = have.get(id).copied();
            match rows.get(id) {
                Some(row) if !row.is_deleted => {
                    let is_right = indexed.is_some_and(|it| reborn.is_right(id, it, row.version));
                    let is_other = reborn.is_other(id, indexed, row.version);
                    let parked = parked.get(id);
                    if is_right {
                        unneeded.extend(parked.map(|_| *id));
                    } else if parked.is_none_or(|parked| self.tries(parked, row.version)) {
                        let (is_there, is_parked) = (indexed.is_some(), parked.is_some());
                        due.push(Due { id: *id, is_there, is_other, is_parked });
                    }
                }
                Some(row) => gone.push((*id, row.version)),
                // Its last version is not known any more; nothing of it comes back but a new row.
                None => gone.push((*id, i32::MAX)),
            }
        }
        self.delete(&gone, &have, reborn).await?;
        unneeded.extend(gone.iter().map(|(id, _)| *id).filter(|id| parked.contains_key(id)));
        self.unpark(&unneeded).await?;
        Ok(due)
    }

    fn tries(&self, parked: &Parked, version: i32) -> bool {
        self.insists || parked.retry || parked.version != version
    }

    async fn delete(
        &mut self,
        gone: &[(Uuid, i32)],
        have: &HashMap<Uuid, i32>,
        reborn: Reborn<'_>,
    ) -> Result<()> {
        let is_other = |(id, version): &&(Uuid, i32)| reborn.is_other(id, have.get(id).copied(), *version);
        let ghosts: Vec<_> = gone.iter().filter(is_other).map(|(id, _)| *id).collect();
        if !ghosts.is_empty() {
            self.vectors.forget(&ghosts).await?;
        }
        if !gone.is_empty() {
            self.vectors.delete(gone).await?;
            let deleted = gone.iter().filter(|(id, _)| have.contains_key(id)).count();
            self.metrics.wrote("deleted", deleted);
            self.written += deleted;
        }
        Ok(())
    }

    /// Writes rows, [`STEP`] at most.
    pub async fn step(&mut self, due: &[Due]) -> Result<()> {
        let ids = due.iter().map(|due| due.id).collect();
        // What is gone by now is told of later.
        let mut documents = read_documents(&self.session, ids).await?;
        let texts: Vec<String> =
            documents.iter_mut().map(|document| std::mem::take(&mut document.text)).collect();
        let digests: Vec<String> = texts.iter().map(|text| digest(text)).collect();
        let known = self.known(due, &documents, &digests).await?;
        let reused = documents.iter().filter(|document| known.contains_key(&document.id)).count();
        let (mut points, mut refused) = (Vec::new(), Vec::new());
        let words: Vec<_> = texts.iter().map(|text| self.words.document(text)).collect();
        let mut vectors = self.embed_unknown(&documents, texts, &digests, known).await?;
        for ((document, sparse), digest) in documents.into_iter().zip(words).zip(digests) {
            let Document { id, version, mut payload, .. } = document;
            match vectors.remove(&id) {
                Some(Ok(dense)) => {
                    payload.insert(DIGEST.to_owned(), digest.into());
                    points.push(Point { id, version, dense, sparse, payload });
                }
                Some(Err((reason, attempts))) => refused.push(Refused { id, version, reason, attempts }),
                None => {}
            }
        }
        let written: HashSet<Uuid> = points.iter().map(|point| point.id).collect();
        self.metrics.wrote("reused", reused);
        self.metrics.wrote("embedded", written.len().saturating_sub(reused));
        self.written += written.len();
        self.write(due, points).await?;
        if !refused.is_empty() {
            tracing::warn!(
                rows = refused.len(),
                reason = refused[0].reason,
                "the embedder does not take rows"
            );
            parked::park(&self.session, self.embedder.model(), &refused).await?;
        }
        let parked = due.iter().filter(|due| due.is_parked).map(|due| due.id);
        self.unpark(&parked.filter(|id| written.contains(id)).collect::<Vec<_>>()).await?;
        if self.flushed.elapsed() >= FLUSH {
            self.flush().await?;
        }
        Ok(())
    }

    /// The vectors of texts that were embedded before.
    async fn known(
        &self,
        due: &[Due],
        documents: &[Document],
        digests: &[String],
    ) -> Result<HashMap<Uuid, Vec<f32>>> {
        let trusted = |due: &&Due| due.is_there && !(due.is_other && self.distrusts);
        let there: Vec<Uuid> = due.iter().filter(trusted).map(|due| due.id).collect();
        let mut found = HashMap::new();
        if !there.is_empty() {
            found = self.vectors.digests(&there).await?;
        }
        if let Some(source) = &self.source {
            let ids: Vec<Uuid> = documents.iter().map(|document| document.id).collect();
            // It may go away meanwhile: what cannot be copied is embedded.
            let copied = source.digests(&ids).await.unwrap_or_default();
            for (document, digest) in documents.iter().zip(digests) {
                if let Some(copy) = copied.get(&document.id).filter(|(of, _)| of == digest) {
                    found.insert(document.id, copy.clone());
                }
            }
        }
        let same = |(document, digest): (&Document, &String)| {
            let (of, vector) = found.remove(&document.id)?;
            (of == *digest).then_some((document.id, vector))
        };
        Ok(documents.iter().zip(digests).filter_map(same).collect())
    }

    /// The vectors of all documents; for one that the embedder does not take, why and after how many attempts.
    async fn embed_unknown(
        &self,
        documents: &[Document],
        texts: Vec<String>,
        digests: &[String],
        known: HashMap<Uuid, Vec<f32>>,
    ) -> Result<HashMap<Uuid, Result<Vec<f32>, (String, u32)>>> {
        let mut places: HashMap<&str, usize> = HashMap::new();
        let mut unique = Vec::new();
        for ((document, text), digest) in documents.iter().zip(texts).zip(digests) {
            if !known.contains_key(&document.id) && !places.contains_key(digest.as_str()) {
                places.insert(digest, unique.len());
                unique.push(text);
            }
        }
        let embedded = embed(&self.embedder, unique).await?;
        let mut vectors: HashMap<_, _> = known.into_iter().map(|(id, vector)| (id, Ok(vector))).collect();
        for (document, digest) in documents.iter().zip(digests) {
            if let Some(found) = places.get(digest.as_str()).and_then(|place| embedded.get(*place)) {
                vectors.entry(document.id).or_insert_with(|| found.clone());
            }
        }
        Ok(vectors)
    }

    /// Writes points, and sees whether they are there: the fence leaves out what is older than what was deleted, and
    /// what the table shows now is never that.
    async fn write(&self, due: &[Due], points: Vec<Point>) -> Result<()> {
        if points.is_empty() {
            return Ok(());
        }
        let former: Vec<Uuid> =
            due.iter().filter(|due| due.is_there && due.is_other).map(|due| due.id).collect();
        if !former.is_empty() {
            self.vectors.forget(&former).await?;
        }
        self.vectors.upsert(points.clone()).await?;
        let ids: Vec<Uuid> = points.iter().map(|point| point.id).collect();
        let have = self.vectors.versions(&ids).await?;
        // A write of another life that was on its way, of a process that was killed, may have come in between under the
        // same version; only what it was made of tells.
        let digests = if former.is_empty() { HashMap::new() } else { self.vectors.digests(&former).await? };
        let is_other = |point: &Point| {
            let digest = point.payload.get(DIGEST).and_then(|digest| digest.as_str());
            digests.get(&point.id).is_some_and(|(made_of, _)| Some(made_of.as_str()) != digest)
        };
        let missing = |point: &Point| {
            is_other(point) || have.get(&point.id).is_none_or(|version| *version < point.version)
        };
        let mut missing: Vec<Point> = points.into_iter().filter(missing).collect();
        if missing.is_empty() {
            return Ok(());
        }
        // Another process may have deleted it because it is gone meanwhile.
        let ids: Vec<Uuid> = missing.iter().map(|point| point.id).collect();
        let rows = read_standing(&self.session, &ids).await?;
        let is_shown = |point: &Point| rows.get(&point.id).is_some_and(|row| !row.is_deleted);
        missing.retain(is_shown);
        self.vectors.forget(&missing.iter().map(|point| point.id).collect::<Vec<_>>()).await?;
        self.vectors.upsert(missing).await
    }

    async fn unpark(&self, ids: &[Uuid]) -> Result<()> {
        if ids.is_empty() {
            return Ok(());
        }
        parked::unpark(&self.session, self.embedder.model(), ids).await
    }

    /// Makes durable what is written.
    pub async fn flush(&mut self) -> Result<()> {
        self.vectors.flush().await?;
        self.flushed = Instant::now();
        let rows = self.vectors.count(None).await?;
        self.metrics.rows.set(i64::try_from(rows).unwrap_or(i64::MAX));
        Ok(())
    }
}

fn digest(text: &str) -> String {
    let mut digest = format!("{:x}", Sha256::digest(text));
    digest.truncate(DIGEST_LETTERS);
    digest
}
