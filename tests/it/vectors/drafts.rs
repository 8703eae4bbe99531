//! A new index beside the present one, put in its place at once; and indexes that were made for something else.

use evidence_gateway::store::vectors::{Kind, Layout};

use super::{DIMENSION, KEYS, Place, east, id, layout, nearest, point, toward};

#[tokio::test]
async fn a_draft_takes_the_place_of_the_index() {
    for place in Place::all().await {
        let serving = place.open().await;
        serving.upsert(vec![point(1, 1, 7, east())]).await.unwrap();
        serving.set_bookmark("old").await.unwrap();
        assert!(!serving.refresh().await.unwrap());

        let draft = place.draft().await;
        draft.upsert(vec![point(2, 1, 7, east())]).await.unwrap();
        draft.set_bookmark("new").await.unwrap();
        draft.flush().await.unwrap();
        drop(draft);
        // Whoever was interrupted goes on.
        let draft = place.draft().await;
        assert_eq!(draft.bookmark().await.unwrap().as_deref(), Some("new"), "{}", place.name);
        draft.upsert(vec![point(3, 1, 7, toward(0.5))]).await.unwrap();
        assert!(!serving.refresh().await.unwrap());
        assert_eq!(nearest(&serving, 10).await, [1], "the index knows nothing of its draft");

        draft.publish().await.unwrap();
        assert!(serving.refresh().await.unwrap(), "{}", place.name);
        assert!(!serving.refresh().await.unwrap());
        assert_eq!(nearest(&serving, 10).await, [2, 3]);
        assert_eq!(serving.bookmark().await.unwrap().as_deref(), Some("new"));
        serving.upsert(vec![point(4, 1, 7, toward(0.4))]).await.unwrap();
        assert_eq!(nearest(&serving, 10).await, [2, 3, 4]);

        // The next draft is another one and empty; clearing takes the bookmark too.
        let draft = place.draft().await;
        assert_eq!((draft.count(None).await.unwrap(), draft.bookmark().await.unwrap()), (0, None));
        serving.clear().await.unwrap();
        assert_eq!((serving.count(None).await.unwrap(), serving.bookmark().await.unwrap()), (0, None));
        assert_eq!(serving.scroll(None, 10).await.unwrap(), []);
        serving.upsert(vec![point(1, 1, 7, east())]).await.unwrap();
        assert_eq!(serving.scroll(None, 10).await.unwrap(), [(id(1), 1)]);
        if let Some(server) = &place.server {
            assert_eq!(server.collections(), ["evidence-2", "evidence-3"]);
        }
    }
}

#[tokio::test]
async fn an_index_of_another_layout_is_refused_until_a_draft_replaces_it() {
    for place in Place::all().await {
        drop(place.open().await);
        let keys: &[(&str, Kind)] = &KEYS[1..];
        let others = [
            Layout { model: "letters".to_owned(), ..layout() },
            Layout { dimension: DIMENSION + 1, ..layout() },
            Layout { keys, ..layout() },
        ];
        let made =
            ["made for numbers (8 dimensions)", "made for numbers (8 dimensions)", "by another version"];
        for (other, made) in others.clone().into_iter().zip(made) {
            let error = place.open_as(other).await.unwrap_err();
            assert!(error.message().contains("rebuild it with `reindex`"), "{}: {error}", place.name);
            assert!(error.message().contains(made), "{}: {error}", place.name);
        }
        // A draft of yet another layout, which nobody finished, is thrown away.
        for other in &others[..2] {
            let draft = super::Vectors::draft(&place.settings, place.path(), other.clone()).await.unwrap();
            assert_eq!(draft.count(None).await.unwrap(), 0);
            draft.set_bookmark("mine").await.unwrap();
            draft.flush().await.unwrap();
        }
        let other = others[1].clone();
        let draft = super::Vectors::draft(&place.settings, place.path(), other.clone()).await.unwrap();
        draft.publish().await.unwrap();
        drop(draft);
        let vectors = place.open_as(other).await.unwrap();
        assert_eq!(vectors.bookmark().await.unwrap().as_deref(), Some("mine"), "{}", place.name);
        drop(vectors);
        assert!(place.open_as(layout()).await.is_err());
    }
}
