//! What only an index on a server has to care for: the server is down, slow, old, or wants another key.

use std::time::{Duration, Instant};

use evidence_gateway::error::{Code, Error};
use evidence_gateway::store::vectors::{Question, Vectors};

use super::{Place, east, layout, nearest, point, settings};
use crate::qdrant::{API_KEY, TestQdrant};

/// Milliseconds for a question in these tests, and for a write.
const TIMEOUT: u64 = 600;

async fn place(server: TestQdrant) -> Place {
    let timeout = TIMEOUT.to_string();
    let arguments = ["--qdrant-url", &server.url(), "--qdrant-api-key", API_KEY];
    let timeouts = ["--qdrant-timeout-ms", &timeout, "--qdrant-write-timeout-ms", &timeout];
    let settings = settings(&[&arguments[..], &timeouts[..]].concat());
    Place { name: "test server", settings, dir: tempfile::tempdir().unwrap(), server: Some(server) }
}

/// Every kind of call ends in time and says the same.
async fn assert_unavailable(vectors: &Vectors) {
    let question = Question { dense: Some(east()), limit: 3, ..Question::default() };
    for call in 0..5 {
        let begun = Instant::now();
        let error: Error = match call {
            0 => vectors.ask(vec![question.clone()]).await.unwrap_err(),
            1 => vectors.upsert(vec![point(9, 1, 7, east())]).await.unwrap_err(),
            2 => vectors.count(None).await.unwrap_err(),
            3 => vectors.facets(&["domain"], None, 3).await.unwrap_err(),
            _ => vectors.scroll(None, 10).await.unwrap_err(),
        };
        assert_eq!(error.code(), Code::Unavailable);
        assert_eq!(error.message(), "the vector index is not available; try again later");
        assert!(begun.elapsed() < Duration::from_millis(TIMEOUT + 300), "call {call}: {:?}", begun.elapsed());
    }
}

#[tokio::test]
async fn a_server_that_is_gone_is_unavailable_until_it_is_back() {
    let mut place = place(TestQdrant::start().await).await;
    let vectors = place.open().await;
    vectors.upsert(vec![point(1, 1, 7, east())]).await.unwrap();
    place.server_mut().stop().await;
    assert_unavailable(&vectors).await;
    place.server_mut().restart().await;
    assert_eq!(nearest(&vectors, 3).await, [1]);

    // One that takes calls and never answers is no better.
    place.server_mut().hang(true);
    assert_unavailable(&vectors).await;
    place.server_mut().hang(false);
    assert_eq!(nearest(&vectors, 3).await, [1]);
}

/// A gateway starts without it, and finds out later what is there.
#[tokio::test]
async fn a_server_may_be_down_at_the_start() {
    let mut place = place(TestQdrant::start().await).await;
    place.server_mut().stop().await;
    let vectors = place.open().await;
    assert_unavailable(&vectors).await;
    assert!(Vectors::draft(&place.settings, place.path(), layout()).await.is_err());
    place.server_mut().restart().await;
    vectors.upsert(vec![point(1, 1, 7, east())]).await.unwrap();
    assert_eq!(nearest(&vectors, 3).await, [1]);
    assert_eq!(place.server_mut().collections(), ["evidence-1"]);

    // Or that it is another's.
    place.server_mut().stop().await;
    let other = super::Layout { model: "letters".to_owned(), ..layout() };
    let vectors = place.open_as(other).await.unwrap();
    place.server_mut().restart().await;
    let error = vectors.count(None).await.unwrap_err();
    assert!(error.message().contains("rebuild it with `reindex`"), "{error}");
}

#[tokio::test]
async fn failures_that_pass_are_not_noticed() {
    let place = place(TestQdrant::start().await).await;
    let vectors = place.open().await;
    let server = place.server.as_ref().unwrap();
    for calls in 1..=3 {
        server.fail(calls);
        vectors.upsert(vec![point(1, i32::try_from(calls).unwrap(), 7, east())]).await.unwrap();
        server.fail(calls);
        assert_eq!(nearest(&vectors, 3).await, [1]);
    }
    server.fail(usize::MAX);
    assert_unavailable(&vectors).await;
    server.fail(0);
    // A refusal is not repeated.
    let before = server.calls("facet");
    assert_eq!(vectors.facets(&["no such key"], None, 3).await.unwrap_err().code(), Code::Unavailable);
    assert_eq!(server.calls("facet") - before, 1);
    assert_eq!(nearest(&vectors, 3).await, [1]);
}

/// Whatever else is asked of it, a question is one request, and so are a hundred.
#[tokio::test]
async fn many_questions_are_one_request() {
    let place = place(TestQdrant::start().await).await;
    let vectors = place.open().await;
    vectors.upsert((1..=9).map(|number| point(number, 1, 7, east())).collect()).await.unwrap();
    let server = place.server.as_ref().unwrap();
    let question = Question { dense: Some(east()), limit: 3, ..Question::default() };
    let answers = vectors.ask(vec![question; 100]).await.unwrap();
    assert_eq!((answers.len(), server.calls("query_batch")), (100, 1));
    assert_eq!((vectors.ask(Vec::new()).await.unwrap().len(), server.calls("query_batch")), (0, 1));
}

#[tokio::test]
async fn a_server_that_will_not_do_is_refused_at_the_start() {
    let server = TestQdrant::start().await;
    server.claim("1.15.5");
    let place = place(server).await;
    let error = place.open_as(layout()).await.unwrap_err();
    assert_eq!(error.message(), "the Qdrant server has version \"1.15.5\"; it takes 1.16 or later");
    place.server.as_ref().unwrap().claim("1.17.0-dev");
    place.open().await;
    let url = place.server.as_ref().unwrap().url();
    let settings = settings(&["--qdrant-url", &url, "--qdrant-api-key", "another key"]);
    let error = Vectors::open(&settings, place.path(), layout()).await.unwrap_err();
    assert_eq!(error.code(), Code::Unavailable);
    assert!(!format!("{settings:?} {error:?}").contains("another key"));
}
