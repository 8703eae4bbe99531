//! The import against a real PostgreSQL.

use std::path::Path;

use diesel::QueryableByName;
use diesel::sql_types::{BigInt, Text};
use diesel_async::{AsyncConnection, AsyncPgConnection, RunQueryDsl};
use evidence_gateway::cli::import::{Options, Progress, Source, Summary, run};
use evidence_gateway::store::postgres::{PostgresOptions, PrivatePostgres};

use crate::harness;

/// A database of its own for each test.
struct Database {
    conn: AsyncPgConnection,
    url: String,
    dir: tempfile::TempDir,
    _database: harness::Database,
}

impl Database {
    async fn new() -> Self {
        let database = harness::Database::empty().await;
        let (conn, url) = (database.connect().await, database.url.clone());
        Self { conn, url, dir: tempfile::tempdir().unwrap(), _database: database }
    }

    async fn import(&mut self, source: Source, options: Options) -> Summary {
        run(&mut self.conn, source, options, |_| {}).await.unwrap()
    }

    async fn number(&mut self, query: &str) -> i64 {
        #[derive(QueryableByName)]
        struct Row {
            #[diesel(sql_type = BigInt)]
            number: i64,
        }
        let query = format!("select ({query})::bigint as number");
        diesel::sql_query(query).get_result::<Row>(&mut self.conn).await.unwrap().number
    }

    async fn text(&mut self, query: &str) -> String {
        #[derive(QueryableByName)]
        struct Row {
            #[diesel(sql_type = Text)]
            text: String,
        }
        let query = format!("select ({query})::text as text");
        diesel::sql_query(query).get_result::<Row>(&mut self.conn).await.unwrap().text
    }

    /// A digest of every row and of the transaction that wrote it.
    async fn state(&mut self) -> String {
        const TABLES: [&str; 12] = [
            "users",
            "projects",
            "project_members",
            "agents",
            "tasks",
            "task_results",
            "task_comments",
            "task_attachments",
            "evidence",
            "evidence_relations",
            "evidence_chains",
            "evidence_chain_links",
        ];
        let mut state = String::new();
        for table in TABLES {
            let query = format!(
                "select count(*) || ':' || coalesce(md5(string_agg(t.xmin || t::text, ',' order by t.id)), '') from {table} t"
            );
            state += &format!("{table} {}\n", self.text(&query).await);
        }
        state
    }

    fn file(&self, lines: &[String]) -> Source {
        let path = self.dir.path().join("rows.jsonl");
        std::fs::write(&path, lines.join("\n")).unwrap();
        Source::File(path)
    }
}

const AGAIN: Options = Options { keep_going: false, again: true };
const KEEP_GOING: Options = Options { keep_going: true, again: false };

fn documented_lines() -> Vec<String> {
    let page =
        std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/import-format.md")).unwrap();
    page.lines().filter(|line| line.starts_with("{\"type\"")).map(str::to_owned).collect()
}

fn user(number: usize) -> String {
    format!(
        r#"{{"type":"user","externalId":"u{number}","username":"u{number}","displayName":"User {number}"}}"#
    )
}

#[tokio::test]
async fn the_sample_is_imported_once() {
    let mut database = Database::new().await;
    let started = std::time::Instant::now();
    let summary = database.import(Source::Sample, Options::default()).await;
    println!("{} rows of the sample in {:?}", summary.rows_written, started.elapsed());
    assert_eq!((summary.lines, summary.lines_skipped, summary.rows_unchanged), (summary.rows_written, 0, 0));
    assert_eq!(database.number("select count(*) from tasks").await, 1204);
    assert_eq!(database.number("select count(*) from evidence_chains where status = 'rejected'").await, 13);
    assert_eq!(database.number("select count(*) from evidence where task_id is null").await, 0);
    let orphans = "select count(*) from evidence_chain_links where parent_link_id is null and position > 0";
    assert_eq!(database.number(orphans).await, 0);

    let before = database.state().await;
    assert!(database.import(Source::Sample, Options::default()).await.already_done);
    let again = database.import(Source::Sample, AGAIN).await;
    assert_eq!((again.rows_written, again.rows_unchanged), (0, summary.lines));
    assert_eq!(database.state().await, before);
}

#[tokio::test]
async fn the_documented_lines_are_imported_and_updated() {
    let mut database = Database::new().await;
    let lines = documented_lines();
    let source = database.file(&lines);
    let first = database.import(source.clone(), Options::default()).await;
    assert_eq!(first.rows_written, lines.len() as u64);
    let before = database.state().await;
    assert_eq!(database.import(source, AGAIN).await.rows_unchanged, lines.len() as u64);
    assert_eq!(database.state().await, before);

    let changed: Vec<String> = lines
        .iter()
        .map(|line| line.replace("\"credibilityScore\":0.95", "\"credibilityScore\":0.4"))
        .collect();
    let source = database.file(&changed);
    assert_eq!(database.import(source, Options::default()).await.rows_written, 1);
    let history = "select old_score || '>' || new_score from evidence_credibility_history";
    assert_eq!(database.text(history).await, "0.95>0.4");
    let row = "select version || ' ' || created_at from evidence where credibility_score = 0.4";
    assert_eq!(database.text(row).await, "2 2026-01-31 09:40:00+00");
}

#[tokio::test]
async fn references_are_looked_up_and_not_guessed() {
    let mut database = Database::new().await;
    diesel::sql_query("insert into projects (external_id, slug, name) values ('gateway', 'other', 'Other')")
        .execute(&mut database.conn)
        .await
        .unwrap();
    let task = |name: &str, parent: &str| {
        format!(
            r#"{{"type":"task","externalId":"{name}","project":"gateway","parent":{parent},"title":"T","intent":"x"}}"#
        )
    };
    let source = database.file(&[task("child", "\"root\""), task("root", "null")]);
    database.import(source, Options::default()).await;
    let parents = "select p.external_id from tasks t join tasks p on p.id = t.parent_id join projects on projects.id = t.project_id";
    assert_eq!(database.text(parents).await, "root");
}

#[tokio::test]
async fn a_bad_line_stops_its_batch_only() {
    let mut database = Database::new().await;
    let mut lines: Vec<String> = (1..=1_200).map(user).collect();
    lines[700] = r#"{"type":"projectMember","project":"nowhere","user":"u1"}"#.to_owned();
    let source = database.file(&lines);
    let error = run(&mut database.conn, source, Options::default(), |_| {}).await.unwrap_err();
    assert_eq!(
        error.message(),
        "line 701: projectMember.project: there is no project with the external id \"nowhere\""
    );
    assert_eq!(error.field(), Some("projectMember.project"));
    assert_eq!(database.number("select count(*) from users").await, 500);

    // Only the database knows that a name is taken.
    lines[700] = user(1).replace("\"externalId\":\"u1\"", "\"externalId\":\"x\"");
    let source = database.file(&lines);
    let error = run(&mut database.conn, source, Options::default(), |_| {}).await.unwrap_err();
    assert!(error.message().starts_with("line 701: user: duplicate key value"), "{}", error.message());
    assert_eq!(database.number("select count(*) from users").await, 500);
}

#[tokio::test]
async fn bad_lines_can_be_skipped() {
    let mut database = Database::new().await;
    let mut lines: Vec<String> = (1..=600).map(user).collect();
    lines[9] = "{".to_owned();
    lines[19] = user(20).replace("User 20", "");
    lines[29] = user(1).replace("\"externalId\":\"u1\"", "\"externalId\":\"x\"");
    lines[39] = r#"{"type":"project","externalId":"p","slug":"p","name":"P","owner":"x"}"#.to_owned();
    lines[49] = r#"{"type":"projectMember","project":"p","user":"u1"}"#.to_owned();
    lines[59] = String::new();
    for line in &mut lines[510..540] {
        "{}".clone_into(line);
    }
    let source = database.file(&lines);
    let summary = database.import(source, KEEP_GOING).await;
    assert_eq!((summary.lines, summary.lines_skipped, summary.rows_written), (600, 35, 564));
    assert_eq!(summary.problems.len(), 20);
    assert!(summary.problems[0].starts_with("line 10: not a JSON object"), "{:?}", summary.problems);
    assert_eq!(summary.problems[1], "line 20: user.displayName: 0 characters are not between 1 and 200");
    assert!(summary.problems[2].starts_with("line 30: user: duplicate key"), "{:?}", summary.problems);
    assert_eq!(summary.problems[3], "line 40: project.owner: there is no user with the external id \"x\"");
    assert_eq!(
        summary.problems[4],
        "line 50: projectMember.project: there is no project with the external id \"p\""
    );
    assert!(summary.problems[5].starts_with("line 511: type: missing"), "{:?}", summary.problems);
}

#[tokio::test]
async fn a_killed_import_goes_on_where_it_stopped() {
    let mut database = Database::new().await;
    let source = Source::Generate("tasks=300,evidence=5".parse().unwrap());
    let (tell, told) = tokio::sync::oneshot::channel();
    let mut tell = Some(tell);
    let mut other = AsyncPgConnection::establish(&database.url).await.unwrap();
    let first = source.clone();
    let running = tokio::spawn(async move {
        let show = |progress: Progress| {
            if progress.lines_done >= 1_000
                && let Some(tell) = tell.take()
            {
                tell.send(progress.lines_done).unwrap();
            }
        };
        run(&mut other, first, Options::default(), show).await
    });
    let seen = told.await.unwrap();
    running.abort();
    running.await.unwrap_err();

    let summary = database.import(source.clone(), Options::default()).await;
    assert!(summary.resumed_after >= seen, "{summary:?}");
    assert_eq!(summary.rows_unchanged, 0);
    assert_eq!(database.number("select count(*) from tasks").await, 300);
    assert_eq!(database.number("select count(*) from evidence").await, 1_500);
    assert_eq!(database.number("select count(*) from evidence_relations").await, 1_500);
    let before = database.state().await;
    assert_eq!(database.import(source, AGAIN).await.rows_written, 0);
    assert_eq!(database.state().await, before);
}

/// Not a test of the import but of what the clone's user gets: the data and the URL survive a restart.
#[tokio::test]
async fn a_private_server_keeps_its_data() {
    let dir = tempfile::tempdir().unwrap();
    let mut postgres = PrivatePostgres::start(PostgresOptions::kept(dir.path())).await.unwrap();
    let url = postgres.database_url();
    let mut conn = AsyncPgConnection::establish(&url).await.unwrap();
    diesel::sql_query("create table kept (id int)").execute(&mut conn).await.unwrap();
    drop(conn);
    postgres.restart().await.unwrap();
    let mut conn = AsyncPgConnection::establish(&url).await.unwrap();
    diesel::sql_query("drop table kept").execute(&mut conn).await.unwrap();
    let second = PrivatePostgres::start(PostgresOptions::kept(dir.path())).await.unwrap_err();
    assert!(second.message().contains("already in use by process"), "{second}");
    postgres.stop().await.unwrap();
}
