//! Read your writes: a mutation is answered when this process has seen it committed, and its token has any other
//! process wait until that has, too. Redis makes them hear of it at once, and is not needed.

use std::time::{Duration, Instant};

use diesel_async::SimpleAsyncConnection;
use evidence_gateway::changes::tail::Tail;
use evidence_gateway::http::viewer::Access;
use evidence_gateway::model::change::Snapshot;
use evidence_gateway::model::cursor::CursorKey;
use reqwest::Response;
use serde_json::{Value, json};

use crate::harness::{Gateway, SECRET, column, secret};
use crate::redis::RedisServer;
use crate::writes::World;

const CREATE: &str = "mutation ($input: CreateTaskInput!) { createTask(input: $input) { id } }";
const HEADER: &str = "x-consistency-token";

/// Sends a document with a token in the header, if there is one.
async fn send(gateway: &Gateway, token: Option<&str>, body: Value) -> Response {
    let mut request = gateway.client.post(format!("{}/graphql", gateway.url)).json(&body);
    if let Some(bearer) = gateway.bearer() {
        request = request.bearer_auth(bearer);
    }
    if let Some(token) = token {
        request = request.header(HEADER, token);
    }
    request.send().await.unwrap()
}

/// The token that an answer carries in both places, or none in either.
async fn token_of(response: Response) -> Option<String> {
    let header = response.headers().get(HEADER).map(|token| token.to_str().unwrap().to_owned());
    let body: Value = response.json().await.unwrap();
    assert_eq!(body["extensions"]["consistencyToken"].as_str(), header.as_deref(), "{body}");
    header
}

async fn create(world: &World) -> Option<String> {
    let input = json!({"projectId": world.project, "title": "A task", "intent": "i"});
    token_of(send(&world.agent(), None, json!({"query": CREATE, "variables": {"input": input}})).await).await
}

fn reached(tail: &Tail) -> Snapshot {
    (*tail.reached().unwrap().snapshot).clone()
}

/// The transaction that wrote last, as the log has it.
async fn last_xid(url: &str) -> u64 {
    column(url, "select xid from change_log where entity = 'tasks' order by seq desc limit 1").await[0]
        .parse()
        .unwrap()
}

#[tokio::test]
async fn a_token_is_waited_for_in_every_process() {
    let world = World::new().await;
    let slow = Gateway::start(&world.url, &["--change-poll-ms", "1000"], Access::Everyone).await;
    let (here, there) = (world.gateway.tail.clone().unwrap(), slow.tail.clone().unwrap());
    let ask = json!({"query": "{ __typename }"});
    for n in 0..10 {
        let token = create(&world).await.unwrap();
        let committed = last_xid(&world.url).await;
        assert!(reached(&here).sees(committed));
        let body = json!({"query": "{ __typename }", "extensions": {"consistencyToken": token, "other": 1}});
        let answer = match n % 2 {
            0 => send(&slow, Some(&token), ask.clone()).await,
            _ => send(&slow, None, body).await,
        };
        assert_eq!(answer.status(), 200);
        assert!(reached(&there).sees(committed), "{n}");
        assert_eq!(token_of(answer).await, None, "only what writes has a token");
    }
    // What is repeated under an idempotency key has been committed too, if not by this transaction.
    let input = json!({"projectId": world.project, "title": "Once", "intent": "i", "idempotencyKey": "k"});
    for _ in 0..2 {
        let body = json!({"query": CREATE, "variables": {"input": input}});
        assert!(token_of(send(&world.agent(), None, body).await).await.is_some());
    }
    // One field of two did write.
    let document = format!(
        "mutation {{ a: createTask(input: {{projectId: \"{0}\", title: \"\", intent: \"i\"}}) {{ id }}
        b: createTask(input: {{projectId: \"{0}\", title: \"t\", intent: \"i\"}}) {{ id }} }}",
        world.project
    );
    for (document, written) in [(document.clone(), true), (document.replace("\"t\"", "\"\""), false)] {
        let answer = send(&world.agent(), None, json!({"query": document})).await;
        assert_eq!(token_of(answer).await.is_some(), written, "{document}");
    }
}

#[tokio::test]
async fn a_token_that_does_not_come_true_is_waited_for_in_bounds() {
    let world = World::new().await;
    let gateway = Gateway::start(&world.url, &["--consistency-wait-ms", "100"], Access::Everyone).await;
    let key = CursorKey::new(SECRET.as_bytes());
    let future = Snapshot::up_to(1 << 40).token(&key);
    let answer = send(&gateway, Some(&future), json!({"query": "{ __typename }"})).await;
    assert_eq!(answer.status(), 503);
    let body: Value = answer.json().await.unwrap();
    assert_eq!(body["errors"][0]["extensions"]["code"], "UNAVAILABLE", "{body}");
    let metrics = gateway.get("/metrics").await.text().await.unwrap();
    assert!(metrics.contains("evidence_gateway_consistency_timeouts_total 1\n"), "{metrics}");
    gateway.ask("{ tasks(first: 1) { nodes { id } } }").await;

    // What is no token, a token of another secret, and a cursor of a list.
    let document = "{ tasks(first: 1) { pageInfo { endCursor } } }";
    let list = gateway.ask(document).await["tasks"]["pageInfo"]["endCursor"].as_str().unwrap().to_owned();
    let foreign = Snapshot::up_to(5).token(&CursorKey::new(b"another secret, also with 32 characters"));
    for wrong in ["", "x", &foreign, &list, &future[1..], &"A".repeat(100_000)] {
        let ask = json!({"query": "{ __typename }"});
        let in_body = json!({"query": "{ __typename }", "extensions": {"consistencyToken": wrong}});
        for (header, body) in [(Some(wrong), ask), (None, in_body)] {
            let answer = send(&gateway, header, body).await;
            assert_eq!(answer.status(), 400);
            let body: Value = answer.json().await.unwrap();
            assert_eq!(body["errors"][0]["extensions"]["code"], "BAD_USER_INPUT", "{body}");
        }
    }
    let number = json!({"query": "{ __typename }", "extensions": {"consistencyToken": 5}});
    assert_eq!(send(&gateway, None, number).await.status(), 400);
}

/// A mutation is committed or it is not: that the log cannot be read in time does not make it an error.
#[tokio::test]
async fn a_mutation_outlives_a_tail_that_is_late() {
    let world = World::new().await;
    let settings = ["--consistency-wait-ms", "200"];
    let gateway = Gateway::start(&world.url, &settings, Access::Tokens(secret())).await;
    let gateway = gateway.keeping(&world.agent_viewer());
    gateway.tail.as_ref().unwrap().catch_up(Duration::from_secs(5)).await.unwrap();
    let mut conn = world.connect().await;
    // Whoever writes adds to the log, which this allows; whoever reads it waits.
    conn.batch_execute("begin; alter table change_log_pruned add column blocked int").await.unwrap();
    let input = json!({"projectId": world.project, "title": "Late", "intent": "i"});
    let answer = send(&gateway, None, json!({"query": CREATE, "variables": {"input": input}})).await;
    assert_eq!(answer.status(), 200);
    assert_eq!(token_of(answer).await, None);
    conn.batch_execute("rollback").await.unwrap();
    assert_eq!(column(&world.url, "select count(*) from tasks where title = 'Late'").await, ["1"]);
}

#[tokio::test]
async fn others_hear_of_a_write_by_redis_and_go_on_without_it() {
    let world = World::new().await;
    let mut redis = RedisServer::start().await;
    let url = redis.url();
    let settings = ["--redis-url", &url, "--change-poll-ms", "1000"];
    let writing = Gateway::start(&world.url, &settings, Access::Tokens(secret())).await;
    let writing = writing.keeping(&world.agent_viewer());
    let other = Gateway::start(&world.url, &settings, Access::Everyone).await;
    let tail = other.tail.clone().unwrap();
    let input = json!({"projectId": world.project, "title": "A task", "intent": "i"});
    let body = json!({"query": CREATE, "variables": {"input": input}});
    for down in [false, true, false] {
        if down {
            redis.kill();
        } else if !redis.running() {
            redis.restart().await;
        }
        while !down
            && redis.ask(&["pubsub", "numsub", "evidence-gateway:changes"]).lines().last() != Some("2")
        {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert!(token_of(send(&writing, None, body.clone()).await).await.is_some());
        let committed = last_xid(&world.url).await;
        let begun = Instant::now();
        while !tail.reached().is_some_and(|reached| reached.snapshot.sees(committed)) {
            assert!(begun.elapsed() < Duration::from_secs(5), "down: {down}");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        if !down {
            // A message has it look, when it would not by itself for most of a second.
            tokio::time::sleep(Duration::from_millis(1_200)).await;
            next_look(&tail).await;
            let begun = Instant::now();
            redis.ask(&["publish", "evidence-gateway:changes", ""]);
            next_look(&tail).await;
            assert!(begun.elapsed() < Duration::from_millis(600), "{:?}", begun.elapsed());
        }
    }
}

async fn next_look(tail: &Tail) {
    let last = tail.last_contact();
    while tail.last_contact() == last {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}
