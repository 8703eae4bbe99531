//! The agent registry and what its agents ran.

use chrono::{DateTime, Utc};
use uuid::Uuid;

use crate::error::Result;
use crate::model::entity::{
    Declaration, Enum,
    RelationDeclaration::{Many, One},
    Searched,
};
use crate::model::filter::Filter;
use crate::model::graph;
use crate::model::select::Scope;
use crate::model::viewer::Viewer;
use crate::store::db::Session;
use crate::store::db::reads::Hint;
use crate::store::db::rows::read_time;
use crate::store::db::sql::{Bind, Sql};

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

/// Active agents with the moments of their last heartbeats, those that never had one left out. `only` limits them to
/// some ids.
pub async fn heartbeats(
    session: &Session,
    viewer: &Viewer,
    filter: Option<&Filter>,
    only: Option<Vec<Uuid>>,
) -> Result<Vec<(Uuid, DateTime<Utc>)>> {
    let ty = graph().type_by_name(AGENT.name).unwrap_or_default();
    let mut scope = Scope::new(viewer);
    let t = scope.alias();
    let mut sql = Sql::default();
    sql.push(&format!("select {t}.id, {t}.last_heartbeat_at"));
    scope.write_table(ty, &t, &mut sql);
    sql.push(&format!(" and {t}.status = 'active' and {t}.last_heartbeat_at is not null"));
    if let Some(filter) = filter {
        sql.push(" and ");
        filter.write(&mut scope, &t, &mut sql);
    }
    if let Some(ids) = only {
        sql.push(&format!(" and {t}.id = any(")).bind(Bind::Uuids(ids)).push(")");
    }
    let rows = session.rows(&sql.returning(2)).await?;
    let read = |row| Some((rows.uuid(row, 0)?, rows.cell(row, 1).and_then(read_time)?));
    Ok((0..rows.len()).filter_map(read).collect())
}
