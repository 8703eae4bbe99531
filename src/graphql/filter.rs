//! Filters as clients write them: which operators a column has, and how a filter input becomes a condition.

use async_graphql::Value;

use crate::error::{Error, Result};
use crate::graphql::arguments::{items, object, read_list, read_scalar, read_text};
use crate::model::entity::{Column, ColumnType, Relation, RelationKind, TypeId};
use crate::model::filter::{Filter, Quantifier, Test};
use crate::model::graph;
use crate::store::db::sql::Bind;

/// Conditions in one filter at most.
pub(crate) const MAX_CONDITIONS: usize = 100;
/// Filters in one filter at most, those of `and`, `or` and `not` and those on related rows.
pub(crate) const MAX_FILTERS: usize = 200;
/// Filters inside one another at most.
pub(crate) const MAX_FILTER_DEPTH: usize = 8;

/// What stands behind an operator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operand {
    /// A value of the column's type.
    Same,
    /// A list of values of the column's type.
    List,
    /// A text.
    Text,
    /// A list of texts.
    Texts,
    /// Yes or no.
    Bool,
    /// Any JSON.
    Json,
}

const EQ: &[(&str, Operand, &str)] =
    &[("eq", Operand::Same, "Equal."), ("ne", Operand::Same, "Not equal; null is not equal to any value.")];
const IN: (&str, Operand, &str) = ("in", Operand::List, "Equal to one of these; an empty list fits nothing.");
const ORDER: &[(&str, Operand, &str)] = &[
    ("gt", Operand::Same, "Greater."),
    ("gte", Operand::Same, "Greater or equal."),
    ("lt", Operand::Same, "Less."),
    ("lte", Operand::Same, "Less or equal."),
];
const TEXT: &[(&str, Operand, &str)] = &[
    ("contains", Operand::Text, "Contains this, in upper or lower case."),
    ("startsWith", Operand::Text, "Begins with this, in upper or lower case."),
];
const JSON: &[(&str, Operand, &str)] = &[
    ("contains", Operand::Json, "Contains this: each member of an object, each item of an array."),
    ("has", Operand::Text, "Is an object with this member, or an array with this text."),
];
const TEXTS: &[(&str, Operand, &str)] = &[
    ("has", Operand::Text, "Has this item."),
    ("hasAny", Operand::Texts, "Has one of these items."),
    ("hasAll", Operand::Texts, "Has all of these items."),
];
const IS_NULL: (&str, Operand, &str) = ("isNull", Operand::Bool, "Is null (true), or is not (false).");

/// The operators of a column: name, operand, description.
pub(crate) fn operators(ty: ColumnType) -> Vec<(&'static str, Operand, &'static str)> {
    let mut operators = match ty {
        ColumnType::Json => JSON.to_vec(),
        ColumnType::Texts => TEXTS.to_vec(),
        _ => EQ.to_vec(),
    };
    if !matches!(ty, ColumnType::Json | ColumnType::Texts | ColumnType::Bool) {
        operators.push(IN);
    }
    if matches!(ty, ColumnType::Text | ColumnType::Time) || ty.is_number() {
        operators.extend(ORDER);
    }
    if ty == ColumnType::Text {
        operators.extend(TEXT);
    }
    operators.push(IS_NULL);
    operators
}

/// Reads a filter on rows of a type.
pub(crate) fn read_filter(ty: TypeId, value: Value, path: &str) -> Result<Filter> {
    let mut reader = Reader { conditions: 0, filters: 0, depth: 0 };
    reader.filter(ty, value, path)
}

struct Reader {
    conditions: usize,
    filters: usize,
    depth: usize,
}

impl Reader {
    fn filter(&mut self, ty: TypeId, value: Value, path: &str) -> Result<Filter> {
        self.depth += 1;
        if self.depth > MAX_FILTER_DEPTH {
            return Err(Error::bad_input(
                path,
                format!("filters are nested more than {MAX_FILTER_DEPTH} deep"),
            ));
        }
        // Also those without a condition: each is SQL that PostgreSQL must parse and plan.
        self.filters += 1;
        if self.filters > MAX_FILTERS {
            return Err(Error::bad_input(
                path,
                format!("the filter consists of more than {MAX_FILTERS} filters"),
            ));
        }
        let mut all = Vec::new();
        for (name, value) in object(value, path)? {
            let path = format!("{path}.{name}");
            all.push(self.condition(ty, &name, value, &path)?);
        }
        self.depth -= 1;
        Ok(if all.len() == 1 { all.swap_remove(0) } else { Filter::And(all) })
    }

    fn condition(&mut self, ty: TypeId, name: &str, value: Value, path: &str) -> Result<Filter> {
        let meta = &graph().types[ty];
        match name {
            "and" => return Ok(Filter::And(self.list(ty, value, path)?)),
            "or" => return Ok(Filter::Or(self.list(ty, value, path)?)),
            "not" => return Ok(Filter::Not(Box::new(self.filter(ty, value, path)?))),
            _ => {}
        }
        if let Some(column) = meta.column(name) {
            return self.column(&meta.columns[column], value, path);
        }
        match meta.relation(name) {
            Some(relation) => self.relation(relation, value, path),
            None => Err(Error::bad_input(path, "is not a field of this filter")),
        }
    }

    fn list(&mut self, ty: TypeId, value: Value, path: &str) -> Result<Vec<Filter>> {
        let numbered = items(value).into_iter().enumerate();
        numbered.map(|(n, item)| self.filter(ty, item, &format!("{path}.{n}"))).collect()
    }

    fn relation(&mut self, relation: &'static Relation, value: Value, path: &str) -> Result<Filter> {
        if !matches!(relation.kind, RelationKind::Many { .. }) {
            self.count_condition(path)?;
            let inner = self.filter(relation.target, value, path)?;
            return Ok(Filter::Relation(relation, Quantifier::Some, Box::new(inner)));
        }
        let mut all = Vec::new();
        for (name, value) in object(value, path)? {
            let path = format!("{path}.{name}");
            let quantifier = match name.as_str() {
                "some" => Quantifier::Some,
                "none" => Quantifier::None,
                "every" => Quantifier::Every,
                _ => return Err(Error::bad_input(path, "is neither some nor none nor every")),
            };
            self.count_condition(&path)?;
            let inner = self.filter(relation.target, value, &path)?;
            all.push(Filter::Relation(relation, quantifier, Box::new(inner)));
        }
        Ok(Filter::And(all))
    }

    fn count_condition(&mut self, path: &str) -> Result<()> {
        self.conditions += 1;
        if self.conditions > MAX_CONDITIONS {
            return Err(Error::bad_input(
                path,
                format!("the filter has more than {MAX_CONDITIONS} conditions"),
            ));
        }
        Ok(())
    }

    fn column(&mut self, column: &'static Column, value: Value, path: &str) -> Result<Filter> {
        let mut all = Vec::new();
        for (name, value) in object(value, path)? {
            self.count_condition(path)?;
            let path = format!("{path}.{name}");
            if value == Value::Null {
                // `{eq: null}` by accident (an unset variable of a client) must not mean "no condition".
                return Err(Error::bad_input(path, "is null; use isNull to ask for rows without a value"));
            }
            all.push(Filter::Column(column, test(column.ty, &name, value, &path)?));
        }
        Ok(if all.len() == 1 { all.swap_remove(0) } else { Filter::And(all) })
    }
}

fn test(ty: ColumnType, name: &str, value: Value, path: &str) -> Result<Test> {
    Ok(match (name, ty) {
        ("eq", _) => Test::Compare("=", read_scalar(ty, value, path)?),
        ("ne", _) => Test::Compare("is distinct from", read_scalar(ty, value, path)?),
        ("gt", _) => Test::Compare(">", read_scalar(ty, value, path)?),
        ("gte", _) => Test::Compare(">=", read_scalar(ty, value, path)?),
        ("lt", _) => Test::Compare("<", read_scalar(ty, value, path)?),
        ("lte", _) => Test::Compare("<=", read_scalar(ty, value, path)?),
        ("in", _) => Test::In(read_list(ty, value, path)?),
        ("contains", ColumnType::Json) => Test::JsonContains(read_json(value, path)?),
        ("contains", _) => Test::Contains(read_text(value, path)?),
        ("startsWith", _) => Test::StartsWith(read_text(value, path)?),
        ("has", _) => Test::Has(read_text(value, path)?),
        ("hasAny", _) => Test::HasAny(read_texts(value, path)?),
        ("hasAll", _) => Test::HasAll(read_texts(value, path)?),
        ("isNull", _) => match value {
            Value::Boolean(yes) => Test::IsNull(yes),
            _ => return Err(Error::bad_input(path, "is not a Boolean")),
        },
        _ => return Err(Error::bad_input(path, "is not an operator of this field")),
    })
}

/// A JSON value that PostgreSQL takes.
fn read_json(value: Value, path: &str) -> Result<serde_json::Value> {
    let json = value.into_json().map_err(|_| Error::bad_input(path, "is not a JSON value"))?;
    if has_nul(&json) { Err(Error::bad_input(path, "contains the character U+0000")) } else { Ok(json) }
}

fn has_nul(json: &serde_json::Value) -> bool {
    match json {
        serde_json::Value::String(text) => text.contains('\0'),
        serde_json::Value::Array(items) => items.iter().any(has_nul),
        serde_json::Value::Object(members) => {
            members.iter().any(|(name, value)| name.contains('\0') || has_nul(value))
        }
        _ => false,
    }
}

fn read_texts(value: Value, path: &str) -> Result<Vec<String>> {
    match read_list(ColumnType::Text, value, path)? {
        Bind::Texts(texts) => Ok(texts),
        _ => Err(Error::bad_input(path, "is not a list of texts")),
    }
}
