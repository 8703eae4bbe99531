//! Projects and who belongs to them. A project is the unit of permission.

use crate::model::entity::{
    Declaration, Enum,
    RelationDeclaration::{Many, One},
};
use crate::store::db::reads::Hint;

/// How a project stands.
pub static STATUS: Enum = Enum { name: "ProjectStatus", values: &["active", "paused", "archived"] };
/// What a person is in a project.
pub static MEMBER_ROLE: Enum =
    Enum { name: "ProjectRole", values: &["owner", "maintainer", "member", "viewer"] };

pub(super) static PROJECT: Declaration = Declaration {
    hidden: &["deleted_at"],
    hint: Hint { stale_while_revalidate_s: 60, stale_if_error_s: 60, ..Hint::NONE },
    enums: &[("status", &STATUS)],
    relations: &[
        One("owner", "User", "owner_id", "The person who answers for the project."),
        Many(
            "members",
            "ProjectMember",
            "{t}.project_id = {k}",
            &[("created_at", false)],
            "The people of the project.",
        ),
        Many("tasks", "Task", "{t}.project_id = {k}", &[], "The tasks of the project."),
        Many("evidences", "Evidence", "{t}.project_id = {k}", &[], "The evidence of the project."),
        Many(
            "evidenceChains",
            "EvidenceChain",
            "{t}.project_id = {k}",
            &[],
            "The chains of evidence of the project.",
        ),
    ],
    ..Declaration::new("Project", "projects", "project", "projects", "{t}.id = any({projects})")
};

pub(super) static MEMBER: Declaration = Declaration {
    enums: &[("role", &MEMBER_ROLE)],
    relations: &[
        One("project", "Project", "project_id", "The project."),
        One("user", "User", "user_id", "The person."),
    ],
    ..Declaration::new(
        "ProjectMember",
        "project_members",
        "projectMember",
        "projectMembers",
        "{t}.project_id = any({projects})",
    )
};
