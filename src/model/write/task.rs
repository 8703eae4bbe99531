//! What is done to tasks: create, update, assign, move along the states, comment on, add results and files.

use futures_util::FutureExt;
use serde_json::{Value, json};
use uuid::Uuid;

use super::Write;
use super::rows::Locked;
use crate::error::{Code, Error, Result};
use crate::model::entity::screaming_case;
use crate::model::mutation::{Field, Kind, Mutation, Row, Values};
use crate::model::task::STATUS;
use crate::model::viewer::Role;

const TITLE: Field = Field::needed("title", "title", Kind::Text(1, 500));
const INTENT: Field = Field::needed("intent", "intent", Kind::Text(1, 100));
const PRIORITY: Field = Field::new("priority", "priority", Kind::Int(1, 5));
const CATEGORY: Field = Field::new("category", "category", Kind::Text(1, 100));
const CONTENT: Field = Field::new("content", "content", Kind::Object);
const TAGS: Field = Field::new("tags", "tags", Kind::Texts);
const METADATA: Field = Field::new("metadata", "metadata", Kind::Object);
const MAX_RETRIES: Field = Field::new("maxRetries", "max_retries", Kind::Int(0, 100));
const TIMEOUT: Field = Field::new("timeoutSeconds", "timeout_seconds", Kind::Int(1, 604_800));
const ISSUE: Field = Field::new("githubIssueNumber", "github_issue_number", Kind::Int(1, i32::MAX));
const PULL_REQUEST: Field = Field::new("githubPrNumber", "github_pr_number", Kind::Int(1, i32::MAX));
const GITHUB_URL: Field = Field::new("githubUrl", "github_url", Kind::Text(1, 2_048));
const DUE_AT: Field = Field::new("dueAt", "due_at", Kind::Time);
const AGENT: Field = Field::new("assignedAgentId", "assigned_agent_id", Kind::Row("Agent"));
const USER: Field = Field::new("assignedUserId", "assigned_user_id", Kind::Row("User"));
const TASK_ID: Field = Field::needed("taskId", "task_id", Kind::Row("Task"));
const ID: Field = Field::id("The task.");

pub(crate) static CREATE: Mutation = Mutation {
    name: "createTask",
    doc: "Creates a task. It is PENDING.",
    returns: "Task",
    list: false,
    needs: Role::Agent,
    table: "tasks",
    changes: false,
    fields: &[
        Field::new("projectId", "", Kind::Row("Project"))
            .about("The project; that of the parent task unless given."),
        Field::new("parentTaskId", "parent_id", Kind::Row("Task")),
        TITLE,
        INTENT,
        PRIORITY,
        CATEGORY,
        CONTENT,
        TAGS,
        METADATA,
        AGENT,
        USER,
        MAX_RETRIES,
        TIMEOUT,
        ISSUE,
        PULL_REQUEST,
        GITHUB_URL,
        DUE_AT,
    ],
    run: |write, values| create(write, values).boxed(),
};

pub(crate) static UPDATE: Mutation = Mutation {
    name: "updateTask",
    doc: "Changes what a task says. Fields that are not given stay as they are.",
    changes: true,
    fields: &[
        ID,
        TITLE.but_optional(),
        INTENT.but_optional(),
        PRIORITY,
        CATEGORY,
        CONTENT,
        TAGS,
        METADATA,
        MAX_RETRIES,
        TIMEOUT,
        ISSUE,
        PULL_REQUEST,
        GITHUB_URL,
        DUE_AT,
    ],
    run: |write, values| update(write, values).boxed(),
    ..CREATE
};

pub(crate) static ASSIGN: Mutation = Mutation {
    name: "assignTask",
    doc: "Gives a task to an agent or to a user, and takes it from whoever had it; null takes it from everyone.",
    changes: true,
    fields: &[
        ID,
        Field::new("agentId", "assigned_agent_id", Kind::Row("Agent")),
        Field::new("userId", "assigned_user_id", Kind::Row("User")),
    ],
    run: |write, values| assign(write, values).boxed(),
    ..CREATE
};

pub(crate) static TRANSITION: Mutation = Mutation {
    name: "transitionTask",
    doc: "Moves a task to another state: PENDING to PROCESSING or CANCELLED; PROCESSING to COMPLETED, FAILED or \
          CANCELLED; FAILED back to PENDING or PROCESSING while retries remain. Another step is a CONFLICT.",
    changes: true,
    fields: &[
        ID,
        Field::needed("status", "status", Kind::Enum(&STATUS)).about("The state to move to."),
        Field::new("errorMessage", "error_message", Kind::Text(0, 20_000)).about("Why it is FAILED."),
    ],
    run: |write, values| transition(write, values).boxed(),
    ..CREATE
};

pub(crate) static COMMENT: Mutation = Mutation {
    name: "addTaskComment",
    doc: "Comments on a task, as whoever asks.",
    returns: "TaskComment",
    table: "task_comments",
    fields: &[
        TASK_ID,
        Field::needed("body", "body", Kind::Text(1, 65_536)),
        Field::new("githubCommentId", "github_comment_id", Kind::BigInt(1)),
    ],
    run: |write, values| comment(write, values).boxed(),
    ..CREATE
};

pub(crate) static RESULT: Mutation = Mutation {
    name: "addTaskResult",
    doc: "Adds a result to a task, as the agent that asks.",
    returns: "TaskResult",
    table: "task_results",
    fields: &[
        TASK_ID,
        Field::new("executionId", "execution_id", Kind::Row("AgentExecution")),
        Field::needed("resultType", "result_type", Kind::Text(1, 100)),
        Field::needed("content", "content", Kind::Json),
        METADATA,
    ],
    run: |write, values| result(write, values).boxed(),
    ..CREATE
};

pub(crate) static ATTACH: Mutation = Mutation {
    name: "attachToTask",
    doc: "Notes a file that belongs to a task. The file itself is where its uploader put it.",
    returns: "TaskAttachment",
    table: "task_attachments",
    fields: &[
        TASK_ID,
        Field::new("evidenceId", "evidence_id", Kind::Row("Evidence")),
        Field::needed("fileName", "file_name", Kind::Text(1, 255)),
        Field::needed("mediaType", "media_type", Kind::Text(1, 255)),
        Field::needed("sizeBytes", "size_bytes", Kind::BigInt(0)),
        Field::needed("storagePath", "storage_path", Kind::Text(1, 1_024)),
        Field::new("sha256", "sha256", Kind::Text(64, 64)),
    ],
    run: |write, values| attach(write, values).boxed(),
    ..CREATE
};

async fn create(write: &mut Write<'_>, values: &Values) -> Result<Vec<Uuid>> {
    let project = write.home(values, ("parentTaskId", "Task"))?;
    one_assignee(values, "assignedAgentId", "assignedUserId")?;
    let mut row = values.row(CREATE.fields);
    row.insert("project_id", project.to_string().into());
    row.extend(write.actor("created_by_user_id", "created_by_agent_id"));
    write.insert_one("Task", "task.created", values, Some(project), row).await
}

fn one_assignee(values: &Values, agent: &str, user: &str) -> Result<()> {
    if values.get(agent).is_some() && values.get(user).is_some() {
        return Err(Error::bad_input(values.at(user), format!("cannot be given together with {agent}")));
    }
    Ok(())
}

async fn update(write: &mut Write<'_>, values: &Values) -> Result<Vec<Uuid>> {
    let row = values.row(UPDATE.fields);
    if row.is_empty() {
        return Err(Error::bad_input(values.path.as_str(), "changes nothing"));
    }
    let locked = write.lock("Task", values, "id", row.keys().copied()).await?;
    write.update(&locked, "task.updated", values, row).await
}

async fn assign(write: &mut Write<'_>, values: &Values) -> Result<Vec<Uuid>> {
    one_assignee(values, "agentId", "userId")?;
    if !values.has("agentId") && !values.has("userId") {
        return Err(Error::bad_input(values.path.as_str(), "needs an agentId or a userId, be it null"));
    }
    let mut row = Row::from([("assigned_agent_id", Value::Null), ("assigned_user_id", Value::Null)]);
    row.extend(values.row(ASSIGN.fields));
    let locked = write.lock("Task", values, "id", row.keys().copied()).await?;
    write.update(&locked, "task.assigned", values, row).await
}

/// The steps that a task may take.
const STEPS: &[(&str, &[&str])] = &[
    ("pending", &["processing", "cancelled"]),
    ("processing", &["completed", "failed", "cancelled"]),
    ("failed", &["pending", "processing"]),
];

/// What is read of a task that moves: what its step depends on, and what it may change.
const MOVED: [&str; 7] =
    ["status", "retry_count", "max_retries", "started_at", "completed_at", "failed_at", "error_message"];

async fn transition(write: &mut Write<'_>, values: &Values) -> Result<Vec<Uuid>> {
    let to = values.text("status").unwrap_or_default();
    let message = values.get("errorMessage");
    if message.is_some() && to != "failed" {
        return Err(Error::bad_input(values.at("errorMessage"), "goes with the status FAILED only"));
    }
    let locked = write.lock("Task", values, "id", MOVED).await?;
    check_step(&locked, to)?;
    let mut row = Row::from([("status", to.into())]);
    if locked.text("status") == "failed" {
        row.insert("retry_count", json!(locked.int("retry_count") + 1));
        row.extend(["started_at", "failed_at", "error_message"].map(|column| (column, Value::Null)));
    }
    match to {
        "processing" => row.insert("started_at", "now".into()),
        "completed" => row.insert("completed_at", "now".into()),
        "failed" => {
            row.insert("error_message", message.cloned().unwrap_or_default());
            row.insert("failed_at", "now".into())
        }
        _ => None,
    };
    let event = match to {
        "pending" => "task.retried",
        "processing" => "task.started",
        "completed" => "task.completed",
        "failed" => "task.failed",
        _ => "task.cancelled",
    };
    write.update(&locked, event, values, row).await
}

fn check_step(locked: &Locked, to: &str) -> Result<()> {
    let from = locked.text("status");
    let step = format!("from {} to {}", screaming_case(from), screaming_case(to));
    let allowed = STEPS.iter().any(|(state, next)| *state == from && next.contains(&to));
    if !allowed {
        return Err(Error::new(Code::Conflict, format!("a task cannot go {step}")));
    }
    let most = locked.int("max_retries");
    if from == "failed" && locked.int("retry_count") >= most {
        let text = format!("the task has used its {most} retries and cannot go {step}");
        return Err(Error::new(Code::Conflict, text));
    }
    Ok(())
}

/// Inserts a row that hangs on a task.
async fn hang(
    write: &mut Write<'_>,
    values: &Values,
    event: &'static str,
    more: impl IntoIterator<Item = (&'static str, Value)>,
) -> Result<Vec<Uuid>> {
    let project = write.home(values, ("taskId", "Task"))?;
    let mut row = values.row(write.mutation.fields);
    row.extend(more);
    write.insert_one(write.mutation.returns, event, values, Some(project), row).await
}

async fn comment(write: &mut Write<'_>, values: &Values) -> Result<Vec<Uuid>> {
    let author = write.actor("author_user_id", "author_agent_id");
    hang(write, values, "task_comment.created", author).await
}

async fn result(write: &mut Write<'_>, values: &Values) -> Result<Vec<Uuid>> {
    let agent = write.viewer.agent_id.map(|id| id.to_string());
    hang(write, values, "task_result.created", [("agent_id", agent.into())]).await
}

async fn attach(write: &mut Write<'_>, values: &Values) -> Result<Vec<Uuid>> {
    if let Some(hash) = values.text("sha256")
        && !hash.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
    {
        return Err(Error::bad_input(values.at("sha256"), "is not 64 lower-case hexadecimal digits"));
    }
    let user = write.viewer.user_id.map(|id| id.to_string());
    hang(write, values, "task_attachment.created", [("uploaded_by_user_id", user.into())]).await
}
