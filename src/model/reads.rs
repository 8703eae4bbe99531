//! What the statements of `select` read, derived from the same declarations as their SQL: which rows, which lists
//! and under which conditions. Where SQL says more than is understood here, the whole table counts: an answer may be
//! forgotten too early and never too late.

use std::borrow::Cow;

use crate::model::catalog::catalog;
use crate::model::change::is_logged;
use crate::model::entity::{Column, ColumnType, OrderBy, Relation, RelationKind, TypeId};
use crate::model::filter::{Filter, Test};
use crate::model::graph;
use crate::model::select::Projection;
use crate::model::viewer::Viewer;
use crate::store::db::reads::{Condition, List, Name, Reads, Rows, Scalar};
use crate::store::db::sql::Bind;

/// Collects what a statement reads. Ends as `None` if it reads a table whose changes are not logged.
pub(super) struct Reading<'a> {
    viewer: &'a Viewer,
    reads: Reads,
    unknown: bool,
}

impl<'a> Reading<'a> {
    /// Nothing yet.
    pub(super) fn new(viewer: &'a Viewer) -> Self {
        Self { viewer, reads: Reads::default(), unknown: false }
    }

    /// Rows of a type by their ids, with what a projection shows of them.
    pub(super) fn rows(mut self, ty: TypeId, projection: &Projection, filter: Option<&Filter>) -> Self {
        self.reads.rows = Rows::Keys;
        // A change of the row itself is told by its id; what else decides is in other tables.
        self.visible(ty);
        self.shown(projection);
        if let Some(filter) = filter {
            self.condition(filter, &mut Vec::new());
        }
        self
    }

    /// Rows of a type that satisfy a condition, perhaps those of a batch of parents. `watched` are the columns that
    /// decide on their order, or that are measured.
    pub(super) fn list(
        mut self,
        ty: TypeId,
        relation: Option<&'static Relation>,
        filter: Option<&Filter>,
        mut watched: Vec<Name>,
    ) -> Self {
        let Some(table) = &graph().types[ty].table else { return self };
        let mut all = vec![self.visible(ty)];
        watched.extend(columns_in(table.visible));
        let mut parent = None;
        if let Some(RelationKind::Many { join, .. }) = relation.map(|relation| &relation.kind) {
            watched.extend(columns_in(join));
            parent = parent_column(join);
            self.other_tables(join, false);
        }
        if let Some(filter) = filter {
            all.push(self.condition(filter, &mut watched));
        }
        watched.sort_unstable();
        watched.dedup();
        let condition = Condition::All(all);
        let table = table.name.into();
        self.reads.lists.push(List { table, condition, parent, watched: Some(watched), born: true });
        self
    }

    /// The rows of the list whose ids stand in this cell are shown, too.
    pub(super) fn showing(mut self, cell: usize, projection: &Projection) -> Self {
        self.reads.rows = Rows::Cell(cell);
        self.shown(projection);
        self
    }

    /// Any row of a type that the viewer sees.
    pub(super) fn any(mut self, ty: TypeId) -> Self {
        self.visible(ty);
        if let Some(table) = &graph().types[ty].table {
            self.table(table.name, List::all);
        }
        self
    }

    pub(super) fn finish(self) -> Option<Reads> {
        (!self.unknown).then_some(self.reads)
    }

    /// What a projection reads of other tables.
    fn shown(&mut self, projection: &Projection) {
        for column in projection.columns() {
            self.other_tables(&column.sql, false);
        }
    }

    /// The part of a type's visibility that its own columns tell; the rest is noted.
    fn visible(&mut self, ty: TypeId) -> Condition {
        let Some(table) = &graph().types[ty].table else { return Condition::All(Vec::new()) };
        self.unknown |= !is_logged(table.name);
        self.reads.person |= table.visible.contains("{user}");
        self.other_tables(table.visible, true);
        let mut all = Vec::new();
        if table.soft_delete {
            all.push(Condition::In("deleted".into(), vec![Scalar::Bool(false)]));
        }
        let own = ["project_id", "id"].into_iter().find(|own| {
            table.visible.strip_prefix("{t}.").and_then(|rest| rest.strip_prefix(own))
                == Some(" = any({projects})")
        });
        if let (Some(own), Some(projects)) = (own, self.viewer.project_ids()) {
            let projects = projects.iter().map(|id| Scalar::Text(id.to_string())).collect();
            all.push(Condition::In(own.into(), projects));
        }
        Condition::All(all)
    }

    /// The tables that program text names. With `standing`, those that are only looked up by a key of the row matter
    /// only by being there.
    fn other_tables(&mut self, sql: &str, standing: bool) {
        let words: Vec<&str> =
            sql.split(|letter: char| letter.is_whitespace() || "(),".contains(letter)).collect();
        for (n, word) in words.iter().enumerate() {
            let named = catalog().get_key_value(*word).filter(|_| {
                words[..n]
                    .iter()
                    .rev()
                    .find(|word| !word.is_empty())
                    .is_some_and(|before| ["from", "join"].contains(before))
            });
            let Some((name, _)) = named else { continue };
            let alias = words.get(n + 1).copied().unwrap_or_default();
            let by_key = standing && sql.contains(&format!("from {name} {alias} where {alias}.id = {{t}}."));
            self.table(name, if by_key { List::standing } else { List::all });
        }
    }

    fn table(&mut self, name: &'static str, list: fn(&'static str) -> List) {
        self.unknown |= !is_logged(name);
        let list = list(name);
        if !self.reads.lists.contains(&list) {
            self.reads.lists.push(list);
        }
    }

    /// A filter as far as the log can tell, and the columns that it looks at.
    fn condition(&mut self, filter: &Filter, watched: &mut Vec<Name>) -> Condition {
        let mut each = |filters: &[Filter]| filters.iter().map(|one| self.condition(one, watched)).collect();
        match filter {
            Filter::And(all) => Condition::All(each(all)),
            Filter::Or(any) => Condition::Any(each(any)),
            Filter::Not(inner) => Condition::Not(Box::new(self.condition(inner, watched))),
            Filter::Column(column, test) => {
                watched.extend(columns_in(&column.sql));
                self.other_tables(&column.sql, false);
                tested(column, test)
            }
            Filter::Relation(relation, _, inner) => {
                match &relation.kind {
                    RelationKind::One { .. } => watched.extend(owner_key(relation)),
                    RelationKind::Many { join, .. } => self.other_tables(join, false),
                    RelationKind::Lineage | RelationKind::Groups | RelationKind::Hits { .. } => {}
                }
                self.visible(relation.target);
                if let Some(table) = &graph().types[relation.target].table {
                    self.table(table.name, List::all);
                }
                // What it looks at is in that table, whose every change counts.
                self.condition(inner, &mut Vec::new());
                Condition::Unknown
            }
        }
    }
}

/// The columns of an order.
pub(super) fn ordered_by(ty: TypeId, order: &[OrderBy]) -> Vec<Name> {
    let columns = &graph().types[ty].columns;
    order.iter().flat_map(|by| columns_in(&columns[by.column].sql)).collect()
}

/// The columns of the table itself that columns are computed from.
pub(super) fn computed_from<'a>(columns: impl IntoIterator<Item = &'a Column>) -> Vec<Name> {
    columns.into_iter().flat_map(|column| columns_in(&column.sql)).collect()
}

/// The columns of the row `{t}` that program text names.
fn columns_in(sql: &str) -> Vec<Name> {
    let name = |rest: &str| {
        let end =
            rest.find(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_').unwrap_or(rest.len());
        Cow::Owned(rest[..end].to_owned())
    };
    sql.split("{t}.").skip(1).map(name).collect()
}

/// The column that must be the parent's id, if the join says so.
fn parent_column(join: &str) -> Option<Name> {
    let own = |part: &str| {
        let column = part.trim().strip_prefix("{t}.")?.strip_suffix(" = {k}")?;
        column
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
            .then(|| column.to_owned().into())
    };
    // Inside a subselect it would be another row's.
    if join.contains("select") { None } else { join.split(" and ").find_map(own) }
}

/// The column in which the owner of a relation keeps the id of its one row.
fn owner_key(relation: &Relation) -> Option<Name> {
    let RelationKind::One { key } = relation.kind else { return None };
    let owner =
        graph().types.iter().find(|ty| ty.relations.iter().any(|known| std::ptr::eq(known, relation)))?;
    Some(owner.columns[key].sql_name.clone().into())
}

fn tested(column: &Column, test: &Test) -> Condition {
    let name = || Name::from(column.sql_name.clone());
    let condition = || {
        Some(match test {
            Test::Compare("=", bind) => Condition::In(name(), vec![scalar(bind)?]),
            Test::Compare("is distinct from", bind) => {
                Condition::Not(Box::new(Condition::In(name(), vec![scalar(bind)?])))
            }
            Test::Compare(operator, bind) => Condition::Compare(name(), (*operator).into(), scalar(bind)?),
            Test::In(binds) => Condition::In(name(), scalars(binds)?),
            Test::IsNull(true) => Condition::Null(name()),
            Test::IsNull(false) => Condition::Not(Box::new(Condition::Null(name()))),
            _ => return None,
        })
    };
    let known = !column.sql_name.is_empty() && !matches!(column.ty, ColumnType::Json | ColumnType::Texts);
    condition().filter(|_| known).unwrap_or(Condition::Unknown)
}

fn scalar(bind: &Bind) -> Option<Scalar> {
    Some(match bind {
        Bind::Uuid(id) => Scalar::Text(id.to_string()),
        Bind::Text(text) => Scalar::Text(text.clone()),
        Bind::Int(number) => Scalar::Number(exact(*number)?),
        Bind::Float(number) => Scalar::Number(*number),
        Bind::Bool(truth) => Scalar::Bool(*truth),
        Bind::Time(time) => Scalar::Time(time.timestamp_micros()),
        _ => return None,
    })
}

fn scalars(binds: &Bind) -> Option<Vec<Scalar>> {
    match binds {
        Bind::Uuids(all) => Some(all.iter().map(|id| Scalar::Text(id.to_string())).collect()),
        Bind::Texts(all) => Some(all.iter().cloned().map(Scalar::Text).collect()),
        Bind::Ints(all) => all.iter().map(|number| exact(*number).map(Scalar::Number)).collect(),
        Bind::Floats(all) => Some(all.iter().copied().map(Scalar::Number).collect()),
        Bind::Times(all) => Some(all.iter().map(|time| Scalar::Time(time.timestamp_micros())).collect()),
        _ => None,
    }
}

/// Integers that a double holds exactly.
fn exact(number: i64) -> Option<f64> {
    i32::try_from(number).ok().map(f64::from)
}
