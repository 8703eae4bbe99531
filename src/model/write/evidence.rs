//! What is done to evidence: add, verify, rate, let expire, relate.
//!
//! The same content is kept once: whoever adds what the project and the task (or the project without a task) have
//! already, gets the row that is there, unchanged, unless it is deleted or has expired.

use std::collections::HashMap;

use futures_util::FutureExt;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::Write;
use crate::error::{Code, Error, Result};
use crate::model::evidence::{DOMAIN, RELATION_KIND, SOURCE_TYPE};
use crate::model::mutation::{Field, Kind, Mutation, Row, Values};
use crate::model::viewer::Role;
use crate::store::db::sql::{Bind, Sql};

/// Pieces of evidence that one mutation adds at most.
pub(crate) const MAX_EVIDENCES: usize = 100;

const FIELDS: &[Field] = &[
    Field::new("projectId", "", Kind::Row("Project")).about("The project; that of the task unless given."),
    Field::new("taskId", "task_id", Kind::Row("Task")),
    Field::needed("title", "title", Kind::Text(1, 500)),
    Field::needed("content", "content", Kind::Text(1, 1_000_000)),
    Field::needed("sourceType", "source_type", Kind::Enum(&SOURCE_TYPE)),
    Field::new("sourceUrl", "source_url", Kind::Text(1, 2_048)),
    Field::new("domain", "domain", Kind::Enum(&DOMAIN)),
    Field::new("credibilityScore", "credibility_score", Kind::Float(0.0, 1.0)),
    Field::new("language", "language", Kind::Text(1, 35)),
    Field::new("tags", "tags", Kind::Texts),
    Field::new("metadata", "metadata", Kind::Object),
    Field::new("collectedAt", "collected_at", Kind::Time),
    Field::new("expiresAt", "expires_at", Kind::Time),
];

pub(crate) static ADD: Mutation = Mutation {
    name: "addEvidence",
    doc: "Adds a piece of evidence, as the agent that asks. If the task (or, without one, the project) has the same \
          content already and it has not expired, that piece is the answer and nothing is written.",
    returns: "Evidence",
    list: false,
    needs: Role::Agent,
    table: "evidence",
    changes: false,
    fields: FIELDS,
    run: |write, values| add_many(write, std::slice::from_ref(values)).boxed(),
};

pub(crate) static ADD_MANY: Mutation = Mutation {
    name: "addEvidences",
    doc: "Adds several pieces of evidence, all or none, each as addEvidence does; the answer has their order.",
    list: true,
    fields: &[Field::needed("evidences", "", Kind::Items("AddEvidencesItemInput", FIELDS, MAX_EVIDENCES))
        .about("The pieces.")],
    run: |write, values| add_many(write, &values.items).boxed(),
    ..ADD
};

const ID: Field = Field::id("The evidence.");

pub(crate) static VERIFY: Mutation = Mutation {
    name: "verifyEvidence",
    doc: "Vouches for a piece of evidence, or takes that back. Only people do; an agent is refused.",
    needs: Role::Analyst,
    changes: true,
    fields: &[
        ID,
        Field::new("verified", "", Kind::Bool).about("False takes the verification back; true unless given."),
        Field::new("note", "verification_note", Kind::Text(0, 20_000)),
    ],
    run: |write, values| verify(write, values).boxed(),
    ..ADD
};

pub(crate) static RATE: Mutation = Mutation {
    name: "rateEvidence",
    doc: "Says how far a piece of evidence is to be believed, and why; its history keeps both.",
    needs: Role::Analyst,
    changes: true,
    fields: &[
        ID,
        Field::needed("credibilityScore", "credibility_score", Kind::Float(0.0, 1.0)),
        Field::needed("reason", "", Kind::Text(1, 20_000)).about("Why."),
    ],
    run: |write, values| rate(write, values).boxed(),
    ..ADD
};

pub(crate) static EXPIRE: Mutation = Mutation {
    name: "expireEvidence",
    doc: "Says when a piece of evidence loses its worth.",
    changes: true,
    fields: &[
        ID,
        Field::new("expiresAt", "expires_at", Kind::Time)
            .about("The moment; now unless given, null for never."),
    ],
    run: |write, values| expire(write, values).boxed(),
    ..ADD
};

pub(crate) static RELATE: Mutation = Mutation {
    name: "relateEvidence",
    doc: "Says how one piece of evidence bears on another.",
    returns: "EvidenceRelation",
    needs: Role::Analyst,
    table: "evidence_relations",
    fields: &[
        Field::needed("fromEvidenceId", "from_evidence_id", Kind::Row("Evidence")),
        Field::needed("toEvidenceId", "to_evidence_id", Kind::Row("Evidence")),
        Field::needed("kind", "kind", Kind::Enum(&RELATION_KIND)),
        Field::new("strength", "strength", Kind::Float(0.0, 1.0)),
        Field::new("note", "note", Kind::Text(0, 20_000)),
    ],
    run: |write, values| relate(write, values).boxed(),
    ..ADD
};

/// What makes two pieces of evidence the same: project, task, SHA-256 of the content.
type Sameness = (Uuid, Option<Uuid>, String);

async fn add_many(write: &mut Write<'_>, inputs: &[Values]) -> Result<Vec<Uuid>> {
    let mut wanted: Vec<(Sameness, &Values)> = Vec::with_capacity(inputs.len());
    for values in inputs {
        let project = write.home(values, ("taskId", "Task"))?;
        let content = values.text("content").unwrap_or_default();
        let hash: String = Sha256::digest(content).iter().map(|byte| format!("{byte:02x}")).collect();
        wanted.push(((project, values.uuid("taskId"), hash), values));
    }
    let mut known = same_content(write, &wanted).await?;
    let (mut fresh, mut rows) = (Vec::new(), Vec::new());
    for (same, values) in &wanted {
        if known.contains_key(same) || fresh.contains(same) {
            continue;
        }
        fresh.push(same.clone());
        rows.push((same.0, evidence_row(write, same.0, values)));
    }
    let path = inputs.first().map_or("input", |values| values.path.as_str());
    let ids = write.insert("Evidence", "evidence.created", rows, path).await?;
    known.extend(fresh.into_iter().zip(ids));
    Ok(wanted.iter().filter_map(|(same, _)| known.get(same).copied()).collect())
}

/// Rows of one statement have the same columns, so those that nobody gave get the table's defaults here.
fn evidence_row(write: &Write<'_>, project: Uuid, values: &Values) -> Row {
    let mut row: Row = FIELDS.iter().map(|field| (field.column, Value::Null)).collect();
    row.extend([
        ("domain", "general".into()),
        ("credibility_score", json!(0.5)),
        ("tags", json!([])),
        ("metadata", json!({})),
        ("collected_at", "now".into()),
    ]);
    row.extend(values.row(FIELDS));
    row.remove("");
    row.insert("project_id", project.to_string().into());
    row.insert("agent_id", write.viewer.agent_id.map(|id| id.to_string()).into());
    row
}

/// Finds what is there already. Whoever adds the same content at the same time waits here for the first.
async fn same_content(
    write: &mut Write<'_>,
    wanted: &[(Sameness, &Values)],
) -> Result<HashMap<Sameness, Uuid>> {
    // In one order for everybody, so that no two wait for each other.
    let mut locks: Vec<i64> = wanted.iter().map(|(same, _)| lock_of(same)).collect();
    locks.sort_unstable();
    locks.dedup();
    let mut sql = Sql::default();
    sql.push("select count(pg_advisory_xact_lock(k)) from unnest(").bind(Bind::Ints(locks)).push(") k");
    write.tx.rows(&sql.returning(1)).await.map_err(Error::from)?;
    let mut sql = Sql::default();
    sql.push("select distinct on (project_id, task_id, content_hash) project_id, task_id, content_hash, id from evidence");
    sql.push(" where content_hash = any(");
    sql.bind(Bind::Texts(wanted.iter().map(|(same, _)| same.2.clone()).collect()));
    sql.push(") and project_id = any(").bind(Bind::Uuids(wanted.iter().map(|(same, _)| same.0).collect()));
    sql.push(") and deleted_at is null and (expires_at is null or expires_at > now())");
    sql.push(" order by project_id, task_id, content_hash, created_at, id");
    let rows = write.tx.rows(&sql.returning(4)).await.map_err(Error::from)?;
    let read = |row| {
        let same = (rows.uuid(row, 0)?, rows.uuid(row, 1), rows.text(row, 2)?.to_owned());
        Some((same, rows.uuid(row, 3)?))
    };
    Ok((0..rows.len()).filter_map(read).collect())
}

/// A number for a lock. Two that share one only wait for each other.
fn lock_of((project, task, hash): &Sameness) -> i64 {
    let mut hasher = Sha256::new();
    hasher.update("evidence");
    hasher.update(project);
    hasher.update(task.unwrap_or_default());
    hasher.update(hash);
    let digest = hasher.finalize();
    i64::from_be_bytes(std::array::from_fn(|n| digest[n]))
}

async fn verify(write: &mut Write<'_>, values: &Values) -> Result<Vec<Uuid>> {
    if write.viewer.agent_id.is_some() {
        return Err(Error::new(Code::Forbidden, "evidence is verified by people, and you are an agent"));
    }
    let verified = values.get("verified").and_then(Value::as_bool).unwrap_or(true);
    let user = write.viewer.user_id.filter(|_| verified);
    let row = Row::from([
        ("verified", verified.into()),
        ("verified_by_user_id", user.map(|id| id.to_string()).into()),
        ("verified_at", verified.then_some("now").into()),
        ("verification_note", values.get("note").cloned().unwrap_or_default()),
    ]);
    let event = if verified { "evidence.verified" } else { "evidence.unverified" };
    let locked = write.lock("Evidence", values, "id", row.keys().copied()).await?;
    write.update(&locked, event, values, row).await
}

async fn rate(write: &mut Write<'_>, values: &Values) -> Result<Vec<Uuid>> {
    let locked = write.lock("Evidence", values, "id", ["credibility_score"]).await?;
    let score = values.get("credibilityScore").cloned().unwrap_or_default();
    let mut change = Row::from([
        ("evidence_id", locked.id.to_string().into()),
        ("old_score", locked.old.get("credibility_score").cloned().unwrap_or_default()),
        ("new_score", score),
        ("reason", values.get("reason").cloned().unwrap_or_default()),
    ]);
    change.extend(write.actor("changed_by_user_id", "changed_by_agent_id"));
    let event = "credibility_change.created";
    write.insert_one("CredibilityChange", event, values, locked.project_id, change).await?;
    write.update(&locked, "evidence.rated", values, values.row(RATE.fields)).await
}

async fn expire(write: &mut Write<'_>, values: &Values) -> Result<Vec<Uuid>> {
    let mut row = Row::from([("expires_at", "now".into())]);
    row.extend(values.row(EXPIRE.fields));
    let locked = write.lock("Evidence", values, "id", row.keys().copied()).await?;
    write.update(&locked, "evidence.expired", values, row).await
}

async fn relate(write: &mut Write<'_>, values: &Values) -> Result<Vec<Uuid>> {
    if values.uuid("fromEvidenceId") == values.uuid("toEvidenceId") {
        return Err(Error::bad_input(values.at("toEvidenceId"), "is the evidence itself"));
    }
    let project = write.home(values, ("fromEvidenceId", "Evidence"))?;
    let mut row = values.row(RELATE.fields);
    row.extend(write.actor("created_by_user_id", "created_by_agent_id"));
    write.insert_one("EvidenceRelation", "evidence_relation.created", values, Some(project), row).await
}
