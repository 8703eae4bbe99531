//! What a document would cost, measured on the parsed document and never on its expansion: each fragment is measured
//! once, however often it is spread, so that a few hundred bytes of fragments inside fragments are seen for the
//! millions of fields that they stand for. async-graphql spreads without memory, in validation and in execution.

use std::collections::HashMap;

use async_graphql::parser::types::{
    Directive, ExecutableDocument, Field, FragmentDefinition, OperationDefinition, OperationType, Selection,
    SelectionSet,
};
use async_graphql::{Name, Positioned, Variables};
use async_graphql_value::Value as Literal;

use crate::config::Limits;
use crate::error::{Code, Error, Result};
use crate::graphql::arguments::MAX_LIST;
use crate::graphql::search::plan::{GROUP_HITS, RELATED};
use crate::graphql::types::subscription::event_name;
use crate::model::aggregate::DEFAULT_GROUPS;
use crate::model::entity::{RelationKind, TypeId};
use crate::model::graph;
use crate::model::lineage::MAX_STEPS;
use crate::model::mutation::mutation;
use crate::model::page::DEFAULT_PAGE_SIZE;

/// Fragments spread inside one another at most.
const MAX_SPREADS: u32 = 64;
/// Lists of an introspection inside one another at most: the types of the fields of the fields of a type are
/// nobody's question, but an answer of millions.
const MAX_INTROSPECTION_LISTS: u64 = 2;
/// What a search or an aggregate counts as, in values: it costs more than what it answers.
const HEAVY: u64 = 100;

/// What a selection comes to.
#[derive(Debug, Clone, Copy, Default)]
struct Cost {
    depth: u64,
    /// Fields at the top.
    top: u64,
    /// All fields.
    fields: u64,
    /// Values in the answer, if every page is full.
    values: u64,
    aliases: u64,
    directives: u64,
    introspection_lists: u64,
    /// Fragments spread inside one another.
    spreads: u32,
}

impl Cost {
    /// Both, side by side.
    fn add(&mut self, other: Self) {
        self.depth = self.depth.max(other.depth);
        self.top = self.top.saturating_add(other.top);
        self.fields = self.fields.saturating_add(other.fields);
        self.values = self.values.saturating_add(other.values);
        self.aliases = self.aliases.saturating_add(other.aliases);
        self.directives = self.directives.saturating_add(other.directives);
        self.introspection_lists = self.introspection_lists.max(other.introspection_lists);
        self.spreads = self.spreads.max(other.spreads);
    }
}

/// Where in the graph a selection stands, as far as its cost needs to know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Root,
    /// Among the mutations.
    Mutation,
    /// Among the subscriptions.
    Subscription,
    /// An event about a row of a type.
    Event(TypeId),
    Object(TypeId),
    /// A connection to rows of a type, or one of its edges.
    Connection(TypeId),
    /// A group of hits.
    Group,
    /// Introspection, the interface `Node`, and what validation will refuse.
    Other,
}

impl Place {
    fn of_type(name: &str) -> Self {
        let wrapped = || name.strip_suffix("Connection").or_else(|| name.strip_suffix("Edge"));
        let wrapped = || wrapped().map(|name| name.strip_prefix("Search").unwrap_or(name));
        if let Some(ty) = name.strip_suffix("Event").and_then(|name| graph().type_by_name(name)) {
            return Self::Event(ty);
        }
        match graph().type_by_name(name) {
            _ if name == "Query" => Self::Root,
            _ if name == "Mutation" => Self::Mutation,
            _ if name == "Subscription" => Self::Subscription,
            _ if name == "EvidenceMatch" => Self::of_type("EvidenceEvent"),
            _ if name == "SearchEvidenceGroup" => Self::Group,
            _ if name == "EvidenceHit" => Self::of_type("SearchEvidenceEdge"),
            Some(ty) => Self::Object(ty),
            None => {
                wrapped().and_then(|name| graph().type_by_name(name)).map_or(Self::Other, Self::Connection)
            }
        }
    }
}

/// How many objects a field may stand for, and where they are.
struct Children {
    place: Place,
    many: u64,
    extra: u64,
}

impl Children {
    const fn one(place: Place) -> Self {
        Self { place, many: 1, extra: 0 }
    }
}

/// Refuses a document that is beyond a limit, or whose fragments form a circle.
pub(super) fn check_cost(
    document: &ExecutableDocument,
    variables: &Variables,
    limits: &Limits,
) -> Result<()> {
    let mut measure =
        Measure { fragments: &document.fragments, variables, limits, known: HashMap::new(), spreads: 0 };
    // Also those that nothing spreads: validation walks them all the same.
    // In one order, so that a document is always refused for the same reason.
    let mut names: Vec<_> = document.fragments.keys().collect();
    names.sort_unstable();
    for name in names {
        measure.fragment(name)?;
    }
    let mut whole = Cost::default();
    for (_, operation) in document.operations.iter() {
        let cost = measure.operation(&operation.node)?;
        over("max_root_fields", "root fields", cost.top, limits.max_root_fields)?;
        over("max_complexity", "values in its answer", cost.values, limits.max_complexity)?;
        whole.add(cost);
    }
    // The parts of one document share the rest.
    over("max_depth", "levels of fields", whole.depth, limits.max_depth)?;
    over("max_fields", "fields", whole.fields, limits.max_fields)?;
    over("max_aliases", "aliases", whole.aliases, limits.max_aliases)?;
    over("max_directives", "directives", whole.directives, limits.max_directives)?;
    if whole.introspection_lists > MAX_INTROSPECTION_LISTS {
        let text = format!(
            "the introspection has more than {MAX_INTROSPECTION_LISTS} lists of fields inside one another"
        );
        return Err(Error::over_limit("introspection", text));
    }
    Ok(())
}

/// Refuses what is more than a limit allows.
pub(super) fn over(limit: &'static str, what: &str, found: impl TryInto<u64>, allowed: u32) -> Result<()> {
    let found = found.try_into().unwrap_or(u64::MAX);
    if found <= allowed.into() {
        return Ok(());
    }
    Err(Error::over_limit(
        limit,
        format!("the document has {found} {what}, more than the {allowed} that are allowed"),
    ))
}

struct Measure<'a> {
    fragments: &'a HashMap<Name, Positioned<FragmentDefinition>>,
    variables: &'a Variables,
    limits: &'a Limits,
    /// `None` while it is being measured.
    known: HashMap<&'a str, Option<Cost>>,
    /// How many fragments deep we stand.
    spreads: u32,
}

impl<'a> Measure<'a> {
    fn operation(&mut self, operation: &'a OperationDefinition) -> Result<Cost> {
        let root = match operation.ty {
            OperationType::Query => Place::Root,
            OperationType::Mutation => Place::Mutation,
            OperationType::Subscription => Place::Subscription,
        };
        let mut cost = self.set(&operation.selection_set.node, root)?;
        let of_variables =
            operation.variable_definitions.iter().flat_map(|variable| &variable.node.directives);
        let directives = operation.directives.iter().chain(of_variables).count();
        cost.directives = cost.directives.saturating_add(count(directives));
        Ok(cost)
    }

    fn fragment(&mut self, name: &str) -> Result<Cost> {
        // Validation would refuse it too, but only after walking all the fragments that lead to it, spread by spread.
        let Some((name, fragment)) = self.fragments.get_key_value(name) else {
            let text = format!("the document spreads the fragment \"{name}\", which it does not have");
            return Err(Error::new(Code::BadUserInput, text));
        };
        match self.known.get(name.as_str()) {
            Some(Some(cost)) => return Ok(*cost),
            Some(None) => {
                return Err(Error::over_limit(
                    "fragments",
                    format!("the fragment \"{name}\" spreads itself"),
                ));
            }
            None => {}
        }
        let too_deep = || {
            let text = format!("the document has fragments inside one another more than {MAX_SPREADS} deep");
            Error::over_limit("fragments", text)
        };
        if self.spreads == MAX_SPREADS {
            return Err(too_deep());
        }
        self.known.insert(name, None);
        self.spreads += 1;
        let place = Place::of_type(&fragment.node.type_condition.node.on.node);
        let mut cost = self.set(&fragment.node.selection_set.node, place)?;
        cost.directives = cost.directives.saturating_add(count(fragment.node.directives.len()));
        self.spreads -= 1;
        // Whoever was measured before is not walked again, but is as deep as it is.
        cost.spreads += 1;
        if cost.spreads > MAX_SPREADS {
            return Err(too_deep());
        }
        self.known.insert(name, Some(cost));
        Ok(cost)
    }

    fn set(&mut self, set: &'a SelectionSet, place: Place) -> Result<Cost> {
        let mut cost = Cost::default();
        for selection in &set.items {
            let (part, directives): (_, &[Positioned<Directive>]) = match &selection.node {
                Selection::Field(field) => (self.field(&field.node, place)?, &field.node.directives),
                Selection::InlineFragment(inline) => {
                    let condition = inline.node.type_condition.as_ref();
                    let place = condition.map_or(place, |condition| Place::of_type(&condition.node.on.node));
                    (self.set(&inline.node.selection_set.node, place)?, &inline.node.directives)
                }
                Selection::FragmentSpread(spread) => {
                    (self.fragment(&spread.node.fragment_name.node)?, &spread.node.directives)
                }
            };
            cost.add(part);
            cost.directives = cost.directives.saturating_add(count(directives.len()));
        }
        Ok(cost)
    }

    fn field(&mut self, field: &'a Field, place: Place) -> Result<Cost> {
        let name = field.name.node.as_str();
        let children = self.children(field, place)?;
        let inner = self.set(&field.selection_set.node, children.place)?;
        let is_list = matches!(name, "fields" | "inputFields" | "interfaces" | "possibleTypes");
        let values = inner.values.saturating_mul(children.many).saturating_add(1 + children.extra);
        Ok(Cost {
            depth: inner.depth + 1,
            top: 1,
            fields: inner.fields.saturating_add(1),
            values,
            aliases: inner.aliases.saturating_add(field.alias.is_some().into()),
            directives: inner.directives,
            introspection_lists: inner.introspection_lists + u64::from(is_list && place == Place::Other),
            spreads: inner.spreads,
        })
    }

    /// What stands below a field. A name that the graph does not have costs one, and validation refuses it.
    fn children(&self, field: &Field, place: Place) -> Result<Children> {
        let name = field.name.node.as_str();
        match place {
            Place::Root => self.below_root(field, name),
            Place::Mutation => Ok(self.below_mutation(field, name)),
            Place::Subscription => Ok(Children::one(Place::of_type(&event_name(name)))),
            Place::Event(ty) if name == "node" => Ok(Children::one(Place::Object(ty))),
            Place::Event(_) => Ok(Children::one(Place::Other)),
            Place::Object(ty) => self.below_object(field, name, ty),
            Place::Connection(ty) => Ok(Children::one(match name {
                "edges" => Place::Connection(ty),
                "node" | "nodes" => Place::Object(ty),
                "groups" => Place::Group,
                _ => Place::Other,
            })),
            Place::Group => Ok(match name {
                "hits" => {
                    let first = self.number(field, "first").unwrap_or_else(|| GROUP_HITS.0.into());
                    let place = Place::of_type("SearchEvidenceEdge");
                    Children { place, many: first.clamp(1, GROUP_HITS.1.into()), extra: 0 }
                }
                "task" => Children::one(Place::of_type("Task")),
                "chain" => Children::one(Place::of_type("EvidenceChain")),
                _ => Children::one(Place::Other),
            }),
            Place::Other => Ok(Children::one(Place::Other)),
        }
    }

    fn below_root(&self, field: &Field, name: &str) -> Result<Children> {
        for (ty, _, table) in graph().entities() {
            if name == table.one {
                return Ok(Children::one(Place::Object(ty)));
            }
            if name == table.many {
                return self.page(field, ty, 0);
            }
            if let Some(aggregate) = &table.aggregate
                && name.strip_suffix("Aggregate") == Some(table.one)
            {
                return Ok(Children { place: Place::Object(aggregate.totals), many: 1, extra: HEAVY });
            }
        }
        if let Some((ty, _)) = graph().searched().find(|(_, searched)| searched.field == name) {
            return self.page(field, ty, HEAVY);
        }
        Ok(match name {
            "viewer" => Children::one(Place::of_type("Viewer")),
            "nodes" => {
                let ids = self.value(field, "ids", |value| match value {
                    Literal::List(ids) => Some(ids.len()),
                    _ => None,
                });
                Children { place: Place::Other, many: count(ids.unwrap_or(1).min(MAX_LIST)).max(1), extra: 0 }
            }
            _ => Children::one(Place::Other),
        })
    }

    /// Each row that is written counts as much as a search does.
    fn below_mutation(&self, field: &Field, name: &str) -> Children {
        let Some(mutation) = mutation(name) else { return Children::one(Place::Other) };
        let many = if mutation.list { count(mutation.most()) } else { 1 };
        let rows = self.value(field, "input", |input| match input {
            Literal::Object(members) => members.values().find_map(|member| match member {
                Literal::List(items) => Some(count(items.len())),
                _ => None,
            }),
            _ => None,
        });
        let many = rows.filter(|_| mutation.list).map_or(many, |rows| rows.clamp(1, many));
        Children { place: Place::of_type(mutation.returns), many, extra: HEAVY.saturating_mul(many) }
    }

    fn below_object(&self, field: &Field, name: &str, ty: TypeId) -> Result<Children> {
        let ty = &graph().types[ty];
        if let Some(nested) = ty.nested.iter().find(|nested| nested.name == name) {
            return Ok(Children::one(Place::Object(nested.ty)));
        }
        let Some(relation) = ty.relation(name) else { return Ok(Children::one(Place::Other)) };
        let place = Place::Object(relation.target);
        match relation.kind {
            RelationKind::One { .. } => Ok(Children::one(place)),
            RelationKind::Many { .. } => self.page(field, relation.target, 0),
            RelationKind::Lineage => Ok(Children { place, many: MAX_STEPS.into(), extra: HEAVY }),
            RelationKind::Hits { .. } => {
                let hits = self.page(field, relation.target, HEAVY)?;
                let many = self.number(field, "first").unwrap_or_else(|| RELATED.into()).max(1);
                Ok(Children { many, ..hits })
            }
            RelationKind::Groups => {
                let first = self.number(field, "first").unwrap_or_else(|| DEFAULT_GROUPS.into());
                Ok(Children { place, many: first.max(1), extra: 0 })
            }
        }
    }

    fn page(&self, field: &Field, ty: TypeId, extra: u64) -> Result<Children> {
        let size = self.number(field, "first").or_else(|| self.number(field, "last"));
        let max = self.limits.max_page_size;
        if size.is_some_and(|size| size > max.into()) {
            let text = format!("the field \"{}\" asks for a page of more than {max} rows", field.name.node);
            return Err(Error::over_limit("max_page_size", text));
        }
        let many = size.unwrap_or_else(|| DEFAULT_PAGE_SIZE.min(max).into()).max(1);
        Ok(Children { place: Place::Connection(ty), many, extra })
    }

    /// A number that is an argument; a negative one is refused where it is read.
    fn number(&self, field: &Field, name: &str) -> Option<u64> {
        self.value(field, name, |value| match value {
            Literal::Number(number) => number.as_u64(),
            _ => None,
        })
    }

    fn value<T>(&self, field: &Field, name: &str, read: impl Fn(&Literal) -> Option<T>) -> Option<T> {
        match &field.get_argument(name)?.node {
            Literal::Variable(variable) => read(&self.variables.get(variable)?.clone().into_value()),
            literal => read(literal),
        }
    }
}

fn count(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}
