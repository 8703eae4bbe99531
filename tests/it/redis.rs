//! A Redis server of a test's own, on a socket in a folder of its own.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

/// It stops when this is dropped.
pub(crate) struct RedisServer {
    dir: TempDir,
    child: Child,
}

impl RedisServer {
    pub(crate) async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let child = spawn(&dir);
        let server = Self { dir, child };
        server.wait().await;
        server
    }

    pub(crate) fn url(&self) -> String {
        format!("unix://{}/redis.sock", self.dir.path().display())
    }

    /// As if its machine lost power.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// It takes what is sent and answers nothing, until it is killed.
    pub(crate) fn freeze(&self) {
        let status = Command::new("kill").arg("-STOP").arg(self.child.id().to_string()).status();
        assert!(status.unwrap().success());
    }

    pub(crate) fn running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    pub(crate) async fn restart(&mut self) {
        self.child = spawn(&self.dir);
        self.wait().await;
    }

    /// What `redis-cli` prints.
    pub(crate) fn ask(&self, words: &[&str]) -> String {
        let socket = self.dir.path().join("redis.sock");
        let output = Command::new("redis-cli").arg("-s").arg(socket).args(words).output().unwrap();
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    async fn wait(&self) {
        while self.ask(&["ping"]) != "PONG" {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn spawn(dir: &TempDir) -> Child {
    let mut command = Command::new("redis-server");
    command.args(["--port", "0", "--save", "", "--appendonly", "no", "--unixsocket", "redis.sock"]);
    command.current_dir(dir.path()).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().unwrap()
}
