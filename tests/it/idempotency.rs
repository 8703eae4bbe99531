//! Idempotency keys: whatever is repeated, at once or later, here or on another gateway, is written once.

use serde_json::{Value, json};

use crate::harness::{Answer, Gateway, column, execute};
use crate::writes::{World, call, id, outcome};

const CREATE: &str =
    "mutation ($input: CreateTaskInput!) { it: createTask(input: $input) { id title createdAt } }";

/// Sends a mutation with the header.
async fn send(gateway: &Gateway, token: &str, key: &str, document: &str, variables: Value) -> Answer {
    let request = gateway.client.post(format!("{}/graphql", gateway.url)).bearer_auth(token);
    let body = json!({"query": document, "variables": variables});
    let response = request.header("Idempotency-Key", key).json(&body).send().await.unwrap();
    let text = response.text().await.unwrap();
    Answer { body: serde_json::from_str(&text).unwrap(), text }
}

async fn tasks(world: &World, title: &str) -> String {
    column(&world.url, &format!("select count(*) from tasks where title = '{title}'")).await.remove(0)
}

#[tokio::test]
async fn fifty_at_once_write_once_and_get_one_answer() {
    let world = World::new().await;
    let other = Gateway::guarded(&world.url).await;
    let gateways = [world.agent(), other.keeping(&world.agent_viewer())];
    let input = json!({"projectId": world.project, "title": "Once", "intent": "i", "idempotencyKey": "key-1",
        "content": {"b": 1, "a": [1, {"d": 1, "c": 2}]}});
    let answers = futures_util::future::join_all((0..50).map(async |n: usize| {
        gateways[n % 2].request(CREATE, json!({"input": input})).await.body["data"].clone()
    }))
    .await;
    assert_eq!(answers[0]["it"]["title"], "Once");
    assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:?}");
    assert_eq!(tasks(&world, "Once").await, "1");
    let trail = "select count(*) from audit_logs where event_type = 'task.created'";
    assert_eq!(column(&world.url, trail).await, ["1"]);

    // After a restart, with the members of objects in another order.
    drop(gateways);
    let fresh = Gateway::guarded(&world.url).await.keeping(&world.agent_viewer());
    let mut same = input.clone();
    same["content"] = json!({"a": [1, {"c": 2, "d": 1}], "b": 1});
    assert_eq!(fresh.request(CREATE, json!({"input": same})).await.body["data"], answers[0]);

    // The same key for another input, or another order of a list.
    for (field, value) in
        [("title", json!("Twice")), ("content", json!({"b": 1, "a": [{"d": 1, "c": 2}, 1]}))]
    {
        let mut other = input.clone();
        other[field] = value;
        let (code, text) = outcome(&fresh.request(CREATE, json!({"input": other})).await);
        assert_eq!(code, "CONFLICT", "{text}");
    }
    // A key belongs to who used it, and to one mutation.
    let mut theirs = input.clone();
    theirs["title"] = json!("Of somebody else");
    assert_eq!(outcome(&world.gateway.request(CREATE, json!({"input": theirs})).await).0, "OK");
    let chain = json!({"projectId": world.project, "claim": "c", "idempotencyKey": "key-1"});
    assert_eq!(outcome(&call(&fresh, "createChain", "id", chain).await).0, "OK");
    assert_eq!((tasks(&world, "Once").await, tasks(&world, "Twice").await), ("1".into(), "0".into()));
}

#[tokio::test]
async fn a_key_of_a_request_stands_for_each_of_its_mutations() {
    let world = World::new().await;
    let token = crate::harness::token(&world.agent_viewer());
    let task = world.task().await;
    let document = "mutation ($input: CreateTaskInput!, $id: UUID!) { a: createTask(input: $input) { id } \
        b: createTask(input: $input) { id } c: transitionTask(input: {id: $id, status: PROCESSING}) { status version } }";
    let variables =
        json!({"id": task, "input": {"projectId": world.project, "title": "Header", "intent": "i"}});
    let ask = async || send(&world.gateway, &token, "\"k\"", document, variables.clone()).await;
    let answers = futures_util::future::join_all((0..10).map(async |_| ask().await)).await;
    assert_eq!(answers[0].body["data"]["c"], json!({"status": "PROCESSING", "version": 2}));
    assert!(answers.iter().all(|answer| answer.body["data"] == answers[0].body["data"]), "{answers:?}");
    assert_eq!(tasks(&world, "Header").await, "2");
    for bad in ["", "a b", &"x".repeat(201), "\u{e9}"] {
        let answer = send(&world.gateway, &token, bad, document, variables.clone()).await;
        assert_eq!(answer.body["errors"][0]["extensions"]["field"], "Idempotency-Key", "{}", answer.text);
    }
    // It is of no account for questions.
    let answer = send(&world.gateway, &token, "a b", "{ viewer { role } }", json!({})).await;
    assert_eq!(answer.body.get("errors"), None);
}

#[tokio::test]
async fn a_failure_keeps_no_key_and_time_frees_it() {
    let world = World::new().await;
    let (agent, task) = (world.agent(), world.task().await);
    let step = async |status: &str, key: &str| {
        let input = json!({"id": task, "status": status, "idempotencyKey": key});
        call(&agent, "transitionTask", "id status version", input).await
    };
    assert_eq!(outcome(&step("COMPLETED", "k").await).0, "CONFLICT");
    assert_eq!(world.count("processed_messages").await, "0");
    assert_eq!(outcome(&step("PROCESSING", "start").await).0, "OK");
    // The same key is good for what failed, once it can be done, and repeats no step.
    let done = step("COMPLETED", "k").await;
    assert_eq!(done.body["data"]["it"]["version"], 3, "{}", done.text);
    assert_eq!(step("COMPLETED", "k").await.body["data"], done.body["data"]);
    assert_eq!(outcome(&step("COMPLETED", "another").await).0, "CONFLICT");

    // After 48 hours a key is new, whether its row is still there or not.
    let hours = "select round(extract(epoch from expires_at - processed_at) / 3600) from processed_messages";
    assert_eq!(column(&world.url, hours).await, ["48", "48"]);
    execute(&world.url, "update processed_messages set expires_at = now() - interval '1 second'").await;
    assert_eq!(outcome(&step("COMPLETED", "k").await).0, "CONFLICT");
    let input = json!({"projectId": world.project, "title": "t", "intent": "i", "idempotencyKey": "k"});
    let made = [&input, &input].map(|input| call(&agent, "createTask", "id", input.clone()));
    let [first, second] = futures_util::future::join_all(made).await.try_into().unwrap();
    assert_eq!(id(&first), id(&second));

    // A gateway that writes removes what has expired.
    execute(&world.url, "update processed_messages set expires_at = now() where message_id like '%start'")
        .await;
    let fresh = Gateway::guarded(&world.url).await.keeping(&world.agent_viewer());
    assert_eq!(outcome(&call(&fresh, "heartbeat", "id", json!({})).await).0, "OK");
    let expired = "select count(*) from processed_messages where expires_at <= now()";
    for _ in 0..250 {
        if column(&world.url, expired).await == ["0"] {
            assert_eq!(world.count("processed_messages").await, "1");
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    panic!("the expired keys are still there");
}
