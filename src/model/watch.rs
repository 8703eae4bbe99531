//! What can be watched: entities of which the change log alone tells who may see a row and whether it fits a filter.
//! A change is judged by the row as it was and as it is; nobody learns of a row that they may not see.

use crate::error::{Error, Result};
use crate::model::change::{Change, Image, Op};
use crate::model::entity::{Type, TypeId};
use crate::model::filter::Filter;
use crate::model::reads::tested;
use crate::model::viewer::{Projects, Viewer};
use crate::model::{activity, graph};
use crate::store::db::reads::{Condition, Scalar, Truth};

/// An entity that can be watched.
#[derive(Debug)]
pub struct Watchable {
    /// The field of `Subscription`; none if it is only watched among others.
    pub field: Option<&'static str>,
    /// The entity's name in the schema.
    pub entity: &'static str,
    /// The columns that the log tells, by their names in SQL; the former ones, too.
    pub logged: &'static [&'static str],
}

/// All of them, in the order in which the schema shows them. Not among them is what is seen by those who see
/// another row: the log does not tell when that row moves.
pub static WATCHABLE: [Watchable; 7] = [
    Watchable {
        field: Some("taskChanged"),
        entity: "Task",
        logged: &[
            "parent_id",
            "created_by_user_id",
            "created_by_agent_id",
            "assigned_user_id",
            "assigned_agent_id",
            "status",
            "priority",
            "category",
            "retry_count",
            "github_issue_number",
            "github_pr_number",
            "due_at",
            "started_at",
            "completed_at",
            "failed_at",
            "created_at",
            "intent",
        ],
    },
    Watchable {
        field: Some("evidenceChanged"),
        entity: "Evidence",
        logged: &[
            "task_id",
            "agent_id",
            "verified_by_user_id",
            "source_type",
            "domain",
            "language",
            "credibility_score",
            "verified",
            "verified_at",
            "collected_at",
            "expires_at",
            "created_at",
        ],
    },
    Watchable {
        field: Some("chainChanged"),
        entity: "EvidenceChain",
        logged: &[
            "task_id",
            "created_by_user_id",
            "created_by_agent_id",
            "status",
            "confidence",
            "concluded_at",
            "created_at",
        ],
    },
    Watchable {
        field: Some("agentChanged"),
        entity: "Agent",
        logged: &["model_id", "type", "status", "last_heartbeat_at", "registered_at", "created_at"],
    },
    Watchable {
        field: Some("executionChanged"),
        entity: "AgentExecution",
        logged: &[
            "agent_id",
            "task_id",
            "status",
            "input_tokens",
            "output_tokens",
            "cost_usd",
            "duration_ms",
            "started_at",
            "finished_at",
            "created_at",
        ],
    },
    Watchable {
        field: Some("activity"),
        entity: "Activity",
        logged: &[
            "actor_user_id",
            "actor_agent_id",
            "activity_type",
            "visibility",
            "resource_type",
            "resource_id",
            "created_at",
        ],
    },
    Watchable { field: None, entity: "Project", logged: &["owner_id", "status", "created_at"] },
];

/// What a change did to a row, as a viewer's stream sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Operation {
    /// It is new, or came back.
    Created,
    /// It was changed.
    Updated,
    /// It is gone.
    Deleted,
    /// It was there, and belongs to the stream only now.
    Entered,
    /// It is there, and does not belong to the stream any more.
    Left,
    /// Nobody can say what belongs to the stream now.
    Reset,
    /// Nothing was done for too long.
    Silent,
}

impl Operation {
    /// All of them, with descriptions.
    pub const ALL: [(Self, &'static str); 7] = [
        (Self::Created, "The row is new, or came back after it had been deleted."),
        (Self::Updated, "The row was changed, and fitted before and afterwards."),
        (Self::Deleted, "The row is gone."),
        (
            Self::Entered,
            "The row was there before; now it fits the filter, or came into a project of the viewer's.",
        ),
        (Self::Left, "The row does not fit the filter any more, or is in none of the viewer's projects now."),
        (
            Self::Reset,
            "Whether rows fit cannot be told from the change: read them again. Without an id it is about all of them \
             (the table was emptied), otherwise about that row.",
        ),
        (
            Self::Silent,
            "The agent's last heartbeat is older than `silentAfterMs`. That is no change, so it is in no log: it is \
             told when it happens, and again to a stream that begins or comes back while it lasts.",
        ),
    ];

    /// The spelling of the schema.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Created => "CREATED",
            Self::Updated => "UPDATED",
            Self::Deleted => "DELETED",
            Self::Entered => "ENTERED",
            Self::Left => "LEFT",
            Self::Reset => "RESET",
            Self::Silent => "SILENT",
        }
    }

    /// Whether the row is in the stream afterwards.
    pub const fn is_inside(self) -> bool {
        matches!(self, Self::Created | Self::Updated | Self::Entered | Self::Silent)
    }

    /// Whether it was in the stream before.
    const fn was_inside(self) -> bool {
        matches!(self, Self::Updated | Self::Deleted | Self::Left)
    }

    /// What two changes of one row, one after the other, come to; `None` if it is as if there were none.
    pub const fn then(self, later: Self) -> Option<Self> {
        match (self.was_inside(), later.is_inside()) {
            _ if matches!(self, Self::Reset) || matches!(later, Self::Reset) => Some(Self::Reset),
            (true, true) => Some(Self::Updated),
            (true, false) => Some(later),
            (false, true) => Some(self),
            (false, false) => None,
        }
    }
}

/// One entity, watched by a viewer through a filter.
#[derive(Debug)]
pub struct Watched {
    /// The entity.
    pub ty: TypeId,
    /// Its table.
    pub table: &'static str,
    visible: Condition,
    filter: Condition,
}

/// How a row stands to a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// There is no such row, or it is deleted.
    Absent,
    /// The viewer may not see it.
    Hidden,
    /// It does not fit the filter.
    Outside,
    Inside,
    Unknown,
}

impl Watched {
    /// Fails with the field of the filter that the log does not tell.
    pub fn new(viewer: &Viewer, watchable: &Watchable, filter: Option<&Filter>) -> Result<Self> {
        let undeclared = || Error::internal(format!("{} cannot be watched", watchable.entity));
        let ty = graph().type_by_name(watchable.entity).ok_or_else(undeclared)?;
        let table = graph().types[ty].table.as_ref().ok_or_else(undeclared)?;
        let visible = visible(table.visible, viewer).ok_or_else(undeclared)?;
        let filter = filter.map_or(Ok(Condition::All(Vec::new())), |filter| decidable(filter, watchable))?;
        Ok(Self { ty, table: table.name, visible, filter })
    }

    /// What a change means to the stream; `None` if nothing. The second says whether the viewer may know which
    /// columns it changed.
    pub fn judge(&self, image: &Image) -> Option<(Operation, bool)> {
        use Standing::{Absent, Hidden, Inside, Outside, Unknown};
        let now = |column: &str| image.now(column);
        let (before, after) = match image.op {
            Op::Truncate => return Some((Operation::Reset, false)),
            Op::Insert => (Absent, self.standing(&now)),
            Op::Delete => (self.standing(&now), Absent),
            Op::Update => (self.standing(&|column: &str| image.before(column)), self.standing(&now)),
        };
        let operation = match (before, after) {
            (Absent | Hidden, Absent | Hidden | Outside) | (Outside, Absent | Hidden | Outside) => {
                return None;
            }
            (Unknown, _) | (_, Unknown) => Operation::Reset,
            (Absent, Inside) => Operation::Created,
            (Hidden | Outside, Inside) => Operation::Entered,
            (Inside, Inside) => Operation::Updated,
            (Inside, Absent) => Operation::Deleted,
            (Inside, Hidden | Outside) => Operation::Left,
        };
        let may_know = |standing| matches!(standing, Outside | Inside);
        Some((operation, image.op == Op::Update && may_know(before) && may_know(after)))
    }

    fn standing<'a>(&self, value: &impl Fn(&str) -> Option<&'a serde_json::Value>) -> Standing {
        // Whether it may be seen comes first: that a row elsewhere was deleted is nobody's business.
        if self.visible.holds(value) != Truth::Yes {
            return Standing::Hidden;
        }
        if value("deleted").and_then(serde_json::Value::as_bool) == Some(true) {
            return Standing::Absent;
        }
        match self.filter.holds(value) {
            Truth::Yes => Standing::Inside,
            Truth::No => Standing::Outside,
            Truth::Maybe => Standing::Unknown,
        }
    }

    /// The fields of the schema that an update changed.
    pub fn fields(&self, image: &Image) -> Option<Vec<&'static str>> {
        let meta: &'static Type = &graph().types[self.ty];
        let field = |name: &str| Some(meta.columns[meta.column_by_sql(name)?].name.as_str());
        image.changed().map(|names| names.filter_map(field).collect())
    }

    /// Whether the change is one of this entity's.
    pub fn is_about(&self, change: &Change) -> bool {
        change.entity == self.table
    }
}

/// Who may see a row, as a condition on what the log tells; `None` if it does not tell.
fn visible(rule: &str, viewer: &Viewer) -> Option<Condition> {
    let text = |id: &uuid::Uuid| Scalar::Text(id.to_string());
    let of_projects = |column: &'static str| match &viewer.projects {
        Projects::All => Condition::Not(Box::new(Condition::Null(column.into()))),
        Projects::Only(ids) => Condition::In(column.into(), ids.iter().map(text).collect()),
    };
    if rule == activity::VISIBLE {
        let is = |kind: &str| Condition::In("visibility".into(), vec![Scalar::Text(kind.to_owned())]);
        let project = match viewer.projects {
            Projects::All => Condition::All(Vec::new()),
            Projects::Only(_) => of_projects("project_id"),
        };
        let own = Condition::In("actor_user_id".into(), viewer.user_id.iter().map(text).collect());
        return Some(Condition::Any(vec![
            is("public"),
            Condition::All(vec![is("project"), project]),
            Condition::All(vec![is("private"), own]),
        ]));
    }
    match rule {
        "true" => Some(Condition::All(Vec::new())),
        "{t}.project_id = any({projects})" => Some(of_projects("project_id")),
        "{t}.id = any({projects})" => Some(of_projects("id")),
        _ => None,
    }
}

/// The filter as a condition on what the log tells.
fn decidable(filter: &Filter, watchable: &Watchable) -> Result<Condition> {
    let each =
        |filters: &[Filter]| filters.iter().map(|one| decidable(one, watchable)).collect::<Result<_>>();
    let untold = |name: &str| {
        let text = "cannot be watched: the change log does not tell it. Ids, states, numbers, dates and short names \
                    can be compared; texts only with eq, ne and in";
        Error::bad_input(format!("filter.{name}"), text)
    };
    Ok(match filter {
        Filter::And(all) => Condition::All(each(all)?),
        Filter::Or(any) => Condition::Any(each(any)?),
        Filter::Not(inner) => Condition::Not(Box::new(decidable(inner, watchable)?)),
        Filter::Column(column, test) => {
            let known = ["id", "project_id"].into_iter().chain(watchable.logged.iter().copied());
            let condition = tested(column, test);
            // How texts compare is known to the database only.
            let by_collation = matches!(&condition, Condition::Compare(_, _, Scalar::Text(_)));

            if condition == Condition::Unknown
                || by_collation
                || !known.into_iter().any(|name| name == column.sql_name)
            {
                return Err(untold(&column.name));
            }
            condition
        }
        Filter::Relation(relation, ..) => return Err(untold(relation.name)),
    })
}
