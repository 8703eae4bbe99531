//! Parked rows: what the indexer gave up on because the embedder does not take it. The list is the operators'; it
//! belongs to a model, because another one may well take the same text.

use std::collections::HashMap;

use uuid::Uuid;

use crate::error::Result;
use crate::store::db::Session;
use crate::store::db::sql::{Bind, Sql};

/// Characters of a reason at most, as the table allows.
const MAX_REASON: usize = 500;

/// One row that is given up.
#[derive(Debug, Clone)]
pub struct Refused {
    /// The row.
    pub id: Uuid,
    /// The version that was tried.
    pub version: i32,
    /// What the embedder said.
    pub reason: String,
    /// How often it was tried this time.
    pub attempts: u32,
}

/// What is known of a parked row.
#[derive(Debug, Clone, Copy)]
pub struct Parked {
    /// The version that was tried last.
    pub version: i32,
    /// Whether somebody wants it to be tried again.
    pub retry: bool,
}

/// A line of the list, for people.
#[derive(Debug, Clone)]
pub struct Line {
    /// The row.
    pub id: Uuid,
    /// What the embedder said last.
    pub reason: String,
    /// How often it was tried in all.
    pub attempts: i64,
}

/// Which of these are parked.
pub async fn of(session: &Session, model: &str, ids: &[Uuid]) -> Result<HashMap<Uuid, Parked>> {
    let mut sql = of_model("select p.row_id, p.row_version::int8, p.retry_requested_at is not null", model);
    sql.push(" and p.row_id = any(").bind(Bind::Uuids(ids.to_vec())).push(")");
    let rows = session.rows(&sql.returning(3)).await?;
    let read = |row: usize| {
        let version = i32::try_from(rows.bigint(row, 1)?).ok()?;
        Some((rows.uuid(row, 0)?, Parked { version, retry: rows.cell(row, 2)? == [1] }))
    };
    Ok((0..rows.len()).filter_map(read).collect())
}

/// Parks rows, or notes that they failed again.
pub async fn park(session: &Session, model: &str, refused: &[Refused]) -> Result<()> {
    let reason = |text: &str| text.chars().take(MAX_REASON).collect::<String>();
    let mut sql = Sql::default();
    sql.push(
        "insert into parked_rows as p (row_id, model, row_version, reason, attempts) \
         select r.id, ",
    );
    sql.bind(Bind::Text(model.to_owned())).push(", r.version, r.reason, r.attempts from unnest(");
    sql.bind(Bind::Uuids(refused.iter().map(|row| row.id).collect())).push(", ");
    sql.bind(Bind::Ints(refused.iter().map(|row| row.version.into()).collect())).push(", ");
    sql.bind(Bind::Texts(refused.iter().map(|row| reason(&row.reason)).collect())).push(", ");
    sql.bind(Bind::Ints(refused.iter().map(|row| row.attempts.into()).collect()));
    sql.push(
        ") r (id, version, reason, attempts) on conflict (row_id, model) do update set row_version = excluded.row_version, \
         reason = excluded.reason, attempts = p.attempts + excluded.attempts, attempted_at = now(), \
         retry_requested_at = null",
    );
    session.rows(&sql).await.map(drop)
}

/// Takes rows from the list: they are indexed, or need not be any more.
pub async fn unpark(session: &Session, model: &str, ids: &[Uuid]) -> Result<()> {
    let mut sql = of_model("delete", model);
    sql.push(" and p.row_id = any(").bind(Bind::Uuids(ids.to_vec())).push(")");
    session.rows(&sql).await.map(drop)
}

/// How many rows are parked, and some of those that somebody wants to be tried again.
pub async fn waiting(session: &Session, model: &str, limit: u32) -> Result<(i64, Vec<Uuid>)> {
    let mut sql = Sql::default();
    sql.push("select (select count(*) from parked_rows p where p.model = ");
    sql.bind(Bind::Text(model.to_owned()));
    sql.push("), array(select p.row_id from parked_rows p where p.model = ");
    sql.bind(Bind::Text(model.to_owned()));
    sql.push(" and p.retry_requested_at is not null order by p.retry_requested_at limit ");
    sql.bind(Bind::Int(limit.into())).push(")");
    let rows = session.rows(&sql.returning(2)).await?;
    Ok((rows.bigint(0, 0).unwrap_or_default(), rows.uuids(0, 1).unwrap_or_default()))
}

/// Wants all rows of a model to be tried again, and says how many there are.
pub async fn request_retry(session: &Session, model: &str) -> Result<usize> {
    let mut sql = Sql::default();
    sql.push("update parked_rows p set retry_requested_at = now() where p.model = ");
    sql.bind(Bind::Text(model.to_owned())).push(" returning true");
    Ok(session.rows(&sql.returning(1)).await?.len())
}

/// How many rows of a model somebody wants to be tried again and nobody has tried.
pub async fn count_requested(session: &Session, model: &str) -> Result<i64> {
    let mut sql = of_model("select count(*)", model);
    sql.push(" and p.retry_requested_at is not null");
    let rows = session.rows(&sql.returning(1)).await?;
    Ok(rows.bigint(0, 0).unwrap_or_default())
}

/// The rows that were tried last, the latest first.
pub async fn list(session: &Session, model: &str, limit: u32) -> Result<Vec<Line>> {
    let mut sql = of_model("select p.row_id, p.reason, p.attempts::int8", model);
    sql.push(" order by p.attempted_at desc, p.row_id limit ").bind(Bind::Int(limit.into()));
    let rows = session.rows(&sql.returning(3)).await?;
    let read = |row: usize| {
        let reason = rows.text(row, 1)?.to_owned();
        Some(Line { id: rows.uuid(row, 0)?, reason, attempts: rows.bigint(row, 2)? })
    };
    Ok((0..rows.len()).filter_map(read).collect())
}

fn of_model(begin: &str, model: &str) -> Sql {
    let mut sql = Sql::default();
    sql.push(begin).push(" from parked_rows p where p.model = ").bind(Bind::Text(model.to_owned()));
    sql
}
