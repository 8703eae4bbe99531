//! Who asks, and what they may see. Every read takes a viewer: a function that reads rows cannot be called
//! without one.

use std::sync::Arc;

use uuid::Uuid;

use crate::model::entity::{Column, ColumnType, Computed, Declaration, RelationDeclaration::One};
use crate::model::user::ROLE;
use crate::store::db::rows::RowSet;

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

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Viewer {
    /// The user, when a person asks.
    pub user_id: Option<Uuid>,
    /// What they may do.
    pub role: Role,
    /// What they may see.
    pub projects: Projects,
}

impl Viewer {
    /// The administrator that `dev` takes everyone for.
    pub const fn admin() -> Self {
        Self { user_id: None, role: Role::Admin, projects: Projects::All }
    }

    /// The projects as a list, `None` for all.
    pub fn project_ids(&self) -> Option<&[Uuid]> {
        match &self.projects {
            Projects::All => None,
            Projects::Only(ids) => Some(ids),
        }
    }
}

impl Viewer {
    /// The viewer as a row, for the field `viewer`.
    pub fn row(&self, columns: &[&Column]) -> RowSet {
        let mut row = RowSet::new(columns.len() + 1);
        row.push_cell(None);
        for column in columns {
            match column.name.as_str() {
                "role" => row.push_cell(Some(self.role.as_str().as_bytes())),
                "allProjects" => row.push_cell(Some(&[u8::from(self.projects == Projects::All)])),
                _ => row.push_cell(self.user_id.as_ref().map(|id| &id.as_bytes()[..])),
            }
        }
        row
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
    ],
    relations: &[One("user", "User", "userId", "The user, when a person asks.")],
    ..Declaration::new("Viewer", "", "", "", "")
};
