//! The words of the activity feed: which events are told, and how. A name of a row is read when the sentence is
//! written, and stands in it only if the row belongs to the project whose members read it.

use std::collections::HashMap;

use serde_json::Value;
use uuid::Uuid;

use super::event::former;
use crate::model::change::{Change, Op};

/// Characters of a name in a sentence at most.
pub(super) const MAX_NAME: usize = 120;
/// Characters of a sentence at most, as the table allows.
const MAX_SENTENCE: usize = 500;

/// What the rows of a table are called.
pub(super) struct Noun {
    pub(super) table: &'static str,
    /// Before the name.
    named: &'static str,
    /// Without the name.
    one: &'static str,
    many: &'static str,
    /// The column that people know a row by, and the one that says its project; none if everybody may know.
    pub(super) name: Option<(&'static str, Option<&'static str>)>,
}

const fn noun(
    table: &'static str,
    words: [&'static str; 3],
    name: &'static str,
    project: &'static str,
) -> Noun {
    let project = if project.is_empty() { None } else { Some(project) };
    let name = if name.is_empty() { None } else { Some((name, project)) };
    Noun { table, named: words[0], one: words[1], many: words[2], name }
}

pub(super) static NOUNS: &[Noun] = &[
    noun("tasks", ["task", "a task", "tasks"], "title", "project_id"),
    noun("evidence", ["evidence", "a piece of evidence", "pieces of evidence"], "title", "project_id"),
    noun("evidence_chains", ["chain", "a chain", "chains"], "claim", "project_id"),
    noun("projects", ["project", "a project", "projects"], "name", "id"),
    noun("workflows", ["workflow", "a workflow", "workflows"], "name", "project_id"),
    noun("agents", ["agent", "an agent", "agents"], "name", ""),
    noun("users", ["", "a person", "people"], "display_name", ""),
    noun("task_comments", ["", "a comment on a task", "comments on tasks"], "", ""),
    noun("task_results", ["", "a result of a task", "results of tasks"], "", ""),
    noun("task_attachments", ["", "a file of a task", "files of tasks"], "", ""),
    noun(
        "evidence_relations",
        ["", "a relation between pieces of evidence", "relations between pieces of evidence"],
        "",
        "",
    ),
    noun("evidence_chain_links", ["", "a link of a chain", "links of chains"], "", ""),
    noun("project_members", ["", "a member of the project", "members of the project"], "", ""),
    noun("investigations", ["", "an investigation", "investigations"], "", ""),
    noun("workflow_executions", ["", "a run of a workflow", "runs of workflows"], "", ""),
];

/// What is told, and how: by the first of the sentences whose rows the change names. `{table:key}` stands for a row,
/// `{column}` for a value and `{old.column}` for a former one.
#[rustfmt::skip]
static TOLD: &[(&str, &str)] = &[
    ("task.created", "created {tasks:id}"),
    ("task.updated", "changed {tasks:id}"),
    ("task.assigned", "assigned {tasks:id} to {agents:assigned_agent_id}"),
    ("task.assigned", "assigned {tasks:id} to {users:assigned_user_id}"),
    ("task.assigned", "took {tasks:id} from whoever had it"),
    ("task.started", "moved {tasks:id} from {old.status} to {status}"),
    ("task.completed", "moved {tasks:id} from {old.status} to {status}"),
    ("task.failed", "moved {tasks:id} from {old.status} to {status}"),
    ("task.cancelled", "moved {tasks:id} from {old.status} to {status}"),
    ("task.retried", "moved {tasks:id} from {old.status} to {status}"),
    ("task.reopened", "moved {tasks:id} from {old.status} to {status}"),
    ("task.moved", "moved {tasks:id} into this project"),
    ("task.deleted", "deleted {tasks:id}"),
    ("task.restored", "restored {tasks:id}"),
    ("task_comment.created", "commented on {tasks:task_id}"),
    ("task_result.created", "added a result to {tasks:task_id}"),
    ("task_attachment.created", "attached a file to {tasks:task_id}"),
    ("evidence.created", "added {evidence:id}"),
    ("evidence.updated", "changed {evidence:id}"),
    ("evidence.verified", "verified {evidence:id}"),
    ("evidence.unverified", "took back the verification of {evidence:id}"),
    ("evidence.rated", "changed the credibility of {evidence:id} from {old.credibility_score} to {credibility_score}"),
    ("evidence.expired", "said when {evidence:id} expires"),
    ("evidence.moved", "moved {evidence:id} into this project"),
    ("evidence.deleted", "deleted {evidence:id}"),
    ("evidence.restored", "restored {evidence:id}"),
    ("evidence_relation.created", "related {evidence:from_evidence_id} to {evidence:to_evidence_id}: {kind}"),
    ("evidence_chain.created", "opened {evidence_chains:id}"),
    ("evidence_chain.updated", "changed {evidence_chains:id}"),
    ("evidence_chain.concluded", "concluded {evidence_chains:id}"),
    ("evidence_chain.rejected", "rejected {evidence_chains:id}"),
    ("evidence_chain.reopened", "opened {evidence_chains:id} again"),
    ("evidence_chain.moved", "moved {evidence_chains:id} into this project"),
    ("evidence_chain.deleted", "deleted {evidence_chains:id}"),
    ("evidence_chain.restored", "restored {evidence_chains:id}"),
    ("evidence_chain_link.created", "added {evidence:evidence_id} to {evidence_chains:chain_id} as {role}"),
    ("agent.registered", "registered {agents:id}"),
    ("agent.status_changed", "set {agents:id} from {old.status} to {status}"),
    ("agent.deleted", "removed {agents:id} from the registry"),
    ("project.created", "created {projects:id}"),
    ("project.updated", "changed {projects:id}"),
    ("project.status_changed", "set {projects:id} from {old.status} to {status}"),
    ("project.deleted", "deleted {projects:id}"),
    ("project.restored", "restored {projects:id}"),
    ("project_member.created", "added {users:user_id} to the project as {role}"),
    ("project_member.updated", "made {users:user_id} {role} of the project"),
    ("project_member.deleted", "removed {users:user_id} from the project"),
    ("investigation.created", "began an investigation"),
    ("investigation.status_changed", "moved an investigation from {old.status} to {status}"),
    ("workflow.created", "created {workflows:id}"),
    ("workflow.updated", "changed {workflows:id}"),
    ("workflow.status_changed", "set {workflows:id} from {old.status} to {status}"),
    ("workflow.deleted", "deleted {workflows:id}"),
    ("workflow_execution.created", "started {workflows:workflow_id}"),
    ("workflow_execution.status_changed", "moved a run of {workflows:workflow_id} from {old.status} to {status}"),
];

/// A row's name.
pub(super) struct Name {
    pub(super) text: String,
    pub(super) project_id: Option<Uuid>,
}

/// By table and id.
pub(super) type Names = HashMap<(&'static str, Uuid), Name>;

/// Whether an event is told at all.
pub(super) fn is_told(event: &str) -> bool {
    TOLD.iter().any(|(told, _)| *told == event)
}

/// Who may read of it: the registry of agents is everybody's, all else the project's.
pub(super) fn visibility(event: &str) -> &'static str {
    if event.starts_with("agent.") { "public" } else { "project" }
}

/// The sentence for a change, its blanks not filled in.
pub(super) fn choose(event: &str, change: &Change) -> Option<&'static str> {
    let fits = |text: &&'static str| {
        blanks(text).all(|blank| blank.split_once(':').is_none_or(|(_, key)| id(key, change).is_some()))
    };
    let mut told = TOLD.iter().filter(|(told, _)| *told == event).map(|(_, text)| *text);
    told.find(fits)
}

/// The rows that a sentence names.
pub(super) fn rows(text: &'static str, change: &Change) -> impl Iterator<Item = (&'static str, Uuid)> {
    blanks(text).filter_map(|blank| {
        let (table, key) = blank.split_once(':')?;
        Some((table, id(key, change)?))
    })
}

/// The whole sentence.
pub(super) fn fill(actor: &str, text: &'static str, change: &Change, names: &Names) -> String {
    let mut sentence = format!("{actor} ");
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('{') {
        let (blank, after) = after.split_once('}').unwrap_or((after, ""));
        sentence.push_str(before);
        match blank.split_once(':') {
            Some((table, key)) => sentence.push_str(&row(table, id(key, change), change.project_id, names)),
            None => sentence.push_str(&value(blank, change)),
        }
        rest = after;
    }
    sentence.push_str(rest);
    beginning(&sentence, MAX_SENTENCE)
}

/// The sentence for many rows, of which so many are of one project.
pub(super) fn bulk(actor: &str, table: &str, op: Op, count: i64) -> String {
    let noun = NOUNS.iter().find(|noun| noun.table == table);
    let (one, many) = noun.map_or(("a row", "rows"), |noun| (noun.one, noun.many));
    let what = if count == 1 { one.to_owned() } else { format!("{} {many}", grouped(count)) };
    let done = match op {
        Op::Insert => format!("added {what}"),
        Op::Update => format!("changed {what}"),
        Op::Delete => format!("deleted {what}"),
        Op::Truncate => format!("deleted all {many}"),
    };
    beginning(&format!("{actor} {done}"), MAX_SENTENCE)
}

fn blanks(text: &'static str) -> impl Iterator<Item = &'static str> {
    text.split('{').skip(1).filter_map(|part| Some(part.split_once('}')?.0))
}

fn id(key: &str, change: &Change) -> Option<Uuid> {
    if key == "id" {
        return change.id;
    }
    change.keys.get(key).and_then(Value::as_str).and_then(|text| Uuid::try_parse(text).ok())
}

fn row(table: &str, id: Option<Uuid>, project: Option<Uuid>, names: &Names) -> String {
    let Some(noun) = NOUNS.iter().find(|noun| noun.table == table) else { return String::new() };
    let name = id.and_then(|id| names.get(&(noun.table, id)));
    let of_project = matches!(noun.name, Some((_, Some(_))));
    match name {
        Some(name) if of_project && name.project_id.is_some() && name.project_id == project => {
            format!("{} “{}”", noun.named, name.text)
        }
        Some(name) if !of_project => format!("{} {}", noun.named, name.text).trim_start().to_owned(),
        _ => noun.one.to_owned(),
    }
}

fn value(blank: &str, change: &Change) -> String {
    let found = match blank.strip_prefix("old.") {
        Some(column) => former(change, column),
        None => change.keys.get(blank),
    };
    match found {
        Some(Value::String(text)) => line(&text.replace('_', " "), MAX_NAME),
        None | Some(Value::Null) => "nothing".to_owned(),
        Some(other) => other.to_string(),
    }
}

/// `1,204`
fn grouped(count: i64) -> String {
    let digits = count.to_string();
    let mut text = String::new();
    for (n, digit) in digits.chars().enumerate() {
        if n > 0 && (digits.len() - n).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// What somebody wrote, in one line of so many characters.
pub(super) fn line(text: &str, most: usize) -> String {
    let words: Vec<&str> =
        text.split(|c: char| c.is_control() || c.is_whitespace()).filter(|word| !word.is_empty()).collect();
    beginning(&words.join(" "), most)
}

fn beginning(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        None => text.to_owned(),
        Some(_) => text.chars().take(most - 1).chain(['…']).collect(),
    }
}
