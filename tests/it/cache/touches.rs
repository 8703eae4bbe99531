//! Which changes touch which answers, as data: too many is a price, too few would be a lie.

use crate::cache::{cached, catch_up, post};
use crate::harness::{Database, column, execute};
use evidence_gateway::http::viewer::Access;

/// The rows that the cases are about.
const SETUP: &str = "
    insert into projects (id, slug, name) values ('10000000-0000-7000-8000-000000000001', 'one', 'One'), ('10000000-0000-7000-8000-000000000002', 'two', 'Two');
    insert into users (id, username, display_name) values ('20000000-0000-7000-8000-000000000001', 'uma', 'Uma');
    insert into agents (id, name, type, agent_version) values ('30000000-0000-7000-8000-000000000001', 'a', 'x', '1'), ('30000000-0000-7000-8000-000000000002', 'b', 'x', '1');
    insert into tasks (id, project_id, title, intent, status, priority, assigned_agent_id) values
        ('40000000-0000-7000-8000-000000000001', '10000000-0000-7000-8000-000000000001', 't1', 'i', 'pending', 1, '30000000-0000-7000-8000-000000000001'),
        ('40000000-0000-7000-8000-000000000002', '10000000-0000-7000-8000-000000000001', 't2', 'i', 'completed', 5, null),
        ('40000000-0000-7000-8000-000000000003', '10000000-0000-7000-8000-000000000002', 't3', 'i', 'pending', 3, null);
    insert into evidence (id, project_id, task_id, title, content, source_type, credibility_score) values
        ('50000000-0000-7000-8000-000000000001', '10000000-0000-7000-8000-000000000001', '40000000-0000-7000-8000-000000000001', 'e1', 'c1', 'log', 0.9),
        ('50000000-0000-7000-8000-000000000002', '10000000-0000-7000-8000-000000000001', '40000000-0000-7000-8000-000000000001', 'e2', 'c2', 'log', 0.2),
        ('50000000-0000-7000-8000-000000000003', '10000000-0000-7000-8000-000000000002', '40000000-0000-7000-8000-000000000003', 'e3', 'c3', 'log', 0.5);
    insert into evidence_chains (id, project_id, claim) values ('60000000-0000-7000-8000-000000000001', '10000000-0000-7000-8000-000000000001', 'c');
    insert into task_comments (id, task_id, body) values ('70000000-0000-7000-8000-000000000001', '40000000-0000-7000-8000-000000000001', 'first')";

const T1: &str = "id = '40000000-0000-7000-8000-000000000001'";
const T2: &str = "id = '40000000-0000-7000-8000-000000000002'";
const T3: &str = "id = '40000000-0000-7000-8000-000000000003'";
const E2: &str = "id = '50000000-0000-7000-8000-000000000002'";
const E3: &str = "id = '50000000-0000-7000-8000-000000000003'";

fn new_task(project: u32, status: &str, priority: u32) -> String {
    format!(
        "insert into tasks (project_id, title, intent, status, priority) values \
         ('10000000-0000-7000-8000-00000000000{project}', 'new', 'i', '{status}', {priority})"
    )
}

fn new_evidence(task: u32, score: f64) -> String {
    let project = if task == 3 { 2 } else { 1 };
    format!(
        "insert into evidence (project_id, task_id, title, content, source_type, credibility_score) values \
         ('10000000-0000-7000-8000-00000000000{project}', '40000000-0000-7000-8000-00000000000{task}', 'new', \
         gen_random_uuid()::text, 'log', {score})"
    )
}

/// A document, and writes with whether each touches its answer.
#[allow(clippy::too_many_lines, reason = "cases are data")]
fn cases() -> Vec<(&'static str, Vec<(String, bool)>)> {
    let set = |table: &str, values: &str, row: &str| format!("update {table} set {values} where {row}");
    vec![
        (
            "{ task(id: \"40000000-0000-7000-8000-000000000001\") { title } }",
            vec![
                (set("tasks", "title = 'x'", T2), false),
                (set("tasks", "title = 'x'", T1), true),
                (new_task(1, "pending", 1), false),
                (set("tasks", "deleted_at = now()", T1), true),
                (set("tasks", "deleted_at = null", T1), true),
            ],
        ),
        (
            "{ tasks(filter: {status: {eq: PENDING}, priority: {lte: 3}}) { nodes { id } } }",
            vec![
                (new_task(1, "completed", 1), false),
                (new_task(2, "pending", 4), false),
                (new_task(2, "pending", 3), true),
                (set("tasks", "status = 'failed'", T2), false),
                (set("tasks", "status = 'processing'", T3), true),
                (set("tasks", "status = 'pending'", T3), true),
                (set("tasks", "priority = 5", T1), true),
                (set("tasks", "deleted_at = now()", T1), false),
                (set("tasks", "deleted_at = null", T1), false),
                ("delete from tasks where title = 'new'".to_owned(), true),
            ],
        ),
        (
            "{ taskAggregate(filter: {projectId: {eq: \"10000000-0000-7000-8000-000000000001\"}}, groupBy: [STATUS]) { count groups { count key { status } } } }",
            vec![
                (new_task(2, "pending", 1), false),
                (new_task(1, "pending", 1), true),
                (set("tasks", "status = 'failed'", T3), false),
                (set("tasks", "status = 'failed'", T1), true),
                (set("tasks", "project_id = '10000000-0000-7000-8000-000000000002'", T2), true),
                (set("tasks", "project_id = '10000000-0000-7000-8000-000000000001'", T2), true),
                (new_evidence(1, 0.1), false),
            ],
        ),
        (
            "{ task(id: \"40000000-0000-7000-8000-000000000001\") { evidences(first: 1) { totalCount nodes { id } } } }",
            vec![
                (new_evidence(3, 0.9), false),
                (new_evidence(1, 0.9), true),
                (set("evidence", "task_id = '40000000-0000-7000-8000-000000000003'", E2), true),
                (set("evidence", "title = 'elsewhere'", E2), false),
                (set("evidence", "task_id = '40000000-0000-7000-8000-000000000001'", E2), true),
            ],
        ),
        (
            "{ evidences(filter: {credibilityScore: {gte: 0.8}}, first: 1) { totalCount } }",
            vec![
                (new_evidence(1, 0.79), false),
                (new_evidence(1, 0.8), true),
                (set("evidence", "credibility_score = 0.3", E3), false),
                (set("evidence", "credibility_score = 0.81", E3), true),
                (set("evidence", "credibility_score = 0.5", E3), true),
            ],
        ),
        (
            "{ evidences(filter: {or: [{taskId: {isNull: true}}, {not: {credibilityScore: {gt: 0.1}}}]}, first: 1) { totalCount } }",
            vec![(new_evidence(1, 0.2), false), (new_evidence(1, 0.1), true), (set("evidence", "task_id = null", E2), true)],
        ),
        // A page: what changes beside it, and in columns that neither choose nor order its rows, is no concern of it.
        (
            "{ tasks(first: 1, orderBy: [{field: CREATED_AT, direction: ASC}]) { nodes { title } } }",
            vec![
                (set("tasks", "title = 'beside'", T3), false),
                (set("tasks", "title = 'on it'", T1), true),
                (set("tasks", "priority = 2", T3), false),
                (set("tasks", "created_at = created_at + interval '1 second'", T3), true),
            ],
        ),
        (
            "{ tasks(first: 1, orderBy: [{field: UPDATED_AT, direction: ASC}]) { totalCount nodes { id } } }",
            vec![(set("tasks", "title = 'again'", T3), true)],
        ),
        ("{ tasks(filter: {version: {eq: 1}}, first: 1) { totalCount } }", vec![(set("tasks", "title = 'once'", T2), true)]),
        ("{ activities(filter: {projectId: {isNull: true}}) { totalCount } }",
            vec![("insert into activity_feed (activity_type, title, visibility) values ('x', 'x', 'public')".to_owned(), true),
                ("update activity_feed set project_id = '10000000-0000-7000-8000-000000000001'".to_owned(), true)]),
        // What stands in other tables: any change of theirs that could matter.
        (
            "{ tasks(filter: {evidences: {some: {verified: {eq: true}}}}, first: 1) { totalCount } }",
            vec![(new_evidence(1, 0.2), true), (set("evidence", "verified = true, verified_at = now()", E2), true)],
        ),
        (
            "{ tasks(filter: {assignedAgent: {name: {eq: \"a\"}}}, first: 1) { totalCount } }",
            vec![
                ("update agents set name = 'aa' where name = 'a'".to_owned(), true),
                ("update agents set name = 'a' where name = 'aa'".to_owned(), true),
                (set("tasks", "assigned_agent_id = '30000000-0000-7000-8000-000000000001'", T2), true),
            ],
        ),
        (
            "{ taskComments(first: 1) { nodes { body } } }",
            vec![
                ("update task_comments set body = 'second'".to_owned(), true),
                (set("tasks", "deleted_at = now()", T1), true),
                (set("tasks", "deleted_at = null", T1), true),
                (new_task(1, "pending", 1), false),
            ],
        ),
        (
            "{ evidenceChain(id: \"60000000-0000-7000-8000-000000000001\") { depth links { totalCount } contradictions { totalCount } } }",
            vec![
                (new_evidence(1, 0.2), false),
                ("insert into evidence_chain_links (chain_id, evidence_id, position, role) values ('60000000-0000-7000-8000-000000000001', \
                  '50000000-0000-7000-8000-000000000001', 0, 'premise')".to_owned(), true),
                ("insert into evidence_relations (from_evidence_id, to_evidence_id, kind) values ('50000000-0000-7000-8000-000000000001', \
                  '50000000-0000-7000-8000-000000000002', 'contradicts')".to_owned(), true),
                (set("evidence", "deleted_at = now()", E2), true),
                (set("evidence", "deleted_at = null", E2), true),
            ],
        ),
        (
            "{ evidence(id: \"50000000-0000-7000-8000-000000000001\") { supporting { totalCount } lineage { evidence { title } } } }",
            vec![
                (set("evidence", "title = 'of no interest'", E3), false),
                ("insert into evidence_relations (from_evidence_id, to_evidence_id, kind) values ('50000000-0000-7000-8000-000000000003', \
                  '50000000-0000-7000-8000-000000000001', 'supports')".to_owned(), true),
                (set("evidence", "title = 'of interest'", E3), true),
            ],
        ),
        (
            "{ node(id: \"30000000-0000-7000-8000-000000000002\") { id ... on Agent { name tasks { totalCount } } } }",
            vec![
                ("update agents set description = 'x' where name = 'b'".to_owned(), true),
                (set("tasks", "assigned_agent_id = '30000000-0000-7000-8000-000000000002'", T3), true),
            ],
        ),
        (
            "{ user(id: \"20000000-0000-7000-8000-000000000001\") { projects { totalCount } } }",
            vec![
                ("insert into project_members (project_id, user_id, role) values ('10000000-0000-7000-8000-000000000001', '20000000-0000-7000-8000-000000000001', 'member')".to_owned(), true),
                ("truncate activity_feed".to_owned(), true),
            ],
        ),
        ("{ projects { nodes { name tasks { totalCount } } } }", vec![(new_task(1, "pending", 1), true), (new_evidence(1, 0.2), false)]),
    ]
}

#[tokio::test]
async fn a_change_touches_what_it_could_have_changed() {
    let database = Database::empty().await;
    execute(&database.url, SETUP).await;
    let gateway = cached(&database.url, Access::Everyone).await;
    let mut wrong = Vec::new();
    for (document, writes) in cases() {
        for (write, touches) in writes {
            post(&gateway, document, &[]).await;
            let primed = post(&gateway, document, &[]).await;
            assert_eq!(primed.came(), "hit", "{document} {}", primed.text);
            execute(&database.url, &write).await;
            catch_up(&gateway).await;
            let got = post(&gateway, document, &[]).await;
            let executed = post(&gateway, document, &[("cache-control", "no-store")]).await;
            assert_eq!(got.text, executed.text, "{document}\n{write}");
            if (got.came() != "hit") != touches {
                wrong.push(format!("{document}\n  {write}\n  {}", got.header("cache-status")));
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

/// Every table that an entity stands in is logged, or what reads it is not cached.
#[tokio::test]
async fn every_entity_is_logged_or_known_not_to_be() {
    let database = Database::empty().await;
    let logged = column(
        &database.url,
        "select c.relname from pg_trigger t join pg_class c on c.oid = t.tgrelid where t.tgname = c.relname || '_log_insert'",
    )
    .await;
    for (_, _, table) in evidence_gateway::model::graph().entities() {
        let is_logged = evidence_gateway::model::change::is_logged(table.name);
        assert_eq!(logged.iter().any(|name| name == table.name), is_logged, "{}", table.name);
    }
}
