//! API keys from the command that makes them to the one that withdraws them.

use std::time::{Duration, Instant};

use evidence_gateway::http::viewer::Access;
use serde_json::{Value, json};

use crate::harness::{Database, Gateway, SECRET, column, execute, id_of, secret};
use crate::settings::{output, program};

/// How long the gateways of these tests believe what they looked up.
const LIFETIME_MS: &str = "300";
const LIFETIME: Duration = Duration::from_millis(300);

/// `keys …` as an operator types it: exit code, stdout, stderr.
fn run(url: &str, line: &[&str]) -> (Option<i32>, String, String) {
    output(program().arg("keys").args(line).args(["--database-url", url]))
}

pub(crate) fn create(url: &str, line: &[&str]) -> String {
    let (code, stdout, stderr) = run(url, &[&["create", "--name", "of a test"], line].concat());
    assert_eq!((code, stdout.lines().count()), (Some(0), 1), "{stderr}");
    let key = stdout.trim_end().to_owned();
    let (prefix, random) = (&key[..12], &key[13..]);
    assert!(prefix.starts_with("egk_") && key.as_bytes()[12] == b'_' && random.len() == 43, "{key}");
    assert!(!stderr.contains(random), "{stderr}");
    key
}

async fn gateway(url: &str) -> Gateway {
    Gateway::start(url, &["--identity-cache-ms", LIFETIME_MS], Access::Tokens(secret())).await
}

/// What the bearer of a key sees, or the status of the refusal.
async fn seen(gateway: &Gateway, header: &str, value: &str) -> Result<Value, u16> {
    let document =
        "{ viewer { role allProjects user { username } agent { name } } projects { nodes { slug } } }";
    let request = gateway.client.post(format!("{}/graphql", gateway.url)).header(header, value);
    let response = request.json(&json!({"query": document})).send().await.unwrap();
    if response.status() != 200 {
        return Err(response.status().as_u16());
    }
    let mut data = response.json::<Value>().await.unwrap()["data"].take();
    let nodes = data["projects"]["nodes"].as_array().unwrap();
    let mut slugs: Vec<_> = nodes.iter().map(|node| node["slug"].as_str().unwrap().to_owned()).collect();
    slugs.sort();
    data["projects"] = json!(slugs.join(" "));
    Ok(data)
}

async fn by(gateway: &Gateway, key: &str) -> Result<Value, u16> {
    seen(gateway, "authorization", &format!("Bearer {key}")).await
}

/// Asks until the answer is so; the gateway writes some things down after it has answered.
async fn until(what: &str, url: &str, query: &str, expected: &str) {
    let begun = Instant::now();
    while column(url, query).await != [expected] {
        assert!(begun.elapsed() < Duration::from_secs(10), "{what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_key_sees_what_its_holder_may() {
    let database = Database::sample().await;
    let url = &database.url;
    let engineer = id_of(url, "users", "engineer-2").await.to_string();
    let agent = id_of(url, "agents", "reviewer").await.to_string();
    let [router, ui] =
        [id_of(url, "projects", "moe-router").await, id_of(url, "projects", "frontend-ui").await]
            .map(|id| id.to_string());
    let gateway = gateway(url).await;
    let viewer = |role: &str, all: bool, user: Option<&str>, agent: Option<&str>, projects: &str| {
        let named = |key: &str, name: Option<&str>| name.map(|name| json!({key: name}));
        json!({"viewer": {"role": role, "allProjects": all, "user": named("username", user), "agent": named("name", agent)},
            "projects": projects})
    };
    let all = "agent-library ai-engineering-platform frontend-ui integration-hub moe-router";
    let user = Some("engineer-2");
    for (line, expected) in [
        (&["--role", "admin"][..], viewer("ADMIN", true, None, None, all)),
        (&["--role", "admin", "--project", &ui], viewer("ADMIN", false, None, None, "frontend-ui")),
        (&["--role", "analyst"], viewer("ANALYST", false, None, None, "")),
        (
            &["--role", "viewer", "--user", &engineer],
            viewer("VIEWER", false, user, None, "agent-library frontend-ui"),
        ),
        // Neither its role nor its list of projects is more than the user's own.
        (
            &["--role", "admin", "--user", &engineer],
            viewer("ANALYST", false, user, None, "agent-library frontend-ui"),
        ),
        (
            &["--role", "analyst", "--user", &engineer, "--project", &ui, "--project", &router],
            viewer("ANALYST", false, user, None, "frontend-ui"),
        ),
        (&["--role", "agent", "--agent", &agent], viewer("AGENT", false, None, Some("reviewer"), "")),
        (
            &["--role", "agent", "--agent", &agent, "--project", &ui, "--project", &router],
            viewer("AGENT", false, None, Some("reviewer"), "frontend-ui moe-router"),
        ),
    ] {
        let key = create(url, line);
        assert_eq!(by(&gateway, &key).await, Ok(expected.clone()), "{line:?}");
        assert_eq!(seen(&gateway, "x-api-key", &key).await, Ok(expected), "{line:?}");
        // One character less, more or other is no key.
        for wrong in
            [key[..55].to_owned(), format!("{key}A"), key.replace("egk_", "egK_"), key[..12].to_owned()]
        {
            assert_eq!(by(&gateway, &wrong).await, Err(401), "{wrong}");
        }
        let random = &key[13..];
        let rows = column(url, "select row_to_json(k)::text from api_keys k").await;
        assert!(rows.iter().all(|row| !row.contains(random)), "{rows:?}");
    }
    for (line, wrong) in [
        (&["--user", &agent][..], "--user"),
        (&["--agent", &engineer], "--agent"),
        (&["--project", &agent], "--project"),
        (&["--user", &engineer, "--agent", &agent], "error"),
        (&["--role", "root"], "error"),
        (&["--expires-in-s", "0"], "--expires-in-s"),
    ] {
        let (code, stdout, stderr) =
            run(url, &[&["create", "--name", "x", "--role", "viewer"], line].concat());
        assert!(code != Some(0) && stdout.is_empty() && stderr.starts_with(wrong), "{line:?} {stderr}");
    }
}

#[tokio::test]
async fn a_key_ends_within_the_time_that_it_is_believed() {
    let database = Database::sample().await;
    let url = &database.url;
    let gateway = gateway(url).await;
    let engineer = id_of(url, "users", "engineer-2").await;
    let agent = id_of(url, "agents", "reviewer").await;
    let key = create(url, &["--role", "admin"]);
    let users = create(url, &["--role", "viewer", "--user", &engineer.to_string()]);
    let agents = create(url, &["--role", "admin", "--agent", &agent.to_string()]);
    let short = create(url, &["--role", "admin", "--expires-in-s", "2"]);
    let made = Instant::now();
    for key in [&key, &users, &agents, &short] {
        assert!(by(&gateway, key).await.is_ok());
    }
    let (code, stdout, stderr) = run(url, &["revoke", &key[..12]]);
    assert_eq!((code, stdout.as_str(), stderr), (Some(0), "", format!("{} is revoked\n", &key[..12])));
    execute(url, &format!("delete from project_members where user_id = '{engineer}'")).await;
    execute(url, &format!("update agents set deleted_at = now() where id = '{agent}'")).await;
    tokio::time::sleep(LIFETIME).await;
    assert_eq!(by(&gateway, &key).await, Err(401));
    assert_eq!(by(&gateway, &users).await.unwrap()["projects"], "");
    assert_eq!(by(&gateway, &agents).await, Err(401));
    execute(url, &format!("update users set deleted_at = now() where id = '{engineer}'")).await;
    tokio::time::sleep((Duration::from_secs(2) + LIFETIME).saturating_sub(made.elapsed()).max(LIFETIME))
        .await;
    assert_eq!(by(&gateway, &users).await, Err(401));
    assert_eq!(by(&gateway, &short).await, Err(401));

    let id = column(url, &format!("select id from api_keys where prefix = '{}'", &users[..12]))
        .await
        .swap_remove(0);
    assert_eq!(run(url, &["revoke", &id]).0, Some(0));
    // Withdrawn is withdrawn: the moment stays the first one.
    let moment =
        || async { column(url, &format!("select revoked_at from api_keys where id = '{id}'")).await };
    let first = moment().await;
    assert_eq!(run(url, &["revoke", &id]).0, Some(0));
    assert_eq!(moment().await, first);
    let (code, _, stderr) = run(url, &["revoke", "egk_nothing1"]);
    assert_eq!((code, stderr.as_str()), (Some(1), "egk_nothing1 is no key's prefix or id\n"));
    execute(url, "update api_keys set prefix = 'egk_twins'").await;
    assert_eq!(run(url, &["revoke", "egk_twins"]).0, Some(1));
}

#[tokio::test]
async fn the_list_shows_what_became_of_each_key() {
    let database = Database::sample().await;
    let url = &database.url;
    let gateway = gateway(url).await;
    let used = create(url, &["--role", "admin", "--expires-in-s", "86400"]);
    let agent = id_of(url, "agents", "reviewer").await.to_string();
    let other = create(url, &["--role", "agent", "--agent", &agent]);
    assert_eq!(run(url, &["create", "--name", "tab\tand\x1b[31m", "--role", "viewer"]).0, Some(0));
    assert!(by(&gateway, &used).await.is_ok());
    let noted =
        format!("select (last_used_at is not null)::text from api_keys where prefix = '{}'", &used[..12]);
    until("the use is written down", url, &noted, "true").await;
    assert_eq!(run(url, &["revoke", &other[..12]]).0, Some(0));
    let (code, stdout, stderr) = run(url, &["list"]);
    assert_eq!((code, stderr.as_str()), (Some(0), ""));
    let rows: Vec<Vec<&str>> = stdout.lines().map(|line| line.split('\t').collect()).collect();
    assert_eq!(rows[0], ["prefix", "name", "role", "holder", "expires", "last used", "revoked"]);
    assert_eq!(rows.len(), 4);
    // Which of the two times are there.
    let shape = |row: &[&str]| row[4..].iter().map(|cell| *cell != "-").collect::<Vec<_>>();
    assert_eq!(
        (&rows[1][..4], shape(&rows[1])),
        (&[&used[..12], "of a test", "admin", "-"][..], vec![true, true, false])
    );
    assert_eq!(
        (&rows[2][..4], shape(&rows[2])),
        (&[&other[..12], "of a test", "agent", "agent reviewer"][..], vec![false, false, true])
    );
    assert_eq!(rows[3][1], "tab\u{fffd}and\u{fffd}[31m");
    assert!(!stdout.contains(&used[13..]));

    // Once a minute, not more: a use that is half a minute old stands, an older one is written anew.
    for (age, stays) in [("30 seconds", "true"), ("2 minutes", "false")] {
        execute(url, &format!("update api_keys set last_used_at = now() - interval '{age}'")).await;
        tokio::time::sleep(LIFETIME).await;
        assert!(by(&gateway, &used).await.is_ok());
        let old = format!(
            "select (last_used_at < now() - interval '20 seconds')::text from api_keys where prefix = '{}'",
            &used[..12]
        );
        if stays == "true" {
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        until(age, url, &old, stays).await;
    }
}

/// Thousands of requests of one agent do not ask the database each time who it is.
#[tokio::test]
async fn a_key_is_looked_up_once_in_a_while() {
    let database = Database::sample().await;
    let url = &database.url;
    let gateway = Gateway::start(url, &["--identity-cache-ms", "10000"], Access::Tokens(secret())).await;
    let key = create(url, &["--role", "admin"]);
    assert!(by(&gateway, &key).await.is_ok());
    let noted = "select (last_used_at is not null)::text from api_keys";
    until("the use is written down", url, noted, "true").await;
    execute(url, "alter table api_keys rename to elsewhere").await;
    for _ in 0..50 {
        assert!(by(&gateway, &key).await.is_ok());
    }
    // A key that it does not remember shows that the table is really gone, and says nothing of it.
    assert_eq!(by(&gateway, &key.replace("egk_", "egk-")).await, Err(401));
    assert_eq!(seen(&gateway, "x-api-key", "unknown").await, Err(500));
}

/// `token` signs for agents too.
#[tokio::test]
async fn a_token_speaks_for_an_agent() {
    let database = Database::sample().await;
    let gateway = gateway(&database.url).await;
    let agent = id_of(&database.url, "agents", "reviewer").await.to_string();
    let project = id_of(&database.url, "projects", "moe-router").await.to_string();
    let line =
        ["token", "--role", "agent", "--agent", &agent, "--project", &project, "--token-secret", SECRET];
    let (code, token, stderr) = output(program().args(line));
    assert_eq!((code, stderr.as_str()), (Some(0), ""));
    let seen = by(&gateway, token.trim()).await.unwrap();
    let viewer = json!({"role": "AGENT", "allProjects": false, "user": null, "agent": {"name": "reviewer"}});
    assert_eq!(seen, json!({"viewer": viewer, "projects": "moe-router"}));
}
