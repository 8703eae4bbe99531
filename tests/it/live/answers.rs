//! Live queries: one execution for all who ask the same, an answer for each change that touches it, and patches that
//! lead from one to the next.

use super::operations::PROJECTS;
use super::*;
use crate::harness::member;

const DOCUMENT: &str = "query($patch: Boolean) @live(throttleMs: 10, patch: $patch) {
    tasks(filter: {priority: {gte: 3}}, first: 50, orderBy: [{field: TITLE}]) { nodes { title priority } totalCount }
}";

async fn body(stream: &mut Stream) -> Value {
    serde_json::from_slice(&next(stream).await.body).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_comes_again_when_it_changes() {
    let database = Database::empty().await;
    let url = &database.url;
    super::operations::prepare(url).await;
    let process = Process::start(url, &[]).await;
    let viewer = member(None, &PROJECTS);
    let before = process.app.db.pool_state().statements;
    let mut streams = Vec::new();
    for _ in 0..50 {
        streams.push(process.watch(DOCUMENT, json!({}), &viewer).await);
    }
    let rest = |titles: &[&str]| {
        let nodes: Vec<_> = titles.iter().map(|title| json!({"title": title, "priority": 3})).collect();
        json!({"data": {"tasks": {"nodes": nodes, "totalCount": titles.len()}}})
    };
    for stream in &mut streams {
        assert_eq!(body(stream).await, rest(&["a", "b"]));
    }
    let cost = process.app.db.pool_state().statements - before;
    assert_eq!(cost, 2);
    execute(url, "update tasks set title = 'c' where title = 'a'").await;
    for stream in &mut streams {
        assert_eq!(body(stream).await, rest(&["b", "c"]));
    }
    assert_eq!(process.app.db.pool_state().statements - before, 2 * cost);

    // What touches nothing of it costs nothing, and what leaves it as it is is not sent.
    execute(url, "insert into tasks (project_id, title, intent, priority) select project_id, 'x', 'i', 1 from tasks limit 1").await;
    execute(url, "update tasks set content = '{\"a\": 1}' where title = 'b'").await;
    is_quiet(&mut streams[0]).await;
    // Nor do others learn of other projects' rows.
    let mut other = process.watch(DOCUMENT, json!({}), &member(None, &PROJECTS[..1])).await;
    assert_eq!(body(&mut other).await, rest(&["c"]));
    execute(url, "update tasks set title = 'd' where title = 'b'").await;
    assert_eq!(body(&mut streams[7]).await, rest(&["c", "d"]));
    is_quiet(&mut other).await;

    // Who was slow gets the newest alone.
    execute(url, "update tasks set title = 'e' where title = 'd'").await;
    assert_eq!(body(&mut streams[7]).await, rest(&["c", "e"]));
    assert_eq!(body(&mut streams[0]).await, rest(&["c", "e"]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn patches_lead_from_each_answer_to_the_next() {
    let database = Database::empty().await;
    let url = &database.url;
    super::operations::prepare(url).await;
    // Enough of them that a patch is shorter than the whole.
    let many = "insert into tasks (project_id, title, intent) select p.id, 'many ' || n, 'i' from generate_series(10, 19) n, projects p";
    execute(url, many).await;
    let process = Process::start(url, &[]).await;
    let viewer = member(None, &PROJECTS);
    let mut whole = process.watch(DOCUMENT, json!({}), &viewer).await;
    let mut prompt = process.watch(DOCUMENT, json!({"patch": true}), &viewer).await;
    let mut slow = process.watch(DOCUMENT, json!({"patch": true}), &viewer).await;
    let mut first = body(&mut prompt).await;
    assert_eq!((&first["revision"], &body(&mut slow).await["revision"]), (&json!(1), &json!(1)));
    let mut data = first["data"].take();
    body(&mut whole).await;
    for n in 0..6 {
        let change = match n % 3 {
            0 => format!("update tasks set priority = 5 where title = 'many 1{n}'"),
            1 => format!(
                "insert into tasks (project_id, title, intent, priority) select project_id, 'u{n}', 'i', 4 from tasks limit 1"
            ),
            _ => "delete from tasks where title = (select max(title) from tasks)".to_owned(),
        };
        execute(url, &change).await;
        let answer = body(&mut whole).await;
        let patch = body(&mut prompt).await;
        match patch.get("patch") {
            Some(steps) => {
                assert_eq!(patch["revision"], n + 2, "{patch}");
                json_patch::patch(
                    &mut data,
                    &serde_json::from_value::<json_patch::Patch>(steps.clone()).unwrap(),
                )
                .unwrap();
            }
            None => panic!("{patch}"),
        }
        assert_eq!(data, answer["data"]);
    }
    // Who missed some gets a whole one, and patches from there.
    let caught = body(&mut slow).await;
    assert_eq!((&caught["revision"], &caught["data"]), (&json!(1), &data));
    execute(url, "update tasks set priority = 4 where title = 'many 19'").await;
    assert_eq!(body(&mut slow).await["revision"], 2);
}
