//! `Query`: the root fields are the relations of one imaginary row, so that they are planned, loaded and written
//! like any others. The whole operation is executed once, whichever root field async-graphql asks for first.

use std::borrow::Cow;

use async_graphql::parser::types::Field;
use async_graphql::registry::Registry;
use async_graphql::resolver_utils::{ContainerType, resolve_container};
use async_graphql::{Context, ContextSelectionSet, ObjectType, OutputType, Positioned, ServerResult, Value};
use uuid::Uuid;

use crate::error::{Code, Error, Result};
use crate::graphql::arguments::{MAX_LIST, items, read_name, read_scalar, read_uuid};
use crate::graphql::document::{Document, Selected};
use crate::graphql::filter::read_filter;
use crate::graphql::level::resolve;
use crate::graphql::loaders::Loaders;
use crate::graphql::plan::{Grouping, Planner, RelationPlan, Shape, Slot};
use crate::graphql::types::meta::add_object;
use crate::graphql::types::register;
use crate::graphql::write::{FieldError, PathSegment, Writer};
use crate::graphql::{Carried, Operation};
use crate::model::aggregate::{MAX_GROUP_KEYS, aggregate};
use crate::model::audit::{may_audit, verification_type, verify};
use crate::model::change::{Place, now};
use crate::model::entity::{Aggregate, ColumnType, TypeId};
use crate::model::graph;
use crate::model::select::{by_ids, count, page};
use crate::store::db::rows::{RowRef, RowSet};
use crate::store::db::sql::Bind;

/// The root field that tells where to follow from.
pub(crate) const CHANGE_CURSOR: &str = "changeCursor";

/// The root of all queries.
pub(crate) struct Query;

/// What the operation came to: the root fields in the order of the document.
pub(crate) struct Outcome {
    /// Each response key with its JSON; `None` for a field that async-graphql answers itself.
    pub(crate) fields: Vec<(String, Option<std::ops::Range<usize>>)>,
    pub(crate) json: Vec<u8>,
    pub(crate) errors: Vec<FieldError>,
}

impl OutputType for Query {
    fn type_name() -> Cow<'static, str> {
        "Query".into()
    }

    fn create_type_info(registry: &mut Registry) -> String {
        let fields = register(registry);
        add_object(registry, "Query", "All that can be read.", fields.into_values());
        "Query!".to_owned()
    }

    async fn resolve(&self, ctx: &ContextSelectionSet<'_>, _: &Positioned<Field>) -> ServerResult<Value> {
        resolve_container(ctx, self).await
    }
}

impl ContainerType for Query {
    /// The values go past async-graphql: the answer is written from the outcome, not from these nulls.
    async fn resolve_field(&self, ctx: &Context<'_>) -> ServerResult<Option<Value>> {
        if let Ok(Carried(operation)) = ctx.data::<Carried>() {
            let document = Document {
                operation: &ctx.query_env.operation.node,
                fragments: &ctx.query_env.fragments,
                variables: &ctx.query_env.variables,
            };
            operation.outcome.get_or_init(|| run(operation, document)).await;
        }
        Ok(Some(Value::Null))
    }
}

impl ObjectType for Query {}

/// Fields that async-graphql answers.
pub(crate) fn is_meta(name: &str) -> bool {
    name.starts_with("__")
}

/// Plans, loads and writes the whole operation.
async fn run(operation: &Operation, document: Document<'_>) -> Outcome {
    let planner = Planner {
        document,
        viewer: &operation.loaders.viewer,
        cursors: &operation.cursors,
        max_page_size: operation.max_page_size,
        notes: operation.loaders.session.notes(),
        grouping: None,
    };
    let set = &document.operation.selection_set.node;
    let selected = document.collect(&[set], &|condition| condition == "Query");
    let mut writer = Writer::new(&operation.cursors);
    // A place in the log is of use only if the rows beside it are those of just that place.
    let frozen = match selected.iter().any(|selected| selected.name() == CHANGE_CURSOR) {
        true => match freeze(operation).await {
            Ok(frozen) => Some(frozen),
            Err(error) => return nothing(&selected, &error),
        },
        false => None,
    };
    let loaders = frozen.as_ref().map_or(&operation.loaders, |(loaders, _)| loaders);
    let mut keys = Vec::new();
    let mut slots: Vec<Slot<()>> = Vec::new();
    let mut relations = Vec::new();
    let mut row = RootRow(Vec::new());
    for selected in &selected {
        let mut place = None;
        if !is_meta(selected.name()) && selected.name() != CHANGE_CURSOR {
            match planner.root_field(selected, &mut row) {
                Ok(relation) => {
                    relations.push(relation);
                    slots.push(Slot::new(selected, ()));
                    place = Some(slots.len() - 1);
                }
                Err(error) => writer.errors.push(failed(selected, error)),
            }
        }
        keys.push((selected.key.to_owned(), place, selected.name()));
    }
    if frozen.is_some() && relations.is_empty() {
        // Asked for by itself a place is the present one; and no change would ever touch the answer.
        operation.loaders.session.notes().give_up();
    }
    let rows = [row.finish()];
    let children = resolve(loaders, &relations, &rows).await;
    if frozen.is_some() {
        loaders.session.thaw().await;
    }
    let mut fields = Vec::with_capacity(keys.len());
    for (key, place, name) in keys {
        let start = writer.json.len();
        match place {
            Some(place) => {
                let (slot, relation, child) = (&slots[place], &relations[place], &children[place]);
                writer.nullable(|out| out.under(&slot.key, |out| out.relation(relation, child, 0, slot.pos)));
            }
            None => {
                let cursor = frozen.as_ref().filter(|_| name == CHANGE_CURSOR).map(|(_, cursor)| cursor);
                writer.nullable(|out| out.json_of(&cursor));
            }
        }
        fields.push((key, (!is_meta(name)).then_some(start..writer.json.len())));
    }
    Outcome { fields, json: writer.json, errors: writer.errors }
}

fn failed(selected: &Selected<'_>, error: Error) -> FieldError {
    let path = vec![PathSegment::Key(selected.key.to_owned())];
    FieldError { error, path, pos: selected.first().pos }
}

/// An operation of which no field could be read.
fn nothing(selected: &[Selected<'_>], error: &Error) -> Outcome {
    let field =
        |selected: &Selected<'_>| (selected.key.to_owned(), (!is_meta(selected.name())).then_some(0..4));
    let errors = selected.iter().filter(|selected| !is_meta(selected.name()));
    Outcome {
        fields: selected.iter().map(field).collect(),
        json: b"null".to_vec(),
        errors: errors.map(|selected| failed(selected, error.clone())).collect(),
    }
}

/// Loaders that see the database as it is at one moment, and the place of that moment in the change log.
async fn freeze(operation: &Operation) -> Result<(Loaders, String)> {
    let session = operation.loaders.session.frozen().await?;
    let snapshot = now(&session).await?;
    let cursor = Place::after(std::sync::Arc::new(snapshot)).cursor(&operation.cursors);
    Ok((operation.loaders.on(session), cursor))
}

/// The imaginary row that root fields belong to: cell 0 is the nil UUID, the others are ids asked for.
struct RootRow(Vec<Uuid>);

impl RootRow {
    fn add(&mut self, id: Uuid) -> usize {
        self.0.push(id);
        self.0.len()
    }

    fn finish(self) -> RowRef {
        row_of(std::iter::once(Uuid::nil()).chain(self.0))
    }
}

/// A row of ids that stands in no table.
pub(crate) fn row_of(ids: impl IntoIterator<Item = Uuid>) -> RowRef {
    let ids: Vec<_> = ids.into_iter().collect();
    let mut set = RowSet::new(ids.len());
    for id in ids {
        set.push_cell(Some(id.as_bytes()));
    }
    RowRef { set: std::sync::Arc::new(set), row: 0 }
}

impl Planner<'_> {
    fn root_field(&self, selected: &Selected<'_>, row: &mut RootRow) -> Result<RelationPlan> {
        let name = selected.name();
        for (ty, _, table) in graph().entities() {
            if name == table.one {
                let id = self.id(selected)?;
                let (projection, object) = self.lone_object(ty, selected);
                let sql = by_ids(self.viewer, ty, &projection, None);
                return Ok(RelationPlan { key: row.add(id), shape: Shape::One { sql, object } });
            }
            if name == table.many {
                return Ok(RelationPlan { key: 0, shape: self.root_connection(ty, &table.order, selected)? });
            }
            if let Some(aggregate) = &table.aggregate
                && name.strip_suffix("Aggregate") == Some(table.one)
            {
                return Ok(RelationPlan { key: 0, shape: self.aggregate(ty, aggregate, selected)? });
            }
        }
        if let Some((ty, searched)) = graph().searched().find(|(_, searched)| searched.field == name) {
            return Ok(RelationPlan { key: 0, shape: self.search(ty, searched, selected)? });
        }
        let shape = match name {
            "viewer" => {
                self.notes.is_personal();
                let ty = graph().type_by_name("Viewer").unwrap_or_default();
                let (projection, object) = self.lone_object(ty, selected);
                let row = RowRef { set: std::sync::Arc::new(self.viewer.row(projection.columns())), row: 0 };
                Shape::Made { row, object }
            }
            "verifyAuditLog" => self.verification(selected)?,
            "nodes" => {
                let ids = self.ids(selected)?;
                self.nodes(ids, true, selected)
            }
            _ => self.nodes(vec![self.id(selected)?], false, selected),
        };
        Ok(RelationPlan { key: 0, shape })
    }

    fn id(&self, selected: &Selected<'_>) -> Result<Uuid> {
        let id = self.argument(selected, "id").unwrap_or_default();
        read_uuid(&id, "id")
    }

    fn ids(&self, selected: &Selected<'_>) -> Result<Vec<Uuid>> {
        let ids = self.argument(selected, "ids").map(items).unwrap_or_default();
        if ids.len() > MAX_LIST {
            return Err(Error::bad_input("ids", format!("has more than {MAX_LIST} values")));
        }
        ids.iter().enumerate().map(|(n, id)| read_uuid(id, &format!("ids.{n}"))).collect()
    }

    fn root_connection(
        &self,
        ty: TypeId,
        order: &[crate::model::entity::OrderBy],
        selected: &Selected<'_>,
    ) -> Result<Shape> {
        let plan = self.connection(ty, order, selected)?;
        let rows = plan.wants_rows.then(|| page(self.viewer, ty, &plan.projection, &plan.page));
        let count = plan.wants_count.then(|| count(self.viewer, ty, plan.page.filter.as_ref()));
        Ok(Shape::Many { rows, count, connection: plan })
    }

    fn aggregate(&self, entity: TypeId, meta: &'static Aggregate, selected: &Selected<'_>) -> Result<Shape> {
        let grouping = self.grouping(entity, meta, selected)?;
        let filter = grouping.filter.clone();
        let inner = Planner { grouping: Some(grouping), ..*self };
        let (projection, object) = inner.lone_object(meta.totals, selected);
        if projection.columns().is_empty() {
            // Only groups are asked for: the totals' row is there without a statement.
            let row = RootRow(Vec::new()).finish();
            return Ok(Shape::Made { row, object });
        }
        let sql = aggregate(self.viewer, entity, meta, &projection, None, filter.as_ref());
        Ok(Shape::One { sql, object })
    }

    fn verification(&self, selected: &Selected<'_>) -> Result<Shape> {
        if !may_audit(self.viewer) {
            return Err(Error::new(Code::Forbidden, "only administrators may verify the audit log"));
        }
        let place = |name: &str| {
            let value = self.argument(selected, name);
            let value = value.map(|value| read_scalar(ColumnType::BigInt, value, name)).transpose()?;
            Ok::<_, Error>(
                value.and_then(|value| if let Bind::Int(place) = value { Some(place) } else { None }),
            )
        };
        let (from, to) = (place("from")?, place("to")?);
        let (projection, object) = self.lone_object(verification_type(), selected);
        Ok(Shape::One { sql: verify(self.viewer, &projection, from.unwrap_or(1), to), object })
    }

    fn grouping(&self, entity: TypeId, meta: &Aggregate, selected: &Selected<'_>) -> Result<Grouping> {
        let filter = self
            .argument(selected, "filter")
            .map(|value| read_filter(entity, value, "filter"))
            .transpose()?;
        let by = self.argument(selected, "groupBy").map(items).unwrap_or_default();
        if by.len() > MAX_GROUP_KEYS {
            return Err(Error::bad_input("groupBy", format!("has more than {MAX_GROUP_KEYS} keys")));
        }
        let place = |value: Value| {
            let name = read_name(value);
            let known = meta.by.iter().find(|(known, _)| Some(known) == name.as_ref());
            known.map(|(_, place)| *place).ok_or_else(|| Error::bad_input("groupBy", "is no key of a group"))
        };
        Ok(Grouping { entity, by: by.into_iter().map(place).collect::<Result<_>>()?, filter })
    }

    fn nodes(&self, ids: Vec<Uuid>, list: bool, selected: &Selected<'_>) -> Shape {
        let mut types = Vec::new();
        for (ty, _, _) in graph().entities() {
            let (projection, object) = self.lone_object(ty, selected);
            types.push((by_ids(self.viewer, ty, &projection, None), object));
        }
        Shape::Nodes { ids, list, types }
    }
}
