//! The entities: what each is (one declaration per entity), and all SQL over them. Every function that reads rows
//! takes a viewer and limits the statement to what the viewer may see.

use std::sync::LazyLock;

use entity::{
    Aggregate, Column, ColumnType, Declaration, Enum, Nested, OrderBy, Relation, RelationDeclaration,
    RelationKind, Searched, Table, Type, TypeId, screaming_case,
};

use crate::store::db::reads::Hint;

pub mod catalog;
pub mod document;
pub mod entity;

pub mod activity;
pub mod agent;
pub mod audit;
pub mod chain;
pub mod evidence;
pub mod project;
pub mod task;
pub mod user;

pub mod api_key;
pub mod viewer;

pub mod change;
pub mod cursor;
pub mod filter;
pub mod page;
pub mod tag;

pub mod aggregate;
pub mod lineage;
pub mod parked;
mod reads;
pub mod search;
pub mod searched;
pub mod select;

pub mod mutation;
pub mod trail;
pub mod write;

pub mod import;

/// The entities in the order in which the schema shows them.
static DECLARATIONS: [&Declaration; 19] = [
    &task::TASK,
    &task::RESULT,
    &task::COMMENT,
    &task::ATTACHMENT,
    &evidence::EVIDENCE,
    &evidence::RELATION,
    &evidence::CREDIBILITY_CHANGE,
    &chain::CHAIN,
    &chain::LINK,
    &agent::AGENT,
    &agent::EXECUTION,
    &project::PROJECT,
    &project::MEMBER,
    &user::USER,
    &activity::ACTIVITY,
    &audit::ENTRY,
    // These stand in no table.
    &lineage::STEP,
    &viewer::VIEWER,
    &audit::VERIFICATION,
];

/// All object types that are made of rows.
#[derive(Debug)]
pub struct Graph {
    /// The types. Entities come first.
    pub types: Vec<Type>,
}

/// The graph, built once from the declarations.
pub fn graph() -> &'static Graph {
    static GRAPH: LazyLock<Graph> = LazyLock::new(Graph::build);
    &GRAPH
}

impl Graph {
    /// The types that stand in tables.
    pub fn entities(&self) -> impl Iterator<Item = (TypeId, &Type, &Table)> {
        let types = self.types.iter().enumerate();
        types.filter_map(|(id, ty)| ty.table.as_ref().map(|table| (id, ty, table)))
    }

    /// How old an answer may be that lists, counts or measures rows of a table.
    pub fn hint_of(&self, table: &str) -> Hint {
        let owner = self.entities().find(|(_, _, of)| of.name == table);
        owner.map_or(Hint::NONE, |(_, ty, _)| ty.hint)
    }

    /// The table of a type.
    pub fn table_of(&self, name: &str) -> Option<&'static str> {
        self.entities().find(|(_, ty, _)| ty.name == name).map(|(_, _, table)| table.name)
    }

    /// The entities that can be searched.
    pub fn searched(&self) -> impl Iterator<Item = (TypeId, &'static Searched)> {
        self.entities().filter_map(|(id, _, table)| Some((id, table.searched?)))
    }

    /// Finds a type by its name in the schema.
    pub fn type_by_name(&self, name: &str) -> Option<TypeId> {
        self.types.iter().position(|ty| ty.name == name)
    }

    fn build() -> Self {
        let mut graph = Self { types: DECLARATIONS.iter().map(|declaration| shell(declaration)).collect() };
        for (id, declaration) in DECLARATIONS.iter().enumerate() {
            graph.types[id].relations =
                declaration.relations.iter().map(|relation| graph.relation(id, relation)).collect();
        }
        for (id, declaration) in DECLARATIONS.iter().enumerate() {
            let aggregate = (!declaration.group_by.is_empty()).then(|| graph.add_aggregate(id, declaration));
            if let Some(table) = &mut graph.types[id].table {
                table.aggregate = aggregate;
            }
        }
        graph
    }

    fn relation(&self, owner: TypeId, declaration: &RelationDeclaration) -> Relation {
        let target = |name: &str| {
            let found = self.type_by_name(name);
            assert!(found.is_some(), "relation to {name}, which is not declared");
            found.unwrap_or_default()
        };
        match *declaration {
            RelationDeclaration::One(name, of, key, doc) => {
                let key = column(&self.types[owner], key);
                Relation { name, doc, target: target(of), kind: RelationKind::One { key } }
            }
            RelationDeclaration::Many(name, of, join, order, doc) => {
                let target = target(of);
                let own =
                    || self.types[target].table.as_ref().map(|table| table.order.clone()).unwrap_or_default();
                let order = if order.is_empty() { own() } else { order_by(&self.types[target], order) };
                Relation { name, doc, target, kind: RelationKind::Many { join, order } }
            }
            RelationDeclaration::Hits(name, of, owner, doc) => {
                let target = target(of);
                let owner = owner.map(|owner| column(&self.types[target], owner));
                Relation { name, doc, target, kind: RelationKind::Hits { owner } }
            }
            RelationDeclaration::Lineage(name, of, doc) => {
                Relation { name, doc, target: target(of), kind: RelationKind::Lineage }
            }
        }
    }

    /// Adds the types of an entity's aggregate: totals, group and key, and what they nest.
    fn add_aggregate(&mut self, entity: TypeId, declaration: &Declaration) -> Aggregate {
        let name = declaration.name;
        let (key, by) = self.add_key(entity, declaration);
        let mut nested = Vec::new();
        for (function, doc) in [("min", "least"), ("max", "greatest"), ("avg", "mean"), ("sum", "sum of the")]
        {
            let columns = measures(&self.types[entity], declaration, function);
            if !columns.is_empty() {
                let doc = format!("The {doc} values of {} rows.", self.types[entity].name);
                let ty = self.add(view(format!("{name}{}", capitalized(function)), doc, columns));
                nested.push(Nested { name: function, doc: "See the type.", ty });
            }
        }
        let count = computed_column("count", "How many rows there are.", "count(*)::int", ColumnType::Int);
        let totals = view(
            format!("{name}Aggregate"),
            format!("{name} rows, counted and measured."),
            vec![count.clone()],
        );
        let mut group =
            view(format!("{name}AggregateGroup"), format!("{name} rows that share a key."), vec![count]);
        group.nested.push(Nested { name: "key", doc: "What the rows of the group share.", ty: key });
        let copies = nested.iter().map(|n| Nested { name: n.name, doc: n.doc, ty: n.ty });
        group.nested.extend(copies);
        let group = self.add(group);
        let doc = "The groups, those with the most rows first.";
        let groups = Relation { name: "groups", doc, target: group, kind: RelationKind::Groups };
        let totals = self.add(Type { nested, relations: vec![groups], ..totals });
        Aggregate { totals, group, key, by }
    }

    fn add_key(&mut self, entity: TypeId, declaration: &Declaration) -> (TypeId, Vec<(String, usize)>) {
        let owner = &self.types[entity];
        let doc = format!(
            "What a group of {} rows shares; null for what they are not grouped by.",
            declaration.name
        );
        let mut key = view(format!("{}AggregateKey", declaration.name), doc, Vec::new());
        let mut by = Vec::new();
        for sql_name in declaration.group_by {
            let column = Column { nullable: true, ..owner.columns[column(owner, sql_name)].clone() };
            let relation = owner.relations.iter().find(|relation| match relation.kind {
                RelationKind::One { key } => owner.columns[key].sql_name == *sql_name,
                _ => false,
            });
            let place = key.columns.len();
            key.relations.extend(relation.map(|relation| Relation {
                name: relation.name,
                doc: relation.doc,
                target: relation.target,
                kind: RelationKind::One { key: place },
            }));
            let shown = relation.map_or(column.name.as_str(), |relation| relation.name);
            by.push((screaming_case(shown), place));
            key.columns.push(column);
        }
        for sql_name in declaration.group_by_day {
            let column = &owner.columns[column(owner, sql_name)];
            let name = format!("{}Day", column.name);
            by.push((screaming_case(&name), key.columns.len()));
            let sql = format!("date_trunc('day', {}, 'UTC')", column.sql);
            let doc = format!("The day in UTC, as its first moment. {}", column.doc);
            key.columns
                .push(Column { nullable: true, ..computed_column(&name, &doc, &sql, ColumnType::Time) });
        }
        (self.add(key), by)
    }

    fn add(&mut self, ty: Type) -> TypeId {
        self.types.push(ty);
        self.types.len() - 1
    }
}

/// A declared entity whose relations are still to be resolved.
fn shell(declaration: &Declaration) -> Type {
    let doc = catalog::catalog().get(declaration.table).map(|info| info.doc.clone());
    let mut ty = view(declaration.name.to_owned(), doc.unwrap_or_default(), declaration.columns());
    ty.hint = declaration.hint;
    if !declaration.one.is_empty() {
        ty.table = Some(Table {
            name: declaration.table,
            one: declaration.one,
            many: declaration.many,
            visible: declaration.visible,
            soft_delete: declaration.hidden.contains(&"deleted_at"),
            order: order_by(&ty, declaration.order),
            aggregate: None,
            searched: declaration.searched,
        });
    }
    ty
}

fn view(name: String, doc: String, columns: Vec<Column>) -> Type {
    Type { name, doc, columns, relations: Vec::new(), nested: Vec::new(), hint: Hint::NONE, table: None }
}

fn computed_column(name: &str, doc: &str, sql: &str, ty: ColumnType) -> Column {
    Column {
        name: name.to_owned(),
        sql_name: String::new(),
        sql: sql.to_owned(),
        doc: doc.to_owned(),
        ty,
        nullable: false,
        stored: false,
        ordered: false,
    }
}

/// The columns of `min`, `max`, `avg` or `sum`.
fn measures(owner: &Type, declaration: &Declaration, function: &str) -> Vec<Column> {
    let columns = declaration.measures.iter().map(|name| &owner.columns[column(owner, name)]);
    let wide = matches!(function, "avg" | "sum");
    columns
        .filter(|column| !wide || column.ty.is_number())
        .map(|column| {
            let ty = if wide { ColumnType::Float } else { column.ty };
            // A sum of integers is exact in double precision up to 2^53, far beyond what a page of life holds.
            let sql = format!("{function}({})::{}", column.sql, ty.sql());
            Column { nullable: true, ..computed_column(&column.name, &column.doc, &sql, ty) }
        })
        .collect()
}

fn column(ty: &Type, sql_name: &str) -> usize {
    // A computed column has no name in SQL; it is called by its own.
    let found = ty.column_by_sql(sql_name).or_else(|| ty.column(sql_name));
    assert!(found.is_some(), "{} has no column {sql_name}", ty.name);
    found.unwrap_or_default()
}

fn order_by(ty: &Type, order: &[(&str, bool)]) -> Vec<OrderBy> {
    order
        .iter()
        .map(|(name, descending)| OrderBy { column: column(ty, name), descending: *descending })
        .collect()
}

fn capitalized(word: &str) -> String {
    let (first, rest) = word.split_at(1);
    first.to_ascii_uppercase() + rest
}

/// Every closed set of values with the table and column that holds it.
pub fn enums() -> impl Iterator<Item = (&'static str, &'static str, &'static Enum)> {
    DECLARATIONS.iter().flat_map(|d| d.enums.iter().map(|(column, values)| (d.table, *column, *values)))
}
