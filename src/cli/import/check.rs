//! The bounds of the tables' CHECK constraints, so that a line is refused by the name of its field.

use std::ops::RangeInclusive;

use chrono::{DateTime, Datelike, Utc};
use serde_json::Value;

use super::format::Problem;
use crate::model::entity::Enum;
use crate::model::import::record::Record;
use crate::model::import::row::{
    Agent, Chain, ChainLink, Evidence, EvidenceRelation, Project, Task, TaskAttachment, TaskComment,
    TaskResult, User,
};
use crate::model::{agent, chain, evidence, project, task, user};

/// The first problem of a row, if it has one.
pub(super) fn check(record: &Record) -> Result<(), Problem> {
    let field = match record {
        Record::User(row) => user(row),
        Record::Project(row) => project(row),
        Record::ProjectMember(row) => {
            one_of("role", &row.role, &project::MEMBER_ROLE).and(time("createdAt", row.created_at))
        }
        Record::Agent(row) => agent(row),
        Record::Task(row) => task(row),
        Record::TaskResult(row) => task_result(row),
        Record::TaskComment(row) => task_comment(row),
        Record::Evidence(row) => evidence(row),
        Record::TaskAttachment(row) => task_attachment(row),
        Record::EvidenceRelation(row) => evidence_relation(row),
        Record::Chain(row) => chain(row),
        Record::ChainLink(row) => chain_link(row),
    };
    let names = record.external_id().map_or(Ok(()), external_id);
    names
        .and(field)
        .map_err(|(field, reason)| Problem::new(format!("{}.{field}", record.kind().name()), reason))
}

type Checked = Result<(), (&'static str, String)>;

const LONG: RangeInclusive<usize> = 0..=20_000;
const URL: RangeInclusive<usize> = 1..=2_048;

fn user(row: &User) -> Checked {
    text("username", &row.username, 1..=100)?;
    text("displayName", &row.display_name, 1..=200)?;
    maybe("email", row.email.as_deref(), 1..=320)?;
    one_of("role", &row.role, &user::ROLE)?;
    maybe("githubLogin", row.github_login.as_deref(), 1..=100)?;
    time("lastSeenAt", row.last_seen_at)?;
    time("createdAt", row.created_at)
}

fn project(row: &Project) -> Checked {
    text("slug", &row.slug, 1..=100)?;
    text("name", &row.name, 1..=200)?;
    maybe("description", row.description.as_deref(), LONG)?;
    one_of("status", &row.status, &project::STATUS)?;
    maybe("repositoryUrl", row.repository_url.as_deref(), URL)?;
    maybe("defaultBranch", row.default_branch.as_deref(), 1..=255)?;
    words("techStack", &row.tech_stack)?;
    time("createdAt", row.created_at)
}

fn agent(row: &Agent) -> Checked {
    text("name", &row.name, 1..=100)?;
    text("agentType", &row.agent_type, 1..=50)?;
    text("agentVersion", &row.agent_version, 1..=50)?;
    maybe("description", row.description.as_deref(), LONG)?;
    one_of("status", &row.status, &agent::STATUS)?;
    maybe("endpointUrl", row.endpoint_url.as_deref(), URL)?;
    maybe("healthCheckUrl", row.health_check_url.as_deref(), URL)?;
    words("capabilities", &row.capabilities)?;
    time("lastHeartbeatAt", row.last_heartbeat_at)?;
    time("registeredAt", row.registered_at)?;
    time("createdAt", row.created_at)
}

fn task(row: &Task) -> Checked {
    text("title", &row.title, 1..=500)?;
    text("intent", &row.intent, 1..=100)?;
    one_of("status", &row.status, &task::STATUS)?;
    number("priority", row.priority.into(), 1, 5)?;
    maybe("category", row.category.as_deref(), 1..=100)?;
    words("tags", &row.tags)?;
    if row.parent.as_deref() == Some(&row.external_id) {
        return Err(("parent", "a task cannot be its own parent".to_owned()));
    }
    if row.assigned_user.is_some() && row.assigned_agent.is_some() {
        return Err(("assignedAgent", "a task is assigned to a user or to an agent, not to both".to_owned()));
    }
    number("retryCount", row.retry_count.into(), 0, i32::MAX.into())?;
    number("maxRetries", row.max_retries.into(), 0, 100)?;
    number("timeoutSeconds", row.timeout_seconds.into(), 1, 604_800)?;
    maybe("errorMessage", row.error_message.as_deref(), LONG)?;
    number("githubIssueNumber", row.github_issue_number.unwrap_or(1).into(), 1, i32::MAX.into())?;
    number("githubPrNumber", row.github_pr_number.unwrap_or(1).into(), 1, i32::MAX.into())?;
    maybe("githubUrl", row.github_url.as_deref(), URL)?;
    time("dueAt", row.due_at)?;
    time("startedAt", row.started_at)?;
    time("completedAt", row.completed_at)?;
    time("failedAt", row.failed_at)?;
    time("createdAt", row.created_at)
}

fn task_result(row: &TaskResult) -> Checked {
    text("resultType", &row.result_type, 1..=100)?;
    if row.content == Value::Null {
        return Err(("content", "null is not a result".to_owned()));
    }
    time("createdAt", row.created_at)
}

fn task_comment(row: &TaskComment) -> Checked {
    if row.author_user.is_some() && row.author_agent.is_some() {
        return Err(("authorAgent", "a comment is by a user or by an agent, not by both".to_owned()));
    }
    text("body", &row.body, 1..=65_536)?;
    number("githubCommentId", row.github_comment_id.unwrap_or(1), 1, i64::MAX)?;
    time("createdAt", row.created_at)
}

fn task_attachment(row: &TaskAttachment) -> Checked {
    text("fileName", &row.file_name, 1..=255)?;
    text("mediaType", &row.media_type, 1..=255)?;
    number("sizeBytes", row.size_bytes, 0, i64::MAX)?;
    text("storagePath", &row.storage_path, 1..=1_024)?;
    let hexadecimal = |digit: u8| matches!(digit, b'0'..=b'9' | b'a'..=b'f');
    if row.sha256.as_ref().is_some_and(|sum| sum.len() != 64 || !sum.bytes().all(hexadecimal)) {
        return Err(("sha256", "not 64 lowercase hexadecimal digits".to_owned()));
    }
    time("createdAt", row.created_at)
}

fn evidence(row: &Evidence) -> Checked {
    text("title", &row.title, 1..=500)?;
    text("content", &row.content, 1..=1_000_000)?;
    one_of("sourceType", &row.source_type, &evidence::SOURCE_TYPE)?;
    maybe("sourceUrl", row.source_url.as_deref(), URL)?;
    one_of("domain", &row.domain, &evidence::DOMAIN)?;
    share("credibilityScore", row.credibility_score)?;
    maybe("verificationNote", row.verification_note.as_deref(), LONG)?;
    maybe("language", row.language.as_deref(), 1..=35)?;
    words("tags", &row.tags)?;
    time("verifiedAt", row.verified_at)?;
    time("collectedAt", row.collected_at)?;
    time("expiresAt", row.expires_at)?;
    time("createdAt", row.created_at)
}

fn evidence_relation(row: &EvidenceRelation) -> Checked {
    if row.from == row.to {
        return Err(("to", "evidence cannot be related to itself".to_owned()));
    }
    one_of("kind", &row.kind, &evidence::RELATION_KIND)?;
    share("strength", row.strength)?;
    maybe("note", row.note.as_deref(), LONG)?;
    time("createdAt", row.created_at)
}

fn chain(row: &Chain) -> Checked {
    text("claim", &row.claim, 1..=5_000)?;
    maybe("conclusion", row.conclusion.as_deref(), LONG)?;
    one_of("status", &row.status, &chain::STATUS)?;
    row.confidence.map_or(Ok(()), |confidence| share("confidence", confidence))?;
    time("concludedAt", row.concluded_at)?;
    time("createdAt", row.created_at)
}

fn chain_link(row: &ChainLink) -> Checked {
    if row.parent.as_deref() == Some(&row.external_id) {
        return Err(("parent", "a link cannot follow from itself".to_owned()));
    }
    number("position", row.position.into(), 0, i32::MAX.into())?;
    one_of("role", &row.role, &chain::LINK_ROLE)?;
    maybe("rationale", row.rationale.as_deref(), LONG)?;
    time("createdAt", row.created_at)
}

fn external_id(name: &str) -> Checked {
    if name.chars().any(char::is_control) {
        return Err(("externalId", "control characters are not allowed in names".to_owned()));
    }
    text("externalId", name, 1..=200)
}

fn text(field: &'static str, value: &str, length: RangeInclusive<usize>) -> Checked {
    let count = value.chars().count();
    if length.contains(&count) {
        Ok(())
    } else {
        Err((field, format!("{count} characters are not between {} and {}", length.start(), length.end())))
    }
}

fn maybe(field: &'static str, value: Option<&str>, length: RangeInclusive<usize>) -> Checked {
    value.map_or(Ok(()), |value| text(field, value, length))
}

fn words(field: &'static str, values: &[String]) -> Checked {
    if values.len() > 100 {
        return Err((field, format!("{} entries are more than 100", values.len())));
    }
    let bytes: usize = values.iter().map(String::len).sum();
    if bytes > 2_500 {
        return Err((field, format!("{bytes} bytes in all are more than 2500")));
    }
    if values.iter().any(String::is_empty) { Err((field, "an entry is empty".to_owned())) } else { Ok(()) }
}

fn one_of(field: &'static str, value: &str, allowed: &Enum) -> Checked {
    if allowed.values.contains(&value) {
        Ok(())
    } else {
        Err((field, format!("{value:?} is not one of {}", allowed.values.join(", "))))
    }
}

fn number(field: &'static str, value: i64, least: i64, most: i64) -> Checked {
    if (least..=most).contains(&value) {
        Ok(())
    } else {
        Err((field, format!("{value} is not between {least} and {most}")))
    }
}

fn share(field: &'static str, value: f64) -> Checked {
    if (0.0..=1.0).contains(&value) {
        Ok(())
    } else {
        Err((field, format!("{value} is not between 0.0 and 1.0")))
    }
}

/// PostgreSQL knows years that JSON readers do not.
fn time(field: &'static str, value: Option<DateTime<Utc>>) -> Checked {
    match value {
        Some(at) if !(1..=9999).contains(&at.year()) => {
            Err((field, format!("the year {} is not between 1 and 9999", at.year())))
        }
        _ => Ok(()),
    }
}
