//! graphql-transport-ws, rule by rule, as the PROTOCOL.md of npm's graphql-ws has them.

use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::frame::Frame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};

use super::{Client, Heard, PROTOCOL, metric, until};
use crate::harness::{Gateway, column, sample_url};

use futures_util::SinkExt;

const INIT: &str = r#"{"type":"connection_init"}"#;
const ACK: &str = r#"{"type":"connection_ack"}"#;
const COUNT: &str = "{ agents { totalCount } }";

const ASK: &str = r#"{"type":"subscribe","id":"1","payload":{"query":"{ agents { totalCount } }"}}"#;
const ASK_AT_LENGTH: &str = r#"{"type":"subscribe","id":"1","payload":{"query":"{ agents { totalCount } }","operationName":null,"variables":null,"extensions":null}}"#;
const NEXT: &str = r#"{"type":"next","id":"1","payload":{"data":{"agents":{"totalCount":10}}}}"#;
const COMPLETE: &str = r#"{"type":"complete","id":"1"}"#;

/// What is sent, what comes back, and the code with which it ends, if it does.
type Case = (&'static [&'static str], &'static [&'static str], Option<u16>);

const CASES: &[Case] = &[
    // The beginning.
    (&[INIT], &[ACK], None),
    (&[r#"{"type":"connection_init","payload":{}}"#], &[ACK], None),
    (&[r#"{"type":"connection_init","payload":null}"#], &[ACK], None),
    (&[r#" {"payload":{"a":[1,{}]},"id":"9","more":1,"type":"connection_init"} "#], &[ACK], None),
    (&[r#"{"type":"connection_init","payload":[]}"#], &[], Some(4400)),
    (&[r#"{"type":"connection_init","payload":"x"}"#], &[], Some(4400)),
    (&[INIT, INIT], &[ACK], Some(4429)),
    (&[ASK], &[], Some(4401)),
    (&[r#"{"type":"complete","id":"1"}"#, INIT], &[ACK], None),
    // Signs of life, at any time.
    (&[r#"{"type":"ping"}"#, INIT], &[r#"{"type":"pong"}"#, ACK], None),
    (&[r#"{"type":"ping","payload":{"a":[1]}}"#], &[r#"{"type":"pong","payload":{"a":[1]}}"#], None),
    (&[r#"{"type":"ping","payload":null}"#], &[r#"{"type":"pong"}"#], None),
    (&[r#"{"type":"ping","payload":1}"#], &[], Some(4400)),
    (&[r#"{"type":"pong"}"#, r#"{"type":"pong","payload":{}}"#, INIT], &[ACK], None),
    (&[r#"{"type":"pong","payload":[]}"#], &[], Some(4400)),
    // Operations.
    (&[INIT, ASK], &[ACK, NEXT, COMPLETE], None),
    (&[INIT, ASK_AT_LENGTH], &[ACK, NEXT, COMPLETE], None),
    (&[INIT, r#"{"type":"complete","id":"never begun"}"#, ASK], &[ACK, NEXT, COMPLETE], None),
    // What is no message.
    (&[""], &[], Some(4400)),
    (&["hello"], &[], Some(4400)),
    (&["null"], &[], Some(4400)),
    (&["[]"], &[], Some(4400)),
    (&[r#"["connection_init",null,null]"#], &[], Some(4400)),
    (&["{}"], &[], Some(4400)),
    (&[r#"{"type":""}"#], &[], Some(4400)),
    (&[r#"{"type":1}"#], &[], Some(4400)),
    (&[r#"{"type":"connection_init""#], &[], Some(4400)),
    (&[r#"{"type":"connection_init"}{}"#], &[], Some(4400)),
    (&[r#"{"type":"connection_init","type":"ping"}"#], &[], Some(4400)),
    (&[r#"{"type":"start","id":"1","payload":{"query":"{a}"}}"#], &[], Some(4400)),
    // What only a server says.
    (&[INIT, ACK], &[ACK], Some(4400)),
    (&[INIT, NEXT], &[ACK], Some(4400)),
    (&[INIT, r#"{"type":"error","id":"1","payload":[]}"#], &[ACK], Some(4400)),
    // What an operation must have.
    (&[INIT, r#"{"type":"subscribe"}"#], &[ACK], Some(4400)),
    (&[INIT, r#"{"type":"subscribe","id":"1"}"#], &[ACK], Some(4400)),
    (&[INIT, r#"{"type":"subscribe","payload":{"query":"{a}"}}"#], &[ACK], Some(4400)),
    (&[INIT, r#"{"type":"subscribe","id":"","payload":{"query":"{a}"}}"#], &[ACK], Some(4400)),
    (&[INIT, r#"{"type":"subscribe","id":1,"payload":{"query":"{a}"}}"#], &[ACK], Some(4400)),
    (&[INIT, r#"{"type":"subscribe","id":"1","payload":[]}"#], &[ACK], Some(4400)),
    (&[INIT, r#"{"type":"subscribe","id":"1","payload":{}}"#], &[ACK], Some(4400)),
    (&[INIT, r#"{"type":"subscribe","id":"1","payload":{"query":1}}"#], &[ACK], Some(4400)),
    (&[INIT, r#"{"type":"subscribe","id":"1","payload":{"query":null}}"#], &[ACK], Some(4400)),
    (
        &[INIT, r#"{"type":"subscribe","id":"1","payload":{"query":"{a}","variables":[]}}"#],
        &[ACK],
        Some(4400),
    ),
    (
        &[INIT, r#"{"type":"subscribe","id":"1","payload":{"query":"{a}","operationName":1}}"#],
        &[ACK],
        Some(4400),
    ),
    (
        &[INIT, r#"{"type":"subscribe","id":"1","payload":{"query":"{a}","extensions":"x"}}"#],
        &[ACK],
        Some(4400),
    ),
    (&[INIT, r#"{"type":"complete"}"#], &[ACK], Some(4400)),
    (&[INIT, r#"{"type":"complete","id":""}"#], &[ACK], Some(4400)),
    (&[INIT, r#"{"type":"complete","id":1}"#], &[ACK], Some(4400)),
];

#[tokio::test]
async fn every_message_is_answered_as_the_protocol_says() {
    let gateway = Gateway::open(&sample_url()).await;
    for (said, heard, code) in CASES {
        let mut client = Client::open(&gateway.url).await;
        for text in *said {
            client.text(text).await;
        }
        for expected in *heard {
            let expected = Heard::Message(serde_json::from_str(expected).unwrap());
            assert_eq!(client.hear().await, expected, "{said:?}");
        }
        match code {
            Some(code) => {
                let (ended, reason) = client.end().await;
                assert!(ended == *code && !reason.is_empty(), "{said:?} {ended} {reason}");
            }
            // It is still there.
            None => {
                client.text(r#"{"type":"ping"}"#).await;
                assert_eq!(client.message().await, json!({"type": "pong"}), "{said:?}");
                client.0.close(None).await.unwrap();
                client.end().await;
            }
        }
    }
    let by_client = CASES.iter().filter(|(.., code)| code.is_none()).count();
    let closes = |code: u16| format!("socket_closes_total{{code=\"{code}\",transport=\"websocket\"}}");
    until("all are counted", async || {
        metric(&gateway, &closes(1005)).await == Some(by_client as f64)
            && metric(&gateway, "sockets_open{transport=\"websocket\"}").await == Some(0.0)
    })
    .await;
    for code in [4400, 4401, 4429] {
        let expected = CASES.iter().filter(|(.., ended)| *ended == Some(code)).count();
        assert_eq!(metric(&gateway, &closes(code)).await, Some(expected as f64), "{code}");
    }
    let sent = CASES.iter().map(|(_, heard, _)| heard.len()).sum::<usize>() + by_client;
    let line = "socket_messages_total{direction=\"out\",transport=\"websocket\"}";
    assert_eq!(metric(&gateway, line).await, Some(sent as f64));
    assert!(metric(&gateway, &line.replace("out", "in")).await.unwrap() >= sent as f64);
}

#[tokio::test]
async fn another_protocol_is_not_spoken() {
    let gateway = Gateway::open(&sample_url()).await;
    for protocol in [None, Some("graphql-ws"), Some("chat, superchat")] {
        let mut client = Client::try_open(&gateway.url, "/graphql", protocol, &[]).await.unwrap();
        assert_eq!(client.end().await, (4406, "Subprotocol not acceptable".to_owned()), "{protocol:?}");
    }
    let both = format!("graphql-ws, {PROTOCOL}");
    let mut client = Client::try_open(&gateway.url, "/graphql", Some(&both), &[]).await.unwrap();
    client.text(INIT).await;
    assert_eq!(client.message().await, json!({"type": "connection_ack"}));
    // What is no handshake is an answer.
    for (headers, status) in [
        (vec![("upgrade", "websocket"), ("connection", "upgrade")], 426),
        (vec![("upgrade", "websocket"), ("connection", "upgrade"), ("sec-websocket-version", "13")], 400),
    ] {
        let mut request = gateway.client.get(format!("{}/graphql", gateway.url));
        for (name, value) in headers {
            request = request.header(name, value);
        }
        assert_eq!(request.send().await.unwrap().status(), status);
    }
}

#[tokio::test]
async fn frames_are_as_they_should_be() {
    let gateway = Gateway::start(
        &sample_url(),
        &["--max-message-bytes", "4096"],
        evidence_gateway::http::viewer::Access::Everyone,
    )
    .await;
    let frame = |bytes: &[u8], data: Data, last: bool| {
        Message::Frame(Frame::message(bytes.to_vec(), OpCode::Data(data), last))
    };
    let text = |bytes: &[u8]| vec![frame(bytes, Data::Text, true)];
    let (first, rest) = INIT.as_bytes().split_at(7);
    let pieces = vec![
        frame(first, Data::Text, false),
        Message::Ping(vec![1, 2].into()),
        frame(&[], Data::Continue, false),
        frame(rest, Data::Continue, true),
    ];
    let large = format!(r#"{{"type":"ping","payload":{{"a":"{}"}}}}"#, "x".repeat(4_096));
    let mut pieces_of_large: Vec<_> =
        large.as_bytes().chunks(100).map(|part| frame(part, Data::Continue, false)).collect();
    pieces_of_large[0] = frame(&large.as_bytes()[..100], Data::Text, false);
    for (frames, code) in [
        (vec![Message::Binary(INIT.as_bytes().to_vec().into())], Some(4400)),
        (text(b"\xff\xfe"), Some(1007)),
        (text(b"{\"type\":\"ping\",\"payload\":{\"a\":\"\xc3\"}}"), Some(1007)),
        (vec![frame(b"x", Data::Continue, true)], Some(1002)),
        (vec![frame(b"x", Data::Text, false), frame(b"x", Data::Text, true)], Some(1002)),
        (vec![frame(b"x", Data::Reserved(3), true)], Some(1002)),
        (text(large.as_bytes()), Some(1009)),
        (pieces_of_large, Some(1009)),
        (pieces, None),
    ] {
        let mut client = Client::open(&gateway.url).await;
        for frame in frames {
            // It may have been closed in the middle.
            drop(client.0.send(frame).await);
        }
        match code {
            Some(code) => assert_eq!(client.end().await.0, code),
            None => assert_eq!(client.message().await, json!({"type": "connection_ack"})),
        }
    }
}

/// What is wrong with one operation is said to it, and the others go on.
#[tokio::test]
async fn one_operation_does_not_harm_another() {
    let gateway = Gateway::open(&sample_url()).await;
    let mut client = Client::of(&gateway).await;
    let deep = |n: usize| format!("{}1{}", "[".repeat(n), "]".repeat(n));
    for (payload, code) in [
        (json!({"query": "{ "}), "BAD_USER_INPUT"),
        (json!({"query": ""}), "BAD_USER_INPUT"),
        (json!({"query": "{ nothing }"}), "BAD_USER_INPUT"),
        (json!({"query": "query ($a: Int!) { agents(first: $a) { totalCount } }"}), "BAD_USER_INPUT"),
        (json!({"query": COUNT, "operationName": "another"}), "BAD_USER_INPUT"),
        (
            json!({"query": COUNT, "variables": {"a": serde_json::from_str::<Value>(&deep(40)).unwrap()}}),
            "BAD_USER_INPUT",
        ),
        (
            json!({"extensions": {"persistedQuery": {"version": 1, "sha256Hash": "0".repeat(64)}}}),
            "PERSISTED_QUERY_NOT_FOUND",
        ),
        (json!({"documentId": "unknown"}), "PERSISTED_QUERY_NOT_FOUND"),
    ] {
        client.say(json!({"type": "subscribe", "id": "a", "payload": payload})).await;
        let answer = client.message().await;
        assert_eq!((&answer["type"], &answer["id"]), (&json!("error"), &json!("a")), "{answer}");
        assert_eq!(answer["payload"][0]["extensions"]["code"], code, "{answer}");
        assert!(answer["payload"].as_array().is_some_and(|errors| errors.len() == 1), "{answer}");
    }
    // serde_json will not read what is deeper; the gateway reads no deeper than it must.
    let hostile = format!(
        r#"{{"type":"subscribe","id":"a","payload":{{"query":"{{a}}","variables":{{"a":{}}}}}}}"#,
        deep(50_000)
    );
    client.text(&hostile).await;
    let answer = client.message().await;
    assert_eq!(answer["payload"][0]["extensions"]["limit"], "max_variables_depth", "{answer}");
    // An error of execution is part of a result.
    let answer = client
        .ask("a", "{ task(id: \"00000000-0000-0000-0000-000000000000\") { id } agents { totalCount } }")
        .await;
    assert_eq!(answer["data"], json!({"task": null, "agents": {"totalCount": 10}}), "{answer}");
    let answer = client.ask("a", "{ task(id: \"x\") { id } }").await;
    assert!(
        answer["errors"][0]["path"] == json!(["task"]) && answer["data"] == json!({"task": null}),
        "{answer}"
    );
}

/// Many at once, each once and whole; an id is free again when its operation is over.
#[tokio::test]
async fn operations_run_at_the_same_time() {
    let gateway = Gateway::open(&sample_url()).await;
    let mut client = Client::of(&gateway).await;
    for _ in 0..3 {
        for id in 0..30 {
            client
                .subscribe(&id.to_string(), &format!("{{ tasks(first: {}) {{ nodes {{ id }} }} }}", id + 1))
                .await;
        }
        let mut open: Vec<usize> = (0..30).collect();
        let mut answered = Vec::new();
        while !open.is_empty() {
            let message = client.message().await;
            let id: usize = message["id"].as_str().unwrap().parse().unwrap();
            assert!(open.contains(&id), "{message}");
            match message["type"].as_str().unwrap() {
                "next" => {
                    assert_eq!(
                        message["payload"]["data"]["tasks"]["nodes"].as_array().unwrap().len(),
                        id + 1
                    );
                    assert!(!answered.contains(&id));
                    answered.push(id);
                }
                "complete" if answered.contains(&id) => open.retain(|open| *open != id),
                _ => panic!("{message}"),
            }
        }
    }
}

/// A socket has the same ways as a POST: the cache, persisted operations, consistency, idempotency, the trail.
#[tokio::test]
async fn an_operation_goes_the_way_of_a_post() {
    let database = crate::harness::Database::sample().await;
    let gateway = Gateway::start(
        &database.url,
        &["--cache-bytes", "1000000"],
        evidence_gateway::http::viewer::Access::Everyone,
    )
    .await;
    let mut client = Client::try_open(&gateway.url, "/graphql", Some(PROTOCOL), &[("user-agent", "tests/7")])
        .await
        .unwrap();
    client.text(INIT).await;
    client.message().await;
    // The answer to a POST serves the socket.
    let by_post = gateway.ask(COUNT).await;
    let mut statements = 0;
    until("it is kept", async || {
        gateway.ask(COUNT).await;
        std::mem::replace(&mut statements, gateway.statements().await) == statements
    })
    .await;
    assert_eq!(client.ask("1", COUNT).await["data"], by_post);
    assert_eq!(gateway.statements().await, statements);
    let project = column(&database.url, "select id::text from projects limit 1").await.remove(0);
    let create = json!({
        "query": "mutation ($input: CreateTaskInput!) { createTask(input: $input) { id } }",
        "variables": {"input": {"projectId": project, "title": "over a socket", "intent": "test"}},
        "extensions": {"idempotencyKey": "sockets-1"},
    });
    let mut made = Vec::new();
    for id in ["1", "2"] {
        client.say(json!({"type": "subscribe", "id": id, "payload": create})).await;
        let answer = client.message().await;
        assert_eq!(answer["type"], "next", "{answer}");
        made.push(
            answer["payload"]["data"]["createTask"]["id"]
                .as_str()
                .unwrap_or_else(|| panic!("{answer}"))
                .to_owned(),
        );
        assert!(answer["payload"]["extensions"]["consistencyToken"].is_string(), "{answer}");
        client.message().await;
    }
    assert_eq!(made[0], made[1], "an idempotency key has no effect");
    let trail = format!(
        "select ip_address::text || ' ' || user_agent from audit_logs where resource_id = '{}'",
        made[0]
    );
    assert_eq!(column(&database.url, &trail).await, ["127.0.0.1 tests/7"]);
}
