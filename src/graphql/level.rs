//! Levels: rows that stand at one place of the query. A level loads each of its relations once, for all of its
//! rows; what comes back is the next level. Relations of one level are loaded at the same time.

use std::collections::HashMap;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, join_all};
use uuid::Uuid;

use crate::error::Error;
use crate::graphql::loaders::{Loaded, Loaders};
use crate::graphql::plan::{ConnectionPlan, ObjectPlan, RelationPlan, Shape};
use crate::graphql::search::{Found, Question, related, search};
use crate::store::db::rows::RowRef;
use crate::store::db::sql::Sql;

/// Rows with all that was loaded for them.
pub(crate) struct Level {
    pub(crate) rows: Vec<RowRef>,
    /// One per relation of the plan.
    pub(crate) children: Vec<Child>,
}

/// What a relation of a level came to.
pub(crate) enum Child {
    /// It could not be loaded; every row of the level has this error.
    Failed(Error),
    /// For each row of the level the place of its one row in the next level.
    One { places: Vec<Option<usize>>, level: Level },
    /// For each row of the level the place of its page.
    Many { places: Vec<usize>, pages: Pages },
    /// For each id asked for its type's place in the plan and its row's place in that level.
    Nodes { places: Vec<Option<(usize, usize)>>, levels: Vec<Level> },
}

/// Pages with all that was loaded for their rows.
#[derive(Default)]
pub(crate) struct Pages {
    pub(crate) pages: Vec<PageRows>,
    pub(crate) rows: Vec<RowRef>,
    /// What else a search found.
    pub(crate) found: Option<Found>,
    /// For each object of the plan what was loaded for the rows.
    pub(crate) objects: Vec<Vec<Child>>,
}

/// One page: a run of rows.
#[derive(Debug, Clone, Default)]
pub(crate) struct PageRows {
    pub(crate) start: usize,
    pub(crate) len: usize,
    /// Whether the list goes on beyond the page, in the page's direction.
    pub(crate) more: bool,
    pub(crate) count: i64,
}

/// Loads everything that the plan asks for the rows of a level.
pub(crate) fn resolve<'a>(
    loaders: &'a Loaders,
    relations: &'a [RelationPlan],
    rows: &'a [RowRef],
) -> BoxFuture<'a, Vec<Child>> {
    join_all(relations.iter().map(move |relation| resolve_relation(loaders, relation, rows))).boxed()
}

/// Loads everything for the objects of a connection.
pub(crate) async fn resolve_objects(
    loaders: &Loaders,
    objects: &[ObjectPlan],
    rows: &[RowRef],
) -> Vec<Vec<Child>> {
    join_all(objects.iter().map(|object| resolve(loaders, &object.relations, rows))).await
}

async fn resolve_relation(loaders: &Loaders, relation: &RelationPlan, rows: &[RowRef]) -> Child {
    let resolved = match &relation.shape {
        Shape::One { sql, object } => resolve_one(loaders, relation.key, sql, object, rows).await,
        Shape::Many { .. } => resolve_many(loaders, relation, rows).await,
        Shape::List { sql, object } => resolve_list(loaders, relation.key, sql, object, rows).await,
        Shape::Nodes { ids, types, .. } => resolve_nodes(loaders, ids, types).await,
        Shape::Made { row, object } => {
            let rows = vec![row.clone()];
            let children = resolve(loaders, &object.relations, &rows).await;
            Ok(Child::One { places: vec![Some(0)], level: Level { rows, children } })
        }
        Shape::Hits { question, sql, connection, .. } => {
            resolve_hits(loaders, relation.key, (question, sql, connection), rows).await
        }
        Shape::Search { question, sql, connection } => search(loaders, question, sql, connection)
            .await
            .map(|pages| Child::Many { places: vec![0], pages }),
    };
    resolved.unwrap_or_else(Child::Failed)
}

/// The keys of a level, each once, and for each row the place of its key.
fn distinct_keys(rows: &[RowRef], cell: usize) -> (Vec<Uuid>, Vec<Option<usize>>) {
    let mut keys = Vec::new();
    let mut known: HashMap<Uuid, usize> = HashMap::with_capacity(rows.len());
    let places = rows.iter().map(|row| {
        let key = row.uuid(cell)?;
        Some(*known.entry(key).or_insert_with(|| {
            keys.push(key);
            keys.len() - 1
        }))
    });
    let places = places.collect();
    (keys, places)
}

async fn resolve_one(
    loaders: &Loaders,
    key: usize,
    sql: &Sql,
    object: &ObjectPlan,
    parents: &[RowRef],
) -> Result<Child, Error> {
    let (keys, mut places) = distinct_keys(parents, key);
    if keys.is_empty() {
        return Ok(Child::One { places, level: Level { rows: Vec::new(), children: none(object) } });
    }
    let loaded = loaders.load(sql, keys.clone()).await?;
    let mut rows = Vec::with_capacity(keys.len());
    let found = keys.iter().map(|key| {
        let row = loaded.get(key).filter(|loaded| loaded.len() > 0)?;
        rows.push(row.row(0));
        Some(rows.len() - 1)
    });
    let found: Vec<Option<usize>> = found.collect();
    for place in &mut places {
        *place = place.and_then(|key| found[key]);
    }
    let children = resolve(loaders, &object.relations, &rows).await;
    Ok(Child::One { places, level: Level { rows, children } })
}

/// The children of a level without rows: nothing is loaded, and nothing will be looked at.
fn none(object: &ObjectPlan) -> Vec<Child> {
    let empty =
        |_| Child::One { places: Vec::new(), level: Level { rows: Vec::new(), children: Vec::new() } };
    object.relations.iter().map(empty).collect()
}

async fn resolve_many(
    loaders: &Loaders,
    relation: &RelationPlan,
    parents: &[RowRef],
) -> Result<Child, Error> {
    let Shape::Many { rows, count, connection } = &relation.shape else {
        return Err(Error::internal("a page was expected"));
    };
    let (keys, places) = distinct_keys(parents, relation.key);
    let load = async |sql: &Option<_>| match sql {
        Some(sql) if !keys.is_empty() => loaders.load(sql, keys.clone()).await,
        _ => Ok(HashMap::new()),
    };
    let (loaded, counts) = futures_util::try_join!(load(rows), load(count))?;
    let mut pages = Pages::default();
    for key in &keys {
        let mut page =
            loaded.get(key).map(|rows| take_page(connection, rows, &mut pages.rows)).unwrap_or_default();
        page.count = counts.get(key).map_or(0, Loaded::count);
        pages.pages.push(page);
    }
    pages.objects = resolve_objects(loaders, &connection.objects, &pages.rows).await;
    Ok(Child::Many { places: places.into_iter().flatten().collect(), pages })
}

/// Takes the rows of one page: without the one that only tells that there is more, and in the list's order.
pub(crate) fn take_page(connection: &ConnectionPlan, loaded: &Loaded, into: &mut Vec<RowRef>) -> PageRows {
    let size = usize::try_from(connection.page.size).unwrap_or(usize::MAX);
    let len = loaded.len().min(size);
    let start = into.len();
    into.extend(
        (0..len).map(|place| loaded.row(if connection.page.backward { len - 1 - place } else { place })),
    );
    PageRows { start, len, more: loaded.len() > size, count: 0 }
}

async fn resolve_hits(
    loaders: &Loaders,
    key: usize,
    (question, sql, connection): (&Question, &Sql, &ConnectionPlan),
    parents: &[RowRef],
) -> Result<Child, Error> {
    let (keys, places) = distinct_keys(parents, key);
    let pages = if keys.is_empty() {
        Pages::default()
    } else {
        related(loaders, question, sql, connection, &keys).await?
    };
    Ok(Child::Many { places: places.into_iter().flatten().collect(), pages })
}

async fn resolve_list(
    loaders: &Loaders,
    key: usize,
    sql: &Sql,
    object: &ObjectPlan,
    parents: &[RowRef],
) -> Result<Child, Error> {
    let (keys, places) = distinct_keys(parents, key);
    let loaded = if keys.is_empty() { HashMap::new() } else { loaders.load(sql, keys.clone()).await? };
    let mut pages = Pages::default();
    for key in &keys {
        let (start, len) = (pages.rows.len(), loaded.get(key).map_or(0, Loaded::len));
        pages
            .rows
            .extend(loaded.get(key).into_iter().flat_map(|loaded| (0..len).map(|place| loaded.row(place))));
        pages.pages.push(PageRows { start, len, more: false, count: 0 });
    }
    pages.objects = vec![resolve(loaders, &object.relations, &pages.rows).await];
    Ok(Child::Many { places: places.into_iter().flatten().collect(), pages })
}

async fn resolve_nodes(loaders: &Loaders, ids: &[Uuid], types: &[(Sql, ObjectPlan)]) -> Result<Child, Error> {
    let found = loaders.types_of(ids).await?;
    let mut levels = Vec::with_capacity(types.len());
    let mut places = vec![None; ids.len()];
    for (n, (sql, object)) in types.iter().enumerate() {
        let of_type = |id: &Uuid| found.get(id) == Some(&n);
        let keys: Vec<_> = ids.iter().filter(|id| of_type(id)).copied().collect();
        let loaded = if keys.is_empty() { HashMap::new() } else { loaders.load(sql, keys).await? };
        let mut rows = Vec::new();
        for (place, id) in places.iter_mut().zip(ids) {
            if let Some(row) = loaded.get(id).filter(|loaded| loaded.len() > 0) {
                rows.push(row.row(0));
                *place = Some((n, rows.len() - 1));
            }
        }
        let children = resolve(loaders, &object.relations, &rows).await;
        levels.push(Level { rows, children });
    }
    Ok(Child::Nodes { places, levels })
}
