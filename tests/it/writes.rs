//! Mutations, end to end: what each writes, what it costs and what it leaves in the audit trail; how tasks
//! move, and what becomes of writers who meet.

use std::collections::BTreeMap;

use diesel_async::AsyncPgConnection;
use evidence_gateway::http::viewer::Access;
use evidence_gateway::model::mutation::{MUTATIONS, mutation};
use evidence_gateway::model::task::STATUS;
use evidence_gateway::model::viewer::{Projects, Role, Viewer};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::harness::{Answer, Database, Gateway, column, execute, id_of, member, secret, texts};

/// A database to write to, its gateway, and a project in which to do so.
pub(crate) struct World {
    pub(crate) url: String,
    pub(crate) gateway: Gateway,
    /// The project of the agent.
    pub(crate) project: Uuid,
    pub(crate) agent: Uuid,
    pub(crate) user: Uuid,
    database: Database,
}

impl World {
    pub(crate) async fn new() -> Self {
        let database = Database::sample().await;
        let url = database.url.clone();
        let gateway = Gateway::guarded(&url).await;
        let project = id_of(&url, "projects", "moe-router").await;
        let agent = id_of(&url, "agents", "reviewer").await;
        let user = id_of(&url, "users", "engineer-1").await;
        execute(&url, "update users set role = 'admin' where external_id = 'engineer-1'").await;
        Self { url, gateway, project, agent, user, database }
    }

    /// A person of the project, in a role.
    pub(crate) fn person(&self, role: Role) -> Gateway {
        self.gateway.viewed_by(&Viewer { role, ..member(Some(self.user), &[self.project]) })
    }

    /// The agent, at work in a project.
    pub(crate) fn agent_in(&self, project: Uuid) -> Gateway {
        let agent = Viewer { projects: Projects::Only([project].into()), ..self.agent_viewer() };
        self.gateway.viewed_by(&agent)
    }

    pub(crate) fn agent_viewer(&self) -> Viewer {
        Viewer { agent_id: Some(self.agent), role: Role::Agent, ..member(None, &[self.project]) }
    }

    pub(crate) fn agent(&self) -> Gateway {
        self.agent_in(self.project)
    }

    pub(crate) async fn connect(&self) -> AsyncPgConnection {
        self.database.connect().await
    }

    pub(crate) async fn count(&self, table: &str) -> String {
        column(&self.url, &format!("select count(*) from {table}")).await.swap_remove(0)
    }

    pub(crate) async fn task(&self) -> String {
        let input = json!({"projectId": self.project, "title": "A task", "intent": "test"});
        id(&call(&self.agent(), "createTask", "id", input).await)
    }

    pub(crate) async fn evidence(&self, content: &str) -> String {
        id(&call(&self.agent(), "addEvidence", "id", self.piece(content)).await)
    }

    pub(crate) fn piece(&self, content: &str) -> Value {
        json!({"projectId": self.project, "title": "A piece", "content": content, "sourceType": "LOG"})
    }
}

/// Calls a mutation.
pub(crate) async fn call(gateway: &Gateway, name: &str, selection: &str, input: Value) -> Answer {
    let ty = mutation(name).unwrap().input_name();
    let document = format!("mutation ($input: {ty}!) {{ it: {name}(input: $input) {{ {selection} }} }}");
    gateway.request(&document, json!({"input": input})).await
}

pub(crate) fn id(answer: &Answer) -> String {
    let id = answer.body["data"]["it"]["id"].as_str();
    id.unwrap_or_else(|| panic!("{}", answer.text)).to_owned()
}

/// Code and text of the first error, or `OK`.
pub(crate) fn outcome(answer: &Answer) -> (String, String) {
    let error = &answer.body["errors"][0];
    if error.is_null() {
        assert!(!answer.body["data"]["it"].is_null(), "{}", answer.text);
        return ("OK".to_owned(), String::new());
    }
    assert!(answer.body["data"]["it"].is_null(), "{}", answer.text);
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    (text(&error["extensions"]["code"]), text(&error["message"]))
}

/// Mutation; selection; input, in which `$name` stands for the id that the case of that name gave; what comes back;
/// statements; the trail.
pub(crate) type Case = (&'static str, &'static str, Value, Value, u64, &'static [&'static str]);

#[rustfmt::skip]
pub(crate) fn cases() -> Vec<Case> {
    vec![
        ("createTask", "title status priority tags project { slug } createdByAgent { name }",
            json!({"projectId": "$project", "title": "Look \u{1f50d} into it", "intent": "review", "priority": 5, "tags": ["a", "b"], "content": {"n": [1, 2.5, null]}, "dueAt": "2030-01-01T00:00:00+01:00"}),
            json!({"title": "Look \u{1f50d} into it", "status": "PENDING", "priority": 5, "tags": ["a", "b"], "project": {"slug": "moe-router"}, "createdByAgent": {"name": "reviewer"}}),
            8, &["task.created"]),
        ("updateTask", "title category dueAt version content",
            json!({"id": "$createTask", "category": "bug", "dueAt": null, "expectedVersion": 1}),
            json!({"title": "Look \u{1f50d} into it", "category": "bug", "dueAt": null, "version": 2, "content": {"n": [1, 2.5, null]}}),
            6, &["task.updated"]),
        ("assignTask", "assignedAgent { name } assignedUser { id }", json!({"id": "$createTask", "agentId": "$agent"}),
            json!({"assignedAgent": {"name": "reviewer"}, "assignedUser": null}), 8, &["task.assigned"]),
        ("transitionTask", "status startedAt", json!({"id": "$createTask", "status": "PROCESSING"}),
            json!({"status": "PROCESSING"}), 6, &["task.started"]),
        ("addTaskComment", "body authorAgent { name } task { id }", json!({"taskId": "$createTask", "body": "Well."}),
            json!({"body": "Well.", "authorAgent": {"name": "reviewer"}, "task": {"id": "$createTask"}}), 8, &["task_comment.created"]),
        ("addTaskResult", "resultType content agent { name }", json!({"taskId": "$createTask", "resultType": "score", "content": [0.5]}),
            json!({"resultType": "score", "content": [0.5], "agent": {"name": "reviewer"}}), 7, &["task_result.created"]),
        ("attachToTask", "fileName sizeBytes", json!({"taskId": "$createTask", "fileName": "a.txt", "mediaType": "text/plain", "sizeBytes": "9007199254740993", "storagePath": "bucket/a"}),
            json!({"fileName": "a.txt", "sizeBytes": "9007199254740993"}), 6, &["task_attachment.created"]),
        ("addEvidence", "contentHash domain credibilityScore agent { name } project { slug }", json!({"taskId": "$createTask", "title": "T", "content": "abc", "sourceType": "LOG"}),
            json!({"contentHash": "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad", "domain": "GENERAL", "credibilityScore": 0.5, "agent": {"name": "reviewer"}, "project": {"slug": "moe-router"}}),
            10, &["evidence.created"]),
        ("addEvidences", "title", json!({"evidences": [{"taskId": "$createTask", "title": "One", "content": "one", "sourceType": "LOG"}, {"taskId": "$createTask", "title": "Two", "content": "two", "sourceType": "ISSUE", "credibilityScore": 1}]}),
            json!([{"title": "One"}, {"title": "Two"}]), 8, &["evidence.created", "evidence.created"]),
        ("rateEvidence", "credibilityScore version credibilityHistory { nodes { oldScore newScore reason changedByAgent { name } } }",
            json!({"id": "$addEvidence", "credibilityScore": 0.9, "reason": "two sources", "expectedVersion": 1}),
            json!({"credibilityScore": 0.9, "version": 2, "credibilityHistory": {"nodes": [{"oldScore": 0.5, "newScore": 0.9, "reason": "two sources", "changedByAgent": {"name": "reviewer"}}]}}),
            9, &["credibility_change.created", "evidence.rated"]),
        ("expireEvidence", "expiresAt", json!({"id": "$addEvidence", "expiresAt": "2040-01-01T00:00:00Z"}),
            json!({"expiresAt": "2040-01-01T00:00:00Z"}), 6, &["evidence.expired"]),
        ("relateEvidence", "kind strength from { id } createdByAgent { name }", json!({"fromEvidenceId": "$addEvidence", "toEvidenceId": "$addEvidences", "kind": "SUPPORTS", "strength": 0.25}),
            json!({"kind": "SUPPORTS", "strength": 0.25, "from": {"id": "$addEvidence"}, "createdByAgent": {"name": "reviewer"}}), 8, &["evidence_relation.created"]),
        ("createChain", "claim status task { id } project { slug }", json!({"taskId": "$createTask", "claim": "It holds"}),
            json!({"claim": "It holds", "status": "OPEN", "task": {"id": "$createTask"}, "project": {"slug": "moe-router"}}), 8, &["evidence_chain.created"]),
        ("appendChainLink", "position role chain { depth }", json!({"chainId": "$createChain", "evidenceId": "$addEvidence", "role": "PREMISE"}),
            json!({"position": 0, "role": "PREMISE", "chain": {"depth": 1}}), 9, &["evidence_chain_link.created"]),
        ("concludeChain", "status conclusion confidence", json!({"id": "$createChain", "conclusion": "It does", "confidence": 0.75}),
            json!({"status": "CONCLUDED", "conclusion": "It does", "confidence": 0.75}), 6, &["evidence_chain.concluded"]),
        ("heartbeat", "name", json!({}), json!({"name": "reviewer"}), 6, &["agent.heartbeat"]),
        ("setAgentStatus", "status", json!({"id": "$agent", "status": "MAINTENANCE"}), json!({"status": "MAINTENANCE"}), 6, &["agent.status_changed"]),
        ("verifyEvidence", "verified verificationNote verifiedByUser { id }", json!({"id": "$addEvidence", "note": "seen"}),
            json!({"verified": true, "verificationNote": "seen", "verifiedByUser": {"id": "$user"}}), 7, &["evidence.verified"]),
        ("registerAgent", "name status capabilities", json!({"name": "newcomer", "type": "worker", "agentVersion": "1", "capabilities": ["x"]}),
            json!({"name": "newcomer", "status": "INACTIVE", "capabilities": ["x"]}), 5, &["agent.registered"]),
    ]
}

/// Puts ids where `$name` stands.
pub(crate) fn fill(value: &mut Value, ids: &BTreeMap<String, String>) {
    match value {
        Value::String(text) => {
            if let Some(id) = text.strip_prefix('$').and_then(|name| ids.get(name)) {
                text.clone_from(id);
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| fill(item, ids)),
        Value::Object(members) => members.values_mut().for_each(|member| fill(member, ids)),
        _ => {}
    }
}

#[tokio::test]
async fn each_writes_its_rows_and_their_trail_at_a_fixed_cost() {
    let world = World::new().await;
    let (agent, person, admin) = (world.agent(), world.person(Role::Analyst), world.person(Role::Admin));
    let mut ids: BTreeMap<String, String> =
        [("project", world.project), ("agent", world.agent), ("user", world.user)]
            .map(|(name, id)| (name.to_owned(), id.to_string()))
            .into();
    let mut called = Vec::new();
    for (name, selection, mut input, mut expected, statements, events) in cases() {
        fill(&mut input, &ids);
        fill(&mut expected, &ids);
        let caller = match name {
            "verifyEvidence" => &person,
            "registerAgent" => &admin,
            _ => &agent,
        };
        let begin = column(&world.url, "select coalesce(max(seq), 0) from audit_logs").await.remove(0);
        let before = world.gateway.statements().await;
        let answer = call(caller, name, &format!("id {selection}"), input).await;
        let cost = world.gateway.statements().await - before;
        assert_eq!(answer.body.get("errors"), None, "{name}: {}", answer.text);
        let mut data = answer.body["data"]["it"].clone();
        let rows =
            if data.is_array() { data.as_array_mut().unwrap() } else { std::slice::from_mut(&mut data) };
        let first = rows[0]["id"].as_str().unwrap().to_owned();
        let written: Vec<Value> =
            rows.iter_mut().map(|row| row.as_object_mut().unwrap().remove("id").unwrap()).collect();
        for row in rows {
            row.as_object_mut().unwrap().remove("startedAt");
        }
        assert_eq!((data, cost), (expected, statements), "{name}");

        let trail = texts(
            &world.url,
            &format!("select event_type, resource_id, coalesce(actor_agent_id, actor_user_id), length(request_id), \
             ip_address, user_agent, project_id, data ->> 'mutation', \
             new_values <> '{{}}' and (old_values is null) = (action = 'create') \
             from audit_logs where seq > {begin} and service_name is null order by seq"),
        )
        .await;
        assert_eq!(trail.iter().map(|row| row[0].as_deref().unwrap()).collect::<Vec<_>>(), events, "{name}");
        let actor =
            if name == "verifyEvidence" || name == "registerAgent" { world.user } else { world.agent };
        for row in &trail {
            let project = (!name.contains("gent") && name != "heartbeat").then(|| world.project.to_string());
            let said = [Some(actor.to_string()), Some("36".into()), Some("127.0.0.1".into()), None, project];
            assert_eq!(row[2..7], said, "{name}");
            assert_eq!(row[7..], [Some(name.to_owned()), Some("true".to_owned())], "{name}");
        }
        let last = trail.last().unwrap()[1].clone().unwrap();
        assert_eq!(json!(last), *written.last().unwrap(), "{name}");
        ids.insert(name.to_owned(), first);
        called.push(name);
    }
    let mut all = MUTATIONS.map(|mutation| mutation.name).to_vec();
    all.sort_unstable();
    called.sort_unstable();
    assert_eq!(called, all);
}

/// The trail has what changed and nothing else, and cuts what is long.
#[tokio::test]
async fn the_trail_says_what_changed() {
    let world = World::new().await;
    let task = world.task().await;
    let input =
        json!({"id": task, "title": "New", "intent": "test", "metadata": {"long": "x".repeat(5_000)}});
    call(&world.agent(), "updateTask", "id", input).await;
    let query = "select old_values::text, new_values::text from audit_logs where event_type = 'task.updated'";
    let row = texts(&world.url, query).await.remove(0);
    let [old, new] = [0, 1].map(|n| serde_json::from_str::<Value>(row[n].as_deref().unwrap()).unwrap());
    assert_eq!(old, json!({"title": "A task", "metadata": {}, "version": 1}));
    assert_eq!((&new["title"], &new["version"], new.get("intent")), (&json!("New"), &json!(2), None));
    assert!(new["metadata"].as_str().unwrap().ends_with("x…") && row[1].as_ref().unwrap().len() < 2_200);
}

#[tokio::test]
async fn tasks_move_along_their_states_only() {
    let world = World::new().await;
    let agent = world.agent();
    let task = world.task().await;
    for from in STATUS.values {
        for to in STATUS.values {
            execute(
                &world.url,
                &format!("update tasks set status = '{from}', retry_count = 0 where id = '{task}'"),
            )
            .await;
            let input = json!({"id": task, "status": to.to_uppercase()});
            let outcome = outcome(&call(&agent, "transitionTask", "id", input).await);
            let allowed = matches!(
                (*from, *to),
                ("pending", "processing" | "cancelled")
                    | ("processing", "completed" | "failed" | "cancelled")
                    | ("failed", "pending" | "processing")
            );
            let refused = format!("a task cannot go from {} to {}", from.to_uppercase(), to.to_uppercase());
            let expected = if allowed { ("OK".into(), String::new()) } else { ("CONFLICT".into(), refused) };
            assert_eq!(outcome, expected);
        }
    }
    execute(
        &world.url,
        &format!(
            "update tasks set status = 'processing', max_retries = 2, retry_count = 0 where id = '{task}'"
        ),
    )
    .await;
    let step = async |status: &str, more: Value| {
        let mut input = json!({"id": task, "status": status});
        input.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        call(&agent, "transitionTask", "id retryCount errorMessage failedAt", input).await
    };
    for retries in [1, 2] {
        let failed = step("FAILED", json!({"errorMessage": "no luck"})).await;
        assert_eq!(failed.body["data"]["it"]["errorMessage"], "no luck");
        assert!(failed.body["data"]["it"]["failedAt"].is_string());
        let again = &step("PROCESSING", json!({})).await.body["data"]["it"];
        assert_eq!(
            (&again["retryCount"], &again["errorMessage"], &again["failedAt"]),
            (&json!(retries), &Value::Null, &Value::Null)
        );
    }
    step("FAILED", json!({})).await;
    let (code, text) = outcome(&step("PENDING", json!({})).await);
    assert_eq!(
        (code.as_str(), text.as_str()),
        ("CONFLICT", "the task has used its 2 retries and cannot go from FAILED to PENDING")
    );
    assert_eq!(outcome(&step("PENDING", json!({"errorMessage": "x"})).await).0, "BAD_USER_INPUT");
}

/// Of two who saw the same version one comes first, and the other is told.
#[tokio::test]
async fn versions_keep_writers_apart() {
    let world = World::new().await;
    let (agent, task) = (world.agent(), world.task().await);
    let write = async |n: i32| {
        let input = json!({"id": task, "title": format!("By {n}"), "expectedVersion": 1});
        outcome(&call(&agent, "updateTask", "id", input).await)
    };
    let outcomes = futures_util::future::join_all((0..6).map(write)).await;
    let won = outcomes.iter().filter(|(code, _)| code == "OK").count();
    let text = "input.expectedVersion is not the version of the row, which is 2 by now";
    let told = outcomes.iter().filter(|(code, said)| code == "CONFLICT" && said == text).count();
    assert_eq!((won, told), (1, 5), "{outcomes:?}");
}

/// A request that runs out of time takes nothing with it, and leaves no connection behind that is good for nothing.
#[tokio::test]
async fn what_is_cut_off_is_taken_back() {
    let world = World::new().await;
    let task = world.task().await;
    let hasty = Gateway::start(
        &world.url,
        &["--request-timeout-ms", "400", "--pool-size", "2"],
        Access::Tokens(secret()),
    )
    .await;
    let hasty = hasty.keeping(&world.agent_viewer());
    let url = world.url.clone();
    let lock = format!(
        "begin; lock table audit_logs in access exclusive mode; select pg_sleep(2); commit; -- {task}"
    );
    let holding = tokio::spawn(async move { execute(&url, &lock).await });
    tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    for n in 0..3 {
        let answer =
            call(&hasty, "updateTask", "id", json!({"id": task, "title": format!("Never {n}")})).await;
        assert_eq!(answer.body["errors"][0]["extensions"]["code"], "TIMEOUT", "{}", answer.text);
    }
    holding.await.unwrap();
    let answer = call(
        &hasty,
        "updateTask",
        "title version",
        json!({"id": task, "intent": "calm", "expectedVersion": 1}),
    )
    .await;
    assert_eq!(answer.body["data"]["it"], json!({"title": "A task", "version": 2}), "{}", answer.text);
    let evidence = world.evidence("still here").await;
    assert_eq!(outcome(&call(&hasty, "expireEvidence", "id", json!({"id": evidence})).await).0, "OK");
}
