//! What a mutation is to the gateway: one declaration, from which its input type, the checks of its values and who
//! may call it follow. The declarations stand in one file per entity, with what they do (`write/`).

use std::collections::BTreeMap;

use futures_util::future::BoxFuture;
use serde_json::Value;
use uuid::Uuid;

use crate::error::{Code, Error, Result};
use crate::model::catalog::{ColumnInfo, catalog};
use crate::model::entity::{Enum, screaming_case};
use crate::model::viewer::{Role, Viewer};
use crate::model::write::{Write, agent, chain, evidence, task};

/// The mutations in the order in which the schema shows them.
pub static MUTATIONS: [&Mutation; 19] = [
    &task::CREATE,
    &task::UPDATE,
    &task::ASSIGN,
    &task::TRANSITION,
    &task::COMMENT,
    &task::RESULT,
    &task::ATTACH,
    &evidence::ADD,
    &evidence::ADD_MANY,
    &evidence::VERIFY,
    &evidence::RATE,
    &evidence::EXPIRE,
    &evidence::RELATE,
    &chain::CREATE,
    &chain::APPEND,
    &chain::CONCLUDE,
    &agent::REGISTER,
    &agent::HEARTBEAT,
    &agent::SET_STATUS,
];

/// Finds a mutation by its name in the schema.
pub fn mutation(name: &str) -> Option<&'static Mutation> {
    MUTATIONS.into_iter().find(|mutation| mutation.name == name)
}

/// Writes the rows of an input whose values are good and whose references are visible, and gives their ids.
pub(super) type Run = for<'a> fn(&'a mut Write<'_>, &'a Values) -> BoxFuture<'a, Result<Vec<Uuid>>>;

/// One mutation.
pub struct Mutation {
    /// The name in the schema; its input is called after it.
    pub name: &'static str,
    /// The description in the schema.
    pub doc: &'static str,
    /// The type of the row that it writes and answers with.
    pub returns: &'static str,
    /// Whether it answers with a list.
    pub list: bool,
    /// The least role that may call it.
    pub needs: Role,
    /// The table that its fields' columns belong to.
    pub table: &'static str,
    /// Whether it changes a row that is there; then null clears a field, and `expectedVersion` may be given.
    pub changes: bool,
    /// The input.
    pub fields: &'static [Field],
    pub(super) run: Run,
}

/// One field of an input.
pub struct Field {
    /// The name in the schema.
    pub name: &'static str,
    /// The column that it is written to as it is; empty if it is not.
    pub column: &'static str,
    /// The type and the bounds.
    pub kind: Kind,
    /// Whether it must be given.
    pub required: bool,
    doc: &'static str,
}

/// The types of fields with their bounds, which are those of the columns' CHECKs.
pub enum Kind {
    /// An id.
    Uuid,
    /// The id of a row of this type, which the viewer must be able to see.
    Row(&'static str),
    /// A text of this many characters, least and most.
    Text(usize, usize),
    /// A whole number between these.
    Int(i32, i32),
    /// A whole number of 64 bits, not less than this.
    BigInt(i64),
    /// A number between these.
    Float(f64, f64),
    /// Yes or no.
    Bool,
    /// A moment.
    Time,
    /// A JSON object.
    Object,
    /// Any JSON but null.
    Json,
    /// Labels, as [`MAX_LABELS`] and [`MAX_LABEL_BYTES`] allow.
    Texts,
    /// One of these.
    Enum(&'static Enum),
    /// A list of at most so many inputs of this name with these fields.
    Items(&'static str, &'static [Field], usize),
}

/// Labels in one list at most.
pub const MAX_LABELS: usize = 100;
/// Bytes of all labels of one list at most.
pub const MAX_LABEL_BYTES: usize = 2_500;
/// Characters of an idempotency key at most.
pub const MAX_KEY: usize = 200;

/// Given with every mutation.
pub static IDEMPOTENCY_KEY: Field = Field {
    doc: "Makes a repetition safe: the same key with the same input writes once and answers alike for 48 hours, and \
          with another input is a CONFLICT. The header Idempotency-Key does the same for a whole request.",
    ..Field::new("idempotencyKey", "", Kind::Text(1, MAX_KEY))
};
/// Given with every mutation that changes a row.
pub static EXPECTED_VERSION: Field = Field {
    doc: "The version that the row must have; if somebody changed it meanwhile, the answer is a CONFLICT.",
    ..Field::new("expectedVersion", "", Kind::Int(1, i32::MAX))
};

impl Field {
    pub(super) const fn new(name: &'static str, column: &'static str, kind: Kind) -> Self {
        Self { name, column, kind, required: false, doc: "" }
    }

    pub(super) const fn needed(name: &'static str, column: &'static str, kind: Kind) -> Self {
        Self { name, column, kind, required: true, doc: "" }
    }

    /// The row that a mutation changes.
    pub(super) const fn id(doc: &'static str) -> Self {
        Self { name: "id", column: "", kind: Kind::Uuid, required: true, doc }
    }

    pub(super) const fn but_optional(self) -> Self {
        Self { required: false, ..self }
    }

    pub(super) const fn about(self, doc: &'static str) -> Self {
        Self { doc, ..self }
    }

    /// The description in the schema: the column's unless it has its own, and the bounds.
    pub fn doc(&self, table: &str) -> String {
        let own = if self.doc.is_empty() { self.info(table).map_or("", |info| &info.doc) } else { self.doc };
        let bounds = match self.kind {
            Kind::Text(least, most) => format!(" {least} to {most} characters."),
            Kind::Int(least, i32::MAX) => format!(" {least} at least."),
            Kind::Int(least, most) => format!(" {least} to {most}."),
            Kind::Float(least, most) => format!(" {least} to {most}."),
            Kind::Texts => format!(" At most {MAX_LABELS}, of {MAX_LABEL_BYTES} bytes together."),
            Kind::Items(_, _, most) => format!(" 1 to {most}."),
            _ => String::new(),
        };
        format!("{own}{bounds}")
    }

    /// What the database says of the column.
    pub fn info(&self, table: &str) -> Option<&'static ColumnInfo> {
        catalog().get(table)?.columns.iter().find(|column| column.name == self.column)
    }
}

impl Mutation {
    /// The name of the input type.
    pub fn input_name(&self) -> String {
        let (first, rest) = self.name.split_at(1);
        format!("{}{rest}Input", first.to_ascii_uppercase())
    }

    /// All fields of the input.
    pub fn all_fields(&self) -> impl Iterator<Item = &'static Field> {
        let version = self.changes.then_some(&EXPECTED_VERSION);
        self.fields.iter().chain(version).chain([&IDEMPOTENCY_KEY])
    }

    /// The most inputs that its list may have.
    pub fn most(&self) -> usize {
        let lists = self.fields.iter().filter_map(|field| match field.kind {
            Kind::Items(_, _, most) => Some(most),
            _ => None,
        });
        lists.max().unwrap_or(1)
    }
}

/// That a viewer may call a mutation. Nothing is written without one.
#[derive(Clone, Copy)]
pub struct Permit<'a> {
    pub(super) viewer: &'a Viewer,
    /// The mutation.
    pub mutation: &'static Mutation,
}

impl<'a> Permit<'a> {
    /// Says whether the viewer's role allows it; which rows it may touch is seen when they are read.
    pub fn of(viewer: &'a Viewer, mutation: &'static Mutation) -> Result<Self> {
        if viewer.role < mutation.needs {
            let (is, needs) = (screaming_case(viewer.role.as_str()), screaming_case(mutation.needs.as_str()));
            let text = format!("{} needs the role {needs}; yours is {is}", mutation.name);
            return Err(Error::new(Code::Forbidden, text));
        }
        Ok(Self { viewer, mutation })
    }
}

/// Checked values of an input's fields. A null is one that clears a column; others are left out.
#[derive(Debug, Clone, Default)]
pub struct Values {
    /// Where the input stands, for errors: `input`, or `input.evidences.3`.
    pub path: String,
    /// By the fields' names.
    pub fields: BTreeMap<&'static str, Value>,
    /// The inputs of its list.
    pub items: Vec<Self>,
}

/// A row's values by column, ready to be written. Names of columns are the program's own.
pub(super) type Row = BTreeMap<&'static str, Value>;

impl Values {
    /// Whether it was given, be it null.
    pub(super) fn has(&self, name: &str) -> bool {
        self.fields.contains_key(name)
    }

    pub(super) fn get(&self, name: &str) -> Option<&Value> {
        self.fields.get(name).filter(|value| !value.is_null())
    }

    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.get(name).and_then(Value::as_str)
    }

    pub(super) fn uuid(&self, name: &str) -> Option<Uuid> {
        self.text(name).and_then(|text| Uuid::try_parse(text).ok())
    }

    /// `input.title`
    pub(super) fn at(&self, name: &str) -> String {
        format!("{}.{name}", self.path)
    }

    /// What is written as it was given.
    pub(super) fn row(&self, fields: &'static [Field]) -> Row {
        let given = |field: &'static Field| Some((field.column, self.fields.get(field.name)?.clone()));
        fields.iter().filter(|field| !field.column.is_empty()).filter_map(given).collect()
    }

    /// The key that makes a repetition safe.
    pub fn idempotency_key(&self) -> Option<&str> {
        self.text(IDEMPOTENCY_KEY.name)
    }
}
