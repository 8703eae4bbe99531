//! The recorder: what other programs write is audited, what happens is told to those who may know, both once, whoever
//! is killed meanwhile.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use diesel_async::SimpleAsyncConnection;
use evidence_gateway::model::viewer::Role;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::harness::{Database, FORGET, Gateway, column, execute, id_of, member, texts};
use crate::writes::{World, call, cases, fill, id};

mod killed;

/// Waits until everything is recorded that was committed before.
async fn recorded(url: &str) {
    let note = "insert into models (provider, name, display_name, model_type) values ('p', gen_random_uuid()::text, 'd', 'llm')
        returning pg_current_xact_id()::text";
    let xid = column_of_statement(url, note).await;
    let query = format!("select id from audit_logs where data ->> 'transaction' = '{xid}'");
    let begun = Instant::now();
    while column(url, &query).await.is_empty() {
        assert!(begun.elapsed() < Duration::from_secs(20), "nobody records");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The value that a writing statement returns.
async fn column_of_statement(url: &str, statement: &str) -> String {
    use diesel::QueryableByName;
    use diesel::sql_types::Text;
    use diesel_async::RunQueryDsl;
    #[derive(QueryableByName)]
    struct Returned {
        #[diesel(sql_type = Text)]
        it: String,
    }
    let mut conn =
        <diesel_async::AsyncPgConnection as diesel_async::AsyncConnection>::establish(url).await.unwrap();
    diesel::sql_query(format!("{statement} as it")).get_result::<Returned>(&mut conn).await.unwrap().it
}

/// The feed from an activity on, as `visibility | title`.
async fn told(url: &str, after: usize) -> Vec<String> {
    let query = format!(
        "select visibility || ' | ' || title from activity_feed order by created_at, id offset {after}"
    );
    column(url, &query).await
}

/// Mutation, and what is told of it.
#[rustfmt::skip]
const SENTENCES: &[(&str, &[&str])] = &[
    ("createTask", &["project | Agent reviewer created task “Look \u{1f50d} into it”"]),
    ("updateTask", &["project | Agent reviewer changed task “Look \u{1f50d} into it”"]),
    ("assignTask", &["project | Agent reviewer assigned task “Look \u{1f50d} into it” to agent reviewer"]),
    ("transitionTask", &["project | Agent reviewer moved task “Look \u{1f50d} into it” from pending to processing"]),
    ("addTaskComment", &["project | Agent reviewer commented on task “Look \u{1f50d} into it”"]),
    ("addTaskResult", &["project | Agent reviewer added a result to task “Look \u{1f50d} into it”"]),
    ("attachToTask", &["project | Agent reviewer attached a file to task “Look \u{1f50d} into it”"]),
    ("addEvidence", &["project | Agent reviewer added evidence “T”"]),
    ("addEvidences", &["project | Agent reviewer added evidence “One”", "project | Agent reviewer added evidence “Two”"]),
    ("rateEvidence", &["project | Agent reviewer changed the credibility of evidence “T” from 0.5 to 0.9"]),
    ("expireEvidence", &["project | Agent reviewer said when evidence “T” expires"]),
    ("relateEvidence", &["project | Agent reviewer related evidence “T” to evidence “One”: supports"]),
    ("createChain", &["project | Agent reviewer opened chain “It holds”"]),
    ("appendChainLink", &["project | Agent reviewer added evidence “T” to chain “It holds” as premise"]),
    ("concludeChain", &["project | Agent reviewer concluded chain “It holds”"]),
    ("heartbeat", &[]),
    ("setAgentStatus", &["public | Agent reviewer set agent reviewer from active to maintenance"]),
    ("verifyEvidence", &["project | Senior Engineer verified evidence “T”"]),
    ("registerAgent", &["public | Somebody registered agent newcomer"]),
];

#[tokio::test]
async fn every_mutation_is_told_in_a_sentence() {
    let world = World::new().await;
    let url = &world.url;
    let mut ids: BTreeMap<String, String> =
        [("project", world.project), ("agent", world.agent), ("user", world.user)]
            .map(|(name, id)| (name.to_owned(), id.to_string()))
            .into();
    recorded(url).await;
    let before = texts(url, "select id from audit_logs where service_name = 'external'").await.len();
    let (agent, analyst, admin) = (world.agent(), world.person(Role::Analyst), world.person(Role::Admin));
    let mut calls = 0;
    for (name, _, mut input, ..) in cases() {
        let (_, sentences) = SENTENCES.iter().find(|(mutation, _)| *mutation == name).unwrap();
        fill(&mut input, &ids);
        let caller = match name {
            "verifyEvidence" => &analyst,
            "registerAgent" => &admin,
            _ => &agent,
        };
        let so_far = told(url, 0).await.len();
        let mut answer = call(caller, name, "id", input).await;
        if let Value::Array(rows) = &mut answer.body["data"]["it"] {
            answer.body["data"]["it"] = rows[0].take();
        }
        ids.insert(name.to_owned(), id(&answer));
        recorded(url).await;
        assert_eq!(told(url, so_far).await, *sentences, "{name}");
        calls += 1;
    }
    assert_eq!(calls, SENTENCES.len());
    // One for each `recorded`, and none for the mutations.
    let after = texts(url, "select id from audit_logs where service_name = 'external'").await.len();
    assert_eq!(after - before, calls);

    let query = "{ activities(filter: {activityType: {eq: \"task.started\"}}) { nodes {
        title visibility resourceType resourceId metadata project { slug } actorAgent { name } } } }";
    let nodes = agent.ask(query).await["activities"]["nodes"].take();
    assert_eq!(nodes.as_array().unwrap().len(), 1, "{nodes}");
    assert_eq!(
        (&nodes[0]["resourceType"], &nodes[0]["resourceId"], &nodes[0]["metadata"]["external"]),
        (&json!("task"), &json!(ids["createTask"]), &json!(false))
    );
    assert_eq!(
        (&nodes[0]["actorAgent"]["name"], &nodes[0]["project"]["slug"]),
        (&json!("reviewer"), &json!("moe-router"))
    );
}

const A: &str = "00000000-0000-7000-8000-00000000000a";
const B: &str = "00000000-0000-7000-8000-00000000000b";

/// Two projects with a task and a piece of evidence each, and an agent.
async fn two_projects() -> (Database, Gateway) {
    let database = Database::empty().await;
    let script = format!(
        "insert into projects (id, slug, name) values ('{A}', 'a', 'Ours'), ('{B}', 'b', 'Theirs');
         insert into users (id, username, display_name) values ('{A}', 'ada', E'Ada\\n Lovelace');
         insert into agents (id, name, type, agent_version) values ('{A}', 'scanner', 'x', '1');
         insert into tasks (id, project_id, title, intent) values ('{A}', '{A}', 'Ours', 'i'), ('{B}', '{B}', 'Theirs', 'i');
         insert into evidence (id, project_id, title, content, source_type) values
             ('{A}', '{A}', 'Ours', 'c', 'log'), ('{B}', '{B}', 'Theirs', 'c', 'log');"
    );
    execute(&database.url, &script).await;
    execute(&database.url, FORGET).await;
    let gateway = Gateway::guarded(&database.url).await;
    (database, gateway)
}

/// What another program does; what is told of it; what the audit log has.
type Deed = (&'static str, &'static [&'static str], &'static [Entry]);
/// What was done to what in which project; values among those before and after.
type Entry = (&'static str, &'static str, &'static str);

#[rustfmt::skip]
const DEEDS: &[Deed] = &[
    ("update tasks set status = 'processing', started_at = now() where id = '{A}'",
        &["project | Another program moved task “Ours” from pending to processing"],
        &[("task.started update task {A} {A}", r#"{"status": "pending"}"#, r#"{"status": "processing"}"#)]),
    ("update tasks set assigned_user_id = '{A}' where id = '{A}'",
        &["project | Another program assigned task “Ours” to Ada Lovelace"],
        &[("task.assigned update task {A} {A}", r#"{"assigned_user_id": null}"#, r#"{"assigned_user_id": "{A}"}"#)]),
    ("update agents set last_heartbeat_at = now() where id = '{A}'", &[],
        &[("agent.updated update agent {A} -", "{}", "{}")]),
    ("update tasks set title = title where id = '{A}'", &[], &[("task.updated update task {A} {A}", "{}", "{}")]),
    ("update evidence_chains set claim = claim", &[], &[]),
    ("insert into evidence_relations (id, from_evidence_id, to_evidence_id, kind) values ('{A}', '{A}', '{B}', 'derives_from')",
        &["project | Another program related evidence “Ours” to a piece of evidence: derives from"],
        &[("evidence_relation.created create evidence_relation {A} {A}", "null", r#"{"kind": "derives_from", "to_evidence_id": "{B}"}"#)]),
    ("insert into project_members (id, project_id, user_id, role) values ('{A}', '{A}', '{A}', 'member')",
        &["project | Another program added Ada Lovelace to the project as member"],
        &[("project_member.created create project_member {A} {A}", "null", r#"{"role": "member", "user_id": "{A}"}"#)]),
    ("update evidence set project_id = '{B}' where id = '{A}'",
        &["project | Another program moved evidence “Ours” into this project"],
        &[("evidence.moved update evidence {A} {B}", r#"{"project_id": "{A}"}"#, r#"{"project_id": "{B}"}"#)]),
    // It says what it did itself.
    ("begin; update tasks set priority = 5 where id = '{A}'; insert into audit_logs (event_type, action, resource_type, resource_id, service_name)
        values ('nightly.run', 'execute', 'task', '{A}', 'nightly'); commit",
        &["project | Service nightly changed task “Ours”"], &[]),
    ("begin; delete from tasks where id = '{A}'; delete from tasks where id = '{B}'; rollback", &[], &[]),
    ("delete from tasks where id = '{A}'", &["project | Another program deleted a task"],
        &[("task.deleted delete task {A} {A}", r#"{"status": "processing"}"#, "null")]),
    ("truncate task_comments", &["project | Another program deleted all comments on tasks"],
        &[("task_comment.truncated delete task_comment - -", "null", "null")]),
];

#[tokio::test]
async fn what_other_programs_do_is_audited_and_told() {
    let (database, gateway) = two_projects().await;
    let url = &database.url;
    let fill = |text: &str| text.replace("{A}", A).replace("{B}", B);
    for (deed, sentences, entries) in DEEDS {
        recorded(url).await;
        let (so_far, begin) = (
            told(url, 0).await.len(),
            column(url, "select coalesce(max(seq), 0) from audit_logs").await.remove(0),
        );
        execute(url, &fill(deed)).await;
        recorded(url).await;
        assert_eq!(told(url, so_far).await, *sentences, "{deed}");
        let query = format!(
            "select concat_ws(' ', event_type, action, resource_type, coalesce(resource_id::text, '-'),
                coalesce(project_id::text, '-')), old_values::text, new_values::text
             from audit_logs where seq > {begin} and service_name = 'external' and resource_type <> 'model' order by seq"
        );
        let found = texts(url, &query).await;
        assert_eq!(found.len(), entries.len(), "{deed}: {found:?}");
        for (found, (what, old, new)) in found.iter().zip(*entries) {
            assert_eq!(found[0], Some(fill(what)), "{deed}");
            for (found, said) in [(&found[1], old), (&found[2], new)] {
                let [found, said] = [found.as_deref().unwrap_or("null"), &fill(said)]
                    .map(|text| serde_json::from_str::<Value>(text).unwrap());
                let members = said.as_object().into_iter().flatten();
                assert!(
                    found.is_null() == said.is_null() && members.clone().all(|(k, v)| found[k] == *v),
                    "{deed}: {found}"
                );
            }
        }
    }
    // Each feed has what its readers may know, and the chain of the trail holds.
    let titles = |gateway: Gateway| async move {
        let nodes =
            gateway.ask("{ activities(first: 100) { nodes { title } } }").await["activities"]["nodes"].take();
        nodes
            .as_array()
            .unwrap()
            .iter()
            .map(|node| node["title"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    let theirs = titles(gateway.viewed_by(&member(None, &[B.parse().unwrap()]))).await;
    assert_eq!(theirs, ["Another program moved evidence “Ours” into this project"]);
    let ours = titles(gateway.viewed_by(&member(None, &[A.parse().unwrap()]))).await;
    assert!(ours.len() == 6 && !ours.iter().any(|title| title.contains("Theirs")), "{ours:?}");
    let begun = Instant::now();
    while !column(url, "select id from audit_logs where seal is null").await.is_empty() {
        assert!(begun.elapsed() < Duration::from_secs(10), "nobody seals");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let found = gateway.ask("{ verifyAuditLog { valid checked } }").await["verifyAuditLog"].take();
    assert!(
        found["valid"] == true && found["checked"].as_str().unwrap().parse::<i64>().unwrap() > 15,
        "{found}"
    );
}

/// What one transaction does to very many rows is summed up, whatever is going on at the same time.
#[tokio::test]
async fn what_is_done_in_bulk_is_summed_up() {
    let (database, _gateway) = two_projects().await;
    let url = &database.url;
    let (mut one, mut two) = (database.connect().await, database.connect().await);
    let many = |project: &str, from: i32, to: i32| {
        format!(
            "insert into evidence (project_id, title, content, source_type)
             select '{project}', 'many ' || n, 'c', 'log' from generate_series({from}, {to}) n;"
        )
    };
    // Two at once, both larger than what is recorded at once, and small ones between.
    one.batch_execute(&format!("begin; {}", many(A, 1, 1_500))).await.unwrap();
    two.batch_execute(&format!("begin; {}", many(B, 1, 1_200))).await.unwrap();
    execute(url, &many(A, 1, 2)).await;
    one.batch_execute(&format!(
        "{}; update tasks set priority = 5 where id = '{A}'; {}",
        many(B, 1, 3),
        many(A, 1, 1_000)
    ))
    .await
    .unwrap();
    two.batch_execute("commit").await.unwrap();
    one.batch_execute("commit").await.unwrap();
    // A hundred and one, and a hundred.
    execute(url, &many(A, 1, 101)).await;
    execute(url, &many(A, 1, 100)).await;
    recorded(url).await;
    let mut told = told(url, 0).await;
    told.sort();
    let one_by_one = |title: &str| format!("project | Another program {title}");
    let mut expected: Vec<String> = [
        "added 1,200 pieces of evidence",
        "added 2,500 pieces of evidence",
        "added 101 pieces of evidence",
        "added 100 pieces of evidence",
        "added evidence “many 1”",
        "added evidence “many 2”",
        "added 3 pieces of evidence",
        "changed task “Ours”",
    ]
    .map(one_by_one)
    .into();
    expected.sort();
    assert_eq!(told, expected);
    let query = "select concat_ws(' ', event_type, coalesce(data ->> 'count', '1'), count(*), jsonb_array_length(data -> 'ids'))
        from audit_logs where resource_type <> 'model' group by event_type, data ->> 'count', jsonb_array_length(data -> 'ids') order by 1";
    let mut entries = column(url, query).await;
    let expected = [
        "evidence.created 101 1 10",
        "evidence.created 1 102",
        "evidence.created 1200 1 10",
        "evidence.created 2503 1 10",
        "task.updated 1 1",
    ];
    let mut expected = expected.map(str::to_owned);
    expected.sort();
    entries.sort();
    assert_eq!(entries, expected);
    gone_with_its_project(url).await;
}

/// With a project goes its feed, and nobody but those who see everything reads of what was in it.
async fn gone_with_its_project(url: &str) {
    let delete = format!(
        "begin; delete from evidence where project_id = '{A}'; delete from tasks where project_id = '{A}';
         delete from projects where id = '{A}'; commit"
    );
    execute(url, &delete).await;
    recorded(url).await;
    let left = texts(
        url,
        "select title, project_id from activity_feed where title like '% deleted %' order by title",
    )
    .await;
    let titles: Vec<_> = left.iter().map(|row| row[0].clone().unwrap()).collect();
    assert_eq!(
        titles,
        [
            "Another program deleted 2,704 pieces of evidence",
            "Another program deleted a project",
            "Another program deleted a task"
        ]
    );
    assert!(left.iter().all(|row| row[1].is_none()));
}

/// Changes that were pruned before they were recorded are gone; the trail says so, once, and goes on.
#[tokio::test]
async fn a_gap_is_told_and_left_behind() {
    let database = Database::empty().await;
    let url = &database.url;
    execute(url, "update change_log_pruned set xid = '5'; update change_log_consumers set place = '3:3:'")
        .await;
    execute(url, &format!("insert into projects (id, slug, name) values ('{A}', 'a', 'Ours')")).await;
    let gateway = Gateway::guarded(url).await;
    recorded(url).await;
    recorded(url).await;
    let gaps = texts(url, "select event_type, service_name, data ->> 'from' from audit_logs where event_type = 'change_log.gap'").await;
    assert_eq!(gaps, [["change_log.gap", "recorder", "3:3:"].map(|text| Some(text.to_owned()))]);
    assert_eq!(told(url, 0).await, ["project | Another program created project “Ours”"]);
    let metrics = gateway.get("/metrics").await.text().await.unwrap();
    for line in [
        "recorder_gaps_total 1",
        "recorder_active 1",
        "recorder_rows_total{kind=\"activity\"} 1",
        "recorder_rows_total{kind=\"audit\"} 3",
    ] {
        assert!(metrics.contains(&format!("evidence_gateway_{line}\n")), "{line}: {metrics}");
    }
}

/// A command of the gateway says itself what it did.
#[tokio::test]
async fn an_import_is_audited_by_itself() {
    let database = Database::sample().await;
    let url = &database.url;
    let entries =
        texts(url, "select distinct event_type, action, service_name, data ->> 'source' from audit_logs")
            .await;
    assert_eq!(entries, [["import.batch", "execute", "import", "sample"].map(|text| Some(text.to_owned()))]);
    // From its beginning, as if a gateway had been there.
    execute(url, "update change_log_consumers set place = (select (min(xid::text::bigint)) || ':' || min(xid::text::bigint) || ':' from change_log)").await;
    let _gateway = Gateway::guarded(url).await;
    recorded(url).await;
    let external =
        texts(url, "select id from audit_logs where service_name = 'external' and resource_type <> 'model'")
            .await;
    assert_eq!(external.len(), 0);
    let told = told(url, 0).await;
    assert!(told.iter().all(|title| title.contains(" | An import ")), "{told:?}");
    assert!(told.len() > 10 && told.len() < 1_000, "{}", told.len());
    let project: Uuid = id_of(url, "projects", "moe-router").await;
    let summed: Vec<String> = column(
        url,
        &format!("select sum(coalesce((metadata ->> 'count')::int, 1)) from activity_feed where activity_type = 'evidence.created' and project_id = '{project}'"),
    )
    .await;
    let rows = column(url, &format!("select count(*) from evidence where project_id = '{project}'")).await;
    assert_eq!(summed, rows);
}
