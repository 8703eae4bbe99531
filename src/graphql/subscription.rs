//! `Subscription`: what a client wants to be told of. A subscription is validated by async-graphql and planned here,
//! once; afterwards each event is loaded and written by that plan (`events.rs`) without the library.

use std::borrow::Cow;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use async_graphql::parser::types::{Field, OperationDefinition};
use async_graphql::registry::Registry;
use async_graphql::{Context, Positioned, Response, SubscriptionType, Value};
use async_graphql_value::Value as Literal;
use futures_util::{Stream, StreamExt, stream};

use crate::error::{Error, Result};
use crate::graphql::Graph;
use crate::graphql::admit::{Admitted, Refusal};
use crate::graphql::arguments::{items, read_name, read_text};
use crate::graphql::document::{Document, Selected};
use crate::graphql::events::{EventField, EventPlan};
use crate::graphql::filter::read_filter;
use crate::graphql::known::Identity;
use crate::graphql::plan::{Planner, RelationPlan, Shape, Slot};
use crate::graphql::root::is_meta;
use crate::graphql::search::Searcher;
use crate::graphql::types::subscription::{CHANGES, MATCHED, entity_value, event_name, register};
use crate::model::change::Place;
use crate::model::entity::TypeId;
use crate::model::filter::Filter;
use crate::model::graph;
use crate::model::select::by_ids;
use crate::model::viewer::Viewer;
use crate::model::watch::{WATCHABLE, Watchable, Watched};
use crate::store::db::reads::Notes;

/// The least score of a standing search, unless it says another.
pub(crate) const DEFAULT_MIN_SCORE: f64 = 0.5;
/// The bounds of `silentAfterMs`.
pub(crate) const SILENT_MS: (u64, u64) = (1_000, 86_400_000);
/// The bounds of `coalesceMs`.
pub(crate) const COALESCE_MS: (u64, u64) = (10, 60_000);

/// The root of all subscriptions.
pub(crate) struct Subscription;

impl SubscriptionType for Subscription {
    fn type_name() -> Cow<'static, str> {
        "Subscription".into()
    }

    fn create_type_info(registry: &mut Registry) -> String {
        register(registry);
        "Subscription!".to_owned()
    }

    /// Whoever comes here has been validated, which is all that the library is asked for.
    fn create_field_stream<'a>(
        &'a self,
        _: &'a Context<'_>,
    ) -> Option<Pin<Box<dyn Stream<Item = Response> + Send + 'a>>> {
        Some(stream::once(async { Response::new(Value::Null) }).boxed())
    }
}

/// What a client wants to be told of, ready to be followed.
pub struct Watch {
    /// Who is told.
    pub viewer: Viewer,
    /// The entities with their filters.
    pub watched: Vec<Watched>,
    /// Where to begin; now, if the client did not say.
    pub after: Option<Place>,
    /// The question that texts are held against, if it is a standing search.
    pub question: Option<Standing>,
    /// Which agents' silence is told, if any.
    pub silence: Option<Silence>,
    /// For how long changes of a row are gathered into one event.
    pub coalesce: Option<Duration>,
    /// All that is asked, save where to begin, in one form: who has it in common is told the same.
    pub identity: Vec<u8>,
    /// What is shown of rows, in one form: for those who have it in common rows are read once.
    pub display: Vec<u8>,
    /// Whether another person of the same scope would be told something else.
    pub personal: bool,
    pub(super) plan: EventPlan,
}

/// When agents are silent.
#[derive(Debug, Clone)]
pub struct Silence {
    /// For how long after a heartbeat the next one is waited for.
    pub after: Duration,
    /// Only agents that fit.
    pub filter: Option<Filter>,
}

/// A question that waits for new texts.
#[derive(Debug, Clone)]
pub struct Standing {
    /// The question as a vector.
    pub vector: Arc<[f32]>,
    /// Texts that are less near are not told.
    pub min_score: f64,
}

impl Graph {
    /// Validates and plans a subscription.
    pub async fn subscribe(
        &self,
        mut admitted: Admitted,
        viewer: &Viewer,
        resume: Option<&str>,
    ) -> Result<Watch, Refusal> {
        let library = |error: async_graphql::ServerError| Refusal {
            error: Error::new(crate::error::Code::BadUserInput, error.message),
            at: error.locations.into_boxed_slice(),
            malformed: false,
        };
        let document = admitted.request.parsed_query().map_err(library)?.clone();
        let mut identity = Admitted { ..admitted };
        let variables = identity.request.variables.clone();
        let operation = document
            .operations
            .iter()
            .find(|(name, _)| name.map(|name| name.as_str()) == identity.request.operation_name.as_deref())
            .map(|(_, operation)| &operation.node)
            .ok_or_else(|| Error::bad_input("operationName", "names no operation of the document"))?;
        if let Some(name) = only_after(operation, identity.document()) {
            identity.request.variables.remove(name.as_str());
        }
        let asked = identity.identity();
        for name in only_which(operation, identity.document()) {
            identity.request.variables.remove(name.as_str());
        }
        let shown = identity.identity();
        identity.request.variables = variables.clone();
        let valid = Identity::of(&identity.identity());
        let mut responses = self.schema.execute_stream(identity.request.data(valid));
        if let Some(error) = responses.next().await.and_then(|first| first.errors.into_iter().next()) {
            return Err(library(error));
        }
        let notes = Notes::default();
        let document = Document { operation, fragments: &document.fragments, variables: &variables };
        let planner = Planner {
            document,
            viewer,
            cursors: &self.cursors,
            max_page_size: self.limits.max_page_size,
            notes: &notes,
            grouping: None,
        };
        let mut roots = document.collect(&[&operation.selection_set.node], &|on| on == "Subscription");
        let (Some(root), true) = (roots.pop(), roots.is_empty()) else {
            let text = "a subscription has exactly one field at its root";
            return Err(Error::new(crate::error::Code::BadUserInput, text).into());
        };
        if is_meta(root.name()) {
            let text = "a subscription is about changes and not about the schema";
            return Err(Error::new(crate::error::Code::BadUserInput, text).into());
        }
        let pos = root.first().pos;
        let refused = |error: Error| Refusal { at: [pos].into(), ..error.into() };
        let mut watch = planner.watch(&root, (asked, shown), resume).map_err(refused)?;
        if root.name() == MATCHED {
            watch.question = Some(planner.standing(&root, &self.searcher).await.map_err(refused)?);
        }
        Ok(watch)
    }
}

/// The variable that says where to begin, if it says nothing else: clients that differ only in it want the same.
fn only_after(operation: &OperationDefinition, text: &str) -> Option<String> {
    let Literal::Variable(name) = &root_of(operation)?.get_argument("after")?.node else { return None };
    (uses(text, name) == 2).then(|| name.to_string())
}

/// The variables that say which changes are told and nothing of what is shown of them: those that stand nowhere but in
/// the arguments of the root field.
fn only_which(operation: &OperationDefinition, text: &str) -> Vec<String> {
    fn collect<'a>(value: &'a Literal, into: &mut Vec<&'a str>) {
        match value {
            Literal::Variable(name) => into.push(name),
            Literal::List(items) => items.iter().for_each(|item| collect(item, into)),
            Literal::Object(members) => members.values().for_each(|member| collect(member, into)),
            _ => {}
        }
    }
    let mut used = Vec::new();
    let arguments = root_of(operation).into_iter().flat_map(|field| &field.arguments);
    arguments.for_each(|(_, value)| collect(&value.node, &mut used));
    let here = |name: &str| used.iter().filter(|used| **used == name).count();
    // Once more it stands in the operation's head.
    used.iter().filter(|name| uses(text, name) == here(name) + 1).map(|name| (*name).to_owned()).collect()
}

fn root_of(operation: &OperationDefinition) -> Option<&Field> {
    let first = operation.selection_set.node.items.first()?;
    let async_graphql::parser::types::Selection::Field(field) = &first.node else { return None };
    let field: &Positioned<Field> = field;
    Some(&field.node)
}

/// How often a variable stands in a document, its declaration included; more often if a text in it looks alike.
fn uses(text: &str, name: &str) -> usize {
    let ends = |rest: &str| !rest.starts_with(|next: char| next.is_ascii_alphanumeric() || next == '_');
    let dollar = format!("${name}");
    text.match_indices(&dollar).filter(|(at, _)| ends(&text[at + dollar.len()..])).count()
}

impl Planner<'_> {
    fn watch(
        &self,
        root: &Selected<'_>,
        (identity, mut display): (Vec<u8>, Vec<u8>),
        resume: Option<&str>,
    ) -> Result<Watch> {
        let after = self.argument(root, "after");
        let given = after.as_ref().map(|after| match after {
            Value::String(text) => Ok(text.as_str()),
            _ => Err(Error::bad_input("after", "is not a String")),
        });
        let given = given.transpose()?.or(resume);
        let after = given.map(|cursor| Place::read("after", cursor, self.cursors)).transpose()?;
        let coalesce = self.milliseconds(root, "coalesceMs", COALESCE_MS)?;
        let chosen = self.chosen(root)?;
        let mut watched = Vec::new();
        let silent = self.milliseconds(root, "silentAfterMs", SILENT_MS)?;
        let mut silence = silent.map(|after| Silence { after, filter: None });
        for watchable in &chosen {
            let ty = graph().type_by_name(watchable.entity).unwrap_or_default();
            let filter = self.argument(root, "filter");
            let filter = filter.map(|filter| read_filter(ty, filter, "filter")).transpose()?;
            watched.push(Watched::new(self.viewer, watchable, filter.as_ref())?);
            if let Some(silence) = &mut silence {
                silence.filter = filter;
            }
        }
        let types: Vec<TypeId> = watched.iter().map(|watched| watched.ty).collect();
        // The argument `entities` says of what there are rows.
        display.extend(watched.iter().flat_map(|watched| [watched.table.as_bytes(), b"\0"].concat()));
        let plan = self.event(root, &types);
        let table = |ty: &TypeId| graph().types[*ty].is_personal();
        let personal = types.iter().any(table) || plan.nodes.iter().any(is_personal);
        Ok(Watch {
            viewer: self.viewer.clone(),
            watched,
            after,
            question: None,
            silence,
            coalesce,
            identity,
            display,
            personal,
            plan,
        })
    }

    async fn standing(&self, root: &Selected<'_>, searcher: &Searcher) -> Result<Standing> {
        let text = read_text(self.argument(root, "query").unwrap_or_default(), "query")?;
        if text.trim().is_empty() {
            return Err(Error::bad_input("query", "is empty"));
        }
        let min_score = match self.argument(root, "minScore") {
            None => DEFAULT_MIN_SCORE,
            Some(Value::Number(number)) => number
                .as_f64()
                .filter(|score| (-1.0..=1.0).contains(score))
                .ok_or_else(|| Error::bad_input("minScore", "is not a number from -1 to 1"))?,
            Some(_) => return Err(Error::bad_input("minScore", "is not a number from -1 to 1")),
        };
        if !searcher.vectors.is_on() {
            let text = "semantic search is switched off on this server";
            return Err(Error::new(crate::error::Code::Unavailable, text));
        }
        Ok(Standing { vector: searcher.embedder.embed_query(&text).await?, min_score })
    }

    /// A bounded length of time; none if it is absent or 0.
    pub(crate) fn milliseconds(
        &self,
        selected: &Selected<'_>,
        name: &str,
        (least, most): (u64, u64),
    ) -> Result<Option<Duration>> {
        let Some(value) = self.argument(selected, name) else { return Ok(None) };
        match value {
            Value::Number(number) if number.as_u64() == Some(0) => Ok(None),
            Value::Number(number) if number.as_u64().is_some_and(|ms| (least..=most).contains(&ms)) => {
                Ok(number.as_u64().map(Duration::from_millis))
            }
            _ => Err(Error::bad_input(name, format!("is not a whole number from {least} to {most}"))),
        }
    }

    /// The entities that a root field is about.
    fn chosen(&self, root: &Selected<'_>) -> Result<Vec<&'static Watchable>> {
        if root.name() != CHANGES {
            let name = if root.name() == MATCHED { "evidenceChanged" } else { root.name() };
            let one = WATCHABLE.iter().find(|watchable| watchable.field == Some(name));
            return one.map(|one| vec![one]).ok_or_else(|| Error::internal("no such subscription"));
        }
        let Some(named) = self.argument(root, "entities") else { return Ok(WATCHABLE.iter().collect()) };
        let mut chosen: Vec<&Watchable> = Vec::new();
        for value in items(named) {
            let name = read_name(value);
            let one = WATCHABLE.iter().find(|one| Some(entity_value(one)) == name);
            let one =
                one.ok_or_else(|| Error::bad_input("entities", "is not an entity that can be watched"))?;
            if !chosen.iter().any(|known| std::ptr::eq(*known, one)) {
                chosen.push(one);
            }
        }
        if chosen.is_empty() {
            return Err(Error::bad_input("entities", "is empty"));
        }
        Ok(chosen)
    }

    fn event(&self, root: &Selected<'_>, types: &[TypeId]) -> EventPlan {
        let name = event_name(root.name());
        let mut nodes = Vec::new();
        let mut fields = Vec::new();
        for field in self.document.collect(&root.sets(), &|condition| condition == name) {
            let value = match field.name() {
                "cursor" => EventField::Cursor,
                "operation" => EventField::Operation,
                "at" => EventField::At,
                "id" => EventField::Id,
                "entity" => EventField::Entity,
                "score" => EventField::Score,
                "changedFields" => EventField::ChangedFields,
                "node" => {
                    nodes.extend(types.iter().map(|ty| {
                        let (projection, object) = self.lone_object(*ty, &field);
                        let sql = by_ids(self.viewer, *ty, &projection, None);
                        RelationPlan { key: 0, shape: Shape::One { sql, object } }
                    }));
                    EventField::Node(nodes.len() - types.len())
                }
                _ => EventField::Typename,
            };
            fields.push(Slot::new(&field, value));
        }
        EventPlan { root: Slot::new(root, ()), name, fields, nodes: nodes.into() }
    }
}

/// Whether another person of the same scope may get something else. What does not say what it reads counts as such.
fn is_personal(relation: &RelationPlan) -> bool {
    let own = |sql: &crate::store::db::sql::Sql| sql.reads().is_none_or(|reads| reads.person);
    let object = |object: &crate::graphql::plan::ObjectPlan| object.relations.iter().any(is_personal);
    match &relation.shape {
        Shape::One { sql, object: of } | Shape::List { sql, object: of } => own(sql) || object(of),
        Shape::Many { rows, count, connection } => {
            rows.iter().chain(count).any(own) || connection.objects.iter().any(object)
        }
        Shape::Hits { sql, connection, .. } | Shape::Search { sql, connection, .. } => {
            own(sql) || connection.objects.iter().any(object)
        }
        Shape::Nodes { .. } | Shape::Made { .. } => true,
    }
}
