//! The consistency checker itself, for a short time: it finds nothing wrong, and it would.

use std::process::{Command, Output};

fn check(options: &[&str]) -> (bool, String) {
    let dir = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_evidence-gateway"));
    // A folder as one types it.
    command.arg("check-consistency").args(options).args(["--data-dir", "here"]).current_dir(dir.path());
    let Output { status, stdout, stderr } = command.output().unwrap();
    (status.success(), String::from_utf8([stdout, stderr].concat()).unwrap())
}

#[test]
fn no_answer_is_older_than_it_may_be_while_servers_are_killed() {
    let (fine, text) = check(&["--for", "16", "--faults"]);
    assert!(fine && text.contains("\n0 answers that cannot have been"), "{text}");
    assert!(!text.contains(", 0 from the cache"), "{text}");
}

#[test]
fn it_notices_when_nobody_looks_whether_answers_hold() {
    let (fine, text) = check(&["--for", "4", "--cache-trust-everything"]);
    assert!(!fine && text.contains("answers that cannot have been"), "{text}");
}
