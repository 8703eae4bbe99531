//! Events: what happened, loaded and written by the plan of a subscription. The nodes of all events of a batch are
//! read at once, so that the number of statements depends on neither the events nor those who are told.

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
use crate::graphql::write::{Writer, Written};
use crate::graphql::{ErrorBody, Graph, append};
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
    pub(super) nodes: Vec<RelationPlan>,
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

impl Graph {
    /// Loads and writes events.
    pub async fn tell(&self, watch: &Watch, happenings: &[Happening], session: Session) -> Told {
        let plan = &watch.plan;
        let loaders =
            Loaders::new(watch.viewer.clone(), session, self.searcher.clone(), self.metrics.clone());
        let sources = watch.watched.len();
        let mut places = vec![0; happenings.len()];
        let mut rows: Vec<Vec<RowRef>> = vec![Vec::new(); sources];
        for (place, happening) in places.iter_mut().zip(happenings) {
            if let Some(id) = happening.id.filter(|_| happening.operation.is_inside()) {
                *place = rows[happening.source].len();
                rows[happening.source].push(row_of([id]));
            }
        }
        let nodes = plan.nodes.iter().enumerate();
        let nodes = nodes.map(|(n, node)| resolve(&loaders, std::slice::from_ref(node), &rows[n % sources]));
        let nodes: Vec<Vec<Child>> = join_all(nodes).await;
        let mut failed = false;
        let told = happenings.iter().zip(places);
        let bodies = told.map(|(happening, place)| {
            let mut writer = Writer::new(&self.cursors);
            writer.json.extend_from_slice(b"{\"data\":{");
            writer.json.extend_from_slice(&plan.root.json);
            let written = writer.under(&plan.root.key, |out| {
                let event = Event { watch, happening, place, nodes: &nodes };
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
    /// Where its row stands among the rows of its entity.
    place: usize,
    nodes: &'a [Vec<Child>],
}

impl<'a> Event<'a> {
    fn write(&self, out: &mut Writer<'a>, slot: &'a Slot<EventField>) -> Written {
        let Self { watch, happening, .. } = self;
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
                if happening.id.is_none() || !happening.operation.is_inside() {
                    return out.raw(b"null");
                }
                let n = first + happening.source;
                let plan = &watch.plan;
                out.relation(&plan.nodes[n], &self.nodes[n][0], self.place, slot.pos)
            }
        }
    }
}
