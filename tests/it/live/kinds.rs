//! What can be watched, one by one and all together: who is told of which row.

use futures_util::future::join_all;
use uuid::Uuid;

use super::operations::PROJECTS;
use super::*;
use crate::harness::member;

const PERSONS: [Uuid; 2] = [Uuid::from_u128(0xb1), Uuid::from_u128(0xb2)];

/// A field, its entity, a row that comes, and whether it is told to one of the first project, to another one of it, and
/// to one of the second.
#[rustfmt::skip]
const ROWS: &[(&str, &str, &str, [bool; 3])] = &[
    ("evidenceChanged", "EVIDENCE", "evidence (id, project_id, title, content, source_type) values ('{id}', '{one}', 't', 'c', 'log')", [true, true, false]),
    ("chainChanged", "EVIDENCE_CHAIN", "evidence_chains (id, project_id, claim) values ('{id}', '{two}', 'c')", [false, false, true]),
    ("agentChanged", "AGENT", "agents (id, name, type, agent_version) values ('{id}', 'a', 'worker', '1')", [true, true, true]),
    ("executionChanged", "AGENT_EXECUTION", "agent_executions (id, agent_id, project_id) select '{id}', id, '{one}' from agents", [true, true, false]),
    ("activity", "ACTIVITY", "activity_feed (id, project_id, activity_type, title) values ('{id}', '{one}', 'x', 't')", [true, true, false]),
    ("activity", "ACTIVITY", "activity_feed (id, activity_type, title, visibility) values ('{id}', 'x', 't', 'public')", [true, true, true]),
    ("activity", "ACTIVITY", "activity_feed (id, project_id, activity_type, title, visibility, actor_user_id) values ('{id}', '{two}', 'x', 't', 'private', '{person}')", [true, false, false]),
    ("taskChanged", "TASK", "tasks (id, project_id, title, intent) values ('{id}', '{two}', 't', 'i')", [false, false, true]),
];

fn id(n: usize) -> String {
    Uuid::from_u128(0x100 + n as u128).to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_kind_is_told_to_those_who_may_see_it() {
    let database = Database::empty().await;
    let url = &database.url;
    super::operations::prepare(url).await;
    for person in PERSONS {
        let user = format!(
            "insert into users (id, username, display_name) values ('{person}', '{person}', 'A person')"
        );
        execute(url, &user).await;
    }
    let process = Process::start(url, &[]).await;
    let viewers = [
        member(Some(PERSONS[0]), &PROJECTS[..1]),
        member(Some(PERSONS[1]), &PROJECTS[..1]),
        member(None, &PROJECTS[1..]),
    ];
    let mut fields: Vec<&str> = ROWS.iter().map(|(field, ..)| *field).collect();
    fields.dedup();
    let mut streams = Vec::new();
    for (n, viewer) in viewers.iter().enumerate() {
        let told_of = |belongs: &dyn Fn(&str, &str) -> bool| -> Vec<(String, &str)> {
            let rows = ROWS
                .iter()
                .enumerate()
                .filter(|(_, (field, entity, _, told))| told[n] && belongs(field, entity));
            rows.map(|(row, (_, entity, ..))| (id(row), *entity)).collect()
        };
        for field in &fields {
            let document = format!("subscription {{ {field} {{ cursor operation id node {{ id }} }} }}");
            let expected = told_of(&|of, _| of == *field);
            streams.push((expected, process.watch(&document, json!({}), viewer).await));
        }
        for (entities, named) in [("", None), ("(entities: [ACTIVITY, TASK])", Some(["ACTIVITY", "TASK"]))] {
            let document = format!(
                "subscription {{ changes{entities} {{ cursor operation entity id node {{ id __typename }} }} }}"
            );
            let expected = told_of(&|_, entity| named.is_none_or(|named| named.contains(&entity)));
            streams.push((expected, process.watch(&document, json!({}), viewer).await));
        }
    }
    for (n, (.., row, _)) in ROWS.iter().enumerate() {
        let [one, two] = PROJECTS.map(|id| id.to_string());
        let row = row.replace("{id}", &id(n)).replace("{one}", &one).replace("{two}", &two);
        execute(url, &format!("insert into {}", row.replace("{person}", &PERSONS[0].to_string()))).await;
    }
    join_all(streams.into_iter().map(async |(expected, mut stream)| {
        for (id, entity) in expected {
            let event = told(&next(&mut stream).await);
            assert_eq!((&event["operation"], &event["id"]), (&json!("CREATED"), &json!(id)), "{entity}");
            assert_eq!(event["node"]["id"], json!(id));
            assert!(event.get("entity").is_none_or(|told| *told == json!(entity)), "{event}");
        }
        is_quiet(&mut stream).await;
    }))
    .await;
}
