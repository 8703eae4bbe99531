//! Standing searches, with the real model and the real engine: new evidence finds those who wait for it.

use uuid::Uuid;

use super::operations::PROJECTS;
use super::*;
use crate::harness::member;

const QUESTION: &str = "passwords are written to the log of a web server";

fn evidence(id: u128, project: usize, title: &str) -> String {
    let (id, project) = (Uuid::from_u128(id), PROJECTS[project]);
    format!(
        "insert into evidence (id, project_id, title, content, source_type, credibility_score)
         values ('{id}', '{project}', '{title}', '{title}', 'documentation', 0.9)"
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn new_evidence_finds_who_waits_for_it() {
    let database = Database::empty().await;
    let url = &database.url;
    super::operations::prepare(url).await;
    let dir = tempfile::tempdir().unwrap();
    let models = concat!(env!("CARGO_MANIFEST_DIR"), "/.evidence-gateway/models");
    std::os::unix::fs::symlink(models, dir.path().join("models")).unwrap();
    let settings = ["--embedder", "minilm", "--data-dir", dir.path().to_str().unwrap()];
    let process = Process::with_indexer(url, &settings).await;
    let document = "subscription($query: String!, $filter: EvidenceFilter, $after: String) {
        evidenceMatched(query: $query, minScore: 0.5, filter: $filter, after: $after) {
            cursor operation id score node { title project { slug } }
        }
    }";
    let all = json!({"query": QUESTION});
    let verified = json!({"query": QUESTION, "filter": {"verified": {"eq": true}}});
    let (both, first) = (member(None, &PROJECTS), member(None, &PROJECTS[..1]));
    let mut wide = process.watch(document, all.clone(), &both).await;
    let mut narrow = process.watch(document, verified, &both).await;
    let mut theirs = process.watch(document, all, &first).await;

    execute(url, &evidence(1, 0, "The web server logs passwords in plain text")).await;
    execute(url, &evidence(2, 0, "Bananas ripen faster in a warm kitchen")).await;
    execute(url, &evidence(3, 1, "User passwords leak into server log files")).await;
    let hear = async |stream: &mut Stream| {
        let event = told(&next(stream).await);
        let score = event["score"].as_f64().unwrap();
        assert!((0.5..=1.0).contains(&score), "{event}");
        let id: Uuid = event["id"].as_str().unwrap().parse().unwrap();
        (id.as_u128(), event["operation"].as_str().unwrap().to_owned(), event["cursor"].clone())
    };
    let (id, operation, cursor) = hear(&mut wide).await;
    assert_eq!((id, operation.as_str()), (1, "CREATED"));
    assert_eq!(hear(&mut wide).await.0, 3);
    assert_eq!(hear(&mut theirs).await.0, 1);

    // A new text is a new match; what does not change the text is none, unless the row comes to belong to the stream.
    let text = "update evidence set title = 'Passwords appear in the web server log', content = 'in plain text' where id = ";
    execute(url, &format!("{text} '{}'", Uuid::from_u128(2))).await;
    execute(url, "update evidence set verified = true, verified_at = now()").await;
    let (id, operation, _) = hear(&mut wide).await;
    assert_eq!((id, operation.as_str()), (2, "UPDATED"));
    assert_eq!(hear(&mut theirs).await.0, 2);
    let mut entered = Vec::new();
    for _ in 0..3 {
        let (id, operation, _) = hear(&mut narrow).await;
        assert_eq!(operation, "ENTERED");
        entered.push(id);
    }
    entered.sort_unstable();
    assert_eq!(entered, [1, 2, 3]);
    for stream in [&mut wide, &mut theirs] {
        is_quiet(stream).await;
    }

    // Resumed, it is told what followed; what was replaced since is judged by what replaced it.
    let mut again = process.watch(document, json!({"query": QUESTION, "after": cursor}), &both).await;
    let mut followed = Vec::new();
    for _ in 0..3 {
        let (id, operation, _) = hear(&mut again).await;
        followed.push((id, operation));
    }
    assert_eq!(followed, [(2, "CREATED".to_owned()), (3, "CREATED".to_owned()), (2, "UPDATED".to_owned())]);
    is_quiet(&mut again).await;
}
