//! What a change is to a stream: by the row as it was and as it is, the filter, and what the viewer may see.

use evidence_gateway::model::graph;
use evidence_gateway::model::watch::WATCHABLE;
use uuid::Uuid;

use super::*;
use crate::harness::{column, member, sample_url};

pub(super) const PROJECTS: [Uuid; 2] = [Uuid::from_u128(0xa1), Uuid::from_u128(0xa2)];
const TASK: Uuid = Uuid::from_u128(0x71);
const OTHER: Uuid = Uuid::from_u128(0x72);

pub(super) async fn prepare(url: &str) {
    let [one, two] = PROJECTS;
    let script = format!(
        "insert into projects (id, slug, name) values ('{one}', 'one', 'One'), ('{two}', 'two', 'Two');
         insert into tasks (id, project_id, title, intent, status, priority)
         values ('{TASK}', '{one}', 'a', 'x', 'pending', 3), ('{OTHER}', '{two}', 'b', 'x', 'pending', 3)"
    );
    execute(url, &script).await;
}

/// Statements, and what three streams are told of them: everything of both projects, tasks of priority 4 and more in
/// both, everything of the first project.
const STEPS: &[(&str, &str, &str, &str)] = &[
    ("update tasks set title = 'c' where {t}", "UPDATED title", "", "UPDATED title"),
    ("update tasks set priority = 4 where {t}", "UPDATED priority", "ENTERED priority", "UPDATED priority"),
    (
        "update tasks set priority = 5, title = 'd' where {t}",
        "UPDATED title,priority",
        "UPDATED title,priority",
        "UPDATED title,priority",
    ),
    ("update tasks set deleted_at = now() where {t}", "DELETED", "DELETED", "DELETED"),
    ("update tasks set title = 'e' where {t}", "", "", ""),
    ("update tasks set deleted_at = null where {t}", "CREATED", "CREATED", "CREATED"),
    ("update tasks set project_id = '{two}' where {t}", "UPDATED projectId", "UPDATED projectId", "LEFT -"),
    ("update tasks set title = 'secret' where {t}", "UPDATED title", "UPDATED title", ""),
    ("update tasks set deleted_at = now() where {t}", "DELETED", "DELETED", ""),
    ("update tasks set deleted_at = null, project_id = '{one}' where {t}", "CREATED", "CREATED", "ENTERED -"),
    ("update tasks set priority = 1 where {t}", "UPDATED priority", "LEFT priority", "UPDATED priority"),
    (
        "update tasks set priority = 5, deleted_at = now(), project_id = '{two}' where {t}",
        "DELETED",
        "",
        "LEFT -",
    ),
    ("delete from tasks where {t}", "", "", ""),
    ("delete from tasks where id = '{other}'", "DELETED", "", ""),
];

fn line(event: &Event) -> String {
    let event = told(event);
    let fields = event["changedFields"]
        .as_array()
        .map(|fields| fields.iter().map(|field| field.as_str().unwrap()).collect::<Vec<_>>().join(","));
    let operation = event["operation"].as_str().unwrap();
    let inside = ["CREATED", "UPDATED", "ENTERED"].contains(&operation);
    // What is not in the stream has no content.
    if !inside {
        assert_eq!(event["node"], Value::Null);
    }
    format!("{operation} {}", fields.as_deref().unwrap_or("-"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_change_is_what_it_is_to_the_viewer() {
    let database = Database::empty().await;
    let url = &database.url;
    prepare(url).await;
    let process = Process::start(url, &[]).await;
    let document = "subscription($filter: TaskFilter, $after: String) {
        taskChanged(filter: $filter, after: $after) { cursor operation at id node { id title priority } changedFields }
    }";
    let both = member(None, &PROJECTS);
    let first = member(None, &PROJECTS[..1]);
    let filter = json!({"filter": {"priority": {"gte": 4}}});
    let mut streams = [
        process.watch(document, json!({}), &both).await,
        process.watch(document, filter, &both).await,
        process.watch(document, json!({}), &first).await,
    ];
    let mut heard = Vec::new();
    for (statement, all, some, one) in STEPS {
        let statement = statement
            .replace("{t}", &format!("id = '{TASK}'"))
            .replace("{one}", &PROJECTS[0].to_string())
            .replace("{two}", &PROJECTS[1].to_string())
            .replace("{other}", &OTHER.to_string());
        execute(url, &statement).await;
        for (n, (stream, expected)) in streams.iter_mut().zip([all, some, one]).enumerate() {
            if expected.is_empty() {
                continue;
            }
            let event = next(stream).await;
            assert_eq!(
                line(&event),
                if expected.contains(' ') { (*expected).to_owned() } else { format!("{expected} -") },
                "{n} {statement}"
            );
            if n == 0 {
                let value = told(&event);
                heard.push((event.cursor.unwrap(), value["operation"].clone(), value["at"].clone()));
            }
        }
    }
    // Every cursor gives what followed it, in another process, too; where its sets end, a cursor may read otherwise.
    let other = Process::start(url, &[]).await;
    for (n, (cursor, ..)) in heard.iter().enumerate() {
        for process in [&process, &other] {
            let mut stream = process.watch(document, json!({"after": cursor}), &both).await;
            for (_, operation, at) in &heard[n + 1..] {
                let event = told(&next(&mut stream).await);
                assert_eq!((&event["operation"], &event["at"]), (operation, at));
            }
        }
    }
}

/// What a filter may look at is what the triggers write, as it is and as it was.
#[tokio::test]
async fn what_can_be_watched_is_in_the_log() {
    for watchable in &WATCHABLE {
        let table = graph().table_of(watchable.entity).unwrap();
        let query = format!("select prosrc from pg_proc where proname = 'log_{table}'");
        let source = column(&sample_url(), &query).await.remove(0);
        let ty = &graph().types[graph().type_by_name(watchable.entity).unwrap()];
        for name in watchable.logged {
            assert!(ty.column_by_sql(name).is_some(), "{table}.{name}");
            for written in [format!("'{name}', r.{name}"), format!("'{name}', o.{name}")] {
                assert!(source.contains(&written), "{table}: {written}");
            }
        }
    }
}
