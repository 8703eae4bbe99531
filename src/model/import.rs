//! The SQL of the import: rows that are written in bulk, and how far an import has come.
//!
//! Every statement takes one JSON document with any number of rows, names other rows by their external ids,
//! and writes only what differs, so that a repeated import changes no row and no version.

pub(crate) mod record;
pub(crate) mod row;
mod table;

use std::collections::HashSet;

use chrono::{DateTime, Utc};
use diesel::result::{DatabaseErrorKind, Error as SqlError};
use diesel::sql_types::{Array, BigInt, Double, Text};
use diesel::{ExpressionMethods, QueryDsl, QueryableByName, SelectableHelper};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use serde::Serialize;
use uuid::Uuid;

use self::record::{Kind, Record};
use crate::schema::{evidence_chain_links, import_progress};

/// Imports take turns, batch by batch: two of them could otherwise wait for each other's rows.
const LOCK: i64 = 0x6576_6964_6500_0001;

/// How far the import of one source has come.
#[derive(Debug, Clone, diesel::Queryable, diesel::Selectable)]
#[diesel(table_name = import_progress)]
#[diesel(check_for_backend(diesel::pg::Pg))]
pub(crate) struct ImportProgress {
    pub(crate) lines_done: i64,
    pub(crate) finished_at: Option<DateTime<Utc>>,
}

impl ImportProgress {
    /// Where the source stands, which becomes known by this call if it is new. `again` starts it from its first line.
    pub(crate) async fn open(
        conn: &mut AsyncPgConnection,
        sha256: &str,
        name: &str,
        again: bool,
    ) -> Result<Self, SqlError> {
        use import_progress::dsl;
        diesel::insert_into(dsl::import_progress)
            .values((dsl::source_sha256.eq(sha256), dsl::source_name.eq(name)))
            .on_conflict_do_nothing()
            .execute(conn)
            .await?;
        if again {
            diesel::update(dsl::import_progress.find(sha256))
                .set((dsl::lines_done.eq(0), dsl::finished_at.eq(None::<DateTime<Utc>>)))
                .execute(conn)
                .await?;
        }
        dsl::import_progress.find(sha256).select(Self::as_select()).first(conn).await
    }

    /// Moves on in the caller's transaction. False: somebody else has moved on meanwhile.
    pub(crate) async fn advance(
        conn: &mut AsyncPgConnection,
        sha256: &str,
        from: i64,
        to: i64,
    ) -> Result<bool, SqlError> {
        use import_progress::dsl;
        diesel::sql_query("select pg_advisory_xact_lock($1)").bind::<BigInt, _>(LOCK).execute(conn).await?;
        let moved = diesel::update(dsl::import_progress.find(sha256))
            .filter(dsl::lines_done.eq(from))
            .set((dsl::lines_done.eq(to), dsl::updated_at.eq(diesel::dsl::now)))
            .execute(conn)
            .await?;
        Ok(moved == 1)
    }

    /// Notes in the audit log, in the caller's transaction, that these lines were written.
    pub(crate) async fn note(
        conn: &mut AsyncPgConnection,
        sha256: &str,
        (from, to): (i64, i64),
        rows: i64,
    ) -> Result<(), SqlError> {
        diesel::sql_query(
            "insert into audit_logs (event_type, action, service_name, resource_type, data) \
             select 'import.batch', 'execute', 'import', 'import', jsonb_build_object('source', source_name, \
             'sha256', source_sha256, 'after_line', $2, 'to_line', $3, 'rows', $4) \
             from import_progress where source_sha256 = $1",
        )
        .bind::<Text, _>(sha256)
        .bind::<BigInt, _>(from)
        .bind::<BigInt, _>(to)
        .bind::<BigInt, _>(rows)
        .execute(conn)
        .await?;
        Ok(())
    }

    /// Says that nothing is missing.
    pub(crate) async fn finish(conn: &mut AsyncPgConnection, sha256: &str) -> Result<(), SqlError> {
        use import_progress::dsl;
        diesel::update(dsl::import_progress.find(sha256))
            .set(dsl::finished_at.eq(diesel::dsl::now))
            .execute(conn)
            .await?;
        Ok(())
    }
}

/// Which of these external ids have a row.
pub(crate) async fn known(
    conn: &mut AsyncPgConnection,
    kind: Kind,
    external_ids: &[&str],
) -> Result<HashSet<String>, SqlError> {
    if kind == Kind::ChainLink {
        return known_links(conn, external_ids).await;
    }
    #[derive(QueryableByName)]
    struct Row {
        #[diesel(sql_type = Text)]
        external_id: String,
    }
    let statement = format!("select external_id from {} where external_id = any($1)", kind.table().name);
    let rows: Vec<Row> =
        diesel::sql_query(statement).bind::<Array<Text>, _>(external_ids).get_results(conn).await?;
    Ok(rows.into_iter().map(|row| row.external_id).collect())
}

/// Links have no column for external ids: their ids are made from them.
async fn known_links(
    conn: &mut AsyncPgConnection,
    external_ids: &[&str],
) -> Result<HashSet<String>, SqlError> {
    use evidence_chain_links::dsl;
    let ids: Vec<Uuid> = external_ids.iter().map(|name| record::id_of(Kind::ChainLink, name)).collect();
    let found: Vec<Uuid> =
        dsl::evidence_chain_links.filter(dsl::id.eq_any(&ids)).select(dsl::id).load(conn).await?;
    let found: HashSet<Uuid> = found.into_iter().collect();
    let pairs = external_ids.iter().zip(ids);
    Ok(pairs.filter(|(_, id)| found.contains(id)).map(|(name, _)| (*name).to_owned()).collect())
}

/// Writes rows of one kind, whose references all exist. Returns how many were new or different.
pub(crate) async fn write(
    conn: &mut AsyncPgConnection,
    kind: Kind,
    records: &[&Record],
) -> Result<usize, SqlError> {
    #[derive(Serialize)]
    struct Row<'a> {
        id: Uuid,
        #[serde(rename = "parentId")]
        parent_id: Option<Uuid>,
        #[serde(flatten)]
        record: &'a Record,
    }
    if kind == Kind::Evidence {
        note_changed_scores(conn, records).await?;
    }
    let rows: Vec<Row<'_>> = records
        .iter()
        .map(|record| Row { id: record.id(), parent_id: record.parent_link_id(), record })
        .collect();
    let document = serde_json::to_string(&rows).map_err(|e| SqlError::SerializationError(Box::new(e)))?;
    diesel::sql_query(kind.table().upsert()).bind::<Text, _>(document).execute(conn).await
}

/// Every change of a credibility leaves a line in its history, whoever makes it.
async fn note_changed_scores(conn: &mut AsyncPgConnection, records: &[&Record]) -> Result<(), SqlError> {
    let scores = records.iter().filter_map(|record| match record {
        Record::Evidence(evidence) => Some((evidence.external_id.as_str(), evidence.credibility_score)),
        _ => None,
    });
    let (names, scores): (Vec<&str>, Vec<f64>) = scores.unzip();
    diesel::sql_query(
        "insert into evidence_credibility_history (evidence_id, old_score, new_score, reason) \
         select evidence.id, evidence.credibility_score, given.score, 'Changed by an import.' \
         from unnest($1, $2) as given (external_id, score) join evidence using (external_id) \
         where evidence.credibility_score <> given.score",
    )
    .bind::<Array<Text>, _>(names)
    .bind::<Array<Double>, _>(scores)
    .execute(conn)
    .await?;
    Ok(())
}

/// Why the database refuses the data itself; none for every other failure, which says nothing about the data.
pub(crate) fn refusal(error: &SqlError) -> Option<String> {
    use DatabaseErrorKind::{CheckViolation, ForeignKeyViolation, NotNullViolation, UniqueViolation};
    match error {
        SqlError::DatabaseError(
            CheckViolation | ForeignKeyViolation | NotNullViolation | UniqueViolation,
            information,
        ) => {
            let details = information.details().map_or_else(String::new, |details| format!(" ({details})"));
            Some(format!("{}{details}", information.message()))
        }
        _ => None,
    }
}
