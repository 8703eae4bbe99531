//! From changes to events: what of a batch belongs to a stream, gathered, loaded and written.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use tokio::time::sleep;
use uuid::Uuid;

use crate::changes::batch::Batch;
use crate::graphql::Graph;
use crate::graphql::events::Happening;
use crate::graphql::subscription::Watch;
use crate::live::Event;
use crate::live::rows::Reader;
use crate::live::standing::{Standing, brings_text, nearness, version};
use crate::model::change::{Op, Place};
use crate::model::cursor::CursorKey;
use crate::model::watch::Operation;
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
    /// Whether the row has another text than before; only standing searches want to know.
    brings_text: bool,
    /// The row, and the version that it has now.
    version: Option<(Uuid, i64)>,
}

impl Happened {
    /// What is no change, told at a place.
    pub(super) fn at(what: Happening, place: Place) -> Self {
        Self { what, place, brings_text: false, version: None }
    }

    /// The place after it.
    pub(super) fn place(&self) -> &Place {
        &self.place
    }

    /// When it was done.
    pub(super) fn time(&self) -> DateTime<Utc> {
        self.what.at
    }
}

/// How the rows of events are read.
#[derive(Debug, Clone, Copy)]
pub(super) enum Manner {
    /// With those of other feeds.
    Together,
    /// At once: for a reader of the log, whom nobody else should have to wait for.
    Alone,
}

/// Makes events of changes.
pub(super) struct Teller {
    pub(super) watch: Watch,
    pub(super) graph: Graph,
    pub(super) db: Db,
    pub(super) cursors: CursorKey,
    pub(super) rows: Arc<Reader>,
    pub(super) standing: Standing,
}

impl Teller {
    fn all_of(&self, batch: &Batch) -> Vec<Happened> {
        let mut happened = Vec::new();
        for (n, change) in batch.changes.iter().enumerate() {
            let watched = self.watch.watched.iter().position(|watched| watched.is_about(change));
            let Some(source) = watched else { continue };
            let watched = &self.watch.watched[source];
            let image = &batch.images()[n];
            let Some((operation, tells_fields)) = watched.judge(image) else { continue };
            let place = batch.place(n);
            let what = Happening {
                source,
                operation,
                id: change.id.filter(|_| change.op != Op::Truncate),
                at: change.at,
                fields: if tells_fields { watched.fields(image) } else { None },
                cursor: place.cursor(&self.cursors).into(),
                score: None,
            };
            let brings_text = self.watch.question.is_some() && brings_text(change, image, watched.table);
            happened.push(Happened { what, place, brings_text, version: version(change) });
        }
        happened
    }

    /// What of a batch belongs to the stream, in its order. A standing search waits for the index.
    pub(super) async fn happened(&self, batch: &Batch) -> Vec<Happened> {
        let mut happened = self.all_of(batch);
        let Some(question) = &self.watch.question else { return happened };
        let table = self.watch.watched.first().map_or("", |watched| watched.table);
        happened.retain(|one| match one.what.operation {
            Operation::Created | Operation::Updated => one.brings_text,
            Operation::Entered => true,
            // Whether it fits is in doubt, so it may.
            Operation::Reset => one.what.id.is_some(),
            Operation::Deleted | Operation::Left | Operation::Silent => false,
        });
        if happened.is_empty() {
            return happened;
        }
        let texts = match happened.iter().any(|one| one.brings_text) {
            true => self.standing.texts(batch, table).await,
            false => Arc::default(),
        };
        // What only came to fit the filter has the text that it had.
        let old = happened.iter().filter(|one| !one.brings_text);
        let old = self.standing.get(old.filter_map(|one| one.version)).await;
        let text = |id: Uuid| texts.get(&id).or_else(|| old.get(&id));
        happened.retain_mut(|one| match one.what.id.and_then(text) {
            Some(Some(text)) => {
                let score = nearness(&question.vector, text);
                one.what.score = Some(score);
                score >= question.min_score
            }
            Some(None) => true,
            None => false,
        });
        happened
    }

    /// Loads and writes events. Waits for a store that does not answer, and not for ever.
    pub(super) async fn tell(&self, happened: Vec<Happened>, manner: Manner) -> Vec<Told> {
        if happened.is_empty() {
            return Vec::new();
        }
        let (what, places): (Vec<_>, Vec<_>) =
            happened.into_iter().map(|happened| (happened.what, happened.place)).unzip();
        let mut attempt = 0;
        let bodies = loop {
            let wanted = what.iter().filter_map(Happening::wants).collect();
            let rows = match manner {
                Manner::Together => self.rows.read(wanted).await,
                Manner::Alone => self.rows.read_alone(&wanted).await,
            };
            let told = self.graph.tell(&self.watch, &what, &rows);
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
                (Some(mut fields), Some(more)) if operation == Operation::Updated => {
                    fields.extend(more);
                    fields.sort_unstable();
                    fields.dedup();
                    Some(fields)
                }
                (_, more) => more.filter(|_| operation != Operation::Updated),
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
