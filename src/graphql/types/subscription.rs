//! `Subscription` in the schema: one field per entity that can be watched, and the types of their events.

use async_graphql::registry::{MetaField, MetaType, Registry};

use super::meta::{add_enum, add_object, argument, field};
use crate::graphql::subscription::{COALESCE_MS, DEFAULT_MIN_SCORE, SILENT_MS};
use crate::model::entity::{TypeId, screaming_case};
use crate::model::graph;
use crate::model::watch::{Operation, WATCHABLE, Watchable};

/// The field that is about several entities.
pub(crate) const CHANGES: &str = "changes";
/// The field that is a standing search.
pub(crate) const MATCHED: &str = "evidenceMatched";
const OPERATION: &str = "ChangeOperation";
const ENTITY: &str = "ChangeEntity";

/// The enum's value for an entity.
pub(crate) fn entity_value(watchable: &Watchable) -> String {
    screaming(watchable.entity)
}

/// The enum's value for a type.
pub(crate) fn entity_of(ty: TypeId) -> String {
    screaming(&graph().types[ty].name)
}

/// `EvidenceChain` → `EVIDENCE_CHAIN`
fn screaming(name: &str) -> String {
    screaming_case(name).trim_start_matches('_').to_owned()
}

/// The type of a root field's events.
pub(crate) fn event_name(root: &str) -> String {
    if root == MATCHED {
        return "EvidenceMatch".to_owned();
    }
    let one = WATCHABLE.iter().find(|watchable| watchable.field == Some(root));
    one.map_or_else(|| "ChangeEvent".to_owned(), |one| format!("{}Event", one.entity))
}

/// Adds `Subscription` and what only it shows.
pub(crate) fn register(registry: &mut Registry) {
    let operations = Operation::ALL.map(|(operation, doc)| (operation.as_str().to_owned(), doc.to_owned()));
    add_enum(registry, OPERATION, "What a change did to a row, as a stream sees it.", operations);
    let entities = WATCHABLE.iter().map(|one| (entity_value(one), graph_doc(one.entity)));
    add_enum(registry, ENTITY, "What can be watched.", entities);
    let mut roots = Vec::new();
    for watchable in &WATCHABLE {
        let Some(name) = watchable.field else { continue };
        let event = event_name(name);
        let doc = format!("A change of a row of {}.", watchable.entity);
        add_object(registry, &event, &doc, event_fields(watchable.entity));
        let doc = format!(
            "Tells of every change of {} rows that the viewer may see, in the order of the change log, each once.",
            watchable.entity
        );
        let filter = argument(
            "filter",
            &format!("{}Filter", watchable.entity),
            "Only rows that fit, before or afterwards. Only what the change log tells can be compared: ids, states, \
             numbers, dates and short names.",
        );
        let (least, most) = SILENT_MS;
        let silent = format!(
            "Also tells which active agents have had no heartbeat for so many milliseconds, {least} to {most} \
             (SILENT)."
        );
        let silent = (watchable.entity == "Agent").then(|| argument("silentAfterMs", "Int", &silent));
        let arguments = std::iter::once(filter).chain(common()).chain(silent);
        roots.push(field(name, &doc, &format!("{event}!"), arguments));
    }
    let entity = field("entity", "What the row is.", &format!("{ENTITY}!"), []);
    let event = event_name(CHANGES);
    let fields = event_fields("Node").into_iter().chain([entity]);
    add_object(registry, &event, "A change of a row of any of the entities that can be watched.", fields);
    let entities = argument("entities", &format!("[{ENTITY}!]"), "Only these; all unless given.");
    let doc = "Tells of every change of rows of several entities that the viewer may see, in one order.";
    roots.push(field(CHANGES, doc, &format!("{event}!"), std::iter::once(entities).chain(common())));
    roots.push(add_matched(registry));
    add_object(
        registry,
        "Subscription",
        "All that can be watched, over WebSocket or server-sent events.",
        roots,
    );
    if let Some(MetaType::Object { is_subscription, .. }) = registry.types.get_mut("Subscription") {
        *is_subscription = true;
    }
}

fn add_matched(registry: &mut Registry) -> MetaField {
    let name = event_name(MATCHED);
    let doc = "The cosine of the angle between the question and the text, as in `searchEvidence`; null when the index did \
               not get the text in time: then nobody has compared them.";
    let score = field("score", doc, "Float", []);
    let fields = event_fields("Evidence").into_iter().chain([score]);
    add_object(registry, &name, "A piece of evidence that answers a question.", fields);
    let least = format!("Only what is at least so near, -1 to 1; {DEFAULT_MIN_SCORE} unless given.");
    let after = common().into_iter().find(|argument| argument.name == "after");
    let arguments = [
        argument("query", "String!", "What the evidence should be about."),
        argument("minScore", "Float", &least),
        argument(
            "filter",
            "EvidenceFilter",
            "Only rows that fit. Only what the change log tells can be compared.",
        ),
    ];
    let doc = "Tells of evidence whose meaning is near to a question, when it is new, its text changes or it comes to \
               belong to the stream. A text that was replaced before it is told of is judged by the one that replaced \
               it, which is told as its own change, too.";
    field(MATCHED, doc, &format!("{name}!"), arguments.into_iter().chain(after))
}

fn graph_doc(entity: &str) -> String {
    let ty = graph().type_by_name(entity).map(|ty| graph().types[ty].doc.clone());
    ty.unwrap_or_default()
}

fn common() -> [async_graphql::registry::MetaInputValue; 2] {
    let (least, most) = COALESCE_MS;
    [
        argument(
            "after",
            "String",
            "Only what comes after this cursor: that of an event, or `changeCursor`. Good in every process; \
             CURSOR_EXPIRED when it is older than the change log. Unless given, what comes from now on.",
        ),
        argument(
            "coalesceMs",
            "Int",
            &format!(
                "Changes of one row within so many milliseconds ({least} to {most}) are told as one, with the newest \
                 state of the row."
            ),
        ),
    ]
}

fn event_fields(node: &str) -> Vec<MetaField> {
    vec![
        field("cursor", "Where to resume after this event: the argument `after`.", "String!", []),
        field("operation", "What was done.", &format!("{OPERATION}!"), []),
        field("at", "When the statement began that did it.", "DateTime!", []),
        field("id", "The row's id; null when the event is about all rows (RESET).", "UUID", []),
        field(
            "node",
            "The row as it is by now; null when it is gone, does not belong to the stream any more, or may not be seen.",
            node,
            [],
        ),
        field(
            "changedFields",
            "The fields that an update changed, `version` and `updatedAt` aside; null when the operation is no update, \
             or when the viewer may not see both what was and what is.",
            "[String!]",
            [],
        ),
    ]
}
