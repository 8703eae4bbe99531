//! Search: a question becomes hits, and one statement turns the hits into rows. PostgreSQL has the last word on what
//! exists, what fits the filter and what the viewer may see; hits that it does not confirm are dropped, and the search
//! goes on until the page is full or there are no more hits.

use std::collections::HashMap;

use uuid::Uuid;

use crate::error::Result;
use crate::graphql::level::{Child, PageRows, Pages, resolve, resolve_objects};
use crate::graphql::loaders::Loaders;
use crate::graphql::plan::ConnectionPlan;
use crate::graphql::root::row_of;
use crate::model::filter::{Filter, Test};
use crate::model::search::{MAX_SEEN, chains_of, pushed_down};
use crate::store::db::reads::Hint;
use crate::store::db::rows::RowRef;
use crate::store::db::sql::{Bind, Sql};
use crate::store::embedder::Embedder;
use crate::store::vectors::{Filter as Pushed, Ranked, Sparse, Vectors, Words};
use find::{Best, Search, Target};
use plan::{GroupBy, SearchPlan};
use snippet::{looked_at, snippet, terms};

pub(crate) use plan::Question;

mod find;
pub(crate) mod plan;
pub(crate) mod snippet;
mod write;

/// A list of hits is believed for a moment only: the index follows the table, and no change of a row tells when it has
/// caught up. The rows themselves are never older than any others.
pub(crate) const HINT: Hint = Hint { max_age_s: Some(2), ..Hint::NONE };
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
#[derive(Default)]
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

/// Finds a page of rows. `sql` reads rows by id, with the client's filter.
pub(crate) async fn search(
    loaders: &Loaders,
    question: &Question,
    sql: &Sql,
    connection: &ConnectionPlan,
) -> Result<Pages> {
    let nothing = SearchPlan::default();
    let plan = connection.search.as_ref().unwrap_or(&nothing);
    let mut search = Search::new(loaders, question, sql);
    let more = usize::from(plan.wants_more || question.budget.is_some());
    let size = match question.group_by {
        None => (question.size + more).min(MAX_SEEN - question.seen.len().min(MAX_SEEN)),
        Some(_) => POOL,
    };
    let deep = if plan.facets.is_some() || question.diversity.is_some() { POOL } else { 0 };
    let best = search.best(&[Target::default()], size, deep).await?.pop();
    let Best { mut hits, ranked } = best.unwrap_or_default();
    let (mut groups, mut of_groups) = (Vec::new(), Vec::new());
    let mut has_more = false;
    if let Some(by) = question.group_by {
        let per_group = plan.groups.as_ref().map_or(1, |(hits, _)| *hits);
        let keys = keys_of(&search, loaders, by, &hits, plan).await?;
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
    let facets = facets(loaders, &ranked, plan).await?;
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

/// Finds a page of rows for each of these rows: those like it, or those that belong to it and answer the question.
pub(crate) async fn related(
    loaders: &Loaders,
    question: &Question,
    sql: &Sql,
    connection: &ConnectionPlan,
    keys: &[Uuid],
) -> Result<Pages> {
    let nothing = SearchPlan::default();
    let plan = connection.search.as_ref().unwrap_or(&nothing);
    let mut search = Search::new(loaders, question, sql);
    let targets: Vec<Target> = match plan.owner {
        Some((column, cell)) => {
            search.narrow(Filter::Column(column, Test::In(Bind::Uuids(keys.to_vec()))));
            let target = |id: &Uuid| {
                let own = Filter::Column(column, Test::Compare("=", Bind::Uuid(*id)));
                Target { vector: None, filter: pushed_down(&own), owner: Some((cell, *id)) }
            };
            keys.iter().map(target).collect()
        }
        None => {
            let mut vectors = loaders.searcher.vectors.vectors(keys).await?;
            let target = |id: &Uuid| {
                // What is not in the index yet is like nothing there.
                let Some(vector) = vectors.remove(id) else {
                    return Target { filter: Some(Pushed::Any(Vec::new())), ..Target::default() };
                };
                let filter = Some(Pushed::Not(Box::new(Pushed::Ids(vec![*id]))));
                Target { vector: Some(vector), filter, owner: None }
            };
            keys.iter().map(target).collect()
        }
    };
    let best = search.best(&targets, question.size, 0).await?;
    let (mut pages, mut found) = (Pages::default(), Vec::new());
    for Best { hits, .. } in best {
        let start = pages.rows.len();
        for ranked in hits {
            let Some(Some(row)) = search.rows.get(&ranked.id) else { continue };
            let (snippet, terms) = explain(loaders, plan, row, search.words.as_ref());
            found.push(FoundHit { ranked, snippet, terms, cursor: String::new() });
            pages.rows.push(row.clone());
        }
        pages.pages.push(PageRows { start, len: pages.rows.len() - start, more: false, count: 0 });
    }
    pages.objects = resolve_objects(loaders, &connection.objects, &pages.rows).await;
    if let Some(degraded) = search.degraded {
        loaders.warn(degraded);
    }
    pages.found = Some(Found { hits: found, ..Found::default() });
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

/// What the hits are grouped by, of each hit.
async fn keys_of(
    search: &Search<'_>,
    loaders: &Loaders,
    by: GroupBy,
    hits: &[Ranked],
    plan: &SearchPlan,
) -> Result<HashMap<Uuid, Vec<Uuid>>> {
    let mut keys: HashMap<Uuid, Vec<Uuid>> = HashMap::new();
    match (by, plan.task) {
        (GroupBy::Task, Some(cell)) => {
            for hit in hits {
                let row = search.rows.get(&hit.id).and_then(Option::as_ref);
                keys.insert(hit.id, row.and_then(|row| row.uuid(cell)).into_iter().collect());
            }
        }
        _ => {
            let ids: Vec<Uuid> = hits.iter().map(|hit| hit.id).collect();
            let rows = loaders.session.rows(&chains_of(&loaders.viewer).with_keys(ids)).await?;
            for row in 0..rows.len() {
                if let (Some(evidence), Some(chain)) = (rows.uuid(row, 0), rows.uuid(row, 1)) {
                    keys.entry(evidence).or_default().push(chain);
                }
            }
        }
    }
    Ok(keys)
}

async fn facets(
    loaders: &Loaders,
    ranked: &[Ranked],
    plan: &SearchPlan,
) -> Result<Vec<(usize, String, i64)>> {
    let Some(sql) = &plan.facets else { return Ok(Vec::new()) };
    let ids = ranked.iter().take(POOL).map(|hit| hit.id).collect();
    let rows = loaders.session.rows(&sql.with_keys(ids)).await?;
    let facet = |row| {
        let place = usize::try_from(rows.bigint(row, 1)?).ok()?;
        Some((place, rows.text(row, 2)?.to_owned(), rows.bigint(row, 3)?))
    };
    Ok((0..rows.len()).filter_map(facet).collect())
}
