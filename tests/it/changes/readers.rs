//! Reading processes: the program's `changes --follow`, killed at random moments and started again where its last
//! line said.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use serde_json::Value;
use uuid::Uuid;

use crate::changes::writers::Dice;
use crate::harness::SECRET;

/// A line of the program.
pub(super) struct Line {
    pub(super) cursor: String,
    pub(super) change: [String; 3],
}

/// What was read.
pub(super) struct Read {
    pub(super) lines: Vec<Line>,
    pub(super) kills: usize,
}

/// One reader, whose process changes.
pub(super) struct Reader {
    url: String,
    killed: bool,
    dice: Dice,
}

/// No change takes longer.
const PATIENCE: Duration = Duration::from_secs(60);

impl Reader {
    /// Killed again and again.
    pub(super) fn new(url: &str) -> Self {
        Self { url: url.to_owned(), killed: true, dice: Dice::new(7) }
    }

    /// Left alone.
    pub(super) fn steady(url: &str) -> Self {
        Self { killed: false, ..Self::new(url) }
    }

    /// Reads until this row comes.
    pub(super) fn read_until(mut self, last: Uuid) -> Read {
        let (mut read, begun) = (Read { lines: Vec::new(), kills: 0 }, Instant::now());
        loop {
            let (mut child, lines) = self.start(read.lines.last().map(|line| line.cursor.as_str()));
            // Also before its first line.
            let life = if self.killed { Duration::from_millis(20 + self.dice.below(600)) } else { PATIENCE };
            let killed_at = Instant::now() + life;
            let mut dead = false;
            loop {
                match lines.recv_timeout(killed_at.saturating_duration_since(Instant::now())) {
                    Ok(line) => read.lines.push(line),
                    Err(RecvTimeoutError::Timeout) if !dead => {
                        child.kill().unwrap();
                        (dead, read.kills) = (true, read.kills + 1);
                    }
                    // What it wrote before it died is read to the end.
                    Err(RecvTimeoutError::Timeout) => std::thread::sleep(Duration::from_millis(1)),
                    Err(RecvTimeoutError::Disconnected) => break,
                }
                if read.lines.last().is_some_and(|line| line.change[1] == last.to_string()) {
                    child.kill().unwrap();
                    child.wait().unwrap();
                    return read;
                }
            }
            assert!(dead, "the program ended by itself: {}", child.wait().unwrap());
            child.wait().unwrap();
            assert!(begun.elapsed() < PATIENCE, "the last change did not come");
        }
    }

    fn start(&self, after: Option<&str>) -> (Child, Receiver<Line>) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_evidence-gateway"));
        command.args(["--database-url", &self.url, "--token-secret", SECRET, "changes", "--follow"]);
        command.args(after.map(|cursor| ["--after", cursor]).iter().flatten());
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let (send, receive) = channel();
        std::thread::spawn(move || {
            let mut text = String::new();
            // Half a line is the end of a killed process, and was not printed.
            while stdout.read_line(&mut text).unwrap() > 0 && text.ends_with('\n') {
                let line: Value = serde_json::from_str(&text).unwrap();
                let member = |name: &str| line[name].as_str().unwrap_or_default().to_owned();
                let change = [member("entity"), member("id"), member("op")];
                if send.send(Line { cursor: member("cursor"), change }).is_err() {
                    break;
                }
                text.clear();
            }
        });
        (child, receive)
    }
}
