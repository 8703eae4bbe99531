//! The audit trail: entries that nobody can change, sealed into a chain of hashes by functions of the database, where
//! reading, hashing and writing an entry are one step.

use crate::error::Result;
use crate::model::entity::{ColumnType, Computed, Declaration, Enum, RelationDeclaration::One};
use crate::model::graph;
use crate::model::select::{NO_KEY, Projection};
use crate::model::viewer::{Role, Viewer};
use crate::store::db::Session;
use crate::store::db::sql::{Bind, Sql};

/// The kinds of actions.
pub static ACTION: Enum = Enum {
    name: "AuditAction",
    values: &["create", "read", "update", "delete", "execute", "login", "other"],
};
/// What can be wrong with an entry.
pub static FAULT: Enum = Enum { name: "AuditFault", values: &["changed", "moved", "missing"] };

/// Entries that one verification looks at, at most: about two seconds of work.
pub const MAX_VERIFIED: i64 = 100_000;

pub(super) static ENTRY: Declaration = Declaration {
    hidden: &["xid"],
    enums: &[("action", &ACTION)],
    // By its place in the trail: entries of one moment have an order too.
    order: &[("seq", true)],
    relations: &[
        One("project", "Project", "project_id", "The project in which it happened."),
        One("actorUser", "User", "actor_user_id", "The user who did it."),
        One("actorAgent", "Agent", "actor_agent_id", "The agent that did it."),
    ],
    // Whoever sees everything, which an administrator limited to projects does not.
    ..Declaration::new("AuditLog", "audit_logs", "auditLog", "auditLogs", "{all}")
};

/// What a verification found; one row that stands in no table.
pub(super) static VERIFICATION: Declaration = Declaration {
    order: &[],
    computed: &[
        column(
            "valid",
            "Whether every entry is as it was sealed, and none is missing.",
            "{t}.seal is null",
            ColumnType::Bool,
            false,
        ),
        column("checked", "How many entries were looked at.", "{t}.checked", ColumnType::BigInt, false),
        column(
            "to",
            "The place of the last entry that was looked at; go on from the next one.",
            "{t}.last",
            ColumnType::BigInt,
            false,
        ),
        column(
            "sealed",
            "The place of the last entry of the chain.",
            "{t}.sealed",
            ColumnType::BigInt,
            false,
        ),
        column(
            "brokenSeal",
            "The place of the first entry that is not as it was sealed.",
            "{t}.seal",
            ColumnType::BigInt,
            true,
        ),
        column("fault", "What is wrong with it.", "{t}.reason", ColumnType::Enum(&FAULT), true),
        column("brokenId", "The entry, if it is still there.", "{t}.id", ColumnType::Uuid, true),
    ],
    relations: &[One("broken", "AuditLog", "brokenId", "The entry, if it is still there.")],
    ..Declaration::new("AuditVerification", "", "", "", "")
};

const fn column(
    name: &'static str,
    doc: &'static str,
    sql: &'static str,
    ty: ColumnType,
    nullable: bool,
) -> Computed {
    Computed { name, doc, sql, ty, nullable }
}

/// Whether a viewer may look at the trail: it tells of everything.
pub fn may_audit(viewer: &Viewer) -> bool {
    viewer.role == Role::Admin && viewer.project_ids().is_none()
}

/// Checks the chain between two places, both included; [`MAX_VERIFIED`] entries at most. For those who
/// [`may_audit`]; nobody else gets a row.
pub fn verify(viewer: &Viewer, projection: &Projection, first: i64, last: Option<i64>) -> Sql {
    let first = first.max(1);
    let most = first.saturating_add(MAX_VERIFIED - 1);
    let mut sql = Sql::default();
    sql.push(NO_KEY);
    projection.write("t", &mut sql);
    sql.push(
        " from (select coalesce(max(seal), 0) as sealed from audit_seals) s, lateral (select least(s.sealed, ",
    );
    sql.bind(Bind::Int(last.map_or(most, |last| last.min(most)))).push("::bigint) as last) l, lateral (");
    sql.push("select s.sealed, l.last, b.*, (select count(*) from audit_logs a where a.seal between ");
    sql.bind(Bind::Int(first)).push(" and l.last) as checked from (select) one left join broken_audit_log(");
    sql.bind(Bind::Int(first)).push(", l.last) b on true) t where ");
    sql.bind(Bind::Bool(may_audit(viewer)));
    sql.returning(projection.width())
}

/// The type of what [`verify`] gives.
pub fn verification_type() -> usize {
    graph().type_by_name("AuditVerification").unwrap_or_default()
}

/// Seals at most so many entries and says how many it did; none while another process is sealing.
pub async fn seal(session: &Session, most: u32) -> Result<i64> {
    let mut sql = Sql::default();
    sql.push("select seal_audit_logs(").bind(Bind::Int(most.into())).push("::int)::bigint");
    let rows = session.rows(&sql.returning(1)).await?;
    Ok(rows.bigint(0, 0).unwrap_or_default())
}
