//! Embedders: an endpoint that misbehaves in every way, questions that come together, questions that come again, and
//! what is said about an embedder that is not there.

use std::sync::Arc;
use std::time::{Duration, Instant};

use evidence_gateway::error::{Code, Error};
use evidence_gateway::http::viewer::Access;
use evidence_gateway::model::viewer::Viewer;
use evidence_gateway::store::embedder::Embedder;
use evidence_gateway::store::redis::Redis;
use evidence_gateway::telemetry::Metrics;
use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::harness::{Gateway, SECRET, config, secret};
use crate::leaks;
use crate::redis::RedisServer;
use crate::settings::{output, program};
use crate::writes::World;
use api::{Api, DIMENSION, KEY, Reply, vector};

pub(crate) mod api;

const MODEL: &str = "a-model";

/// The settings for an endpoint.
pub(crate) fn settings<'a>(url: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let mut settings = vec!["--embedder", "http", "--embedder-url", url, "--embedder-key", KEY];
    settings.extend(["--embedder-model", MODEL]);
    settings.extend(more);
    settings
}

/// An embedder over an endpoint, and its metrics.
async fn embedder(url: &str, redis: Redis, more: &[&str]) -> (Embedder, Arc<Metrics>) {
    leaks::watch_log();
    let metrics = Arc::new(Metrics::new().unwrap());
    let dimensions = DIMENSION.to_string();
    let mut settings = settings(url, &["--embedder-dimensions", &dimensions]);
    settings.extend(more);
    (Embedder::open(&config(&settings), redis, metrics.clone()).await.unwrap(), metrics)
}

/// The value of a metric, with its labels.
fn metric(metrics: &Metrics, name: &str) -> Option<f64> {
    let text = metrics.text().unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(&format!("evidence_gateway_{name} ")))?;
    Some(line.parse().unwrap())
}

fn assert_is(found: &[f32], text: &str) {
    let expected = vector(text);
    let norm = expected.iter().map(|number| number * number).sum::<f32>().sqrt();
    assert_eq!(found.len(), expected.len());
    for (found, expected) in found.iter().zip(&expected) {
        assert!((found - expected / norm).abs() < 1e-6, "{text}");
    }
}

fn assert_unavailable(error: &Error) {
    assert_eq!(error.code(), Code::Unavailable);
    assert_eq!(error.message(), "the embedding endpoint is not available; try again later");
    leaks::check(&format!("{error:?}"), "an error");
}

const NONE: (&str, &str) = ("", "");
/// What endpoints say, and no log may.
const CHATTER: &str = r#"{"error": {"message": "Incorrect key sk-the-key-of-the-tests for 'a question'",
    "type": "invalid_request_error", "code": "invalid_api_key"}}"#;

/// What an endpoint does, how long it may take in milliseconds, how often it is asked, and why there is no vector in
/// the end, if there is none.
type Case = (&'static str, &'static [Reply], u32, usize, Option<&'static str>);

const CASES: &[Case] = &[
    ("good", &[], 20_000, 1, None),
    ("500 twice", &[Reply::Text(500, NONE, "oh"), Reply::Text(503, NONE, "")], 20_000, 3, None),
    ("500 for good", &[Reply::Text(500, NONE, CHATTER); 9], 20_000, 3, Some("answered 500, invalid_api_key")),
    ("429", &[Reply::Text(429, ("retry-after", "1"), CHATTER)], 20_000, 2, None),
    ("429 for long", &[Reply::Text(429, ("retry-after", "3600"), "")], 20_000, 1, Some("answered 429")),
    ("cut", &[Reply::Cut], 20_000, 2, None),
    ("silent", &[Reply::Silent], 2_000, 1, Some("no answer within 2000 ms")),
    ("wrong key", &[Reply::Text(401, NONE, CHATTER)], 20_000, 1, Some("answered 401, invalid_api_key")),
    ("wrong request", &[Reply::Text(400, ("retry-after", "1"), "sk-")], 20_000, 1, Some("answered 400")),
    (
        "elsewhere",
        &[Reply::Text(307, ("location", "http://127.0.0.1:1/"), "")],
        20_000,
        1,
        Some("answered 307"),
    ),
    ("garbage", &[Reply::Text(200, NONE, CHATTER)], 20_000, 1, Some("something else than vectors")),
    ("nothing", &[Reply::Text(200, NONE, "")], 20_000, 1, Some("something else than vectors")),
    ("too long", &[Reply::Long(100_000)], 20_000, 1, Some("more than")),
    ("few", &[Reply::Spoilt(|it| it["data"] = json!([]))], 20_000, 1, Some("0 vectors to 1 texts")),
    ("another text", &[Reply::Spoilt(|it| it["data"][0]["index"] = json!(1))], 20_000, 1, Some("text 1")),
    (
        "short",
        &[Reply::Spoilt(|it| it["data"][0]["embedding"] = json!([1.0]))],
        20_000,
        1,
        Some("of 1 numbers"),
    ),
    (
        "zero",
        &[Reply::Spoilt(|it| it["data"][0]["embedding"] = json!(vec![0.0; DIMENSION]))],
        20_000,
        1,
        Some("direction"),
    ),
    (
        "infinite",
        &[Reply::Spoilt(|it| it["data"][0]["embedding"][0] = json!(1e39))],
        20_000,
        1,
        Some("something else"),
    ),
    (
        "null",
        &[Reply::Spoilt(|it| it["data"][0]["embedding"][0] = Value::Null)],
        20_000,
        1,
        Some("something else"),
    ),
];

#[tokio::test]
async fn an_endpoint_may_misbehave() {
    let run = async |(name, script, timeout, times, cause): &Case| {
        let api = Api::start(script).await;
        let timeout = timeout.to_string();
        let (embedder, metrics) = embedder(&api.url, Redis::Off, &["--embedder-timeout-ms", &timeout]).await;
        let found = embedder.embed_query("a question").await;
        assert_eq!(api.asked().len(), *times, "{name}: {found:?}");
        let outcome = if cause.is_some() { "failed" } else { "ok" };
        let label = format!(r#"embedding_seconds_count{{outcome="{outcome}",purpose="query"}}"#);
        assert_eq!(metric(&metrics, &label), Some(1.0), "{name}");
        match cause {
            None => assert_is(&found.unwrap(), "a question"),
            Some(cause) => {
                let error = found.unwrap_err();
                assert_unavailable(&error);
                assert!(error.internal_text().unwrap().contains(cause), "{name}: {error:?}");
            }
        }
        if *name == "429" {
            let asked = api.asked();
            assert!(asked[1].at - asked[0].at >= Duration::from_millis(900), "it said 1 second");
        }
    };
    join_all(CASES.iter().map(run)).await;
}

#[tokio::test]
async fn texts_are_sent_in_batches_and_come_back_in_order() {
    let api = Api::start(&[Reply::Text(500, NONE, "")]).await;
    let (embedder, metrics) = embedder(&api.url, Redis::Off, &["--embedder-batch", "4"]).await;
    assert_eq!(format!("{embedder:?}"), format!("Embedder({MODEL}, {DIMENSION})"));
    let texts: Vec<String> = (0..20).map(|n| format!("text number{}", n % 10)).collect();
    let vectors = embedder.embed(texts.clone()).await.unwrap();
    assert_eq!(vectors.len(), texts.len());
    for (text, vector) in texts.iter().zip(&vectors) {
        assert_is(vector, text);
    }
    let mut sizes: Vec<usize> = api.texts().iter().map(Vec::len).collect();
    sizes.sort_unstable();
    // Ten different ones, and one batch came twice.
    assert!([&[2, 4, 4, 4][..], &[2, 2, 4, 4]].contains(&&sizes[..]), "{sizes:?}");
    for asked in api.asked() {
        let mut asked = asked.body;
        asked["input"].take();
        let expected =
            json!({"model": MODEL, "input": null, "dimensions": DIMENSION, "encoding_format": "float"});
        assert_eq!(asked, expected);
    }
    let label = r#"embedding_seconds_count{outcome="ok",purpose="index"}"#;
    assert_eq!(metric(&metrics, label), Some(1.0));

    // One bad batch is no half success.
    api.script(&[Reply::Text(400, NONE, CHATTER)]);
    assert_unavailable(&embedder.embed(texts).await.unwrap_err());
}

/// Without its length, the endpoint is asked at the start, and must answer then.
#[tokio::test]
async fn the_length_of_vectors_may_be_asked_for() {
    leaks::watch_log();
    let api = Api::start(&[]).await;
    let open = async || {
        Embedder::open(&config(&settings(&api.url, &[])), Redis::Off, Arc::new(Metrics::new().unwrap())).await
    };
    assert_eq!(open().await.unwrap().dimension(), DIMENSION);
    assert!(api.asked()[0].body.get("dimensions").is_none());
    api.script(&[Reply::Text(401, NONE, CHATTER)]);
    let error = open().await.unwrap_err();
    assert!(
        error.code() == Code::Unavailable && error.message().contains("--embedder-dimensions"),
        "{error:?}"
    );
    assert!(error.internal_text().unwrap().contains("401"), "{error:?}");
}

/// While an endpoint is known to be down, a question costs no time, and one of them tries now and then.
#[tokio::test]
async fn an_endpoint_that_is_down_is_left_alone() {
    let api = Api::start(&[Reply::Text(503, NONE, ""); 100]).await;
    let (embedder, _) = embedder(&api.url, Redis::Off, &[]).await;
    for n in 0..20 {
        assert_unavailable(&embedder.embed_query(&format!("question {n}")).await.unwrap_err());
    }
    // The three attempts of the first; more only if this took more than a second.
    assert!(api.asked().len() < 20, "{}", api.asked().len());
    api.recover();
    let begun = Instant::now();
    while embedder.embed_query("the last question").await.is_err() {
        assert!(begun.elapsed() < Duration::from_secs(20), "it is tried again");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn the_same_question_is_embedded_once() {
    let api = Api::start(&[]).await;
    let (embedder, metrics) = embedder(&api.url, Redis::Off, &[]).await;
    let questions = (0..40).map(|n| {
        let embedder = embedder.clone();
        async move { embedder.embed_query(["one question", "another question"][n % 2]).await.unwrap() }
    });
    for (n, found) in join_all(questions).await.iter().enumerate() {
        assert_is(found, ["one question", "another question"][n % 2]);
    }
    embedder.embed_query("one question").await.unwrap();
    assert_eq!(api.asked().len(), 2);
    for (source, count) in [("model", 2.0), ("shared", 38.0), ("memory", 1.0)] {
        let label = format!(r#"query_embeddings_total{{source="{source}"}}"#);
        assert_eq!(metric(&metrics, &label), Some(count), "{source}");
    }
}

/// One question more than fit is told so at once; who hangs up makes room; the index is not in the way.
#[tokio::test]
async fn questions_wait_in_bounded_number() {
    let api = Api::start(&[]).await;
    let more = ["--embedder-queue", "2", "--embedder-timeout-ms", "60000"];
    let (embedder, metrics) = embedder(&api.url, Redis::Off, &more).await;
    embedder.embed_query("known").await.unwrap();
    let ask = |text: &'static str| {
        let embedder = embedder.clone();
        tokio::spawn(async move { embedder.embed_query(text).await })
    };
    let index = {
        let embedder = embedder.clone();
        let texts = (0..200).map(|n| format!("silent {n}")).collect();
        tokio::spawn(async move { embedder.embed(texts).await })
    };
    api.in_flight(2).await;
    embedder.embed_query("a question beside the index").await.unwrap();

    let (first, second) = (ask("silent one"), ask("silent two"));
    // The same question takes no place, and outlives the one who asked first.
    let again = ask("silent one");
    api.in_flight(4).await;
    assert_eq!(metric(&metrics, "embedder_queue_length"), Some(2.0));
    let error = embedder.embed_query("one too many").await.unwrap_err();
    assert_eq!(error.code(), Code::Unavailable);
    assert_eq!(error.message(), "too many questions wait for the embedder; try again later");
    assert_eq!(metric(&metrics, r#"refusals_total{limit="embedder_queue"}"#), Some(1.0));
    embedder.embed_query("known").await.unwrap();

    first.abort();
    second.abort();
    api.in_flight(3).await;
    embedder.embed_query("there is room").await.unwrap();
    again.abort();
    index.abort();
    api.in_flight(0).await;
    assert_eq!(metric(&metrics, "embedder_queue_length"), Some(0.0));
    assert!(!api.texts().concat().contains(&"one too many".to_owned()));
}

/// What one process has embedded, another one finds in Redis; and nothing of that is needed.
#[tokio::test]
async fn vectors_are_shared_through_redis() {
    let mut server = RedisServer::start().await;
    let redis = Redis::new(&server.url()).unwrap();
    let api = Api::start(&[]).await;
    let (first, _) = embedder(&api.url, redis.clone(), &[]).await;
    let vector = first.embed_query("abc").await.unwrap();
    let key =
        "evidence-gateway:embed:a-model:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    let kept = async |server: &RedisServer| {
        let begun = Instant::now();
        while server.ask(&["exists", key]) != "1" {
            assert!(begun.elapsed() < Duration::from_secs(20), "it is kept");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    kept(&server).await;
    assert_eq!(server.ask(&["strlen", key]), (DIMENSION * 4).to_string());
    let lifetime: u64 = server.ask(&["ttl", key]).parse().unwrap();
    assert!(lifetime > 80_000 && lifetime <= 86_400, "{lifetime}");

    // After a restart, and with the endpoint gone.
    let (second, metrics) = embedder("http://127.0.0.1:1/v1", redis.clone(), &[]).await;
    assert_eq!(second.embed_query("abc").await.unwrap(), vector);
    assert_eq!(metric(&metrics, r#"query_embeddings_total{source="redis"}"#), Some(1.0));
    assert_unavailable(&second.embed_query("something else").await.unwrap_err());

    // What is no vector of this model is embedded again.
    server.ask(&["set", key, "rubbish"]);
    let (third, _) = embedder(&api.url, redis.clone(), &[]).await;
    assert_eq!(third.embed_query("abc").await.unwrap(), vector);
    assert_eq!(api.asked().len(), 2);

    // Frozen, it is waited for by few; killed, by none; back, it is used again.
    server.freeze();
    let begun = Instant::now();
    for n in 0..40 {
        third.embed_query(&format!("question {n}")).await.unwrap();
    }
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    server.kill();
    third.embed_query("a question of now").await.unwrap();
    server.restart().await;
    let begun = Instant::now();
    let mut n = 0;
    while server.ask(&["dbsize"]) == "0" {
        assert!(begun.elapsed() < Duration::from_secs(30), "Redis is used again");
        n += 1;
        third.embed_query(&format!("a later question {n}")).await.unwrap();
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// All of it: what is written is indexed by the endpoint's vectors and found by them.
#[tokio::test]
async fn search_works_over_an_endpoint() {
    let world = World::new().await;
    for content in ["pancakes with butter", "a signature was not checked", "latency grew after the release"] {
        world.evidence(content).await;
    }
    let api = Api::start(&[Reply::Text(500, NONE, CHATTER)]).await;
    let dir = tempfile::tempdir().unwrap();
    let mut settings = settings(&api.url, &["--data-dir", dir.path().to_str().unwrap()]);
    settings.extend(["--embedder-batch", "2"]);
    let gateway = Gateway::start(&world.url, &settings, Access::Tokens(secret())).await;
    let gateway = gateway.keeping(&Viewer::admin());
    let document = r#"{ searchEvidence(query: "was the signature checked", first: 1) {
        edges { node { content } } } }"#;
    let begun = Instant::now();
    let expected = "a signature was not checked";
    while gateway.ask(document).await["searchEvidence"]["edges"][0]["node"]["content"] != expected {
        assert!(begun.elapsed() < Duration::from_secs(60), "{:?}", api.texts());
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let questions = api.texts().iter().filter(|texts| texts[0].starts_with("was the")).count();
    assert_eq!(questions, 1, "it was asked many times and embedded once");
}

/// Runs the program beside this test's endpoint.
async fn run(command: &mut std::process::Command) -> (Option<i32>, String, String) {
    let mut own = std::mem::replace(command, program());
    tokio::task::spawn_blocking(move || output(&mut own)).await.unwrap()
}

/// What is wrong with an embedder is one line, from the program and from its doctor.
#[tokio::test]
async fn a_missing_embedder_is_one_line() {
    let empty = tempfile::tempdir().unwrap();
    let api = Api::start(&[Reply::Text(401, NONE, CHATTER); 2]).await;
    let missing = ["--embedder", "minilm", "--data-dir", empty.path().to_str().unwrap()];
    let file = "tokenizer.json is missing; get it with `make model`";
    let no_url = ["--embedder", "http", "--embedder-model", MODEL];
    let no_model = ["--embedder", "http", "--embedder-url", &api.url];
    let refused = settings(&api.url, &[]);
    for (settings, said) in [
        (&missing[..], file),
        (&no_url, "--embedder-url (EVIDENCE_GATEWAY_EMBEDDER_URL) is missing"),
        (&no_model, "--embedder-model (EVIDENCE_GATEWAY_EMBEDDER_MODEL) is missing"),
        (&refused, "set --embedder-dimensions (EVIDENCE_GATEWAY_EMBEDDER_DIMENSIONS)"),
    ] {
        let serve = ["serve", "--listen", "127.0.0.1:0", "--token-secret", SECRET, "--database-url"];
        let (code, stdout, stderr) =
            run(program().args(serve).arg("postgres://nobody@127.0.0.1:1/db").args(settings)).await;
        assert_eq!((code, stdout.as_str(), stderr.lines().count()), (Some(1), "", 1), "{stderr}");
        assert!(stderr.contains(said), "{stderr}");
        let (code, stdout, _) = run(program().arg("doctor").args(settings)).await;
        let line = stdout.lines().find(|line| line.starts_with("FAIL  embedder: "));
        assert!(code == Some(1) && line.is_some_and(|line| line.contains(said)), "{stdout}");
        leaks::check(&stdout, "the doctor");
    }
    // And what works, with Redis.
    let redis = RedisServer::start().await;
    let (code, stdout, stderr) =
        run(program().arg("doctor").args(settings(&api.url, &["--redis-url", &redis.url()]))).await;
    assert_eq!(code, Some(0), "{stdout}{stderr}");
    for line in ["ok    embedder: a-model, 64 dimensions, ", "ok    Redis: first answer after "] {
        assert!(stdout.contains(line), "{stdout}");
    }
    let nowhere = ["--embedder", "off", "--redis-url", "redis://me:hunter2@127.0.0.1:1/"];
    let (code, stdout, _) = run(program().arg("doctor").args(nowhere)).await;
    assert!(code == Some(1) && stdout.contains("FAIL  Redis: does not answer"), "{stdout}");
    leaks::check(&stdout, "the doctor");
}
