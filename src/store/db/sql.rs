//! A statement: text in which every value is bound, never written.

use std::hash::{Hash, Hasher};
use std::sync::{Arc, LazyLock, Mutex};

use chrono::{DateTime, Utc};
use diesel::QueryResult;
use diesel::pg::Pg;
use diesel::query_builder::{AstPass, Query, QueryFragment, QueryId};
use diesel::sql_types as ty;
use uuid::Uuid;

use crate::store::db::reads::Reads;

/// A bound value.
#[derive(Debug, Clone, PartialEq)]
pub enum Bind {
    /// `uuid`
    Uuid(Uuid),
    /// `uuid[]`
    Uuids(Vec<Uuid>),
    /// `text`
    Text(String),
    /// `text[]`
    Texts(Vec<String>),
    /// `bigint`; compares with `integer` columns by the same index.
    Int(i64),
    /// `bigint[]`
    Ints(Vec<i64>),
    /// `double precision`
    Float(f64),
    /// `double precision[]`
    Floats(Vec<f64>),
    /// `boolean`
    Bool(bool),
    /// `timestamptz`
    Time(DateTime<Utc>),
    /// `timestamptz[]`
    Times(Vec<DateTime<Utc>>),
    /// `jsonb`
    Json(serde_json::Value),
}

impl Eq for Bind {}

impl Hash for Bind {
    fn hash<H: Hasher>(&self, state: &mut H) {
        // Floats have no Hash and JSON neither; their text is good enough for a key that Eq settles.
        match self {
            Self::Uuid(v) => v.hash(state),
            Self::Uuids(v) => v.hash(state),
            Self::Text(v) => v.hash(state),
            Self::Texts(v) => v.hash(state),
            Self::Int(v) => v.hash(state),
            Self::Ints(v) => v.hash(state),
            Self::Float(v) => v.to_bits().hash(state),
            Self::Floats(v) => v.iter().for_each(|v| v.to_bits().hash(state)),
            Self::Bool(v) => v.hash(state),
            Self::Time(v) => v.hash(state),
            Self::Times(v) => v.hash(state),
            Self::Json(v) => v.to_string().hash(state),
        }
    }
}

/// A statement under construction, and then the statement. Two equal ones ask the same question.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Sql {
    text: String,
    /// Each bound value with the place in `text` where its placeholder stands.
    binds: Vec<(usize, Bind)>,
    /// Which of the values are the keys of a batch.
    keys: Option<usize>,
    width: usize,
    reads: Declared,
}

/// What a statement says that it reads. It follows from the text and the values, so it is no part of the question.
#[derive(Debug, Clone, Default)]
struct Declared(Option<Arc<Reads>>);

impl PartialEq for Declared {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Declared {}

impl Hash for Declared {
    fn hash<H: Hasher>(&self, _: &mut H) {}
}

impl Sql {
    /// Appends text. It must be the program's own, never a client's.
    pub fn push(&mut self, text: &str) -> &mut Self {
        self.text.push_str(text);
        self
    }

    /// Appends a placeholder for a value.
    pub fn bind(&mut self, value: Bind) -> &mut Self {
        self.binds.push((self.text.len(), value));
        self
    }

    /// Appends the placeholder for the keys of a batch, which [`Self::with_keys`] fills in.
    pub fn bind_keys(&mut self) -> &mut Self {
        self.keys = Some(self.binds.len());
        self.bind(Bind::Uuids(Vec::new()))
    }

    /// The same statement for these keys.
    pub fn with_keys(&self, keys: Vec<Uuid>) -> Self {
        let mut sql = self.clone();
        if let Some(place) = sql.keys {
            sql.binds[place].1 = Bind::Uuids(keys);
        }
        sql
    }

    /// Says how many columns a row of the answer has.
    pub fn returning(mut self, width: usize) -> Self {
        self.width = width;
        self
    }

    /// Says what it reads. An answer that is made of a statement which does not say so cannot be cached.
    pub fn reading(mut self, reads: Option<Reads>) -> Self {
        self.reads = Declared(reads.map(Arc::new));
        self
    }

    pub(super) fn width(&self) -> usize {
        self.width
    }

    pub(super) fn reads(&self) -> Option<&Reads> {
        self.reads.0.as_deref()
    }

    /// The keys of the batch, if it has any.
    pub(super) fn keys(&self) -> &[Uuid] {
        match self.keys.map(|place| &self.binds[place].1) {
            Some(Bind::Uuids(keys)) => keys,
            _ => &[],
        }
    }
}

impl QueryFragment<Pg> for Sql {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        if !admitted(&self.text) {
            out.unsafe_to_cache_prepared();
        }
        let mut written = 0;
        for (at, value) in &self.binds {
            out.push_sql(&self.text[written..*at]);
            written = *at;
            push_bind(value, &mut out)?;
        }
        out.push_sql(&self.text[written..]);
        Ok(())
    }
}

fn push_bind<'b>(value: &'b Bind, out: &mut AstPass<'_, 'b, Pg>) -> QueryResult<()> {
    match value {
        Bind::Uuid(v) => out.push_bind_param::<ty::Uuid, _>(v),
        Bind::Uuids(v) => out.push_bind_param::<ty::Array<ty::Uuid>, _>(v),
        Bind::Text(v) => out.push_bind_param::<ty::Text, _>(v),
        Bind::Texts(v) => out.push_bind_param::<ty::Array<ty::Text>, _>(v),
        Bind::Int(v) => out.push_bind_param::<ty::BigInt, _>(v),
        Bind::Ints(v) => out.push_bind_param::<ty::Array<ty::BigInt>, _>(v),
        Bind::Float(v) => out.push_bind_param::<ty::Double, _>(v),
        Bind::Floats(v) => out.push_bind_param::<ty::Array<ty::Double>, _>(v),
        Bind::Bool(v) => out.push_bind_param::<ty::Bool, _>(v),
        Bind::Time(v) => out.push_bind_param::<ty::Timestamptz, _>(v),
        Bind::Times(v) => out.push_bind_param::<ty::Array<ty::Timestamptz>, _>(v),
        Bind::Json(v) => out.push_bind_param::<ty::Jsonb, _>(v),
    }
}

impl QueryId for Sql {
    type QueryId = ();
    const HAS_STATIC_QUERY_ID: bool = false;
}

impl Query for Sql {
    type SqlType = ty::Untyped;
}

/// Statement texts that each connection may keep prepared. Clients shape the texts (by their filters and
/// selections), so without a bound they could fill the memory of PostgreSQL.
const PREPARED_LIMIT: usize = 512;

/// Whether this text may stay prepared. The first texts to come are admitted for the life of the process: a
/// busy gateway asks its common questions early, and the others cost one more round trip each.
fn admitted(text: &str) -> bool {
    static ADMITTED: LazyLock<Mutex<std::collections::HashSet<u64>>> = LazyLock::new(Mutex::default);
    let mut hasher = std::hash::DefaultHasher::new();
    text.hash(&mut hasher);
    let hash = hasher.finish();
    let mut admitted = ADMITTED.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    admitted.contains(&hash) || (admitted.len() < PREPARED_LIMIT && admitted.insert(hash))
}
