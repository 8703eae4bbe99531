//! The program as people start it: what it says about wrong settings, and what it never says.

use std::process::{Command, Output, Stdio};

use evidence_gateway::graphql::Graph;
use serde_json::{Value, json};

use crate::harness::{SECRET, config, sample_url, secret};
use crate::leaks;

/// The program, with nothing of this process's environment that could set something.
pub(crate) fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_evidence-gateway"));
    command.env_clear().env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
    command.stdin(Stdio::null()).current_dir(env!("CARGO_MANIFEST_DIR"));
    command
}

pub(crate) fn output(command: &mut Command) -> (Option<i32>, String, String) {
    let Output { status, stdout, stderr } = command.output().unwrap();
    let stderr = String::from_utf8(stderr).unwrap();
    leaks::check(&stderr, "a program's stderr");
    (status.code(), String::from_utf8(stdout).unwrap(), stderr)
}

/// One line: the setting, its variable, the value, what is allowed.
#[test]
fn a_wrong_setting_is_one_line() {
    let integer = "allowed is a whole number from";
    for (flag, value, allowed) in [
        ("--listen", "everywhere", "allowed is an address with a port"),
        ("--listen", "localhost:8080", "allowed is an address with a port"),
        ("--identity-cache-ms", "10001", "allowed is a whole number from 0 to 10000"),
        ("--pool-size", "0", "allowed is a whole number from 1 to 500"),
        ("--pool-size", "many", integer),
        ("--pool-wait-ms", "9", integer),
        ("--request-timeout-ms", "-1", integer),
        ("--max-body-bytes", "1e9", integer),
        ("--max-page-size", "10001", integer),
        ("--grace-ms", "600001", integer),
        ("--max-connections", "0", integer),
        ("--max-header-bytes", "8191", integer),
        ("--header-timeout-ms", "99", integer),
        ("--body-timeout-ms", "99", integer),
        ("--idle-timeout-ms", "99", integer),
        ("--cors-origins", "https://app.example/", "allowed are * or origins"),
        ("--cors-origins", "app.example", "allowed are * or origins"),
        ("--log-format", "xml", "allowed is one of text, json"),
        ("--qdrant-collection", "a/b", "allowed are letters, digits, - and _"),
        ("--qdrant-shards", "0", integer),
        ("--qdrant-replication-factor", "17", integer),
        ("--qdrant-quantization", "product", "allowed is one of none, scalar, binary"),
        ("--qdrant-timeout-ms", "49", integer),
        ("--qdrant-write-timeout-ms", "600001", integer),
        ("--embedder", "gpt", "allowed is one of minilm, http, off"),
        ("--embedder-dimensions", "0", integer),
        ("--embedder-batch", "2049", integer),
        ("--embedder-timeout-ms", "99", integer),
        ("--embedder-queue", "0", integer),
        ("--embedder-model", "a b", "without spaces"),
    ] {
        let variable = format!("EVIDENCE_GATEWAY_{}", flag[2..].to_uppercase().replace('-', "_"));
        let expected = format!("{flag} ({variable}) cannot be {value:?}: ");
        for command in [
            program().arg(format!("{flag}={value}")).arg("serve"),
            program().env(&variable, value).arg("serve"),
        ] {
            let (code, stdout, stderr) = output(command);
            assert_eq!((code, stdout.as_str(), stderr.lines().count()), (Some(2), "", 1), "{stderr}");
            assert!(stderr.starts_with(&expected) && stderr.contains(allowed), "{stderr}");
        }
    }
    // An address may have a password in it.
    let (code, _, stderr) = output(program().args(["serve", "--qdrant-url", "http://me:hidden@host:6334"]));
    assert_eq!((code, stderr.lines().count()), (Some(2), 1), "{stderr}");
    assert!(stderr.contains("allowed is an address such as") && !stderr.contains("hidden"), "{stderr}");
    let (code, _, stderr) = output(program().args(["schema", "--log", "a=b=c"]));
    assert_eq!((code, stderr.lines().count()), (Some(1), 1), "{stderr}");
    assert!(stderr.starts_with("--log (EVIDENCE_GATEWAY_LOG)"), "{stderr}");
}

/// Only settings have variables.
#[test]
fn a_wrong_option_names_no_variable() {
    let (code, _, stderr) = output(program().args(["token", "--role", "root"]));
    let line = "--role cannot be \"root\": allowed is one of viewer, analyst, agent, admin\n";
    assert_eq!((code, stderr.as_str()), (Some(2), line));
}

#[test]
fn what_is_missing_is_one_line() {
    for (line, named) in [
        (&["serve"][..], "--token-secret (EVIDENCE_GATEWAY_TOKEN_SECRET) is missing"),
        (&["serve", "--token-secret", SECRET], "--database-url (EVIDENCE_GATEWAY_DATABASE_URL) is missing"),
        (&["migrate"], "--database-url (EVIDENCE_GATEWAY_DATABASE_URL) is missing"),
        (&["token", "--role", "admin"], "--token-secret (EVIDENCE_GATEWAY_TOKEN_SECRET) is missing"),
        (&["dev", "--listen", "0.0.0.0:0"], "--listen 0.0.0.0:0 is not on loopback"),
    ] {
        let (code, stdout, stderr) = output(program().args(line));
        assert_eq!((code, stdout.as_str(), stderr.lines().count()), (Some(1), "", 1), "{stderr}");
        assert!(stderr.starts_with(named), "{stderr}");
    }
}

#[test]
fn secrets_are_never_printed() {
    let short = "hunter2hunter2";
    let url = "postgres://me:hunter2@127.0.0.1:1/db";
    for command in [
        program().env("EVIDENCE_GATEWAY_TOKEN_SECRET", short).arg("serve"),
        program().args(["serve", "--token-secret", short]),
        program().args(["serve", "--token-previous-secret", short]),
        program().args(["doctor", "--embedder", "off", "--database-url", url]),
        program().args(["serve", "--embedder-key", "hunter2 hunter2"]),
        program().args(["serve", "--embedder-url", "https://me:hunter2@127.0.0.1/v1"]),
        program().args(["serve", "--embedder-url", "https://127.0.0.1/v1?key=hunter2"]),
        program().args(["serve", "--redis-url", "http://me:hunter2@127.0.0.1/"]),
        program().args(["migrate", "--database-url", url]),
        program().args(["migrate", "--database-url", "nonsense hunter2 = "]),
        program().args(["migrate", "--database-url", "postgres://me:hunter2@host:port/db"]),
        program()
            .env("EVIDENCE_GATEWAY_TOKEN_SECRET", "hunter2".repeat(9))
            .env("EVIDENCE_GATEWAY_DATABASE_URL", url)
            .arg("--help"),
    ] {
        let (_, stdout, stderr) = output(command);
        assert!(!stdout.is_empty() || !stderr.is_empty());
        assert!(!stdout.contains("hunter2") && !stderr.contains("hunter2"), "{stdout}{stderr}");
    }
    let debugged = format!("{:?} {:?}", config(&["--token-secret", SECRET, "--database-url", url]), secret());
    assert!(
        !debugged.contains("hunter2") && !debugged.contains(SECRET) && debugged.contains("(secret)"),
        "{debugged}"
    );
}

#[test]
fn the_schema_is_committed() {
    let (code, stdout, _) = output(program().arg("schema"));
    assert!(code == Some(0) && stdout == Graph::sdl());
    assert_eq!(output(program().args(["schema", "--check"])).0, Some(0));
    let (code, _, stderr) = output(program().args(["schema", "--check", "--file", "README.md"]));
    assert_ne!((code, stderr.lines().count()), (Some(0), 1), "{stderr}");
    assert_eq!(output(program().args(["schema", "--check", "--file", "nothing.graphql"])).0, Some(1));
}

#[tokio::test]
async fn the_doctor_says_what_works() {
    let url = sample_url();
    let doctor = |url: &str| output(program().args(["doctor", "--embedder", "off", "--database-url", url]));
    let (code, stdout, stderr) = doctor(&url);
    assert_eq!((code, stdout.lines().count()), (Some(0), 6), "{stdout}{stderr}");
    assert!(stdout.lines().all(|line| line.starts_with("ok    ")), "{stdout}");
    let (code, stdout, _) = doctor("postgres://nobody@127.0.0.1:1/db");
    assert!(code == Some(1) && stdout.contains("FAIL  PostgreSQL"), "{stdout}");
}

/// `serve` in whole: it lets in who brings what `token` printed, and nobody else, and ends at SIGTERM.
#[tokio::test]
async fn serve_takes_the_tokens_that_token_prints() {
    let (code, token, _) = output(program().args(["token", "--role", "admin", "--token-secret", SECRET]));
    assert_eq!((code, token.trim().split('.').count()), (Some(0), 3));
    let mut serve = program();
    serve.args(["serve", "--listen", "127.0.0.1:0", "--embedder", "off", "--database-url", &sample_url()]);
    let mut serving =
        serve.env("EVIDENCE_GATEWAY_TOKEN_SECRET", SECRET).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = leaks::lines(serving.stderr.take().unwrap());
    let url = lines.find_map(|line| line.strip_prefix("serving on ").map(str::to_owned)).unwrap();
    let ask = async |token: Option<&str>| {
        let mut request = reqwest::Client::new().post(format!("{url}/graphql"));
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        let response = request.json(&json!({"query": "{ agents { totalCount } }"})).send().await.unwrap();
        (response.status().as_u16(), response.json::<Value>().await.unwrap())
    };
    assert_eq!(ask(None).await.0, 401);
    assert_eq!(ask(Some(token.trim())).await, (200, json!({"data": {"agents": {"totalCount": 10}}})));
    Command::new("kill").arg(serving.id().to_string()).status().unwrap();
    assert_eq!(serving.wait().unwrap().code(), Some(0));
    lines.for_each(drop);
}
