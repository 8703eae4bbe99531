//! Live streams.

use std::sync::Arc;

use bytes::Bytes;

use crate::app::App;
use crate::error::{Code, Error};
use crate::graphql::admit::{Admitted, Refusal};
use crate::model::viewer::Viewer;

/// Opens streams.
#[derive(Clone, Default)]
pub struct Live;

/// One stream.
pub struct Stream;

/// One event.
#[derive(Clone)]
pub struct Event {
    /// A whole response in JSON.
    pub body: Bytes,
    /// Where the stream can be resumed.
    pub cursor: Option<Arc<str>>,
    /// Whether nothing comes after it.
    pub last: bool,
}

impl Live {
    /// Begins a stream.
    pub async fn open(
        &self,
        _app: &App,
        _admitted: Admitted,
        _viewer: Viewer,
        _resume: Option<String>,
    ) -> Result<Stream, Refusal> {
        Err(Error::new(Code::Unavailable, "there are no streams yet").into())
    }
}

impl Stream {
    /// The next event.
    pub async fn next(&mut self) -> Option<Event> {
        None
    }
}
