//! What is refused: at the door with the code and the field to blame, and later with the last event.

use evidence_gateway::error::Code;
use evidence_gateway::model::change::prune;

use super::operations::PROJECTS;
use super::*;
use uuid::Uuid;

use crate::harness::{column, member};

/// A document, its variables, and what the refusal blames.
const REFUSED: &[(&str, &str)] = &[
    ("subscription { taskChanged(filter: {title: {eq: \"x\"}}) { id } }", "filter.title"),
    (
        "subscription { taskChanged(filter: {or: [{priority: {eq: 1}}, {version: {gt: 3}}]}) { id } }",
        "filter.version",
    ),
    ("subscription { taskChanged(filter: {category: {gt: \"a\"}}) { id } }", "filter.category"),
    ("subscription { taskChanged(filter: {category: {contains: \"a\"}}) { id } }", "filter.category"),
    ("subscription { taskChanged(filter: {tags: {has: \"a\"}}) { id } }", "filter.tags"),
    ("subscription { taskChanged(filter: {not: {project: {name: {eq: \"a\"}}}}) { id } }", "filter.project"),
    ("subscription { taskChanged(after: \"x\") { id } }", "after"),
    ("subscription { taskChanged(coalesceMs: 5) { id } }", "coalesceMs"),
    ("subscription { taskChanged { id } agentChanged { id } }", ""),
    ("subscription { changes(entities: []) { id } }", "entities"),
    ("subscription { agentChanged(silentAfterMs: 1) { id } }", "silentAfterMs"),
    ("subscription { __typename }", ""),
    ("subscription { taskChanged { nothing } }", ""),
    ("subscription { nothing { id } }", ""),
    ("query @live(throttleMs: 5) { tasks { totalCount } }", "throttleMs"),
    ("query @live { auditLogs { totalCount } }", "live"),
    ("{ tasks { totalCount } }", ""),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_told_is_refused() {
    let database = Database::empty().await;
    super::operations::prepare(&database.url).await;
    let settings = ["--max-streams", "12", "--max-streams-per-viewer", "10"];
    let process = Process::start(&database.url, &settings).await;
    for (document, field) in REFUSED {
        let refused = process.open(document, json!({}), &Viewer::admin()).await.err();
        let refused = refused.unwrap_or_else(|| panic!("{document}"));
        assert_eq!(refused.error.code(), Code::BadUserInput, "{document}");
        assert_eq!(refused.error.field().unwrap_or_default(), *field, "{document}");
    }
    // Streams of one viewer, and of all; what is closed counts no more.
    let document = "subscription { changes(entities: [TASK, AGENT]) { entity operation id } }";
    let (one, two) = (member(Some(Uuid::from_u128(1)), &[]), member(Some(Uuid::from_u128(2)), &[]));
    let mut streams = Vec::new();
    for n in 0..12 {
        streams.push(process.watch(document, json!({}), if n < 10 { &one } else { &two }).await);
    }
    for (viewer, limit) in [(&one, "max_streams"), (&two, "max_streams")] {
        let refused = process.open(document, json!({}), viewer).await.err().unwrap();
        assert_eq!((refused.error.code(), refused.error.limit()), (Code::RateLimited, Some(limit)));
    }
    streams.pop();
    let refused = process.open(document, json!({}), &one).await.err().unwrap();
    assert_eq!(refused.error.limit(), Some("max_streams_per_viewer"));
    process.watch(document, json!({}), &two).await;
}

/// A cursor that the log does not reach back to ends its stream, and so does one of another life of the database.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cursor_of_another_time_ends_its_stream() {
    let database = Database::empty().await;
    let url = &database.url;
    super::operations::prepare(url).await;
    let process = Process::start(url, &[]).await;
    let viewer = member(None, &PROJECTS);
    let document = "subscription($after: String) { taskChanged(after: $after) { cursor operation } }";
    let mut stream = process.watch(document, json!({}), &viewer).await;
    execute(url, "update tasks set priority = 5").await;
    let old = next(&mut stream).await.cursor.unwrap();
    execute(url, "update tasks set priority = 4").await;
    next(&mut stream).await;
    let session = process.app.db.session();
    let begun = std::time::Instant::now();
    // Transactions of the server's other databases hold the log, too, while they are open.
    while column(url, "select count(*)::text from change_log").await != ["0"] {
        assert!(begun.elapsed() < Duration::from_secs(40));
        prune(&session, Duration::ZERO, 1_000).await.unwrap();
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let future = evidence_gateway::model::change::Place::after(std::sync::Arc::new(
        evidence_gateway::model::change::Snapshot::up_to(1 << 40),
    ));
    for after in [old.to_string(), future.cursor(&process.app.cursors)] {
        let mut stream = process.watch(document, json!({"after": after}), &viewer).await;
        let event = next(&mut stream).await;
        let body: Value = serde_json::from_slice(&event.body).unwrap();
        assert_eq!(body["errors"][0]["extensions"]["code"], "CURSOR_EXPIRED", "{body}");
        assert!(event.last && stream.next(None).await.is_none());
    }
}

/// A table that is emptied tells of no row, and a stream says so.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_emptied_table_says_read_again() {
    let database = Database::empty().await;
    let url = &database.url;
    super::operations::prepare(url).await;
    let process = Process::start(url, &[]).await;
    let document =
        "subscription { changes { entity operation id node { id ... on Task { title } } changedFields } }";
    let mut stream = process.watch(document, json!({}), &member(None, &PROJECTS[..1])).await;
    execute(url, "update tasks set title = 'now'; truncate tasks cascade").await;
    let event = told(&next(&mut stream).await);
    assert_eq!((&event["entity"], &event["operation"]), (&json!("TASK"), &json!("UPDATED")));
    let mut resets = Vec::new();
    for _ in 0..3 {
        let event = told(&next(&mut stream).await);
        assert_eq!(
            (&event["operation"], &event["id"], &event["node"]),
            (&json!("RESET"), &Value::Null, &Value::Null)
        );
        resets.push(event["entity"].as_str().unwrap().to_owned());
    }
    assert!(resets.contains(&"TASK".to_owned()), "{resets:?}");
}
