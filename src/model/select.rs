//! The statements that read rows: by id, as pages of a whole table, and as pages per parent for a batch of
//! parents. Each row begins with its key (an id, or its parent's), then the projected columns.

use crate::model::change::is_logged;
use crate::model::cursor::Cursor;
use crate::model::entity::{Column, OrderBy, Relation, RelationKind, TypeId};
use crate::model::filter::Filter;
use crate::model::graph;
use crate::model::page::Page;
use crate::model::reads::{Reading, ordered_by};
use crate::model::viewer::Viewer;
use crate::store::db::sql::{Bind, Sql};
use uuid::Uuid;

/// The key of rows that belong to no other row is the nil UUID.
pub(super) const NO_KEY: &str = "select '00000000-0000-0000-0000-000000000000'::uuid";

/// The columns to read, each once.
#[derive(Debug, Clone, Default)]
pub struct Projection {
    columns: Vec<&'static Column>,
}

impl Projection {
    /// Asks for a column and gives its place in the row. Place 0 is the row's key.
    pub fn add(&mut self, column: &'static Column) -> usize {
        let known = self.columns.iter().position(|other| std::ptr::eq(*other, column));
        1 + known.unwrap_or_else(|| {
            self.columns.push(column);
            self.columns.len() - 1
        })
    }

    /// The columns in their order.
    pub fn columns(&self) -> &[&'static Column] {
        &self.columns
    }

    /// The number of cells in a row.
    pub fn width(&self) -> usize {
        self.columns.len() + 1
    }

    pub(super) fn write(&self, t: &str, sql: &mut Sql) {
        for column in &self.columns {
            sql.push(", ").push(&column.sql.replace("{t}", t));
        }
    }
}

/// A statement under construction for a viewer: hands out aliases and limits each table to what is visible.
pub struct Scope<'a> {
    viewer: &'a Viewer,
    aliases: u32,
}

impl<'a> Scope<'a> {
    /// A scope without aliases yet.
    pub const fn new(viewer: &'a Viewer) -> Self {
        Self { viewer, aliases: 0 }
    }

    /// A name for a row that no other row of the statement has.
    pub fn alias(&mut self) -> String {
        self.aliases += 1;
        format!("t{}", self.aliases)
    }

    /// Writes ` from <table> <alias> where <visible>`.
    pub(super) fn write_table(&self, ty: TypeId, t: &str, sql: &mut Sql) {
        let Some(table) = &graph().types[ty].table else { return };
        sql.push(&format!(" from {} {t} where ", table.name));
        if table.soft_delete {
            sql.push(&format!("{t}.deleted_at is null and "));
        }
        self.write_visible(table.visible, t, sql);
    }

    fn write_visible(&self, visible: &str, t: &str, sql: &mut Sql) {
        // Who sees every project still does not see what hangs on a deleted row, so the rest of the rule stays.
        let (all, visible) = match self.viewer.project_ids() {
            None => ("true", visible.replace("= any({projects})", "is not null")),
            Some(_) => ("false", visible.to_owned()),
        };
        let visible = visible.replace("{t}", t).replace("{all}", all);
        let mut rest = visible.as_str();
        while let Some((before, tail)) = rest.split_once('{') {
            let (name, after) = tail.split_once('}').unwrap_or((tail, ""));
            sql.push(before);
            sql.bind(match name {
                "projects" => Bind::Uuids(self.viewer.project_ids().unwrap_or_default().to_vec()),
                _ => Bind::Uuid(self.viewer.user_id.unwrap_or(Uuid::nil())),
            });
            rest = after;
        }
        sql.push(rest);
    }
}

/// Rows by their ids, a batch. The key is the id.
pub fn by_ids(viewer: &Viewer, ty: TypeId, projection: &Projection, filter: Option<&Filter>) -> Sql {
    let mut scope = Scope::new(viewer);
    let t = scope.alias();
    let mut sql = Sql::default();
    sql.push(&format!("select {t}.id"));
    projection.write(&t, &mut sql);
    scope.write_table(ty, &t, &mut sql);
    sql.push(&format!(" and {t}.id = any(")).bind_keys().push(")");
    write_filter(filter, &mut scope, &t, &mut sql);
    let reads = Reading::new(viewer).rows(ty, projection, filter).finish();
    sql.returning(projection.width()).reading(reads)
}

/// A page of all rows of a type.
pub fn page(viewer: &Viewer, ty: TypeId, projection: &Projection, page: &Page) -> Sql {
    let (projection, id) = with_id(ty, projection);
    let mut scope = Scope::new(viewer);
    let mut sql = Sql::default();
    write_page(&mut scope, ty, &projection, None, page, &mut sql);
    let reads = Reading::new(viewer).list(ty, None, page.filter.as_ref(), ordered_by(ty, &page.order));
    sql.returning(projection.width()).reading(reads.showing(id, &projection).finish())
}

/// The ids of a list's rows are read along, at the end: a change of one of them changes the answer.
fn with_id(ty: TypeId, projection: &Projection) -> (Projection, usize) {
    let mut projection = projection.clone();
    let meta = &graph().types[ty];
    let id = projection.add(&meta.columns[meta.column("id").unwrap_or_default()]);
    (projection, id)
}

/// A page per parent, a batch. The key is the parent's id; rows of a parent stand together and in order, because
/// each parent's page is the inner side of a nested loop.
pub fn page_per_parent(
    viewer: &Viewer,
    relation: &'static Relation,
    projection: &Projection,
    page: &Page,
) -> Sql {
    let ty = relation.target;
    let (projection, id) = with_id(ty, projection);
    let mut scope = Scope::new(viewer);
    let mut sql = Sql::default();
    sql.push("select k.id, c.* from unnest(").bind_keys();
    sql.push(") k(id) cross join lateral (");
    write_page(&mut scope, ty, &projection, Some(relation), page, &mut sql);
    sql.push(") c");
    let order = ordered_by(ty, &page.order);
    let reads = Reading::new(viewer).list(ty, Some(relation), page.filter.as_ref(), order);
    sql.returning(projection.width()).reading(reads.showing(id, &projection).finish())
}

/// How many rows of a type satisfy a condition.
pub fn count(viewer: &Viewer, ty: TypeId, filter: Option<&Filter>) -> Sql {
    let mut scope = Scope::new(viewer);
    let t = scope.alias();
    let mut sql = Sql::default();
    sql.push(NO_KEY).push(", count(*)");
    scope.write_table(ty, &t, &mut sql);
    write_filter(filter, &mut scope, &t, &mut sql);
    let reads = Reading::new(viewer).list(ty, None, filter, Vec::new());
    sql.returning(2).reading(reads.finish())
}

/// How many rows each parent has, a batch.
pub fn count_per_parent(viewer: &Viewer, relation: &'static Relation, filter: Option<&Filter>) -> Sql {
    let mut scope = Scope::new(viewer);
    let t = scope.alias();
    let mut sql = Sql::default();
    sql.push("select k.id, c.* from unnest(").bind_keys();
    sql.push(") k(id) cross join lateral (select count(*)");
    scope.write_table(relation.target, &t, &mut sql);
    write_join(relation, &t, &mut sql);
    write_filter(filter, &mut scope, &t, &mut sql);
    sql.push(") c");
    let reads = Reading::new(viewer).list(relation.target, Some(relation), filter, Vec::new());
    sql.returning(2).reading(reads.finish())
}

/// Finds out of which entity each id is. The rows are (id, place among the entities). What it reads of entities that
/// are not logged it does not say: entries of the trail stay as they are, but one of an id that was not found may
/// still come.
pub fn types_of(viewer: &Viewer, ids: Vec<Uuid>) -> Sql {
    let scope = &mut Scope::new(viewer);
    let mut sql = Sql::default();
    let mut reads = Reading::new(viewer);
    sql.push("with k as (select unnest(").bind_keys().push(") as id)");
    for (n, (ty, _, table)) in graph().entities().enumerate() {
        let t = scope.alias();
        sql.push(if n == 0 { " " } else { " union all " });
        sql.push(&format!("select {t}.id, {n}::int8"));
        scope.write_table(ty, &t, &mut sql);
        sql.push(&format!(" and {t}.id in (select k.id from k)"));
        if is_logged(table.name) {
            reads = reads.rows(ty, &Projection::default(), None);
        }
    }
    sql.returning(2).reading(reads.finish()).with_keys(ids)
}

fn write_page(
    scope: &mut Scope<'_>,
    ty: TypeId,
    projection: &Projection,
    relation: Option<&'static Relation>,
    page: &Page,
    sql: &mut Sql,
) {
    let t = scope.alias();
    if relation.is_none() {
        sql.push(NO_KEY);
        projection.write(&t, sql);
    } else {
        sql.push("select ");
        let columns: Vec<_> =
            projection.columns().iter().map(|column| column.sql.replace("{t}", &t)).collect();
        sql.push(&columns.join(", "));
    }
    scope.write_table(ty, &t, sql);
    if let Some(relation) = relation {
        write_join(relation, &t, sql);
    }
    write_filter(page.filter.as_ref(), scope, &t, sql);
    let keys = order_keys(ty, &page.order);
    for (cursor, backward) in [(&page.after, false), (&page.before, true)] {
        if let Some(cursor) = cursor {
            sql.push(" and ");
            write_beyond(&keys, cursor, backward, &t, sql);
        }
    }
    write_order(&keys, page.backward, &t, sql);
    sql.push(&format!(" limit {}", page.limit()));
}

fn write_join(relation: &Relation, t: &str, sql: &mut Sql) {
    if let RelationKind::Many { join, .. } = &relation.kind {
        sql.push(" and ").push(&join.replace("{t}", t).replace("{k}", "k.id"));
    }
}

fn write_filter(filter: Option<&Filter>, scope: &mut Scope<'_>, t: &str, sql: &mut Sql) {
    if let Some(filter) = filter {
        sql.push(" and ");
        filter.write(scope, t, sql);
    }
}

/// One key of the full order: the id comes last and settles ties, so no two rows stand at one place.
struct OrderKey {
    sql: &'static str,
    nullable: bool,
    descending: bool,
}

fn order_keys(ty: TypeId, order: &[OrderBy]) -> Vec<OrderKey> {
    let columns = &graph().types[ty].columns;
    let mut keys: Vec<_> = order
        .iter()
        .map(|by| OrderKey {
            sql: columns[by.column].sql.as_str(),
            nullable: columns[by.column].nullable,
            descending: by.descending,
        })
        .collect();
    // The id follows the last key's direction: one index serves both, forward or backward.
    let descending = keys.last().is_some_and(|key| key.descending);
    keys.push(OrderKey { sql: "{t}.id", nullable: false, descending });
    keys
}

fn write_order(keys: &[OrderKey], backward: bool, t: &str, sql: &mut Sql) {
    sql.push(" order by ");
    for (n, key) in keys.iter().enumerate() {
        let direction = if key.descending == backward { "asc" } else { "desc" };
        // NULLs come last in a list, whichever way it is ordered, and so first when it is read from its end.
        let nulls = match (key.nullable, backward) {
            (false, _) => "",
            (true, false) => " nulls last",
            (true, true) => " nulls first",
        };
        let comma = if n == 0 { "" } else { ", " };
        sql.push(&format!("{comma}{} {direction}{nulls}", key.sql.replace("{t}", t)));
    }
}

/// Holds for rows beyond the cursor: after it, or before it.
fn write_beyond(keys: &[OrderKey], cursor: &Cursor, before: bool, t: &str, sql: &mut Sql) {
    let id = Some(Bind::Uuid(cursor.id));
    let values: Vec<&Option<Bind>> = cursor.values.iter().chain(std::iter::once(&id)).collect();
    let uniform = keys.iter().all(|key| !key.nullable && key.descending == keys[0].descending);
    if uniform {
        // A row comparison is one range of an index.
        let names: Vec<_> = keys.iter().map(|key| key.sql.replace("{t}", t)).collect();
        let operator = if keys[0].descending == before { ">" } else { "<" };
        sql.push(&format!("({}) {operator} (", names.join(", ")));
        for (n, value) in values.into_iter().flatten().enumerate() {
            sql.push(if n == 0 { "" } else { ", " }).bind(value.clone());
        }
        sql.push(")");
        return;
    }
    sql.push("(");
    for n in 0..keys.len() {
        sql.push(if n == 0 { "(" } else { " or (" });
        for (key, value) in keys.iter().zip(&values).take(n) {
            write_same(key, value.as_ref(), t, sql);
            sql.push(" and ");
        }
        write_past(&keys[n], values[n].as_ref(), before, t, sql);
        sql.push(")");
    }
    sql.push(")");
}

fn write_same(key: &OrderKey, value: Option<&Bind>, t: &str, sql: &mut Sql) {
    let name = key.sql.replace("{t}", t);
    match value {
        Some(value) => sql.push(&format!("{name} = ")).bind(value.clone()),
        None => sql.push(&format!("{name} is null")),
    };
}

/// Holds for rows that one key alone puts beyond the value; NULLs stand at the end.
fn write_past(key: &OrderKey, value: Option<&Bind>, before: bool, t: &str, sql: &mut Sql) {
    let name = key.sql.replace("{t}", t);
    let Some(value) = value else {
        // Nothing stands after the NULLs, and before them stands all that is none.
        sql.push(&if before { format!("{name} is not null") } else { "false".to_owned() });
        return;
    };
    let operator = if key.descending == before { ">" } else { "<" };
    sql.push(&format!("({name} {operator} ")).bind(value.clone());
    sql.push(&if key.nullable && !before { format!(" or {name} is null)") } else { ")".to_owned() });
}
