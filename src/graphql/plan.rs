//! Plans: a selection, turned once into what has to be read and what has to be written. A plan is made for a
//! level, not for a row; afterwards rows cost neither look-ups by name nor futures.

use async_graphql::parser::types::SelectionSet;
use async_graphql::{Pos, Value};
use uuid::Uuid;

use crate::error::{Error, Result};
use crate::graphql::arguments::{items, read_name, read_page, read_size};
use crate::graphql::document::{Document, Selected};
use crate::graphql::search::Question;
use crate::graphql::search::plan::{SearchField, SearchPlan};
use crate::model::aggregate::{DEFAULT_GROUPS, MAX_GROUPS, aggregate as aggregate_sql};
use crate::model::cursor::{CursorKey, Fingerprint};
use crate::model::entity::{ColumnType, OrderBy, Relation, RelationKind, Type, TypeId};
use crate::model::filter::Filter;
use crate::model::lineage::{DEFAULT_DEPTH, MAX_DEPTH, Walk, lineage};
use crate::model::page::Page;
use crate::model::select::{Projection, by_ids, count_per_parent, page_per_parent};
use crate::model::viewer::Viewer;
use crate::model::{graph, lineage::DIRECTION};
use crate::store::db::reads::Notes;
use crate::store::db::rows::RowRef;
use crate::store::db::sql::Sql;

/// What planning needs to know besides the selection.
pub(crate) struct Planner<'a> {
    pub(crate) document: Document<'a>,
    pub(crate) viewer: &'a Viewer,
    pub(crate) cursors: &'a CursorKey,
    pub(crate) max_page_size: u32,
    /// What the answer depends on besides what its statements say.
    pub(crate) notes: &'a Notes,
    /// Inside an aggregate: what its groups are made of.
    pub(crate) grouping: Option<Grouping>,
}

/// What the groups of an aggregate are made of.
#[derive(Clone)]
pub(crate) struct Grouping {
    pub(crate) entity: TypeId,
    /// Places in the key type's columns.
    pub(crate) by: Vec<usize>,
    pub(crate) filter: Option<Filter>,
}

/// A field as it will be written: its key, and where it stands in the document for errors.
pub(crate) struct Slot<T> {
    /// The response key.
    pub(crate) key: String,
    /// `"key":`, written as it is.
    pub(crate) json: Box<[u8]>,
    pub(crate) pos: Pos,
    pub(crate) value: T,
}

impl<T> Slot<T> {
    pub(crate) fn new(selected: &Selected<'_>, value: T) -> Self {
        // Response keys are GraphQL names: nothing in them needs an escape.
        let json = format!("\"{}\":", selected.key).into_bytes().into_boxed_slice();
        Self { key: selected.key.to_owned(), json, pos: selected.first().pos, value }
    }
}

/// How to write an object that is made of a row.
pub(crate) struct ObjectPlan {
    pub(crate) name: &'static str,
    pub(crate) fields: Vec<Slot<FieldPlan>>,
    /// What to load for the rows; the fields name them by their place.
    pub(crate) relations: Vec<RelationPlan>,
}

pub(crate) enum FieldPlan {
    Typename,
    Column {
        cell: usize,
        ty: ColumnType,
        nullable: bool,
    },
    /// An object of the same row.
    Nested(&'static str, Vec<Slot<Self>>),
    /// The place in `ObjectPlan::relations`.
    Relation(usize),
    /// Its arguments are wrong: it fails in each object that has it, and where there is no object it does not.
    Wrong(Error),
}

/// A relation to load for a level.
pub(crate) struct RelationPlan {
    /// The cell that holds the key: the id of the row, or of the related one.
    pub(crate) key: usize,
    pub(crate) shape: Shape,
}

pub(crate) enum Shape {
    /// One row at most.
    One { sql: Sql, object: ObjectPlan },
    /// A page per row.
    Many { rows: Option<Sql>, count: Option<Sql>, connection: ConnectionPlan },
    /// A plain list per row.
    List { sql: Sql, object: ObjectPlan },
    /// Rows of any entity by their ids; one object, or a list in the order of the ids.
    Nodes { ids: Vec<Uuid>, list: bool, types: Vec<(Sql, ObjectPlan)> },
    /// A row that is made here and not in the database.
    Made { row: RowRef, object: ObjectPlan },
    /// Hits per row: those like it, or those that belong to it and answer a question.
    Hits { question: Box<Question>, sql: Sql, connection: ConnectionPlan, fields: Vec<Slot<EdgeField>> },
    /// Rows found by their meaning.
    Search { question: Box<Question>, sql: Sql, connection: ConnectionPlan },
}

/// How to write a connection.
pub(crate) struct ConnectionPlan {
    pub(crate) name: String,
    pub(crate) edge_name: String,
    pub(crate) fields: Vec<Slot<ConnectionField>>,
    /// The objects that its fields make of the same rows.
    pub(crate) objects: Vec<ObjectPlan>,
    pub(crate) projection: Projection,
    pub(crate) page: Page,
    /// Whether anything asks for rows.
    pub(crate) wants_rows: bool,
    pub(crate) wants_count: bool,
    /// What cursors are made of, when any are asked for: the order's cells, then the id's.
    pub(crate) cursor: Option<(Fingerprint, Vec<usize>)>,
    /// What else is asked of a search.
    pub(crate) search: Option<SearchPlan>,
}

impl ConnectionPlan {
    /// A connection of which nothing is asked yet.
    pub(crate) fn new(name: String, edge_name: String, page: Page) -> Self {
        Self {
            name,
            edge_name,
            fields: Vec::new(),
            objects: Vec::new(),
            projection: Projection::default(),
            page,
            wants_rows: false,
            wants_count: false,
            cursor: None,
            search: None,
        }
    }
}

pub(crate) enum ConnectionField {
    Typename,
    TotalCount,
    /// The place in `ConnectionPlan::objects`.
    Nodes(usize),
    Edges(Vec<Slot<EdgeField>>),
    PageInfo(Vec<Slot<PageInfoField>>),
    /// Of a search: what it could not do, what hits have in common, hits in groups, and what a budget left out.
    Degraded,
    Facets(Vec<Slot<SearchField>>),
    Groups(Vec<Slot<SearchField>>),
    Cut(Vec<Slot<SearchField>>),
}

pub(crate) enum EdgeField {
    Typename,
    Cursor,
    Node(usize),
    /// Of a hit: its score, what each way of searching says of it, and where the question stands in it.
    Score,
    Dense,
    DenseRank,
    Lexical,
    LexicalRank,
    Terms,
    Snippet,
}

pub(crate) enum PageInfoField {
    Typename,
    HasNextPage,
    HasPreviousPage,
    StartCursor,
    EndCursor,
}

impl Planner<'_> {
    /// Plans an object of a type; the columns that it needs join the projection.
    pub(crate) fn object(&self, ty: TypeId, sets: &[&SelectionSet], into: &mut Projection) -> ObjectPlan {
        let mut relations = Vec::new();
        let fields = self.fields(ty, sets, into, &mut relations);
        ObjectPlan { name: &graph().types[ty].name, fields, relations }
    }

    /// Plans an object whose rows are read by a statement of their own.
    pub(crate) fn lone_object(&self, ty: TypeId, selected: &Selected<'_>) -> (Projection, ObjectPlan) {
        let mut projection = Projection::default();
        let object = self.object(ty, &selected.sets(), &mut projection);
        (projection, object)
    }

    /// An argument that was given; null stands for none.
    pub(crate) fn argument(&self, selected: &Selected<'_>, name: &str) -> Option<Value> {
        self.document.argument(&selected.first().node, name).filter(|value| *value != Value::Null)
    }

    fn fields(
        &self,
        ty: TypeId,
        sets: &[&SelectionSet],
        into: &mut Projection,
        relations: &mut Vec<RelationPlan>,
    ) -> Vec<Slot<FieldPlan>> {
        let meta = &graph().types[ty];
        self.notes.shows(meta.hint);
        let mut fields = Vec::new();
        let applies =
            |condition: &str| condition == meta.name || (condition == "Node" && meta.table.is_some());
        for selected in self.document.collect(sets, &applies) {
            let name = selected.name();
            let plan = if name == "__typename" {
                FieldPlan::Typename
            } else if let Some(column) = meta.columns.iter().find(|column| column.name == name) {
                FieldPlan::Column { cell: into.add(column), ty: column.ty, nullable: column.nullable }
            } else if let Some(nested) = meta.nested.iter().find(|nested| nested.name == name) {
                let inner = self.fields(nested.ty, &selected.sets(), into, relations);
                FieldPlan::Nested(&graph().types[nested.ty].name, inner)
            } else if let Some(relation) = meta.relation(name) {
                match self.relation(meta, relation, &selected, into) {
                    Ok(plan) => {
                        relations.push(plan);
                        FieldPlan::Relation(relations.len() - 1)
                    }
                    Err(error) => FieldPlan::Wrong(error),
                }
            } else {
                FieldPlan::Wrong(Error::internal(format!("{}.{name} is in no plan", meta.name)))
            };
            fields.push(Slot::new(&selected, plan));
        }
        fields
    }

    fn relation(
        &self,
        owner: &'static Type,
        relation: &'static Relation,
        selected: &Selected<'_>,
        into: &mut Projection,
    ) -> Result<RelationPlan> {
        let key = match relation.kind {
            RelationKind::One { key } => into.add(&owner.columns[key]),
            RelationKind::Groups => 0,
            _ => into.add(&owner.columns[owner.column("id").unwrap_or_default()]),
        };
        let shape = match &relation.kind {
            RelationKind::One { .. } => {
                let (projection, object) = self.lone_object(relation.target, selected);
                Shape::One { sql: by_ids(self.viewer, relation.target, &projection, None), object }
            }
            RelationKind::Many { order, .. } => {
                let connection = self.connection(relation.target, order, selected)?;
                let rows = connection.wants_rows.then(|| {
                    page_per_parent(self.viewer, relation, &connection.projection, &connection.page)
                });
                let count = connection.wants_count;
                let count =
                    count.then(|| count_per_parent(self.viewer, relation, connection.page.filter.as_ref()));
                Shape::Many { rows, count, connection }
            }
            RelationKind::Lineage => {
                let walk = self.walk(selected)?;
                let (projection, object) = self.lone_object(relation.target, selected);
                Shape::List { sql: lineage(self.viewer, &projection, &walk), object }
            }
            RelationKind::Groups => self.groups(relation.target, selected)?,
            RelationKind::Hits { owner } => self.hits(relation.target, *owner, selected)?,
        };
        Ok(RelationPlan { key, shape })
    }

    /// Plans a connection to rows of a type.
    pub(crate) fn connection(
        &self,
        ty: TypeId,
        order: &[OrderBy],
        selected: &Selected<'_>,
    ) -> Result<ConnectionPlan> {
        let argument = |name: &str| self.argument(selected, name);
        let page = read_page(ty, order, self.max_page_size, self.cursors, &argument)?;
        let meta = &graph().types[ty];
        let (name, edge_name) = (format!("{}Connection", meta.name), format!("{}Edge", meta.name));
        Ok(self.connection_of(name, edge_name, ty, page, selected))
    }

    /// Plans a connection of which the page is known.
    pub(crate) fn connection_of(
        &self,
        name: String,
        edge_name: String,
        ty: TypeId,
        page: Page,
        selected: &Selected<'_>,
    ) -> ConnectionPlan {
        let mut plan = ConnectionPlan::new(name, edge_name, page);
        let mut wants_cursor = false;
        let type_name = plan.name.clone();
        for field in self.document.collect(&selected.sets(), &|condition| condition == type_name) {
            let value = match field.name() {
                "__typename" => ConnectionField::Typename,
                "totalCount" => {
                    plan.wants_count = true;
                    ConnectionField::TotalCount
                }
                "nodes" => ConnectionField::Nodes(self.row_object(ty, &field, &mut plan)),
                "edges" => ConnectionField::Edges(self.edges(ty, &field, &mut plan, &mut wants_cursor)),
                "pageInfo" => ConnectionField::PageInfo(self.page_info(&field, &mut plan, &mut wants_cursor)),
                _ => self.search_field(ty, &field, &mut plan),
            };
            plan.wants_rows |= !matches!(value, ConnectionField::Typename | ConnectionField::TotalCount);
            plan.fields.push(Slot::new(&field, value));
        }
        if wants_cursor {
            plan.cursor = Some(self.cursor_cells(ty, &mut plan));
        }
        plan
    }

    fn cursor_cells(&self, ty: TypeId, plan: &mut ConnectionPlan) -> (Fingerprint, Vec<usize>) {
        let meta = &graph().types[ty];
        let id = meta.column("id").unwrap_or_default();
        let order = plan.page.order.iter().map(|by| by.column).chain(std::iter::once(id));
        let cells = order.map(|column| plan.projection.add(&meta.columns[column])).collect();
        (Fingerprint::new(meta, &plan.page.order), cells)
    }

    fn row_object(&self, ty: TypeId, field: &Selected<'_>, plan: &mut ConnectionPlan) -> usize {
        let object = self.object(ty, &field.sets(), &mut plan.projection);
        plan.objects.push(object);
        plan.objects.len() - 1
    }

    pub(crate) fn edges(
        &self,
        ty: TypeId,
        edges: &Selected<'_>,
        plan: &mut ConnectionPlan,
        wants_cursor: &mut bool,
    ) -> Vec<Slot<EdgeField>> {
        let name = plan.edge_name.clone();
        let mut fields = Vec::new();
        for field in self.document.collect(&edges.sets(), &|condition| condition == name) {
            let value = match field.name() {
                "__typename" => EdgeField::Typename,
                "cursor" => {
                    *wants_cursor = true;
                    EdgeField::Cursor
                }
                "node" => EdgeField::Node(self.row_object(ty, &field, plan)),
                _ => self.hit_field(ty, &field, plan),
            };
            fields.push(Slot::new(&field, value));
        }
        fields
    }

    fn page_info(
        &self,
        page_info: &Selected<'_>,
        plan: &mut ConnectionPlan,
        wants_cursor: &mut bool,
    ) -> Vec<Slot<PageInfoField>> {
        let mut fields = Vec::new();
        for field in self.document.collect(&page_info.sets(), &|condition| condition == "PageInfo") {
            let value = match field.name() {
                "hasNextPage" => PageInfoField::HasNextPage,
                "hasPreviousPage" => PageInfoField::HasPreviousPage,
                "startCursor" => PageInfoField::StartCursor,
                "endCursor" => PageInfoField::EndCursor,
                _ => PageInfoField::Typename,
            };
            *wants_cursor |= matches!(value, PageInfoField::StartCursor | PageInfoField::EndCursor);
            plan.page.peek |= match value {
                PageInfoField::HasNextPage => !plan.page.backward,
                PageInfoField::HasPreviousPage => plan.page.backward,
                _ => false,
            };
            fields.push(Slot::new(&field, value));
        }
        fields
    }

    fn groups(&self, group: TypeId, selected: &Selected<'_>) -> Result<Shape> {
        let missing = || Error::internal("groups outside of an aggregate");
        let grouping = self.grouping.as_ref().ok_or_else(missing)?;
        let table = graph().types[grouping.entity].table.as_ref();
        let aggregate = table.and_then(|table| table.aggregate.as_ref()).ok_or_else(missing)?;
        let first = self.argument(selected, "first");
        let first = first.map(|value| read_size(value, "first", MAX_GROUPS)).transpose()?;
        let first = first.unwrap_or(DEFAULT_GROUPS);
        let (projection, object) = self.lone_object(group, selected);
        let by = Some((&grouping.by[..], first));
        let filter = grouping.filter.as_ref();
        let sql = aggregate_sql(self.viewer, grouping.entity, aggregate, &projection, by, filter);
        Ok(Shape::List { sql, object })
    }

    fn walk(&self, selected: &Selected<'_>) -> Result<Walk> {
        let direction =
            self.argument(selected, "direction").and_then(read_name).unwrap_or_else(|| "UP".to_owned());
        let direction = direction.to_ascii_lowercase();
        if !DIRECTION.values.contains(&direction.as_str()) {
            return Err(Error::bad_input("direction", "is neither UP nor DOWN nor BOTH"));
        }
        let depth =
            self.argument(selected, "depth").map(|value| read_size(value, "depth", MAX_DEPTH)).transpose()?;
        let kinds = self.argument(selected, "kinds").map(items).unwrap_or_default();
        Ok(Walk {
            up: direction != "down",
            down: direction != "up",
            depth: depth.unwrap_or(DEFAULT_DEPTH),
            kinds: kinds.into_iter().filter_map(read_name).map(|kind| kind.to_ascii_lowercase()).collect(),
        })
    }
}
