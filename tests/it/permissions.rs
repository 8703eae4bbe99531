//! Nobody sees a row of a project that is not theirs, on no way that the schema has. What is theirs is written
//! down here once more, in SQL of its own.

use std::collections::{HashMap, HashSet};
use std::fmt::Write;

use evidence_gateway::http::viewer::Access;
use evidence_gateway::model::entity::RelationKind;
use evidence_gateway::model::graph;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::harness::{Database, FORGET, Gateway, column, execute, id_of, member, secret};

/// Rows of two projects that point at each other in every way that the tables allow.
const HOSTILE: &str = "
    create temporary table ours as select id, row_number() over (order by id) n from tasks where project_id = '{A}';
    create temporary table theirs as select id, row_number() over (order by id) n from tasks where project_id = '{B}';
    create temporary table mine as select id, row_number() over (order by id) n from evidence where project_id = '{A}';
    create temporary table yours as select id, row_number() over (order by id) n from evidence where project_id = '{B}';
    update evidence e set task_id = t.id from yours y join ours t using (n) where e.id = y.id and n <= 20;
    update evidence e set task_id = t.id from mine m join theirs t using (n) where e.id = m.id and n <= 20;
    update tasks t set parent_id = b.id from ours a join theirs b using (n) where t.id = a.id and n between 10 and 15;
    update tasks t set parent_id = a.id from ours a join theirs b using (n) where t.id = b.id and n between 20 and 25;
    update tasks t set parent_id = (select id from ours where n = 1) from ours a where t.id = a.id and n = 2;
    insert into evidence_relations (from_evidence_id, to_evidence_id, kind)
        select m.id, y.id, 'supports' from mine m join yours y using (n) where n <= 15 on conflict do nothing;
    insert into evidence_relations (from_evidence_id, to_evidence_id, kind)
        select y.id, m.id, 'derives_from' from mine m join yours y using (n) where n <= 15 on conflict do nothing;
    insert into evidence_relations (from_evidence_id, to_evidence_id, kind)
        select y.id, m.id, 'contradicts' from mine m join yours y on y.n = m.n + 1 where m.n <= 40 on conflict do nothing;
    insert into evidence_relations (from_evidence_id, to_evidence_id, kind)
        select y.id, m.id, 'supports' from mine y join mine m on m.n = y.n + 1 where m.n <= 40 on conflict do nothing;
    insert into evidence_chain_links (chain_id, evidence_id, position, role)
        select c.id, y.id, 900, 'support' from (select id, row_number() over (order by id) n from evidence_chains
        where project_id = '{A}') c join yours y using (n) where n <= 20;
    insert into evidence_chain_links (chain_id, evidence_id, position, role)
        select c.id, m.id, 900, 'support' from (select id, row_number() over (order by id) n from evidence_chains
        where project_id = '{B}') c join mine m using (n) where n <= 20;
    update evidence_chains set task_id = (select id from theirs where n = 3) where id in
        (select id from evidence_chains where project_id = '{A}' order by id limit 3);
    update evidence_chains set task_id = (select id from ours where n = 3) where id in
        (select id from evidence_chains where project_id = '{B}' order by id limit 3);
    insert into agent_executions (agent_id, task_id, project_id)
        select (select id from agents limit 1), t.id, '{A}' from theirs t where n <= 5;
    insert into agent_executions (agent_id, task_id, project_id)
        select (select id from agents limit 1), t.id, '{B}' from ours t where n <= 5;
    insert into agent_executions (agent_id, task_id, project_id)
        select (select id from agents limit 1), t.id, '{A}' from ours t where n <= 5;
    insert into task_results (task_id, agent_id, execution_id, result_type, content)
        select t.id, (select id from agents limit 1), x.id, 'note', '{}'
        from (select * from ours union all select * from theirs) t, agent_executions x where n <= 5;
    insert into task_comments (task_id, author_user_id, body)
        select t.id, u.id, 'hello' from (select * from ours union all select * from theirs) t, users u where n <= 5;
    insert into task_attachments (task_id, evidence_id, uploaded_by_user_id, file_name, media_type, size_bytes, storage_path)
        select t.id, e.id, u.id, 'a', 'text/plain', 1, 'a' from (select * from ours union all select * from theirs) t
        join (select * from mine union all select * from yours) e using (n), users u where n <= 5;
    insert into evidence_credibility_history (evidence_id, new_score, reason, changed_by_user_id)
        select e.id, 0.5, 'r', u.id from (select * from mine union all select * from yours) e, users u where n <= 5;
    update tasks set deleted_at = now() where id = (select id from ours where n = 4);
    update evidence set deleted_at = now() where id in (select id from mine where n in (5, 6));
    update evidence_chains set deleted_at = now() where id in (select id from evidence_chains where project_id = '{A}'
        order by id desc limit 2);
    update agents set deleted_at = now() where name = 'documentation';
    update task_comments set deleted_at = now() where id in (select id from task_comments order by id limit 5);
    insert into activity_feed (project_id, actor_user_id, activity_type, title, visibility)
        select p.id, u.id, 'note', 'n', v from (values ('{A}'::uuid), ('{B}'), (null)) p (id), users u,
        unnest('{public,project,private}'::text[]) v;
    insert into audit_logs (project_id, event_type, action, resource_type)
        select p.id, 'note', 'other', 'note' from (values ('{A}'::uuid), ('{B}'), (null)) p (id);
";

/// What a viewer of the one project may see, by root connection.
const VISIBLE: &[(&str, &str)] = &[
    ("tasks", "select id from tasks where {OURS}"),
    ("taskResults", "select r.id from task_results r join tasks t on t.id = task_id where {OURS.t}"),
    (
        "taskComments",
        "select r.id from task_comments r join tasks t on t.id = task_id where {OURS.t} and r.deleted_at is null",
    ),
    (
        "taskAttachments",
        "select r.id from task_attachments r join tasks t on t.id = task_id where {OURS.t} and r.deleted_at is null",
    ),
    ("evidences", "select id from evidence where {OURS}"),
    (
        "evidenceRelations",
        "select r.id from evidence_relations r join evidence t on t.id = from_evidence_id where {OURS.t}
         intersect select r.id from evidence_relations r join evidence t on t.id = to_evidence_id where {OURS.t}",
    ),
    (
        "credibilityChanges",
        "select r.id from evidence_credibility_history r join evidence t on t.id = evidence_id where {OURS.t}",
    ),
    ("evidenceChains", "select id from evidence_chains where {OURS}"),
    (
        "evidenceChainLinks",
        "select r.id from evidence_chain_links r join evidence_chains t on t.id = chain_id where {OURS.t}
         intersect select r.id from evidence_chain_links r join evidence t on t.id = evidence_id where {OURS.t}",
    ),
    (
        "activities",
        "select id from activity_feed where visibility = 'public' or (visibility = 'project' and project_id = '{A}')
         or (visibility = 'private' and actor_user_id = '{U}')",
    ),
    // Nobody who is limited to projects sees the trail.
    ("auditLogs", "select id from audit_logs where false"),
    ("agents", "select id from agents where deleted_at is null"),
    ("agentExecutions", "select id from agent_executions where project_id = '{A}'"),
    ("projects", "select id from projects where id = '{A}' and deleted_at is null"),
    ("projectMembers", "select id from project_members where project_id = '{A}'"),
    (
        "users",
        "select id from users where id = '{U}' or id in (select user_id from project_members where project_id = '{A}')",
    ),
];

/// The two projects and what the viewer of the first may see.
struct World {
    database: Database,
    gateway: Gateway,
    /// By type.
    visible: HashMap<&'static str, HashSet<Uuid>>,
    /// By type.
    hidden: HashMap<&'static str, Vec<Uuid>>,
}

impl World {
    async fn new() -> Self {
        let database = Database::sample().await;
        let ours = id_of(&database.url, "projects", "moe-router").await;
        let theirs = id_of(&database.url, "projects", "agent-library").await;
        // A person who is no member of anything but whose token names the project: they see themselves too.
        let stranger = id_of(&database.url, "users", "manager-1").await;
        let fill = |text: &str| {
            let text = text.replace("{OURS}", "project_id = '{A}' and deleted_at is null");
            let text = text.replace("{OURS.t}", "t.project_id = '{A}' and t.deleted_at is null");
            let text = text.replace("{A}", &ours.to_string()).replace("{B}", &theirs.to_string());
            text.replace("{U}", &stranger.to_string())
        };
        execute(&database.url, &fill(HOSTILE)).await;
        // What is written down of it would come while the test looks.
        execute(&database.url, FORGET).await;
        let mut visible = HashMap::new();
        let mut hidden = HashMap::new();
        assert_eq!(VISIBLE.len(), graph().entities().count());
        for (_, ty, table) in graph().entities() {
            let (_, query) = VISIBLE.iter().find(|(many, _)| *many == table.many).unwrap();
            let seen: HashSet<Uuid> = ids(&database.url, &fill(query)).await.into_iter().collect();
            let all = ids(&database.url, &format!("select id from {}", table.name)).await;
            assert_eq!(seen.is_empty(), table.many == "auditLogs", "{}", ty.name);
            assert!(seen.len() < all.len(), "{}: {} of {}", ty.name, seen.len(), all.len());
            hidden.insert(ty.name.as_str(), all.into_iter().filter(|id| !seen.contains(id)).collect());
            visible.insert(ty.name.as_str(), seen);
        }
        // It asks for everything at once.
        let settings =
            ["--max-complexity", "100000000", "--max-fields", "20000", "--max-root-fields", "1000"];
        let gateway = Gateway::start(&database.url, &settings, Access::Tokens(secret())).await;
        let gateway = gateway.keeping(&member(Some(stranger), &[ours]));
        Self { database, gateway, visible, hidden }
    }

    /// Walks through an answer: each object in it that has an id must be visible, and each list whole.
    fn check(&self, place: &str, value: &Value) -> usize {
        match value {
            Value::Array(items) => items.iter().map(|item| self.check(place, item)).sum(),
            Value::Object(members) => {
                let mut found = 0;
                if let (Some(Value::String(ty)), Some(Value::String(id))) =
                    (members.get("__typename"), members.get("id"))
                {
                    let id = id.parse().unwrap();
                    assert!(self.visible[ty.as_str()].contains(&id), "{place}: {ty} {id} must not be seen");
                    found = 1;
                }
                if let (Some(count), Some(Value::Array(nodes))) =
                    (members.get("totalCount"), members.get("nodes"))
                    && nodes.len() < 200
                {
                    assert_eq!(count, nodes.len(), "{place}");
                }
                found
                    + members
                        .iter()
                        .map(|(name, value)| self.check(&format!("{place}.{name}"), value))
                        .sum::<usize>()
            }
            _ => 0,
        }
    }
}

async fn ids(url: &str, query: &str) -> Vec<Uuid> {
    column(url, query).await.into_iter().map(|id| id.parse().unwrap()).collect()
}

/// The fields of a type for `check`, so many relations deep.
fn selection(ty: usize, depth: u32) -> String {
    let mut text = "__typename id ".to_owned();
    for relation in graph().types[ty].relations.iter().filter(|_| depth > 0) {
        let inner = selection(relation.target, depth - 1);
        match relation.kind {
            RelationKind::One { .. } => write!(text, "{} {{ {inner} }} ", relation.name).unwrap(),
            RelationKind::Many { .. } => {
                write!(text, "{}(first: 200) {{ totalCount nodes {{ {inner} }} }} ", relation.name).unwrap();
            }
            RelationKind::Lineage => text.push_str(
                "up: lineage(direction: UP, depth: 10) { evidence { __typename id } relation { __typename id } } \
                 both: lineage(direction: BOTH, depth: 4) { evidence { __typename id } relation { __typename id } } ",
            ),
            // There is no index here; `search` tests what it finds.
            RelationKind::Groups | RelationKind::Hits { .. } => {}
        }
    }
    text
}

#[tokio::test]
async fn a_viewer_of_one_project_sees_nothing_of_another() {
    let world = World::new().await;
    connections(&world).await;
    relations(&world).await;
    by_id(&world).await;
    filters(&world).await;
    aggregates(&world).await;
    drop(world.database);
}

/// Every list is exactly what SQL says.
async fn connections(world: &World) {
    for (_, ty, table) in graph().entities() {
        let document = format!(
            "query ($after: String) {{ list: {}(first: 200, after: $after) {{ totalCount nodes {{ id }}
             pageInfo {{ hasNextPage endCursor }} }} }}",
            table.many
        );
        let (mut seen, mut after) = (HashSet::new(), Value::Null);
        loop {
            let list = world.gateway.ask_with(&document, json!({"after": after})).await["list"].take();
            for node in list["nodes"].as_array().unwrap() {
                assert!(seen.insert(node["id"].as_str().unwrap().parse::<Uuid>().unwrap()));
            }
            assert_eq!(list["totalCount"], world.visible[ty.name.as_str()].len(), "{}", ty.name);
            after = list["pageInfo"]["endCursor"].clone();
            if list["pageInfo"]["hasNextPage"] == json!(false) {
                break;
            }
        }
        assert_eq!(seen, world.visible[ty.name.as_str()], "{}", ty.name);
    }
}

/// Whatever hangs on a visible row is visible.
async fn relations(world: &World) {
    let mut found = 0;
    for (id, _, table) in graph().entities() {
        let document = format!("{{ {}(first: 200) {{ nodes {{ {} }} }} }}", table.many, selection(id, 1));
        found += world.check(table.many, &world.gateway.ask(&document).await);
        let document = format!("{{ {}(first: 5) {{ nodes {{ {} }} }} }}", table.many, selection(id, 2));
        found += world.check(table.many, &world.gateway.ask(&document).await);
    }
    assert!(found > 5_000, "{found}");
}

/// A hidden row's id finds nothing, under its own type's field and under those for all types.
async fn by_id(world: &World) {
    let (mut found, mut asked) = (0, 0);
    for (_, ty, table) in graph().entities() {
        for some in world.hidden[ty.name.as_str()].chunks(1_000) {
            let data = world
                .gateway
                .ask_with("query ($ids: [UUID!]!) { nodes(ids: $ids) { id } }", json!({"ids": some}))
                .await;
            asked += some.len();
            found += data["nodes"].as_array().unwrap().iter().filter(|node| !node.is_null()).count();
        }
        let id = world.hidden[ty.name.as_str()][0];
        let document =
            format!("{{ one: {}(id: \"{id}\") {{ id }} two: node(id: \"{id}\") {{ id }} }}", table.one);
        assert_eq!(world.gateway.ask(&document).await, json!({"one": null, "two": null}), "{}", ty.name);
    }
    assert!(found == 0 && asked > 3_000, "{found} of {asked}");
}

/// Nobody can find out by filtering what they may not read: hidden rows satisfy no condition.
async fn filters(world: &World) {
    for (_, ty, table) in graph().entities() {
        for relation in &ty.relations {
            let target = graph().types[relation.target].name.as_str();
            for some in world.hidden.get(target).into_iter().flat_map(|hidden| hidden.chunks(1_000)) {
                let condition = json!({"id": {"in": some}});
                let (hit, miss) = match relation.kind {
                    RelationKind::One { .. } => {
                        (json!({relation.name: condition}), json!({"not": {relation.name: condition}}))
                    }
                    RelationKind::Many { .. } => (
                        json!({relation.name: {"some": condition}}),
                        json!({relation.name: {"none": condition}}),
                    ),
                    _ => continue,
                };
                let document = format!(
                    "query ($hit: {0}Filter, $miss: {0}Filter) {{ hit: {1}(filter: $hit) {{ totalCount }}
                     miss: {1}(filter: $miss) {{ totalCount }} }}",
                    ty.name, table.many
                );
                let data = world.gateway.ask_with(&document, json!({"hit": hit, "miss": miss})).await;
                let all = world.visible[ty.name.as_str()].len();
                let expected = json!({"hit": {"totalCount": 0}, "miss": {"totalCount": all}});
                assert_eq!(data, expected, "{}.{}", ty.name, relation.name);
            }
        }
    }
}

/// Totals and groups count visible rows only.
async fn aggregates(world: &World) {
    for (_, ty, table) in graph().entities() {
        let Some(aggregate) = &table.aggregate else { continue };
        for (by, _) in &aggregate.by {
            let document = format!(
                "{{ all: {}Aggregate(groupBy: [{by}]) {{ count groups(first: 1000) {{ count }} }} }}",
                table.one
            );
            let all = world.gateway.ask(&document).await["all"].take();
            let groups =
                all["groups"].as_array().unwrap().iter().map(|group| group["count"].as_u64().unwrap());
            let visible = u64::try_from(world.visible[ty.name.as_str()].len()).unwrap();
            assert_eq!(
                (all["count"].as_u64().unwrap(), groups.sum::<u64>()),
                (visible, visible),
                "{} {by}",
                ty.name
            );
        }
    }
    let document = "query ($ids: [UUID!]) { tasks: taskAggregate(filter: {evidences: {some: {id: {in: $ids}}}}) { count }
        groups: taskAggregate(groupBy: [PROJECT]) { groups { key { project { __typename id } } } }
        evidence: evidenceAggregate(filter: {task: {id: {in: $ids}}}, groupBy: [TASK]) { count groups(first: 500) { key { task { __typename id } } } } }";
    let hidden = [&world.hidden["Evidence"][..400], &world.hidden["Task"][..400]].concat();
    let data = world.gateway.ask_with(document, json!({"ids": hidden})).await;
    assert_eq!((&data["tasks"]["count"], &data["evidence"]["count"]), (&json!(0), &json!(0)));
    world.check("aggregates", &data);
    let data = world.gateway.ask("{ evidenceAggregate(groupBy: [TASK]) { groups(first: 1000) { key { task { __typename id } } } } }").await;
    assert!(world.check("aggregates", &data) > 50);
}

/// What hangs on a deleted row is gone with it, also for who sees every project.
#[tokio::test]
async fn what_hangs_on_a_deleted_row_is_gone_for_everyone() {
    let database = Database::sample().await;
    let gateway = Gateway::open(&database.url).await;
    let before = "{ taskComments { totalCount } taskResults { totalCount } evidenceRelations { totalCount } \
                  evidenceChainLinks { totalCount } users { totalCount } }";
    let counts = gateway.ask(before).await;
    for list in ["taskComments", "taskResults", "evidenceRelations", "evidenceChainLinks", "users"] {
        assert!(counts[list]["totalCount"].as_i64() > Some(0), "{list}: {counts}");
    }
    execute(&database.url, "update tasks set deleted_at = now(); update evidence set deleted_at = now();")
        .await;
    let after = gateway.ask(before).await;
    for list in ["taskComments", "taskResults", "evidenceRelations", "evidenceChainLinks"] {
        assert_eq!(after[list]["totalCount"], 0, "{list}");
    }
    assert_eq!(after["users"], counts["users"]);
}
