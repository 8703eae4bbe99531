//! A Redis server of a test's own, on a socket in a folder of its own.

use std::net::TcpListener;
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

/// A cluster of three servers on ports of this machine.
pub(crate) struct RedisCluster {
    nodes: Vec<(u16, Child, TempDir)>,
}

impl RedisCluster {
    pub(crate) async fn start() -> Self {
        let held: Vec<_> = (0..6).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
        let ports: Vec<u16> = held.iter().map(|held| held.local_addr().unwrap().port()).collect();
        drop(held);
        let start = |ports: &[u16]| {
            let dir = tempfile::tempdir().unwrap();
            let [port, bus] = [ports[0], ports[1]].map(|port| port.to_string());
            let mut command = Command::new("redis-server");
            command.args(["--port", &port, "--cluster-port", &bus, "--bind", "127.0.0.1", "--save", ""]);
            command.args(["--cluster-enabled", "yes", "--cluster-require-full-coverage", "no"]);
            command.current_dir(dir.path()).stdout(Stdio::null()).stderr(Stdio::null());
            (ports[0], command.spawn().unwrap(), dir)
        };
        let cluster = Self { nodes: ports.chunks(2).map(start).collect() };
        let nodes: Vec<String> = cluster.nodes.iter().map(|(port, ..)| format!("127.0.0.1:{port}")).collect();
        loop {
            let mut command = Command::new("redis-cli");
            command.args(["--cluster", "create"]).args(&nodes).args([
                "--cluster-replicas",
                "0",
                "--cluster-yes",
            ]);
            // Until the last of them listens.
            if command.output().unwrap().status.success() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        while !cluster.ask(0, &["cluster", "info"]).contains("cluster_state:ok") {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        cluster
    }

    /// All addresses.
    pub(crate) fn url(&self) -> String {
        let urls: Vec<String> =
            self.nodes.iter().map(|(port, ..)| format!("redis://127.0.0.1:{port}")).collect();
        urls.join(",")
    }

    /// What `redis-cli` prints at one of the servers.
    pub(crate) fn ask(&self, node: usize, words: &[&str]) -> String {
        let port = self.nodes[node].0.to_string();
        let output = Command::new("redis-cli").args(["-p", &port]).args(words).output().unwrap();
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    /// How many keys each of the running servers has.
    pub(crate) fn sizes(&self) -> Vec<u64> {
        (0..self.nodes.len()).filter_map(|node| self.ask(node, &["dbsize"]).parse().ok()).collect()
    }

    pub(crate) fn kill(&mut self, node: usize) {
        let (_, child, _) = &mut self.nodes[node];
        child.kill().unwrap();
        child.wait().unwrap();
    }
}

impl Drop for RedisCluster {
    fn drop(&mut self) {
        for (_, child, _) in &mut self.nodes {
            drop(child.kill());
            drop(child.wait());
        }
    }
}
