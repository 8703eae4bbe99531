//! The sockets of this process: how many there are and whose, and how they end when the process does.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use uuid::Uuid;

use super::reserved::Reservations;
use crate::config::SocketSettings;
use crate::error::{Code, Error, Result};
use crate::model::viewer::{Credential, Viewer};
use crate::telemetry::Metrics;

/// The sockets of this process. All clones are the same.
#[derive(Clone)]
pub struct Sockets(Arc<Inner>);

struct Inner {
    most: u32,
    most_per_viewer: u32,
    metrics: Arc<Metrics>,
    taken: Mutex<Taken>,
    /// How many are open.
    open: watch::Sender<u32>,
    stage: watch::Sender<Stage>,
    /// Whose turn to end it is, counted from the first.
    turn: AtomicU32,
    reservations: Reservations,
}

#[derive(Default)]
struct Taken {
    all: u32,
    by_viewer: HashMap<Who, u32>,
}

/// Whose sockets are counted together: those of a user, an agent, or an API key of neither.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Who {
    User(Uuid),
    Agent(Uuid),
    Key(Uuid),
}

impl Who {
    fn of(viewer: &Viewer) -> Option<Self> {
        match (viewer.user_id, viewer.agent_id, viewer.credential) {
            (Some(id), ..) => Some(Self::User(id)),
            (None, Some(id), _) => Some(Self::Agent(id)),
            (None, None, Credential::ApiKey(id)) => Some(Self::Key(id)),
            // Nobody in particular is many.
            (None, None, Credential::None | Credential::Token) => None,
        }
    }
}

/// How far the end of the process is.
#[derive(Clone, Copy)]
enum Stage {
    /// It is not.
    Serving,
    /// So many end one after the other in this time.
    Closing { begun: Instant, within: Duration, open: u32 },
    /// Whatever is left ends now.
    Cut,
}

impl Sockets {
    /// None so far.
    pub fn new(settings: &SocketSettings, metrics: Arc<Metrics>) -> Self {
        Self(Arc::new(Inner {
            most: settings.max_sockets,
            most_per_viewer: settings.max_sockets_per_viewer,
            metrics,
            taken: Mutex::default(),
            open: watch::Sender::new(0),
            stage: watch::Sender::new(Stage::Serving),
            turn: AtomicU32::new(0),
            reservations: Reservations::default(),
        }))
    }

    /// A place for one more, `transport` being what metrics call it.
    pub(super) fn enter(&self, transport: &'static str) -> Result<Place> {
        let stopping = || Error::new(Code::Unavailable, "this server is stopping; connect to another one");
        if !matches!(*self.0.stage.borrow(), Stage::Serving) {
            return Err(stopping());
        }
        let mut taken = self.taken();
        if taken.all >= self.0.most {
            return Err(Error::too_many("max_sockets", "too many sockets are open; try again later"));
        }
        taken.all += 1;
        self.0.open.send_replace(taken.all);
        self.0.metrics.sockets.opened(transport);
        Ok(Place { sockets: self.clone(), transport, who: None, code: 1006 })
    }

    pub(super) fn reservations(&self) -> &Reservations {
        &self.0.reservations
    }

    /// Ends all of them, one after the other, within this time. No more are let in.
    pub fn close_within(&self, within: Duration) {
        let open = self.taken().all;
        self.0.stage.send_replace(Stage::Closing { begun: Instant::now(), within, open });
    }

    /// Ends what is left, at once.
    pub fn cut(&self) {
        self.0.stage.send_replace(Stage::Cut);
    }

    /// Resolves when none is open.
    pub async fn all_closed(&self) {
        // The sender lives as long as this does.
        drop(self.0.open.subscribe().wait_for(|open| *open == 0).await);
    }

    /// Resolves when the process ends and it is the caller's turn: they are spread evenly, so that those who come to
    /// another process do not all come at once.
    pub(super) async fn turn(&self) {
        let mut stage = self.0.stage.subscribe();
        drop(stage.wait_for(|stage| !matches!(stage, Stage::Serving)).await);
        let now = *stage.borrow();
        if let Stage::Closing { begun, within, open } = now {
            let turn = self.0.turn.fetch_add(1, Ordering::Relaxed).min(open);
            let at = begun + within * turn / open.max(1);
            tokio::select! {
                () = sleep_until(at) => {}
                () = self.cut_off() => {}
            }
        }
    }

    /// Resolves when nothing may go on.
    pub(super) async fn cut_off(&self) {
        drop(self.0.stage.subscribe().wait_for(|stage| matches!(stage, Stage::Cut)).await);
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.0.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A place among the sockets, for as long as it lives.
pub(super) struct Place {
    sockets: Sockets,
    transport: &'static str,
    who: Option<Who>,
    /// How it ended, as WebSockets say it.
    pub(super) code: u16,
}

impl Place {
    /// Counts it among those of the viewer, too, if it is not so already.
    pub(super) fn name(&mut self, viewer: &Viewer) -> Result<()> {
        if self.who.is_some() {
            return Ok(());
        }
        let Some(who) = Who::of(viewer) else { return Ok(()) };
        let mut taken = self.sockets.taken();
        let count = taken.by_viewer.entry(who).or_default();
        if *count >= self.sockets.0.most_per_viewer {
            let text = "too many sockets of the same viewer are open; close one of them";
            return Err(Error::too_many("max_sockets_per_viewer", text));
        }
        *count += 1;
        self.who = Some(who);
        Ok(())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let inner = &self.sockets.0;
        inner.metrics.sockets.closed(self.transport, self.code);
        let mut taken = self.sockets.taken();
        taken.all -= 1;
        if let Some(who) = &self.who
            && let Some(count) = taken.by_viewer.get_mut(who)
        {
            *count -= 1;
            if *count == 0 {
                taken.by_viewer.remove(who);
            }
        }
        inner.open.send_replace(taken.all);
    }
}
