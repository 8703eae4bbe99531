//! Search: what PostgreSQL adds to what the index finds. Cursors of hits, the full text that stands in for the index
//! while it is away, and what hits have in common.

use std::ops::Bound;

use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::error::{Error, Result};
use crate::model::cursor::CursorKey;
use crate::model::entity::{Searched, camel_case};
use crate::model::filter::{Filter, Test};
use crate::model::graph;
use crate::model::searched::{ENTITY, INDEX_KEYS};
use crate::model::select::Scope;
use crate::model::viewer::Viewer;
use crate::store::db::sql::{Bind, Sql};
use crate::store::vectors::{Filter as Pushed, Kind};

/// Hits that one can page through. A cursor names all before it: scores and ranks shift while evidence comes and goes,
/// and this way no hit comes twice and none is passed over.
pub const MAX_SEEN: usize = 1_000;
/// What cursors of hits begin with.
const KIND: &[u8] = b"search:";
/// Rows that the full text ranks at most, of those with every word and of those with any.
const MAX_RANKED: u32 = 500;

/// What a cursor of hits belongs to: the arguments of the search.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Asked([u8; 8]);

impl Asked {
    /// Of the arguments, in their canonical spelling.
    pub fn new(arguments: &str) -> Self {
        let mut start = [0; 8];
        start.copy_from_slice(&Sha256::digest(arguments)[..8]);
        Self(start)
    }

    /// The cursor after these hits.
    pub fn cursor(&self, seen: impl Iterator<Item = Uuid>, key: &CursorKey) -> String {
        let ids = seen.flat_map(Uuid::into_bytes);
        key.seal(KIND.iter().chain(&self.0).copied().chain(ids).collect())
    }

    /// The hits before a cursor.
    pub fn seen(&self, cursor: &str, key: &CursorKey) -> Result<Vec<Uuid>> {
        let read = || {
            let bytes = key.open(cursor)?;
            let ids = bytes.strip_prefix(KIND)?.strip_prefix(&self.0)?;
            ids.chunks(16).map(|id| Uuid::from_slice(id).ok()).collect::<Option<Vec<_>>>()
        };
        let seen = read().ok_or_else(|| Error::bad_input("after", "is not a cursor of this search"))?;
        if seen.len() > MAX_SEEN {
            return Err(Error::bad_input("after", format!("is beyond {MAX_SEEN} hits, where a search ends")));
        }
        Ok(seen)
    }
}

/// Rows by PostgreSQL's full text: (id, rank), best first. Rows with all words of the question come before rows
/// with any.
pub fn full_text(
    viewer: &Viewer,
    searched: &Searched,
    question: &str,
    filter: Option<&Filter>,
    limit: usize,
) -> Sql {
    let Some(ty) = graph().type_by_name(searched.entity) else { return Sql::default() };
    // The indexes in the migrations have the same expression.
    let document = |t: &str| format!("to_tsvector('english', {})", searched.document.replace("{t}", t));
    let mut sql = Sql::default();
    sql.push("with q as (select w.every, replace(w.every::text, '&', '|')::tsquery as one from plainto_tsquery('english', ");
    sql.bind(Bind::Text(question.to_owned())).push(") w (every)), f as (");
    for (n, words) in ["every", "one"].into_iter().enumerate() {
        let mut scope = Scope::new(viewer);
        let t = scope.alias();
        sql.push(if n == 0 { "(" } else { ") union all (" });
        sql.push(&format!("select {t}.id, {n} as worse, ts_rank_cd({}, q.one) as rank", document(&t)));
        // The table comes last, so that its condition can name the question.
        sql.push(&format!(" from q cross join lateral (select {t}.*"));
        scope.write_table(ty, &t, &mut sql);
        sql.push(&format!(" and {} @@ q.{words}", document(&t)));
        if let Some(filter) = filter {
            sql.push(" and ");
            filter.write(&mut scope, &t, &mut sql);
        }
        sql.push(&format!(" limit {MAX_RANKED}) {t}"));
    }
    sql.push(
        ")) select f.id, max(f.rank)::float8 from f group by f.id order by min(f.worse), 2 desc, 1 limit ",
    );
    sql.bind(Bind::Int(i64::try_from(limit).unwrap_or(i64::MAX)));
    sql.returning(2)
}

/// By what hits are counted, with the column of each as text.
pub const FACETS: [(&str, &str); 4] = [
    ("sourceType", "upper({t}.source_type)"),
    ("domain", "upper({t}.domain)"),
    ("agent", "{t}.agent_id::text"),
    ("project", "{t}.project_id::text"),
];

/// How many of the hits (the keys) have which value: (nothing, place among [`FACETS`], value, count), the most frequent
/// first.
pub fn facets(viewer: &Viewer, filter: Option<&Filter>) -> Sql {
    let Some(ty) = graph().type_by_name("Evidence") else { return Sql::default() };
    let mut scope = Scope::new(viewer);
    let t = scope.alias();
    let mut sql = Sql::default();
    sql.push("select null::uuid, f.facet, f.value, count(*) from (select ");
    let values = FACETS
        .iter()
        .enumerate()
        .map(|(n, (_, column))| format!("({n}::int8, {})", column.replace("{t}", &t)));
    let values: Vec<_> = values.collect();
    sql.push(&format!("v.* from (select {t}.*"));
    scope.write_table(ty, &t, &mut sql);
    sql.push(&format!(" and {t}.id = any(")).bind_keys().push(")");
    if let Some(filter) = filter {
        sql.push(" and ");
        filter.write(&mut scope, &t, &mut sql);
    }
    sql.push(&format!(") {t} cross join lateral (values {}) v (facet, value)", values.join(", ")));
    sql.push(") f where f.value is not null group by f.facet, f.value order by f.facet, 4 desc, f.value");
    sql.returning(4)
}

/// The chains that use each piece of evidence: (evidence, chain).
pub fn chains_of(viewer: &Viewer) -> Sql {
    let scope = &mut Scope::new(viewer);
    let types =
        ["EvidenceChainLink", "EvidenceChain"].map(|name| graph().type_by_name(name).unwrap_or_default());
    let (link, chain) = (scope.alias(), scope.alias());
    let mut sql = Sql::default();
    sql.push(&format!("select distinct {link}.evidence_id, {link}.chain_id"));
    scope.write_table(types[0], &link, &mut sql);
    sql.push(&format!(" and {link}.evidence_id = any(")).bind_keys().push(") and exists (select");
    scope.write_table(types[1], &chain, &mut sql);
    sql.push(&format!(" and {chain}.id = {link}.chain_id) order by 1, 2"));
    sql.returning(2)
}

/// What the viewer may see of an entity in the index, as far as that can tell.
pub fn in_sight(viewer: &Viewer, searched: &Searched) -> Pushed {
    let of_entity = Pushed::In(ENTITY, vec![searched.entity.to_owned()]);
    let projects = viewer.project_ids().filter(|_| searched.of_projects);
    Pushed::All(
        std::iter::once(of_entity).chain(projects.map(|ids| Pushed::ids_in("project_id", ids))).collect(),
    )
}

/// The part of a filter that the index can answer: every row that fits the filter fits this, and PostgreSQL sorts out
/// the rest.
pub fn pushed_down(filter: &Filter) -> Option<Pushed> {
    push(filter).map(|(pushed, _)| pushed)
}

/// What the index has of a column: the key of its payload.
fn key(column: &str) -> Option<(&'static str, Kind)> {
    INDEX_KEYS.iter().find(|(key, _)| camel_case(key) == column).copied()
}

/// A filter in the index's words, and whether it says exactly the same.
fn push(filter: &Filter) -> Option<(Pushed, bool)> {
    let all = |filters: &[Filter]| filters.iter().map(push).collect::<Vec<_>>();
    match filter {
        Filter::And(filters) => {
            let parts = all(filters);
            let exact = parts.iter().all(|part| matches!(part, Some((_, true))));
            Some((Pushed::All(parts.into_iter().flatten().map(|(part, _)| part).collect()), exact))
        }
        Filter::Or(filters) => {
            let parts = all(filters).into_iter().collect::<Option<Vec<_>>>()?;
            let exact = parts.iter().all(|(_, exact)| *exact);
            Some((Pushed::Any(parts.into_iter().map(|(part, _)| part).collect()), exact))
        }
        Filter::Not(inner) => {
            // What is more than the filter would be less of its opposite.
            let (part, exact) = push(inner)?;
            exact.then(|| (Pushed::Not(Box::new(part)), true))
        }
        Filter::Column(column, test) => push_test(key(&column.name)?, test).map(|pushed| (pushed, true)),
        Filter::Relation(..) => None,
    }
}

fn push_test((key, kind): (&'static str, Kind), test: &Test) -> Option<Pushed> {
    let one_of = |values: Vec<String>| Some(Pushed::In(key, values));
    Some(match (test, kind) {
        (Test::IsNull(true), _) => Pushed::Missing(key),
        (Test::IsNull(false), _) => Pushed::Not(Box::new(Pushed::Missing(key))),
        (Test::Compare("is distinct from", value), _) => {
            Pushed::Not(Box::new(push_test((key, kind), &Test::Compare("=", value.clone()))?))
        }
        (Test::Compare("=", Bind::Bool(flag)), Kind::Flag) => Pushed::Is(key, *flag),
        (Test::Compare("=", Bind::Uuid(id)), Kind::Id | Kind::Tenant) => Pushed::ids_in(key, &[*id]),
        (Test::In(Bind::Uuids(ids)), Kind::Id | Kind::Tenant) => Pushed::ids_in(key, ids),
        (Test::Compare("=", Bind::Text(text)) | Test::Has(text), Kind::Keyword) => {
            one_of(vec![text.clone()])?
        }
        (Test::In(Bind::Texts(texts)) | Test::HasAny(texts), Kind::Keyword) => one_of(texts.clone())?,
        (Test::HasAll(texts), Kind::Keyword) => {
            Pushed::All(texts.iter().map(|text| Pushed::In(key, vec![text.clone()])).collect())
        }
        (Test::Compare(operator, Bind::Float(number)), Kind::Number) => {
            let (from, to) = bounds(operator, *number)?;
            Pushed::Number(key, from, to)
        }
        (Test::Compare(operator, Bind::Time(time)), Kind::Time) => {
            let (from, to) = bounds(operator, *time)?;
            Pushed::Time(key, from, to)
        }
        _ => return None,
    })
}

fn bounds<T: Copy>(operator: &str, value: T) -> Option<(Bound<T>, Bound<T>)> {
    Some(match operator {
        "=" => (Bound::Included(value), Bound::Included(value)),
        "<" => (Bound::Unbounded, Bound::Excluded(value)),
        "<=" => (Bound::Unbounded, Bound::Included(value)),
        ">" => (Bound::Excluded(value), Bound::Unbounded),
        ">=" => (Bound::Included(value), Bound::Unbounded),
        _ => return None,
    })
}
