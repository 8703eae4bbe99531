//! People.

use crate::model::entity::{Declaration, Enum, RelationDeclaration::Many};
use crate::store::db::reads::Hint;

/// What a person may do.
pub static ROLE: Enum = Enum { name: "UserRole", values: &["viewer", "analyst", "agent", "admin"] };

pub(super) static USER: Declaration = Declaration {
    // Preferences are the person's own business.
    hidden: &["preferences", "deleted_at"],
    // Names, which stay.
    hint: Hint { stale_while_revalidate_s: 60, stale_if_error_s: 60, ..Hint::NONE },
    enums: &[("role", &ROLE)],
    relations: &[
        Many(
            "projects",
            "Project",
            "{t}.id in (select m.project_id from project_members m where m.user_id = {k})",
            &[],
            "The projects that the person is a member of.",
        ),
        Many("tasks", "Task", "{t}.assigned_user_id = {k}", &[], "The tasks assigned to the person."),
    ],
    ..Declaration::new("User", "users", "user", "users", PEER)
};

/// People see each other when they share a project.
const PEER: &str = "({all} or {t}.id = {user} or exists (select 1 from project_members m \
                    where m.user_id = {t}.id and m.project_id = any({projects})))";
