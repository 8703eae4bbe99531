//! Conditions on rows as the change log shows them: some columns are known and some are not, so a condition holds,
//! does not hold, or may hold.

use chrono::DateTime;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::store::db::reads::Name;

/// Beyond this, a double is not every integer.
const EXACT: f64 = 9_007_199_254_740_992.0;

/// A condition on a row. What cannot be expressed is [`Condition::Unknown`], which may hold.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Condition {
    /// All hold; an empty list holds.
    All(Vec<Self>),
    /// One holds at least.
    Any(Vec<Self>),
    /// It does not hold, or is NULL.
    Not(Box<Self>),
    /// The column is one of these.
    In(Name, Vec<Scalar>),
    /// The column compares to the value as `<`, `<=`, `>` or `>=` says; NULL does not.
    Compare(Name, Name, Scalar),
    /// The column is NULL.
    Null(Name),
    /// Nobody knows.
    Unknown,
}

/// A value of a condition.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Scalar {
    /// A text or a UUID.
    Text(String),
    /// A number.
    Number(f64),
    /// Yes or no.
    Bool(bool),
    /// Microseconds since 1970.
    Time(i64),
}

/// Whether a condition holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Truth {
    /// It does not.
    No,
    /// It may.
    Maybe,
    /// It does.
    Yes,
}

impl From<bool> for Truth {
    fn from(truth: bool) -> Self {
        if truth { Self::Yes } else { Self::No }
    }
}

impl Condition {
    /// Whether it holds for the row whose columns `value` gives; `None` for a column that is not known.
    pub fn holds<'a>(&self, value: &impl Fn(&str) -> Option<&'a Value>) -> Truth {
        match self {
            Self::All(all) => all.iter().map(|one| one.holds(value)).min().unwrap_or(Truth::Yes),
            Self::Any(any) => any.iter().map(|one| one.holds(value)).max().unwrap_or(Truth::No),
            Self::Not(inner) => match inner.holds(value) {
                Truth::No => Truth::Yes,
                Truth::Maybe => Truth::Maybe,
                Truth::Yes => Truth::No,
            },
            Self::In(column, wanted) => match value(column) {
                None => Truth::Maybe,
                Some(Value::Null) => Truth::No,
                Some(found) => wanted.iter().map(|wanted| same(found, wanted)).max().unwrap_or(Truth::No),
            },
            Self::Compare(column, operator, bound) => match value(column) {
                None => Truth::Maybe,
                Some(Value::Null) => Truth::No,
                Some(found) => compare(found, operator, bound),
            },
            Self::Null(column) => value(column).map_or(Truth::Maybe, |found| found.is_null().into()),
            Self::Unknown => Truth::Maybe,
        }
    }

    /// The columns that it looks at.
    pub fn columns(&self, into: &mut Vec<Name>) {
        match self {
            Self::All(parts) | Self::Any(parts) => parts.iter().for_each(|part| part.columns(into)),
            Self::Not(inner) => inner.columns(into),
            Self::In(column, _) | Self::Compare(column, _, _) | Self::Null(column) => {
                into.push(column.clone())
            }
            Self::Unknown => {}
        }
    }
}

fn same(found: &Value, wanted: &Scalar) -> Truth {
    match (found, wanted) {
        (Value::String(found), Scalar::Text(wanted)) => (found == wanted).into(),
        (Value::Bool(found), Scalar::Bool(wanted)) => (found == wanted).into(),
        _ => compare(found, "=", wanted),
    }
}

fn compare(found: &Value, operator: &str, bound: &Scalar) -> Truth {
    let order = match (found, bound) {
        (Value::Number(found), Scalar::Number(bound)) => {
            let found = found.as_f64().filter(|found| found.abs() < EXACT && bound.abs() < EXACT);
            found.and_then(|found| found.partial_cmp(bound))
        }
        (Value::String(found), Scalar::Time(bound)) => {
            DateTime::parse_from_rfc3339(found).ok().map(|found| found.timestamp_micros().cmp(bound))
        }
        // How texts compare is the database's secret: it depends on the collation.
        _ => None,
    };
    let Some(order) = order else { return Truth::Maybe };
    match operator {
        "<" => order.is_lt().into(),
        "<=" => order.is_le().into(),
        ">" => order.is_gt().into(),
        ">=" => order.is_ge().into(),
        "=" => order.is_eq().into(),
        _ => Truth::Maybe,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn text(value: &str) -> Scalar {
        Scalar::Text(value.to_owned())
    }

    /// Each condition for a row of which `absent` is not known.
    #[test]
    fn what_is_not_known_may_hold() {
        let row = json!({"status": "open", "score": 0.8, "done": false, "nobody": null,
            "at": "2026-01-02T03:04:05.000006+00:00", "large": 9_007_199_254_740_993_i64});
        let time = 1_767_323_045_000_006;
        let compare = |column: &'static str, operator: &'static str, bound| {
            Condition::Compare(column.into(), operator.into(), bound)
        };
        let is = |column: &'static str, values: Vec<Scalar>| Condition::In(column.into(), values);
        let not = |condition| Condition::Not(Box::new(condition));
        for (condition, truth) in [
            (is("status", vec![text("open")]), Truth::Yes),
            (is("status", vec![text("done"), text("open")]), Truth::Yes),
            (is("status", vec![text("done")]), Truth::No),
            (is("status", vec![]), Truth::No),
            (is("done", vec![Scalar::Bool(false)]), Truth::Yes),
            (is("absent", vec![text("open")]), Truth::Maybe),
            (not(is("absent", vec![text("open")])), Truth::Maybe),
            (is("nobody", vec![text("x")]), Truth::No),
            (not(is("nobody", vec![text("x")])), Truth::Yes),
            (Condition::Null("nobody".into()), Truth::Yes),
            (Condition::Null("status".into()), Truth::No),
            (compare("score", ">=", Scalar::Number(0.8)), Truth::Yes),
            (compare("score", ">", Scalar::Number(0.8)), Truth::No),
            (compare("score", "<", Scalar::Number(0.9)), Truth::Yes),
            (compare("at", "<=", Scalar::Time(time)), Truth::Yes),
            (compare("at", "<", Scalar::Time(time)), Truth::No),
            (is("at", vec![Scalar::Time(time)]), Truth::Yes),
            (compare("status", "<", text("p")), Truth::Maybe),
            (compare("large", ">", Scalar::Number(1.0)), Truth::Maybe),
            (compare("nobody", ">", Scalar::Number(1.0)), Truth::No),
            (Condition::All(vec![Condition::Unknown, is("done", vec![Scalar::Bool(true)])]), Truth::No),
            (Condition::Any(vec![Condition::Unknown, is("done", vec![Scalar::Bool(true)])]), Truth::Maybe),
            (Condition::All(vec![]), Truth::Yes),
            (Condition::Any(vec![]), Truth::No),
        ] {
            assert_eq!(condition.holds(&|column: &str| row.get(column)), truth, "{condition:?}");
        }
    }
}
