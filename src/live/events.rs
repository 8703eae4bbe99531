//! From changes to events: what of a batch belongs to a stream, gathered, loaded and written.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;
use uuid::Uuid;

use crate::changes::tail::Batch;
use crate::graphql::Graph;
use crate::graphql::events::Happening;
use crate::graphql::subscription::Watch;
use crate::live::Event;
use crate::model::change::{Image, Op, Place};
use crate::model::cursor::CursorKey;
use crate::store::db::Db;

/// How often a store is asked again that did not answer for an event, and the pauses between. What is still missing
/// then is an error in the event.
const ATTEMPTS: u32 = 6;
const PAUSE: Duration = Duration::from_millis(100);

/// An event with the place of a reader who has had it.
#[derive(Debug)]
pub(super) struct Told {
    pub(super) event: Event,
    pub(super) place: Place,
}

/// What happened, and the place after it.
#[derive(Debug, Clone)]
pub(super) struct Happened {
    what: Happening,
    place: Place,
}

/// Makes events of changes.
pub(super) struct Teller {
    pub(super) watch: Watch,
    pub(super) graph: Graph,
    pub(super) db: Db,
    pub(super) cursors: CursorKey,
}

impl Teller {
    /// What of a batch belongs to the stream, in its order.
    pub(super) fn happened(&self, batch: &Batch) -> Vec<Happened> {
        let mut happened = Vec::new();
        for (n, change) in batch.changes.iter().enumerate() {
            let watched = self.watch.watched.iter().position(|watched| watched.is_about(change));
            let Some(source) = watched else { continue };
            let watched = &self.watch.watched[source];
            let image = Image::new(change);
            let Some((operation, tells_fields)) = watched.judge(&image) else { continue };
            let place = batch.place(n);
            let what = Happening {
                source,
                operation,
                id: change.id.filter(|_| change.op != Op::Truncate),
                at: change.at,
                fields: if tells_fields { watched.fields(&image) } else { None },
                cursor: place.cursor(&self.cursors).into(),
            };
            happened.push(Happened { what, place });
        }
        if self.watch.coalesce.is_some() { coalesced(happened) } else { happened }
    }

    /// Loads and writes events. Waits for a store that does not answer, and not for ever.
    pub(super) async fn tell(&self, happened: Vec<Happened>) -> Vec<Told> {
        if happened.is_empty() {
            return Vec::new();
        }
        let (what, places): (Vec<_>, Vec<_>) =
            happened.into_iter().map(|happened| (happened.what, happened.place)).unzip();
        let mut attempt = 0;
        let bodies = loop {
            let told = self.graph.tell(&self.watch, &what, self.db.session()).await;
            attempt += 1;
            if !told.failed || attempt == ATTEMPTS {
                break told.bodies;
            }
            sleep(PAUSE * 2_u32.pow(attempt)).await;
        };
        let told = what.into_iter().zip(bodies).zip(places);
        told.map(|((what, body), place)| {
            let event = Event { body, cursor: Some(what.cursor), last: false };
            Told { event, place }
        })
        .collect()
    }
}

/// One event per row, in the order of the rows' last changes.
pub(super) fn coalesced(happened: Vec<Happened>) -> Vec<Happened> {
    let mut last: HashMap<(usize, Option<Uuid>), usize> = HashMap::new();
    let mut merged: Vec<Option<Happened>> = Vec::with_capacity(happened.len());
    for mut next in happened {
        let row = (next.what.source, next.what.id);
        if next.what.id.is_none() {
            // The table was emptied: what happened to its rows before is of no interest.
            merged
                .iter_mut()
                .filter(|old| old.as_ref().is_some_and(|old| old.what.source == row.0))
                .for_each(|old| *old = None);
            last.retain(|(source, _), _| *source != row.0);
        }
        if let Some(before) = last.remove(&row).and_then(|place| merged[place].take()) {
            let Some(operation) = before.what.operation.then(next.what.operation) else { continue };
            next.what.operation = operation;
            next.what.fields = match (before.what.fields, next.what.fields.take()) {
                (Some(mut fields), Some(more)) if operation == crate::model::watch::Operation::Updated => {
                    fields.extend(more);
                    fields.sort_unstable();
                    fields.dedup();
                    Some(fields)
                }
                (_, more) => more.filter(|_| operation != crate::model::watch::Operation::Updated),
            };
        }
        last.insert(row, merged.len());
        merged.push(Some(next));
    }
    merged.into_iter().flatten().collect()
}

/// Events that are passed on together, no more than [`FRAME_BYTES`] of them unless one alone is larger.
pub(super) type Frame = Arc<[Told]>;

/// What waits for slow readers of a feed is bounded by this and the number of frames that are kept.
const FRAME_BYTES: usize = 64 * 1024;

/// Cuts events into frames.
pub(super) fn frames(told: Vec<Told>) -> Vec<Frame> {
    let mut frames = Vec::new();
    let (mut frame, mut bytes) = (Vec::new(), 0);
    for one in told {
        let size = one.event.body.len() + 512;
        if bytes + size > FRAME_BYTES && !frame.is_empty() {
            frames.push(Arc::from(std::mem::take(&mut frame)));
            bytes = 0;
        }
        bytes += size;
        frame.push(one);
    }
    if !frame.is_empty() {
        frames.push(Arc::from(frame));
    }
    frames
}
