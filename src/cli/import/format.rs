//! One line of an import file and its row. docs/import-format.md describes the format for people.

use std::fmt;

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::check::check;
use crate::model::import::record::{Kind, Record};

/// Longer lines are refused before they are read as a whole.
pub(crate) const MAX_LINE_BYTES: usize = 4 * 1024 * 1024;

/// What is wrong with one line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Problem {
    /// `evidence.credibilityScore`, or only the type, or nothing when not even that is known.
    pub(crate) place: String,
    pub(crate) reason: String,
}

impl Problem {
    pub(crate) fn new(place: impl Into<String>, reason: impl Into<String>) -> Self {
        Self { place: place.into(), reason: reason.into() }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.place.is_empty() {
            f.write_str(&self.reason)
        } else {
            write!(f, "{}: {}", self.place, self.reason)
        }
    }
}

/// Reads a line. None: it is blank.
pub(crate) fn parse(line: &[u8]) -> Option<Result<Record, Problem>> {
    let line = line.trim_ascii();
    if line.is_empty() { None } else { Some(parse_row(line)) }
}

fn parse_row(line: &[u8]) -> Result<Record, Problem> {
    let mut fields: Map<String, Value> =
        serde_json::from_slice(line).map_err(|e| Problem::new("", format!("not a JSON object: {e}")))?;
    let kind = match fields.remove("type") {
        Some(Value::String(name)) => Kind::ALL
            .into_iter()
            .find(|kind| kind.name() == name)
            .ok_or_else(|| Problem::new("type", format!("{name:?} is not one of {}", names())))?,
        Some(_) => return Err(Problem::new("type", "not a string")),
        None => return Err(Problem::new("type", format!("missing; it is one of {}", names()))),
    };
    let escaped = line.windows(6).any(|bytes| bytes == br"\u0000");
    let fields = Value::Object(fields);
    if escaped && has_zero(&fields) {
        return Err(Problem::new(kind.name(), "the character U+0000 cannot be stored"));
    }
    let record = typed(kind, fields)?;
    check(&record)?;
    Ok(record)
}

fn typed(kind: Kind, fields: Value) -> Result<Record, Problem> {
    Ok(match kind {
        Kind::User => Record::User(row(kind, fields)?),
        Kind::Project => Record::Project(row(kind, fields)?),
        Kind::ProjectMember => Record::ProjectMember(row(kind, fields)?),
        Kind::Agent => Record::Agent(row(kind, fields)?),
        Kind::Task => Record::Task(row(kind, fields)?),
        Kind::TaskResult => Record::TaskResult(row(kind, fields)?),
        Kind::TaskComment => Record::TaskComment(row(kind, fields)?),
        Kind::Evidence => Record::Evidence(row(kind, fields)?),
        Kind::TaskAttachment => Record::TaskAttachment(row(kind, fields)?),
        Kind::EvidenceRelation => Record::EvidenceRelation(row(kind, fields)?),
        Kind::Chain => Record::Chain(row(kind, fields)?),
        Kind::ChainLink => Record::ChainLink(row(kind, fields)?),
    })
}

fn row<T: DeserializeOwned>(kind: Kind, fields: Value) -> Result<T, Problem> {
    serde_path_to_error::deserialize(fields).map_err(|error| {
        let path = error.path().to_string();
        let place = if path == "." { kind.name().to_owned() } else { format!("{}.{path}", kind.name()) };
        Problem::new(place, error.into_inner().to_string())
    })
}

fn has_zero(value: &Value) -> bool {
    match value {
        Value::String(text) => text.contains('\0'),
        Value::Array(items) => items.iter().any(has_zero),
        Value::Object(fields) => fields.iter().any(|(name, value)| name.contains('\0') || has_zero(value)),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

fn names() -> String {
    Kind::ALL.map(Kind::name).join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(line: &str) -> String {
        parse(line.as_bytes()).unwrap().unwrap_err().to_string()
    }

    #[test]
    fn the_examples_of_the_documentation_are_true() {
        let page = include_str!("../../../docs/import-format.md");
        let lines: Vec<&str> = page.lines().filter(|line| line.starts_with("{\"type\"")).collect();
        let mut kinds: Vec<Kind> = Vec::new();
        for line in lines {
            kinds.push(parse(line.as_bytes()).unwrap().unwrap_or_else(|e| panic!("{e}: {line}")).kind());
        }
        kinds.sort();
        kinds.dedup();
        assert_eq!(kinds, Kind::ALL);
    }

    #[test]
    fn problems_name_their_field() {
        let evidence = r#"{"type":"evidence","externalId":"e","project":"p","title":"T","content":"C","sourceType":"log""#;
        assert_eq!(
            problem(&format!("{evidence},\"credibilityScore\":1.3}}")),
            "evidence.credibilityScore: 1.3 is not between 0.0 and 1.0"
        );
        assert_eq!(
            problem(&format!("{evidence},\"domain\":\"x\"}}")),
            "evidence.domain: \"x\" is not one of general, financial, legal, social"
        );
        assert_eq!(
            problem(&format!("{evidence},\"verified\":\"yes\"}}")),
            "evidence.verified: invalid type: string \"yes\", expected a boolean"
        );
        assert!(problem(&format!("{evidence},\"colour\":1}}")).contains("unknown field `colour`"));
        assert!(problem(&format!("{evidence},\"metadata\":{{\"a\":[\"\\u0000\"]}}}}")).contains("U+0000"));
        assert!(problem(r#"{"type":"user","externalId":"u"}"#).starts_with("user: missing field `username`"));
        assert!(problem(r#"{"type":"cat"}"#).starts_with("type: \"cat\" is not one of user, project"));
        assert!(problem("[1]").starts_with("not a JSON object"));
        assert!(parse(b" \r\n").is_none());
    }

    #[test]
    fn an_escaped_backslash_is_no_zero() {
        let line = br#"{"type":"taskComment","externalId":"c","task":"t","body":"\\u0000"}"#;
        assert!(parse(line).unwrap().is_ok());
    }
}
