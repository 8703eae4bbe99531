//! House rules, kept by a test: which layer may know which, what may be named where, and how long a file may be.
//! ARCHITECTURE.md says why.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::fmt::Write;
use std::path::Path;

/// Lines of a file at most; `schema.rs` is written by diesel.
const MAX_LINES: usize = 450;

/// What each layer may import, itself aside. `main.rs` and `lib.rs` are the map and not of it.
const LAYERS: &[(&str, &[&str])] = &[
    ("cli", &["app", "http", "changes", "graphql", "model", "store", "config", "error", "telemetry"]),
    (
        "app",
        &["http", "live", "changes", "graphql", "cache", "model", "store", "config", "error", "telemetry"],
    ),
    ("http", &["app", "live", "graphql", "cache", "model", "store", "config", "error", "telemetry"]),
    ("live", &["app", "changes", "graphql", "cache", "model", "store", "config", "error", "telemetry"]),
    ("changes", &["app", "graphql", "cache", "model", "store", "config", "error", "telemetry"]),
    ("graphql", &["cache", "model", "store", "config", "error", "telemetry"]),
    ("cache", &["model", "store", "config", "error", "telemetry"]),
    ("model", &["schema", "store", "config", "error", "telemetry"]),
    ("store", &["config", "error", "telemetry"]),
    ("telemetry", &["config", "error"]),
    ("config", &["error"]),
    ("error", &[]),
    ("schema", &[]),
];

/// Words, and the beginnings of the paths where alone they may stand.
const WORDS: &[(&str, &[&str])] = &[
    // The import brings rows of any size in and speaks of diesel's errors; nothing else above `model` does.
    ("diesel", &["src/model", "src/store", "src/schema.rs", "src/lib.rs", "src/cli/import"]),
    ("bb8", &["src/store"]),
    ("tokio_postgres", &["src/store"]),
    // The log's filter names it because its own lines are noise.
    ("qdrant_edge", &["src/store", "src/telemetry.rs"]),
    ("qdrant_client", &["src/store"]),
    ("candle_core", &["src/store"]),
    ("candle_nn", &["src/store"]),
    ("redis::", &["src/store"]),
    ("reqwest", &["src/store/embedder/http.rs", "src/config/embedder.rs"]),
    // `serve` cannot let everyone in: nothing but `dev` can say so. Whose rows are read is decided where viewers are
    // made; the indexer reads everyone's, as the index serves everyone.
    ("Access::Everyone", &["src/cli/dev.rs", "src/http/viewer.rs"]),
    ("Viewer::admin()", &["src/model/viewer.rs", "src/model/searched.rs", "src/http/viewer.rs"]),
    // The model's own tests take a folder from the environment, as cargo hands no settings to tests.
    ("env::var", &["src/config.rs", "src/store/embedder/minilm/tests.rs"]),
];

/// How a statement begins.
const STATEMENTS: &[&str] =
    &["\"select ", "\"insert into ", "\"update ", "\"delete from ", "\"with recursive "];

struct Source {
    /// From the project's root.
    path: String,
    text: String,
}

impl Source {
    /// `src/graphql/plan.rs` → `graphql`
    fn layer(&self) -> Option<&str> {
        self.path.strip_prefix("src/")?.split(['/', '.']).next()
    }

    fn lines(&self) -> impl Iterator<Item = (usize, &str)> {
        self.text.lines().enumerate().map(|(n, line)| (n + 1, line))
    }
}

/// The files with an extension, below a folder of the project.
fn sources(folder: &str, extensions: &[&str]) -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    let mut folders = vec![root.join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if path.is_dir() {
                if !["target", "node_modules", "dist", "artifacts"].contains(&name.as_str())
                    && !name.starts_with('.')
                {
                    folders.push(path);
                }
            } else if path.extension().is_some_and(|end| extensions.iter().any(|known| end == *known)) {
                let text = std::fs::read_to_string(&path).unwrap();
                found.push(Source {
                    path: path.strip_prefix(root).unwrap().to_str().unwrap().to_owned(),
                    text,
                });
            }
        }
    }
    assert!(!found.is_empty(), "there is nothing in {folder}");
    found
}

/// Fails with everything that is wrong, one per line.
fn check(files: &[Source], rule: impl Fn(&Source, &mut String)) {
    let mut wrong = String::new();
    for file in files {
        rule(file, &mut wrong);
    }
    assert!(wrong.is_empty(), "\n{wrong}");
}

#[test]
fn imports_go_one_way() {
    check(&sources("src", &["rs"]), |file, wrong| {
        if ["src/main.rs", "src/lib.rs"].contains(&file.path.as_str()) {
            return;
        }
        let layer = file.layer().unwrap();
        let Some((_, allowed)) = LAYERS.iter().find(|(name, _)| *name == layer) else {
            writeln!(wrong, "{}: the layer {layer} is not one of DESIGN's", file.path).unwrap();
            return;
        };
        for (n, line) in file.lines() {
            for (at, _) in line.match_indices("crate::") {
                let rest = &line[at + "crate::".len()..];
                let name: String =
                    rest.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect();
                if name != layer && !allowed.contains(&name.as_str()) {
                    writeln!(wrong, "{}:{n}: {layer} may not know {name}: {}", file.path, line.trim())
                        .unwrap();
                }
            }
        }
    });
}

#[test]
fn words_stand_where_they_belong() {
    check(&sources("src", &["rs"]), |file, wrong| {
        for (n, line) in file.lines().filter(|(_, line)| !line.trim_start().starts_with("//")) {
            for (word, places) in WORDS {
                // Our own module may have the driver's name.
                let foreign = line.replace("store::redis::", "");
                if foreign.contains(word) && !places.iter().any(|place| file.path.starts_with(place)) {
                    writeln!(wrong, "{}:{n}: {word} has no business here: {}", file.path, line.trim())
                        .unwrap();
                }
            }
            let sql = STATEMENTS.iter().any(|statement| line.to_lowercase().contains(statement));
            if sql && !["src/model", "src/store"].iter().any(|place| file.path.starts_with(place)) {
                writeln!(wrong, "{}:{n}: SQL stands in model and store: {}", file.path, line.trim()).unwrap();
            }
        }
    });
}

#[test]
fn files_begin_with_what_they_are_and_end_in_time() {
    let files: Vec<Source> =
        ["src", "tests", "fuzz"].into_iter().flat_map(|folder| sources(folder, &["rs"])).collect();
    check(&files, |file, wrong| {
        if file.path == "src/schema.rs" {
            return;
        }
        if !file.text.starts_with("//! ") {
            writeln!(wrong, "{}: no header says what it is", file.path).unwrap();
        }
        let lines = file.text.lines().count();
        if lines > MAX_LINES {
            writeln!(wrong, "{}: {lines} lines are more than {MAX_LINES}", file.path).unwrap();
        }
    });
}

/// Nothing is put off, and nothing knows the machine on which it was written.
#[test]
fn nothing_is_left_lying_about() {
    let put_off = [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X:")];
    let machine = [concat!("/wo", "rk/"), concat!("/ro", "ot/"), concat!("/ho", "me/")];
    let texts = ["rs", "ts", "tsx", "js", "md", "sql", "toml", "graphql", "html", "css"];
    let folders = ["src", "tests", "fuzz", "migrations", "web", "docs"];
    let files: Vec<Source> = folders.into_iter().flat_map(|folder| sources(folder, &texts)).collect();
    check(&files, |file, wrong| {
        for (n, line) in file.lines() {
            for word in put_off.iter().chain(&machine).filter(|word| line.contains(**word)) {
                writeln!(wrong, "{}:{n}: {word}", file.path).unwrap();
            }
        }
    });
}
