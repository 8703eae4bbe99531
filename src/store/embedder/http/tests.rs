//! The arithmetic around the requests; tests/it/embedder.rs has the requests.

use super::*;

#[test]
fn batches_are_bounded_in_number_and_size() {
    let (long, huge) = ("x".repeat(BATCH_BYTES_MAX / 2), "x".repeat(BATCH_BYTES_MAX + 1));
    for (texts, count, sizes) in [
        (vec!["a"; 5], 2, vec![2, 2, 1]),
        (vec!["a"; 4], 2, vec![2, 2]),
        (vec!["a"], 8, vec![1]),
        (vec![long.as_str(); 5], 8, vec![2, 2, 1]),
        (vec!["a", &long, &long, "a"], 8, vec![2, 2]),
        (vec!["a", &huge, "a", "a"], 8, vec![1, 1, 2]),
    ] {
        let found: Vec<usize> = batches(&texts, count).into_iter().map(<[&str]>::len).collect();
        assert_eq!(found, sizes);
    }
    assert_eq!(window(&"é".repeat(TEXT_BYTES_MAX)).len(), TEXT_BYTES_MAX);
    assert_eq!(window(&format!("x{}", "é".repeat(TEXT_BYTES_MAX))).len(), TEXT_BYTES_MAX - 1);
}

#[test]
fn retry_after_is_seconds_or_a_moment() {
    let now = DateTime::parse_from_rfc3339("2026-01-02T03:04:05Z").unwrap().to_utc();
    for (text, seconds) in [
        ("0", Some(0)),
        (" 7 ", Some(7)),
        ("Fri, 02 Jan 2026 03:04:35 GMT", Some(30)),
        ("Fri, 02 Jan 2026 03:00:00 GMT", Some(0)),
        ("-1", None),
        ("1.5", None),
        ("soon", None),
        ("", None),
    ] {
        let header = HeaderValue::from_static(text);
        assert_eq!(wait(&header, now), seconds.map(Duration::from_secs), "{text}");
    }
}

#[test]
fn delays_grow_and_end_growing() {
    for (attempt, most) in [(1, 100), (2, 200), (3, 400), (5, 1_600), (6, 2_000), (u32::MAX, 2_000)] {
        for _ in 0..100 {
            let delay = backoff(attempt);
            let most = Duration::from_millis(most);
            assert!(delay >= most / 2 && delay <= most, "{attempt}: {delay:?}");
        }
    }
    let delays: std::collections::HashSet<_> = (0..10).map(|_| backoff(6)).collect();
    assert!(delays.len() > 1);
}

#[test]
fn only_names_of_reasons_are_repeated() {
    for (body, shown) in [
        (
            r#"{"error": {"message": "Incorrect key sk-1", "type": "x_error", "code": "invalid_api_key"}}"#,
            ", invalid_api_key",
        ),
        (r#"{"error": {"message": "no", "type": "server_error", "code": null}}"#, ", server_error"),
        (r#"{"error": {"code": "Incorrect key sk-1"}}"#, ""),
        (r#"{"error": {"code": 400}}"#, ""),
        (r#"{"error": "sk-1"}"#, ""),
        ("<html>", ""),
        ("", ""),
    ] {
        assert_eq!(reason(body.as_bytes()), shown, "{body}");
    }
}
