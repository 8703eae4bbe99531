//! Agents whose heartbeat does not come: told when it happens, and to whoever comes while it lasts.

use super::*;

fn agent(name: &str, seconds: u32) -> String {
    format!(
        "insert into agents (name, type, agent_version, status, last_heartbeat_at)
         values ('{name}', 'worker', '1', 'active', now() - interval '{seconds} s')"
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_falls_silent_is_told_of() {
    let database = Database::empty().await;
    let url = &database.url;
    execute(url, &agent("late", 60)).await;
    execute(url, &agent("away", 60)).await;
    execute(url, "update agents set status = 'maintenance' where name = 'away'").await;
    let process = Process::start(url, &[]).await;
    let document = "subscription($filter: AgentFilter, $after: String) {
        agentChanged(silentAfterMs: 3000, filter: $filter, after: $after) { cursor operation at node { name } changedFields }
    }";
    let mut stream = process.watch(document, json!({}), &Viewer::admin()).await;
    let line = |event: &Value| {
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        (text(&event["operation"]), text(&event["node"]["name"]))
    };
    let is = |operation: &str, name: &str| (operation.to_owned(), name.to_owned());
    assert_eq!(line(&told(&next(&mut stream).await)), is("SILENT", "late"));
    execute(url, &agent("steady", 0)).await;
    assert_eq!(line(&told(&next(&mut stream).await)), is("CREATED", "steady"));
    execute(url, "update agents set last_heartbeat_at = now() where name = 'late'").await;
    let beat = told(&next(&mut stream).await);
    assert_eq!((line(&beat), &beat["changedFields"]), (is("UPDATED", "late"), &json!(["lastHeartbeatAt"])));
    let mut silent = vec![line(&told(&next(&mut stream).await)), line(&told(&next(&mut stream).await))];
    silent.sort();
    assert_eq!(silent, [is("SILENT", "late"), is("SILENT", "steady")]);
    is_quiet(&mut stream).await;

    // Who comes back is told what changed, and then who is silent by now; a filter holds for both.
    let filter = json!({"filter": {"type": {"eq": "worker"}}, "after": beat["cursor"]});
    let mut again = process.watch(document, filter, &Viewer::admin()).await;
    let mut silent = vec![line(&told(&next(&mut again).await)), line(&told(&next(&mut again).await))];
    silent.sort();
    assert_eq!(silent, [is("SILENT", "late"), is("SILENT", "steady")]);
    let mut others =
        process.watch(document, json!({"filter": {"type": {"eq": "x"}}}), &Viewer::admin()).await;
    is_quiet(&mut others).await;
    execute(url, "update agents set status = 'inactive' where name = 'late'").await;
    for stream in [&mut stream, &mut again] {
        assert_eq!(line(&told(&next(stream).await)), is("UPDATED", "late"));
    }
}

/// A clock that is wrong by ages is nobody's end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_of_the_far_future_is_not_silent() {
    let database = Database::empty().await;
    let url = &database.url;
    for (name, at) in [("far", "262142-12-31 23:59:59.9Z"), ("for ever", "infinity"), ("once", "-infinity")] {
        execute(url, &agent(name, 0)).await;
        execute(url, &format!("update agents set last_heartbeat_at = '{at}' where name = '{name}'")).await;
    }
    let process = Process::start(url, &[]).await;
    let document =
        "subscription { agentChanged(silentAfterMs: 86400000) { cursor operation node { name } } }";
    let mut stream = process.watch(document, json!({}), &Viewer::admin()).await;
    is_quiet(&mut stream).await;
    execute(url, "update agents set agent_version = '2' where name = 'far'").await;
    let event = told(&next(&mut stream).await);
    assert_eq!((&event["operation"], &event["node"]["name"]), (&json!("UPDATED"), &json!("far")));
    is_quiet(&mut stream).await;
}
