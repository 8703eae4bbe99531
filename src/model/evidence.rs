//! Evidence, how pieces of it relate, and how far each was believed over time.

use chrono::{DateTime, SecondsFormat, Utc};
use serde_json::{Map, Value};
use uuid::Uuid;

use crate::error::{Error, Result};
use crate::model::cursor::Cursor;
use crate::model::entity::{
    ColumnType, Declaration, Enum,
    RelationDeclaration::{Hits, Lineage, Many, One},
    Searched, Type, TypeId,
};
use crate::model::filter::{Filter, Test};
use crate::model::graph;
use crate::model::page::Page;
use crate::model::select::{Projection, by_ids, count, page};
use crate::model::viewer::Viewer;
use crate::store::db::Session;
use crate::store::db::rows::{read_texts, read_time};
use crate::store::db::sql::Bind;
use crate::store::vectors::Kind;

/// Where evidence comes from.
pub static SOURCE_TYPE: Enum = Enum {
    name: "EvidenceSourceType",
    values: &[
        "code_analysis",
        "test_result",
        "ai_model_output",
        "security_advisory",
        "documentation",
        "commit",
        "pull_request",
        "issue",
        "log",
        "metric",
        "user_feedback",
        "web_page",
        "research_paper",
        "api_response",
        "patch",
        "affected_functions",
        "dataset",
        "other",
    ],
};
/// The field of knowledge that evidence belongs to.
pub static DOMAIN: Enum =
    Enum { name: "EvidenceDomain", values: &["general", "financial", "legal", "social"] };

/// How one piece of evidence bears on another.
pub static RELATION_KIND: Enum = Enum {
    name: "EvidenceRelationKind",
    values: &["supports", "contradicts", "derives_from", "duplicates", "related"],
};

pub(super) static EVIDENCE: Declaration = Declaration {
    hidden: &["deleted_at"],
    unordered: &["content"],
    enums: &[("source_type", &SOURCE_TYPE), ("domain", &DOMAIN)],
    relations: &[
        One("project", "Project", "project_id", "The project it belongs to."),
        One("task", "Task", "task_id", "The task it was gathered for."),
        One("agent", "Agent", "agent_id", "The agent that found it."),
        One("verifiedByUser", "User", "verified_by_user_id", "The person who vouches for it."),
        Many(
            "relations",
            "EvidenceRelation",
            "{t}.from_evidence_id = {k}",
            &[],
            "What it says of other evidence.",
        ),
        Many(
            "relatedBy",
            "EvidenceRelation",
            "{t}.to_evidence_id = {k}",
            &[],
            "What other evidence says of it.",
        ),
        // An array and no subquery: as a condition on evidence, PostgreSQL would compare every pair of pieces.
        Many(
            "supporting",
            "Evidence",
            "{t}.id = any(array(select r.from_evidence_id from evidence_relations r \
             where r.to_evidence_id = {k} and r.kind = 'supports'))",
            &[],
            "The evidence that supports it.",
        ),
        Many(
            "contradicting",
            "Evidence",
            "{t}.id = any(array(select r.from_evidence_id from evidence_relations r \
             where r.to_evidence_id = {k} and r.kind = 'contradicts'))",
            &[],
            "The evidence that contradicts it.",
        ),
        Many(
            "credibilityHistory",
            "CredibilityChange",
            "{t}.evidence_id = {k}",
            &[],
            "How far it was believed over time, newest first.",
        ),
        Many(
            "chainLinks",
            "EvidenceChainLink",
            "{t}.evidence_id = {k}",
            &[("created_at", true)],
            "Where chains of evidence use it.",
        ),
        Lineage(
            "lineage",
            "EvidenceLineageStep",
            "What it rests on (UP) or what rests on it (DOWN), step by step, nearest first.",
        ),
        Hits("similar", "Evidence", None, "The evidence most like it in meaning."),
    ],
    group_by: &["source_type", "domain", "verified", "language", "project_id", "task_id", "agent_id"],
    group_by_day: &["created_at", "collected_at"],
    measures: &["credibility_score", "created_at", "collected_at"],
    searched: Some(&Searched {
        entity: "Evidence",
        field: "searchEvidence",
        argument: "query",
        text: ["title", "content"],
        document: "{t}.title || ' ' || left({t}.content, 100000)",
        of_projects: true,
    }),
    ..Declaration::new("Evidence", "evidence", "evidence", "evidences", "{t}.project_id = any({projects})")
};

pub(super) static RELATION: Declaration = Declaration {
    enums: &[("kind", &RELATION_KIND)],
    relations: &[
        One("from", "Evidence", "from_evidence_id", "The evidence that speaks."),
        One("to", "Evidence", "to_evidence_id", "The evidence it speaks of."),
        One("createdByUser", "User", "created_by_user_id", "The person who saw the relation."),
        One("createdByAgent", "Agent", "created_by_agent_id", "The agent that saw the relation."),
    ],
    ..Declaration::new(
        "EvidenceRelation",
        "evidence_relations",
        "evidenceRelation",
        "evidenceRelations",
        BOTH_ENDS,
    )
};

/// A relation would tell of a piece of evidence that the viewer may not see: both ends must be visible.
const BOTH_ENDS: &str = "exists (select 1 from evidence v where v.id = {t}.from_evidence_id and v.deleted_at is null \
     and v.project_id = any({projects})) and exists (select 1 from evidence v where v.id = {t}.to_evidence_id \
     and v.deleted_at is null and v.project_id = any({projects}))";

pub(super) static CREDIBILITY_CHANGE: Declaration = Declaration {
    relations: &[
        One("evidence", "Evidence", "evidence_id", "The evidence."),
        One("changedByUser", "User", "changed_by_user_id", "The person who changed it."),
        One("changedByAgent", "Agent", "changed_by_agent_id", "The agent that changed it."),
    ],
    ..Declaration::new(
        "CredibilityChange",
        "evidence_credibility_history",
        "credibilityChange",
        "credibilityChanges",
        "exists (select 1 from evidence v where v.id = {t}.evidence_id and v.deleted_at is null \
         and v.project_id = any({projects}))",
    )
};

/// The key under which the index keeps of which entity a row is.
pub const ENTITY: &str = "entity";

/// The columns that the vector index keeps, by their names in SQL, so that searches can be narrowed by them there.
pub static INDEX_KEYS: &[(&str, Kind)] = &[
    (ENTITY, Kind::Keyword),
    ("project_id", Kind::Tenant),
    ("task_id", Kind::Id),
    ("agent_id", Kind::Id),
    ("source_type", Kind::Keyword),
    ("domain", Kind::Keyword),
    ("credibility_score", Kind::Number),
    ("verified", Kind::Flag),
    ("tags", Kind::Keyword),
    ("collected_at", Kind::Time),
    ("expires_at", Kind::Time),
    ("created_at", Kind::Time),
];

/// Which version of a piece of evidence the vector index should hold.
#[derive(Debug, Clone, Copy)]
pub struct Indexed {
    /// The evidence.
    pub id: Uuid,
    /// Its version.
    pub version: i32,
}

/// What stands for a piece of evidence in the vector index.
#[derive(Debug, Clone)]
pub struct Document {
    /// The evidence.
    pub id: Uuid,
    /// The version that the rest was read of.
    pub version: i32,
    /// The text that it is found by.
    pub text: String,
    /// The values of [`INDEX_KEYS`], without those that are NULL.
    pub payload: Map<String, Value>,
}

/// Reads what the index should hold, in the order of ids, after an id and changed since a moment. The index serves
/// all viewers; each search is limited to its viewer again.
pub async fn read_indexed(
    session: &Session,
    after: Option<Uuid>,
    since: Option<DateTime<Utc>>,
    limit: u32,
) -> Result<Vec<Indexed>> {
    let (id, ty) = evidence_type();
    let mut projection = Projection::default();
    let cells = ["id", "version"].map(|name| add(&mut projection, ty, name));
    let after = after.map(|id| Cursor { values: Vec::new(), id });
    let wanted = Page { after, filter: changed_since(ty, since), ..Page::first(limit, Vec::new()) };
    let rows = session.rows(&page(&Viewer::admin(), id, &projection, &wanted)).await?;
    let read = |row: usize| {
        Some(Indexed { id: rows.uuid(row, cells[0])?, version: int(rows.cell(row, cells[1])?)? })
    };
    Ok((0..rows.len()).filter_map(read).collect())
}

/// Reads what stands for evidence. A row that is gone meanwhile is left out.
pub async fn read_documents(session: &Session, ids: Vec<Uuid>) -> Result<Vec<Document>> {
    let (id, ty) = evidence_type();
    let mut projection = Projection::default();
    let [version, title, content] =
        ["version", "title", "content"].map(|name| add(&mut projection, ty, name));
    let mut keys = Vec::with_capacity(INDEX_KEYS.len());
    for (key, _) in INDEX_KEYS.iter().filter(|(key, _)| *key != ENTITY) {
        let column = ty.columns.iter().find(|column| column.sql_name == *key);
        let column = column.ok_or_else(|| Error::internal(format!("evidence has no column {key}")))?;
        keys.push((*key, column.ty, projection.add(column)));
    }
    let rows = session.rows(&by_ids(&Viewer::admin(), id, &projection, None).with_keys(ids)).await?;
    let read = |row: usize| {
        let value = |(key, ty, cell): &(&str, ColumnType, usize)| {
            Some(((*key).to_owned(), value(*ty, rows.cell(row, *cell)?)?))
        };
        Some(Document {
            id: rows.uuid(row, 0)?,
            version: int(rows.cell(row, version)?)?,
            text: format!("{}\n{}", rows.text(row, title)?, rows.text(row, content)?),
            payload: keys.iter().filter_map(value).chain([(ENTITY.to_owned(), "Evidence".into())]).collect(),
        })
    };
    Ok((0..rows.len()).filter_map(read).collect())
}

fn int(cell: &[u8]) -> Option<i32> {
    Some(i32::from_be_bytes(cell.try_into().ok()?))
}

/// A cell as the index keeps it: ids and times as text, times to the microsecond.
fn value(ty: ColumnType, cell: &[u8]) -> Option<Value> {
    Some(match ty {
        ColumnType::Uuid => Uuid::from_slice(cell).ok()?.to_string().into(),
        ColumnType::Bool => (cell == [1]).into(),
        ColumnType::Float => f64::from_be_bytes(cell.try_into().ok()?).into(),
        ColumnType::Time => read_time(cell)?.to_rfc3339_opts(SecondsFormat::Micros, true).into(),
        ColumnType::Texts => read_texts(cell).map(Value::from).collect(),
        _ => std::str::from_utf8(cell).ok()?.into(),
    })
}

fn add(projection: &mut Projection, ty: &'static Type, name: &str) -> usize {
    projection.add(&ty.columns[ty.column(name).unwrap_or_default()])
}

/// How much is to be looked at.
pub async fn count_indexed(session: &Session, since: Option<DateTime<Utc>>) -> Result<u64> {
    let (id, ty) = evidence_type();
    let rows = session.rows(&count(&Viewer::admin(), id, changed_since(ty, since).as_ref())).await?;
    Ok(rows.bigint(0, 1).and_then(|count| u64::try_from(count).ok()).unwrap_or(0))
}

fn evidence_type() -> (TypeId, &'static Type) {
    let id = graph().type_by_name("Evidence").unwrap_or_default();
    (id, &graph().types[id])
}

fn changed_since(ty: &'static Type, since: Option<DateTime<Utc>>) -> Option<Filter> {
    let column = &ty.columns[ty.column("updatedAt").unwrap_or_default()];
    since.map(|since| Filter::Column(column, Test::Compare(">=", Bind::Time(since))))
}
