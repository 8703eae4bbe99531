//! Gateways that are killed at any moment, while everybody writes.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use evidence_gateway::model::viewer::Viewer;
use serde_json::json;

use super::{A, B, recorded, two_projects};
use crate::harness::{SECRET, column, execute, texts, token};
use crate::process::Process;
use crate::settings::program;

/// A gateway in a process of its own.
fn start(database_url: &str) -> Process {
    let mut command = program();
    command.args(["serve", "--listen", "127.0.0.1:0", "--embedder", "off", "--database-url", database_url]);
    command.args(["--token-secret", SECRET, "--log", "error"]);
    Process::start(command)
}

/// What other programs do, over and over.
#[rustfmt::skip]
const DEEDS: &[&str] = &[
    "insert into evidence (project_id, title, content, source_type) values ('{A}', 'one', 'c', 'log')",
    "begin; insert into tasks (project_id, title, intent) values ('{B}', 't', 'i'); select pg_sleep(0.15);
        update tasks set status = 'processing', started_at = now() where title = 't' and status = 'pending'; commit",
    "insert into evidence (project_id, title, content, source_type) select '{A}', 'n', 'c', 'log' from generate_series(1, 130)",
    "begin; insert into evidence (project_id, title, content, source_type) select case n % 2 when 0 then '{A}'::uuid else '{B}' end,
        'n', 'c', 'log' from generate_series(1, 1400) n; select pg_sleep(0.1);
        insert into evidence (project_id, title, content, source_type) select '{B}', 'n', 'c', 'log' from generate_series(1, 900) n; commit",
    "begin; insert into tasks (project_id, title, intent) values ('{A}', 'never', 'i'); rollback",
    "update agents set last_heartbeat_at = now()",
];

/// Transactions of which the trail or the feed has something else than it should, by the change log.
const WRONG_TRAIL: &str = "
    with log as (select xid::text as xid, entity, op, count(*) as rows from change_log where entity <> 'activity_feed' and xid > '{BEGIN}' group by 1, 2, 3),
    own as (select distinct xid::text as xid from audit_logs where coalesce(service_name, '') not in ('external', 'recorder')),
    expected as (select l.*, case when o.xid is not null then 0 when rows > 100 then 1 else rows end as entries
        from log l left join own o using (xid)),
    found as (select data ->> 'transaction' as xid, data ->> 'op' as op, resource_type, count(*) as entries,
        sum(coalesce((data ->> 'count')::int, 1)) as rows from audit_logs where service_name = 'external' group by 1, 2, 3)
    select e.*, f.* from expected e full join found f on f.xid = e.xid and f.op = e.op
        and f.resource_type = case e.entity when 'evidence' then 'evidence' else rtrim(e.entity, 's') end
    where coalesce(e.entries, 0) <> coalesce(f.entries, 0) or (f.rows is not null and e.rows is distinct from f.rows)";
const WRONG_FEED: &str = "
    with log as (select xid::text as xid, entity, op, project_id, count(*) as rows from change_log
        where entity in ('evidence', 'tasks', 'task_comments') and (op <> 'update' or keys ? 'old') and xid > '{BEGIN}' group by 1, 2, 3, 4),
    expected as (select *, case when sum(rows) over (partition by xid, entity, op) > 10 then 1 else rows end as entries from log),
    found as (select metadata ->> 'transaction' as xid, resource_type, project_id, count(*) as entries,
        sum(coalesce((metadata ->> 'count')::int, 1)) as rows,
        case when activity_type like '%.created' then 'insert' else 'update' end as op
        from activity_feed where resource_type in ('evidence', 'task', 'task_comment') group by 1, 2, 3, 6)
    select e.*, f.* from expected e full join found f on f.xid = e.xid and f.op = e.op and f.project_id = e.project_id
        and f.resource_type = case e.entity when 'evidence' then 'evidence' else rtrim(e.entity, 's') end
    where e.entries is distinct from f.entries or e.rows is distinct from f.rows";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_is_recorded_once_whoever_is_killed() {
    let (database, gateway) = two_projects().await;
    // Only those that are killed record.
    drop(gateway);
    let url = database.url.clone();
    let begin = column(&url, "select max(xid::text::bigint) from change_log").await.remove(0);
    let processes = Arc::new(Mutex::new([start(&url), start(&url)]));
    let over = Arc::new(AtomicBool::new(false));
    let mut writers = Vec::new();
    for deed in DEEDS {
        let (url, over, deed) = (url.clone(), over.clone(), deed.replace("{A}", A).replace("{B}", B));
        writers.push(tokio::spawn(async move {
            let mut count = 0;
            while !over.load(Ordering::Relaxed) {
                execute(&url, &deed).await;
                count += 1;
                tokio::time::sleep(Duration::from_millis(if deed.contains("generate") { 350 } else { 25 }))
                    .await;
            }
            count
        }));
    }
    for place in [0, 1] {
        let (over, processes) = (over.clone(), processes.clone());
        writers.push(tokio::spawn(async move {
            let client = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(5)).build().unwrap();
            let mut count = 0;
            while !over.load(Ordering::Relaxed) {
                let url = processes.lock().unwrap()[place].url.clone();
                let document = format!(
                    "mutation {{ addTaskComment(input: {{taskId: \"{B}\", body: \"b\"}}) {{ id }}
                     addEvidence(input: {{projectId: \"{A}\", title: \"t\", content: \"{place} {count}\", sourceType: LOG}}) {{ id }} }}"
                );
                let request = client.post(format!("{url}/graphql")).bearer_auth(token(&Viewer::admin()));
                // It may be killed before, during and after.
                if request.json(&json!({"query": document})).send().await.is_ok() {
                    count += 1;
                }
                tokio::time::sleep(Duration::from_millis(15)).await;
            }
            count
        }));
    }
    let killing = {
        let (processes, url) = (processes.clone(), url.clone());
        tokio::task::spawn_blocking(move || {
            let begun = Instant::now();
            let mut kills = 0;
            while begun.elapsed() < Duration::from_secs(9) {
                std::thread::sleep(Duration::from_millis(120 + (kills * 97) % 430));
                let started = start(&url);
                let place = usize::try_from(kills % 2).unwrap();
                drop(std::mem::replace(&mut processes.lock().unwrap()[place], started));
                kills += 1;
            }
            kills
        })
    };
    let kills = killing.await.unwrap();
    over.store(true, Ordering::Relaxed);
    let mut counts = Vec::new();
    for writer in writers {
        counts.push(writer.await.unwrap());
    }
    recorded(&url).await;
    println!("{kills} kills; transactions by writer: {counts:?}");
    assert!(kills >= 6 && counts.iter().all(|count| *count > 0), "{kills} {counts:?}");
    for query in [WRONG_TRAIL, WRONG_FEED] {
        let wrong = texts(&url, &query.replace("{BEGIN}", &begin)).await;
        assert_eq!(wrong, Vec::<Vec<Option<String>>>::new(), "{query}");
    }
    // The writers' own counts say the same.
    let singles = column(&url, "select count(*) from audit_logs where event_type = 'agent.updated'").await;
    assert_eq!(singles, [counts[5].to_string()]);
}
