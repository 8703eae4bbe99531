//! Search: text becomes a vector, the vector becomes hits, and one statement turns the hits into rows. PostgreSQL
//! has the last word on what exists, what fits the filter and what the viewer may see; hits that it does not
//! confirm are dropped, and the search goes on until the page is full or there are no more hits.

use std::collections::HashMap;

use uuid::Uuid;

use crate::error::Result;
use crate::graphql::level::{PageRows, Pages, resolve_objects};
use crate::graphql::loaders::Loaders;
use crate::graphql::plan::ConnectionPlan;
use crate::store::db::rows::RowRef;
use crate::store::db::sql::Sql;
use crate::store::embedder::Embedder;
use crate::store::vectors::{Filter, Hit, Question as Nearest, Vectors, WINDOW_MAX, Words};

/// Characters of a question at most.
pub(crate) const MAX_QUERY: usize = 2_000;
/// Hits asked for beyond the page, so that a few dropped ones cost no second round.
const SPARE: usize = 16;
/// Each further round looks at this many times more hits.
const GROWTH: usize = 4;

/// What a search needs besides the database.
#[derive(Clone)]
pub struct Searcher {
    /// Turns text into vectors.
    pub embedder: Embedder,
    /// Finds vectors.
    pub vectors: Vectors,
    /// Turns text into the words that BM25 compares.
    pub words: Words,
}

/// What a client wants to find.
pub(crate) struct Question {
    pub(crate) query: String,
}

/// Finds a page of rows. `sql` reads rows by id, with the client's filter.
pub(crate) async fn search(
    loaders: &Loaders,
    question: &Question,
    sql: &Sql,
    connection: &ConnectionPlan,
) -> Result<Pages> {
    let size = usize::try_from(connection.page.size).unwrap_or(usize::MAX);
    let mut pages = Pages::default();
    let vector = loaders.searcher.embedder.embed_query(&question.query).await?;
    let visible = loaders.viewer.project_ids().map(|projects| Filter::ids_in("project_id", projects));
    let (mut offset, mut window) = (0, size + SPARE);
    while pages.rows.len() < size && offset < WINDOW_MAX {
        let limit = (offset + window).min(WINDOW_MAX);
        let nearest =
            Nearest { dense: Some(vector.to_vec()), filter: visible.clone(), limit, ..Nearest::default() };
        let answers = loaders.searcher.vectors.ask(vec![nearest]).await?;
        let hits = answers.first().map_or(&[][..], |answer| &answer.dense);
        hydrate(loaders, sql, hits.get(offset..).unwrap_or_default(), size, &mut pages).await?;
        if hits.len() < limit {
            break;
        }
        offset = limit;
        window *= GROWTH;
    }
    pages.pages.push(PageRows { start: 0, len: pages.rows.len(), more: false, count: 0 });
    pages.objects = resolve_objects(loaders, &connection.objects, &pages.rows).await;
    Ok(pages)
}

/// Reads the rows of the hits by one statement and appends them in the hits' order until the page is full.
async fn hydrate(loaders: &Loaders, sql: &Sql, hits: &[Hit], size: usize, pages: &mut Pages) -> Result<()> {
    if hits.is_empty() {
        return Ok(());
    }
    let ids = hits.iter().map(|hit| hit.id).collect();
    let rows = std::sync::Arc::new(loaders.session.rows(&sql.with_keys(ids)).await?);
    let by_id: HashMap<Uuid, usize> =
        (0..rows.len()).filter_map(|row| Some((rows.uuid(row, 0)?, row))).collect();
    for hit in hits {
        if pages.rows.len() == size {
            break;
        }
        if let Some(row) = by_id.get(&hit.id) {
            pages.rows.push(RowRef { set: rows.clone(), row: *row });
            pages.scores.push(hit.score);
        }
    }
    Ok(())
}
