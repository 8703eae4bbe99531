//! Search: a question becomes hits, and one statement turns the hits into rows. PostgreSQL has the last word on what
//! exists, what fits the filter and what the viewer may see; hits that it does not confirm are dropped, and the search
//! goes on until the page is full or there are no more hits.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use uuid::Uuid;

use crate::error::{Code, Error, Result};
use crate::graphql::level::{Child, PageRows, Pages, resolve, resolve_objects};
use crate::graphql::loaders::Loaders;
use crate::graphql::plan::ConnectionPlan;
use crate::graphql::root::row_of;
use crate::model::search::{MAX_SEEN, chains_of, full_text, in_sight, pushed_down};
use crate::store::db::rows::RowRef;
use crate::store::db::sql::Sql;
use crate::store::embedder::Embedder;
use crate::store::vectors::{
    Answer, Hit, Question as Asked, Ranked, Sparse, Vectors, WINDOW_MAX, Words, diversify, toward,
};
use plan::{GroupBy, Mode, SearchPlan, Wanted};
use snippet::{looked_at, snippet, terms};

pub(crate) use plan::Question;

pub(crate) mod plan;
pub(crate) mod snippet;
mod write;

/// Hits asked for beyond the page, so that a few dropped ones cost no second round.
const SPARE: usize = 16;
/// Each further round looks at this many times more hits.
const GROWTH: usize = 4;
/// The best hits that facets are counted over, and that groups are made of at first.
const POOL: usize = 200;

/// What a search needs besides the database.
#[derive(Clone)]
pub struct Searcher {
    /// Turns text into vectors.
    pub embedder: Embedder,
    /// Turns text into weighted words.
    pub words: Words,
    /// Finds vectors and words.
    pub vectors: Vectors,
}

/// What a search found besides rows.
pub(crate) struct Found {
    /// One per row of the pages.
    pub(crate) hits: Vec<FoundHit>,
    /// What could not be done, in words.
    pub(crate) degraded: Option<&'static str>,
    /// (place of the facet, value, count)
    pub(crate) facets: Vec<(usize, String, i64)>,
    pub(crate) groups: Vec<Group>,
    /// What was loaded for the groups, one per relation.
    pub(crate) of_groups: Vec<Child>,
    /// Whether there are hits before these.
    pub(crate) continued: bool,
    /// Characters that the answer may have.
    pub(crate) budget: Option<usize>,
}

/// A row with the reasons for its place.
pub(crate) struct FoundHit {
    pub(crate) ranked: Ranked,
    pub(crate) snippet: String,
    pub(crate) terms: Vec<String>,
    pub(crate) cursor: String,
}

/// Hits that share something: their places among the rows, best first.
pub(crate) struct Group {
    pub(crate) score: f32,
    pub(crate) hits: Vec<usize>,
}

const NO_MEANING: &str = "search by meaning is away: these hits were found by their words alone";
const NO_INDEX: &str = "the index is away: these hits were found by the database's own full text";

/// Finds a page of rows. `sql` reads rows by id, with the client's filter.
pub(crate) async fn search(
    loaders: &Loaders,
    question: &Question,
    sql: &Sql,
    connection: &ConnectionPlan,
) -> Result<Pages> {
    let nothing = SearchPlan::default();
    let plan = connection.search.as_ref().unwrap_or(&nothing);
    let words = match &question.wanted {
        Wanted::Text(text) => Some(loaders.searcher.words.question(text)),
        _ => None,
    };
    let mut search =
        Search { loaders, question, sql, vector: None, words, rows: HashMap::new(), degraded: None };
    let more = usize::from(plan.wants_more || question.budget.is_some());
    let size = match question.group_by {
        None => (question.size + more).min(MAX_SEEN - question.seen.len().min(MAX_SEEN)),
        Some(_) => POOL,
    };
    let (mut hits, ranked) = search.best(size, plan).await?;
    let (mut groups, mut of_groups) = (Vec::new(), Vec::new());
    let mut has_more = false;
    if let Some(by) = question.group_by {
        let per_group = plan.groups.as_ref().map_or(1, |(hits, _)| *hits);
        let keys = search.keys_of(by, &hits, plan).await?;
        let (kept, keyed) = group(hits, &keys, question.size, per_group);
        hits = kept;
        let key_rows: Vec<RowRef> = keyed.iter().map(|(key, _)| row_of([*key, *key])).collect();
        if let Some((_, relations)) = &plan.groups {
            of_groups = resolve(loaders, relations, &key_rows).await;
        }
        groups = keyed.into_iter().map(|(_, group)| group).collect();
    } else {
        has_more = hits.len() > question.size;
        hits.truncate(question.size);
    }
    let facets = search.facets(&ranked, plan).await?;
    let mut pages = Pages::default();
    pages.pages.push(PageRows { start: 0, len: hits.len(), more: has_more, count: 0 });
    let mut seen = question.seen.clone();
    let mut found = Vec::with_capacity(hits.len());
    for ranked in hits {
        let Some(Some(row)) = search.rows.remove(&ranked.id) else { continue };
        seen.push(ranked.id);
        let cursor =
            plan.wants_cursor.then(|| question.asked.cursor(seen.iter().copied(), &question.cursors));
        let (snippet, terms) = explain(loaders, plan, &row, search.words.as_ref());
        found.push(FoundHit { ranked, snippet, terms, cursor: cursor.unwrap_or_default() });
        pages.rows.push(row);
    }
    pages.objects = resolve_objects(loaders, &connection.objects, &pages.rows).await;
    if let Some(degraded) = search.degraded {
        loaders.warn(degraded);
    }
    pages.found = Some(Found {
        hits: found,
        degraded: search.degraded,
        facets,
        groups,
        of_groups,
        continued: !question.seen.is_empty(),
        budget: question.budget,
    });
    Ok(pages)
}

/// The snippet and the terms of a row, as far as they are asked for.
fn explain(
    loaders: &Loaders,
    plan: &SearchPlan,
    row: &RowRef,
    asked: Option<&Sparse>,
) -> (String, Vec<String>) {
    let Some((title, content)) = plan.text else { return (String::new(), Vec::new()) };
    let text =
        |cell: usize| row.cell(cell).and_then(|bytes| std::str::from_utf8(bytes).ok()).unwrap_or_default();
    let (title, content) = (text(title), looked_at(text(content)));
    let places =
        |text: &str| asked.map(|asked| loaders.searcher.words.matches(asked, text)).unwrap_or_default();
    let (in_title, in_content) = (places(title), places(content));
    let mut found = terms(title, &in_title);
    for term in terms(content, &in_content) {
        if !found.contains(&term) {
            found.push(term);
        }
    }
    (if plan.snippet > 0 { snippet(content, &in_content, plan.snippet) } else { String::new() }, found)
}

/// The best groups in the order of their best hits, each with its best hits. The hits that are in none are left out.
fn group(
    hits: Vec<Ranked>,
    keys: &HashMap<Uuid, Vec<Uuid>>,
    most: usize,
    per_group: usize,
) -> (Vec<Ranked>, Vec<(Uuid, Group)>) {
    let mut groups: Vec<(Uuid, Group)> = Vec::new();
    let mut kept: Vec<Ranked> = Vec::new();
    for hit in hits {
        let mut used = false;
        for key in keys.get(&hit.id).into_iter().flatten() {
            let known = groups.iter().position(|(known, _)| known == key);
            let place = match known {
                Some(place) => place,
                None if groups.len() < most => {
                    groups.push((*key, Group { score: hit.score, hits: Vec::new() }));
                    groups.len() - 1
                }
                None => continue,
            };
            let group = &mut groups[place].1;
            if group.hits.len() < per_group {
                group.hits.push(kept.len());
                used = true;
            }
        }
        if used {
            kept.push(hit);
        }
    }
    (kept, groups)
}

/// A search under way.
struct Search<'a> {
    loaders: &'a Loaders,
    question: &'a Question,
    sql: &'a Sql,
    /// Of the question; it is made once.
    vector: Option<Vec<f32>>,
    /// Of the question, if it is a text.
    words: Option<Sparse>,
    /// Of every hit that was looked up its row, if it may be shown.
    rows: HashMap<Uuid, Option<RowRef>>,
    degraded: Option<&'static str>,
}

impl Search<'_> {
    /// The best hits that may be shown, as many as are wanted if there are so many; and all hits in their order.
    async fn best(&mut self, size: usize, plan: &SearchPlan) -> Result<(Vec<Ranked>, Vec<Ranked>)> {
        let seen: HashSet<Uuid> = self.question.seen.iter().copied().collect();
        let deep = plan.facets.is_some() || self.question.diversity.is_some();
        let least = if deep { POOL } else { 0 };
        let mut window = (seen.len() + size + SPARE).max(least).min(WINDOW_MAX);
        loop {
            let answer = self.ask(window).await?;
            let exhausted =
                window == WINDOW_MAX || (answer.dense.len() < window && answer.sparse.len() < window);
            let mut ranked = answer.fused();
            if answer.dense.is_empty() || answer.sparse.is_empty() {
                // One list alone has scores that say more than places in it.
                for hit in &mut ranked {
                    hit.score = hit.dense.or(hit.sparse).map_or(hit.score, |stage| stage.score);
                }
            }
            let all = ranked.clone();
            if let Some(diversity) = self.question.diversity
                && !answer.vectors.is_empty()
            {
                // Those before the cursor take part, so that what follows is unlike them, too.
                ranked = diversify(ranked, &answer.vectors, diversity, seen.len() + size + SPARE);
            }
            ranked.retain(|hit| !seen.contains(&hit.id));
            let found = self.confirm(&ranked, size).await?;
            if found.len() >= size || exhausted {
                return Ok((found, all));
            }
            window = (window * GROWTH).min(WINDOW_MAX);
        }
    }

    /// The first of the hits that PostgreSQL confirms, in their order. Rows are read by one statement unless many hits
    /// are dropped.
    async fn confirm(&mut self, ranked: &[Ranked], size: usize) -> Result<Vec<Ranked>> {
        let mut found = Vec::new();
        let (mut place, mut chunk) = (0, size + SPARE);
        while place < ranked.len() && found.len() < size {
            let part = &ranked[place..ranked.len().min(place + chunk)];
            let unknown: Vec<Uuid> =
                part.iter().map(|hit| hit.id).filter(|id| !self.rows.contains_key(id)).collect();
            if !unknown.is_empty() {
                let rows = Arc::new(self.loaders.session.rows(&self.sql.with_keys(unknown.clone())).await?);
                self.rows.extend(unknown.into_iter().map(|id| (id, None)));
                let read = (0..rows.len())
                    .filter_map(|row| Some((rows.uuid(row, 0)?, Some(RowRef { set: rows.clone(), row }))));
                self.rows.extend(read);
            }
            found.extend(part.iter().filter(|hit| matches!(self.rows.get(&hit.id), Some(Some(_)))).cloned());
            place += part.len();
            chunk *= GROWTH;
        }
        found.truncate(size);
        Ok(found)
    }

    /// Asks the index, or PostgreSQL's own full text while the index is away.
    async fn ask(&mut self, window: usize) -> Result<Answer> {
        let (question, searcher) = (self.question, &self.loaders.searcher);
        self.degraded = None;
        if question.mode != Mode::Lexical && self.vector.is_none() {
            match self.embed().await {
                Ok(vector) => self.vector = Some(vector),
                Err(error) if is_away(&error) && question.mode == Mode::Hybrid => {
                    tracing::warn!(?error, "search by meaning is away");
                    self.degraded = Some(NO_MEANING);
                }
                Err(error) => return Err(error),
            }
        }
        let asked = Asked {
            dense: self.vector.clone(),
            sparse: self.words.clone().filter(|_| question.mode != Mode::Semantic),
            scope: in_sight(&self.loaders.viewer),
            filter: question.filter.as_ref().and_then(pushed_down),
            limit: window,
            with_vectors: question.diversity.is_some(),
            ..Asked::default()
        };
        match searcher.vectors.ask(vec![asked]).await {
            Ok(answers) => {
                let mut answer = answers.into_iter().next().unwrap_or_default();
                if let Wanted::Examples { like, unlike } = &question.wanted {
                    answer.dense.retain(|hit| !like.contains(&hit.id) && !unlike.contains(&hit.id));
                }
                Ok(answer)
            }
            Err(error) if is_away(&error) && question.mode != Mode::Semantic => {
                tracing::warn!(?error, "the index is away");
                self.degraded = Some(NO_INDEX);
                self.full_text(window).await
            }
            Err(error) => Err(error),
        }
    }

    async fn full_text(&self, window: usize) -> Result<Answer> {
        let Wanted::Text(text) = &self.question.wanted else { return Ok(Answer::default()) };
        let filter = self.question.filter.as_ref();
        let sql = full_text(&self.loaders.viewer, text, filter, window);
        let rows = self.loaders.session.rows(&sql).await?;
        #[allow(clippy::cast_possible_truncation, reason = "a rank needs no more digits")]
        let hit = |row| Some(Hit { id: rows.uuid(row, 0)?, score: rows.float(row, 1)? as f32 });
        Ok(Answer { sparse: (0..rows.len()).filter_map(hit).collect(), ..Answer::default() })
    }

    /// The vector of the question. Examples are averaged: what is like minus what is unlike.
    async fn embed(&mut self) -> Result<Vec<f32>> {
        let (like, unlike) = match &self.question.wanted {
            Wanted::Text(text) => {
                return Ok(self.loaders.searcher.embedder.embed_query(text).await?.to_vec());
            }
            Wanted::Vector(vector) => return Ok(vector.clone()),
            Wanted::Examples { like, unlike } => (like, unlike),
        };
        let ids: Vec<Uuid> = like.iter().chain(unlike).copied().collect();
        // What an example says must not be found out by who may not read it.
        let types = self.loaders.types_of(&ids).await?;
        let vectors = self.loaders.searcher.vectors.vectors(&ids).await?;
        let example = |name: &str, n: usize, id: &Uuid| {
            if !types.contains_key(id) {
                let error = Error::new(Code::NotFound, format!("there is no evidence {id}"));
                return Err(error.at(format!("{name}.{n}")));
            }
            let missing = || Error::new(Code::Unavailable, "is not in the index yet; try again in a moment");
            vectors.get(id).map(Vec::as_slice).ok_or_else(|| missing().at(format!("{name}.{n}")))
        };
        let examples = |name: &str, ids: &[Uuid]| {
            ids.iter().enumerate().map(|(n, id)| example(name, n, id)).collect::<Result<Vec<_>>>()
        };
        let vector = toward(&examples("like", like)?, &examples("unlike", unlike)?);
        vector.ok_or_else(|| {
            Error::bad_input("unlike", "is the same as like: there is no direction to search in")
        })
    }

    /// What the hits are grouped by, of each hit.
    async fn keys_of(
        &self,
        by: GroupBy,
        hits: &[Ranked],
        plan: &SearchPlan,
    ) -> Result<HashMap<Uuid, Vec<Uuid>>> {
        let mut keys: HashMap<Uuid, Vec<Uuid>> = HashMap::new();
        match (by, plan.task) {
            (GroupBy::Task, Some(cell)) => {
                for hit in hits {
                    let row = self.rows.get(&hit.id).and_then(Option::as_ref);
                    keys.insert(hit.id, row.and_then(|row| row.uuid(cell)).into_iter().collect());
                }
            }
            _ => {
                let ids: Vec<Uuid> = hits.iter().map(|hit| hit.id).collect();
                let rows = self.loaders.session.rows(&chains_of(&self.loaders.viewer).with_keys(ids)).await?;
                for row in 0..rows.len() {
                    if let (Some(evidence), Some(chain)) = (rows.uuid(row, 0), rows.uuid(row, 1)) {
                        keys.entry(evidence).or_default().push(chain);
                    }
                }
            }
        }
        Ok(keys)
    }

    async fn facets(&self, ranked: &[Ranked], plan: &SearchPlan) -> Result<Vec<(usize, String, i64)>> {
        let Some(sql) = &plan.facets else { return Ok(Vec::new()) };
        let ids = ranked.iter().take(POOL).map(|hit| hit.id).collect();
        let rows = self.loaders.session.rows(&sql.with_keys(ids)).await?;
        let facet = |row| {
            let place = usize::try_from(rows.bigint(row, 1)?).ok()?;
            Some((place, rows.text(row, 2)?.to_owned(), rows.bigint(row, 3)?))
        };
        Ok((0..rows.len()).filter_map(facet).collect())
    }
}

/// Whether a part of the search does not answer now, so that another one may.
fn is_away(error: &Error) -> bool {
    [Code::Unavailable, Code::Timeout].contains(&error.code())
}
