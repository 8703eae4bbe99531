//! The schema: every object, filter, order and aggregate type, derived from the entities.

use async_graphql::indexmap::IndexMap;
use async_graphql::registry::{MetaField, MetaInputValue, Registry};

use meta::{add_enum, add_input, add_interface, add_object, add_scalar, argument, field};

use crate::graphql::filter::{Operand, operators};
use crate::model::aggregate::{DEFAULT_GROUPS, MAX_GROUPS};
use crate::model::audit::FAULT;
use crate::model::entity::{Aggregate, ColumnType, Relation, RelationKind, Table, Type, screaming_case};
use crate::model::evidence::RELATION_KIND;
use crate::model::lineage::{DEFAULT_DEPTH, DIRECTION, MAX_DEPTH, MAX_STEPS};
use crate::model::page::DEFAULT_PAGE_SIZE;
use crate::model::{enums, graph};

mod hints;
pub(crate) mod meta;
mod search;

/// Adds every type to the registry and gives the fields of `Query`.
pub(crate) fn register(registry: &mut Registry) -> IndexMap<String, MetaField> {
    add_scalars(registry);
    hints::add_cache_control(registry);
    for values in enums().map(|(_, _, values)| values).chain([&DIRECTION, &FAULT]) {
        let name = |value: &&str| (value.to_ascii_uppercase(), String::new());
        add_enum(registry, values.name, "", values.values.iter().map(name));
    }
    let directions = [("ASC", "Least first."), ("DESC", "Greatest first.")];
    add_enum(
        registry,
        "OrderDirection",
        "The way of an order. Nulls come last either way.",
        directions.map(|(name, doc)| (name.to_owned(), doc.to_owned())),
    );
    let flag = |name: &str, doc: &str| field(name, doc, "Boolean!", []);
    let edge = |name: &str, doc: &str| field(name, doc, "String", []);
    add_object(
        registry,
        "PageInfo",
        "Where a page stands in its list.",
        [
            flag("hasNextPage", "Whether rows follow the page."),
            flag("hasPreviousPage", "Whether rows precede the page."),
            edge("startCursor", "The cursor of the page's first row."),
            edge("endCursor", "The cursor of the page's last row."),
        ],
    );
    for ty in &graph().types {
        add_type(registry, ty);
    }
    for (_, ty, table) in graph().entities() {
        add_lists(registry, ty);
        add_filter(registry, ty);
        if let Some(aggregate) = &table.aggregate {
            let name = |(name, _): &(String, usize)| (name.clone(), String::new());
            let doc = format!("What {} rows can be grouped by.", ty.name);
            add_enum(registry, &format!("{}GroupBy", ty.name), &doc, aggregate.by.iter().map(name));
        }
    }
    add_node(registry);
    search::add_types(registry);
    root_fields()
}

fn root_fields() -> IndexMap<String, MetaField> {
    let mut fields = Vec::new();
    for (_, ty, table) in graph().entities() {
        let id = argument("id", "UUID!", "The row's id.");
        fields.push(field(
            table.one,
            &format!("One {} by its id; null if there is none.", ty.name),
            &ty.name,
            [id],
        ));
    }
    for (_, ty, table) in graph().entities() {
        let doc = format!("A page of {} rows.", ty.name);
        fields.push(field(table.many, &doc, &format!("{}Connection", ty.name), page_arguments(ty)));
    }
    for (_, ty, table) in graph().entities() {
        fields.extend(table.aggregate.as_ref().map(|aggregate| aggregate_field(ty, table, aggregate)));
    }
    let ids = argument("ids", "[UUID!]!", "The rows' ids, 1,000 at most.");
    fields.push(field(
        "node",
        "One row of any kind by its id.",
        "Node",
        [argument("id", "UUID!", "The row's id.")],
    ));
    fields.push(field(
        "nodes",
        "Rows of any kind, in the order of their ids; null where there is none.",
        "[Node]",
        [ids],
    ));
    fields.push(field("viewer", "Who asks.", "Viewer", []));
    fields.extend(graph().searched().map(|(ty, searched)| search::root_field(ty, searched)));
    fields.push(field(
        "verifyAuditLog",
        "Checks the chain of the audit log, 100,000 entries at most at once. For administrators.",
        "AuditVerification",
        [
            argument("from", "BigInt", "The place of the first entry to check; 1 if absent."),
            argument("to", "BigInt", "The place of the last one; the end of the chain if absent."),
        ],
    ));
    fields.into_iter().map(|field| (field.name.clone(), field)).collect()
}

fn aggregate_field(ty: &Type, table: &Table, aggregate: &Aggregate) -> MetaField {
    let group_by = format!("[{}GroupBy!]", ty.name);
    field(
        &format!("{}Aggregate", table.one),
        &format!("{} rows, counted and measured, as a whole and in groups.", ty.name),
        &graph().types[aggregate.totals].name,
        [
            argument("filter", &format!("{}Filter", ty.name), "Only rows that fit."),
            argument("groupBy", &group_by, "What the rows of a group share."),
        ],
    )
}

fn add_type(registry: &mut Registry, ty: &Type) {
    let mut fields = Vec::new();
    for column in &ty.columns {
        let name = output_name(column.ty, column.nullable);
        fields.push(field(&column.name, &column.doc, &name, []));
    }
    for nested in &ty.nested {
        let target = &graph().types[nested.ty];
        fields.push(field(nested.name, &target.doc, &format!("{}!", target.name), []));
    }
    fields.extend(ty.relations.iter().map(relation_field));
    add_object(registry, &ty.name, &ty.doc, fields);
    hints::add_hint(registry, &ty.name, ty.hint, ty.is_personal());
}

fn relation_field(relation: &Relation) -> MetaField {
    let target = &graph().types[relation.target];
    match relation.kind {
        RelationKind::One { .. } => field(relation.name, relation.doc, &target.name, []),
        RelationKind::Many { .. } => {
            field(relation.name, relation.doc, &format!("{}Connection!", target.name), page_arguments(target))
        }
        RelationKind::Lineage => {
            let doc = format!("{} At most {MAX_STEPS} steps.", relation.doc);
            field(
                relation.name,
                &doc,
                &format!("[{}!]!", target.name),
                [
                    argument("direction", DIRECTION.name, "Where to walk; UP unless given."),
                    argument(
                        "depth",
                        "Int",
                        &format!("Steps at most, {DEFAULT_DEPTH} unless given, {MAX_DEPTH} at most."),
                    ),
                    argument(
                        "kinds",
                        &format!("[{}!]", RELATION_KIND.name),
                        "Only along these kinds of relations.",
                    ),
                ],
            )
        }
        RelationKind::Hits { owner } => search::hits_field(relation, owner.is_some()),
        RelationKind::Groups => {
            let doc = format!("Groups at most, {DEFAULT_GROUPS} unless given, {MAX_GROUPS} at most.");
            field(
                relation.name,
                relation.doc,
                &format!("[{}!]!", target.name),
                [argument("first", "Int", &doc)],
            )
        }
    }
}

/// The connection, its edge and its order.
fn add_lists(registry: &mut Registry, ty: &Type) {
    let name = &ty.name;
    let cursor =
        field("cursor", "Where the row stands in its list; good for `after` and `before`.", "String!", []);
    let node = field("node", "The row.", &format!("{name}!"), []);
    add_object(
        registry,
        &format!("{name}Edge"),
        &format!("A {name} and its place in a list."),
        [cursor, node],
    );
    add_object(
        registry,
        &format!("{name}Connection"),
        &format!("A page of {name} rows."),
        [
            field("edges", "The rows with their cursors.", &format!("[{name}Edge!]!"), []),
            field("nodes", "The rows.", &format!("[{name}!]!"), []),
            field("pageInfo", "Where the page stands in the list.", "PageInfo!", []),
            field("totalCount", "How many rows the whole list has. Counted only when asked for.", "Int!", []),
        ],
    );
    let ordered = ty.columns.iter().filter(|column| column.ordered);
    let values = ordered.map(|column| (screaming_case(&column.name), column.doc.clone()));
    add_enum(registry, &format!("{name}OrderField"), &format!("What {name} rows can be ordered by."), values);
    add_input(
        registry,
        &format!("{name}Order"),
        &format!("One key of an order of {name} rows."),
        [
            argument("field", &format!("{name}OrderField!"), "The field."),
            argument("direction", "OrderDirection", "The way; ASC unless given."),
        ],
    );
}

fn add_filter(registry: &mut Registry, ty: &Type) {
    let name = format!("{}Filter", ty.name);
    let mut fields = vec![
        argument("and", &format!("[{name}!]"), "All of these hold."),
        argument("or", &format!("[{name}!]"), "One of these holds; an empty list fits nothing."),
        argument("not", &name, "This does not hold."),
    ];
    for column in ty.columns.iter().filter(|column| column.stored) {
        add_operators(registry, column.ty);
        fields.push(argument(&column.name, &operators_name(column.ty), &column.doc));
    }
    for relation in &ty.relations {
        let target = &graph().types[relation.target].name;
        match relation.kind {
            RelationKind::One { .. } => {
                fields.push(argument(relation.name, &format!("{target}Filter"), relation.doc));
            }
            RelationKind::Many { .. } => {
                let list = format!("{target}ListFilter");
                add_input(
                    registry,
                    &list,
                    "A condition on many rows. Only rows that the viewer may see count.",
                    [
                        argument("some", &format!("{target}Filter"), "One row fits at least."),
                        argument("none", &format!("{target}Filter"), "No row fits."),
                        argument(
                            "every",
                            &format!("{target}Filter"),
                            "Every row fits; also when there is none.",
                        ),
                    ],
                );
                fields.push(argument(relation.name, &list, relation.doc));
            }
            RelationKind::Lineage | RelationKind::Groups | RelationKind::Hits { .. } => {}
        }
    }
    add_input(
        registry,
        &name,
        &format!("A condition on {} rows; all its fields must hold.", ty.name),
        fields,
    );
}

fn add_operators(registry: &mut Registry, ty: ColumnType) {
    let scalar = scalar_name(ty);
    let fields = operators(ty).into_iter().map(|(name, operand, doc)| {
        let operand = match operand {
            Operand::Same => scalar.to_owned(),
            Operand::List => format!("[{scalar}!]"),
            Operand::Text => "String".to_owned(),
            Operand::Texts => "[String!]".to_owned(),
            Operand::Bool => "Boolean".to_owned(),
            Operand::Json => "JSON".to_owned(),
        };
        argument(name, &operand, doc)
    });
    add_input(
        registry,
        &operators_name(ty),
        "Conditions on one value; all that are given must hold.",
        fields,
    );
}

fn add_node(registry: &mut Registry) {
    let id = field("id", "The row's id, as SQL shows it.", "UUID!", []);
    let possible = graph().entities().map(|(_, ty, _)| ty.name.clone());
    add_interface(registry, "Node", "Any row that has an id.", id, possible.collect());
}

pub(super) fn first_argument() -> MetaInputValue {
    argument("first", "Int", &format!("Rows at most, from the beginning; {DEFAULT_PAGE_SIZE} unless given."))
}

fn page_arguments(ty: &Type) -> Vec<MetaInputValue> {
    vec![
        first_argument(),
        argument("after", "String", "Only what comes after this cursor."),
        argument("last", "Int", "Rows at most, from the end."),
        argument("before", "String", "Only what comes before this cursor."),
        argument("filter", &format!("{}Filter", ty.name), "Only rows that fit."),
        argument("orderBy", &format!("[{}Order!]", ty.name), "The order, the most important key first."),
    ]
}

const fn scalar_name(ty: ColumnType) -> &'static str {
    match ty {
        ColumnType::Uuid => "UUID",
        ColumnType::Text | ColumnType::Texts => "String",
        ColumnType::Int => "Int",
        ColumnType::BigInt => "BigInt",
        ColumnType::Float => "Float",
        ColumnType::Bool => "Boolean",
        ColumnType::Time => "DateTime",
        ColumnType::Json => "JSON",
        ColumnType::Enum(values) => values.name,
    }
}

fn operators_name(ty: ColumnType) -> String {
    let list = if ty == ColumnType::Texts { "List" } else { "" };
    format!("{}{list}Filter", scalar_name(ty))
}

fn output_name(ty: ColumnType, nullable: bool) -> String {
    let name = if ty == ColumnType::Texts { "[String!]" } else { scalar_name(ty) };
    format!("{name}{}", if nullable { "" } else { "!" })
}

fn add_scalars(registry: &mut Registry) {
    let scalars = [
        (
            "UUID",
            "A UUID, such as 018f3c6e-7d2a-7c51-9d1b-2f6a4f0c8e11.",
            "https://www.rfc-editor.org/rfc/rfc9562",
        ),
        (
            "DateTime",
            "A moment, such as 2026-01-31T12:00:00Z; in answers always in UTC.",
            "https://www.rfc-editor.org/rfc/rfc3339",
        ),
        ("JSON", "Any JSON value.", "https://www.rfc-editor.org/rfc/rfc8259"),
    ];
    for (name, doc, url) in scalars {
        add_scalar(registry, name, doc, Some(url));
    }
    add_scalar(
        registry,
        "BigInt",
        "A 64-bit integer, as a string in answers; a string or a number as input.",
        None,
    );
    for name in ["String", "Int", "Float", "Boolean", "ID"] {
        registry.types.remove(name);
    }
    <String as async_graphql::OutputType>::create_type_info(registry);
    <i32 as async_graphql::OutputType>::create_type_info(registry);
    <f64 as async_graphql::OutputType>::create_type_info(registry);
    <bool as async_graphql::OutputType>::create_type_info(registry);
}
