//! Redis as it is in production: a cluster, some of whose servers go, and a server that is reached by TLS only.

use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use evidence_gateway::http::viewer::Access;

use crate::cache::{CACHED, catch_up, post};
use crate::harness::{Database, Gateway};
use crate::redis::RedisCluster;

fn document(n: usize) -> String {
    format!("{{ tasks(first: {n}) {{ nodes {{ id }} }} }}")
}

/// What `cache …` prints, or that it failed.
fn run(arguments: &[&str], url: &str, environment: &[(&str, &str)]) -> Result<String, String> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_evidence-gateway"));
    command.arg("cache").args(arguments).args(["--redis-url", url]).envs(environment.iter().copied());
    let Output { status, stdout, stderr } = command.output().unwrap();
    let text = String::from_utf8([stdout, stderr].concat()).unwrap();
    if status.success() { Ok(text) } else { Err(text) }
}

#[tokio::test]
async fn a_cluster_is_shared_and_may_lose_a_server() {
    let database = Database::sample().await;
    let mut cluster = RedisCluster::start().await;
    let url = cluster.url();
    let settings = [&CACHED[..], &["--redis-url", &url]].concat();
    let one = Gateway::start(&database.url, &settings, Access::Everyone).await;
    let other = Gateway::start(&database.url, &settings, Access::Everyone).await;
    catch_up(&one).await;
    catch_up(&other).await;
    for n in 1..=30 {
        assert_eq!(post(&one, &document(n), &[]).await.came(), "absent");
    }
    let begun = Instant::now();
    while cluster.sizes().iter().sum::<u64>() < 30 {
        assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", cluster.sizes());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(cluster.sizes().iter().all(|keys| *keys > 0), "{:?}", cluster.sizes());
    for n in 1..=30 {
        assert_eq!(post(&other, &document(n), &[]).await.came(), "redis");
    }
    let stats = run(&["stats"], &url, &[]).unwrap();
    assert!(stats.contains("30"), "{stats}");
    // Processes hear of a purge through any server.
    run(&["purge", "--all"], &url, &[]).unwrap();
    assert_eq!(cluster.sizes().iter().sum::<u64>(), 0);
    let begun = Instant::now();
    while post(&one, &document(1), &[]).await.came() == "hit" {
        assert!(begun.elapsed() < Duration::from_secs(10));
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    // Without one of them every request is answered, and none waits for long.
    cluster.kill(1);
    let begun = Instant::now();
    let mut hits = 0;
    for n in 31..=80 {
        assert_eq!(post(&one, &document(n), &[]).await.status, 200);
        hits += u32::from(post(&one, &document(n), &[]).await.came() == "hit");
    }
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    // Who heard of purges from the server that went forgets everything when it hears from another one.
    assert!(hits >= 48, "{hits} of 50");
    // The others go on.
    let begun = Instant::now();
    let mut n = 100;
    while cluster.sizes().contains(&0) {
        assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", cluster.sizes());
        n += 1;
        post(&one, &format!("query Q{n} {{ tasks(first: 1) {{ nodes {{ id }} }} }}"), &[]).await;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Makes a certificate for `localhost` that signs itself.
fn certificate(dir: &Path) {
    let mut command = Command::new("openssl");
    command.args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", "key.pem", "-out", "cert.pem"]);
    command.args(["-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]);
    command.args(["-addext", "basicConstraints=critical,CA:FALSE"]);
    assert!(command.current_dir(dir).stderr(Stdio::null()).status().unwrap().success());
}

#[tokio::test]
async fn a_server_behind_tls_is_believed_if_its_certificate_is() {
    let dir = tempfile::tempdir().unwrap();
    certificate(dir.path());
    let held = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = held.local_addr().unwrap().port().to_string();
    drop(held);
    let mut command = Command::new("redis-server");
    command.args([
        "--port",
        "0",
        "--tls-port",
        &port,
        "--tls-cert-file",
        "cert.pem",
        "--tls-key-file",
        "key.pem",
    ]);
    command.args(["--tls-auth-clients", "no", "--save", "", "--requirepass", "secret"]);
    command.current_dir(dir.path()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut server = command.spawn().unwrap();
    let trusted = dir.path().join("cert.pem");
    let trusting = [("SSL_CERT_FILE", trusted.to_str().unwrap())];
    let url = format!("rediss://:secret@localhost:{port}");
    let begun = Instant::now();
    while let Err(text) = run(&["stats"], &url, &trusting) {
        assert!(begun.elapsed() < Duration::from_secs(10), "{text}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let wrong = [
        (url.clone(), &[][..]),
        (url.replace("rediss", "redis"), &trusting[..]),
        (url.replace("secret", "another"), &trusting[..]),
        (url.replace("localhost", "127.0.0.1"), &trusting[..]),
    ];
    for (url, environment) in wrong {
        let text = run(&["stats"], &url, environment).unwrap_err();
        assert!(!text.contains("secret") && !text.contains("another"), "{text}");
    }
    server.kill().unwrap();
    server.wait().unwrap();
}
