//! A filter in the words of the engine in process.

use std::ops::Bound;

use qdrant_edge::external::ordered_float::OrderedFloat;
use qdrant_edge::{
    AnyVariants, Condition, DateTimeWrapper, FieldCondition, Filter as Engine, HasIdCondition,
    IsEmptyCondition, JsonPath, Match, PointId, Range, ValueVariants,
};

use super::super::Filter;
use crate::error::{Error, Result};

/// `filter` has no constant parts.
pub(super) fn into_engine(filter: &Filter) -> Result<Engine> {
    Ok(match filter {
        Filter::All(parts) => Engine { must: Some(conditions(parts)?), ..Engine::default() },
        Filter::Any(parts) => Engine { should: Some(conditions(parts)?), ..Engine::default() },
        Filter::Not(part) => Engine::new_must_not(condition(part)?),
        other => Engine::new_must(condition(other)?),
    })
}

fn conditions(filters: &[Filter]) -> Result<Vec<Condition>> {
    filters.iter().map(condition).collect()
}

fn condition(filter: &Filter) -> Result<Condition> {
    let field = match filter {
        Filter::All(_) | Filter::Any(_) | Filter::Not(_) => {
            return Ok(Condition::Filter(into_engine(filter)?));
        }
        Filter::Missing(key) => return Ok(Condition::IsEmpty(IsEmptyCondition::from(path(key)?))),
        Filter::Ids(ids) => {
            let ids = ids.iter().copied().map(PointId::Uuid);
            return Ok(Condition::HasId(ids.collect::<HasIdCondition>()));
        }
        Filter::In(key, values) => {
            let any = AnyVariants::Strings(values.iter().cloned().collect());
            FieldCondition::new_match(path(key)?, Match::new_any(any))
        }
        Filter::Is(key, value) => {
            FieldCondition::new_match(path(key)?, Match::new_value(ValueVariants::Bool(*value)))
        }
        Filter::Number(key, from, to) => {
            FieldCondition::new_range(path(key)?, range(from.map(OrderedFloat), to.map(OrderedFloat)))
        }
        Filter::Time(key, from, to) => FieldCondition::new_datetime_range(
            path(key)?,
            range(from.map(DateTimeWrapper), to.map(DateTimeWrapper)),
        ),
    };
    Ok(Condition::Field(field))
}

fn range<T>(from: Bound<T>, to: Bound<T>) -> Range<T> {
    let mut range = Range { lt: None, gt: None, gte: None, lte: None };
    match from {
        Bound::Included(from) => range.gte = Some(from),
        Bound::Excluded(from) => range.gt = Some(from),
        Bound::Unbounded => {}
    }
    match to {
        Bound::Included(to) => range.lte = Some(to),
        Bound::Excluded(to) => range.lt = Some(to),
        Bound::Unbounded => {}
    }
    range
}

pub(super) fn path(name: &str) -> Result<JsonPath> {
    name.parse().map_err(|()| Error::internal(format!("{name} is no path in a payload")))
}
