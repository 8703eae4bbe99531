//! The agent registry and what its agents ran.

use crate::model::entity::{
    Declaration, Enum,
    RelationDeclaration::{Many, One},
    Searched,
};
use crate::store::db::reads::Hint;

/// Whether an agent takes work.
pub static STATUS: Enum = Enum { name: "AgentStatus", values: &["active", "inactive", "maintenance"] };
static EXECUTION_STATUS: Enum =
    Enum { name: "AgentExecutionStatus", values: &["running", "succeeded", "failed", "cancelled"] };

pub(super) static AGENT: Declaration = Declaration {
    hidden: &["deleted_at"],
    enums: &[("status", &STATUS)],
    order: &[("name", false)],
    relations: &[
        Many("tasks", "Task", "{t}.assigned_agent_id = {k}", &[], "The tasks assigned to the agent."),
        Many("evidences", "Evidence", "{t}.agent_id = {k}", &[], "The evidence that the agent found."),
        Many("executions", "AgentExecution", "{t}.agent_id = {k}", &[], "What the agent ran."),
    ],
    group_by: &["status", "type", "agent_version"],
    group_by_day: &["registered_at"],
    measures: &["last_heartbeat_at", "registered_at"],
    // An old telephone book is better than none.
    hint: Hint { stale_while_revalidate_s: 60, stale_if_error_s: 300, ..Hint::NONE },
    searched: Some(&Searched {
        entity: "Agent",
        field: "searchAgents",
        argument: "capability",
        text: ["name", "description"],
        document: "{t}.name || ' ' || {t}.type || ' ' || array_to_string({t}.capabilities, ' ') || ' ' || \
                   coalesce({t}.description, '')",
        of_projects: false,
    }),
    // The registry is the platform's telephone book: every viewer may read it. What agents did is per project.
    ..Declaration::new("Agent", "agents", "agent", "agents", "true")
};

pub(super) static EXECUTION: Declaration = Declaration {
    enums: &[("status", &EXECUTION_STATUS)],
    relations: &[
        One("agent", "Agent", "agent_id", "The agent that ran."),
        One("task", "Task", "task_id", "The task it ran for."),
        One("project", "Project", "project_id", "The project it ran for."),
    ],
    ..Declaration::new(
        "AgentExecution",
        "agent_executions",
        "agentExecution",
        "agentExecutions",
        "{t}.project_id = any({projects})",
    )
};
