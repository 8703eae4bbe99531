//! How `changes --follow` ends.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use uuid::Uuid;

use crate::changes::writers;
use crate::harness::{Database, SECRET, execute};

/// Waits until the program has ended, and gives its exit code and what it said on stderr.
fn end(mut child: Child, limit: Duration) -> (Option<i32>, String) {
    let begun = Instant::now();
    let status = loop {
        match child.try_wait().unwrap() {
            Some(status) => break status,
            None if begun.elapsed() > limit => {
                child.kill().unwrap();
                panic!("the program is still there after {limit:?}");
            }
            None => std::thread::sleep(Duration::from_millis(5)),
        }
    };
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    (status.code(), said)
}

fn follow(url: &str) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_evidence-gateway"));
    command.args(["--database-url", url, "--token-secret", SECRET, "changes", "--follow"]);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// By SIGINT at once and without an error, also if nobody reads what it has to say; and quietly, when its reader goes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn following_ends_when_it_is_told_to() {
    let database = Database::empty().await;
    let url = &database.url;
    writers::prepare(url).await;
    let soon = Duration::from_secs(2);
    let interrupt = |child: &Child| {
        let pid = child.id().to_string();
        assert!(Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
    };
    let first_line = |child: &mut Child| {
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        stdout.read_line(&mut line).unwrap();
        assert!(line.starts_with('{'), "{line}");
        stdout
    };
    let mut waiting = follow(url);
    let stdout = first_line(&mut waiting);
    interrupt(&waiting);
    assert_eq!(end(waiting, soon), (Some(0), String::new()));
    drop(stdout);

    let mut left = follow(url);
    drop(first_line(&mut left));
    execute(url, &writers::evidence(Uuid::now_v7(), 0)).await;
    assert_eq!(end(left, soon), (Some(0), String::new()));

    // More than a pipe holds.
    execute(url, &writers::many_evidences(3_000)).await;
    let mut stuck = follow(url);
    let stdout = first_line(&mut stuck);
    tokio::time::sleep(Duration::from_millis(200)).await;
    interrupt(&stuck);
    assert_eq!(end(stuck, soon), (Some(0), String::new()));
    drop(stdout);
}
