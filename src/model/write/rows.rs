//! The statements that mutations share: look references up, lock the row that is to change, insert, update. Rows go
//! to PostgreSQL as one JSON value each, so that a statement's text depends on its columns alone.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};
use uuid::Uuid;

use super::{Found, Write, may_write};
use crate::error::{Code, Error, Result};
use crate::model::entity::{Table, Type, TypeId};
use crate::model::graph;
use crate::model::mutation::{Field, Kind, Row, Values};
use crate::model::select::Scope;
use crate::model::viewer::{Role, Viewer};
use crate::store::db::rows::RowSet;
use crate::store::db::sql::{Bind, Sql};
use crate::store::db::transaction::{Transaction, WriteError};

/// The row that a mutation changes, as it was. Nobody else changes it before the transaction ends.
pub(super) struct Locked {
    pub(super) entity: &'static str,
    pub(super) id: Uuid,
    pub(super) project_id: Option<Uuid>,
    /// Those of its columns that were asked for.
    pub(super) old: Map<String, Value>,
}

impl Locked {
    pub(super) fn text(&self, column: &str) -> &str {
        self.old.get(column).and_then(Value::as_str).unwrap_or_default()
    }

    pub(super) fn int(&self, column: &str) -> i64 {
        self.old.get(column).and_then(Value::as_i64).unwrap_or_default()
    }
}

/// Where the rows of an entity stand.
pub(super) fn table_of(entity: &str) -> (TypeId, &'static Type, &'static Table) {
    // Mutations name their entities in the program, and tests call each of them.
    let Some(found) = graph().entities().find(|(_, ty, _)| ty.name == entity) else {
        panic!("{entity} is not declared");
    };
    found
}

/// The project of the row `t`, in SQL.
fn project_of(ty: &Type, t: &str) -> String {
    match ty.name.as_str() {
        "Project" => format!("{t}.id"),
        _ if ty.column_by_sql("project_id").is_some() => format!("{t}.project_id"),
        _ => "null::uuid".to_owned(),
    }
}

/// Writes whether the viewer only reads in the project that an expression gives.
fn write_read_only(viewer: &Viewer, project: &str, sql: &mut Sql) {
    match viewer.user_id {
        Some(user) if viewer.role != Role::Admin => {
            sql.push(&format!(
                "exists (select from project_members m where m.project_id = {project} and m.role = 'viewer' and m.user_id = "
            ));
            sql.bind(Bind::Uuid(user)).push(")");
        }
        _ => {
            sql.push("false");
        }
    }
}

fn read_bool(rows: &RowSet, row: usize, column: usize) -> bool {
    rows.cell(row, column) == Some(&[1])
}

impl Write<'_> {
    /// Looks up every row that the input refers to, in one statement. One that the viewer may not see is not found.
    pub(super) async fn look_up(&mut self, input: &Values) -> Result<()> {
        let mut references = Vec::new();
        collect(self.mutation.fields, input, &mut references);
        let mut wanted: BTreeMap<&'static str, BTreeSet<Uuid>> = BTreeMap::new();
        for (entity, id, _) in &references {
            wanted.entry(entity).or_default().insert(*id);
        }
        if wanted.is_empty() {
            return Ok(());
        }
        let entities: Vec<_> = wanted.keys().copied().collect();
        let mut scope = Scope::new(self.viewer);
        let mut sql = Sql::default();
        for (n, (entity, ids)) in wanted.into_iter().enumerate() {
            let (id, ty, _) = table_of(entity);
            let t = scope.alias();
            let project = project_of(ty, &t);
            let union = if n > 0 { " union all " } else { "" };
            sql.push(&format!("{union}select {n}::bigint, {t}.id, {project}, "));
            write_read_only(self.viewer, &project, &mut sql);
            scope.write_table(id, &t, &mut sql);
            sql.push(&format!(" and {t}.id = any(")).bind(Bind::Uuids(ids.into_iter().collect())).push(")");
        }
        let rows = self.tx.rows(&sql.returning(4)).await?;
        for row in 0..rows.len() {
            let place = rows.bigint(row, 0).and_then(|n| usize::try_from(n).ok()).unwrap_or_default();
            let found = Found { project_id: rows.uuid(row, 2), read_only: read_bool(&rows, row, 3) };
            if let (Some(entity), Some(id)) = (entities.get(place), rows.uuid(row, 1)) {
                self.found.insert((entity, id), found);
            }
        }
        match references.into_iter().find(|(entity, id, _)| !self.found.contains_key(&(*entity, *id))) {
            Some((entity, _, path)) => Err(not_found(entity, path)),
            None => Ok(()),
        }
    }

    /// Reads and locks the row that `input.id` names; it must be visible, in a project in which the viewer writes,
    /// and of the version that `expectedVersion` says.
    pub(super) async fn lock(
        &mut self,
        entity: &'static str,
        values: &Values,
        field: &str,
        columns: impl IntoIterator<Item = &'static str>,
    ) -> Result<Locked> {
        let id = values.uuid(field).unwrap_or_default();
        let (type_id, ty, _) = table_of(entity);
        let mut scope = Scope::new(self.viewer);
        let t = scope.alias();
        let project = project_of(ty, &t);
        let mut sql = Sql::default();
        sql.push(&format!("select {project}, "));
        write_read_only(self.viewer, &project, &mut sql);
        sql.push(", ").push(&json_object(&t, columns.into_iter().chain(["version"])));
        scope.write_table(type_id, &t, &mut sql);
        sql.push(&format!(" and {t}.id = ")).bind(Bind::Uuid(id));
        sql.push(&format!(" for no key update of {t}"));
        let rows = self.tx.rows(&sql.returning(3)).await?;
        if rows.is_empty() {
            return Err(not_found(entity, values.at(field)));
        }
        let found = Found { project_id: rows.uuid(0, 0), read_only: read_bool(&rows, 0, 1) };
        may_write(found)?;
        let locked = Locked { entity, id, project_id: found.project_id, old: read_object(&rows, 0, 2) };
        let (version, expected) = (locked.int("version"), values.get("expectedVersion"));
        if expected.and_then(Value::as_i64).is_some_and(|expected| expected != version) {
            let text = format!("is not the version of the row, which is {version} by now");
            return Err(Error::new(Code::Conflict, text).at(values.at("expectedVersion")));
        }
        Ok(locked)
    }

    /// Changes a locked row and notes it in the trail; `row` holds columns that `lock` has read.
    pub(super) async fn update(
        &mut self,
        locked: &Locked,
        event: &'static str,
        values: &Values,
        row: Row,
    ) -> Result<Vec<Uuid>> {
        let (_, _, table) = table_of(locked.entity);
        let columns: Vec<&'static str> = row.keys().copied().collect();
        let list = columns.join(", ");
        let mut sql = Sql::default();
        sql.push(&format!(
            "update {0} t set ({list}) = (select {list} from jsonb_populate_record(null::{0}, ",
            table.name
        ));
        sql.bind(Bind::Json(json(row))).push(")) where t.id = ").bind(Bind::Uuid(locked.id));
        sql.push(" returning ").push(&json_object("t", columns.into_iter().chain(["version"])));
        let rows = self.tx.rows(&sql.returning(1)).await;
        let rows = rows.map_err(|error| self.refused(error, table.name, &values.path))?;
        let new = read_object(&rows, 0, 0);
        self.note_update(event, locked, &new);
        Ok(vec![locked.id])
    }

    /// Inserts rows of one set of columns and notes them in the trail. Each comes with its input, for errors.
    pub(super) async fn insert(
        &mut self,
        entity: &'static str,
        event: &'static str,
        rows: Vec<(Uuid, Row)>,
        path: &str,
    ) -> Result<Vec<Uuid>> {
        let (_, _, table) = table_of(entity);
        let ids = rows.iter().map(|_| Uuid::now_v7()).collect::<Vec<_>>();
        let mut written = Vec::with_capacity(rows.len());
        for (id, (project, mut row)) in ids.iter().zip(rows) {
            self.note_insert(event, entity, *id, project, &row);
            row.insert("id", id.to_string().into());
            written.push(row);
        }
        let inserted = insert_rows(&mut self.tx, table.name, written).await;
        inserted.map_err(|error| self.refused(error, table.name, path))?;
        Ok(ids)
    }

    /// Inserts one row.
    pub(super) async fn insert_one(
        &mut self,
        entity: &'static str,
        event: &'static str,
        values: &Values,
        project: Option<Uuid>,
        mut row: Row,
    ) -> Result<Vec<Uuid>> {
        // A column that nobody gave takes its default.
        row.retain(|_, value| !value.is_null());
        self.insert(entity, event, vec![(project.unwrap_or_default(), row)], &values.path).await
    }
}

/// Inserts rows of one set of columns, with one statement.
pub(in crate::model) async fn insert_rows(
    tx: &mut Transaction,
    table: &str,
    rows: Vec<Row>,
) -> Result<(), WriteError> {
    let Some(first) = rows.first() else { return Ok(()) };
    let list = first.keys().copied().collect::<Vec<_>>().join(", ");
    let mut sql = Sql::default();
    sql.push(&format!(
        "insert into {table} ({list}) select {list} from jsonb_populate_recordset(null::{table}, "
    ));
    sql.bind(Bind::Json(rows.into_iter().map(json).collect())).push(")");
    tx.rows(&sql.returning(0)).await?;
    Ok(())
}

/// All references of an input, with their places.
fn collect(fields: &'static [Field], values: &Values, into: &mut Vec<(&'static str, Uuid, String)>) {
    for field in fields {
        match field.kind {
            Kind::Row(entity) => {
                into.extend(values.uuid(field.name).map(|id| (entity, id, values.at(field.name))));
            }
            Kind::Items(_, fields, _) => {
                values.items.iter().for_each(|item| collect(fields, item, into));
            }
            _ => {}
        }
    }
}

pub(super) fn not_found(entity: &str, path: String) -> Error {
    Error::new(Code::NotFound, format!("names no {entity} that there is")).at(path)
}

/// `jsonb_build_object('a', t.a, ...)`; a set, so that each column is there once.
fn json_object(t: &str, columns: impl Iterator<Item = &'static str>) -> String {
    let columns: BTreeSet<_> = columns.collect();
    let members: Vec<_> = columns.into_iter().map(|column| format!("'{column}', {t}.{column}")).collect();
    format!("jsonb_build_object({})", members.join(", "))
}

fn read_object(rows: &RowSet, row: usize, column: usize) -> Map<String, Value> {
    // The first byte is the version of the format.
    let json = rows.cell(row, column).and_then(|bytes| bytes.get(1..)).unwrap_or_default();
    serde_json::from_slice(json).unwrap_or_default()
}

fn json(row: Row) -> Value {
    row.into_iter().map(|(column, value)| (column.to_owned(), value)).collect()
}
