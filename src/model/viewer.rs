//! Who asks, and what they may see. Every read takes a viewer: a function that reads rows cannot be called
//! without one. A viewer is made of two halves: what a credential grants, and how its holder stands in the database.

use std::sync::Arc;

use uuid::Uuid;

use crate::error::Result;
use crate::model::entity::{Column, ColumnType, Computed, Declaration, RelationDeclaration::One, Type};
use crate::model::user::ROLE;
use crate::store::db::Session;
use crate::store::db::rows::RowSet;
use crate::store::db::sql::{Bind, Sql};

/// Projects that a credential can name at most; whoever needs more is a member of them or an administrator.
pub const MAX_PROJECTS: usize = 100;

/// What a viewer may do, from least to most.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Role {
    /// Reads.
    Viewer,
    /// Reads, verifies and relates.
    Analyst,
    /// Works: creates tasks and evidence.
    Agent,
    /// Everything.
    Admin,
}

impl Role {
    /// The spelling of tokens and of the database.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Analyst => "analyst",
            Self::Agent => "agent",
            Self::Admin => "admin",
        }
    }

    /// Reads the spelling of tokens and of the database.
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Viewer, Self::Analyst, Self::Agent, Self::Admin].into_iter().find(|role| role.as_str() == text)
    }
}

/// The projects that a viewer may see.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Projects {
    /// All of them, also those to come.
    All,
    /// These.
    Only(Arc<[Uuid]>),
}

/// Whom a credential speaks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Holder {
    /// Nobody in particular.
    Nobody,
    /// A person, or a service that acts like one.
    User(Uuid),
    /// An agent of the registry.
    Agent(Uuid),
}

/// How a viewer came in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Credential {
    /// Without any, as everyone does in `dev` and the gateway itself does in its background work.
    None,
    /// With a signed token.
    Token,
    /// With the API key of this id.
    ApiKey(Uuid),
}

/// What a credential says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// Whom it speaks for.
    pub holder: Holder,
    /// What its bearer may do at most.
    pub role: Role,
    /// What its bearer may see; `None` leaves that to the holder's memberships and the role.
    pub projects: Option<Vec<Uuid>>,
}

/// What the database says of a holder at the moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Standing {
    /// What a user may do at most; agents and nobody have no role of their own.
    pub role: Option<Role>,
    /// The projects that a user is a member of.
    pub memberships: Vec<Uuid>,
}

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Viewer {
    /// The user, when a person asks.
    pub user_id: Option<Uuid>,
    /// The agent, when an agent asks; then no user does.
    pub agent_id: Option<Uuid>,
    /// What they may do.
    pub role: Role,
    /// What they may see.
    pub projects: Projects,
    /// How they came in.
    pub credential: Credential,
}

impl Viewer {
    /// The administrator that `dev` takes everyone for.
    pub const fn admin() -> Self {
        Self {
            user_id: None,
            agent_id: None,
            role: Role::Admin,
            projects: Projects::All,
            credential: Credential::None,
        }
    }

    /// The viewer that a credential makes of its holder. Roles: the lesser of the two. Projects: those that the
    /// credential names, or else all for an administrator and the memberships for everybody else.
    pub fn admitted(grant: &Grant, standing: &Standing, credential: Credential) -> Self {
        let role = standing.role.map_or(grant.role, |role| role.min(grant.role));
        let projects = match &grant.projects {
            Some(named) => Projects::Only(named.as_slice().into()),
            None if role == Role::Admin => Projects::All,
            None => Projects::Only(standing.memberships.as_slice().into()),
        };
        let (user_id, agent_id) = match grant.holder {
            Holder::Nobody => (None, None),
            Holder::User(id) => (Some(id), None),
            Holder::Agent(id) => (None, Some(id)),
        };
        Self { user_id, agent_id, role, projects, credential }
    }

    /// The projects as a list, `None` for all.
    pub fn project_ids(&self) -> Option<&[Uuid]> {
        match &self.projects {
            Projects::All => None,
            Projects::Only(ids) => Some(ids),
        }
    }

    /// The viewer as a row, for the field `viewer`.
    pub fn row(&self, columns: &[&Column]) -> RowSet {
        let mut row = RowSet::new(columns.len() + 1);
        row.push_cell(None);
        let id = |id: &Option<Uuid>| id.map(Uuid::into_bytes);
        for column in columns {
            match column.name.as_str() {
                "role" => row.push_cell(Some(self.role.as_str().as_bytes())),
                "allProjects" => row.push_cell(Some(&[u8::from(self.projects == Projects::All)])),
                "agentId" => row.push_cell(id(&self.agent_id).as_ref().map(<[u8; 16]>::as_slice)),
                _ => row.push_cell(id(&self.user_id).as_ref().map(<[u8; 16]>::as_slice)),
            }
        }
        row
    }
}

/// The projects of the user `u`, in SQL.
pub(super) const MEMBERSHIPS: &str =
    "array(select m.project_id from project_members m where m.user_id = u.id order by m.project_id)";

/// Looks a holder up; `None` if there is no such user or agent, or no longer. It takes no viewer, because it is what
/// viewers are made of.
pub async fn standing(session: &Session, holder: Holder) -> Result<Option<Standing>> {
    let mut sql = Sql::default();
    match holder {
        Holder::Nobody => return Ok(Some(Standing::default())),
        Holder::User(id) => {
            sql.push("select u.role, ").push(MEMBERSHIPS);
            sql.push(" from users u where u.deleted_at is null and u.id = ").bind(Bind::Uuid(id))
        }
        Holder::Agent(id) => {
            sql.push("select null, null from agents where deleted_at is null and id = ").bind(Bind::Uuid(id))
        }
    };
    let rows = session.rows(&sql.returning(2)).await?;
    Ok((!rows.is_empty()).then(|| read_standing(&rows, 0)))
}

/// Reads the role and the memberships from two columns of the first row.
pub(super) fn read_standing(rows: &RowSet, column: usize) -> Standing {
    Standing {
        role: rows.text(0, column).and_then(Role::parse),
        memberships: rows.uuids(0, column + 1).unwrap_or_default(),
    }
}

/// Who asks, as the schema shows it.
pub(super) static VIEWER: Declaration = Declaration {
    order: &[],
    computed: &[
        Computed {
            name: "role",
            doc: "What the viewer may do.",
            sql: "",
            ty: ColumnType::Enum(&ROLE),
            nullable: false,
        },
        Computed {
            name: "allProjects",
            doc: "Whether the viewer sees every project; otherwise the list of projects shows which.",
            sql: "",
            ty: ColumnType::Bool,
            nullable: false,
        },
        Computed {
            name: "userId",
            doc: "The user, when a person asks.",
            sql: "",
            ty: ColumnType::Uuid,
            nullable: true,
        },
        Computed {
            name: "agentId",
            doc: "The agent, when an agent asks.",
            sql: "",
            ty: ColumnType::Uuid,
            nullable: true,
        },
    ],
    relations: &[
        One("user", "User", "userId", "The user, when a person asks."),
        One("agent", "Agent", "agentId", "The agent, when an agent asks."),
    ],
    ..Declaration::new(Type::VIEWER, "", "", "", "")
};
