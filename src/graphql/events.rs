//! Events: what happened, and the rows that it is shown with, written by the plan of a subscription. The rows of many
//! events are read at once, also for subscriptions that differ in nothing but their filters, so that the number of
//! statements depends on neither the events nor those who are told.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use futures_util::future::join_all;
use uuid::Uuid;

use crate::error::Code;
use crate::graphql::level::{Child, resolve};
use crate::graphql::loaders::Loaders;
use crate::graphql::plan::{RelationPlan, Slot};
use crate::graphql::root::row_of;
use crate::graphql::subscription::Watch;
use crate::graphql::types::subscription::entity_of;
use crate::graphql::write::{Bubble, Writer, Written};
use crate::graphql::{ErrorBody, Graph, append};
use crate::model::viewer::Viewer;
use crate::model::watch::Operation;
use crate::store::db::Session;
use crate::store::db::rows::RowRef;

/// How to write events.
pub(super) struct EventPlan {
    /// The root field.
    pub(super) root: Slot<()>,
    /// The type of the event.
    pub(super) name: String,
    pub(super) fields: Vec<Slot<EventField>>,
    /// The rows that events show: for each field `node`, one per watched entity.
    pub(super) nodes: Arc<[RelationPlan]>,
}

pub(super) enum EventField {
    Typename,
    Cursor,
    Operation,
    At,
    Id,
    Entity,
    ChangedFields,
    Score,
    /// The first of its places in `EventPlan::nodes`.
    Node(usize),
}

/// What happened to a row, as one stream sees it.
#[derive(Debug, Clone)]
pub struct Happening {
    /// Which of the watched entities it is about.
    pub source: usize,
    /// What was done.
    pub operation: Operation,
    /// The row; none if it is about all of them.
    pub id: Option<Uuid>,
    /// When it was done.
    pub at: DateTime<Utc>,
    /// The fields that changed, where they may be told.
    pub fields: Option<Vec<&'static str>>,
    /// Where the stream can be resumed after this.
    pub cursor: Arc<str>,
    /// How near its text is to the question, if there is one and the index has the text.
    pub score: Option<f64>,
}

/// Events, written.
pub struct Told {
    /// The bodies, one per happening.
    pub bodies: Vec<Bytes>,
    /// Whether a store did not answer for one of them.
    pub failed: bool,
}

/// What events show of rows, and to whom.
#[derive(Clone)]
pub struct Shown {
    viewer: Viewer,
    nodes: Arc<[RelationPlan]>,
    /// How many entities are watched.
    sources: usize,
}

/// Rows that events show, by the place of their entity among those that are watched.
pub type Wanted = BTreeSet<(usize, Uuid)>;

/// Rows that were read for events.
pub struct Rows {
    shown: Shown,
    /// Where a row stands among those of its entity.
    places: HashMap<(usize, Uuid), usize>,
    loaded: Vec<Vec<Child>>,
}

impl Watch {
    /// What its events show of rows.
    pub fn shown(&self) -> Shown {
        Shown { viewer: self.viewer.clone(), nodes: self.plan.nodes.clone(), sources: self.watched.len() }
    }
}

impl Happening {
    /// The row that is shown with it, if it is one that belongs to the stream.
    pub fn wants(&self) -> Option<(usize, Uuid)> {
        let id = self.id.filter(|_| self.operation.is_inside())?;
        Some((self.source, id))
    }
}

impl Shown {
    /// Whether rows are shown at all.
    pub fn is_any(&self) -> bool {
        !self.nodes.is_empty()
    }
}

impl Graph {
    /// Reads rows for events.
    pub async fn rows(&self, shown: Shown, wanted: &Wanted, session: Session) -> Rows {
        let loaders =
            Loaders::new(shown.viewer.clone(), session, self.searcher.clone(), self.metrics.clone());
        let mut places = HashMap::with_capacity(wanted.len());
        let mut rows: Vec<Vec<RowRef>> = vec![Vec::new(); shown.sources];
        for (source, id) in wanted {
            places.insert((*source, *id), rows[*source].len());
            rows[*source].push(row_of([*id]));
        }
        let nodes = shown.nodes.iter().enumerate();
        let nodes =
            nodes.map(|(n, node)| resolve(&loaders, std::slice::from_ref(node), &rows[n % shown.sources]));
        let loaded = join_all(nodes).await;
        Rows { shown, places, loaded }
    }

    /// Writes events with the rows that were read for them.
    pub fn tell(&self, watch: &Watch, happenings: &[Happening], rows: &Rows) -> Told {
        let plan = &watch.plan;
        let mut failed = false;
        let bodies = happenings.iter().map(|happening| {
            let mut writer = Writer::new(&self.cursors);
            writer.json.extend_from_slice(b"{\"data\":{");
            writer.json.extend_from_slice(&plan.root.json);
            let written = writer.under(&plan.root.key, |out| {
                let event = Event { watch, happening, rows };
                out.members(&plan.fields, |out, slot| event.write(out, slot))
            });
            // Nothing in it can fail that is not nullable.
            drop(written);
            writer.json.extend_from_slice(b"}");
            if !writer.errors.is_empty() {
                let lost = |code| matches!(code, Code::Unavailable | Code::Timeout);
                failed |= writer.errors.iter().any(|error| lost(error.error.code()));
                let errors: Vec<_> = writer.errors.iter().map(ErrorBody::from_field).collect();
                writer.json.extend_from_slice(b",\"errors\":");
                append(&mut writer.json, &errors);
            }
            writer.json.push(b'}');
            Bytes::from(writer.json)
        });
        let bodies = bodies.collect();
        Told { bodies, failed }
    }
}

/// One event on its way out.
struct Event<'a> {
    watch: &'a Watch,
    happening: &'a Happening,
    rows: &'a Rows,
}

impl<'a> Event<'a> {
    fn write(&self, out: &mut Writer<'a>, slot: &'a Slot<EventField>) -> Written {
        let Self { watch, happening, rows } = self;
        match slot.value {
            EventField::Typename => out.text(&watch.plan.name),
            EventField::Cursor => out.text(&happening.cursor),
            EventField::Operation => out.text(happening.operation.as_str()),
            EventField::At => out.text(&happening.at.to_rfc3339_opts(chrono::SecondsFormat::AutoSi, true)),
            EventField::Id => out.json_of(&happening.id),
            EventField::Entity => out.text(&entity_of(watch.watched[happening.source].ty)),
            EventField::Score => out.json_of(&happening.score),
            EventField::ChangedFields => out.json_of(&happening.fields),
            EventField::Node(first) => {
                let Some(wanted) = happening.wants() else { return out.raw(b"null") };
                let place = rows.places.get(&wanted).copied().ok_or(Bubble)?;
                let n = first + happening.source;
                // By the plan by which it was read.
                out.relation(&rows.shown.nodes[n], &rows.loaded[n][0], place, slot.pos)
            }
        }
    }
}
