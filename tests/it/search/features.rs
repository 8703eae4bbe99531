//! What one can ask of a search besides the best hits.

use std::collections::HashSet;

use evidence_gateway::http::viewer::Access;
use serde_json::{Value, json};

use super::QUESTION;
use crate::harness::{Database, Gateway, column};

pub(super) async fn all(gateway: &Gateway, database: &Database) {
    reasons(gateway).await;
    pages(gateway, database).await;
    groups(gateway, database).await;
    facets(gateway).await;
    examples(gateway).await;
    budget(gateway).await;
    others(gateway).await;
    refusals(gateway).await;
    degraded(database).await;
}

async fn ask(gateway: &Gateway, arguments: &str, selection: &str) -> Value {
    let document = format!("{{ it: searchEvidence({arguments}) {{ {selection} }} }}");
    gateway.ask(&document).await["it"].take()
}

fn ids(nodes: &Value) -> Vec<String> {
    nodes.as_array().unwrap().iter().map(|node| node["id"].as_str().unwrap().to_owned()).collect()
}

/// A hit says what each way of searching thought of it, and shows where.
async fn reasons(gateway: &Gateway) {
    let query = format!("query: \"{QUESTION}\", first: 20");
    let edge = "edges { score dense denseRank lexical lexicalRank terms snippet(length: 100) node { title content } }";
    let hits = ask(gateway, &query, edge).await;
    let hits = hits["edges"].as_array().unwrap();
    let (mut both, mut last) = (0, f64::MAX);
    for hit in hits {
        let rank = |name: &str| hit[name].as_f64().map_or(0.0, |rank| 1.0 / (60.0 + rank));
        let score = hit["score"].as_f64().unwrap();
        assert!((score - rank("denseRank") - rank("lexicalRank")).abs() < 1e-6, "{hit}");
        assert!(score <= last);
        last = score;
        both += usize::from(!hit["dense"].is_null() && !hit["lexical"].is_null());
        assert_eq!(hit["lexical"].is_null(), hit["terms"].as_array().unwrap().is_empty(), "{hit}");
        let snippet = hit["snippet"].as_str().unwrap();
        assert!(snippet.replace("**", "").chars().count() <= 102, "{snippet}");
    }
    assert!(
        both > 0 && hits[0]["terms"].as_array().unwrap().iter().any(|term| term == "signature"),
        "{}",
        hits[0]
    );
    assert!(hits[0]["snippet"].as_str().unwrap().contains("**"), "{}", hits[0]);
    let semantic = ask(gateway, &format!("{query}, mode: SEMANTIC"), "edges { score dense lexical }").await;
    assert_eq!(semantic["edges"][0]["score"], semantic["edges"][0]["dense"]);
    assert_eq!(semantic["edges"][0]["lexical"], Value::Null);
}

/// Pages follow each other without a hit twice or missing, also while evidence is written, and end.
async fn pages(gateway: &Gateway, database: &Database) {
    for more in ["", ", mode: LEXICAL", ", diversity: 0.5"] {
        let all = ask(
            gateway,
            &format!("query: \"memory\", first: 40{more}"),
            "nodes { id } pageInfo { hasNextPage }",
        )
        .await;
        let all = ids(&all["nodes"]);
        let (mut seen, mut after) = (Vec::new(), String::new());
        for _ in 0..4 {
            let page = ask(
                gateway,
                &format!("query: \"memory\", first: 10{more}{after}"),
                "nodes { id } pageInfo { hasNextPage hasPreviousPage endCursor }",
            )
            .await;
            assert_eq!(page["pageInfo"]["hasPreviousPage"], !after.is_empty());
            seen.extend(ids(&page["nodes"]));
            if page["pageInfo"]["hasNextPage"] == false {
                break;
            }
            after = format!(", after: {}", page["pageInfo"]["endCursor"]);
        }
        let different: HashSet<_> = seen.iter().collect();
        assert_eq!(different.len(), seen.len(), "{more}");
        assert_eq!(seen.len(), all.len(), "{more}");
        if more != ", diversity: 0.5" {
            assert_eq!(different, all.iter().collect::<HashSet<_>>(), "{more}");
        }
    }
    let rows = &column(&database.url, "select count(*) from evidence where deleted_at is null").await[0];
    let page =
        ask(gateway, "query: \"memory\", first: 200", "nodes { id } pageInfo { hasNextPage endCursor }")
            .await;
    let (mut count, mut page) = (ids(&page["nodes"]).len(), page);
    while page["pageInfo"]["hasNextPage"] == true {
        let after = page["pageInfo"]["endCursor"].clone();
        page = ask(
            gateway,
            &format!("query: \"memory\", first: 200, after: {after}"),
            "nodes { id } pageInfo { hasNextPage endCursor }",
        )
        .await;
        count += ids(&page["nodes"]).len();
    }
    assert_eq!(count.to_string(), *rows, "everything is near to some degree");
}

async fn groups(gateway: &Gateway, database: &Database) {
    let selection =
        "groups { score task { id } chain { id } hits(first: 2) { score node { id task { id } } } }";
    let found = ask(gateway, &format!("query: \"{QUESTION}\", groupBy: TASK, first: 5"), selection).await;
    let groups = found["groups"].as_array().unwrap();
    assert_eq!(groups.len(), 5);
    for group in groups {
        assert_eq!((&group["score"], &group["chain"]), (&group["hits"][0]["score"], &Value::Null));
        let hits = group["hits"].as_array().unwrap();
        assert!((1..=2).contains(&hits.len()));
        assert!(hits.iter().all(|hit| hit["node"]["task"]["id"] == group["task"]["id"]), "{group}");
    }
    let found = ask(gateway, &format!("query: \"{QUESTION}\", groupBy: CHAIN, first: 3"), selection).await;
    let groups = found["groups"].as_array().unwrap();
    assert_eq!(groups.len(), 3);
    for group in groups {
        let (chain, evidence) = (&group["chain"]["id"], &group["hits"][0]["node"]["id"]);
        let query = format!(
            "select count(*) from evidence_chain_links where chain_id = '{chain}' and evidence_id = '{evidence}'"
        );
        assert_ne!(column(&database.url, &query.replace('"', "")).await, ["0"], "{group}");
    }
}

async fn facets(gateway: &Gateway) {
    let selection =
        "facets { sourceType { value count } domain { count } project { value count } } nodes { sourceType }";
    let found = ask(gateway, "query: \"memory\", first: 200", selection).await;
    let nodes = found["nodes"].as_array().unwrap();
    let counted = found["facets"]["sourceType"].as_array().unwrap();
    assert!(
        counted.len() > 1 && counted.is_sorted_by_key(|facet| std::cmp::Reverse(facet["count"].as_i64()))
    );
    for facet in counted {
        let count = nodes.iter().filter(|node| node["sourceType"] == facet["value"]).count();
        assert_eq!(facet["count"], count, "{facet}");
    }
    let domains = found["facets"]["domain"].as_array().unwrap();
    assert_eq!(domains.iter().map(|facet| facet["count"].as_i64().unwrap()).sum::<i64>(), 200);
}

/// Like this and unlike that, and by a vector.
async fn examples(gateway: &Gateway) {
    let best =
        ask(gateway, &format!("query: \"{QUESTION}\", first: 2, mode: SEMANTIC"), "nodes { id }").await;
    let best = ids(&best["nodes"]);
    let like =
        ask(gateway, &format!("like: [\"{}\"], first: 30", best[0]), "edges { dense node { id } }").await;
    let hits = like["edges"].as_array().unwrap();
    assert_eq!(hits.len(), 30);
    assert!(hits.iter().all(|hit| hit["node"]["id"] != best[0].as_str()));
    let unlike = format!("like: [\"{}\"], unlike: [\"{}\"], first: 30", best[0], best[1]);
    let unlike = ask(gateway, &unlike, "nodes { id }").await;
    assert_ne!(
        ids(&unlike["nodes"]),
        hits.iter().map(|hit| hit["node"]["id"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    );
    let numbers = vec!["0.05"; 384].join(",");
    let near = ask(gateway, &format!("vector: [{numbers}], first: 3"), "nodes { id }").await;
    assert_eq!(ids(&near["nodes"]).len(), 3);
    let (code, _) = gateway.error("{ searchEvidence(vector: [1, 2]) { nodes { id } } }", json!({})).await;
    assert_eq!(code, "BAD_USER_INPUT");
    // What somebody may not read is no example for them.
    let nobody = gateway.viewed_by(&crate::harness::member(None, &[]));
    let document = format!("{{ searchEvidence(like: [\"{}\"]) {{ nodes {{ id }} }} }}", best[0]);
    assert_eq!(nobody.error(&document, json!({})).await.0, "NOT_FOUND");
}

/// A budget is kept, says what it cut, and one can go on.
async fn budget(gateway: &Gateway) {
    let selection =
        "edges { snippet node { id title } } pageInfo { hasNextPage } cut { hits snippetLength after }";
    let (mut seen, mut after) = (HashSet::new(), String::new());
    for _ in 0..3 {
        let arguments = format!("query: \"memory\", first: 20, budget: 1500{after}");
        let found = ask(gateway, &arguments, selection).await;
        let edges = found["edges"].as_array().unwrap();
        assert!(!edges.is_empty() && edges.len() < 20);
        assert!(edges.iter().map(|edge| edge.to_string().chars().count()).sum::<usize>() <= 1_500);
        assert_eq!(found["cut"]["hits"], 20 - edges.len());
        assert_eq!(
            (&found["cut"]["snippetLength"], &found["pageInfo"]["hasNextPage"]),
            (&json!(40), &json!(true))
        );
        assert!(edges.iter().all(|edge| seen.insert(edge["node"]["id"].to_string())), "a hit comes twice");
        after = format!(", after: {}", found["cut"]["after"]);
    }
    // The first hit comes whatever it takes.
    let found = ask(gateway, "query: \"memory\", budget: 200", "nodes { content title } cut { hits }").await;
    assert_eq!(found["nodes"].as_array().unwrap().len(), 1);
}

/// Tasks and agents are found like evidence, each by its own words.
async fn others(gateway: &Gateway) {
    let selection =
        "edges { score dense lexical snippet cursor node { id title status } } pageInfo { hasNextPage }";
    let document = format!(
        "{{ it: searchTasks(query: \"{QUESTION}\", first: 3, filter: {{priority: {{gte: 1}}}}) {{ {selection} }} }}"
    );
    let found = gateway.ask(&document).await;
    let best = &found["it"]["edges"][0];
    assert_eq!(
        best["node"]["title"],
        "Triage RUSTSEC-2022-0103: Incorrect signature verification on gzip-compressed install images"
    );
    assert!(!best["dense"].is_null() && !best["lexical"].is_null(), "{best}");
    let next = format!(
        "{{ searchTasks(query: \"{QUESTION}\", first: 3, filter: {{priority: {{gte: 1}}}}, after: {}) {{ nodes {{ id }} }} }}",
        found["it"]["edges"][2]["cursor"]
    );
    let seen: Vec<_> = (0..3).map(|n| &found["it"]["edges"][n]["node"]["id"]).collect();
    let next = ids(&gateway.ask(&next).await["searchTasks"]["nodes"]);
    assert!(next.len() == 3 && next.iter().all(|id| !seen.iter().any(|seen| *seen == id.as_str())));
    let completed = format!(
        "{{ searchTasks(query: \"{QUESTION}\", filter: {{status: {{eq: COMPLETED}}}}) {{ nodes {{ status }} }} }}"
    );
    let completed = gateway.ask(&completed).await["searchTasks"]["nodes"].take();
    assert!(completed.as_array().unwrap().iter().all(|task| task["status"] == "COMPLETED"), "{completed}");
    let nobody = gateway.viewed_by(&crate::harness::member(None, &[]));
    let document = "{ searchTasks(query: \"memory\") { nodes { id } } \
        searchAgents(capability: \"who checks code for soundness\", first: 2) { nodes { name } degraded } }";
    let found = nobody.ask(document).await;
    assert_eq!(found["searchTasks"]["nodes"], json!([]));
    // The registry is for everyone.
    assert_eq!(
        found["searchAgents"],
        json!({"nodes": [{"name": "reviewer"}, found["searchAgents"]["nodes"][1]], "degraded": null})
    );
    let (code, text) = gateway.error("{ searchAgents(capability: \" \") { nodes { id } } }", json!({})).await;
    assert_eq!(
        (code.as_str(), text.contains("2,000") || text.contains("2000")),
        ("BAD_USER_INPUT", true),
        "{text}"
    );
}

async fn refusals(gateway: &Gateway) {
    for (arguments, field) in [
        ("", "query"),
        ("query: \"\"", "query"),
        ("query: \"a\", vector: [1]", "query"),
        ("query: \"a\", unlike: [\"018f3c6e-7d2a-7c51-9d1b-2f6a4f0c8e11\"]", "unlike"),
        ("vector: [0, 0]", "vector"),
        ("vector: [1e300]", "vector"),
        ("like: []", "like"),
        ("vector: [1], mode: LEXICAL", "mode"),
        ("query: \"a\", diversity: 1.5", "diversity"),
        ("query: \"a\", budget: 10", "budget"),
        ("query: \"a\", budget: 1000, groupBy: TASK", "budget"),
        ("query: \"a\", after: \"x\"", "after"),
        ("query: \"a\", domains: [LEGAL], filter: {title: {eq: \"\\u0000\"}}", "filter.title.eq"),
    ] {
        let arguments = if arguments.is_empty() { String::new() } else { format!("({arguments})") };
        let document = format!("{{ searchEvidence{arguments} {{ nodes {{ id }} }} }}");
        let answer = gateway.request(&document, json!({})).await;
        let extensions = &answer.body["errors"][0]["extensions"];
        assert_eq!(
            (&extensions["code"], &extensions["field"]),
            (&json!("BAD_USER_INPUT"), &json!(field)),
            "{document}: {}",
            answer.text
        );
    }
    // A cursor belongs to its question.
    let page = ask(gateway, "query: \"memory\", first: 1", "pageInfo { endCursor }").await;
    let document = format!(
        "{{ searchEvidence(query: \"other\", after: {}) {{ nodes {{ id }} }} }}",
        page["pageInfo"]["endCursor"]
    );
    assert_eq!(gateway.error(&document, json!({})).await.0, "BAD_USER_INPUT");
}

/// Without the index, words are still found by PostgreSQL itself, and the answer says so.
async fn degraded(database: &Database) {
    let gateway = Gateway::start(&database.url, &[], Access::Everyone).await;
    let document = "query ($mode: SearchMode!) { searchEvidence(query: \"signature verification gzip images\", mode: $mode, first: 3) { \
        degraded edges { lexical dense terms node { task { externalId } } } } }";
    for mode in ["HYBRID", "LEXICAL"] {
        let answer = gateway.request(document, json!({"mode": mode})).await;
        let found = &answer.body["data"]["searchEvidence"];
        assert_eq!(found["edges"][0]["node"]["task"]["externalId"], "RUSTSEC-2022-0103", "{}", answer.text);
        assert!(found["degraded"].is_string() && found["edges"][0]["dense"].is_null());
        assert_eq!(answer.body["extensions"]["warnings"][0]["code"], "DEGRADED", "{}", answer.text);
    }
    assert_eq!(gateway.error(document, json!({"mode": "SEMANTIC"})).await.0, "UNAVAILABLE");
    // The graph goes on: only what needs the index has an error, or other hits.
    let document = "{ tasks(first: 3, filter: {externalId: {eq: \"RUSTSEC-2022-0103\"}}) { nodes { externalId \
        evidenceFor(query: \"signature verification\", first: 2) { lexical node { task { externalId } } } \
        evidences(first: 1) { nodes { title similar { score } } } } } }";
    let answer = gateway.request(document, json!({})).await;
    let task = &answer.body["data"]["tasks"]["nodes"][0];
    assert_eq!(task["evidenceFor"][0]["node"]["task"]["externalId"], task["externalId"], "{}", answer.text);
    let evidence = &task["evidences"]["nodes"][0];
    assert!(evidence["title"].is_string() && evidence["similar"].is_null(), "{}", answer.text);
    assert_eq!(answer.body["errors"].as_array().unwrap().len(), 1, "{}", answer.text);
    assert_eq!(answer.body["errors"][0]["extensions"]["code"], "UNAVAILABLE");
}
