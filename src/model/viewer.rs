//! Who asks, and what they may see. Every read takes a viewer: a function that reads rows cannot be called
//! without one.

use std::sync::Arc;

use uuid::Uuid;

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
