//! What a change is called, when nobody but the log tells of it: by the names that the mutations use for the same.

use std::borrow::Cow;

use serde_json::Value;

use crate::model::change::{Change, Op};
use crate::model::entity::screaming_case;
use crate::model::graph;

/// The kind of row that stands in a table: `evidence_chains` → `evidence_chain`.
pub(super) fn resource_type(table: &str) -> String {
    match graph().entities().find(|(_, _, found)| found.name == table) {
        Some((_, ty, _)) => snake_case(&ty.name),
        // The schema does not show it: the plural's end goes.
        None => match (table.strip_suffix("ies"), table.strip_suffix('s')) {
            (Some(stem), _) => format!("{stem}y"),
            (_, Some(stem)) => stem.to_owned(),
            _ => table.to_owned(),
        },
    }
}

/// `EvidenceChain` → `evidence_chain`
pub(in crate::model) fn snake_case(name: &str) -> String {
    screaming_case(name).trim_start_matches('_').to_ascii_lowercase()
}

/// The name of what happened, such as `task.started`.
pub(super) fn event_type(change: &Change) -> String {
    let what = match change.op {
        Op::Update => update(change),
        op => plain(&change.entity, op).into(),
    };
    format!("{}.{what}", resource_type(&change.entity))
}

/// The name of what happened to many rows.
pub(super) fn bulk_event_type(table: &str, op: Op) -> String {
    format!("{}.{}", resource_type(table), plain(table, op))
}

fn plain(table: &str, op: Op) -> &'static str {
    match op {
        Op::Insert if table == "agents" => "registered",
        Op::Insert => "created",
        Op::Update => "updated",
        Op::Delete => "deleted",
        Op::Truncate => "truncated",
    }
}

/// By the most telling of the columns that changed.
fn update(change: &Change) -> Cow<'static, str> {
    let now = |column: &str| change.keys.get(column);
    let text = |value: Option<&Value>| value.and_then(Value::as_str).unwrap_or_default().to_owned();
    let is = |column: &str| now(column) == Some(&Value::Bool(true));
    let was = |column: &str| former(change, column).is_some();
    let (status, before) = (text(now("status")), text(former(change, "status")));
    match &*change.entity {
        _ if was("deleted") => if is("deleted") { "deleted" } else { "restored" }.into(),
        _ if change.old_project_id.is_some() => "moved".into(),
        "tasks" if was("status") => match (before.as_str(), status.as_str()) {
            ("failed", "pending") => "retried".into(),
            (_, "pending") => "reopened".into(),
            (_, "processing") => "started".into(),
            _ => status.into(),
        },
        "tasks" if was("assigned_user_id") || was("assigned_agent_id") => "assigned".into(),
        "evidence" if was("verified") => if is("verified") { "verified" } else { "unverified" }.into(),
        "evidence" if was("credibility_score") => "rated".into(),
        "evidence" if was("expires_at") => "expired".into(),
        "evidence_chains" if was("status") && status == "open" => "reopened".into(),
        "evidence_chains" if was("status") => status.into(),
        _ if was("status") => "status_changed".into(),
        _ => "updated".into(),
    }
}

/// What a column held before, if the change is about it.
pub(super) fn former<'a>(change: &'a Change, column: &str) -> Option<&'a Value> {
    change.keys.get("old")?.get(column)
}
