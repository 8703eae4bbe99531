//! Tasks and what hangs on them: subtasks, results, comments, attachments.

use crate::model::entity::{
    Declaration, Enum,
    RelationDeclaration::{Hits, Many, One},
    Searched,
};

/// How a task stands.
pub static STATUS: Enum =
    Enum { name: "TaskStatus", values: &["pending", "processing", "completed", "failed", "cancelled"] };

pub(super) static TASK: Declaration = Declaration {
    hidden: &["deleted_at"],
    enums: &[("status", &STATUS)],
    relations: &[
        One("project", "Project", "project_id", "The project it belongs to."),
        One("parentTask", "Task", "parent_id", "The task that this one is a part of."),
        One("assignedAgent", "Agent", "assigned_agent_id", "The agent that works on it."),
        One("assignedUser", "User", "assigned_user_id", "The person who works on it."),
        One("createdByUser", "User", "created_by_user_id", "The person who asked for it."),
        One("createdByAgent", "Agent", "created_by_agent_id", "The agent that asked for it."),
        Many("subtasks", "Task", "{t}.parent_id = {k}", &[], "The tasks that are a part of this one."),
        Many("evidences", "Evidence", "{t}.task_id = {k}", &[], "The evidence gathered for it."),
        Many(
            "evidenceChains",
            "EvidenceChain",
            "{t}.task_id = {k}",
            &[],
            "The chains of evidence that argue about it.",
        ),
        Many("results", "TaskResult", "{t}.task_id = {k}", &[], "What it brought forth."),
        Many(
            "comments",
            "TaskComment",
            "{t}.task_id = {k}",
            &[("created_at", false)],
            "What was said about it, oldest first.",
        ),
        Many("attachments", "TaskAttachment", "{t}.task_id = {k}", &[], "Files that belong to it."),
        Many("executions", "AgentExecution", "{t}.task_id = {k}", &[], "Runs of agents for it."),
        Hits(
            "evidenceFor",
            "Evidence",
            Some("task_id"),
            "The evidence gathered for it that answers a question best.",
        ),
    ],
    group_by: &["status", "priority", "category", "project_id", "assigned_agent_id", "assigned_user_id"],
    group_by_day: &["created_at", "completed_at"],
    measures: &["priority", "retry_count", "timeout_seconds", "created_at", "completed_at"],
    searched: Some(&Searched {
        entity: "Task",
        field: "searchTasks",
        argument: "query",
        text: ["title", "intent"],
        document: "{t}.title || ' ' || {t}.intent || ' ' || coalesce({t}.category, '')",
        of_projects: true,
    }),
    ..Declaration::new("Task", "tasks", "task", "tasks", "{t}.project_id = any({projects})")
};

/// What hangs on a task is seen by those who see the task.
const OF_TASK: &str = "exists (select 1 from tasks v where v.id = {t}.task_id and v.deleted_at is null \
                       and v.project_id = any({projects}))";

pub(super) static RESULT: Declaration = Declaration {
    relations: &[
        One("task", "Task", "task_id", "The task."),
        One("agent", "Agent", "agent_id", "The agent that brought it forth."),
        One("execution", "AgentExecution", "execution_id", "The run that brought it forth."),
    ],
    ..Declaration::new("TaskResult", "task_results", "taskResult", "taskResults", OF_TASK)
};

pub(super) static COMMENT: Declaration = Declaration {
    hidden: &["deleted_at"],
    unordered: &["body"],
    relations: &[
        One("task", "Task", "task_id", "The task."),
        One("authorUser", "User", "author_user_id", "The person who wrote it."),
        One("authorAgent", "Agent", "author_agent_id", "The agent that wrote it."),
    ],
    ..Declaration::new("TaskComment", "task_comments", "taskComment", "taskComments", OF_TASK)
};

pub(super) static ATTACHMENT: Declaration = Declaration {
    // Where a file is stored is the server's business.
    hidden: &["deleted_at", "storage_path"],
    relations: &[
        One("task", "Task", "task_id", "The task."),
        One("evidence", "Evidence", "evidence_id", "The evidence that it holds."),
        One("uploadedByUser", "User", "uploaded_by_user_id", "The person who brought it."),
    ],
    ..Declaration::new("TaskAttachment", "task_attachments", "taskAttachment", "taskAttachments", OF_TASK)
};
