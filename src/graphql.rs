//! The schema and its one door: a request in, the bytes of an answer out. Parsing, validation and introspection
//! are async-graphql's; what touches rows is resolved here, a level at a time.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock};

use async_graphql::{EmptySubscription, Pos, SDLExportOptions, Schema, ServerError, Value};
use serde::Serialize;
use tokio::sync::OnceCell;

use crate::error::{Code, Error};
use admit::{Admitted, Parameters, Refusal};
use known::{Identity, Known};
use loaders::Loaders;
use mutation::Mutation;
use root::{Outcome, Query};
use write::{FieldError, PathSegment};

use crate::config::Limits;
use crate::graphql::search::Searcher;
use crate::model::cursor::CursorKey;
use crate::model::viewer::Viewer;
use crate::model::write::{Origin, Pruner};
use crate::store::db::Session;
use crate::telemetry::Metrics;

pub mod admit;

mod input;
mod mutation;
mod root;
mod types;

mod arguments;
mod document;
mod filter;
mod known;
mod plan;

mod level;
mod loaders;
pub mod search;
mod write;

/// The schema with what its operations need.
#[derive(Clone)]
pub struct Graph {
    schema: Schema<Query, Mutation, EmptySubscription>,
    cursors: CursorKey,
    searcher: Searcher,
    metrics: Arc<Metrics>,
    limits: Arc<Limits>,
    pruner: Pruner,
    known: Known,
}

/// What one operation works with; async-graphql carries it to the root.
pub(crate) struct Operation {
    loaders: Loaders,
    origin: Origin,
    pruner: Pruner,
    cursors: CursorKey,
    max_page_size: u32,
    outcome: OnceCell<Outcome>,
    /// Whether anything was committed, also if its answer could not be read afterwards.
    written: AtomicBool,
}

/// What came of an operation.
pub struct Answer {
    /// The JSON, without its end: see [`Self::into_body`].
    json: Vec<u8>,
    /// Whether the operation was executed; if not, the request itself was wrong.
    pub executed: bool,
    /// The codes of the errors in it.
    pub codes: Vec<Code>,
    /// Whether it committed anything.
    pub written: bool,
    /// What else is to be said.
    pub extensions: serde_json::Map<String, serde_json::Value>,
}

impl Graph {
    /// Builds the schema.
    pub fn new(searcher: Searcher, cursors: CursorKey, metrics: Arc<Metrics>, limits: Limits) -> Self {
        // The depth is checked on the way in; the library's own limit would only hide ours.
        let schema = Schema::build(Query, Mutation, EmptySubscription).limit_recursive_depth(1_000);
        let known = Known::new(metrics.cache.clone());
        let schema = schema.extension(known.clone()).finish();
        let (limits, pruner) = (Arc::new(limits), Pruner::default());
        Self { schema, cursors, searcher, metrics, limits, pruner, known }
    }

    /// The schema in the schema definition language.
    pub fn sdl() -> &'static str {
        // It is one text for the life of the process, and clients ask for it by HTTP.
        static SDL: LazyLock<String> = LazyLock::new(|| {
            let schema = Schema::build(Query, Mutation, EmptySubscription).finish();
            let options = SDLExportOptions::new().sorted_fields().sorted_enum_items().include_specified_by();
            let sdl = schema.sdl_with_options(options);
            let mut text = sdl.lines().map(str::trim_end).collect::<Vec<_>>().join("\n");
            text.push('\n');
            text
        });
        &SDL
    }

    /// Checks a request and parses it.
    pub fn admit(&self, parameters: Parameters) -> Result<Admitted, Refusal> {
        admit::admit(parameters, &self.limits, Some(&self.known))
    }

    /// Executes an operation for a viewer.
    pub async fn execute(
        &self,
        admitted: Admitted,
        viewer: Viewer,
        session: Session,
        origin: Origin,
    ) -> Answer {
        let loaders = Loaders::new(viewer, session, self.searcher.clone(), self.metrics.clone());
        let operation = Arc::new(Operation {
            loaders,
            origin,
            pruner: self.pruner.clone(),
            cursors: self.cursors.clone(),
            max_page_size: self.limits.max_page_size,
            outcome: OnceCell::new(),
            written: AtomicBool::new(false),
        });
        let identity = Identity::of(&admitted.identity());
        let request = admitted.request.data(Carried(operation.clone())).data(identity);
        let response = self.schema.execute(request).await;
        let outcome = operation.outcome.get();
        let executed = outcome.is_some() || response.errors.is_empty();
        let of_fields = outcome.into_iter().flat_map(|outcome| &outcome.errors);
        let all = response.errors.len() + outcome.map_or(0, |outcome| outcome.errors.len());
        let errors =
            response.errors.iter().map(ErrorBody::from_library).chain(of_fields.map(ErrorBody::from_field));
        let shown = usize::try_from(self.limits.max_errors).unwrap_or(usize::MAX);
        let mut errors: Vec<_> = errors.take(shown).collect();
        if all > shown {
            let text = format!("the answer has {} more errors, which are not shown", all - shown);
            errors.push(ErrorBody::new(&Error::over_limit("max_errors", text), &[]));
        }
        let mut body = b"{".to_vec();
        if executed {
            body.extend_from_slice(b"\"data\":");
            write_data(&mut body, outcome, &response.data);
        }
        if !errors.is_empty() {
            body.extend_from_slice(if executed { b",\"errors\":" } else { b"\"errors\":" });
            append(&mut body, &errors);
        }
        Answer {
            json: body,
            executed,
            codes: errors.iter().map(|error| error.code).collect(),
            written: operation.written.load(Ordering::Relaxed),
            extensions: warnings(&operation.loaders.warnings()),
        }
    }
}

/// What an answer says of itself though it has no error.
fn warnings(texts: &[&'static str]) -> serde_json::Map<String, serde_json::Value> {
    let warning = |text: &&str| serde_json::json!({"code": "DEGRADED", "message": text});
    let warnings: Vec<_> = texts.iter().map(warning).collect();
    (!warnings.is_empty()).then(|| ("warnings".to_owned(), warnings.into())).into_iter().collect()
}

impl Answer {
    /// Whether it is whole: nothing failed, and nothing was written.
    pub fn is_whole(&self) -> bool {
        self.executed && !self.written && self.codes.is_empty() && self.extensions.is_empty()
    }

    /// The answer, ready to be sent.
    pub fn into_body(self) -> Vec<u8> {
        let mut body = self.json;
        if !self.extensions.is_empty() {
            body.extend_from_slice(b",\"extensions\":");
            append(&mut body, &self.extensions);
        }
        body.push(b'}');
        body
    }
}

/// The shared operation in async-graphql's bag of data.
struct Carried(Arc<Operation>);

fn append(body: &mut Vec<u8>, value: &impl Serialize) {
    // Writing to memory fails only for maps whose keys are no strings, of which there are none.
    if serde_json::to_writer(&mut *body, value).is_err() {
        body.extend_from_slice(b"null");
    }
}

/// Root fields in the order of the document: rows from the outcome, introspection from async-graphql.
fn write_data(body: &mut Vec<u8>, outcome: Option<&Outcome>, data: &Value) {
    let nothing = Value::Object(async_graphql::indexmap::IndexMap::default());
    let Some(outcome) = outcome else {
        // Nothing was resolved and nothing is wrong: every field is skipped.
        append(body, if *data == Value::Null { &nothing } else { data });
        return;
    };
    body.push(b'{');
    for (n, (key, json)) in outcome.fields.iter().enumerate() {
        if n > 0 {
            body.push(b',');
        }
        append(body, key);
        body.push(b':');
        match (json, data) {
            (Some(range), _) => body.extend_from_slice(&outcome.json[range.clone()]),
            (None, Value::Object(fields)) => append(body, &fields.get(key.as_str())),
            (None, _) => body.extend_from_slice(b"null"),
        }
    }
    body.push(b'}');
}

/// An error as the specification lays it out.
#[derive(Serialize)]
struct ErrorBody {
    message: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    locations: Vec<Location>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    path: Vec<Segment>,
    extensions: Extensions,
    #[serde(skip)]
    code: Code,
}

#[derive(Serialize)]
struct Location {
    line: usize,
    column: usize,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Segment {
    Key(String),
    Index(usize),
}

#[derive(Serialize)]
struct Extensions {
    code: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    field: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    limit: Option<&'static str>,
}

impl ErrorBody {
    fn new(error: &Error, at: &[Pos]) -> Self {
        report(error);
        Self {
            message: message(error),
            locations: at.iter().map(|pos| Location { line: pos.line, column: pos.column }).collect(),
            path: Vec::new(),
            extensions: Extensions {
                code: error.code().as_str(),
                field: error.field().map(str::to_owned),
                limit: error.limit(),
            },
            code: error.code(),
        }
    }

    fn from_field(error: &FieldError) -> Self {
        let path = error.path.iter().map(|segment| match segment {
            PathSegment::Key(key) => Segment::Key(key.clone()),
            PathSegment::Index(index) => Segment::Index(*index),
        });
        Self { path: path.collect(), ..Self::new(&error.error, &[error.pos]) }
    }

    /// What the library finds wrong before execution is about the client's own document, so its text is safe.
    fn from_library(error: &ServerError) -> Self {
        Self::new(&Error::new(Code::BadUserInput, error.message.clone()), &error.locations)
    }
}

fn message(error: &Error) -> String {
    match error.field() {
        Some(field) => format!("{field} {}", error.message()),
        None => error.message().to_owned(),
    }
}

/// Faults of ours and of the stores go to the log, here and nowhere else.
fn report(error: &Error) {
    if let Some(cause) = error.internal_text() {
        tracing::warn!(code = error.code().as_str(), cause, "a field failed");
    }
}

/// The answer to a request that could not be executed at all.
pub fn refusal(refusal: &Refusal) -> Vec<u8> {
    let mut json = b"{\"errors\":".to_vec();
    append(&mut json, &[ErrorBody::new(&refusal.error, &refusal.at)]);
    json.push(b'}');
    json
}
