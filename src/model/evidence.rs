//! Evidence, how pieces of it relate, and how far each was believed over time.

use crate::model::entity::{
    Declaration, Enum,
    RelationDeclaration::{Hits, Lineage, Many, One},
    Searched,
};

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
