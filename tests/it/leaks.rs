//! What never leaves the gateway: every line of its log, every error that it answers with and every metric of every
//! test comes through here, and a secret, a statement or a stack in one of them ends the whole run.

use std::io::{BufRead, BufReader, Read, Write};
use std::sync::{LazyLock, Once};

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::Request;
use axum::middleware::{Next, from_fn};
use axum::response::Response;
use http_body_util::BodyExt;
use serde_json::Value;

/// The patterns, each in its parts; see the file.
static PATTERNS: LazyLock<Vec<Vec<&str>>> = LazyLock::new(|| {
    let lines = include_str!("../leaks.txt").lines();
    let patterns = lines.filter(|line| !line.is_empty() && !line.starts_with('#'));
    patterns.map(|pattern| pattern.split('*').collect()).collect()
});

/// The first line that says what it must not, and the pattern that it fits.
fn find(text: &str) -> Option<(String, String)> {
    text.lines().find_map(|line| {
        let lower = line.to_lowercase();
        let pattern = PATTERNS.iter().find(|parts| fits(&lower, parts))?;
        Some((pattern.join("*"), line.to_owned()))
    })
}

/// Whether the parts stand in the line, one after the other.
fn fits(line: &str, parts: &[&str]) -> bool {
    let mut rest = line.as_bytes();
    parts.iter().all(|part| {
        let same = |window: &[u8]| {
            window.iter().zip(part.bytes()).all(|(found, wanted)| wanted == b'?' || *found == wanted)
        };
        let at = rest.windows(part.len()).position(same);
        at.is_some_and(|at| {
            rest = &rest[at + part.len()..];
            true
        })
    })
}

/// Ends the run if the text says what it must not. Not by a panic: the text may come from a thread whose panic no
/// test would see, and after the last test that could look.
pub(crate) fn check(text: &str, from: &str) {
    if let Some((pattern, line)) = find(text) {
        // Past the capture of the tests' output.
        let said = format!("\n{from} leaks {pattern:?}:\n{line}\n");
        drop(std::io::stderr().write_all(said.as_bytes()));
        std::process::exit(101);
    }
}

/// Checks the log of this process, from now on.
pub(crate) fn watch_log() {
    struct Log;
    impl Write for Log {
        fn write(&mut self, line: &[u8]) -> std::io::Result<usize> {
            check(&String::from_utf8_lossy(line), "the log");
            Ok(line.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    static STARTED: Once = Once::new();
    STARTED.call_once(|| {
        let log = tracing_subscriber::fmt().with_env_filter("info,evidence_gateway=debug").with_ansi(false);
        // Where a line comes from is our own module's name; a library's would be its type.
        log.with_target(false).with_writer(|| Log).init();
    });
}

/// Checks what a program writes, line by line, while passing it on.
pub(crate) fn lines(output: impl Read) -> impl Iterator<Item = String> {
    BufReader::new(output).lines().map_while(Result::ok).inspect(|line| check(line, "a program's stderr"))
}

/// Checks what a program writes for as long as it writes.
pub(crate) fn watch(output: impl Read + Send + 'static) {
    std::thread::spawn(|| lines(output).for_each(drop));
}

/// Routes whose answers are checked: the errors of operations, and all of metrics and health.
pub(crate) fn watched(routes: Router) -> Router {
    routes.layer(from_fn(inspect))
}

async fn inspect(request: Request, next: Next) -> Response {
    let path = request.uri().path().to_owned();
    let response = next.run(request).await;
    let known = ["/graphql", "/graphql/stream", "/metrics", "/metrics/json", "/health/live", "/health/ready"];
    if !known.contains(&path.as_str()) || response.headers().contains_key("content-encoding") {
        return response;
    }
    let (parts, body) = response.into_parts();
    let kind = parts.headers.get("content-type").and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    if ["text/event-stream", "multipart/mixed"].iter().any(|endless| kind.starts_with(endless)) {
        // It has no end to wait for.
        let body = body.map_frame(|frame| {
            frame.data_ref().inspect(|data| check(&String::from_utf8_lossy(data), "an event"));
            frame
        });
        return Response::from_parts(parts, Body::new(body));
    }
    let bytes = to_bytes(body, usize::MAX).await.unwrap();
    match serde_json::from_slice::<Value>(&bytes) {
        // Rows may say anything.
        Ok(answer) if path.starts_with("/graphql") => {
            check(&answer["errors"].to_string(), "an answer's errors")
        }
        _ => check(&String::from_utf8_lossy(&bytes), &path),
    }
    Response::from_parts(parts, Body::from(bytes))
}

#[test]
fn what_must_not_be_said_is_found() {
    let jwt = crate::harness::token(&evidence_gateway::model::viewer::Viewer::admin());
    let key = format!("egk_{}_{}", "aB3-_xyz", "q".repeat(43));
    for leak in [
        crate::harness::SECRET,
        &jwt,
        &key,
        "cause=\"postgres://me:swordfish@db:5432/x\"",
        "Incorrect API key provided: sk-the-key-of-the-tests",
        "SELECT t.id FROM tasks t",
        "cause: Insert Into api_keys values ($1)",
        "update api_keys set last_used_at = now()",
        "with recursive walk as (",
        "thread 'main' panicked at src/graphql/plan.rs:12:5:",
        "stack backtrace:",
        "   0: rust_begin_unwind",
        "DatabaseError(Unknown, \"x\")",
        "tokio_postgres::error::Error",
        "fine\nerror: bb8::RunError\nfine",
        "GET /graphql?ticket=egt_aB3-_xyzaB3-_xyz",
    ] {
        assert!(find(leak).is_some(), "{leak}");
    }
    for fine in [
        "",
        "INFO request: id=019 method=\"POST\" route=\"/graphql\" status=200 ms=1.5 viewer=\"admin\"",
        "a field failed code=\"INTERNAL\" cause=\"a handler panicked: a reason\"",
        "cause=\"relation \\\"api_keys\\\" does not exist\"",
        "egk_aB3-_xyz is revoked",
        "PostgreSQL is not available; try again later",
        "evidence_gateway_request_seconds_bucket{type=\"query\",le=\"0.005\"} 0",
    ] {
        assert_eq!(find(fine), None, "{fine}");
    }
}
