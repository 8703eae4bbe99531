//! `Mutation`: the root fields run one after the other, each in a transaction of its own, and each is followed by
//! reading its rows through a plan like any others'. A field that fails is null and the others go on.

use std::borrow::Cow;
use std::sync::atomic::Ordering;

use async_graphql::parser::types::Field;
use async_graphql::registry::Registry;
use async_graphql::resolver_utils::{ContainerType, resolve_container_serial};
use async_graphql::{Context, ContextSelectionSet, ObjectType, OutputType, Positioned, ServerResult, Value};
use uuid::Uuid;

use crate::error::{Error, Result};
use crate::graphql::document::{Document, Selected};
use crate::graphql::input::{read_input, register_inputs};
use crate::graphql::level::{Child, resolve};
use crate::graphql::plan::{Planner, RelationPlan, Shape, Slot};
use crate::graphql::root::{Outcome, is_meta, row_of};
use crate::graphql::types::meta::{add_object, argument, field};
use crate::graphql::write::{FieldError, PathSegment, Writer};
use crate::graphql::{Carried, Operation};
use crate::model::graph;
use crate::model::mutation::{MUTATIONS, Permit, mutation};
use crate::model::select::by_ids;
use crate::model::write::write;

/// The root of all mutations.
pub(crate) struct Mutation;

impl OutputType for Mutation {
    fn type_name() -> Cow<'static, str> {
        "Mutation".into()
    }

    fn create_type_info(registry: &mut Registry) -> String {
        register_inputs(registry);
        let fields = MUTATIONS.map(|mutation| {
            let ty =
                if mutation.list { format!("[{}!]", mutation.returns) } else { mutation.returns.to_owned() };
            let needs = mutation.needs.as_str().to_ascii_uppercase();
            let doc = format!("{} Needs the role {needs}.", mutation.doc);
            let input = argument("input", &format!("{}!", mutation.input_name()), "What to write.");
            field(mutation.name, &doc, &ty, [input])
        });
        add_object(registry, "Mutation", "All that can be written.", fields);
        "Mutation!".to_owned()
    }

    async fn resolve(&self, ctx: &ContextSelectionSet<'_>, _: &Positioned<Field>) -> ServerResult<Value> {
        resolve_container_serial(ctx, self).await
    }
}

impl ContainerType for Mutation {
    /// As in `Query`: the first field that is asked for runs the whole operation.
    async fn resolve_field(&self, ctx: &Context<'_>) -> ServerResult<Option<Value>> {
        if let Ok(Carried(operation)) = ctx.data::<Carried>() {
            let document = Document {
                operation: &ctx.query_env.operation.node,
                fragments: &ctx.query_env.fragments,
                variables: &ctx.query_env.variables,
            };
            operation.outcome.get_or_init(|| Box::pin(run(operation, document))).await;
        }
        Ok(Some(Value::Null))
    }
}

impl ObjectType for Mutation {}

/// What a root field came to.
struct Done {
    slot: Slot<()>,
    relation: RelationPlan,
    child: Child,
    /// How many rows there are, if the answer is a list.
    list: Option<usize>,
}

async fn run(operation: &Operation, document: Document<'_>) -> Outcome {
    let mut errors = Vec::new();
    let mut keys = Vec::new();
    let mut done = Vec::new();
    let set = &document.operation.selection_set.node;
    let selected = document.collect(&[set], &|condition| condition == "Mutation");
    for (n, selected) in selected.iter().enumerate() {
        let mut place = None;
        if !is_meta(selected.name()) {
            match run_field(operation, document, selected, n).await {
                Ok(field) => {
                    done.push(field);
                    place = Some(done.len() - 1);
                }
                Err(error) => errors.push(FieldError {
                    error,
                    path: vec![PathSegment::Key(selected.key.to_owned())],
                    pos: selected.first().pos,
                }),
            }
        }
        keys.push((selected.key.to_owned(), place, is_meta(selected.name())));
    }
    let mut writer = Writer::new(&operation.cursors);
    writer.errors = errors;
    let mut fields = Vec::with_capacity(keys.len());
    for (key, place, meta) in keys {
        let start = writer.json.len();
        match place {
            Some(place) => {
                let Done { slot, relation, child, list } = &done[place];
                writer.nullable(|out| {
                    out.under(&slot.key, |out| match list {
                        Some(len) => out.items(*len, |out, n| out.relation(relation, child, n, slot.pos)),
                        None => out.relation(relation, child, 0, slot.pos),
                    })
                });
            }
            None => writer.json.extend_from_slice(b"null"),
        }
        fields.push((key, (!meta).then_some(start..writer.json.len())));
    }
    Outcome { fields, json: writer.json, errors: writer.errors }
}

/// Writes, and reads what was written.
async fn run_field(
    operation: &Operation,
    document: Document<'_>,
    selected: &Selected<'_>,
    place: usize,
) -> Result<Done> {
    let viewer = &operation.loaders.viewer;
    let missing = || Error::internal(format!("{} is no mutation", selected.name()));
    let mutation = mutation(selected.name()).ok_or_else(missing)?;
    let permit = Permit::of(viewer, mutation)?;
    let planner = Planner {
        document,
        viewer,
        cursors: &operation.cursors,
        max_page_size: operation.max_page_size,
        notes: operation.loaders.session.notes(),
        grouping: None,
    };
    let input = read_input(mutation, planner.argument(selected, "input").unwrap_or_default())?;
    let ids = write(&operation.loaders.session, permit, &operation.origin, place, &input).await?;
    operation.pruner.now_and_then(&operation.loaders.session);
    operation.written.store(true, Ordering::Relaxed);
    let (relation, child) = read(operation, &planner, selected, mutation.returns, &ids).await?;
    let list = mutation.list.then_some(ids.len());
    Ok(Done { slot: Slot::new(selected, ()), relation, child, list })
}

/// The rows as the selection wants them, by loaders that remember nothing from before the write.
async fn read(
    operation: &Operation,
    planner: &Planner<'_>,
    selected: &Selected<'_>,
    returns: &str,
    ids: &[Uuid],
) -> Result<(RelationPlan, Child)> {
    let missing = || Error::internal(format!("{returns} is not declared"));
    let ty = graph().type_by_name(returns).ok_or_else(missing)?;
    let (projection, object) = planner.lone_object(ty, selected);
    let sql = by_ids(planner.viewer, ty, &projection, None);
    let relation = RelationPlan { key: 0, shape: Shape::One { sql, object } };
    let rows: Vec<_> = ids.iter().map(|id| row_of([*id])).collect();
    let loaders = operation.loaders.renewed();
    let children = resolve(&loaders, std::slice::from_ref(&relation), &rows).await;
    let child = children.into_iter().next().ok_or_else(|| Error::internal("nothing was resolved"))?;
    Ok((relation, child))
}
