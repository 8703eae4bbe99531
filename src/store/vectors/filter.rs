//! What narrows a search: conditions on the payload, which each back end says in its own words.

use std::ops::Bound;

use chrono::{DateTime, Utc};
use uuid::Uuid;

/// A condition on points. A condition on a key that a point lacks does not hold, so its [`Filter::Not`] does; of a
/// list, one value is enough.
#[derive(Debug, Clone, PartialEq)]
pub enum Filter {
    /// All of them hold: every point, if there are none.
    All(Vec<Self>),
    /// One of them holds: no point, if there are none.
    Any(Vec<Self>),
    /// It does not hold.
    Not(Box<Self>),
    /// A keyword or an id is one of these.
    In(&'static str, Vec<String>),
    /// A flag is set, or not.
    Is(&'static str, bool),
    /// A number lies between two bounds.
    Number(&'static str, Bound<f64>, Bound<f64>),
    /// A time lies between two bounds; the engines count microseconds.
    Time(&'static str, Bound<DateTime<Utc>>, Bound<DateTime<Utc>>),
    /// There is no value: the key is not there, null or an empty list.
    Missing(&'static str),
    /// The point is one of these.
    Ids(Vec<Uuid>),
}

/// What is left of a filter when its constant parts are worked out. The engines take an empty list of alternatives
/// for "everything", so none may reach them.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Reduced {
    Everything,
    Nothing,
    Some(Filter),
}

impl Filter {
    /// Ids as one of which a key has a point.
    pub fn ids_in(key: &'static str, ids: &[Uuid]) -> Self {
        Self::In(key, ids.iter().map(Uuid::to_string).collect())
    }

    /// Both hold; what is not there holds.
    pub fn both(one: Option<Self>, other: Option<Self>) -> Option<Self> {
        match (one, other) {
            (Some(one), Some(other)) => Some(Self::All(vec![one, other])),
            (one, other) => one.or(other),
        }
    }

    pub(super) fn reduced(self) -> Reduced {
        match self {
            Self::All(parts) => many(parts, Reduced::Everything, Self::All),
            Self::Any(parts) => many(parts, Reduced::Nothing, Self::Any),
            Self::Not(part) => match part.reduced() {
                Reduced::Everything => Reduced::Nothing,
                Reduced::Nothing => Reduced::Everything,
                Reduced::Some(part) => Reduced::Some(Self::Not(Box::new(part))),
            },
            Self::In(_, values) if values.is_empty() => Reduced::Nothing,
            Self::Ids(ids) if ids.is_empty() => Reduced::Nothing,
            Self::Number(key, Bound::Unbounded, Bound::Unbounded)
            | Self::Time(key, Bound::Unbounded, Bound::Unbounded) => {
                Reduced::Some(Self::Not(Box::new(Self::Missing(key))))
            }
            other => Reduced::Some(other),
        }
    }
}

/// `neutral` is what no part comes to; its opposite decides alone.
fn many(parts: Vec<Filter>, neutral: Reduced, join: fn(Vec<Filter>) -> Filter) -> Reduced {
    let mut left = Vec::with_capacity(parts.len());
    for part in parts {
        match part.reduced() {
            Reduced::Some(part) => left.push(part),
            constant if constant == neutral => {}
            deciding => return deciding,
        }
    }
    match left.len() {
        0 => neutral,
        1 => Reduced::Some(left.remove(0)),
        _ => Reduced::Some(join(left)),
    }
}
