//! The audit trail of a mutation: one entry per row that it writes, in its transaction.

use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::Write;
use super::rows::{Locked, insert_rows};
use crate::error::{Error, Result};
use crate::model::mutation::Row;
use crate::model::trail::event::snake_case;
use crate::model::viewer::Credential;

/// Characters of one value in the trail at most; what is longer is cut and ends in an ellipsis.
const MAX_VALUE: usize = 2_000;
/// Characters of a client's name for itself at most, as the table allows.
const MAX_USER_AGENT: usize = 1_000;

impl Write<'_> {
    pub(super) fn note_insert(
        &mut self,
        event: &'static str,
        entity: &str,
        id: Uuid,
        project: Uuid,
        row: &Row,
    ) {
        // Null says nothing of a new row; the moment of an insert is that of its entry.
        let said = row.iter().filter(|(_, value)| !value.is_null() && **value != *"now");
        let new: Map<_, _> = said.map(|(column, value)| ((*column).to_owned(), cut(value))).collect();
        let project = (!project.is_nil()).then_some(project);
        let entry = self.entry((event, "create"), entity, id, project);
        self.trail.push(with_values(entry, None, new));
    }

    pub(super) fn note_update(&mut self, event: &'static str, locked: &Locked, new: &Map<String, Value>) {
        let changed = new.iter().filter(|(column, value)| locked.old.get(*column) != Some(value));
        let changed: Vec<_> = changed.map(|(column, _)| column).collect();
        let pick = |from: &Map<String, Value>| {
            let cells =
                changed.iter().filter_map(|column| Some(((*column).clone(), cut(from.get(*column)?))));
            cells.collect::<Map<_, _>>()
        };
        let entry = self.entry((event, "update"), locked.entity, locked.id, locked.project_id);
        let entry = with_values(entry, Some(pick(&locked.old)), pick(new));
        self.trail.push(entry);
    }

    /// Who did what to which row; what it held follows.
    fn entry(
        &self,
        (event, action): (&'static str, &'static str),
        entity: &str,
        id: Uuid,
        project: Option<Uuid>,
    ) -> Row {
        let mut data = json!({"mutation": self.mutation.name, "role": self.viewer.role.as_str()});
        if let Credential::ApiKey(key) = self.viewer.credential {
            data["apiKey"] = key.to_string().into();
        }
        let agent = self.origin.user_agent.as_deref().map(|name| beginning(name, MAX_USER_AGENT).0);
        let id_of = |id: Option<Uuid>| Value::from(id.map(|id| id.to_string()));
        Row::from([
            ("id", Uuid::now_v7().to_string().into()),
            ("event_type", event.into()),
            ("action", action.into()),
            ("resource_type", snake_case(entity).into()),
            ("resource_id", id.to_string().into()),
            ("project_id", id_of(project)),
            ("actor_user_id", id_of(self.viewer.user_id)),
            ("actor_agent_id", id_of(self.viewer.agent_id)),
            ("request_id", self.origin.request_id.as_str().into()),
            ("ip_address", self.origin.address.as_deref().into()),
            ("user_agent", agent.into()),
            ("data", data),
        ])
    }

    pub(super) async fn write_trail(&mut self) -> Result<()> {
        let trail = std::mem::take(&mut self.trail);
        insert_rows(&mut self.tx, "audit_logs", trail).await.map_err(Error::from)
    }
}

fn with_values(mut entry: Row, old: Option<Map<String, Value>>, new: Map<String, Value>) -> Row {
    entry.insert("old_values", old.map_or(Value::Null, Value::Object));
    entry.insert("new_values", Value::Object(new));
    entry
}

/// The value if it is short, and the beginning of its text otherwise.
fn cut(value: &Value) -> Value {
    let shortened = |text: &str| {
        let (text, whole) = beginning(text, MAX_VALUE);
        (!whole).then(|| format!("{text}…").into())
    };
    let cut = match value {
        Value::String(text) => shortened(text),
        Value::Array(_) | Value::Object(_) => shortened(&value.to_string()),
        _ => None,
    };
    cut.unwrap_or_else(|| value.clone())
}

/// So many characters, and whether these are all.
fn beginning(text: &str, most: usize) -> (&str, bool) {
    match text.char_indices().nth(most) {
        Some((end, _)) => (&text[..end], false),
        None => (text, true),
    }
}
