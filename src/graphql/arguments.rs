//! Arguments, checked and turned into what the model takes. Validation has seen their types; here are their
//! bounds, and what the type system does not say.

use async_graphql::{Name, Value, indexmap::IndexMap};
use chrono::{DateTime, Utc};
use uuid::Uuid;

use crate::error::{Error, Result};
use crate::graphql::filter::read_filter;
use crate::model::cursor::CursorKey;
use crate::model::entity::{ColumnType, OrderBy, TypeId, screaming_case};
use crate::model::graph;
use crate::model::page::{DEFAULT_PAGE_SIZE, Page};
use crate::store::db::sql::Bind;

/// Values in one list at most.
pub(crate) const MAX_LIST: usize = 1_000;
/// Characters in one text at most.
pub(crate) const MAX_TEXT: usize = 10_000;
/// Keys of one order at most.
const MAX_ORDER_KEYS: usize = 5;

/// Reads `first`, `after`, `last`, `before`, `filter` and `orderBy`; `argument` gives none for null.
pub(crate) fn read_page(
    ty: TypeId,
    default_order: &[OrderBy],
    max_size: u32,
    cursors: &CursorKey,
    argument: &dyn Fn(&str) -> Option<Value>,
) -> Result<Page> {
    let order = match argument("orderBy") {
        Some(value) => read_order(ty, value)?,
        None => default_order.to_vec(),
    };
    let (first, last) = (argument("first"), argument("last"));
    if first.is_some() && last.is_some() {
        return Err(Error::bad_input("last", "first and last cannot be asked for at once"));
    }
    let backward = last.is_some();
    let size = match (first, last) {
        (Some(size), _) => read_size(size, "first", max_size)?,
        (_, Some(size)) => read_size(size, "last", max_size)?,
        _ => DEFAULT_PAGE_SIZE.min(max_size),
    };
    let cursor = |name: &str| {
        // A cursor has a bound of its own: it holds the values of its order, which may be long texts.
        let text = argument(name).map(|value| match value {
            Value::String(text) => Ok(text),
            _ => Err(Error::bad_input(name, "is not a String")),
        });
        text.map(|text| cursors.decode(name, &text?, &graph().types[ty], &order)).transpose()
    };
    let (after, before) = (cursor("after")?, cursor("before")?);
    let filter = argument("filter").map(|value| read_filter(ty, value, "filter")).transpose()?;
    Ok(Page { size, peek: false, backward, after, before, order, filter })
}

/// Reads how many rows (or groups, or steps) a client wants.
pub(crate) fn read_size(value: Value, path: &str, max: u32) -> Result<u32> {
    let size = match &value {
        Value::Number(number) => number.as_i64(),
        _ => None,
    };
    let size = size.and_then(|size| u32::try_from(size).ok()).filter(|size| *size <= max);
    size.ok_or_else(|| Error::bad_input(path, format!("is {value}, but must be between 0 and {max}")))
}

fn read_order(ty: TypeId, value: Value) -> Result<Vec<OrderBy>> {
    let items = items(value);
    if items.len() > MAX_ORDER_KEYS {
        return Err(Error::bad_input("orderBy", format!("has more than {MAX_ORDER_KEYS} keys")));
    }
    let mut order = Vec::new();
    for (n, item) in items.into_iter().enumerate() {
        let path = format!("orderBy.{n}");
        let mut item = object(item, &path)?;
        let field = read_name(item.swap_remove("field").unwrap_or_default());
        let columns = &graph().types[ty].columns;
        let column = columns.iter().position(|column| Some(screaming_case(&column.name)) == field);
        let column =
            column.ok_or_else(|| Error::bad_input(format!("{path}.field"), "is not a field to order by"))?;
        let direction = item.swap_remove("direction").and_then(read_name);
        order.push(OrderBy { column, descending: direction.as_deref() == Some("DESC") });
    }
    Ok(order)
}

/// The name of an enum's value; a variable brings it as a string.
pub(crate) fn read_name(value: Value) -> Option<String> {
    match value {
        Value::Enum(name) => Some(name.to_string()),
        Value::String(text) => Some(text),
        _ => None,
    }
}

/// The members of an input object.
pub(crate) fn object(value: Value, path: &str) -> Result<IndexMap<Name, Value>> {
    match value {
        Value::Object(members) => Ok(members),
        _ => Err(Error::bad_input(path, "is not an object")),
    }
}

/// The items of a list; a single value stands for a list of one.
pub(crate) fn items(value: Value) -> Vec<Value> {
    match value {
        Value::List(items) => items,
        one => vec![one],
    }
}

/// A text that PostgreSQL takes.
pub(crate) fn read_text(value: Value, path: &str) -> Result<String> {
    let Value::String(text) = value else { return Err(Error::bad_input(path, "is not a String")) };
    if text.chars().count() > MAX_TEXT {
        return Err(Error::bad_input(path, format!("is longer than {MAX_TEXT} characters")));
    }
    if text.contains('\0') {
        return Err(Error::bad_input(path, "contains the character U+0000"));
    }
    Ok(text)
}

/// A UUID in any of its usual spellings.
pub(crate) fn read_uuid(value: &Value, path: &str) -> Result<Uuid> {
    let parsed = match value {
        Value::String(text) => Uuid::try_parse(text).ok(),
        _ => None,
    };
    parsed.ok_or_else(|| Error::bad_input(path, "is not a UUID"))
}

/// A value of a column's type.
pub(crate) fn read_scalar(ty: ColumnType, value: Value, path: &str) -> Result<Bind> {
    let wrong = |what: &str| Error::bad_input(path, format!("is not {what}"));
    Ok(match (ty, value) {
        (ColumnType::Uuid, value) => Bind::Uuid(read_uuid(&value, path)?),
        (ColumnType::Text, value) => Bind::Text(read_text(value, path)?),
        (ColumnType::Enum(values), value) => {
            let name = read_name(value).map(|name| name.to_ascii_lowercase());
            let known = name.filter(|name| values.values.contains(&name.as_str()));
            Bind::Text(known.ok_or_else(|| wrong(&format!("a {}", values.name)))?)
        }
        (ColumnType::Int, Value::Number(number)) => {
            let value = number.as_i64().filter(|value| i32::try_from(*value).is_ok());
            Bind::Int(value.ok_or_else(|| wrong("a 32-bit integer"))?)
        }
        (ColumnType::BigInt, Value::Number(number)) => {
            Bind::Int(number.as_i64().ok_or_else(|| wrong("a 64-bit integer"))?)
        }
        (ColumnType::BigInt, Value::String(text)) => {
            Bind::Int(text.parse().map_err(|_| wrong("a 64-bit integer"))?)
        }
        (ColumnType::Float, Value::Number(number)) => {
            Bind::Float(number.as_f64().filter(|value| value.is_finite()).ok_or_else(|| wrong("a number"))?)
        }
        (ColumnType::Bool, Value::Boolean(truth)) => Bind::Bool(truth),
        (ColumnType::Time, Value::String(text)) => {
            Bind::Time(read_time(&text).ok_or_else(|| wrong("a date and time as in 2026-01-31T12:00:00Z"))?)
        }
        _ => return Err(wrong("a value of this field's type")),
    })
}

/// RFC 3339, within the years that both PostgreSQL and the format can write.
pub(crate) fn read_time(text: &str) -> Option<DateTime<Utc>> {
    let time = DateTime::parse_from_rfc3339(text).ok()?.with_timezone(&Utc);
    (0..=9999).contains(&chrono::Datelike::year(&time)).then_some(time)
}

/// A list of values of a column's type; a single value stands for a list of one.
pub(crate) fn read_list(ty: ColumnType, value: Value, path: &str) -> Result<Bind> {
    let items = items(value);
    if items.len() > MAX_LIST {
        return Err(Error::bad_input(path, format!("has more than {MAX_LIST} values")));
    }
    let numbered = items.into_iter().enumerate();
    let binds = numbered.map(|(n, item)| read_scalar(ty, item, &format!("{path}.{n}")));
    let binds = binds.collect::<Result<Vec<_>>>()?;
    macro_rules! array {
        ($one:ident, $many:ident) => {
            Bind::$many(
                binds
                    .into_iter()
                    .filter_map(|b| if let Bind::$one(v) = b { Some(v) } else { None })
                    .collect(),
            )
        };
    }
    Ok(match ty {
        ColumnType::Uuid => array!(Uuid, Uuids),
        ColumnType::Int | ColumnType::BigInt => array!(Int, Ints),
        ColumnType::Float => array!(Float, Floats),
        ColumnType::Time => array!(Time, Times),
        _ => array!(Text, Texts),
    })
}
