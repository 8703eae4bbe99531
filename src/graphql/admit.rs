//! The way in: a request's parameters become an operation that may be executed, or are refused. Every check costs
//! time in proportion to the bytes that came, whatever they say.

use async_graphql::parser::types::{ExecutableDocument, OperationDefinition, OperationType};
use async_graphql::parser::{Error as SyntaxError, parse_query};
use async_graphql::{Pos, Positioned, Request, Value, Variables};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::config::Limits;
use crate::error::{Code, Error, Result};
use crate::graphql::known::Known;

mod measure;
mod tokens;

/// The parameters of a request, as GraphQL over HTTP names them.
#[derive(Debug, Default, Deserialize)]
pub struct Parameters {
    /// The document.
    pub query: Option<String>,
    /// Which of its operations to execute.
    #[serde(rename = "operationName")]
    pub operation_name: Option<String>,
    /// The variables: the JSON of an object.
    #[serde(default, deserialize_with = "some_raw")]
    pub variables: Option<Box<RawValue>>,
    /// What stands for the document, if it is not sent.
    #[serde(rename = "documentId")]
    pub document_id: Option<String>,
    /// Room for more: the JSON of an object.
    #[serde(default, deserialize_with = "some_raw")]
    pub extensions: Option<Box<RawValue>>,
}

impl Parameters {
    /// Reads the body of a request; `None` if it is not the JSON of such an object.
    pub fn read(body: &[u8]) -> Option<Self> {
        // serde would not look at the bytes of a member that it does not know.
        let text = std::str::from_utf8(body).ok()?;
        // It would take a list of the values for the object, too.
        let is_object = text.trim_ascii_start().starts_with('{');
        is_object.then(|| serde_json::from_str(text).ok()).flatten()
    }
}

impl Parameters {
    /// How Apollo's clients name a document.
    pub fn persisted_query(&self, limits: &Limits) -> Result<Option<PersistedQuery>, Refusal> {
        let extensions = self.extensions.as_deref().map(|raw| read_extensions(raw, limits)).transpose()?;
        Ok(extensions.and_then(|extensions| extensions.persisted_query))
    }
}

/// A document by its hash.
#[derive(Debug, Deserialize)]
pub struct PersistedQuery {
    /// Of the way of naming; 1 is understood.
    pub version: u32,
    /// The SHA-256 of the document, in hexadecimal.
    #[serde(rename = "sha256Hash")]
    pub sha256_hash: String,
}

/// What is understood of a request's extensions; the rest is passed over.
#[derive(Debug, Default, Deserialize)]
pub struct Extensions {
    /// The document by its hash.
    #[serde(rename = "persistedQuery")]
    pub persisted_query: Option<PersistedQuery>,
    /// Whether the answer is to say how it came about in the cache.
    #[serde(default)]
    pub cache: bool,
    /// What the client has seen written, and wants to be seen in the answer.
    #[serde(rename = "consistencyToken")]
    pub consistency_token: Option<String>,
}

/// `Option<Box<RawValue>>` takes null for a value of its own.
fn some_raw<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Option<Box<RawValue>>, D::Error> {
    Ok(Some(Box::<RawValue>::deserialize(from)?).filter(|raw| raw.get() != "null"))
}

/// An operation that may be executed.
pub struct Admitted {
    pub(super) request: Request,
    /// What else it says.
    pub extensions: Extensions,
    /// Which one it is.
    pub operation: Chosen,
}

impl Admitted {
    /// The document.
    pub fn document(&self) -> &str {
        &self.request.query
    }

    /// All that is asked, in one form: the document, the operation and the variables, defaults filled in. Two
    /// requests of the same form ask the same, however they were sent.
    pub fn identity(&self) -> Vec<u8> {
        let document = self.request.query.as_bytes();
        let mut bytes = Vec::with_capacity(document.len() + 256);
        for part in [document, self.request.operation_name.as_deref().unwrap_or_default().as_bytes()] {
            bytes.extend_from_slice(&(part.len() as u64).to_be_bytes());
            bytes.extend_from_slice(part);
        }
        for (name, value) in self.request.variables.iter() {
            bytes.extend_from_slice(name.as_bytes());
            bytes.push(b'=');
            write_sorted(value, &mut bytes);
        }
        bytes
    }
}

/// Writes a value with the members of its objects in order. No two values are written alike.
fn write_sorted(value: &Value, into: &mut Vec<u8>) {
    match value {
        Value::Object(members) => {
            let mut members: Vec<_> = members.iter().collect();
            members.sort_unstable_by_key(|(name, _)| *name);
            into.push(b'{');
            for (name, value) in members {
                into.extend_from_slice(name.as_bytes());
                into.push(b':');
                write_sorted(value, into);
            }
            into.push(b'}');
        }
        Value::List(items) => {
            into.push(b'[');
            items.iter().for_each(|item| write_sorted(item, into));
            into.push(b']');
        }
        // As JSON, so that a text cannot end itself.
        scalar => into.extend_from_slice(scalar.to_string().as_bytes()),
    }
    into.push(b',');
}

/// The operation that a request chose, as logs and metrics tell of it.
#[derive(Debug, Clone, Default)]
pub struct Chosen {
    /// Its name, if it has one.
    pub name: Option<String>,
    /// `query`, `mutation` or `subscription`; empty if there is none to choose.
    pub kind: &'static str,
}

/// Why a request is not executed, and where in its document the reason stands, if it stands there.
#[derive(Debug)]
pub struct Refusal {
    /// The reason.
    pub error: Error,
    /// The places.
    pub at: Box<[Pos]>,
    /// Whether it is no request of GraphQL at all, whatever its document says.
    pub malformed: bool,
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        Self { error, at: Box::default(), malformed: false }
    }
}

impl Refusal {
    fn malformed(field: &'static str, text: &'static str) -> Self {
        Self { malformed: true, ..Error::bad_input(field, text).into() }
    }
}

/// Checks a request against the limits and parses it.
pub fn check(parameters: Parameters, limits: &Limits) -> Result<Admitted, Refusal> {
    admit(parameters, limits, None)
}

/// Checks a request against the limits and parses it, unless its document is known.
pub(super) fn admit(
    parameters: Parameters,
    limits: &Limits,
    known: Option<&Known>,
) -> Result<Admitted, Refusal> {
    let query = parameters.query.filter(|query| !query.trim().is_empty());
    let query = query.ok_or_else(|| Refusal::malformed("query", "is missing"))?;
    let found = known.and_then(|known| known.find(&query));
    let is_new = found.is_none();
    if is_new {
        tokens::check_tokens(&query, limits)?;
    }
    let extensions = parameters.extensions.as_deref();
    let extensions = extensions.map(|raw| read_extensions(raw, limits)).transpose()?.unwrap_or_default();
    let variables = parameters.variables.as_deref();
    let mut variables = variables.map(|raw| read_variables(raw, limits)).transpose()?.unwrap_or_default();
    let document = match found {
        Some(document) => document,
        None => parse_query(&query).map_err(|error| syntax(&error))?,
    };
    let operations = document.operations.iter().count();
    measure::over("max_operations", "operations", operations, limits.max_operations)?;
    let name = parameters.operation_name.filter(|name| !name.is_empty());
    let chosen = choose(&document, name.as_deref())?;
    fill_defaults(chosen, &mut variables)?;
    let kind = match chosen.node.ty {
        OperationType::Query => "query",
        OperationType::Mutation => "mutation",
        OperationType::Subscription => "subscription",
    };
    measure::check_cost(&document, &variables, limits)?;
    if let Some(known) = known.filter(|_| is_new) {
        known.keep(&query, &document);
    }
    let named = document.operations.iter().find(|(_, operation)| std::ptr::eq(*operation, chosen));
    let name = named.and_then(|(name, _)| name).map(ToString::to_string);
    let mut request = Request::new(query).variables(variables);
    request.operation_name.clone_from(&name);
    request.set_parsed_query(document);
    Ok(Admitted { request, extensions, operation: Chosen { name, kind } })
}

/// GetOperation of the specification.
fn choose<'a>(
    document: &'a ExecutableDocument,
    name: Option<&str>,
) -> Result<&'a Positioned<OperationDefinition>> {
    let mut fitting = document
        .operations
        .iter()
        .filter(|(known, _)| name.is_none_or(|name| known.is_some_and(|known| known.as_str() == name)));
    match (fitting.next(), fitting.next(), name) {
        (Some((_, operation)), None, _) => Ok(operation),
        (_, _, Some(_)) => Err(Error::bad_input("operationName", "names no operation of the document")),
        (_, _, None) => {
            Err(Error::bad_input("operationName", "is missing: the document has several operations"))
        }
    }
}

/// Gives variables that were not given their defaults, and refuses a request without those that it needs. The
/// library does neither before it reads an argument, and takes a `@skip` that is left to a default for false.
fn fill_defaults(operation: &Positioned<OperationDefinition>, variables: &mut Variables) -> Result<()> {
    for definition in &operation.node.variable_definitions {
        let definition = &definition.node;
        let name = &definition.name.node;
        if let (None, Some(default)) = (variables.get(name), &definition.default_value) {
            variables.insert(name.clone(), default.node.clone());
        }
        let missing = variables.get(name).is_none_or(|value| *value == Value::Null);
        if missing && !definition.var_type.node.nullable {
            let text = format!("is needed: its type is {}", definition.var_type.node);
            return Err(Error::bad_input(format!("variables.{name}"), text));
        }
    }
    Ok(())
}

fn read_variables(raw: &RawValue, limits: &Limits) -> Result<Variables, Refusal> {
    check_json("variables", raw, limits)?;
    // What the scan let through is an object of a bounded size.
    serde_json::from_str(raw.get()).map_err(|_| Refusal::malformed("variables", "cannot be read"))
}

fn read_extensions(raw: &RawValue, limits: &Limits) -> Result<Extensions, Refusal> {
    check_json("extensions", raw, limits)?;
    serde_json::from_str(raw.get())
        .map_err(|_| Refusal::malformed("extensions", "have a member that is not what it should be"))
}

/// An object, not too long, with not too many lists and objects inside one another.
fn check_json(name: &'static str, raw: &RawValue, limits: &Limits) -> Result<(), Refusal> {
    let text = raw.get();
    if !text.starts_with('{') {
        return Err(Refusal::malformed(name, "is not an object"));
    }
    if text.len() > usize::try_from(limits.max_variables_bytes).unwrap_or(usize::MAX) {
        let text = format!("the {name} have more than {} bytes", limits.max_variables_bytes);
        return Err(Error::over_limit("max_variables_bytes", text).into());
    }
    // It is well-formed JSON already: only strings have to be told from the rest.
    let (mut depth, mut in_string, mut escaped) = (0_u32, false, false);
    for byte in text.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => in_string = !in_string,
            b'{' | b'[' if !in_string => depth += 1,
            b'}' | b']' if !in_string => depth -= 1,
            _ => {}
        }
        if depth > limits.max_variables_depth {
            let most = limits.max_variables_depth;
            let text = format!("the {name} have lists and objects inside one another more than {most} deep");
            return Err(Error::over_limit("max_variables_depth", text).into());
        }
    }
    Ok(())
}

/// What the parser expected and where is about the client's own document, so it may be said. It also draws the whole
/// line, which may be the whole document.
fn syntax(error: &SyntaxError) -> Refusal {
    let text = error.to_string();
    let reason = match error {
        SyntaxError::Syntax { .. } => text.lines().find_map(|line| line.trim_start().strip_prefix("= ")),
        _ => Some(text.as_str()),
    };
    let text = format!("the document cannot be parsed: {}", reason.unwrap_or("it is not GraphQL"));
    Refusal { error: Error::new(Code::BadUserInput, text), at: error.positions().collect(), malformed: false }
}
