//! graphql-sse, in both of its modes, as the PROTOCOL.md of npm's graphql-sse has them, and Apollo's multipart bodies.

use std::collections::VecDeque;

use evidence_gateway::http::viewer::Access;
use evidence_gateway::model::viewer::Viewer;
use reqwest::{RequestBuilder, Response};
use serde_json::{Value, json};
use tokio::time::timeout;

use super::{PATIENCE, metric, until};
use crate::harness::{Database, Gateway, column, execute, member, sample_url, secret, token};

const COUNT: &str = "{ agents { totalCount } }";
const CHANGES: &str = "subscription ($after: String) { taskChanged(after: $after) { cursor id } }";

/// A stream of events, read as they come.
pub(super) struct Events {
    response: Response,
    text: String,
    read: VecDeque<Event>,
    comments: usize,
}

#[derive(Debug, Default, PartialEq)]
pub(super) struct Event {
    pub(super) name: String,
    pub(super) id: Option<String>,
    data: Option<String>,
    pub(super) retry: Option<String>,
}

impl Event {
    /// Whether it says only where the stream can be resumed.
    pub(super) fn is_place(&self) -> bool {
        self.name.is_empty() && self.data.is_none() && self.id.is_some()
    }

    pub(super) fn json(&self) -> Value {
        serde_json::from_str(self.data.as_deref().unwrap()).unwrap()
    }
}

impl Events {
    pub(super) async fn of(request: RequestBuilder) -> Self {
        let response = request.header("accept", "text/event-stream").send().await.unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["cache-control"], "no-store");
        Self::in_body(response)
    }

    pub(super) fn in_body(response: Response) -> Self {
        assert_eq!(response.headers()["content-type"], "text/event-stream; charset=utf-8");
        Self { response, text: String::new(), read: VecDeque::new(), comments: 0 }
    }

    /// The next event; `None` when the stream is over.
    async fn next(&mut self) -> Option<Event> {
        loop {
            let next = self.try_next().await.unwrap();
            if !next.as_ref().is_some_and(Event::is_place) {
                return next;
            }
        }
    }

    /// Where the stream can be resumed, as it is said when there is no event.
    async fn place(&mut self) -> String {
        let next = self.try_next().await.unwrap().unwrap();
        assert!(next.is_place(), "{next:?}");
        next.id.unwrap()
    }

    /// The same, over a connection that may break.
    pub(super) async fn try_next(&mut self) -> reqwest::Result<Option<Event>> {
        loop {
            if let Some(event) = self.read.pop_front() {
                return Ok(Some(event));
            }
            let chunk = timeout(PATIENCE, self.response.chunk()).await.expect("nothing comes")?;
            let Some(chunk) = chunk else { return Ok(None) };
            self.text.push_str(std::str::from_utf8(&chunk).unwrap());
            while let Some((block, rest)) = self.text.split_once("\n\n") {
                let mut event = Event::default();
                for line in block.lines() {
                    let (field, value) = line.split_once(':').unwrap();
                    let value = value.strip_prefix(' ').unwrap_or(value).to_owned();
                    match field {
                        "event" => event.name = value,
                        "id" => event.id = Some(value),
                        "data" => event.data = Some(value),
                        "retry" => event.retry = Some(value),
                        "" => self.comments += 1,
                        _ => panic!("{block}"),
                    }
                }
                if event != Event::default() {
                    self.read.push_back(event);
                }
                self.text = rest.to_owned();
            }
        }
    }

    pub(super) async fn event(&mut self) -> Event {
        self.next().await.expect("the stream is over")
    }
}

async fn error_of(response: Response) -> (u16, String) {
    let status = response.status().as_u16();
    let body: Value = response.json().await.unwrap();
    (status, body["errors"][0]["extensions"]["code"].as_str().unwrap().to_owned())
}

#[tokio::test]
async fn every_operation_can_have_a_stream_of_its_own() {
    let gateway = Gateway::open(&sample_url()).await;
    let (own, other) = (format!("{}/graphql/stream", gateway.url), format!("{}/graphql", gateway.url));
    let ways = |query: &str| {
        let body = json!({"query": query});
        [
            gateway.client.post(&own).json(&body),
            gateway.client.post(&other).json(&body),
            gateway.client.get(&own).query(&[("query", query)]),
            gateway.client.get(&other).query(&[("query", query)]),
        ]
    };
    for request in ways(COUNT) {
        let mut events = Events::of(request).await;
        let event = events.event().await;
        assert_eq!(
            (event.name.as_str(), event.json()),
            ("next", json!({"data": {"agents": {"totalCount": 10}}}))
        );
        let end = Event { name: "complete".to_owned(), data: Some(String::new()), ..Event::default() };
        assert_eq!((events.next().await, events.next().await), (Some(end), None));
    }
    // What is wrong with an operation is an event, too: an event source could not read another answer.
    for wrong in [
        "{ ",
        "{ nothing }",
        "subscription { nothing }",
        "subscription { taskChanged(after: \"x\") { id } }",
        "subscription { a b }",
    ] {
        for request in ways(wrong) {
            let mut events = Events::of(request).await;
            let event = events.event().await;
            assert_eq!(
                event.json()["errors"][0]["extensions"]["code"],
                "BAD_USER_INPUT",
                "{wrong} {event:?}"
            );
            assert_eq!(events.event().await.name, "complete");
            assert_eq!(events.next().await, None);
        }
    }
    // What is wrong with the request is a status.
    let mutation =
        "mutation { heartbeat(input: {agentId: \"00000000-0000-0000-0000-000000000000\"}) { id } }";
    let [.., by_get, _] = ways(mutation);
    assert_eq!(
        error_of(by_get.header("accept", "text/event-stream").send().await.unwrap()).await,
        (405, "BAD_USER_INPUT".to_owned())
    );
    let [by_post, ..] = ways(COUNT);
    assert_eq!(by_post.header("accept", "text/html").send().await.unwrap().status(), 406);
    let form =
        gateway.client.post(&own).header("accept", "text/event-stream").body("query=1").send().await.unwrap();
    assert_eq!(form.status(), 415);
    // Without a stream there is no place for more than one answer.
    for request in ways(CHANGES) {
        let (status, code) =
            error_of(request.header("accept", "application/graphql-response+json").send().await.unwrap())
                .await;
        assert_eq!((status, code.as_str()), (400, "BAD_USER_INPUT"));
    }
    // A client that takes both gets JSON for one answer and events for many.
    for (query, kind) in [(COUNT, "application/json"), (CHANGES, "text/event-stream")] {
        let request = gateway.client.post(&other).json(&json!({"query": query}));
        let response = request.header("accept", "application/json, text/event-stream").send().await.unwrap();
        assert!(response.headers()["content-type"].to_str().unwrap().starts_with(kind), "{query}");
    }
    let guarded = Gateway::guarded(&sample_url()).await;
    let stranger = guarded.client.get(format!("{}/graphql/stream", guarded.url)).query(&[("query", COUNT)]);
    assert_eq!(
        error_of(stranger.header("accept", "text/event-stream").send().await.unwrap()).await,
        (401, "UNAUTHENTICATED".to_owned())
    );
}

/// The id of an event is its cursor, and a client that comes back with it goes on where it was.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_goes_on_after_the_last_event_that_was_seen() {
    let database = Database::sample().await;
    let gateway = Gateway::start(&database.url, &["--keep-alive-ms", "100"], Access::Everyone).await;
    let url = format!("{}/graphql/stream", gateway.url);
    let tasks = column(&database.url, "select id::text from tasks order by id limit 6").await;
    let write = async |ids: &[String]| {
        for id in ids {
            execute(&database.url, &format!("update tasks set title = title || '.' where id = '{id}'")).await;
        }
    };
    let request = || gateway.client.get(&url).query(&[("query", CHANGES)]);
    let mut events = Events::of(request()).await;
    write(&tasks[..3]).await;
    let mut last = String::new();
    for id in &tasks[..2] {
        let event = events.event().await;
        let told = &event.json()["data"]["taskChanged"];
        assert_eq!((told["id"].as_str(), told["cursor"].as_str()), (Some(id.as_str()), event.id.as_deref()));
        last = event.id.unwrap();
    }
    drop(events);
    write(&tasks[3..]).await;
    let mut events = Events::of(request().header("last-event-id", &last)).await;
    for id in &tasks[2..] {
        assert_eq!(events.event().await.json()["data"]["taskChanged"]["id"], json!(id));
    }
    // Signs of life come in between.
    let quiet = timeout(std::time::Duration::from_millis(500), events.next()).await;
    assert!(quiet.is_err() && events.comments >= 3, "{quiet:?} {}", events.comments);
    // An argument says more than a header.
    let variables = [("variables", json!({"after": last}).to_string())];
    let request = request().query(&variables).header("last-event-id", "nonsense");
    assert_eq!(Events::of(request).await.event().await.json()["data"]["taskChanged"]["id"], json!(tasks[2]));
    drop(events);
    until("all are gone", async || metric(&gateway, "sockets_open{transport=\"events\"}").await == Some(0.0))
        .await;
}

/// Who has had no event yet, or none for long, comes back to where it was all the same.
#[tokio::test]
async fn a_stream_without_events_can_be_resumed() {
    let database = Database::sample().await;
    let gateway = Gateway::start(&database.url, &["--keep-alive-ms", "100"], Access::Everyone).await;
    let tasks = column(&database.url, "select id::text from tasks order by id limit 2").await;
    let write = async |n: usize| {
        execute(&database.url, &format!("update tasks set intent = intent || '.' where id = '{}'", tasks[n]))
            .await;
    };
    let query = format!(
        "subscription {{ taskChanged(filter: {{id: {{eq: \"{}\"}}}}) {{ cursor changedFields }} }}",
        tasks[0]
    );
    let url = format!("{}/graphql/stream", gateway.url);
    let request = || gateway.client.get(&url).query(&[("query", &query)]);
    let begun = Events::of(request()).await.place().await;
    write(0).await;
    let mut events = Events::of(request().header("last-event-id", &begun)).await;
    assert_eq!(events.place().await, begun);
    let first = events.event().await.id.unwrap();
    // Nothing that belongs to it.
    write(1).await;
    let later = events.place().await;
    assert_ne!(later, first);
    drop(events);
    write(0).await;
    // The same event after either of them.
    for place in [&first, &later] {
        let mut events = Events::of(request().header("last-event-id", place)).await;
        assert_eq!(events.place().await, *place);
        let told = events.event().await.json();
        assert_eq!(told["data"]["taskChanged"]["changedFields"], json!(["intent"]));
        assert!(timeout(std::time::Duration::from_millis(300), events.next()).await.is_err());
    }
}

/// A stream that is reserved.
struct Single {
    gateway: Gateway,
    bearer: String,
    token: String,
}

impl Single {
    async fn reserve(database_url: &str) -> Self {
        let settings = ["--max-socket-operations", "3", "--socket-init-ms", "600"];
        let gateway = Gateway::start(database_url, &settings, Access::Tokens(secret())).await;
        let mut single = Self { gateway, bearer: token(&Viewer::admin()), token: String::new() };
        assert_eq!(single.gateway.client.put(single.url()).send().await.unwrap().status(), 401);
        single.token = single.put().await;
        single
    }

    fn url(&self) -> String {
        format!("{}/graphql/stream", self.gateway.url)
    }

    async fn put(&self) -> String {
        let response = self.gateway.client.put(self.url()).bearer_auth(&self.bearer).send().await.unwrap();
        assert_eq!(response.status(), 201);
        assert_eq!(response.headers()["content-type"], "text/plain; charset=utf-8");
        response.text().await.unwrap()
    }

    fn open(&self, token: &str) -> RequestBuilder {
        self.gateway.client.get(self.url()).query(&[("token", token)])
    }

    async fn refused(&self, token: &str) -> (u16, String) {
        error_of(self.open(token).header("accept", "text/event-stream").send().await.unwrap()).await
    }

    async fn post_as(&self, bearer: &str, query: &str, id: &str) -> Response {
        let body = json!({"query": query, "extensions": {"operationId": id}});
        let request = self.gateway.client.post(self.url()).bearer_auth(bearer);
        request.header("x-graphql-event-stream-token", &self.token).json(&body).send().await.unwrap()
    }

    async fn post(&self, query: &str, id: &str) -> Response {
        self.post_as(&self.bearer, query, id).await
    }

    async fn delete(&self, token: &str, id: &str) -> u16 {
        let request = self.gateway.client.delete(self.url()).bearer_auth(&self.bearer);
        let request = request.header("x-graphql-event-stream-token", token).query(&[("operationId", id)]);
        request.send().await.unwrap().status().as_u16()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_stream_serves_many_operations() {
    let single = Single::reserve(&sample_url()).await;
    // Before it is open, as well.
    assert_eq!(single.post(CHANGES, "s").await.status(), 202);
    let mut events = Events::of(single.open(&single.token)).await;
    assert_eq!(single.post(COUNT, "q").await.status(), 202);
    let event = events.event().await;
    let result = json!({"id": "q", "payload": {"data": {"agents": {"totalCount": 10}}}});
    assert_eq!((event.name.as_str(), event.json()), ("next", result));
    let event = events.event().await;
    assert_eq!((event.name.as_str(), event.json()), ("complete", json!({"id": "q"})));
    // What is wrong with a request is its own answer.
    for (query, id, expected) in [
        ("{ nothing }", "x", (400, "BAD_USER_INPUT")),
        ("{ ", "x", (400, "BAD_USER_INPUT")),
        ("subscription { nothing }", "x", (400, "BAD_USER_INPUT")),
        (COUNT, "", (400, "BAD_USER_INPUT")),
        (CHANGES, "s", (409, "CONFLICT")),
    ] {
        let (status, code) = error_of(single.post(query, id).await).await;
        assert_eq!((status, code.as_str()), expected, "{query}");
    }
    assert_eq!(single.refused(&single.token).await, (409, "CONFLICT".to_owned()));
    assert_eq!(single.refused("unknown").await, (404, "NOT_FOUND".to_owned()));
    let thief = token(&member(None, &[]));
    assert_eq!(error_of(single.post_as(&thief, COUNT, "x").await).await, (404, "NOT_FOUND".to_owned()));
    for id in ["s2", "s3"] {
        assert_eq!(single.post(CHANGES, id).await.status(), 202);
    }
    assert_eq!(error_of(single.post(CHANGES, "s4").await).await, (429, "RATE_LIMITED".to_owned()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn operations_of_one_stream_end_one_by_one() {
    let database = Database::sample().await;
    let single = Single::reserve(&database.url).await;
    let mut events = Events::of(single.open(&single.token)).await;
    for id in ["s", "s2", "s3"] {
        assert_eq!(single.post(CHANGES, id).await.status(), 202);
    }
    let task = column(&database.url, "select min(id::text) from tasks").await.remove(0);
    let told = async |events: &mut Events, count: usize| {
        execute(&database.url, &format!("update tasks set title = title || '.' where id = '{task}'")).await;
        let mut ids = Vec::new();
        for _ in 0..count {
            let event = events.event().await.json();
            assert_eq!(event["payload"]["data"]["taskChanged"]["id"], json!(task));
            ids.push(event["id"].as_str().unwrap().to_owned());
        }
        ids.sort();
        ids
    };
    assert_eq!(told(&mut events, 3).await, ["s", "s2", "s3"]);
    let token = &single.token;
    assert_eq!((single.delete(token, "s2").await, single.delete(token, "never").await), (200, 200));
    assert_eq!((single.delete(token, "").await, single.delete("unknown", "s").await), (400, 404));
    assert_eq!(told(&mut events, 2).await, ["s", "s3"]);
    // With the stream goes its reservation; and one that nobody opens goes by itself.
    drop(events);
    until("it is gone", async || single.post(COUNT, "q").await.status() == 404).await;
    let late = single.put().await;
    tokio::time::sleep(std::time::Duration::from_millis(900)).await;
    assert_eq!(single.refused(&late).await, (404, "NOT_FOUND".to_owned()));
    assert_eq!(metric(&single.gateway, "sockets_open{transport=\"events\"}").await, Some(0.0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn apollo_reads_parts() {
    let database = Database::sample().await;
    let gateway = Gateway::open(&database.url).await;
    let ask = async |query: &str| {
        let request = gateway.client.post(format!("{}/graphql", gateway.url)).json(&json!({"query": query}));
        let accept = "multipart/mixed;boundary=graphql;subscriptionSpec=1.0,application/json";
        request.header("accept", accept).send().await.unwrap()
    };
    let kind = |response: &Response| response.headers()["content-type"].to_str().unwrap().to_owned();
    assert!(kind(&ask(COUNT).await).starts_with("application/json"));
    let mut response = ask(CHANGES).await;
    assert_eq!(kind(&response), "multipart/mixed; boundary=\"graphql\"; subscriptionSpec=\"1.0\"");
    let task = column(&database.url, "select min(id::text) from tasks").await.remove(0);
    execute(&database.url, &format!("update tasks set title = 'x' where id = '{task}'")).await;
    let mut text = String::new();
    while !text.contains(&task) {
        let chunk = timeout(PATIENCE, response.chunk()).await.unwrap().unwrap().unwrap();
        text.push_str(std::str::from_utf8(&chunk).unwrap());
    }
    let part = "\r\ncontent-type: application/json\r\n\r\n";
    let (first, rest) = text.split_once("--graphql").unwrap();
    let told: Value =
        serde_json::from_str(rest.strip_prefix(part).unwrap().strip_suffix("\r\n--graphql").unwrap())
            .unwrap();
    assert!(first.is_empty() && told["payload"]["data"]["taskChanged"]["id"] == json!(task), "{text}");
}
