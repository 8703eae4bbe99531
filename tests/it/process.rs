//! Gateways in processes of their own, which can be killed.

use std::process::{Child, Command, Stdio};

use crate::leaks;

/// `serve`, running.
pub(crate) struct Process {
    child: Child,
    pub(crate) url: String,
}

impl Process {
    /// Starts it and waits until it serves.
    pub(crate) fn start(command: Command) -> Self {
        Self::try_start(command).unwrap()
    }

    /// The same; `None` if it ends before it serves.
    pub(crate) fn try_start(mut command: Command) -> Option<Self> {
        let mut child = command.stdin(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = leaks::lines(child.stderr.take().unwrap());
        let Some(url) = lines.find_map(|line| line.strip_prefix("serving on ").map(str::to_owned)) else {
            child.wait().unwrap();
            return None;
        };
        std::thread::spawn(move || lines.for_each(|line| println!("{line}")));
        Some(Self { child, url })
    }

    /// Tells it to end, and does not wait for it.
    pub(crate) fn terminate(&self) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    }

    /// Ends it at once, whatever it is doing.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Waits until it has ended by itself, and gives its exit code.
    pub(crate) fn wait(&mut self) -> Option<i32> {
        self.child.wait().unwrap().code()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}
