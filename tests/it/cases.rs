//! Cases as data: each file of `cases/` is a document with the number of SQL statements that it may cost, and next
//! to it stands the answer. `INSTA_UPDATE=always cargo test cases` writes the answers anew.

use std::collections::HashSet;
use std::fmt::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use evidence_gateway::model::viewer::Viewer;
use serde_json::{Value, json};

use crate::harness::{Gateway, id_of, member, sample_url};

/// One file.
struct Case {
    name: String,
    document: String,
    statements: u64,
    variables: Value,
    /// As in `viewer of moe-router as engineer-1`; an administrator if absent.
    viewer: Option<String>,
}

impl Case {
    fn read(path: &Path) -> Self {
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let document = std::fs::read_to_string(path).unwrap();
        let header = |key: &str| {
            let lines = document.lines().map_while(|line| line.strip_prefix("# "));
            lines.filter_map(|line| line.strip_prefix(key)).next().map(|value| value.trim().to_owned())
        };
        let statements = header("statements:").unwrap_or_else(|| panic!("{name} does not say what it costs"));
        Self {
            statements: statements.parse().unwrap(),
            variables: header("variables:").map_or(json!({}), |text| serde_json::from_str(&text).unwrap()),
            viewer: header("viewer:"),
            name,
            document,
        }
    }

    async fn viewer(&self, url: &str) -> Viewer {
        let Some(text) = &self.viewer else { return Viewer::admin() };
        let (project, user) = match text.strip_prefix("viewer of ").unwrap().split_once(" as ") {
            Some((project, user)) => (project, Some(id_of(url, "users", user).await)),
            None => (text.strip_prefix("viewer of ").unwrap(), None),
        };
        match project {
            "nothing" => member(user, &[]),
            project => member(user, &[id_of(url, "projects", project).await]),
        }
    }
}

fn cases() -> Vec<Case> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/cases");
    let mut paths: Vec<PathBuf> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "graphql"));
    paths.sort();
    paths.iter().map(|path| Case::read(path)).collect()
}

/// One after the other, because the statements are counted by what the gateway's own counter grows.
#[tokio::test]
async fn every_case_has_its_answer_and_its_cost() {
    let url = sample_url();
    let gateway = Gateway::guarded(&url).await;
    let mut wrong = String::new();
    for case in cases() {
        let viewed = gateway.viewed_by(&case.viewer(&url).await);
        let ask = async || {
            let before = gateway.statements().await;
            let answer = viewed.request(&case.document, case.variables.clone()).await;
            (answer, gateway.statements().await - before)
        };
        let (mut answer, mut cost) = ask().await;
        // On a busy machine what is asked for at two moments may come together, and costs less; not each time.
        for _ in 0..3 {
            if cost < case.statements {
                (answer, cost) = ask().await;
            }
        }
        if cost != case.statements {
            writeln!(wrong, "{} costs {cost} statements and not {}", case.name, case.statements).unwrap();
        }
        let compared = catch_unwind(AssertUnwindSafe(|| {
            let mut settings = insta::Settings::clone_current();
            settings.set_snapshot_path("cases");
            settings.set_prepend_module_to_snapshot(false);
            settings.set_omit_expression(true);
            settings.bind(|| insta::assert_snapshot!(case.name.as_str(), answer.pretty()));
        }));
        if compared.is_err() {
            writeln!(wrong, "{} has another answer", case.name).unwrap();
        }
    }
    assert_eq!(wrong, "");
}

#[test]
fn every_answer_has_its_case() {
    let names: HashSet<String> = cases().into_iter().map(|case| case.name).collect();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/cases");
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "new") {
            continue; // insta's draft of a changed answer
        }
        let name = path.file_stem().unwrap().to_str().unwrap();
        assert!(names.contains(name), "{} belongs to no case", path.display());
    }
}

/// What makes it N+1-free: the same question about more rows costs the same. (Where two places of a document ask the
/// same of the same type they share a loader, and may cost one statement less; these do not.)
#[tokio::test]
async fn statements_do_not_grow_with_rows() {
    let gateway = Gateway::open(&sample_url()).await;
    let document = "query ($n: Int!) { tasks(first: $n) { totalCount nodes { title project { slug members { nodes { user { username } } } }
        assignedAgent { name } assignedUser { displayName } evidences(first: 5) { totalCount nodes { title agent { type }
        supporting(first: 2) { nodes { title lineage(depth: 2) { evidence { title } } } } } }
        evidenceChains(first: 1) { nodes { depth links { nodes { role evidence { language } } } contradictions { nodes { from { domain } } } } } } } }";
    let mut costs = Vec::new();
    for rows in [10, 20, 50] {
        let before = gateway.statements().await;
        let data = gateway.ask_with(document, json!({"n": rows})).await;
        assert_eq!(data["tasks"]["nodes"].as_array().unwrap().len(), rows);
        costs.push(gateway.statements().await - before);
    }
    assert!(costs.iter().all(|cost| *cost == costs[0] && *cost <= 17), "{costs:?}");
}

/// `after` and `before` by the cursors that the gateway itself gave out.
#[tokio::test]
async fn cursors_lead_forward_and_back() {
    let gateway = Gateway::open(&sample_url()).await;
    let document = "query ($first: Int, $after: String, $last: Int, $before: String) {
        agents(first: $first, after: $after, last: $last, before: $before) {
            nodes { name } pageInfo { hasNextPage hasPreviousPage startCursor endCursor } } }";
    let page = |data: &Value| -> Vec<String> {
        let nodes = data["agents"]["nodes"].as_array().unwrap();
        nodes.iter().map(|node| node["name"].as_str().unwrap().to_owned()).collect()
    };
    let all = page(&gateway.ask_with(document, json!({"first": 10})).await);
    assert_eq!(all.len(), 10);
    let first = gateway.ask_with(document, json!({"first": 4})).await;
    let second = gateway
        .ask_with(document, json!({"first": 4, "after": first["agents"]["pageInfo"]["endCursor"]}))
        .await;
    assert_eq!(page(&second), all[4..8]);
    let info = &second["agents"]["pageInfo"];
    assert_eq!((&info["hasNextPage"], &info["hasPreviousPage"]), (&json!(true), &json!(true)));
    let back = gateway.ask_with(document, json!({"last": 3, "before": info["startCursor"]})).await;
    assert_eq!(page(&back), all[1..4]);
    let rest = gateway.ask_with(document, json!({"last": 9, "before": info["startCursor"]})).await;
    assert_eq!(page(&rest), all[..4]);
    assert_eq!(rest["agents"]["pageInfo"]["hasPreviousPage"], json!(false));
    let between =
        json!({"first": 9, "after": first["agents"]["pageInfo"]["startCursor"], "before": info["endCursor"]});
    assert_eq!(page(&gateway.ask_with(document, between).await), all[1..7]);
}

/// Filters are bounded in depth, in number and in length.
#[tokio::test]
async fn filters_have_limits() {
    let gateway = Gateway::open(&sample_url()).await;
    let document = "query ($filter: TaskFilter) { tasks(filter: $filter) { totalCount } }";
    let deep = (0..9).fold(json!({}), |inner, _| json!({"not": inner}));
    let ids: Vec<String> = (0..1_001).map(|n| format!("00000000-0000-0000-0000-{n:012}")).collect();
    let conditions: Vec<Value> = (1..=101).map(|n| json!({"title": {"eq": n.to_string()}})).collect();
    for (filter, text) in [
        (deep, "nested more than 8 deep"),
        (json!({"id": {"in": ids}}), "filter.id.in has more than 1000 values"),
        (json!({"or": conditions.clone()}), "more than 100 conditions"),
        (json!({"or": vec![json!({}); 201]}), "more than 200 filters"),
        (json!({"or": vec![json!({"evidences": {"some": {}}}); 100]}), "more than 200 filters"),
        (json!({"evidences": {"some": {"or": conditions[..100].to_vec()}}}), "more than 100 conditions"),
        (json!({"title": {"eq": "x".repeat(10_001)}}), "longer than 10000 characters"),
        (json!({"metadata": {"contains": {"a": "x\u{0}"}}}), "U+0000"),
        (json!({"metadata": {"contains": {"a\u{0}": 1}}}), "U+0000"),
    ] {
        let (code, message) = gateway.error(document, json!({"filter": filter})).await;
        assert_eq!(code, "BAD_USER_INPUT", "{message}");
        assert!(message.contains(text), "{message}");
    }
    let bound = json!({"or": (1..=100).map(|n| json!({"title": {"eq": n.to_string()}})).collect::<Vec<_>>()});
    gateway.ask_with(document, json!({"filter": bound})).await;
}
