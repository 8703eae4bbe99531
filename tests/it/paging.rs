//! Pages while rows come and go: whatever was there throughout is seen once and in its place.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use diesel_async::SimpleAsyncConnection;
use evidence_gateway::http::viewer::Access;
use serde_json::{Value, json};

use crate::harness::{Database, Gateway, column, execute, sample_url};

/// Set it to the seed that a failure printed to see that failure again.
const SEED: Option<u64> = None;

/// Nine of ten stay; the others are deleted and inserted all the time. Ties and nulls in every nullable column.
const ROWS: &str = "
    insert into projects (slug, name) values ('p', 'P');
    insert into users (username, display_name) select 'u' || n, 'U' from generate_series(1, 5) n;
    insert into tasks (project_id, title, intent, status, priority, category, due_at, github_issue_number,
        assigned_user_id, created_at)
    select (select id from projects), case when n % 10 = 0 then 'fleeting ' else 'stable ' end || md5(n::text), 'x',
        (array['pending', 'processing', 'completed', 'failed', 'cancelled'])[1 + n % 5], 1 + n % 4,
        case when n % 3 > 0 then 'c' || n % 7 end, case when n % 4 > 0 then timestamptz '2026-01-01' + n % 500 * interval '1 h' end,
        case when n % 2 = 0 then n % 1000 + 1 end, (select id from users where username = 'u' || n % 8),
        timestamptz '2026-01-01' + n / 20 * interval '0.123456 s'
    from generate_series(1, 10000) n;
    analyze";

/// Ends the churn with the test.
struct Churn {
    stop: Arc<AtomicBool>,
    rounds: Arc<AtomicU64>,
}

impl Churn {
    async fn start(database: &Database) -> Self {
        let (stop, rounds) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (stopped, counted) = (stop.clone(), rounds.clone());
        let mut conn = database.connect().await;
        tokio::spawn(async move {
            while !stopped.load(Ordering::Relaxed) {
                let script = "delete from tasks where id in (select id from tasks where title like 'fleeting%'
                        order by random() limit 40);
                    insert into tasks (project_id, title, intent, status, priority, category, due_at,
                        github_issue_number, assigned_user_id, created_at)
                    select project_id, 'fleeting', 'x', status, priority, category, due_at, github_issue_number,
                        assigned_user_id, created_at from tasks where title like 'stable%' order by random() limit 40";
                if conn.batch_execute(script).await.is_err() {
                    break;
                }
                counted.fetch_add(1, Ordering::Relaxed);
            }
        });
        Self { stop, rounds }
    }
}

impl Drop for Churn {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// xorshift64: enough to pick orders and sizes, and the same everywhere for the same seed.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }
}

/// The fields to order by, as the schema and as SQL name them.
const FIELDS: &[(&str, &str)] = &[
    ("CREATED_AT", "created_at"),
    ("PRIORITY", "priority"),
    ("DUE_AT", "due_at"),
    ("CATEGORY", "category"),
    ("STATUS", "status"),
    ("GITHUB_ISSUE_NUMBER", "github_issue_number"),
    ("ASSIGNED_USER_ID", "assigned_user_id"),
    ("UPDATED_AT", "updated_at"),
    ("TITLE", "title"),
];

/// An order of one or two keys: for GraphQL and for SQL.
fn order(dice: &mut Dice) -> (Value, String) {
    let (mut keys, mut sql, mut last) = (Vec::new(), Vec::new(), "asc");
    let first = dice.roll(9);
    for n in 0..=dice.roll(2) {
        let (field, name) = FIELDS[usize::try_from((first + n * (1 + dice.roll(8))) % 9).unwrap()];
        last = if dice.roll(2) == 0 { "asc" } else { "desc" };
        keys.push(json!({"field": field, "direction": last.to_uppercase()}));
        sql.push(format!("{name} {last} nulls last"));
    }
    sql.push(format!("id {last}"));
    (json!(keys), sql.join(", "))
}

const DOCUMENT: &str =
    "query ($order: [TaskOrder!], $first: Int, $after: String, $last: Int, $before: String) {
    tasks(orderBy: $order, first: $first, after: $after, last: $last, before: $before) {
        nodes { id title } pageInfo { hasNextPage hasPreviousPage startCursor endCursor } } }";

/// Reads the whole list and gives the ids of the rows that stay.
async fn read(gateway: &Gateway, order: &Value, backward: bool, dice: &mut Dice) -> Vec<String> {
    let (mut pages, mut cursor) = (Vec::new(), Value::Null);
    loop {
        let most = if dice.roll(4) == 0 { 20 } else { 1_000 };
        let size = 1 + dice.roll(most);
        let variables = if backward {
            json!({"order": order, "last": size, "before": cursor})
        } else {
            json!({"order": order, "first": size, "after": cursor})
        };
        let list = gateway.ask_with(DOCUMENT, variables).await["tasks"].take();
        let nodes = list["nodes"].as_array().unwrap().iter();
        let stays = nodes.filter(|node| node["title"].as_str().unwrap().starts_with("stable"));
        pages.push(stays.map(|node| node["id"].as_str().unwrap().to_owned()).collect::<Vec<_>>());
        let info = &list["pageInfo"];
        let (more, end) =
            if backward { ("hasPreviousPage", "startCursor") } else { ("hasNextPage", "endCursor") };
        if info[more] == json!(false) {
            break;
        }
        cursor = info[end].clone();
    }
    if backward {
        pages.reverse();
    }
    pages.concat()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_row_is_repeated_or_skipped_while_others_come_and_go() {
    let database = Database::empty().await;
    execute(&database.url, ROWS).await;
    let gateway = Gateway::start(&database.url, &["--max-page-size", "1000"], Access::Everyone).await;
    let churn = Churn::start(&database).await;
    let seed = SEED.unwrap_or_else(|| chrono::Utc::now().timestamp_micros().unsigned_abs());
    println!("SEED = Some({seed})");
    let mut dice = Dice(seed);
    for round in 0..12 {
        let (keys, sql) = order(&mut dice);
        let query = format!("select id from tasks where title like 'stable%' order by {sql}");
        let expected = column(&database.url, &query).await;
        assert_eq!(expected.len(), 9_000);
        let seen = read(&gateway, &keys, round % 2 == 1, &mut dice).await;
        let differs = seen.iter().zip(&expected).position(|(seen, expected)| seen != expected);
        assert_eq!((differs, seen.len()), (None, 9_000), "seed {seed}, round {round}, order by {sql}");
    }
    let rounds = churn.rounds.load(Ordering::Relaxed);
    assert!(rounds > 5, "only {rounds} rounds of changes: nothing was tested");
}

/// A cursor is what the gateway signed, for the list and the order that it was made for; anything else is refused.
#[tokio::test]
async fn tampered_cursors_are_refused() {
    let gateway = Gateway::open(&sample_url()).await;
    let document =
        "query ($order: [TaskOrder!]) { tasks(first: 1, orderBy: $order) { pageInfo { endCursor } } }";
    let order = json!([{"field": "PRIORITY", "direction": "DESC"}]);
    let data = gateway.ask_with(document, json!({"order": order})).await;
    let cursor = data["tasks"]["pageInfo"]["endCursor"].as_str().unwrap();
    let bytes = URL_SAFE_NO_PAD.decode(cursor).unwrap();
    let mut wrong: Vec<String> = (0..bytes.len())
        .map(|at| {
            let mut bytes = bytes.clone();
            bytes[at] ^= 1 << (at % 8);
            URL_SAFE_NO_PAD.encode(bytes)
        })
        .collect();
    wrong.extend((0..bytes.len()).step_by(7).map(|length| URL_SAFE_NO_PAD.encode(&bytes[..length])));
    wrong.extend([
        String::new(),
        format!("{cursor}A"),
        format!("{cursor}="),
        "🦀".to_owned(),
        "A".repeat(200_000),
    ]);
    for wrong in wrong {
        let variables = json!({"order": order, "first": 1, "after": wrong});
        let (code, message) = gateway.error(DOCUMENT, variables).await;
        let expected = "after is not a cursor that this list gave out in this order";
        assert_eq!((code.as_str(), message.as_str()), ("BAD_USER_INPUT", expected), "{wrong:.100}");
    }
    for (other, field) in [
        (json!({"order": [{"field": "PRIORITY"}], "first": 1, "after": cursor}), "after"),
        (
            json!({"order": [{"field": "RETRY_COUNT", "direction": "DESC"}], "first": 1, "after": cursor}),
            "after",
        ),
        (json!({"last": 1, "before": cursor}), "before"),
    ] {
        let (code, message) = gateway.error(DOCUMENT, other).await;
        assert_eq!(code, "BAD_USER_INPUT");
        assert!(message.starts_with(field), "{message}");
    }
    // Results have an order of the same shape but are no tasks.
    let document = "query ($after: String) { evidences(first: 1, after: $after) { nodes { id } } }";
    let data = gateway.ask("{ tasks(first: 1) { pageInfo { endCursor } } }").await;
    let (code, _) = gateway.error(document, json!({"after": data["tasks"]["pageInfo"]["endCursor"]})).await;
    assert_eq!(code, "BAD_USER_INPUT");
    gateway.ask_with(DOCUMENT, json!({"order": order, "first": 1, "after": cursor})).await;
}

/// A cursor holds the values of its order: the longest text that can be ordered by must still lead on.
#[tokio::test]
async fn cursors_of_long_texts_lead_on() {
    let database = Database::sample().await;
    execute(&database.url, "update evidence_chains set conclusion = repeat('🦀', 20000)").await;
    let gateway = Gateway::open(&database.url).await;
    let document =
        "query ($after: String) { evidenceChains(first: 1, after: $after, orderBy: [{field: CONCLUSION}]) {
        nodes { id } pageInfo { endCursor } } }";
    let first = gateway.ask(document).await;
    let variables = json!({"after": first["evidenceChains"]["pageInfo"]["endCursor"]});
    let second = gateway.ask_with(document, variables).await;
    assert_ne!(first["evidenceChains"]["nodes"], second["evidenceChains"]["nodes"]);
    // Texts without such a bound cannot be ordered by.
    for (ty, field) in [("Evidence", "CONTENT"), ("TaskComment", "BODY")] {
        let fields =
            gateway.ask(&format!("{{ __type(name: \"{ty}OrderField\") {{ enumValues {{ name }} }} }}")).await;
        assert!(!fields.to_string().contains(&format!("\"{field}\"")), "{ty}.{field}");
    }
}
