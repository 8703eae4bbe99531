//! The activity feed: what happened, in words for people.

use crate::model::entity::{Declaration, Enum, RelationDeclaration::One};

/// Who may see an activity.
pub static VISIBILITY: Enum = Enum { name: "ActivityVisibility", values: &["public", "project", "private"] };

pub(super) static ACTIVITY: Declaration = Declaration {
    enums: &[("visibility", &VISIBILITY)],
    relations: &[
        One("project", "Project", "project_id", "The project in which it happened."),
        One("actorUser", "User", "actor_user_id", "The user who did it."),
        One("actorAgent", "Agent", "actor_agent_id", "The agent that did it."),
    ],
    ..Declaration::new("Activity", "activity_feed", "activity", "activities", VISIBLE)
};

/// What concerns no project is told to those who see all of them, unless it is public.
pub(super) const VISIBLE: &str = "({t}.visibility = 'public' or ({t}.visibility = 'project' and ({all} or {t}.project_id = any({projects}))) \
                       or ({t}.visibility = 'private' and {t}.actor_user_id = {user}))";
