//! What readers were told against what happened: no answer may be older than what its gateway had passed when the
//! request came, or than what the reader had seen written, show what was not there, or belong to another scope.

use std::collections::HashMap;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use serde_json::Value;
use uuid::Uuid;

use crate::model::change::Snapshot;
use crate::model::change::history::Version;

/// A row: its place among the tables, and its id.
pub(super) type Row = (usize, Uuid);

/// Which rows an answer should have.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Asked {
    /// This one, if the reader may see it.
    One(Uuid),
    /// Those of which a key is this.
    Is(&'static str, Value),
    /// Any that the reader may see; which of them is another question.
    Some,
    /// Those of which a key is this at least.
    AtLeast(&'static str, f64),
}

/// One answer.
#[derive(Debug)]
pub(super) struct Seen {
    pub(super) table: usize,
    pub(super) asked: Asked,
    /// The projects that the reader may see; all if there are none.
    pub(super) scope: Arc<[Uuid]>,
    /// What the gateway had passed when the request came.
    pub(super) low: Arc<Snapshot>,
    /// The version of a row that the reader knows to be written.
    pub(super) known: Option<(Row, i64)>,
    /// The answer: rows with their versions, or how many there are.
    pub(super) rows: Vec<(Uuid, i64)>,
    pub(super) count: Option<usize>,
    pub(super) begun: DateTime<Utc>,
    pub(super) ended: DateTime<Utc>,
}

/// All that happened.
pub(super) struct History {
    rows: [HashMap<Uuid, Vec<Version>>; 2],
}

impl History {
    pub(super) fn new(tables: &[&str; 2], all: Vec<((String, Uuid), Vec<Version>)>) -> Self {
        let mut rows = [HashMap::new(), HashMap::new()];
        for ((table, id), versions) in all {
            if let Some(place) = tables.iter().position(|known| *known == table) {
                rows[place].insert(id, versions);
            }
        }
        Self { rows }
    }

    /// What is wrong with an answer, if anything is.
    pub(super) fn judge(&self, seen: &Seen) -> Option<String> {
        let told: HashMap<Uuid, i64> = seen.rows.iter().copied().collect();
        let (mut least, mut most) = (0, 0);
        for (id, versions) in &self.rows[seen.table] {
            if matches!(&seen.asked, Asked::One(one) if one != id) {
                continue;
            }
            let allowed = allowed(seen, *id, versions);
            let fits = |version: &Version| belongs(seen, version);
            if seen.count.is_some() {
                least += usize::from(allowed.iter().all(fits));
                most += usize::from(allowed.iter().any(fits));
                continue;
            }
            let wrong = match told.get(id) {
                None if seen.asked != Asked::Some && allowed.iter().all(fits) => "is missing".to_owned(),
                None => continue,
                Some(number) => match allowed.iter().find(|version| version.number == *number) {
                    Some(version) if belongs(seen, version) => continue,
                    Some(_) => format!("does not belong there in version {number}"),
                    None => format!("was told in version {number}, and there are {:?}", numbers(allowed)),
                },
            };
            return Some(format!("{id} {wrong}: {:?} of {:?}, low {}", seen.asked, seen.scope, seen.low));
        }
        let unknown = told.keys().find(|id| !self.rows[seen.table].contains_key(id));
        if let Some(id) = unknown {
            return Some(format!("{id} never was"));
        }
        let count = seen.count?;
        let wrong = !(least..=most).contains(&count);
        wrong.then(|| format!("{count} were counted, and there were {least} to {most}: {:?}", seen.asked))
    }

    /// By how many milliseconds an answer was behind: how long before the request the next version was acknowledged
    /// to its writer.
    pub(super) fn staleness(&self, seen: &Seen, acknowledged: &HashMap<(Row, i64), DateTime<Utc>>) -> f64 {
        let behind = seen.rows.iter().filter_map(|(id, number)| {
            let next = acknowledged.get(&((seen.table, *id), number + 1))?;
            Some((seen.begun - *next).num_microseconds().unwrap_or_default() as f64 / 1e3)
        });
        behind.fold(0.0, f64::max)
    }
}

fn numbers(versions: &[Version]) -> Vec<i64> {
    versions.iter().map(|version| version.number).collect()
}

/// The versions that a reader may be told: from the last that it must know of to the last that had begun.
fn allowed<'a>(seen: &Seen, id: Uuid, versions: &'a [Version]) -> &'a [Version] {
    let known = match seen.known {
        Some((row, number)) if row == (seen.table, id) => number,
        _ => 0,
    };
    let must = |version: &Version| version.number <= known || seen.low.sees(version.xid);
    let first = versions.iter().rposition(must).unwrap_or(0);
    let last = versions.iter().rposition(|version| version.at <= seen.ended).map_or(0, |last| last + 1);
    &versions[first..last.max(first + 1).min(versions.len())]
}

fn belongs(seen: &Seen, version: &Version) -> bool {
    let of_scope =
        seen.scope.is_empty() || version.project.is_some_and(|project| seen.scope.contains(&project));
    let key = |name: &str| version.keys.get(name).unwrap_or(&Value::Null);
    of_scope
        && *key("deleted") == Value::Bool(false)
        && match &seen.asked {
            Asked::One(_) | Asked::Some => true,
            Asked::Is(name, value) => key(name) == value,
            Asked::AtLeast(name, least) => key(name).as_f64().is_some_and(|value| value >= *least),
        }
}
