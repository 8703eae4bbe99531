//! What a request wants of the cache.

use std::time::Duration;

use axum::http::header::{CACHE_CONTROL, IF_NONE_MATCH};
use axum::http::{HeaderMap, HeaderValue, Method};

use crate::app::App;
use crate::cache::Miss;
use crate::cache::entry::Entry;
use crate::cache::key::Key;
use crate::http::consistency;
use crate::model::viewer::Viewer;

/// A request as the cache sees it.
#[derive(Clone)]
pub(in crate::http) struct Ask {
    pub(super) bytes: Option<Key>,
    pub(super) method: Method,
    pub(super) if_none_match: Option<HeaderValue>,
    /// An answer may come from the cache.
    pub(super) look_up: bool,
    /// It may be kept.
    pub(super) keep: bool,
    /// It may be as stale as this.
    pub(super) max_stale: Option<Duration>,
    /// Anybody may have the answer: nobody was asked who they are.
    pub(super) public: bool,
    /// The answer is to say how it came about.
    pub(super) explain: bool,
    /// The client has seen something written, so that nothing older will do.
    pub(in crate::http) must_be_fresh: bool,
}

impl Ask {
    pub(in crate::http) fn new(
        app: &App,
        headers: &HeaderMap,
        viewer: &Viewer,
        method: Method,
        bytes: &[u8],
    ) -> Self {
        let mut ask = Self {
            bytes: app.cache.is_on().then(|| app.cache.keys().of_bytes(viewer, method.as_str(), bytes)),
            method,
            if_none_match: headers.get(IF_NONE_MATCH).cloned(),
            look_up: app.cache.is_on(),
            keep: app.cache.is_on(),
            max_stale: None,
            public: app.access.lets_everyone_in(),
            explain: false,
            must_be_fresh: headers.contains_key(consistency::HEADER),
        };
        for value in headers.get_all(CACHE_CONTROL) {
            for part in value.to_str().unwrap_or_default().split(',') {
                let (name, argument) = part.split_once('=').unwrap_or((part, ""));
                match name.trim().to_ascii_lowercase().as_str() {
                    "no-cache" => ask.look_up = false,
                    "no-store" => (ask.look_up, ask.keep) = (false, false),
                    // Without a number any age will do.
                    "max-stale" => {
                        let seconds = argument.trim().trim_matches('"').parse();
                        ask.max_stale = Some(seconds.map_or(Duration::MAX, Duration::from_secs));
                    }
                    _ => {}
                }
            }
        }
        ask
    }

    /// Has the answer say how it came about. Such an answer is made for this request.
    pub(in crate::http) fn explain(&mut self) {
        self.explain = true;
        self.bytes = None;
        self.if_none_match = None;
        self.public = false;
    }

    pub(super) fn takes_stale(&self, entry: &Entry, miss: Miss) -> bool {
        let knowable = matches!(miss, Miss::Changed | Miss::Expired | Miss::Forgotten);
        knowable && !self.must_be_fresh && self.max_stale.is_some_and(|most| entry.age() <= most)
    }
}
