//! Finds hits: asks the index, and has PostgreSQL confirm what it names, for one target or for many at once.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use uuid::Uuid;

use super::HINT;
use super::plan::{Mode, Question, Wanted};
use crate::error::{Code, Error, Result};
use crate::graphql::loaders::Loaders;
use crate::model::entity::Searched;
use crate::model::filter::Filter;
use crate::model::graph;
use crate::model::search::{full_text, in_sight, pushed_down};
use crate::store::db::reads::List as Read;
use crate::store::db::rows::RowRef;
use crate::store::db::sql::Sql;
use crate::store::vectors::{
    Answer, Filter as Pushed, Hit, Question as Asked, Ranked, Sparse, WINDOW_MAX, diversify, toward,
};

/// Hits asked for beyond the page, so that a few dropped ones cost no second round.
const SPARE: usize = 16;
/// Each further round looks at this many times more hits.
const GROWTH: usize = 4;

const NO_MEANING: &str = "search by meaning is away: these hits were found by their words alone";
const NO_INDEX: &str = "the index is away: these hits were found by the database's own full text";

/// What hits are looked for: one page of them.
#[derive(Default)]
pub(super) struct Target {
    /// Near to this, unless the question's own vector is meant.
    pub(super) vector: Option<Vec<f32>>,
    /// Narrower than the question.
    pub(super) filter: Option<Pushed>,
    /// The cell in which its rows have this id.
    pub(super) owner: Option<(usize, Uuid)>,
}

/// The hits of one target.
#[derive(Default, Clone)]
pub(super) struct Best {
    /// Those that may be shown, as many as are wanted if there are so many.
    pub(super) hits: Vec<Ranked>,
    /// All that were found, in their order.
    pub(super) ranked: Vec<Ranked>,
}

/// Hits to be confirmed, and whose they must be.
struct List {
    owner: Option<(usize, Uuid)>,
    ranked: Vec<Ranked>,
}

/// A search under way.
pub(super) struct Search<'a> {
    loaders: &'a Loaders,
    question: &'a Question,
    searched: &'static Searched,
    sql: &'a Sql,
    /// The question's filter, with what all targets have in common.
    filter: Option<Filter>,
    /// Of the question; it is made once.
    vector: Option<Vec<f32>>,
    /// Of the question, if it is a text.
    pub(super) words: Option<Sparse>,
    /// Of every hit that was looked up its row, if it may be shown.
    pub(super) rows: HashMap<Uuid, Option<RowRef>>,
    pub(super) degraded: Option<&'static str>,
}

impl<'a> Search<'a> {
    pub(super) fn new(loaders: &'a Loaders, question: &'a Question, sql: &'a Sql) -> Self {
        let words = match &question.wanted {
            Wanted::Text(text) => Some(loaders.searcher.words.question(text)),
            _ => None,
        };
        let (rows, searched) = (HashMap::new(), question.searched);
        if let Some(table) = graph().table_of(searched.entity) {
            loaders.session.notes().copied(Read::all(table), HINT);
        }
        let filter = question.filter.clone();
        Self { loaders, question, searched, sql, filter, vector: None, words, rows, degraded: None }
    }

    /// Looks for such rows only.
    pub(super) fn narrow(&mut self, filter: Filter) {
        self.filter = Some(Filter::And(self.filter.take().into_iter().chain([filter]).collect()));
    }

    /// The best hits of each target, looking at `deep` hits at least.
    pub(super) async fn best(&mut self, targets: &[Target], size: usize, deep: usize) -> Result<Vec<Best>> {
        self.embed().await?;
        let seen: HashSet<Uuid> = self.question.seen.iter().copied().collect();
        let mut best = vec![Best::default(); targets.len()];
        let mut pending: Vec<usize> = (0..targets.len()).collect();
        let mut window = (seen.len() + size + SPARE).max(deep).min(WINDOW_MAX);
        while !pending.is_empty() {
            let asked: Vec<&Target> = pending.iter().map(|target| &targets[*target]).collect();
            let answers = self.ask(&asked, window).await?;
            let mut lists = Vec::with_capacity(pending.len());
            let mut unfinished = HashSet::new();
            for (target, answer) in pending.iter().zip(answers) {
                if window < WINDOW_MAX && (answer.dense.len() >= window || answer.sparse.len() >= window) {
                    unfinished.insert(*target);
                }
                let (ranked, all) = self.ranked(answer, &seen, size);
                best[*target].ranked = all;
                lists.push(List { owner: targets[*target].owner, ranked });
            }
            let confirmed = self.confirm(&lists, size).await?;
            for (target, hits) in pending.iter().zip(confirmed) {
                if hits.len() >= size {
                    unfinished.remove(target);
                }
                best[*target].hits = hits;
            }
            pending.retain(|target| unfinished.contains(target));
            window = (window * GROWTH).min(WINDOW_MAX);
        }
        Ok(best)
    }

    /// The hits of an answer in their order: those that were not seen yet, and all.
    fn ranked(&self, answer: Answer, seen: &HashSet<Uuid>, size: usize) -> (Vec<Ranked>, Vec<Ranked>) {
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
        (ranked, all)
    }

    /// The first hits of each list that PostgreSQL confirms, in their order. Rows are read by one statement for all
    /// lists, unless many hits are dropped.
    async fn confirm(&mut self, lists: &[List], size: usize) -> Result<Vec<Vec<Ranked>>> {
        let mut chunk = size + SPARE;
        let mut looked_at = chunk;
        loop {
            let confirmed: Vec<Vec<Ranked>> =
                lists.iter().map(|list| self.shown(list, looked_at, size)).collect();
            let mut unknown: Vec<Uuid> = Vec::new();
            let mut more = false;
            for (List { ranked: list, .. }, hits) in lists.iter().zip(&confirmed) {
                if hits.len() < size {
                    unknown.extend(list.iter().take(looked_at).map(|hit| hit.id));
                    more |= looked_at < list.len();
                }
            }
            unknown.retain(|id| !self.rows.contains_key(id));
            unknown.sort_unstable();
            unknown.dedup();
            if unknown.is_empty() {
                if !more {
                    return Ok(confirmed);
                }
                chunk *= GROWTH;
                looked_at += chunk;
                continue;
            }
            let rows = Arc::new(self.loaders.session.rows(&self.sql.with_keys(unknown.clone())).await?);
            self.rows.extend(unknown.into_iter().map(|id| (id, None)));
            let read = (0..rows.len())
                .filter_map(|row| Some((rows.uuid(row, 0)?, Some(RowRef { set: rows.clone(), row }))));
            self.rows.extend(read);
        }
    }

    /// The first of a list that are known to be shown.
    fn shown(&self, list: &List, looked_at: usize, size: usize) -> Vec<Ranked> {
        let is_shown = |hit: &&Ranked| match self.rows.get(&hit.id) {
            Some(Some(row)) => list.owner.is_none_or(|(cell, id)| row.uuid(cell) == Some(id)),
            _ => false,
        };
        list.ranked.iter().take(looked_at).filter(is_shown).take(size).copied().collect()
    }

    /// Asks the index, or PostgreSQL's own full text while the index is away.
    async fn ask(&mut self, targets: &[&Target], window: usize) -> Result<Vec<Answer>> {
        let question = self.question;
        let filter = self.filter.as_ref().and_then(pushed_down);
        let asked = targets.iter().map(|target| Asked {
            dense: target.vector.clone().or_else(|| self.vector.clone()),
            sparse: self.words.clone().filter(|_| question.mode != Mode::Semantic),
            scope: Some(in_sight(&self.loaders.viewer, self.searched)),
            filter: Pushed::both(filter.clone(), target.filter.clone()),
            limit: window,
            with_vectors: question.diversity.is_some(),
            ..Asked::default()
        });
        match self.loaders.searcher.vectors.ask(asked.collect()).await {
            Ok(mut answers) => {
                if let Wanted::Examples { like, unlike } = &question.wanted {
                    for answer in &mut answers {
                        answer.dense.retain(|hit| !like.contains(&hit.id) && !unlike.contains(&hit.id));
                    }
                }
                Ok(answers)
            }
            Err(error) if is_away(&error) && question.mode != Mode::Semantic => {
                tracing::warn!(?error, "the index is away");
                self.degraded = Some(NO_INDEX);
                // One list for all targets: each finds its own rows among them.
                let answer = self.full_text(window).await?;
                Ok(vec![answer; targets.len()])
            }
            Err(error) => Err(error),
        }
    }

    async fn full_text(&self, window: usize) -> Result<Answer> {
        let Wanted::Text(text) = &self.question.wanted else { return Ok(Answer::default()) };
        let filter = self.filter.as_ref();
        let sql = full_text(&self.loaders.viewer, self.searched, text, filter, window);
        let rows = self.loaders.session.rows(&sql).await?;
        #[allow(clippy::cast_possible_truncation, reason = "a rank needs no more digits")]
        let hit = |row| Some(Hit { id: rows.uuid(row, 0)?, score: rows.float(row, 1)? as f32 });
        Ok(Answer { sparse: (0..rows.len()).filter_map(hit).collect(), ..Answer::default() })
    }

    /// Makes the vector of the question, or notes that it has to do without.
    async fn embed(&mut self) -> Result<()> {
        let question = self.question;
        if question.mode == Mode::Lexical {
            return Ok(());
        }
        let vector = match &question.wanted {
            Wanted::Text(text) => {
                self.loaders.searcher.embedder.embed_query(text).await.map(|vector| vector.to_vec())
            }
            Wanted::Vector(vector) => Ok(vector.clone()),
            Wanted::Examples { like, unlike } => self.direction(like, unlike).await,
            // Each target has its own.
            Wanted::Owner => return Ok(()),
        };
        match vector {
            Ok(vector) => self.vector = Some(vector),
            Err(error) if is_away(&error) && question.mode == Mode::Hybrid => {
                tracing::warn!(?error, "search by meaning is away");
                self.degraded = Some(NO_MEANING);
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// The vector of examples: what is like minus what is unlike.
    async fn direction(&self, like: &[Uuid], unlike: &[Uuid]) -> Result<Vec<f32>> {
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
}

/// Whether a part of the search does not answer now, so that another one may.
fn is_away(error: &Error) -> bool {
    [Code::Unavailable, Code::Timeout].contains(&error.code())
}
