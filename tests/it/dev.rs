//! `dev`, as a person starts it: it brings its database along, keeps it, and leaves nothing running behind.

use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::{column, execute};
use crate::leaks;
use crate::settings::{output, program};

/// A running `dev`.
struct Dev {
    process: Child,
    url: String,
    database_url: String,
}

fn command(dir: &Path) -> Command {
    let mut command = program();
    command.args(["dev", "--embedder", "off", "--listen", "127.0.0.1:0", "--data-dir"]).arg(dir);
    command.stdout(Stdio::null()).stderr(Stdio::piped());
    command
}

impl Dev {
    async fn start(dir: &Path) -> Self {
        let begun = Instant::now();
        let file = dir.join("dev.json");
        if file.exists() {
            std::fs::remove_file(&file).unwrap();
        }
        let mut process = command(dir).spawn().unwrap();
        leaks::watch(process.stderr.take().unwrap());
        while !file.exists() {
            assert_eq!(process.try_wait().unwrap(), None, "dev ended by itself");
            assert!(begun.elapsed() < Duration::from_secs(60), "dev does not start");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let said: Value = serde_json::from_str(&std::fs::read_to_string(&file).unwrap()).unwrap();
        let text = |name: &str| said[name].as_str().unwrap().to_owned();
        println!("dev started in {:?}", begun.elapsed());
        Self { process, url: text("url"), database_url: text("database_url") }
    }

    async fn tasks(&self) -> Value {
        let request = reqwest::Client::new().post(format!("{}/graphql", self.url));
        let response = request.json(&json!({"query": "{ tasks { totalCount } }"})).send().await.unwrap();
        response.json::<Value>().await.unwrap()["data"]["tasks"]["totalCount"].take()
    }

    /// Ends it and waits until its PostgreSQL has ended too.
    async fn end(mut self, signal: &str, dir: &Path) -> ExitStatus {
        assert!(!servers_of(dir).is_empty());
        Command::new("kill").arg(format!("-{signal}")).arg(self.process.id().to_string()).status().unwrap();
        let status = self.process.wait().unwrap();
        let begun = Instant::now();
        while !servers_of(dir).is_empty() {
            assert!(begun.elapsed() < Duration::from_secs(10), "PostgreSQL outlives dev after SIG{signal}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        status
    }
}

/// Processes that name the folder in their command line.
fn servers_of(dir: &Path) -> Vec<u32> {
    let folder = dir.join("postgres");
    let named = |pid: &u32| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        line.split(|byte| *byte == 0).any(|argument| argument == folder.as_os_str().as_encoded_bytes())
    };
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).filter(named).collect()
}

#[tokio::test]
async fn dev_keeps_its_data_and_leaves_nothing_running() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().canonicalize().unwrap();
    let dev = Dev::start(&path).await;
    assert_eq!(dev.tasks().await, 1_204);
    execute(&dev.database_url, "create table kept as select now() as since").await;

    // Whoever comes second is told who is there.
    let (code, _, said) = output(&mut command(&path));
    let expected = format!("{} is already in use by process {}", path.display(), dev.process.id());
    assert!(code == Some(1) && said.contains(&expected), "{said}");
    assert_eq!(dev.tasks().await, 1_204);
    assert_eq!(dev.end("TERM", &path).await.code(), Some(0));

    let dev = Dev::start(&path).await;
    assert_eq!(column(&dev.database_url, "select count(*) from kept").await, ["1"]);
    assert_eq!(dev.tasks().await, 1_204);
    assert_eq!(dev.end("INT", &path).await.code(), Some(0));

    let dev = Dev::start(&path).await;
    dev.end("KILL", &path).await;
    let dev = Dev::start(&path).await;
    assert_eq!(
        (dev.tasks().await, column(&dev.database_url, "select count(*) from kept").await),
        (json!(1_204), vec!["1".to_owned()])
    );
    dev.end("TERM", &path).await;
}
