//! What the vector index holds of the entities that can be searched, and how far it is behind.

use std::collections::HashMap;

use serde_json::{Map, Value};
use uuid::Uuid;

use crate::error::{Error, Result};
use crate::model::change::Image;
use crate::model::entity::{Searched, Table, TypeId};
use crate::model::graph;
use crate::model::reads::columns_in;
use crate::model::select::Scope;
use crate::model::viewer::Viewer;
use crate::store::db::Session;
use crate::store::db::sql::{Bind, Sql};
use crate::store::vectors::Kind;

/// The key under which the index keeps of which entity a row is.
pub const ENTITY: &str = "entity";

/// The columns that the index keeps, by their names in SQL, so that searches can be narrowed by them there. A row has
/// those that its entity has.
pub static INDEX_KEYS: &[(&str, Kind)] = &[
    (ENTITY, Kind::Keyword),
    ("project_id", Kind::Tenant),
    ("task_id", Kind::Id),
    ("agent_id", Kind::Id),
    ("source_type", Kind::Keyword),
    ("domain", Kind::Keyword),
    ("credibility_score", Kind::Number),
    ("verified", Kind::Flag),
    ("status", Kind::Keyword),
    ("category", Kind::Keyword),
    ("tags", Kind::Keyword),
    ("collected_at", Kind::Time),
    ("expires_at", Kind::Time),
    ("created_at", Kind::Time),
];

/// Which version of a row the index should hold.
#[derive(Debug, Clone, Copy)]
pub struct Indexed {
    /// The row.
    pub id: Uuid,
    /// Its version.
    pub version: i32,
}

/// How a row stands.
#[derive(Debug, Clone, Copy)]
pub struct Standing {
    /// Its version.
    pub version: i32,
    /// It is kept and no longer shown: the index must not have it.
    pub is_deleted: bool,
}

/// What stands for a row in the index.
#[derive(Debug, Clone)]
pub struct Document {
    /// The row.
    pub id: Uuid,
    /// The version that the rest was read of.
    pub version: i32,
    /// The text that it is found by.
    pub text: String,
    /// The values of [`INDEX_KEYS`], without those that are NULL.
    pub payload: Map<String, Value>,
}

/// The tables whose rows are indexed.
pub fn tables() -> impl Iterator<Item = &'static str> {
    entities().map(|(_, table, _)| table.name)
}

/// Whether the rows of a table are indexed.
pub fn is_searched(table: &str) -> bool {
    tables().any(|name| name == table)
}

/// Whether an update changed the text that a row of this table is found by, or brought the row back.
pub fn changes_text(table: &str, image: &Image) -> bool {
    let searched = entities().find(|(_, of, _)| of.name == table).map(|(_, _, searched)| searched.document);
    let columns = searched.map(columns_in).unwrap_or_default();
    image.turned() || image.moved || columns.iter().any(|column| image.changes(column))
}

/// Reads what the index should hold, in the order of ids, after an id. The index serves all viewers; each search is
/// limited to its viewer again.
pub async fn read_indexed(session: &Session, after: Option<Uuid>, limit: u32) -> Result<Vec<Indexed>> {
    let limit = i64::from(limit);
    let sql = of_all("select r.id, r.version::int8", |sql, t, _, write_table| {
        sql.push(&format!("select {t}.id, {t}.version"));
        write_table(sql);
        if let Some(after) = after {
            sql.push(&format!(" and {t}.id > ")).bind(Bind::Uuid(after));
        }
        sql.push(&format!(" order by {t}.id limit ")).bind(Bind::Int(limit));
    });
    let mut sql = sql;
    sql.push(" order by r.id limit ").bind(Bind::Int(limit));
    let rows = session.rows(&sql.returning(2)).await?;
    let read = |row: usize| Some(Indexed { id: rows.uuid(row, 0)?, version: int(rows.bigint(row, 1)?)? });
    Ok((0..rows.len()).filter_map(read).collect())
}

/// How much the index should hold.
pub async fn count_indexed(session: &Session) -> Result<u64> {
    let sql = of_all("select sum(r.count)::int8", |sql, _, _, write_table| {
        sql.push("select count(*)");
        write_table(sql);
    });
    let rows = session.rows(&sql.returning(1)).await?;
    Ok(rows.bigint(0, 0).and_then(|count| u64::try_from(count).ok()).unwrap_or(0))
}

/// How rows stand, the deleted ones among them; those that are in no table are left out.
pub async fn read_standing(session: &Session, ids: &[Uuid]) -> Result<HashMap<Uuid, Standing>> {
    let mut sql = Sql::default();
    sql.push("select r.id, r.version::int8, r.is_deleted from (");
    for (n, table) in tables().enumerate() {
        let union = if n == 0 { "" } else { " union all " };
        sql.push(&format!(
            "{union}select t.id, t.version, t.deleted_at is not null from {table} t where t.id = any("
        ));
        sql.bind(Bind::Uuids(ids.to_vec())).push(")");
    }
    sql.push(") r (id, version, is_deleted)");
    let rows = session.rows(&sql.returning(3)).await?;
    let read = |row: usize| {
        let standing =
            Standing { version: int(rows.bigint(row, 1)?)?, is_deleted: rows.cell(row, 2)? == [1] };
        Some((rows.uuid(row, 0)?, standing))
    };
    Ok((0..rows.len()).filter_map(read).collect())
}

/// Reads what stands for rows. One that is gone meanwhile is left out.
pub async fn read_documents(session: &Session, ids: Vec<Uuid>) -> Result<Vec<Document>> {
    let sql = of_all(
        "select r.id, r.version::int8, r.document, r.payload",
        |sql, t, (ty, searched), write_table| {
            let columns = &graph().types[ty].columns;
            let mut payload = format!("'{ENTITY}', '{}'", searched.entity);
            for (key, _) in
                INDEX_KEYS.iter().filter(|(key, _)| columns.iter().any(|column| column.sql_name == *key))
            {
                payload.push_str(&format!(", '{key}', {t}.{key}"));
            }
            let document = searched.document.replace("{t}", t);
            sql.push(&format!(
                "select {t}.id, {t}.version, {document} as document, \
             jsonb_strip_nulls(jsonb_build_object({payload}))::text as payload"
            ));
            write_table(sql);
            sql.push(&format!(" and {t}.id = any(")).bind(Bind::Uuids(ids.clone())).push(")");
        },
    );
    let rows = session.rows(&sql.returning(4)).await?;
    let read = |row: usize| {
        let payload = serde_json::from_str(rows.text(row, 3)?).map_err(Error::internal);
        let (id, version, text) =
            (rows.uuid(row, 0)?, int(rows.bigint(row, 1)?)?, rows.text(row, 2)?.to_owned());
        Some(payload.map(|payload| Document { id, version, text, payload }))
    };
    (0..rows.len()).filter_map(read).collect()
}

/// A statement over the shown rows of all entities: `select` reads from them as `r`; `write` writes the part of one,
/// with the alias of its row.
fn of_all(
    select: &str,
    mut write: impl FnMut(&mut Sql, &str, (TypeId, &'static Searched), &dyn Fn(&mut Sql)),
) -> Sql {
    let viewer = Viewer::admin();
    let mut scope = Scope::new(&viewer);
    let mut sql = Sql::default();
    sql.push(select).push(" from (");
    for (n, (ty, _, searched)) in entities().enumerate() {
        sql.push(if n == 0 { "(" } else { " union all (" });
        let t = scope.alias();
        write(&mut sql, &t, (ty, searched), &|sql| scope.write_table(ty, &t, sql));
        sql.push(")");
    }
    sql.push(") r");
    sql
}

fn entities() -> impl Iterator<Item = (TypeId, &'static Table, &'static Searched)> {
    graph().entities().filter_map(|(id, _, table)| Some((id, table, table.searched?)))
}

fn int(number: i64) -> Option<i32> {
    i32::try_from(number).ok()
}
