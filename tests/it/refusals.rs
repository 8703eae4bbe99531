//! What mutations refuse and in which words: whoever may not, rows that are not theirs, values out of bounds.

use std::collections::BTreeMap;

use evidence_gateway::model::mutation::{Field, Kind, MUTATIONS};
use evidence_gateway::model::viewer::{Role, Viewer};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::harness::{execute, id_of, member, sample_url, texts};
use crate::writes::{World, call, fill, id, outcome};

/// What mutations leave behind; what other programs did is written down later.
const TRAIL: &str = "audit_logs where service_name is null";

/// Inputs that name rows of a project, by role of the name.
fn referring() -> Vec<(&'static str, Value)> {
    let piece = json!({"projectId": "$project", "title": "T", "content": "c", "sourceType": "LOG"});
    vec![
        ("createTask", json!({"projectId": "$project", "title": "T", "intent": "i"})),
        ("createTask", json!({"parentTaskId": "$task", "title": "T", "intent": "i"})),
        ("updateTask", json!({"id": "$task", "title": "T"})),
        ("assignTask", json!({"id": "$task", "agentId": null})),
        ("transitionTask", json!({"id": "$task", "status": "PROCESSING"})),
        ("addTaskComment", json!({"taskId": "$task", "body": "b"})),
        ("addTaskResult", json!({"taskId": "$task", "resultType": "r", "content": 1})),
        (
            "attachToTask",
            json!({"taskId": "$task", "fileName": "f", "mediaType": "m", "sizeBytes": 1, "storagePath": "s"}),
        ),
        ("addEvidence", piece.clone()),
        ("addEvidences", json!({"evidences": [piece]})),
        ("verifyEvidence", json!({"id": "$evidence"})),
        ("rateEvidence", json!({"id": "$evidence", "credibilityScore": 0.1, "reason": "r"})),
        ("expireEvidence", json!({"id": "$evidence"})),
        (
            "relateEvidence",
            json!({"fromEvidenceId": "$evidence", "toEvidenceId": "$other", "kind": "RELATED"}),
        ),
        ("createChain", json!({"projectId": "$project", "claim": "c"})),
        ("appendChainLink", json!({"chainId": "$chain", "evidenceId": "$evidence", "role": "PREMISE"})),
        ("concludeChain", json!({"id": "$chain", "conclusion": "c"})),
        ("registerAgent", json!({"name": "", "type": "t", "agentVersion": "1"})),
        ("heartbeat", json!({"id": "$agent"})),
        ("setAgentStatus", json!({"id": "$agent", "status": "ACTIVE"})),
    ]
}

/// Every role and every mutation. Whoever may call it is told that the row is not there; the others are told nothing.
#[tokio::test]
async fn roles_say_who_may_write() {
    let world = World::new().await;
    let analysts = ["verifyEvidence", "rateEvidence", "relateEvidence"];
    let before = world.count(TRAIL).await;
    let nothing: BTreeMap<String, String> = ["project", "task", "evidence", "other", "chain", "agent"]
        .map(|name| (name.to_owned(), Uuid::now_v7().to_string()))
        .into();
    for (role, gateway) in [
        (Role::Viewer, world.person(Role::Viewer)),
        (Role::Analyst, world.person(Role::Analyst)),
        (Role::Agent, world.person(Role::Agent)),
        (Role::Agent, world.agent()),
        (Role::Admin, world.person(Role::Admin)),
    ] {
        let is_agent = gateway.ask("{ viewer { agentId } }").await["viewer"]["agentId"].is_string();
        for (name, mut input) in referring() {
            fill(&mut input, &nothing);
            let (code, text) = outcome(&call(&gateway, name, "id", input).await);
            let may = match name {
                "registerAgent" => role == Role::Admin,
                // Another agent's.
                "heartbeat" | "setAgentStatus" => role == Role::Admin,
                "verifyEvidence" if is_agent => false,
                name if analysts.contains(&name) => role >= Role::Analyst,
                _ => role >= Role::Agent,
            };
            let allowed = if name == "registerAgent" { "BAD_USER_INPUT" } else { "NOT_FOUND" };
            assert_eq!(code, if may { allowed } else { "FORBIDDEN" }, "{role:?} {name}: {text}");
        }
    }
    assert_eq!(world.count(TRAIL).await, before);
}

/// A row of another project is told from no row at all by nothing.
#[tokio::test]
async fn rows_of_others_are_not_there() {
    let world = World::new().await;
    let theirs: BTreeMap<String, String> = {
        let project = world.project;
        let query = format!(
            "select '{project}', (select id from tasks where project_id = '{project}' limit 1), \
             (select id from evidence where project_id = '{project}' order by id limit 1), \
             (select id from evidence where project_id = '{project}' order by id desc limit 1), \
             (select id from evidence_chains where project_id = '{project}' limit 1)"
        );
        let row = texts(&world.url, &query).await.remove(0).into_iter().map(Option::unwrap);
        ["project", "task", "evidence", "other", "chain"].map(str::to_owned).into_iter().zip(row).collect()
    };
    let nothing: BTreeMap<String, String> =
        theirs.keys().map(|name| (name.clone(), Uuid::now_v7().to_string())).collect();
    let elsewhere = id_of(&world.url, "projects", "frontend-ui").await;
    let (stranger, person) =
        (world.agent_in(elsewhere), Viewer { role: Role::Agent, ..member(Some(world.user), &[elsewhere]) });
    let person = world.gateway.viewed_by(&person);
    let before = world.count(TRAIL).await;
    for (name, input) in referring() {
        if ["registerAgent", "heartbeat", "setAgentStatus"].contains(&name) {
            continue;
        }
        let gateway = if name == "verifyEvidence" { &person } else { &stranger };
        let [mut hidden, mut absent] = [input.clone(), input];
        fill(&mut hidden, &theirs);
        fill(&mut absent, &nothing);
        let hidden = outcome(&call(gateway, name, "id", hidden).await);
        assert_eq!(hidden.0, "NOT_FOUND", "{name}");
        assert_eq!(hidden, outcome(&call(gateway, name, "id", absent).await), "{name}");
    }
    assert_eq!(world.count(TRAIL).await, before);

    // References into the other project from one's own are refused alike, and rows of two visible projects do not mix.
    let task = id(&call(
        &stranger,
        "createTask",
        "id",
        json!({"projectId": elsewhere, "title": "t", "intent": "i"}),
    )
    .await);
    let mixed = json!({"taskId": task, "projectId": world.project, "title": "T", "content": "c", "sourceType": "LOG"});
    assert_eq!(outcome(&call(&stranger, "addEvidence", "id", mixed.clone()).await).0, "NOT_FOUND");
    let (code, text) = outcome(&call(&world.gateway, "addEvidence", "id", mixed).await);
    assert_eq!((code.as_str(), text.as_str()), ("BAD_USER_INPUT", "input.taskId belongs to another project"));

    // A member who is there as a viewer reads only, whatever their role elsewhere.
    execute(
        &world.url,
        &format!(
            "update project_members set role = 'viewer'; insert into project_members \
        (project_id, user_id, role) values ('{elsewhere}', '{}', 'viewer') on conflict do nothing",
            world.user
        ),
    )
    .await;
    for (name, input) in [
        ("updateTask", json!({"id": task, "title": "T"})),
        ("addTaskComment", json!({"taskId": task, "body": "b"})),
    ] {
        assert_eq!(outcome(&call(&person, name, "id", input).await).0, "FORBIDDEN", "{name}");
    }
}

/// The bounds that are checked here are the bounds of the tables, so that no CHECK has to speak.
#[tokio::test]
async fn bounds_are_the_checks() {
    let query = "select conname, regexp_replace(pg_get_constraintdef(oid), '[()]|::[a-z ]+', '', 'g') from pg_constraint where contype = 'c'";
    let checks: BTreeMap<_, _> = texts(&sample_url(), query)
        .await
        .into_iter()
        .map(|mut row| (row[0].take().unwrap(), row[1].take().unwrap()))
        .collect();
    let mut compared = 0;
    let mut compare = |table: &str, field: &Field| {
        let column = field.column;
        let bound = match field.kind {
            Kind::Text(64, 64) => return,
            Kind::Text(0, most) => format!("CHECK char_length{column} <= {most}"),
            Kind::Text(least, most) => {
                format!("CHECK char_length{column} >= {least} AND char_length{column} <= {most}")
            }
            Kind::Int(least, i32::MAX) => format!("CHECK {column} >= {least}"),
            Kind::Int(least, most) => format!("CHECK {column} >= {least} AND {column} <= {most}"),
            Kind::BigInt(least) => format!("CHECK {column} >= {least}"),
            Kind::Float(least, most) => format!("CHECK {column} >= {least} AND {column} <= {most}"),
            _ => return,
        };
        if !column.is_empty() {
            // A conclusion may be empty in the table; whoever concludes says something.
            let bound = bound.replace("char_lengthconclusion >= 1 AND ", "");
            assert_eq!(checks.get(&format!("{table}_{column}_check")), Some(&bound), "{table}.{column}");
            compared += 1;
        }
    };
    for mutation in MUTATIONS {
        for field in mutation.fields {
            match field.kind {
                Kind::Items(_, items, _) => items.iter().for_each(|field| compare(mutation.table, field)),
                _ => compare(mutation.table, field),
            }
        }
    }
    assert!(compared >= 50, "{compared}");
}

/// What is not as it should be is the client's mistake, named by its place, and never a fault of ours.
#[tokio::test]
async fn hostile_inputs_are_refused_by_name() {
    let world = World::new().await;
    let agent = world.agent();
    let task = |field: &str, value: Value| {
        let mut input = json!({"projectId": world.project, "title": "t", "intent": "i"});
        input[field] = value;
        ("createTask", format!("input.{field}"), input)
    };
    let piece = |field: &str, value: Value| {
        let mut input = world.piece("content");
        input[field] = value;
        ("addEvidence", format!("input.{field}"), input)
    };
    let deep = (0..25).fold(json!("\u{0}"), |inner, _| json!([inner]));
    for (name, place, input) in [
        task("title", json!("a\u{0}b")),
        task("title", json!("")),
        task("title", json!("x".repeat(501))),
        task("priority", json!(6)),
        task("priority", json!(-2_147_483_648)),
        task("maxRetries", json!(101)),
        task("content", json!({"deep": deep})),
        task("content", json!({"\u{0}": 1})),
        task("tags", json!(vec!["x"; 101])),
        task("tags", json!(["x".repeat(2_501)])),
        task("tags", json!(["\u{0}"])),
        task("dueAt", json!("0000-01-01T00:00:00Z")),
        task("dueAt", json!("now")),
        task("dueAt", json!("2026-13-01T00:00:00Z")),
        task("githubUrl", json!("x".repeat(2_049))),
        task("idempotencyKey", json!("a b")),
        task("idempotencyKey", json!("x".repeat(201))),
        piece("content", json!("")),
        piece("content", json!("\u{0}")),
        piece("credibilityScore", json!(1.000_001)),
        piece("credibilityScore", json!(-1e308)),
        piece("language", json!("x".repeat(36))),
    ] {
        let (code, text) = outcome(&call(&agent, name, "id", input.clone()).await);
        assert_eq!(code, "BAD_USER_INPUT", "{input}");
        assert!(text.starts_with(&place), "{text}");
    }
    // These are known to be wrong before anything is executed, or are odd and good.
    for (name, place, input) in [
        task("priority", json!(3_000_000_000_u64)),
        task("priority", json!(1.5)),
        task("title", json!(7)),
        task("nothing", json!(7)),
        task("parentTaskId", json!("../etc")),
        piece("sourceType", json!("NOTHING")),
        task("content", json!([1])),
        task("content", json!({"huge": 1e300, "tiny": 5e-324, "long": 18_446_744_073_709_551_615_u64})),
        task("dueAt", json!("9999-12-31T23:59:60.999999999Z")),
        task("title", json!("'; drop table tasks; -- \u{202e}\u{feff}")),
        task("tags", json!(["{\"a\"}", "", "null", "\\"])),
    ] {
        let answer = call(&agent, name, "id", input).await;
        let code = answer.body["errors"][0]["extensions"]["code"].as_str().unwrap_or("OK");
        assert!(["OK", "BAD_USER_INPUT"].contains(&code), "{place}: {}", answer.text);
    }
}
