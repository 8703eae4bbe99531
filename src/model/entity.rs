//! What an entity is to the gateway: one declaration, from which its columns, relations, filters, orders and
//! aggregates follow in SQL and in the schema alike. The declarations themselves stand in one file per entity;
//! types, nullability and descriptions come from the database (`catalog`).

use crate::model::catalog::{ColumnInfo, catalog};
use crate::store::db::reads::Hint;

/// A place in [`crate::model::Graph::types`].
pub type TypeId = usize;

/// An object type of the graph: an entity, or a view of one (a step of a lineage, a group of an aggregate).
#[derive(Debug)]
pub struct Type {
    /// The name in the schema, such as `Task`.
    pub name: String,
    /// The description in the schema.
    pub doc: String,
    /// Scalars, read from the row.
    pub columns: Vec<Column>,
    /// Other rows, loaded for a whole level at once.
    pub relations: Vec<Relation>,
    /// Objects made of the same row, such as `avg` of a group.
    pub nested: Vec<Nested>,
    /// How old an answer that shows it may be.
    pub hint: Hint,
    /// Where its rows stand; `None` for a view.
    pub table: Option<Table>,
}

/// Where the rows of an entity stand and who may see them.
#[derive(Debug)]
pub struct Table {
    /// The name in SQL.
    pub name: &'static str,
    /// The root field for one row.
    pub one: &'static str,
    /// The root field for many.
    pub many: &'static str,
    /// SQL that holds for rows which the viewer may see; `{t}` is the row, `= any({projects})` holds for the
    /// viewer's projects, `{user}` is the viewer's own user and `{all}` whether the viewer sees every project.
    pub visible: &'static str,
    /// Whether rows are deleted by setting `deleted_at`.
    pub soft_delete: bool,
    /// The order of a list for which the client names none.
    pub order: Vec<OrderBy>,
    /// What can be counted and measured.
    pub aggregate: Option<Aggregate>,
    /// How a search finds its rows.
    pub searched: Option<&'static Searched>,
}

/// How a search finds rows of an entity, by meaning and by words.
#[derive(Debug)]
pub struct Searched {
    /// The entity's name in the schema.
    pub entity: &'static str,
    /// The root field.
    pub field: &'static str,
    /// The argument that takes the question.
    pub argument: &'static str,
    /// The column of the title, and the one that snippets are made of, by their names in the schema.
    pub text: [&'static str; 2],
    /// SQL for the text that a row `{t}` is found by.
    pub document: &'static str,
    /// Whether a row belongs to a project, as the index knows it.
    pub of_projects: bool,
}

/// A scalar of a row.
#[derive(Debug, Clone)]
pub struct Column {
    /// The name in the schema, such as `createdAt`.
    pub name: String,
    /// The name in SQL, empty for an expression that is no column.
    pub sql_name: String,
    /// The value in SQL; `{t}` is the row.
    pub sql: String,
    /// The description in the schema.
    pub doc: String,
    /// The type.
    pub ty: ColumnType,
    /// Whether it may be NULL.
    pub nullable: bool,
    /// Whether it can be filtered by: true for the columns of the table itself.
    pub stored: bool,
    /// Whether it can be ordered by.
    pub ordered: bool,
}

/// The types of columns. Each has one scalar in the schema, one operator set and one way to be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ColumnType {
    /// `uuid`
    Uuid,
    /// `text`
    Text,
    /// `integer`
    Int,
    /// `bigint`
    BigInt,
    /// `double precision`
    Float,
    /// `boolean`
    Bool,
    /// `timestamptz`
    Time,
    /// `jsonb`
    Json,
    /// `text[]`
    Texts,
    /// `text` limited by a CHECK to these values
    Enum(&'static Enum),
}

impl ColumnType {
    /// The type's name in SQL.
    pub const fn sql(self) -> &'static str {
        match self {
            Self::Uuid => "uuid",
            Self::Text | Self::Enum(_) => "text",
            Self::Int => "integer",
            Self::BigInt => "bigint",
            Self::Float => "double precision",
            Self::Bool => "boolean",
            Self::Time => "timestamptz",
            Self::Json => "jsonb",
            Self::Texts => "text[]",
        }
    }

    /// Whether rows can be ordered by it.
    pub const fn is_ordered(self) -> bool {
        !matches!(self, Self::Json | Self::Texts)
    }

    /// Whether sums and averages of it mean something.
    pub const fn is_number(self) -> bool {
        matches!(self, Self::Int | Self::BigInt | Self::Float)
    }
}

/// A closed set of values: lower case in SQL, upper case in the schema. A test compares it with the CHECK.
#[derive(Debug, PartialEq, Eq)]
pub struct Enum {
    /// The name in the schema.
    pub name: &'static str,
    /// The values as SQL spells them.
    pub values: &'static [&'static str],
}

/// One key of an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct OrderBy {
    /// The place in the type's columns.
    pub column: usize,
    /// Whether the greatest comes first. NULLs come last either way.
    pub descending: bool,
}

/// Other rows that belong to a row.
#[derive(Debug)]
pub struct Relation {
    /// The name in the schema.
    pub name: &'static str,
    /// The description in the schema.
    pub doc: &'static str,
    /// The type of the rows.
    pub target: TypeId,
    /// How they are found.
    pub kind: RelationKind,
}

/// How related rows are found.
#[derive(Debug)]
pub enum RelationKind {
    /// One row at most: the one whose id this column (a place in the owner's columns) holds.
    One {
        /// The place in the owner's columns.
        key: usize,
    },
    /// A page of rows.
    Many {
        /// SQL that holds for them; `{t}` is such a row, `{k}` the owner's id.
        join: &'static str,
        /// Their order unless the client names one.
        order: Vec<OrderBy>,
    },
    /// The steps of a walk along the relations of evidence.
    Lineage,
    /// The groups of an aggregate.
    Groups,
    /// The best hits of a search.
    Hits {
        /// The place in the target's columns of the one that holds the owner's id, for a search among such rows;
        /// none for a search for rows like the owner.
        owner: Option<usize>,
    },
}

/// An object of the schema that is made of the same row.
#[derive(Debug)]
pub struct Nested {
    /// The name of the field.
    pub name: &'static str,
    /// Its description.
    pub doc: &'static str,
    /// Its type.
    pub ty: TypeId,
}

/// What can be counted and measured of an entity.
#[derive(Debug)]
pub struct Aggregate {
    /// The type of the totals, `TaskAggregate`.
    pub totals: TypeId,
    /// The type of one group, `TaskAggregateGroup`.
    pub group: TypeId,
    /// The type of a group's key, `TaskAggregateKey`.
    pub key: TypeId,
    /// The values of `groupBy`, each with its column in the key's type.
    pub by: Vec<(String, usize)>,
}

impl Type {
    /// Whether its rows are other ones for another person of the same role and projects.
    pub fn is_personal(&self) -> bool {
        match &self.table {
            Some(table) => table.visible.contains("{user}"),
            None => self.name == Self::VIEWER,
        }
    }

    /// The type that tells who asks.
    pub const VIEWER: &str = "Viewer";

    /// Finds a column by its name in SQL.
    pub fn column_by_sql(&self, sql_name: &str) -> Option<usize> {
        self.columns.iter().position(|column| column.sql_name == sql_name)
    }

    /// Finds a column by its name in the schema.
    pub fn column(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|column| column.name == name)
    }

    /// Finds a relation by its name in the schema.
    pub fn relation(&self, name: &str) -> Option<&Relation> {
        self.relations.iter().find(|relation| relation.name == name)
    }
}

/// `created_at` → `createdAt`
pub fn camel_case(snake: &str) -> String {
    let mut name = String::with_capacity(snake.len());
    let mut upper = false;
    for letter in snake.chars() {
        if letter == '_' {
            upper = true;
        } else {
            name.push(if upper { letter.to_ascii_uppercase() } else { letter });
            upper = false;
        }
    }
    name
}

/// `createdAt` → `CREATED_AT`
pub fn screaming_case(camel: &str) -> String {
    let mut name = String::with_capacity(camel.len() + 4);
    for letter in camel.chars() {
        if letter.is_ascii_uppercase() {
            name.push('_');
        }
        name.push(letter.to_ascii_uppercase());
    }
    name
}

/// How an entity is declared. `build` in `model.rs` turns declarations into [`Type`]s.
#[derive(Debug)]
pub struct Declaration {
    pub(super) name: &'static str,
    pub(super) table: &'static str,
    pub(super) one: &'static str,
    pub(super) many: &'static str,
    pub(super) visible: &'static str,
    pub(super) order: &'static [(&'static str, bool)],
    /// Texts too long to be ordered by: a cursor holds the whole value.
    pub(super) unordered: &'static [&'static str],
    pub(super) hidden: &'static [&'static str],
    pub(super) enums: &'static [(&'static str, &'static Enum)],
    pub(super) computed: &'static [Computed],
    pub(super) relations: &'static [RelationDeclaration],
    pub(super) group_by: &'static [&'static str],
    pub(super) group_by_day: &'static [&'static str],
    pub(super) measures: &'static [&'static str],
    pub(super) hint: Hint,
    pub(super) searched: Option<&'static Searched>,
}

/// A scalar that is computed by SQL from the row.
#[derive(Debug)]
pub struct Computed {
    pub(super) name: &'static str,
    pub(super) doc: &'static str,
    pub(super) sql: &'static str,
    pub(super) ty: ColumnType,
    pub(super) nullable: bool,
}

/// How a relation is declared; names are resolved when the graph is built.
#[derive(Debug)]
pub enum RelationDeclaration {
    /// To one row: field, entity, the column that holds its id, description.
    One(&'static str, &'static str, &'static str, &'static str),
    /// To many rows: field, entity, the SQL that joins them, their order (the entity's own if empty), description.
    Many(&'static str, &'static str, &'static str, &'static [(&'static str, bool)], &'static str),
    /// The walk along relations of evidence: field, type of a step, description.
    Lineage(&'static str, &'static str, &'static str),
    /// The best hits of a search: field, entity, the column of it that holds the owner's id (none for rows like the
    /// owner), description.
    Hits(&'static str, &'static str, Option<&'static str>, &'static str),
}

impl Declaration {
    /// A declaration in which only names and visibility are given yet.
    pub(super) const fn new(
        name: &'static str,
        table: &'static str,
        one: &'static str,
        many: &'static str,
        visible: &'static str,
    ) -> Self {
        Self {
            name,
            table,
            one,
            many,
            visible,
            order: &[("created_at", true)],
            unordered: &[],
            hidden: &[],
            enums: &[],
            computed: &[],
            relations: &[],
            group_by: &[],
            group_by_day: &[],
            measures: &[],
            hint: Hint::NONE,
            searched: None,
        }
    }

    /// The columns that clients see.
    pub(super) fn columns(&self) -> Vec<Column> {
        let info = catalog().get(self.table);
        let stored = info.into_iter().flat_map(|info| &info.columns);
        stored
            .filter(|column| !self.hidden.contains(&column.name.as_str()))
            .map(|column| self.column(column))
            .chain(self.computed.iter().map(|computed| Column {
                name: computed.name.to_owned(),
                sql_name: String::new(),
                sql: computed.sql.to_owned(),
                doc: computed.doc.to_owned(),
                ty: computed.ty,
                nullable: computed.nullable,
                stored: false,
                ordered: false,
            }))
            .collect()
    }

    fn column(&self, info: &ColumnInfo) -> Column {
        let declared = self.enums.iter().find(|(name, _)| *name == info.name);
        let ty = declared.map_or_else(|| column_type(&info.sql_type), |(_, values)| ColumnType::Enum(values));
        Column {
            name: camel_case(&info.name),
            sql_name: info.name.clone(),
            sql: format!("{{t}}.{}", info.name),
            doc: info.doc.clone(),
            ty,
            nullable: info.nullable,
            stored: true,
            ordered: ty.is_ordered() && !self.unordered.contains(&info.name.as_str()),
        }
    }
}

fn column_type(sql_type: &str) -> ColumnType {
    match sql_type {
        "Uuid" => ColumnType::Uuid,
        "Int4" => ColumnType::Int,
        "Int8" => ColumnType::BigInt,
        "Float8" => ColumnType::Float,
        "Bool" => ColumnType::Bool,
        "Timestamptz" => ColumnType::Time,
        "Jsonb" => ColumnType::Json,
        array if array.starts_with("Array<") => ColumnType::Texts,
        // Text and its relatives; a type that is none of these fails the test of the schema at its first read.
        _ => ColumnType::Text,
    }
}
