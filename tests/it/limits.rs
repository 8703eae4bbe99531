//! What one request may ask for: each limit from both sides, and the hostile requests that go round them. All are
//! refused before anything is executed, quickly, and by name.

use std::fmt::Write;
use std::time::{Duration, Instant};

use diesel_async::SimpleAsyncConnection;
use evidence_gateway::http::viewer::Access;
use serde_json::{Value, json};

use crate::harness::{Database, Gateway, column, execute, sample_url};

/// One limit: its setting, the value it is set to, a request at the limit and one just beyond it.
struct Limit {
    name: &'static str,
    value: &'static str,
    within: Value,
    beyond: Value,
}

fn limit(name: &'static str, value: &'static str, within: &str, beyond: &str) -> Limit {
    Limit { name, value, within: json!({"query": within}), beyond: json!({"query": beyond}) }
}

fn with_variables(name: &'static str, value: &'static str, within: Value, beyond: Value) -> Limit {
    let request = |variables| json!({"query": "{ __typename }", "variables": variables});
    Limit { name, value, within: request(within), beyond: request(beyond) }
}

fn limits() -> Vec<Limit> {
    vec![
        limit(
            "max_tokens",
            "14",
            "{ agents(first: 1) { nodes { id # a comment and a \"string\" in it\n, } } }",
            "{ agents(first: 1) { nodes { id name } } }",
        ),
        limit(
            "max_operations",
            "2",
            "query A { __typename } query B { __typename }",
            "query A { __typename } query B { __typename } query C { __typename }",
        ),
        limit(
            "max_depth",
            "3",
            "{ agents { nodes { id } } }",
            "query { ...A } fragment A on Query { agents { nodes { ...B } } } \
             fragment B on Agent { ... on Agent { tasks { totalCount } } }",
        ),
        limit(
            "max_root_fields",
            "2",
            "{ a: __typename ... on Query { b: __typename } }",
            "{ a: __typename ...F ...F } fragment F on Query { b: __typename }",
        ),
        limit(
            "max_fields",
            "10",
            "{ agents { nodes { ...F ...F ...F ...F } } } fragment F on Agent { id name }",
            "{ agents { nodes { id ...F ...F ...F ...F } } } fragment F on Agent { id name }",
        ),
        limit(
            "max_aliases",
            "2",
            "{ a: __typename ...F } fragment F on Query { b: __typename }",
            "{ a: __typename ...F ...F } fragment F on Query { b: __typename }",
        ),
        limit(
            "max_directives",
            "3",
            "{ ...F @skip(if: true) @include(if: false) } fragment F on Query { __typename @include(if: true) }",
            "{ ...F @skip(if: true) ... @skip(if: false) { ...F } } \
             fragment F on Query { __typename @include(if: true) }",
        ),
        // 10 connections of 1 + 9 agents with an id, and 1 + 1 for each of their pages of tasks.
        limit(
            "max_complexity",
            "100",
            "{ agents(first: 9) { nodes { id tasks(first: 4) { totalCount } } } }",
            "{ agents(first: 9) { nodes { id tasks(first: 5) { nodes { id } } } } }",
        ),
        limit(
            "max_page_size",
            "7",
            "{ agents(last: 7) { nodes { tasks(first: 7) { totalCount } } } }",
            "query ($n: Int = 8) { agents { nodes { tasks(first: $n) { totalCount } } } }",
        ),
        with_variables("max_variables_bytes", "17", json!({"a": "123456789"}), json!({"a": "1234567890"})),
        with_variables("max_variables_depth", "3", json!({"a": [{"b": "[[["}]}), json!({"a": [{"b": []}]})),
    ]
}

async fn send(gateway: &Gateway, request: &Value) -> (u16, Value) {
    let accept = "application/graphql-response+json";
    let url = format!("{}/graphql", gateway.url);
    let response = gateway.client.post(url).header("accept", accept).json(request).send().await.unwrap();
    (response.status().as_u16(), response.json().await.unwrap())
}

#[tokio::test]
async fn each_limit_holds_and_takes_no_more_than_it_says() {
    let url = sample_url();
    for Limit { name, value, within, beyond } in limits() {
        let flag = format!("--{}", name.replace('_', "-"));
        let gateway = Gateway::start(&url, &[&flag, value], Access::Everyone).await;
        let (status, answer) = send(&gateway, &within).await;
        let refused = answer["errors"][0]["extensions"]["limit"].as_str();
        assert!(refused.is_none() && (status == 200 || name == "max_operations"), "{name}: {answer}");
        let (status, answer) = send(&gateway, &beyond).await;
        let errors = answer["errors"].as_array().unwrap();
        assert_eq!((status, errors.len(), answer.get("data")), (400, 1, None), "{name}: {answer}");
        assert_eq!(errors[0]["extensions"], json!({"code": "BAD_USER_INPUT", "limit": name}), "{answer}");
    }
}

/// The first errors, and one that says how many more there are.
#[tokio::test]
async fn an_answer_has_no_more_errors_than_it_may() {
    let gateway = Gateway::start(&sample_url(), &["--max-errors", "3"], Access::Everyone).await;
    let mut wrong = String::new();
    for n in 0..5 {
        write!(wrong, "a{n}: agents(first: -1) {{ totalCount }} ").unwrap();
    }
    let (status, answer) = send(&gateway, &json!({"query": format!("{{ {wrong} ok: __typename }}")})).await;
    let errors = answer["errors"].as_array().unwrap();
    assert_eq!((status, errors.len(), &answer["data"]["ok"]), (200, 4, &json!("Query")), "{answer}");
    assert_eq!(errors[3]["message"], "the answer has 2 more errors, which are not shown");
    assert_eq!(errors[3]["extensions"]["limit"], "max_errors");
    let unknown: String = (0..9).map(|n| format!("nothing{n} ")).collect();
    let (status, answer) = send(&gateway, &json!({"query": format!("{{ {unknown} }}")})).await;
    assert_eq!((status, answer["errors"].as_array().unwrap().len()), (400, 4), "{answer}");
}

/// `wide` spreads of the next fragment in each of `deep` ones.
fn bomb(deep: usize, wide: usize) -> String {
    let mut document = "{ ...F0 }".to_owned();
    for n in 0..deep {
        let spreads = format!(" ...F{}", n + 1).repeat(wide);
        write!(document, " fragment F{n} on Query {{{spreads} }}").unwrap();
    }
    write!(document, " fragment F{deep} on Query {{ agents {{ nodes {{ id }} }} }}").unwrap();
    document
}

/// A bomb whose fragments are fields inside one another.
fn nested_bomb(deep: usize, wide: usize) -> String {
    let mut document = "{ agents(first: 1) { nodes { ...F0 } } }".to_owned();
    for n in 0..deep {
        let (on, field) = if n % 2 == 0 { ("Agent", "tasks") } else { ("Task", "evidences") };
        let inner = if n % 2 == 0 { "nodes" } else { "nodes { agent" };
        let close = if n % 2 == 0 { "" } else { " }" };
        let fields: String = (0..wide)
            .map(|_| format!(" {field}(first: 0) {{ {inner} {{ ...F{} }}{close} }}", n + 1))
            .collect();
        write!(document, " fragment F{n} on {on} {{{fields} }}").unwrap();
    }
    write!(
        document,
        " fragment F{deep} on {} {{ id }}",
        if deep.is_multiple_of(2) { "Agent" } else { "Task" }
    )
    .unwrap();
    document
}

/// Name, body, and the limit that refuses it (none where no limit is needed to).
pub(crate) type Hostile = (&'static str, Vec<u8>, Option<&'static str>);

pub(crate) fn hostile_documents() -> Vec<Hostile> {
    let query = |text: String| json!({"query": text}).to_string().into_bytes();
    let aliases: String = (0..1_000).map(|n| format!("a{n}: __typename ")).collect();
    let circle = "fields { type { ".repeat(7) + "name" + &" } }".repeat(7);
    let upwards: String =
        (1..300).map(|n| format!("fragment G{n:03} on Query {{ ...G{:03} }} ", n - 1)).collect();
    let upwards = format!("{{ ...G299 }} fragment G000 on Query {{ __typename }} {upwards}");
    let chain: String = (0..300).map(|n| format!("fragment F{n} on Query {{ ...F{} }} ", n + 1)).collect();
    vec![
        ("1,000 aliases", query(format!("{{ {aliases} }}")),  Some("max_root_fields")),
        (
            "1,000 aliases below",
            query(format!("{{ agents {{ {aliases} }} }}")),

            Some("max_aliases"),
        ),
        ("10,000 fields", query(format!("{{ {} }}", "__typename ".repeat(10_000))),  Some("max_tokens")),
        (
            "4,000 fields",
            query(format!("{{ agents {{ {} }} }}", "__typename ".repeat(4_000))),

            Some("max_fields"),
        ),
        (
            "2,000 directives",
            query(format!("{{ __typename {} }}", "@a ".repeat(2_000))),

            Some("max_directives"),
        ),
        ("bomb of 8 by 8", query(bomb(8, 8)),  Some("max_root_fields")),
        ("bomb of 24 by 2", query(bomb(24, 2)),  Some("max_root_fields")),
        ("bomb of 30 by 3", query(bomb(30, 3)),  Some("max_root_fields")),
        (
            "bomb of 30 by 3 around a fragment that is not there",
            query(bomb(30, 3).replace("fragment F30 ", "fragment Other ")),
            None,
        ),
        ("nested bomb of 5 by 8", query(nested_bomb(5, 8)),  Some("max_fields")),
        ("nested bomb of 12 by 2", query(nested_bomb(12, 2)),  Some("max_depth")),
        ("300 fragments in a row", query(format!("{{ ...F0 }} {chain}")),  Some("fragments")),
        ("300 fragments, the last one first", query(upwards),  Some("fragments")),
        (
            "circular fragments",
            query("{ ...A } fragment A on Query { ...B } fragment B on Query { ...A }".to_owned()),

            Some("fragments"),
        ),
        (
            "circular fragments that nothing spreads",
            query("{ __typename } fragment A on Query { agents { nodes { ...B } } } fragment B on Agent { ...B }".to_owned()),

            Some("fragments"),
        ),
        (
            "circular introspection",
            query(format!("{{ __schema {{ types {{ {circle} }} }} }}")),

            Some("introspection"),
        ),
        ("100,000 curly brackets", query("{ a ".repeat(100_000)),  Some("nesting")),
        ("100,000 square brackets", query(format!("{{ a(b: {}", "[".repeat(100_000))),  Some("nesting")),
        ("100,000 brackets of a type", query(format!("query ($a: {}", "[".repeat(100_000))),  Some("nesting")),
        (
            "a page of 99,999,999",
            query("{ tasks(first: 99999999) { nodes { id } } }".to_owned()),

            Some("max_page_size"),
        ),
        (
            "pages in pages",
            query("{ tasks(first: 200) { nodes { evidences(first: 200) { nodes { supporting(first: 200) { nodes { id } } } } } } }".to_owned()),

            Some("max_complexity"),
        ),
    ]
}

pub(crate) fn hostile_bodies() -> Vec<Hostile> {
    let query = |text: String| json!({"query": text}).to_string().into_bytes();
    let bad = |text: &[u8]| [br#"{"query": "{ __typename "#, text, br#" }"}"#].concat();
    vec![
        ("100,000 brackets in the body", format!("{{\"query\": {}", "[".repeat(100_000)).into_bytes(), None),
        (
            "100,000 brackets in the variables",
            format!(
                "{{\"query\": \"{{ __typename }}\", \"variables\": {{\"a\": {}{}}}}}",
                "[".repeat(100_000),
                "]".repeat(100_000)
            )
            .into_bytes(),
            Some("max_variables_depth"),
        ),
        (
            "20 MB of variables",
            json!({"query": "{ __typename }", "variables": {"a": "x".repeat(20_000_000)}})
                .to_string()
                .into_bytes(),
            Some("max_variables_bytes"),
        ),
        (
            "20 MB of variables in small pieces",
            json!({"query": "{ __typename }", "variables": {"a": vec![0; 10_000_000]}})
                .to_string()
                .into_bytes(),
            Some("max_variables_bytes"),
        ),
        ("bad UTF-8", bad(b"\xff\xfe"), None),
        ("a lone surrogate", bad(br"\ud800"), None),
        ("NUL in the document", bad(br"\u0000"), None),
        ("a raw NUL", bad(b"\0"), None),
        ("an unclosed string", query("{ agents(after: \"".to_owned() + &"x".repeat(100_000)), None),
    ]
}

/// Far above what a refusal takes, also on a busy machine, and far below what any of these costs if it is executed.
const QUICKLY: Duration = Duration::from_secs(6);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_requests_are_refused_while_others_are_served() {
    let gateway = Gateway::start(&sample_url(), &["--max-body-bytes", "104857600"], Access::Everyone).await;
    let others = {
        let (url, client) = (format!("{}/graphql", gateway.url), gateway.client.clone());
        tokio::spawn(async move {
            let mut slowest = Duration::ZERO;
            loop {
                let begun = Instant::now();
                let question = json!({"query": "{ agents(first: 3) { totalCount } }"});
                let answer: Value =
                    client.post(&url).json(&question).send().await.unwrap().json().await.unwrap();
                assert_eq!(answer["data"]["agents"]["totalCount"], 10);
                slowest = slowest.max(begun.elapsed());
                assert!(slowest < QUICKLY, "others waited for {slowest:?}");
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
    };
    for (name, body, limit) in hostile_documents().into_iter().chain(hostile_bodies()) {
        let request = gateway.client.post(format!("{}/graphql", gateway.url));
        let request = request.header("content-type", "application/json");
        let request = request.header("accept", "application/graphql-response+json").body(body);
        let begun = Instant::now();
        let response = request.send().await.unwrap();
        let took = begun.elapsed();
        println!("{name}: {took:?}");
        let (status, text) = (response.status().as_u16(), response.text().await.unwrap());
        let answer: Value = serde_json::from_str(&text).unwrap();
        let extensions = &answer["errors"][0]["extensions"];
        assert_eq!((status, extensions["code"].as_str()), (400, Some("BAD_USER_INPUT")), "{name}: {text}");
        assert_eq!(extensions["limit"].as_str(), limit, "{name}: {text}");
        assert!(took < QUICKLY && text.len() < 10_000, "{name}: {took:?} {text:.200}");
    }
    assert!(!others.is_finished(), "{:?}", others.await);
    others.abort();
    // With the default settings nobody even reads so much.
    let gateway = Gateway::open(&sample_url()).await;
    let large = json!({"query": "{ __typename }", "variables": {"a": "x".repeat(20_000_000)}});
    let begun = Instant::now();
    let (status, answer) = send(&gateway, &large).await;
    println!("20 MB of a body: {:?}", begun.elapsed());
    assert_eq!((status, answer["errors"][0]["extensions"]["limit"].as_str()), (413, Some("max_body_bytes")));
}

/// What common tools ask of a schema is within the limits.
#[tokio::test]
async fn introspection_is_within_the_limits() {
    let gateway = Gateway::open(&sample_url()).await;
    let of_type = "ofType { kind name ".repeat(9) + &" }".repeat(9);
    let document = format!(
        "query IntrospectionQuery {{ __schema {{ description queryType {{ name }} mutationType {{ name }} \
         subscriptionType {{ name }} types {{ ...FullType }} directives {{ name description isRepeatable locations \
         args(includeDeprecated: true) {{ ...InputValue }} }} }} }} \
         fragment FullType on __Type {{ kind name description specifiedByURL \
         fields(includeDeprecated: true) {{ name description args(includeDeprecated: true) {{ ...InputValue }} \
         type {{ ...TypeRef }} isDeprecated deprecationReason }} \
         inputFields(includeDeprecated: true) {{ ...InputValue }} interfaces {{ ...TypeRef }} \
         enumValues(includeDeprecated: true) {{ name description isDeprecated deprecationReason }} \
         possibleTypes {{ ...TypeRef }} }} \
         fragment InputValue on __InputValue {{ name description type {{ ...TypeRef }} defaultValue isDeprecated \
         deprecationReason }} fragment TypeRef on __Type {{ kind name {of_type} }}"
    );
    let data = gateway.ask(&document).await;
    assert!(data["__schema"]["types"].as_array().unwrap().len() > 100);
}

/// From then on whoever reads agents takes an hour.
pub(crate) const SLOW_AGENTS: &str = "alter table agents rename to all_agents;
    create function an_hour() returns boolean language plpgsql volatile as
        $$ begin perform pg_sleep(3600); return true; end $$;
    create view agents as select * from all_agents where an_hour()";

/// Statements of the gateway that PostgreSQL is busy with.
async fn running(database: &Database) -> usize {
    let query = "select pid::text from pg_stat_activity where state = 'active' and datname = current_database() \
                 and application_name = 'evidence-gateway'";
    column(&database.url, query).await.len()
}

async fn until_none_is_running(database: &Database) {
    let begun = Instant::now();
    while running(database).await > 0 {
        assert!(begun.elapsed() < Duration::from_secs(5), "PostgreSQL still works for nobody");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Out of time, or without a client, a request leaves no statement behind, and its connection serves the next one.
#[tokio::test]
async fn a_request_that_nobody_waits_for_is_cancelled() {
    let database = Database::sample().await;
    execute(&database.url, SLOW_AGENTS).await;
    let settings = ["--request-timeout-ms", "700", "--pool-size", "1", "--pool-wait-ms", "5000"];
    let gateway = Gateway::start(&database.url, &settings, Access::Everyone).await;
    let question = json!({"query": "{ agents { nodes { name } } }"});

    // PostgreSQL's own limit is the same; the gateway's comes first or both do, and either says so.
    let (status, answer) = send(&gateway, &question).await;
    let code = &answer["errors"][0]["extensions"]["code"];
    assert!(code == "TIMEOUT" && (status == 504 || status == 200), "{status} {answer}");
    until_none_is_running(&database).await;

    let request = gateway.client.post(format!("{}/graphql", gateway.url)).json(&question);
    let patience = request.timeout(Duration::from_millis(300)).send().await;
    assert!(patience.unwrap_err().is_timeout());
    let begun = Instant::now();
    until_none_is_running(&database).await;
    println!("the statement of a client that went away ended after {:?}", begun.elapsed());

    // The one connection is in order.
    let data = gateway.ask("{ users { totalCount } projects { totalCount } }").await;
    assert_eq!(data["users"], json!({"totalCount": 5}));
}

/// Who finds no free connection waits for so long and no longer.
#[tokio::test]
async fn waiting_for_a_connection_has_an_end() {
    let database = Database::sample().await;
    let settings = ["--pool-size", "1", "--pool-wait-ms", "300", "--request-timeout-ms", "20000"];
    let gateway = Gateway::start(&database.url, &settings, Access::Everyone).await;
    let mut lock = database.connect().await;
    lock.batch_execute("begin; lock table agents").await.unwrap();
    let asked = {
        let (url, client) = (format!("{}/graphql", gateway.url), gateway.client.clone());
        tokio::spawn(async move {
            let question = json!({"query": "{ agents { totalCount } }"});
            client.post(url).json(&question).send().await.unwrap().json::<Value>().await.unwrap()
        })
    };
    while running(&database).await == 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let begun = Instant::now();
    let (code, _) = gateway.error("{ users { totalCount } }", json!({})).await;
    assert_eq!(code, "UNAVAILABLE");
    assert!(begun.elapsed() >= Duration::from_millis(300) && begun.elapsed() < Duration::from_secs(10));
    lock.batch_execute("commit").await.unwrap();
    assert_eq!(asked.await.unwrap()["data"]["agents"]["totalCount"], 10);
}
