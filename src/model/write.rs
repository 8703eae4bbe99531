//! Writing: each mutation is one transaction, in which its references are looked up, its rows written, each with its
//! entry in the audit trail, and its answer kept for its idempotency key. `rows` has the statements that all share;
//! what each mutation does stands in the file of its entity.

use std::collections::HashMap;

use serde_json::Value;
use uuid::Uuid;

use crate::error::{Code, Error, Result};
use crate::model::mutation::{Kind, Mutation, Permit, Row, Values};
use crate::model::viewer::Viewer;
use crate::store::db::Session;
use crate::store::db::transaction::{Transaction, Violation, WriteError};
use idempotency::Key;
pub use idempotency::Pruner;

mod audit;
mod idempotency;
pub(super) mod rows;

pub(super) mod agent;
pub(super) mod chain;
pub(super) mod evidence;
pub(super) mod task;

/// Where a write comes from, as the audit trail tells it.
#[derive(Debug, Clone, Default)]
pub struct Origin {
    /// The request.
    pub request_id: String,
    /// The network address at the other end of the connection.
    pub address: Option<String>,
    /// How the client's software names itself.
    pub user_agent: Option<String>,
    /// The idempotency key of the whole request.
    pub idempotency_key: Option<String>,
}

/// A row that an input refers to.
#[derive(Debug, Clone, Copy)]
struct Found {
    project_id: Option<Uuid>,
    /// Whether the viewer is there to read only.
    read_only: bool,
}

/// A write under way.
pub(super) struct Write<'a> {
    tx: Transaction,
    viewer: &'a Viewer,
    mutation: &'static Mutation,
    origin: &'a Origin,
    found: HashMap<(&'static str, Uuid), Found>,
    trail: Vec<Row>,
}

/// Does what a mutation says and gives the ids of its rows, or does nothing. `place` is that of the mutation in its
/// request. With an idempotency key that was seen before, it gives the ids of then.
pub async fn write(
    session: &Session,
    permit: Permit<'_>,
    origin: &Origin,
    place: usize,
    input: &Values,
) -> Result<Vec<Uuid>> {
    let Permit { viewer, mutation } = permit;
    let key = Key::of(permit, origin, place, input)?;
    let tx = session.begin().await?;
    let mut write = Write { tx, viewer, mutation, origin, found: HashMap::new(), trail: Vec::new() };
    match write.run(input, key.as_ref()).await {
        Ok(ids) => {
            write.tx.commit().await?;
            Ok(ids)
        }
        Err(error) => {
            write.tx.rollback().await;
            Err(error)
        }
    }
}

impl Write<'_> {
    async fn run(&mut self, input: &Values, key: Option<&Key>) -> Result<Vec<Uuid>> {
        if let Some(key) = key
            && let Some(ids) = idempotency::claim(&mut self.tx, key).await?
        {
            return Ok(ids);
        }
        self.look_up(input).await?;
        let ids = (self.mutation.run)(self, input).await?;
        self.write_trail().await?;
        if let Some(key) = key {
            idempotency::keep(&mut self.tx, key, &ids).await?;
        }
        Ok(ids)
    }

    /// Who asks, for the columns that say who did it; a user and an agent are never there at once.
    fn actor(&self, user: &'static str, agent: &'static str) -> [(&'static str, Value); 2] {
        let id = |id: Option<Uuid>| Value::from(id.map(|id| id.to_string()));
        [(user, id(self.viewer.user_id)), (agent, id(self.viewer.agent_id))]
    }

    /// A row that the input refers to; `look_up` has seen it.
    fn reference(&self, entity: &'static str, values: &Values, field: &str) -> Option<Found> {
        self.found.get(&(entity, values.uuid(field)?)).copied()
    }

    /// The project of a new row: the one that its input names, or that of what it belongs to, which must agree.
    fn home(&self, values: &Values, belongs: (&'static str, &'static str)) -> Result<Uuid> {
        let (field, entity) = belongs;
        let named = values.uuid("projectId");
        let of_row = self.reference(entity, values, field);
        let found = self.reference("Project", values, "projectId").or(of_row);
        let Some((found, project)) = found.and_then(|found| Some((found, found.project_id?))) else {
            let text = format!("is needed unless {field} is given");
            return Err(Error::bad_input(values.at("projectId"), text));
        };
        if named.is_some() && of_row.is_some_and(|row| row.project_id != named) {
            return Err(Error::bad_input(values.at(field), "belongs to another project"));
        }
        may_write(found)?;
        Ok(project)
    }

    /// Turns what a constraint of `table` refuses into words, with the field of `values` that it is about.
    fn refused(&self, error: WriteError, table: &str, path: &str) -> Error {
        let WriteError::Refused { violation, constraint, cause } = error else { return error.into() };
        if let Some((_, code, text)) = RULES.iter().find(|(name, _, _)| *name == constraint) {
            return Error::new(*code, *text);
        }
        let column = constraint.strip_prefix(table).and_then(|rest| rest.strip_prefix('_'));
        let column = column.and_then(|rest| rest.rsplit_once('_')).map_or("", |(column, _)| column);
        let fields = self.mutation.fields.iter().flat_map(|field| match field.kind {
            Kind::Items(_, items, _) => items,
            _ => std::slice::from_ref(field),
        });
        let field = fields.into_iter().find(|field| field.column == column && !column.is_empty());
        let (code, text) = match violation {
            Violation::Check => (Code::BadUserInput, "is not what the database allows"),
            Violation::Unique => (Code::Conflict, "is taken: another row has it"),
            Violation::Reference => (Code::NotFound, "names a row that there is not"),
        };
        let mut error = Error::new(code, text);
        if violation == Violation::Check {
            // It should have been seen before it came here, so the log is told.
            error = error.because(cause.internal_text().unwrap_or_default());
        }
        error.at(field.map_or_else(|| path.to_owned(), |field| format!("{path}.{}", field.name)))
    }
}

/// Constraints that are about more than one field.
const RULES: &[(&str, Code, &str)] = &[
    (
        "evidence_chain_links_acyclic",
        Code::Conflict,
        "a link of an evidence chain cannot follow from itself, be it over other links",
    ),
    ("evidence_chain_links_chain_id_position_key", Code::Conflict, "another link came first; try again"),
    (
        "evidence_relations_from_to_kind_key",
        Code::Conflict,
        "there is a relation of this kind between the two already",
    ),
];

/// Whoever is a member of a project as a viewer only reads there, whatever their role elsewhere.
fn may_write(found: Found) -> Result<()> {
    if found.read_only {
        return Err(Error::new(Code::Forbidden, "you are a viewer of this project and only read there"));
    }
    Ok(())
}
