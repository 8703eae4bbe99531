//! The fuzzer's targets over what is known to be interesting: every document of the tests and the console, hostile
//! requests, tokens and cursors, and thousands of mutations of them, the same ones in every run. `make fuzz` goes on
//! from there for as long as one likes.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::{Duration, Instant};

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use proptest::test_runner::{RngAlgorithm, TestRng, TestRunner};

use crate::limits::{hostile_bodies, hostile_documents};

#[path = "../../fuzz/targets.rs"]
mod targets;

/// How many mutations each target gets.
const MUTATIONS: u32 = 2_000;
/// One input's time, on a busy machine. Nothing that is within the limits takes a tenth of it.
const QUICKLY: Duration = Duration::from_secs(3);

/// What documents are made of, beyond what the seeds say.
const WORDS: &[&str] = &[
    "{",
    "}",
    "(",
    ")",
    "[",
    "]",
    "\"",
    "\"\"\"",
    "...",
    "$",
    "@skip(if: true)",
    "@include(if: $a)",
    "!",
    ":",
    "=",
    "|",
    "&",
    "#",
    ",",
    "null",
    "true",
    "-1",
    "9999999999999999999999",
    "1e400",
    "\u{0}",
    "\u{feff}",
    "\\u0000",
    "é",
    "\\uD800",
    "fragment A on Query { ...A }",
    "...A",
    "... on Agent",
    "__schema { types { name } }",
    "__typename",
    "query",
    "mutation { a }",
    "subscription { a }",
    "query Q($a: Int = 1)",
    "first: 200",
    "last: 3",
    "after: \"\"",
    "filter: {not: {}}",
    "order: [{field: ID}]",
    "id: \"00000000-0000-0000-0000-000000000000\"",
    "nodes",
    "edges {",
];

/// Files of the project's folders.
fn files(folders: &[&str]) -> Vec<Vec<u8>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let read = |folder: &&str| std::fs::read_dir(root.join(folder)).unwrap();
    let mut paths: Vec<_> = folders.iter().flat_map(read).map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths.retain(|path| path.is_file() && path.extension().is_none_or(|extension| extension != "snap"));
    paths.iter().map(|path| std::fs::read(path).unwrap()).collect()
}

fn documents() -> Vec<Vec<u8>> {
    let mut seeds = files(&["tests/it/cases", "web/examples", "fuzz/seeds/document"]);
    let hostile = hostile_documents().into_iter().chain(hostile_bodies());
    // What is large is refused for its size, and slow to mutate.
    seeds.extend(hostile.map(|(_, body, _)| body).filter(|body| body.len() < 20_000));
    seeds
}

/// One edit of a text: where, how much, and what comes there instead.
#[derive(Debug, Clone)]
enum Edit {
    Byte(Index, u8),
    Word(Index, &'static str),
    Cut(Index, usize),
    Repeat(Index, usize),
    Splice(Index, Index, Index),
}

fn edits() -> impl Strategy<Value = Vec<Edit>> {
    let edit = prop_oneof![
        (any::<Index>(), any::<u8>()).prop_map(|(at, byte)| Edit::Byte(at, byte)),
        (any::<Index>(), select(WORDS)).prop_map(|(at, word)| Edit::Word(at, word)),
        (any::<Index>(), 1..40_usize).prop_map(|(at, length)| Edit::Cut(at, length)),
        (any::<Index>(), 1..200_usize).prop_map(|(at, length)| Edit::Repeat(at, length)),
        (any::<Index>(), any::<Index>(), any::<Index>())
            .prop_map(|(at, seed, from)| Edit::Splice(at, seed, from)),
    ];
    vec(edit, 1..5)
}

fn apply(seeds: &[Vec<u8>], mut bytes: Vec<u8>, edits: &[Edit]) -> Vec<u8> {
    for edit in edits {
        let length = bytes.len();
        match edit {
            Edit::Byte(at, byte) if length > 0 => bytes[at.index(length)] = *byte,
            Edit::Word(at, word) => {
                let at = at.index(length + 1);
                bytes.splice(at..at, word.bytes());
            }
            Edit::Cut(at, n) => {
                let at = at.index(length + 1);
                bytes.drain(at..length.min(at + n));
            }
            Edit::Repeat(at, n) => {
                let at = at.index(length + 1);
                let part = bytes[at..length.min(at + n)].repeat(3);
                bytes.splice(at..at, part);
            }
            Edit::Splice(at, seed, from) => {
                let (at, seed) = (at.index(length + 1), seed.get(seeds));
                bytes.truncate(at);
                bytes.extend(&seed[from.index(seed.len() + 1)..]);
            }
            Edit::Byte(..) => {}
        }
    }
    bytes
}

/// Runs a target over the seeds and over mutations of them.
fn check(target: fn(&[u8]), seeds: &[Vec<u8>]) {
    let in_time = |bytes: &[u8]| {
        let begun = Instant::now();
        let ended = catch_unwind(AssertUnwindSafe(|| target(bytes)));
        let text = || String::from_utf8_lossy(&bytes[..bytes.len().min(2_000)]).into_owned();
        assert!(ended.is_ok() && begun.elapsed() < QUICKLY, "{:?}: {}", begun.elapsed(), text());
    };
    for seed in seeds {
        in_time(seed);
    }
    let config = ProptestConfig { cases: MUTATIONS, failure_persistence: None, ..ProptestConfig::default() };
    let mut runner = TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha));
    let begun = Instant::now();
    let mutated = (select(seeds.to_vec()), edits());
    let checked = runner.run(&mutated, |(seed, edits)| {
        in_time(&apply(seeds, seed, &edits));
        Ok(())
    });
    println!("{} seeds, {MUTATIONS} mutations in {:?}", seeds.len(), begun.elapsed());
    checked.unwrap();
}

#[test]
fn no_bytes_are_too_much_for_a_document() {
    check(targets::document, &documents());
}

#[test]
fn no_bytes_are_a_cursor_that_nobody_gave_out() {
    let mut seeds = files(&["fuzz/seeds/cursor"]);
    // A cell of each length, and cells that are NULL or longer than anything.
    seeds.extend((0..=24).map(|length| [&[7][..], &[length; 100]].concat()));
    seeds.extend([vec![], vec![255; 200], vec![1, 240, 241, 16]]);
    check(targets::cursor, &seeds);
}

#[test]
fn no_bytes_are_a_token_that_nobody_signed() {
    check(targets::token, &files(&["fuzz/seeds/token"]));
}
