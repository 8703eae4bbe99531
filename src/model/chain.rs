//! Evidence chains: a claim or decision, and the links that lead to it.

use crate::model::entity::{
    ColumnType, Computed, Declaration, Enum,
    RelationDeclaration::{Many, One},
};

/// How a chain stands.
pub static STATUS: Enum = Enum { name: "EvidenceChainStatus", values: &["open", "concluded", "rejected"] };
/// What a link does in its chain.
pub static LINK_ROLE: Enum = Enum {
    name: "EvidenceChainLinkRole",
    values: &["premise", "support", "contradiction", "context", "conclusion"],
};

pub(super) static CHAIN: Declaration = Declaration {
    hidden: &["deleted_at"],
    enums: &[("status", &STATUS)],
    computed: &[Computed {
        name: "depth",
        doc: "The number of links on the longest way from a root; 0 for a chain without links.",
        sql: "(with recursive w(id, depth) as (select l.id, 1 from evidence_chain_links l \
              where l.chain_id = {t}.id and l.parent_link_id is null union all select l.id, w.depth + 1 \
              from w join evidence_chain_links l on l.parent_link_id = w.id) \
              select coalesce(max(w.depth), 0) from w)",
        ty: ColumnType::Int,
        nullable: false,
    }],
    relations: &[
        One("project", "Project", "project_id", "The project it belongs to."),
        One("task", "Task", "task_id", "The task it argues about."),
        One("createdByUser", "User", "created_by_user_id", "The person who began it."),
        One("createdByAgent", "Agent", "created_by_agent_id", "The agent that began it."),
        Many(
            "links",
            "EvidenceChainLink",
            "{t}.chain_id = {k}",
            &[("position", false)],
            "Its links in their order.",
        ),
        Many(
            "roots",
            "EvidenceChainLink",
            "{t}.chain_id = {k} and {t}.parent_link_id is null",
            &[("position", false)],
            "The links that rest on no other link of the chain.",
        ),
        Many(
            "contradictions",
            "EvidenceRelation",
            // From the links to their relations, each by its index: an `or` of two lists would read every relation.
            "{t}.id in (select r.id from evidence_chain_links l join evidence_relations r \
             on r.from_evidence_id = l.evidence_id where l.chain_id = {k} and r.kind = 'contradicts' union all \
             select r.id from evidence_chain_links l join evidence_relations r \
             on r.to_evidence_id = l.evidence_id where l.chain_id = {k} and r.kind = 'contradicts')",
            &[],
            "What contradicts a piece of its evidence, or is contradicted by one.",
        ),
    ],
    ..Declaration::new(
        "EvidenceChain",
        "evidence_chains",
        "evidenceChain",
        "evidenceChains",
        "{t}.project_id = any({projects})",
    )
};

pub(super) static LINK: Declaration = Declaration {
    enums: &[("role", &LINK_ROLE)],
    relations: &[
        One("chain", "EvidenceChain", "chain_id", "The chain."),
        One("evidence", "Evidence", "evidence_id", "The evidence that the link brings in."),
        One(
            "parentLink",
            "EvidenceChainLink",
            "parent_link_id",
            "The link of the same chain on which it rests.",
        ),
        Many(
            "childLinks",
            "EvidenceChainLink",
            "{t}.parent_link_id = {k}",
            &[("position", false)],
            "The links that rest on it.",
        ),
    ],
    ..Declaration::new(
        "EvidenceChainLink",
        "evidence_chain_links",
        "evidenceChainLink",
        "evidenceChainLinks",
        // A link tells of its evidence, so both the chain and the evidence must be visible.
        "exists (select 1 from evidence_chains v where v.id = {t}.chain_id and v.deleted_at is null \
         and v.project_id = any({projects})) and exists (select 1 from evidence v where v.id = {t}.evidence_id \
         and v.deleted_at is null and v.project_id = any({projects}))",
    )
};
