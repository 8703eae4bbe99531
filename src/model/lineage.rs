//! Lineage: the walk from a piece of evidence along its relations, for a whole batch in one recursive statement.

use crate::model::entity::{ColumnType, Computed, Declaration, RelationDeclaration::One};
use crate::model::evidence::RELATION_KIND;
use crate::model::graph;
use crate::model::reads::Reading;
use crate::model::select::{Projection, Scope};
use crate::model::viewer::Viewer;
use crate::store::db::sql::{Bind, Sql};

/// Steps away from the start unless the client says otherwise.
pub const DEFAULT_DEPTH: u32 = 3;
/// Steps away from the start at most.
pub const MAX_DEPTH: u32 = 10;
/// Steps listed per start at most; a dense graph has far more ways than anyone reads.
pub const MAX_STEPS: u32 = 200;

/// One step: a row of the walk, which stands in no table.
pub(super) static STEP: Declaration = Declaration {
    order: &[],
    computed: &[
        Computed {
            name: "depth",
            doc: "How many steps away from the start it is.",
            sql: "{t}.depth",
            ty: ColumnType::Int,
            nullable: false,
        },
        Computed {
            name: "kind",
            doc: "How the step is related.",
            sql: "{t}.kind",
            ty: ColumnType::Enum(&RELATION_KIND),
            nullable: false,
        },
        Computed {
            name: "direction",
            doc: "UP when the step supports, contradicts or is the origin of what was there; DOWN when it follows from it.",
            sql: "{t}.direction",
            ty: ColumnType::Enum(&DIRECTION),
            nullable: false,
        },
        Computed {
            name: "evidenceId",
            doc: "The evidence that the step leads to.",
            sql: "{t}.evidence_id",
            ty: ColumnType::Uuid,
            nullable: false,
        },
        Computed {
            name: "relationId",
            doc: "The relation that the step takes.",
            sql: "{t}.relation_id",
            ty: ColumnType::Uuid,
            nullable: false,
        },
    ],
    relations: &[
        One("evidence", "Evidence", "evidenceId", "The evidence that the step leads to."),
        One("relation", "EvidenceRelation", "relationId", "The relation that the step takes."),
    ],
    ..Declaration::new("EvidenceLineageStep", "", "", "", "")
};

/// Where a walk goes.
pub(crate) static DIRECTION: crate::model::entity::Enum =
    crate::model::entity::Enum { name: "EvidenceLineageDirection", values: &["up", "down", "both"] };

/// What a client asks of a walk.
#[derive(Debug, Clone)]
pub struct Walk {
    /// Toward what the evidence rests on.
    pub up: bool,
    /// Toward what rests on it.
    pub down: bool,
    /// Steps at most.
    pub depth: u32,
    /// Only along these kinds of relations; empty for all.
    pub kinds: Vec<String>,
}

/// The walks from a batch of evidence. Each piece of evidence is listed once per start, at its nearest; only
/// visible relations are walked, and both ends of those are visible.
pub fn lineage(viewer: &Viewer, projection: &Projection, walk: &Walk) -> Sql {
    let mut scope = Scope::new(viewer);
    let mut sql = Sql::default();
    sql.push(
        "with recursive w(start, evidence_id, relation_id, kind, direction, depth) as (select k.id, k.id, ",
    );
    sql.push("null::uuid, null::text, null::text, 0 from (select distinct unnest(").bind_keys();
    // `union` drops what was reached before by the same way at the same depth, so a walk of a dense graph grows
    // with its relations and not with its paths.
    sql.push(") as id) k union select w.start, e.* from w cross join lateral (");
    write_ways(walk, &mut scope, &mut sql);
    sql.push(&format!(") e where w.depth < {} and e.there <> w.start), ", walk.depth));
    sql.push(
        "nearest as (select distinct on (w.start, w.evidence_id) w.* from w where w.depth > 0 \
         order by w.start, w.evidence_id, w.depth, w.relation_id), \
         s as (select n.*, row_number() over (partition by n.start order by n.depth, n.evidence_id) as place \
         from nearest n) select s.start",
    );
    for column in projection.columns() {
        sql.push(", ").push(&column.sql.replace("{t}", "s"));
    }
    sql.push(&format!(" from s where s.place <= {MAX_STEPS} order by s.start, s.place"));
    let relation = graph().type_by_name("EvidenceRelation").unwrap_or_default();
    sql.returning(projection.width()).reading(Reading::new(viewer).any(relation).finish())
}

/// One step from where `w` stands: the ways that the walk takes, each by its index.
fn write_ways(walk: &Walk, scope: &mut Scope<'_>, sql: &mut Sql) {
    let relation = graph().type_by_name("EvidenceRelation").unwrap_or_default();
    // Evidence points at what it speaks of: `derives_from` at the origin, the other kinds at the claim.
    let ways = [
        (walk.up, "to_evidence_id", "from_evidence_id", "up", "<>"),
        (walk.up, "from_evidence_id", "to_evidence_id", "up", "="),
        (walk.down, "from_evidence_id", "to_evidence_id", "down", "<>"),
        (walk.down, "to_evidence_id", "from_evidence_id", "down", "="),
    ];
    for (n, (_, from, to, direction, derived)) in ways.iter().filter(|way| way.0).enumerate() {
        let r = scope.alias();
        sql.push(if n == 0 { "" } else { " union all " });
        sql.push(&format!("select {r}.{to} as there, {r}.id, {r}.kind, '{direction}'::text, w.depth + 1"));
        scope.write_table(relation, &r, sql);
        sql.push(&format!(" and {r}.{from} = w.evidence_id and {r}.kind {derived} 'derives_from'"));
        if !walk.kinds.is_empty() {
            sql.push(&format!(" and {r}.kind = any(")).bind(Bind::Texts(walk.kinds.clone())).push(")");
        }
    }
}
