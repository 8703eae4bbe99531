//! One row of any kind: what it is called, and which other rows it needs.

use serde::Serialize;
use uuid::Uuid;

use super::row::{
    Agent, Chain, ChainLink, Evidence, EvidenceRelation, Project, ProjectMember, Task, TaskAttachment,
    TaskComment, TaskResult, User,
};

/// The ids of imported rows are made from this and their external ids, so that they are the same everywhere.
const NAMESPACE: Uuid = Uuid::from_u128(0x5d1f_9a52_0c3b_4e0e_9a77_6f3d_2b64_c8e1);

/// What a row is. The order is that of the references: a kind refers to itself and to earlier ones only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Kind {
    User,
    Project,
    ProjectMember,
    Agent,
    Task,
    TaskResult,
    TaskComment,
    Evidence,
    TaskAttachment,
    EvidenceRelation,
    Chain,
    ChainLink,
}

impl Kind {
    pub(crate) const ALL: [Self; 12] = [
        Self::User,
        Self::Project,
        Self::ProjectMember,
        Self::Agent,
        Self::Task,
        Self::TaskResult,
        Self::TaskComment,
        Self::Evidence,
        Self::TaskAttachment,
        Self::EvidenceRelation,
        Self::Chain,
        Self::ChainLink,
    ];

    /// What `type` says in a file.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Project => "project",
            Self::ProjectMember => "projectMember",
            Self::Agent => "agent",
            Self::Task => "task",
            Self::TaskResult => "taskResult",
            Self::TaskComment => "taskComment",
            Self::Evidence => "evidence",
            Self::TaskAttachment => "taskAttachment",
            Self::EvidenceRelation => "evidenceRelation",
            Self::Chain => "chain",
            Self::ChainLink => "chainLink",
        }
    }
}

/// The id that a new row gets.
pub(crate) fn id_of(kind: Kind, name: &str) -> Uuid {
    Uuid::new_v5(&NAMESPACE, format!("{}:{name}", kind.name()).as_bytes())
}

/// One row of any kind.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub(crate) enum Record {
    User(User),
    Project(Project),
    ProjectMember(ProjectMember),
    Agent(Agent),
    Task(Task),
    TaskResult(TaskResult),
    TaskComment(TaskComment),
    Evidence(Evidence),
    TaskAttachment(TaskAttachment),
    EvidenceRelation(EvidenceRelation),
    Chain(Chain),
    ChainLink(ChainLink),
}

/// A field that names another row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Reference<'a> {
    pub(crate) field: &'static str,
    pub(crate) kind: Kind,
    pub(crate) external_id: &'a str,
}

impl Record {
    pub(crate) const fn kind(&self) -> Kind {
        match self {
            Self::User(_) => Kind::User,
            Self::Project(_) => Kind::Project,
            Self::ProjectMember(_) => Kind::ProjectMember,
            Self::Agent(_) => Kind::Agent,
            Self::Task(_) => Kind::Task,
            Self::TaskResult(_) => Kind::TaskResult,
            Self::TaskComment(_) => Kind::TaskComment,
            Self::Evidence(_) => Kind::Evidence,
            Self::TaskAttachment(_) => Kind::TaskAttachment,
            Self::EvidenceRelation(_) => Kind::EvidenceRelation,
            Self::Chain(_) => Kind::Chain,
            Self::ChainLink(_) => Kind::ChainLink,
        }
    }

    /// The name by which other rows refer to this one.
    pub(crate) fn external_id(&self) -> Option<&str> {
        match self {
            Self::User(row) => Some(&row.external_id),
            Self::Project(row) => Some(&row.external_id),
            Self::Agent(row) => Some(&row.external_id),
            Self::Task(row) => Some(&row.external_id),
            Self::TaskResult(row) => Some(&row.external_id),
            Self::TaskComment(row) => Some(&row.external_id),
            Self::TaskAttachment(row) => Some(&row.external_id),
            Self::Evidence(row) => Some(&row.external_id),
            Self::Chain(row) => Some(&row.external_id),
            Self::ChainLink(row) => Some(&row.external_id),
            Self::ProjectMember(_) | Self::EvidenceRelation(_) => None,
        }
    }

    /// The id that the row gets when it is new. Rows with one id are one row.
    pub(crate) fn id(&self) -> Uuid {
        match self {
            // No external id contains a line break.
            Self::ProjectMember(row) => id_of(self.kind(), &format!("{}\n{}", row.project, row.user)),
            Self::EvidenceRelation(row) => {
                id_of(self.kind(), &format!("{}\n{}\n{}", row.from, row.kind, row.to))
            }
            _ => id_of(self.kind(), self.external_id().unwrap_or_default()),
        }
    }

    /// The id of the link that this link follows from.
    pub(super) fn parent_link_id(&self) -> Option<Uuid> {
        match self {
            Self::ChainLink(row) => row.parent.as_deref().map(|parent| id_of(Kind::ChainLink, parent)),
            _ => None,
        }
    }

    /// The rows that this one needs.
    pub(crate) fn references(&self) -> impl Iterator<Item = Reference<'_>> {
        let fields: [(&'static str, Kind, Option<&String>); 6] = match self {
            Self::User(_) => [NOTHING; 6],
            Self::Project(row) => filled([("owner", Kind::User, row.owner.as_ref())]),
            Self::ProjectMember(row) => filled([
                ("project", Kind::Project, Some(&row.project)),
                ("user", Kind::User, Some(&row.user)),
            ]),
            Self::Agent(_) => [NOTHING; 6],
            Self::Task(row) => [
                ("project", Kind::Project, Some(&row.project)),
                ("parent", Kind::Task, row.parent.as_ref()),
                ("createdByUser", Kind::User, row.created_by_user.as_ref()),
                ("createdByAgent", Kind::Agent, row.created_by_agent.as_ref()),
                ("assignedUser", Kind::User, row.assigned_user.as_ref()),
                ("assignedAgent", Kind::Agent, row.assigned_agent.as_ref()),
            ],
            Self::TaskResult(row) => {
                filled([("task", Kind::Task, Some(&row.task)), ("agent", Kind::Agent, row.agent.as_ref())])
            }
            Self::TaskComment(row) => filled([
                ("task", Kind::Task, Some(&row.task)),
                ("authorUser", Kind::User, row.author_user.as_ref()),
                ("authorAgent", Kind::Agent, row.author_agent.as_ref()),
            ]),
            Self::TaskAttachment(row) => filled([
                ("task", Kind::Task, Some(&row.task)),
                ("evidence", Kind::Evidence, row.evidence.as_ref()),
                ("uploadedByUser", Kind::User, row.uploaded_by_user.as_ref()),
            ]),
            Self::Evidence(row) => filled([
                ("project", Kind::Project, Some(&row.project)),
                ("task", Kind::Task, row.task.as_ref()),
                ("agent", Kind::Agent, row.agent.as_ref()),
                ("verifiedByUser", Kind::User, row.verified_by_user.as_ref()),
            ]),
            Self::EvidenceRelation(row) => filled([
                ("from", Kind::Evidence, Some(&row.from)),
                ("to", Kind::Evidence, Some(&row.to)),
                ("createdByUser", Kind::User, row.created_by_user.as_ref()),
                ("createdByAgent", Kind::Agent, row.created_by_agent.as_ref()),
            ]),
            Self::Chain(row) => filled([
                ("project", Kind::Project, Some(&row.project)),
                ("task", Kind::Task, row.task.as_ref()),
                ("createdByUser", Kind::User, row.created_by_user.as_ref()),
                ("createdByAgent", Kind::Agent, row.created_by_agent.as_ref()),
            ]),
            Self::ChainLink(row) => filled([
                ("chain", Kind::Chain, Some(&row.chain)),
                ("evidence", Kind::Evidence, Some(&row.evidence)),
                ("parent", Kind::ChainLink, row.parent.as_ref()),
            ]),
        };
        fields.into_iter().filter_map(|(field, kind, name)| {
            name.map(|external_id| Reference { field, kind, external_id: external_id.as_str() })
        })
    }
}

type Field<'a> = (&'static str, Kind, Option<&'a String>);

const NOTHING: Field<'static> = ("", Kind::User, None);

fn filled<'a, const N: usize>(given: [Field<'a>; N]) -> [Field<'a>; 6] {
    let mut fields: [Field<'a>; 6] = [NOTHING; 6];
    for (place, field) in fields.iter_mut().zip(given) {
        *place = field;
    }
    fields
}

#[cfg(test)]
pub(super) mod tests {
    use std::collections::BTreeSet;

    use serde_json::Value;

    use super::*;

    fn least(kind: Kind) -> Record {
        let json = |text: &str| serde_json::from_str::<Value>(text).unwrap();
        macro_rules! row {
            ($variant:ident, $text:literal) => {
                Record::$variant(serde_json::from_value(json($text)).unwrap())
            };
        }
        match kind {
            Kind::User => row!(User, r#"{"externalId":"u","username":"u","displayName":"U"}"#),
            Kind::Project => row!(Project, r#"{"externalId":"p","slug":"p","name":"P"}"#),
            Kind::ProjectMember => row!(ProjectMember, r#"{"project":"p","user":"u"}"#),
            Kind::Agent => row!(Agent, r#"{"externalId":"a","name":"a","agentType":"x","agentVersion":"1"}"#),
            Kind::Task => row!(Task, r#"{"externalId":"t","project":"p","title":"T","intent":"x"}"#),
            Kind::TaskResult => {
                row!(TaskResult, r#"{"externalId":"r","task":"t","resultType":"x","content":1}"#)
            }
            Kind::TaskComment => row!(TaskComment, r#"{"externalId":"c","task":"t","body":"B"}"#),
            Kind::Evidence => {
                row!(
                    Evidence,
                    r#"{"externalId":"e","project":"p","title":"E","content":"C","sourceType":"log"}"#
                )
            }
            Kind::TaskAttachment => row!(
                TaskAttachment,
                r#"{"externalId":"f","task":"t","fileName":"f","mediaType":"a/b","sizeBytes":1,"storagePath":"f"}"#
            ),
            Kind::EvidenceRelation => row!(EvidenceRelation, r#"{"from":"e","to":"f","kind":"related"}"#),
            Kind::Chain => row!(Chain, r#"{"externalId":"c","project":"p","claim":"C"}"#),
            Kind::ChainLink => {
                row!(
                    ChainLink,
                    r#"{"externalId":"l","chain":"c","evidence":"e","position":0,"role":"premise"}"#
                )
            }
        }
    }

    /// The names of all fields of a kind, those that are absent included.
    pub(in crate::model::import) fn fields_of(kind: Kind) -> BTreeSet<String> {
        let row = serde_json::to_value(least(kind)).unwrap();
        row.as_object().unwrap().keys().cloned().collect()
    }

    #[test]
    fn kinds_refer_to_themselves_and_to_earlier_kinds_only() {
        for kind in Kind::ALL {
            let row = least(kind);
            assert_eq!(row.kind(), kind);
            assert!(row.references().all(|reference| reference.kind <= kind), "{}", kind.name());
        }
    }

    #[test]
    fn ids_are_the_same_everywhere() {
        assert_eq!(id_of(Kind::Task, "RUSTSEC-2016-0002"), id_of(Kind::Task, "RUSTSEC-2016-0002"));
        assert_ne!(id_of(Kind::Task, "x"), id_of(Kind::Evidence, "x"));
        assert_eq!(least(Kind::EvidenceRelation).id(), id_of(Kind::EvidenceRelation, "e\nrelated\nf"));
    }
}
