//! How many streams may be open, in all and per viewer.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use uuid::Uuid;

use crate::changes::tail::held;
use crate::config::LiveSettings;
use crate::error::{Error, Result};
use crate::model::viewer::{Credential, Viewer};

/// The streams that are open. All clones are the same.
#[derive(Clone)]
pub struct Open(Arc<Shared>);

struct Shared {
    settings: LiveSettings,
    counts: Mutex<Counts>,
}

#[derive(Default)]
struct Counts {
    all: u32,
    viewers: HashMap<Who, u32>,
}

/// Whose streams count together.
type Who = (Option<Uuid>, Option<Uuid>, Option<Uuid>);

impl Open {
    /// None yet.
    pub fn new(settings: LiveSettings) -> Self {
        Self(Arc::new(Shared { settings, counts: Mutex::default() }))
    }

    /// Counts one more, unless that is too many.
    pub(super) fn take(&self, viewer: &Viewer) -> Result<Opened> {
        let key = match viewer.credential {
            Credential::ApiKey(id) => Some(id),
            Credential::None | Credential::Token => None,
        };
        let who = (viewer.user_id, viewer.agent_id, key);
        let (most, most_of_viewer) = (self.0.settings.max_streams, self.0.settings.max_streams_per_viewer);
        let mut counts = held(&self.0.counts);
        if counts.all >= most {
            let text = format!("this server has {most} streams open, which are all that it may have");
            return Err(Error::too_many("max_streams", text));
        }
        // Nobody in particular is many.
        let known = who != Who::default();
        if known && counts.viewers.get(&who).is_some_and(|count| *count >= most_of_viewer) {
            let text =
                format!("you have {most_of_viewer} streams open here, which are all that you may have");
            return Err(Error::too_many("max_streams_per_viewer", text));
        }
        counts.all += 1;
        *counts.viewers.entry(who).or_default() += 1;
        Ok(Opened { open: self.clone(), who })
    }
}

/// One open stream; it counts until it is dropped.
pub(super) struct Opened {
    open: Open,
    who: Who,
}

impl Drop for Opened {
    fn drop(&mut self) {
        let mut counts = held(&self.open.0.counts);
        counts.all = counts.all.saturating_sub(1);
        if let Some(count) = counts.viewers.get_mut(&self.who) {
            *count -= 1;
            if *count == 0 {
                counts.viewers.remove(&self.who);
            }
        }
    }
}
