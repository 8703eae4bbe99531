//! The index follows the table: whatever is written by whomever, in a folder and on a server, whoever dies meanwhile.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use evidence_gateway::http::viewer::Access;
use evidence_gateway::model::viewer::Viewer;
use evidence_gateway::store::vectors::Vectors;
use serde_json::json;
use uuid::Uuid;

use crate::embedder::api::{Api, DIMENSION, REFUSED, vector};
use crate::embedder::settings as endpoint;
use crate::harness::{Database, Gateway, SECRET, column, execute, folder, secret, texts};
use crate::process::Process;
use crate::qdrant::{API_KEY, TestQdrant};
use crate::settings::{output, program};

mod killed;
mod rebuilt;

const PROJECT: &str = "00000000-0000-7000-8000-00000000000a";

/// A database with a project, an embedding endpoint, and a place for an index.
struct World {
    database: Database,
    api: Api,
    dir: PathBuf,
    model: &'static str,
    server: Option<TestQdrant>,
}

impl World {
    async fn new(server: Option<TestQdrant>) -> Self {
        let database = Database::empty().await;
        let project = format!("insert into projects (id, slug, name) values ('{PROJECT}', 'p', 'P')");
        execute(&database.url, &project).await;
        Self { database, api: Api::start(&[]).await, dir: folder(), model: "a-model", server }
    }

    async fn both() -> [Self; 2] {
        [Self::new(None).await, Self::new(Some(TestQdrant::start().await)).await]
    }

    fn url(&self) -> &str {
        &self.database.url
    }

    /// The settings of its embedder and its index.
    fn settings(&self) -> Vec<String> {
        let dimensions = DIMENSION.to_string();
        let mut settings = endpoint(&self.api.url, &["--embedder-dimensions", &dimensions]);
        settings.extend(["--data-dir", self.dir.to_str().unwrap()]);
        let url = self.server.as_ref().map(TestQdrant::url);
        if let Some(url) = &url {
            settings.extend(["--qdrant-url", url, "--qdrant-api-key", API_KEY]);
        }
        settings.into_iter().map(|setting| setting.replace("a-model", self.model)).collect()
    }

    /// A gateway in this process.
    async fn gateway(&self) -> Gateway {
        let settings = self.settings();
        let settings: Vec<&str> = settings.iter().map(String::as_str).collect();
        let gateway = Gateway::start(self.url(), &settings, Access::Tokens(secret())).await;
        gateway.keeping(&Viewer::admin())
    }

    /// A gateway in a process of its own.
    fn process(&self) -> Process {
        let mut command = program();
        command.args(["serve", "--listen", "127.0.0.1:0", "--database-url", self.url()]);
        command.args(["--token-secret", SECRET, "--log", "error"]).args(self.settings());
        Process::start(command)
    }

    /// Runs another command of the program.
    async fn command(&self, arguments: &[&str]) -> (Option<i32>, String, String) {
        let mut command = program();
        command.args(arguments).args(["--database-url", self.url(), "--token-secret", SECRET]);
        command.args(self.settings());
        tokio::task::spawn_blocking(move || output(&mut command)).await.unwrap()
    }

    /// How often a text was embedded, among many.
    fn embedded(&self, text: &str) -> usize {
        self.api.texts().iter().flatten().filter(|embedded| embedded.contains(text)).count()
    }
}

type Rows = BTreeMap<Uuid, i32>;

/// What the index should have.
async fn table(url: &str) -> Rows {
    let rows = texts(url, "select id, version from evidence where deleted_at is null").await;
    rows.into_iter()
        .map(|row| (row[0].as_ref().unwrap().parse().unwrap(), row[1].as_ref().unwrap().parse().unwrap()))
        .collect()
}

/// What the index has.
async fn index(vectors: &Vectors) -> evidence_gateway::error::Result<Rows> {
    let mut all = Rows::new();
    loop {
        let page = vectors.scroll(all.last_key_value().map(|(id, _)| *id), 1_000).await?;
        if page.is_empty() {
            return Ok(all);
        }
        all.extend(page);
    }
}

/// Rows that one of the two lacks or has in another version.
fn differences(table: &Rows, index: &Rows) -> Vec<(Uuid, Option<i32>, Option<i32>)> {
    let ids = table.keys().chain(index.keys().filter(|id| !table.contains_key(id)));
    let both = ids.map(|id| (*id, table.get(id).copied(), index.get(id).copied()));
    both.filter(|(_, table, index)| table != index).collect()
}

/// Waits until index and table agree, row by row and version by version, and says how long that took.
async fn agree(url: &str, vectors: &Vectors) -> Duration {
    let begun = Instant::now();
    loop {
        let (table, index) = (table(url).await, index(vectors).await);
        let differences = index.map(|index| differences(&table, &index));
        if differences.as_ref().is_ok_and(Vec::is_empty) {
            return begun.elapsed();
        }
        assert!(begun.elapsed() < Duration::from_secs(60), "(row, table, index): {differences:?}");
        tokio::time::sleep(Duration::from_millis(40)).await;
    }
}

/// Waits until every vector is that of the row's present text.
async fn vectors_are_right(url: &str, vectors: &Vectors) {
    let begun = Instant::now();
    while let Some(wrong) = wrong_vector(url, vectors).await {
        assert!(begun.elapsed() < Duration::from_secs(60), "{wrong}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// A row with another vector than its text has.
async fn wrong_vector(url: &str, vectors: &Vectors) -> Option<String> {
    let rows = texts(url, "select id, title, content from evidence where deleted_at is null").await;
    for rows in rows.chunks(500) {
        let cell = |row: &[Option<String>], n: usize| row[n].clone().unwrap();
        let ids: Vec<Uuid> = rows.iter().map(|row| cell(row, 0).parse().unwrap()).collect();
        let found = vectors.vectors(&ids).await.unwrap();
        for (id, row) in ids.iter().zip(rows) {
            let text = format!("{}\n{}", cell(row, 1), cell(row, 2));
            let wanted = vector(&text);
            let norm = wanted.iter().map(|number| number * number).sum::<f32>().sqrt();
            let same = |found: &Vec<f32>| {
                found.iter().zip(&wanted).all(|(found, wanted)| (found - wanted / norm).abs() < 1e-4)
            };
            if !found.get(id).is_some_and(same) {
                return Some(format!("{id}: {text}"));
            }
        }
    }
    None
}

fn insert(id: Uuid, content: &str) -> String {
    format!(
        "insert into evidence (id, project_id, title, content, source_type) \
         values ('{id}', '{PROJECT}', 'A piece', '{content}', 'log')"
    )
}

async fn metric(url: &str, name: &str) -> f64 {
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let text = client.get(format!("{url}/metrics")).send().await.unwrap().text().await.unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(&format!("evidence_gateway_{name} ")));
    line.unwrap_or_else(|| panic!("no {name}")).parse().unwrap()
}

#[tokio::test]
async fn what_anybody_writes_arrives() {
    for world in World::both().await {
        let (url, gateway) = (world.url(), world.gateway().await);
        let vectors = &gateway.vectors;
        let add = "mutation ($input: AddEvidenceInput!) { addEvidence(input: $input) { id } }";
        let input =
            json!({"projectId": PROJECT, "title": "A piece", "content": "by GraphQL", "sourceType": "LOG"});
        gateway.ask_with(add, json!({"input": input})).await;
        let [one, other, never] = [(); 3].map(|()| Uuid::now_v7());
        execute(url, &insert(one, "by another program")).await;
        execute(url, &format!("begin; {}; rollback", insert(never, "taken back"))).await;
        agree(url, vectors).await;
        assert_eq!((table(url).await.len(), world.embedded("taken back")), (2, 0));

        // The text is the same, and is not embedded again.
        execute(url, &format!("update evidence set credibility_score = 0.9 where id = '{one}'")).await;
        agree(url, vectors).await;
        assert_eq!((table(url).await[&one], world.embedded("by another program")), (2, 1));
        execute(url, &format!("update evidence set content = 'another text' where id = '{one}'")).await;
        agree(url, vectors).await;
        assert_eq!(world.embedded("another text"), 1);
        vectors_are_right(url, vectors).await;

        // There and back, softly and for good, also within one transaction.
        for (deed, rows) in [
            (format!("update evidence set deleted_at = now() where id = '{one}'"), 1),
            (format!("update evidence set deleted_at = null where id = '{one}'"), 2),
            (format!("delete from evidence where id = '{one}'"), 1),
            (insert(one, "a new life"), 2),
            (
                format!("begin; delete from evidence where id = '{one}'; {}; commit", insert(one, "a third")),
                2,
            ),
            (
                format!(
                    "begin; {}; delete from evidence where id = '{other}'; commit",
                    insert(other, "short")
                ),
                2,
            ),
        ] {
            execute(url, &deed).await;
            agree(url, vectors).await;
            assert_eq!(table(url).await.len(), rows, "{deed}");
        }
        vectors_are_right(url, vectors).await;

        execute(url, &format!("begin; truncate evidence cascade; {}; commit", insert(one, "after all")))
            .await;
        agree(url, vectors).await;
        vectors_are_right(url, vectors).await;
        execute(url, "truncate evidence cascade").await;
        agree(url, vectors).await;
        assert_eq!(index(vectors).await.unwrap().len(), 0);
        assert_eq!(metric(&gateway.url, "indexer_active").await, 1.0);
        assert_eq!(metric(&gateway.url, "indexer_failures_total").await, 0.0);
    }
}

/// What happens to an index behind the gateway's back is noticed: it is lost, or of another time.
#[tokio::test]
async fn an_index_that_is_lost_or_of_another_time_is_made_good() {
    for world in World::both().await {
        let (url, gateway) = (world.url(), world.gateway().await);
        let vectors = &gateway.vectors;
        let ids: Vec<Uuid> = (0..40).map(|_| Uuid::now_v7()).collect();
        let script: Vec<_> = ids.iter().map(|id| insert(*id, &format!("piece {id}"))).collect();
        execute(url, &script.join(";")).await;
        agree(url, vectors).await;
        vectors.clear().await.unwrap();
        agree(url, vectors).await;
        vectors_are_right(url, vectors).await;

        // A backup says of itself that it is older; the log that could tell the rest is gone.
        vectors.delete(&ids[..10].iter().map(|id| (*id, i32::MAX)).collect::<Vec<_>>()).await.unwrap();
        vectors.set_bookmark(&format!("{} 3:3:", Uuid::new_v4())).await.unwrap();
        execute(url, "update change_log_pruned set xid = pg_snapshot_xmin(pg_current_snapshot())").await;
        agree(url, vectors).await;
        assert_eq!(table(url).await.len(), 40);
    }
}

#[tokio::test]
async fn a_row_that_the_embedder_does_not_take_is_parked() {
    let world = World::new(None).await;
    let (url, gateway) = (world.url(), world.gateway().await);
    let [bad, worse] = [(); 2].map(|()| Uuid::now_v7());
    let mut script: Vec<_> = (0..100).map(|n| insert(Uuid::now_v7(), &format!("good text {n}"))).collect();
    script.insert(30, insert(bad, REFUSED));
    script.insert(77, insert(worse, &format!("{REFUSED} either")));
    execute(url, &format!("begin; {}; commit", script.join(";"))).await;
    let parked = "select row_id, model, row_version, reason, attempts from parked_rows order by 5, 1";
    let count = async |wanted: usize, rows: usize| {
        let begun = Instant::now();
        while texts(url, parked).await.len() != wanted || index(&gateway.vectors).await.unwrap().len() != rows
        {
            assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", texts(url, parked).await);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    count(2, 100).await;
    let line = |id: Uuid, attempts: &str| {
        let cells = [id.to_string(), "a-model".into(), "1".into(), "it answered 400, invalid_input".into()];
        cells.into_iter().chain([attempts.to_owned()]).map(Some).collect::<Vec<_>>()
    };
    assert_eq!(texts(url, parked).await, [line(bad, "3"), line(worse, "3")]);

    // Others go on meanwhile, and a change of the row is a new chance.
    execute(url, &insert(Uuid::now_v7(), "later")).await;
    execute(url, &format!("update evidence set content = 'good now' where id = '{bad}'")).await;
    count(1, 102).await;
    let begun = Instant::now();
    while metric(&gateway.url, "index_parked_rows").await != 1.0 {
        assert!(begun.elapsed() < Duration::from_secs(10));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    // What fails without end is shown, and tried again when somebody says so.
    let (code, said, _) = world.command(&["doctor"]).await;
    let shown = format!("{worse} (3 attempts): it answered 400, invalid_input");
    assert!(code == Some(1) && said.contains("1 row") && said.contains(&shown), "{said}");
    let (code, _, said) = world.command(&["reindex", "--parked"]).await;
    assert!(code == Some(0) && said.contains("1 of 1 row failed again"), "{said}");
    assert_eq!(texts(url, parked).await, [line(worse, "6")]);
    execute(url, &format!("delete from evidence where id = '{worse}'")).await;
    count(0, 102).await;
    let (_, said, _) = world.command(&["doctor"]).await;
    assert!(said.contains("ok    parked rows: none"), "{said}");
    agree(url, &gateway.vectors).await;
}

/// An endpoint or a server that is down parks nothing, and what was written meanwhile is found when it is back.
#[tokio::test]
async fn what_is_down_is_waited_for() {
    let mut world = World::new(Some(TestQdrant::start().await)).await;
    let gateway = world.gateway().await;
    let url = world.url().to_owned();
    execute(&url, &insert(Uuid::now_v7(), "before")).await;
    agree(&url, &gateway.vectors).await;
    for n in 0..40 {
        world.api.script(&[crate::embedder::api::Reply::Text(503, ("", ""), "")]);
        if n % 8 == 0 {
            execute(&url, &insert(Uuid::now_v7(), &format!("meanwhile {n}"))).await;
        }
    }
    let without_embedder = fails_again(&gateway.url, 0.0).await;
    world.server.as_mut().unwrap().stop().await;
    world.api.recover();
    execute(&url, &insert(Uuid::now_v7(), "and then")).await;
    fails_again(&gateway.url, without_embedder).await;
    world.server.as_mut().unwrap().restart().await;
    agree(&url, &gateway.vectors).await;
    assert_eq!(table(&url).await.len(), 7);
    assert_eq!(column(&url, "select count(*) from parked_rows").await, ["0"]);
}

/// Waits until the indexer had to wait once more, and says how often it had.
async fn fails_again(url: &str, before: f64) -> f64 {
    let begun = Instant::now();
    loop {
        let failures = metric(url, "indexer_failures_total").await;
        if failures > before {
            return failures;
        }
        assert!(begun.elapsed() < Duration::from_secs(60), "it is down, and nothing fails");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
