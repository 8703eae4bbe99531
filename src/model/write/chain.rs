//! What is done to evidence chains: open, append links to, conclude.

use futures_util::FutureExt;
use serde_json::{Value, json};
use uuid::Uuid;

use super::Write;
use super::rows::Locked;
use crate::error::{Code, Error, Result};
use crate::model::chain::{LINK_ROLE, STATUS};
use crate::model::entity::screaming_case;
use crate::model::mutation::{Field, Kind, Mutation, Row, Values};
use crate::model::viewer::Role;
use crate::store::db::sql::{Bind, Sql};

pub(crate) static CREATE: Mutation = Mutation {
    name: "createChain",
    doc: "Opens an evidence chain: a claim to be argued.",
    returns: "EvidenceChain",
    list: false,
    needs: Role::Agent,
    table: "evidence_chains",
    changes: false,
    fields: &[
        Field::new("projectId", "", Kind::Row("Project"))
            .about("The project; that of the task unless given."),
        Field::new("taskId", "task_id", Kind::Row("Task")),
        Field::needed("claim", "claim", Kind::Text(1, 5_000)),
        Field::new("metadata", "metadata", Kind::Object),
    ],
    run: |write, values| create(write, values).boxed(),
};

pub(crate) static APPEND: Mutation = Mutation {
    name: "appendChainLink",
    doc: "Appends a link to an open chain, at its end.",
    returns: "EvidenceChainLink",
    table: "evidence_chain_links",
    fields: &[
        Field::needed("chainId", "chain_id", Kind::Uuid),
        Field::needed("evidenceId", "evidence_id", Kind::Row("Evidence")),
        Field::new("parentLinkId", "parent_link_id", Kind::Row("EvidenceChainLink")),
        Field::needed("role", "role", Kind::Enum(&LINK_ROLE)),
        Field::new("rationale", "rationale", Kind::Text(0, 20_000)),
    ],
    run: |write, values| append(write, values).boxed(),
    ..CREATE
};

pub(crate) static CONCLUDE: Mutation = Mutation {
    name: "concludeChain",
    doc: "Ends an open chain with what its evidence led to.",
    changes: true,
    fields: &[
        Field::id("The chain."),
        Field::needed("conclusion", "conclusion", Kind::Text(1, 20_000)),
        Field::new("confidence", "confidence", Kind::Float(0.0, 1.0)),
        Field::new("status", "", Kind::Enum(&STATUS))
            .about("CONCLUDED unless given, or REJECTED if the evidence speaks against the claim."),
    ],
    run: |write, values| conclude(write, values).boxed(),
    ..CREATE
};

async fn create(write: &mut Write<'_>, values: &Values) -> Result<Vec<Uuid>> {
    let project = write.home(values, ("taskId", "Task"))?;
    let mut row = values.row(CREATE.fields);
    row.insert("project_id", project.to_string().into());
    row.extend(write.actor("created_by_user_id", "created_by_agent_id"));
    write.insert_one("EvidenceChain", "evidence_chain.created", values, Some(project), row).await
}

fn must_be_open(locked: &Locked, what: &str) -> Result<()> {
    let status = locked.text("status");
    if status == "open" {
        return Ok(());
    }
    let text = format!("the chain is {} and {what}", screaming_case(status));
    Err(Error::new(Code::Conflict, text))
}

async fn append(write: &mut Write<'_>, values: &Values) -> Result<Vec<Uuid>> {
    let locked = write.lock("EvidenceChain", values, "chainId", ["status"]).await?;
    must_be_open(&locked, "takes no links")?;
    // Links of one chain take turns at its lock, so no other one gets this place.
    let mut sql = Sql::default();
    sql.push("select coalesce(max(position)::bigint + 1, 0), coalesce(bool_or(id = ");
    sql.bind(Bind::Uuid(values.uuid("parentLinkId").unwrap_or_default()));
    sql.push("), false) from evidence_chain_links where chain_id = ").bind(Bind::Uuid(locked.id));
    let rows = write.tx.rows(&sql.returning(2)).await.map_err(Error::from)?;
    let position = rows.bigint(0, 0).unwrap_or_default();
    if values.has("parentLinkId") && rows.cell(0, 1) != Some(&[1]) {
        return Err(Error::bad_input(values.at("parentLinkId"), "is a link of another chain"));
    }
    if position > i64::from(i32::MAX) {
        return Err(Error::new(Code::Conflict, "the chain has no place left"));
    }
    let mut row = values.row(APPEND.fields);
    row.insert("position", json!(position));
    let event = "evidence_chain_link.created";
    write.insert_one("EvidenceChainLink", event, values, locked.project_id, row).await
}

async fn conclude(write: &mut Write<'_>, values: &Values) -> Result<Vec<Uuid>> {
    let status = values.text("status").unwrap_or("concluded");
    if status == "open" {
        return Err(Error::bad_input(values.at("status"), "must be CONCLUDED or REJECTED"));
    }
    let mut row = Row::from([("status", status.into()), ("concluded_at", Value::from("now"))]);
    row.extend(values.row(CONCLUDE.fields));
    let locked = write.lock("EvidenceChain", values, "id", row.keys().copied()).await?;
    must_be_open(&locked, "is not concluded again")?;
    let event = if status == "rejected" { "evidence_chain.rejected" } else { "evidence_chain.concluded" };
    write.update(&locked, event, values, row).await
}
