//! Silence: agents whose next heartbeat does not come. The log cannot tell of what does not happen, so the feed keeps
//! the time, and a reader that joins it is told first who is silent by then.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::Value;
use uuid::Uuid;

use crate::changes::batch::Batch;
use crate::error::Result;
use crate::graphql::events::Happening;
use crate::live::events::{Happened, Teller};
use crate::model::agent::heartbeats;
use crate::model::change::{Image, Op, Place};
use crate::model::watch::Operation;

/// Until when the next heartbeat of each agent is waited for.
#[derive(Default)]
pub(super) struct Deadlines {
    by_agent: HashMap<Uuid, DateTime<Utc>>,
    in_order: BTreeSet<(DateTime<Utc>, Uuid)>,
}

impl Deadlines {
    fn set(&mut self, agent: Uuid, deadline: Option<DateTime<Utc>>) {
        let before = match deadline {
            Some(deadline) => self.by_agent.insert(agent, deadline),
            None => self.by_agent.remove(&agent),
        };
        if let Some(before) = before {
            self.in_order.remove(&(before, agent));
        }
        self.in_order.extend(deadline.map(|deadline| (deadline, agent)));
    }

    /// How long it is until the first one.
    pub(super) fn next(&self) -> Option<Duration> {
        let (first, _) = self.in_order.first()?;
        Some((*first - Utc::now()).to_std().unwrap_or_default())
    }

    fn take_due(&mut self) -> Vec<Uuid> {
        let now = Utc::now();
        let due: Vec<_> =
            self.in_order.iter().take_while(|(deadline, _)| *deadline <= now).copied().collect();
        due.iter().for_each(|(_, agent)| self.set(*agent, None));
        due.into_iter().map(|(_, agent)| agent).collect()
    }
}

impl Teller {
    /// Notes the heartbeats of a batch.
    pub(super) fn note_heartbeats(&self, batch: &Batch, deadlines: &mut Deadlines) {
        let (Some(silence), Some(agents)) = (&self.watch.silence, self.watch.watched.first()) else { return };
        for (change, image) in batch.changes.iter().zip(batch.images()) {
            if let Some(id) = change.id.filter(|_| agents.is_about(change)) {
                deadlines.set(id, heartbeat(image).and_then(|at| deadline(at, silence.after)));
            }
        }
    }

    /// Asks when agents had their last heartbeats, notes until when the next one is waited for, and says whose did
    /// not come. `only` limits that to some agents.
    pub(super) async fn look_at_heartbeats(
        &self,
        only: Option<Vec<Uuid>>,
        deadlines: &mut Deadlines,
        place: &Place,
    ) -> Result<Vec<Happened>> {
        let Some(silence) = &self.watch.silence else { return Ok(Vec::new()) };
        let session = self.db.session();
        let last = heartbeats(&session, &self.watch.viewer, silence.filter.as_ref(), only).await?;
        let (now, mut silent) = (Utc::now(), Vec::new());
        for (id, at) in last {
            let Some(deadline) = deadline(at, silence.after) else { continue };
            if deadline > now {
                deadlines.set(id, Some(deadline));
                continue;
            }
            let what = Happening {
                source: 0,
                operation: Operation::Silent,
                id: Some(id),
                at: deadline,
                fields: None,
                cursor: place.cursor(&self.cursors).into(),
                score: None,
            };
            silent.push(Happened::at(what, place.clone()));
        }
        silent.sort_by_key(Happened::time);
        Ok(silent)
    }

    /// Those whose heartbeat is due and did not come.
    pub(super) async fn silent(&self, deadlines: &mut Deadlines, place: &Place) -> Result<Vec<Happened>> {
        let due = deadlines.take_due();
        if due.is_empty() {
            return Ok(Vec::new());
        }
        let looked = self.look_at_heartbeats(Some(due.clone()), deadlines, place).await;
        if looked.is_err() {
            let soon = Utc::now() + Duration::from_secs(1);
            due.into_iter().for_each(|agent| deadlines.set(agent, Some(soon)));
        }
        looked
    }
}

/// When the next heartbeat is due; never after one at the end of time.
fn deadline(at: DateTime<Utc>, after: Duration) -> Option<DateTime<Utc>> {
    at.checked_add_signed(TimeDelta::from_std(after).ok()?)
}

/// The last heartbeat of an agent from which another one is expected.
fn heartbeat(image: &Image) -> Option<DateTime<Utc>> {
    let active = image.now("status").and_then(Value::as_str) == Some("active");
    let deleted = image.now("deleted").and_then(Value::as_bool) == Some(true);
    let at = image.now("last_heartbeat_at").and_then(Value::as_str)?;
    let at = DateTime::parse_from_rfc3339(at).ok()?.with_timezone(&Utc);
    (active && !deleted && image.op != Op::Delete).then_some(at)
}
