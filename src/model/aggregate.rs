//! Counting and measuring: the totals of a set of rows, and groups of them.

use crate::model::entity::{Aggregate, TypeId};
use crate::model::filter::Filter;
use crate::model::graph;
use crate::model::reads::{Reading, computed_from};
use crate::model::select::{NO_KEY, Projection, Scope};
use crate::model::viewer::Viewer;
use crate::store::db::sql::Sql;

/// Groups per answer unless the client says otherwise.
pub const DEFAULT_GROUPS: u32 = 100;
/// Groups per answer at most.
pub const MAX_GROUPS: u32 = 1_000;
/// Keys of one grouping at most.
pub const MAX_GROUP_KEYS: usize = 4;

/// The rows' aggregate, or one per group: the greatest groups first.
///
/// `by` lists places in the key type's columns; the columns of the key that are not grouped by are NULL.
pub fn aggregate(
    viewer: &Viewer,
    entity: TypeId,
    aggregate: &Aggregate,
    projection: &Projection,
    by: Option<(&[usize], u32)>,
    filter: Option<&Filter>,
) -> Sql {
    let keys = &graph().types[aggregate.key].columns;
    let mut scope = Scope::new(viewer);
    let t = scope.alias();
    let grouped = by.map(|(by, _)| by).unwrap_or_default();
    let mut sql = Sql::default();
    sql.push(NO_KEY);
    for column in projection.columns() {
        let key = keys.iter().position(|key| std::ptr::eq(key, *column));
        if key.is_none_or(|key| grouped.contains(&key)) {
            sql.push(", ").push(&column.sql.replace("{t}", &t));
        } else {
            sql.push(&format!(", null::{}", column.ty.sql()));
        }
    }
    scope.write_table(entity, &t, &mut sql);
    if let Some(filter) = filter {
        sql.push(" and ");
        filter.write(&mut scope, &t, &mut sql);
    }
    if let Some((by, limit)) = by {
        let names: Vec<_> = by.iter().map(|key| keys[*key].sql.replace("{t}", &t)).collect();
        let names = names.join(", ");
        if !by.is_empty() {
            sql.push(&format!(" group by {names}"));
        }
        sql.push(" having count(*) > 0 order by count(*) desc");
        if !by.is_empty() {
            sql.push(&format!(", {names}"));
        }
        sql.push(&format!(" limit {limit}"));
    }
    let measured =
        computed_from(projection.columns().iter().copied().chain(grouped.iter().map(|key| &keys[*key])));
    let reads = Reading::new(viewer).list(entity, None, filter, measured);
    sql.returning(projection.width()).reading(reads.finish())
}
