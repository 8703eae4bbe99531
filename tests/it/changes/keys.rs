//! What the log says of a change, and of which tables.

use std::time::Duration;

use chrono::{DateTime, Utc};
use evidence_gateway::model::change::{Change, Op};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::changes::writers::{self, PROJECT, evidence};
use crate::changes::{Running, collect};
use crate::harness::{Database, column, execute, sample_url};

/// What the triggers say of a row: its project, what lists are filtered by, and what of it was changed.
#[tokio::test]
async fn a_change_says_what_readers_need() {
    let database = Database::empty().await;
    let url = &database.url;
    writers::prepare(url).await;
    let running = Running::start(url).await;
    let mut follower = running.follow_all().await;
    let [task, row, second, other, last] = [(); 5].map(|()| Uuid::now_v7());
    execute(
        url,
        &format!(
            "insert into projects (id, slug, name) values ('{other}', 'other', 'Other');
             insert into tasks (id, project_id, title, intent) values ('{task}', '{PROJECT}', 't', 'i');
             insert into task_results (task_id, result_type, content) values ('{task}', 'text', '{{}}');
             {};
             {};
             update evidence set task_id = '{task}', credibility_score = 0.25 where id = '{row}';
             update evidence set content = 'longer', title = 'Longer' where id = '{row}';
             update evidence set project_id = '{other}', deleted_at = now() where id = '{row}';
             insert into evidence_relations (from_evidence_id, to_evidence_id, kind) values ('{second}', '{row}', 'related');
             update evidence set tags = '{{a,b}}', expires_at = '2030-01-02T03:04:05Z' where id = '{second}';
             update evidence set tags = array(select 'a tag that is long ' || n from generate_series(10, 99) n)
                 where id = '{second}';
             delete from tasks where id = '{task}';
             truncate investigations;
             {}",
            evidence(row, 0),
            evidence(second, 0),
            evidence(last, 0)
        ),
    )
    .await;
    let (changes, _) = collect(&mut follower, last, Duration::ZERO).await;
    let of = |entity: &str| changes.iter().filter(move |change| change.entity == entity).collect::<Vec<_>>();
    let project = Some(PROJECT.parse::<Uuid>().unwrap());
    let results = of("task_results");
    assert_eq!((results[0].op, results[0].project_id), (Op::Insert, project));
    assert_eq!((results[1].op, &results[1].keys["task_id"]), (Op::Delete, &Value::from(task.to_string())));
    let of_row =
        |id| of("evidence").into_iter().filter(move |change| change.id == Some(id)).collect::<Vec<_>>();
    let (row, second) = (of_row(row), of_row(second));
    assert_eq!((row[0].op, row[0].project_id, row[0].keys.get("old")), (Op::Insert, project, None));
    let update = |change: &Change| (change.keys["changed"].clone(), change.keys["old"].clone());
    let expected =
        (json!(["task_id", "credibility_score"]), json!({"task_id": null, "credibility_score": 0.5}));
    assert_eq!(update(row[1]), expected);
    assert_eq!((&row[1].keys["version"], &row[1].keys["credibility_score"]), (&2.into(), &0.25.into()));
    assert_eq!((row[2].op, update(row[2])), (Op::Update, (json!(["title", "content"]), json!({}))));
    assert_eq!((row[3].project_id, row[3].old_project_id), (Some(other), project));
    assert_eq!(update(row[3]), (json!(["project_id", "deleted_at"]), json!({"deleted": false})));
    // Its task is gone: "on delete set null".
    assert_eq!(update(row[4]), (json!(["task_id"]), json!({"task_id": task})));
    let related = &of("evidence_relations")[0];
    assert_eq!((related.project_id, &related.keys["to_project_id"]), (project, &json!(other)));
    // A short list of texts is there and a long one is not.
    assert_eq!(second[1].keys["tags"], json!(["a", "b"]));
    let expires = second[1].keys["expires_at"].as_str().unwrap().parse::<DateTime<Utc>>().unwrap();
    assert_eq!(expires.timestamp(), 1_893_553_445);
    assert_eq!(update(second[1]), (json!(["tags", "expires_at"]), json!({"tags": [], "expires_at": null})));
    assert_eq!(
        (&second[2].keys["tags"], update(second[2])),
        (&Value::Null, (json!(["tags"]), json!({"tags": ["a", "b"]})))
    );
    let emptied = of("investigations");
    assert_eq!((emptied[0].op, emptied[0].id), (Op::Truncate, None));
    let longest = changes.iter().map(|change| Value::Object(change.keys.clone()).to_string().len()).max();
    assert!(longest < Some(1_200), "{longest:?}");
}

/// Every entity of the graph is in the log: with four triggers each.
#[tokio::test]
async fn every_entity_is_logged() {
    let query =
        "select c.relname from pg_class c where c.relnamespace = 'public'::regnamespace and c.relkind = 'r'
        and (select count(*) from pg_trigger t join pg_proc p on p.oid = t.tgfoid where t.tgrelid = c.oid
            and t.tgenabled = 'O' and p.prosecdef and p.proname = 'log_' || c.relname
            and t.tgtype in (4, 8, 16, 32)) <> 4 order by 1";
    let without = column(&sample_url(), query).await;
    let plumbing = [
        "__diesel_schema_migrations",
        "api_keys",
        "audit_logs",
        "audit_seals",
        "change_log",
        "change_log_consumers",
        "change_log_pruned",
        "import_progress",
        "metrics",
        "parked_rows",
        "persisted_documents",
        "processed_messages",
    ];
    assert_eq!(without, plumbing);
    // And an update of any column is named: a column that is added later needs its function made anew.
    let unnamed = "select c.relname || '.' || a.attname from pg_class c
        join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
        join pg_proc p on p.proname = 'log_' || c.relname
        where c.relnamespace = 'public'::regnamespace and c.relkind = 'r'
            and a.attname not in ('id', 'version', 'updated_at', 'content_hash')
            and strpos(p.prosrc, format(' then %L end', a.attname)) = 0 order by 1";
    assert_eq!(column(&sample_url(), unnamed).await, [""; 0]);
}
