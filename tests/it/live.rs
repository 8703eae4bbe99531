//! Streams: every event once, in order and for those alone who may see it, however slow a reader is and wherever it
//! resumes.

use std::time::Duration;

use evidence_gateway::app::App;
use evidence_gateway::graphql::admit::{Parameters, Refusal};
use evidence_gateway::http::viewer::Access;
use evidence_gateway::live::{Event, Next, Stream};
use evidence_gateway::model::viewer::Viewer;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::harness::{Database, SECRET, config, execute};

mod answers;
mod behind;
mod exact;
mod kinds;
#[cfg(all(feature = "edge", feature = "minilm"))]
mod matched;
mod operations;
pub(crate) mod oracle;
mod refusals;
mod silence;

/// A process that only follows the log: nothing else makes statements.
pub(crate) struct Process {
    pub(crate) app: App,
    running: JoinHandle<()>,
}

impl Drop for Process {
    fn drop(&mut self) {
        self.running.abort();
    }
}

impl Process {
    pub(crate) async fn start(url: &str, settings: &[&str]) -> Self {
        let app = App::connect(config(settings), url, SECRET.as_bytes(), Access::Everyone).await.unwrap();
        let tail = app.changes.clone();
        let running = tokio::spawn(async move { tail.follow_log().await });
        Self { app, running }
    }

    /// One that does all that a process does in the background.
    #[cfg(all(feature = "edge", feature = "minilm"))]
    pub(crate) async fn with_indexer(url: &str, settings: &[&str]) -> Self {
        let app = App::connect(config(settings), url, SECRET.as_bytes(), Access::Everyone).await.unwrap();
        let running = tokio::spawn(evidence_gateway::changes::run(app.clone()));
        Self { app, running }
    }

    /// Begins a stream.
    pub(crate) async fn open(
        &self,
        document: &str,
        variables: Value,
        viewer: &Viewer,
    ) -> Result<Stream, Refusal> {
        let variables = RawValue::from_string(variables.to_string()).unwrap();
        let parameters =
            Parameters { query: Some(document.to_owned()), variables: Some(variables), ..Default::default() };
        let admitted = self.app.graph.admit(parameters)?;
        self.app.live.open(&self.app, admitted, viewer.clone(), None).await
    }

    pub(crate) async fn watch(&self, document: &str, variables: Value, viewer: &Viewer) -> Stream {
        match self.open(document, variables, viewer).await {
            Ok(stream) => stream,
            Err(refusal) => panic!("{document}: {:?}", refusal.error),
        }
    }
}

/// Nothing comes for a while.
pub(crate) async fn is_quiet(stream: &mut Stream) {
    let waited = tokio::time::timeout(Duration::from_millis(400), stream.next(None)).await;
    assert!(waited.is_err(), "{waited:?}");
}

/// The next event, which must come.
pub(crate) async fn next(stream: &mut Stream) -> Event {
    match tokio::time::timeout(Duration::from_secs(20), stream.next(None)).await.unwrap().unwrap() {
        Next::Event(event) => event,
        Next::Place(place) => panic!("nobody asked for {place}"),
    }
}

/// The only field of an event without errors.
pub(crate) fn told(event: &Event) -> Value {
    let mut body: Value = serde_json::from_slice(&event.body).unwrap();
    assert_eq!(body.get("errors"), None, "{body}");
    let data = body["data"].as_object_mut().unwrap();
    assert_eq!(data.len(), 1);
    let value = data.values_mut().next().unwrap().take();
    if let Some(cursor) = value.get("cursor") {
        assert_eq!(cursor.as_str(), event.cursor.as_deref());
    }
    value
}
