//! The gateway under load: the built program as a process of its own, so that its memory and its time are not the
//! clients'.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::SECRET;

/// A gateway.
pub(crate) struct Gateway {
    child: Child,
    pub(crate) address: SocketAddr,
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Gateway {
    pub(crate) fn start(database_url: &str, room: usize) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_evidence-gateway"));
        let room = room.to_string();
        command
            .args(["serve", "--listen", "127.0.0.1:0", "--database-url", database_url])
            .args(["--token-secret", SECRET, "--embedder", "off", "--log", "warn"])
            .args(["--max-connections", &room, "--max-sockets", &room, "--max-streams", &room]);
        let mut child = command.stdin(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
        let address = lines
            .find_map(|line| line.strip_prefix("serving on http://").map(|address| address.parse().unwrap()))
            .unwrap();
        // What it warns of; the first will do.
        std::thread::spawn(move || {
            lines.enumerate().filter(|(n, _)| *n < 3).for_each(|(_, line)| println!("  gateway: {line}"));
        });
        Self { child, address }
    }

    /// Of its process and of this one.
    fn proc(&self, file: &str) -> String {
        std::fs::read_to_string(format!("/proc/{}/{file}", self.child.id())).unwrap()
    }

    /// Bytes of memory that it holds, without those of its program. What the kernel buffers for its connections is not
    /// among them.
    pub(crate) fn memory(&self) -> f64 {
        let status = self.proc("status");
        let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<f64>().unwrap() * 1024.0
    }

    /// Seconds of CPU that it has used.
    pub(crate) fn cpu(&self) -> f64 {
        let stat = self.proc("stat");
        // After the name: state is the first, user and system time are the 12th and 13th, in hundredths.
        let fields: Vec<&str> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
        fields[11..13].iter().map(|ticks| ticks.parse::<f64>().unwrap()).sum::<f64>() / 100.0
    }

    async fn get(&self, path: &str, headers: &str) -> String {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n{headers}\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        text
    }

    /// Where the change log is.
    pub(crate) async fn cursor(&self, token: &str) -> String {
        let headers = format!("authorization: Bearer {token}\r\naccept: application/json\r\n");
        let text = self.get("/graphql?query=%7BchangeCursor%7D", &headers).await;
        let cursor = text.split_once(r#""changeCursor":""#).and_then(|(_, rest)| rest.split_once('"'));
        cursor.unwrap_or_else(|| panic!("{text}")).0.to_owned()
    }

    /// A value of its metrics; 0 if there is none yet.
    pub(crate) async fn metric(&self, name: &str) -> f64 {
        let text = self.get("/metrics", "").await;
        let full = format!("evidence_gateway_{name} ");
        text.lines().find_map(|line| line.strip_prefix(&full)?.parse().ok()).unwrap_or_default()
    }

    /// Waits until a value of its metrics is so.
    pub(crate) async fn until(&self, name: &str, wanted: impl Fn(f64) -> bool) {
        let begun = std::time::Instant::now();
        while !wanted(self.metric(name).await) {
            assert!(begun.elapsed() < Duration::from_secs(60), "{name} is {}", self.metric(name).await);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}
