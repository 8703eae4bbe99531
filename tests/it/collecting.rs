//! Gathering evidence by mutations: the same content is kept once, batches are all or nothing, chains stay chains.

use serde_json::{Value, json};

use crate::harness::{column, execute};
use crate::writes::{World, call, id, outcome};

#[tokio::test]
async fn the_same_content_is_kept_once() {
    let world = World::new().await;
    let agent = world.agent();
    let add = async |input: Value| call(&agent, "addEvidence", "id title", input).await;
    let first = add(world.piece("same")).await;
    let mut again = world.piece("same");
    again["title"] = json!("Another title");
    let again = add(again).await;
    assert_eq!((id(&first), &again.body["data"]["it"]["title"]), (id(&again), &json!("A piece")));

    // At once, alone and in batches that name them in other orders.
    let answers = futures_util::future::join_all((0..12).map(async |n: usize| {
        let (a, b) = if n.is_multiple_of(2) { ("one", "two") } else { ("two", "one") };
        let input = json!({"evidences": [world.piece(a), world.piece(b), world.piece(a)]});
        let answer = call(&agent, "addEvidences", "id content", input).await;
        answer.body["data"]["it"].as_array().unwrap_or_else(|| panic!("{}", answer.text)).clone()
    }))
    .await;
    for (n, rows) in answers.iter().enumerate() {
        let contents: Vec<_> = rows.iter().map(|row| row["content"].as_str().unwrap()).collect();
        assert_eq!(contents, if n.is_multiple_of(2) { ["one", "two", "one"] } else { ["two", "one", "two"] });
    }
    let count = "select count(*) from evidence where content in ('same', 'one', 'two')";
    assert_eq!(column(&world.url, count).await, ["3"]);
    let trail = "select count(*) from audit_logs where event_type = 'evidence.created'";
    assert_eq!(column(&world.url, trail).await, ["3"]);

    // Another task has its own, and what has expired is gathered anew.
    let mut of_task = world.piece("same");
    of_task["taskId"] = json!(world.task().await);
    assert_ne!(id(&add(of_task).await), id(&first));
    assert_eq!(outcome(&call(&agent, "expireEvidence", "id", json!({"id": id(&first)})).await).0, "OK");
    assert_ne!(id(&add(world.piece("same")).await), id(&first));
}

#[tokio::test]
async fn a_batch_is_written_whole_or_not_at_all() {
    let world = World::new().await;
    let agent = world.agent();
    let before = world.count("evidence").await;
    let pieces = |n: usize| (0..n).map(|n| world.piece(&format!("piece {n}"))).collect::<Vec<_>>();
    for (field, value, code) in [
        ("title", json!(""), "BAD_USER_INPUT"),
        ("credibilityScore", json!(2), "BAD_USER_INPUT"),
        ("taskId", json!("018f3c6e-7d2a-7c51-9d1b-2f6a4f0c8e11"), "NOT_FOUND"),
    ] {
        let mut evidences = pieces(5);
        evidences[3][field] = value;
        let answer = call(&agent, "addEvidences", "id", json!({"evidences": evidences})).await;
        assert_eq!(outcome(&answer).0, code);
        let error = &answer.body["errors"][0];
        assert_eq!(error["extensions"]["field"], format!("input.evidences.3.{field}"));
        assert_eq!(error["path"], json!(["it"]));
    }
    for wrong in [0, 101] {
        let answer = call(&agent, "addEvidences", "id", json!({"evidences": pieces(wrong)})).await;
        assert_eq!(answer.body["errors"][0]["extensions"]["field"], "input.evidences", "{}", answer.text);
    }
    assert_eq!(world.count("evidence").await, before);
    let mut costs = Vec::new();
    for n in [1, 100] {
        let before = world.gateway.statements().await;
        let answer = call(&agent, "addEvidences", "id agent { name }", json!({"evidences": pieces(n)})).await;
        assert_eq!(answer.body["data"]["it"].as_array().unwrap().len(), n, "{}", answer.text);
        costs.push(world.gateway.statements().await - before);
    }
    assert_eq!(costs, [9, 9]);
}

/// Root fields run one after the other; one that fails is null, and each sees what those before it wrote.
#[tokio::test]
async fn the_fields_of_a_request_follow_each_other() {
    let world = World::new().await;
    let task = world.task().await;
    let document = "mutation ($id: UUID!, $wrong: String!) { __typename
        a: transitionTask(input: {id: $id, status: PROCESSING}) { status version }
        b: transitionTask(input: {id: $id, status: PENDING}) { status version }
        c: updateTask(input: {id: $id, title: $wrong}) { title }
        ...More }
        fragment More on Mutation { d: transitionTask(input: {id: $id, status: COMPLETED}) { status version } }";
    let answer = world.agent().request(document, json!({"id": task, "wrong": ""})).await;
    let expected = json!({"__typename": "Mutation", "a": {"status": "PROCESSING", "version": 2}, "b": null, "c": null,
        "d": {"status": "COMPLETED", "version": 3}});
    assert_eq!(answer.body["data"], expected, "{}", answer.text);
    let paths: Vec<_> = answer.body["errors"].as_array().unwrap().iter().map(|e| e["path"].clone()).collect();
    assert_eq!(paths, [json!(["b"]), json!(["c"])]);
    // What a mutation may cost is limited like any other document.
    let evidences: Vec<_> = (0..100).map(|n| world.piece(&n.to_string())).collect();
    let document = "mutation ($input: AddEvidencesInput!) { addEvidences(input: $input) { chainLinks(first: 200) { nodes \
                    { evidence { relations(first: 200) { nodes { id } } } } } } }";
    let (code, text) = world.agent().error(document, json!({"input": {"evidences": evidences}})).await;
    assert!(code == "BAD_USER_INPUT" && text.contains("values in its answer"), "{text}");
}

#[tokio::test]
async fn chains_grow_at_their_end_and_never_in_circles() {
    let world = World::new().await;
    let agent = world.agent();
    let chain = async || {
        let input = json!({"projectId": world.project, "claim": "A claim"});
        id(&call(&agent, "createChain", "id", input).await)
    };
    let (mine, other) = (chain().await, chain().await);
    let evidence = world.evidence("a reason").await;
    let append = async |chain: &str, parent: Option<&str>| {
        let input =
            json!({"chainId": chain, "evidenceId": evidence, "parentLinkId": parent, "role": "SUPPORT"});
        call(&agent, "appendChainLink", "id position chain { depth }", input).await
    };
    let root = id(&append(&mine, None).await);
    let second = append(&mine, Some(&root)).await;
    assert_eq!(second.body["data"]["it"], json!({"id": id(&second), "position": 1, "chain": {"depth": 2}}));
    let at_once =
        futures_util::future::join_all((0..8).map(async |_| append(&mine, Some(&root)).await)).await;
    let mut places: Vec<_> =
        at_once.iter().map(|a| a.body["data"]["it"]["position"].as_i64().unwrap()).collect();
    places.sort_unstable();
    assert_eq!(places, (2..10).collect::<Vec<_>>());
    let (code, text) = outcome(&append(&other, Some(&root)).await);
    assert_eq!(
        (code.as_str(), text.as_str()),
        ("BAD_USER_INPUT", "input.parentLinkId is a link of another chain")
    );

    // A new link has no followers, so only the database can be made to see a circle.
    let trap = "create function bite() returns trigger language plpgsql as $$ begin new.parent_link_id := new.id; return new; end $$;
        create trigger bite before insert on evidence_chain_links for each row execute function bite()";
    execute(&world.url, trap).await;
    let (code, text) = outcome(&append(&other, None).await);
    assert_eq!(
        (code.as_str(), text.as_str()),
        ("CONFLICT", "a link of an evidence chain cannot follow from itself, be it over other links")
    );
    execute(&world.url, "drop trigger bite on evidence_chain_links").await;

    let conclude = async |status: &str| {
        let input = json!({"id": mine, "conclusion": "So be it", "status": status});
        outcome(&call(&agent, "concludeChain", "id", input).await)
    };
    assert_eq!(conclude("OPEN").await.0, "BAD_USER_INPUT");
    assert_eq!(conclude("REJECTED").await.0, "OK");
    let again = "the chain is REJECTED and is not concluded again";
    assert_eq!(conclude("CONCLUDED").await, ("CONFLICT".to_owned(), again.to_owned()));
    let late = "the chain is REJECTED and takes no links";
    assert_eq!(outcome(&append(&mine, None).await), ("CONFLICT".to_owned(), late.to_owned()));
}

#[tokio::test]
async fn what_there_is_once_stays_once() {
    let world = World::new().await;
    let agent = world.agent();
    let (a, b) = (world.evidence("a").await, world.evidence("b").await);
    let relate = async |from: &str, to: &str| {
        let input = json!({"fromEvidenceId": from, "toEvidenceId": to, "kind": "CONTRADICTS"});
        outcome(&call(&agent, "relateEvidence", "id", input).await)
    };
    assert_eq!(relate(&a, &b).await.0, "OK");
    let text = "there is a relation of this kind between the two already";
    assert_eq!(relate(&a, &b).await, ("CONFLICT".to_owned(), text.to_owned()));
    assert_eq!(relate(&b, &a).await.0, "OK");
    assert_eq!(relate(&a, &a).await.0, "BAD_USER_INPUT");
    let input = json!({"name": "reviewer", "type": "t", "agentVersion": "1"});
    let answer = call(&world.gateway, "registerAgent", "id", input).await;
    let expected = ("CONFLICT".to_owned(), "input.name is taken: another row has it".to_owned());
    assert_eq!(outcome(&answer), expected);
}
