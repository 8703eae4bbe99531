//! The inputs of mutations: their types in the schema, and a client's input checked against its declaration. Every
//! bound of the database is checked here, where the error can name the field.

use async_graphql::Value;
use async_graphql::registry::Registry;
use chrono::{DateTime, Datelike, SecondsFormat};

use crate::error::{Error, Result};
use crate::graphql::arguments::{items, object, read_name, read_time, read_uuid};
use crate::graphql::types::meta::{add_input, argument};
use crate::model::mutation::{Field, Kind, MAX_LABEL_BYTES, MAX_LABELS, MUTATIONS, Mutation, Values};

/// Adds the input types.
pub(super) fn register_inputs(registry: &mut Registry) {
    for mutation in MUTATIONS {
        let doc = format!("What `{}` is told.", mutation.name);
        let name = mutation.input_name();
        add_fields(registry, &name, &doc, mutation.table, mutation.all_fields());
        for field in mutation.fields {
            if let Kind::Items(name, fields, _) = field.kind {
                let doc = format!("One item of `{}`.", mutation.input_name());
                add_fields(registry, name, &doc, mutation.table, fields.iter());
            }
        }
    }
}

fn add_fields(
    registry: &mut Registry,
    name: &str,
    doc: &str,
    table: &str,
    fields: impl Iterator<Item = &'static Field>,
) {
    let fields = fields.map(|field| {
        let bang = if field.required { "!" } else { "" };
        argument(field.name, &format!("{}{bang}", type_name(&field.kind)), &field.doc(table))
    });
    add_input(registry, name, doc, fields);
}

fn type_name(kind: &Kind) -> String {
    match kind {
        Kind::Uuid | Kind::Row(_) => "UUID".to_owned(),
        Kind::Text(..) => "String".to_owned(),
        Kind::Int(..) => "Int".to_owned(),
        Kind::BigInt(_) => "BigInt".to_owned(),
        Kind::Float(..) => "Float".to_owned(),
        Kind::Bool => "Boolean".to_owned(),
        Kind::Time => "DateTime".to_owned(),
        Kind::Object | Kind::Json => "JSON".to_owned(),
        Kind::Texts => "[String!]".to_owned(),
        Kind::Enum(values) => values.name.to_owned(),
        Kind::Items(name, ..) => format!("[{name}!]"),
    }
}

/// Reads the input of a mutation.
pub(super) fn read_input(mutation: &'static Mutation, value: Value) -> Result<Values> {
    read_fields(mutation, &mut mutation.all_fields(), value, "input".to_owned())
}

fn read_fields(
    mutation: &'static Mutation,
    fields: &mut dyn Iterator<Item = &'static Field>,
    value: Value,
    path: String,
) -> Result<Values> {
    let mut members = object(value, &path)?;
    let mut values = Values { path, ..Values::default() };
    for field in fields {
        let at = format!("{}.{}", values.path, field.name);
        let value = match members.swap_remove(field.name) {
            None | Some(Value::Null) if field.required => return Err(Error::bad_input(at, "is needed")),
            None => continue,
            Some(Value::Null) => {
                if !mutation.changes || field.column.is_empty() {
                    continue;
                }
                if field.info(mutation.table).is_some_and(|info| !info.nullable) {
                    return Err(Error::bad_input(at, "cannot be null"));
                }
                values.fields.insert(field.name, serde_json::Value::Null);
                continue;
            }
            Some(value) => value,
        };
        if let Kind::Items(_, fields, most) = field.kind {
            values.items = read_items(mutation, fields, most, value, &at)?;
        } else {
            values.fields.insert(field.name, read_value(&field.kind, value, &at)?);
        }
    }
    match members.keys().next() {
        Some(name) => Err(Error::bad_input(values.path, format!("has no field {:?}", name.as_str()))),
        None => Ok(values),
    }
}

fn read_items(
    mutation: &'static Mutation,
    fields: &'static [Field],
    most: usize,
    value: Value,
    path: &str,
) -> Result<Vec<Values>> {
    let items = items(value);
    if !(1..=most).contains(&items.len()) {
        return Err(Error::bad_input(path, format!("has {} items, but must have 1 to {most}", items.len())));
    }
    let numbered = items.into_iter().enumerate();
    numbered.map(|(n, item)| read_fields(mutation, &mut fields.iter(), item, format!("{path}.{n}"))).collect()
}

fn read_value(kind: &Kind, value: Value, path: &str) -> Result<serde_json::Value> {
    let wrong = |what: &str| Error::bad_input(path, format!("is not {what}"));
    Ok(match (kind, value) {
        (Kind::Uuid | Kind::Row(_), value) => read_uuid(&value, path)?.to_string().into(),
        (Kind::Text(least, most), Value::String(text)) => {
            check_text(&text, path)?;
            let length = text.chars().count();
            if !(*least..=*most).contains(&length) {
                let text = format!("has {length} characters, but must have {least} to {most}");
                return Err(Error::bad_input(path, text));
            }
            text.into()
        }
        (Kind::Int(least, most), Value::Number(number)) => {
            let value = number.as_i64().and_then(|value| i32::try_from(value).ok());
            let value = value.filter(|value| (least..=most).contains(&value));
            value.ok_or_else(|| wrong(&format!("a whole number between {least} and {most}")))?.into()
        }
        (Kind::BigInt(least), value) => {
            let value = match value {
                Value::Number(number) => number.as_i64(),
                Value::String(text) => text.parse().ok(),
                _ => None,
            };
            let value = value.filter(|value| value >= least);
            value.ok_or_else(|| wrong(&format!("a whole number of 64 bits, {least} or more")))?.into()
        }
        (Kind::Float(least, most), Value::Number(number)) => {
            let value = number.as_f64().filter(|value| (least..=most).contains(&value));
            value.ok_or_else(|| wrong(&format!("a number between {least} and {most}")))?.into()
        }
        (Kind::Bool, Value::Boolean(truth)) => truth.into(),
        (Kind::Time, Value::String(text)) => {
            // In microseconds a leap second is the second after it, and as text PostgreSQL has no year 0.
            let time =
                read_time(&text).and_then(|time| DateTime::from_timestamp_micros(time.timestamp_micros()));
            let time = time.filter(|time| (1..=9999).contains(&time.year()));
            let time = time.ok_or_else(|| wrong("a date and time as in 2026-01-31T12:00:00Z"))?;
            time.to_rfc3339_opts(SecondsFormat::Micros, true).into()
        }
        (Kind::Enum(values), value) => {
            let name = read_name(value).map(|name| name.to_ascii_lowercase());
            let known = name.filter(|name| values.values.contains(&name.as_str()));
            known.ok_or_else(|| wrong(&format!("a {}", values.name)))?.into()
        }
        (Kind::Object, value @ Value::Object(_)) | (Kind::Json, value) => read_json(value, path)?,
        (Kind::Object, _) => return Err(wrong("a JSON object")),
        (Kind::Texts, value) => read_labels(value, path)?,
        _ => return Err(wrong("a value of this field's type")),
    })
}

fn check_text(text: &str, path: &str) -> Result<()> {
    if text.contains('\0') {
        return Err(Error::bad_input(path, "contains the character U+0000"));
    }
    Ok(())
}

fn read_labels(value: Value, path: &str) -> Result<serde_json::Value> {
    let mut labels = Vec::new();
    let mut bytes = 0;
    for (n, item) in items(value).into_iter().enumerate() {
        let Value::String(label) = item else {
            return Err(Error::bad_input(format!("{path}.{n}"), "is not a String"));
        };
        check_text(&label, &format!("{path}.{n}"))?;
        bytes += label.len();
        labels.push(serde_json::Value::from(label));
    }
    if labels.len() > MAX_LABELS || bytes > MAX_LABEL_BYTES {
        let text = format!("must be at most {MAX_LABELS} texts of {MAX_LABEL_BYTES} bytes together");
        return Err(Error::bad_input(path, text));
    }
    Ok(labels.into())
}

/// JSON that PostgreSQL takes.
fn read_json(value: Value, path: &str) -> Result<serde_json::Value> {
    let json = value.into_json().map_err(|_| Error::bad_input(path, "is not JSON"))?;
    if has_nul(&json) {
        return Err(Error::bad_input(path, "contains the character U+0000"));
    }
    Ok(json)
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
