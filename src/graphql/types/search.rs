//! The types of searches.

use async_graphql::registry::{MetaField, MetaInputValue, Registry};

use super::first_argument;
use super::hints::add_hint;
use super::meta::{add_enum, add_object, argument, field};
use crate::graphql::search::HINT;
use crate::graphql::search::plan::{GROUP_HITS, RELATED};
use crate::graphql::search::snippet::{DEFAULT_LENGTH, MAX_LENGTH};
use crate::model::entity::{Relation, Searched, TypeId};
use crate::model::graph;

/// The root field that searches an entity.
pub(super) fn root_field(ty: TypeId, searched: &Searched) -> MetaField {
    let (name, many) = (searched.entity, graph().types[ty].table.as_ref().map_or("rows", |table| table.many));
    let question = argument(searched.argument, "String", "The question or claim, 2,000 characters at most.");
    let mode = argument("mode", "SearchMode", "How to search by a text; HYBRID unless given.");
    let filter = argument("filter", &format!("{name}Filter"), "Only what fits.");
    let diversity = argument(
        "diversity",
        "Float",
        "How much hits shall be unlike those before them: 0 (not at all) to 1 (maximal marginal relevance).",
    );
    let after = argument("after", "String", "Only what comes after this cursor of the same search.");
    let budget = argument(
        "budget",
        "Int",
        "Characters that the hits may take in the answer, 200 at least: snippets become shorter and hits are left out \
         at the end; cut says which, and how to go on.",
    );
    let returns = format!("Search{name}Connection");
    if name != "Evidence" {
        let question = MetaInputValue { ty: "String!".to_owned(), ..question };
        let doc = format!("The {many} that answer a question best, best first.");
        return field(
            searched.field,
            &doc,
            &returns,
            [question, mode, filter, diversity, first_argument(), after, budget],
        );
    }
    field(
        searched.field,
        "The evidence that answers a question best, best first. Exactly one of query, vector and like is needed.",
        &returns,
        [
            question,
            argument("vector", "[Float!]", "A vector of the index's own model: evidence near to it."),
            argument("like", "[UUID!]", "Evidence like these pieces of evidence, 20 at most."),
            argument("unlike", "[UUID!]", "With like: and unlike these, 20 at most."),
            mode,
            filter,
            argument("domains", "[EvidenceDomain!]", "Only evidence of these fields of knowledge."),
            diversity,
            argument(
                "groupBy",
                "SearchGroupBy",
                "Puts hits into groups; first is then the number of groups.",
            ),
            first_argument(),
            after,
            budget,
        ],
    )
}

/// The field of a row that has the best hits of a search.
pub(super) fn hits_field(relation: &Relation, asks: bool) -> MetaField {
    let name = &graph().types[relation.target].name;
    let mut arguments = Vec::new();
    if asks {
        arguments.push(argument("query", "String!", "The question or claim, 2,000 characters at most."));
        arguments.push(argument("mode", "SearchMode", "How to search; HYBRID unless given."));
    }
    arguments.push(argument("filter", &format!("{name}Filter"), "Only what fits."));
    arguments.push(argument("first", "Int", &format!("Hits at most, {RELATED} unless given.")));
    field(relation.name, relation.doc, &format!("[{name}Hit!]"), arguments)
}

/// Everything that only searches have.
pub(super) fn add_types(registry: &mut Registry) {
    let value = |name: &str, doc: &str| (name.to_owned(), doc.to_owned());
    let modes = [
        value("HYBRID", "By meaning and by words; the two lists are fused by the places in them (RRF)."),
        value("SEMANTIC", "By meaning: the nearness of vectors."),
        value("LEXICAL", "By words: BM25."),
    ];
    add_enum(registry, "SearchMode", "How to search.", modes);
    let groups = [
        value("TASK", "The task it was gathered for."),
        value("CHAIN", "The chains of evidence that use it."),
    ];
    add_enum(registry, "SearchGroupBy", "What hits of a group share.", groups);
    for (_, searched) in graph().searched() {
        add_connection(registry, searched.entity);
    }
    let reason = "A hit, and why it is one.";
    add_object(registry, "EvidenceHit", reason, hit_fields("Evidence"));
    let facet = |name: &str, doc: &str| field(name, doc, "[SearchFacet!]!", []);
    add_object(
        registry,
        "SearchFacets",
        "How many of the best hits have which value, the most frequent first.",
        [
            facet("sourceType", "By where they come from."),
            facet("domain", "By their field of knowledge."),
            facet("agent", "By the agent that found them: its id."),
            facet("project", "By their project: its id."),
        ],
    );
    let fields =
        [field("value", "What they share.", "String!", []), field("count", "How many they are.", "Int!", [])];
    add_object(registry, "SearchFacet", "Hits that share a value.", fields);
    let first = format!("Hits at most, {} unless given, {} at most.", GROUP_HITS.0, GROUP_HITS.1);
    add_object(
        registry,
        "SearchEvidenceGroup",
        "Hits that share a task or a chain.",
        [
            field("score", "The score of its best hit.", "Float!", []),
            field("task", "The task, if they are grouped by it.", "Task", []),
            field("chain", "The chain, if they are grouped by it.", "EvidenceChain", []),
            field("hits", "Its best hits.", "[SearchEvidenceEdge!]!", [argument("first", "Int", &first)]),
        ],
    );
    add_object(
        registry,
        "SearchCut",
        "What a budget left out.",
        [
            field("hits", "The hits that did not fit.", "Int!", []),
            field("snippetLength", "Characters of a snippet at most.", "Int!", []),
            field("after", "The cursor to go on from; null if nothing follows.", "String", []),
        ],
    );
}

fn add_connection(registry: &mut Registry, name: &str) {
    let cursor = field("cursor", "Where to go on from.", "String!", []);
    let edge = format!("Search{name}Edge");
    let reason = "A hit, and why it is one.";
    add_object(registry, &edge, reason, [cursor].into_iter().chain(hit_fields(name)));
    let mut fields = vec![
        field("edges", "The hits with their scores.", &format!("[{edge}!]!"), []),
        field("nodes", "The rows.", &format!("[{name}!]!"), []),
        field("pageInfo", "Where the page stands among the hits.", "PageInfo!", []),
        field("degraded", "What could not be done, in words; null if all was well.", "String", []),
        field("cut", "What the budget left out.", "SearchCut!", []),
    ];
    if name == "Evidence" {
        let groups = "The hits in groups, if groupBy is given: the best first.";
        fields.push(field("facets", "What the best 200 hits have in common.", "SearchFacets!", []));
        fields.push(field("groups", groups, "[SearchEvidenceGroup!]!", []));
    }
    let connection = format!("Search{name}Connection");
    add_object(registry, &connection, "The best hits, best first.", fields);
    add_hint(registry, &connection, HINT, false);
}

fn hit_fields(name: &str) -> Vec<MetaField> {
    let length = format!("Characters at most, {DEFAULT_LENGTH} unless given, {MAX_LENGTH} at most.");
    vec![
        field(
            "score",
            "What hits are ordered by: in HYBRID the sum of 1 / (60 + rank) over both ways of searching, else the score of \
             the only one.",
            "Float!",
            [],
        ),
        field(
            "dense",
            "The cosine of the angle between question and evidence, -1 to 1; null if not found so.",
            "Float",
            [],
        ),
        field("denseRank", "Its place by meaning, from 1; null if not found so.", "Int", []),
        field("lexical", "BM25 of the question's words; null if not found so.", "Float", []),
        field("lexicalRank", "Its place by words, from 1; null if not found so.", "Int", []),
        field("terms", "The words of the question that stand in it.", "[String!]!", []),
        field(
            "snippet",
            "The part of the content with the most words of the question, each between **; its beginning if there are none.",
            "String!",
            [argument("length", "Int", &length)],
        ),
        field("node", "The row.", &format!("{name}!"), []),
    ]
}
