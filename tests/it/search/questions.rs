//! Questions as people ask them, and the advisory that answers each.

use serde_json::json;

use crate::harness::Gateway;

pub(super) const QUESTIONS: &[(&str, &str)] = &[
    ("signature check skipped for compressed images", "RUSTSEC-2022-0103"),
    ("git revision parsing never ends on crafted input", "RUSTSEC-2024-0013"),
    ("forged recipient address passes arguments to the sendmail program", "RUSTSEC-2020-0069"),
    ("comparing two hash digests always says that they are equal", "RUSTSEC-2019-0026"),
    ("cloning a half consumed vector iterator uses memory after it was freed", "RUSTSEC-2020-0145"),
    ("huge chunk length crashes the HTTP server", "RUSTSEC-2026-0181"),
    ("verifying a password against a hash with non-ASCII characters panics", "RUSTSEC-2026-0199"),
    ("HTML sanitizer lets scripts through inside of SVG or MathML", "RUSTSEC-2021-0074"),
    ("many xmlns declarations use up the memory of an XML reader", "RUSTSEC-2026-0195"),
    ("Nostr HTTP authorization is parsed without a size limit", "RUSTSEC-2026-0229"),
    ("checking out a repository writes to Windows device names", "RUSTSEC-2024-0353"),
    ("executable is found by a relative path on Windows", "RUSTSEC-2021-0105"),
    ("buffer overflow while decrypting SM2 data", "RUSTSEC-2021-0097"),
    ("QUIC endpoint panics when a connection attempt is retried", "RUSTSEC-2024-0373"),
    ("asking for disk information from several threads frees memory twice", "RUSTSEC-2020-0100"),
    ("a custom cipher leads to no encryption at all", "RUSTSEC-2022-0059"),
    ("random number generator is seeded from a buffer that is not filled", "RUSTSEC-2021-0023"),
    ("pooling allocator leaks data between WebAssembly instances", "RUSTSEC-2022-0098"),
    ("hashing EIP-712 typed data panics on malformed input", "RUSTSEC-2025-0073"),
    ("references into a concurrent hash map outlive its lock", "RUSTSEC-2022-0002"),
    ("channel makes zero values of any type", "RUSTSEC-2022-0019"),
    ("cloning a local request gives several mutable references to it", "RUSTSEC-2020-0028"),
    ("presignatures together with HD wallet derivation are weak", "RUSTSEC-2025-0128"),
    ("crafted archive causes use after free while a string is deserialized", "RUSTSEC-2026-0233"),
    ("C string without a trailing zero overflows the heap", "RUSTSEC-2025-0032"),
    ("typosquatting crate for Windows services runs malware", "RUSTSEC-2023-0120"),
    ("instrumented future's into_inner uses the stack after it was freed", "RUSTSEC-2023-0078"),
    ("reader of a compressed libp2p stream sees uninitialized memory", "RUSTSEC-2020-0123"),
    ("default functions of volatile memory lack bounds checks", "RUSTSEC-2023-0056"),
    ("mutex guard is shared between threads though its content must not be", "RUSTSEC-2020-0072"),
];

const SEARCH: &str = "query ($query: String!, $mode: SearchMode!) { searchEvidence(query: $query, mode: $mode, first: 5) { \
    nodes { task { externalId } } } }";

/// Among the first five, the place of the right one, for each question; 5 if it is not there.
async fn places(gateway: &Gateway, mode: &str) -> Vec<usize> {
    let mut places = Vec::new();
    for (query, advisory) in QUESTIONS {
        let data = gateway.ask_with(SEARCH, json!({"query": query, "mode": mode})).await;
        let hits = data["searchEvidence"]["nodes"].as_array().unwrap();
        let place = hits.iter().position(|hit| hit["task"]["externalId"] == *advisory).unwrap_or(5);
        if place > 0 {
            println!("{mode} {place}: {query}");
        }
        places.push(place);
    }
    places
}

/// Both ways together answer most questions at once, and no worse than either alone.
pub(super) async fn are_answered(gateway: &Gateway) {
    let share = |places: &[usize], first: usize| {
        places.iter().filter(|place| **place < first).count() as f64 / places.len() as f64
    };
    let mut all = Vec::new();
    for mode in ["HYBRID", "SEMANTIC", "LEXICAL"] {
        let places = places(gateway, mode).await;
        println!("{mode}: hit@1 {:.3}, hit@5 {:.3}", share(&places, 1), share(&places, 5));
        assert!(mode == "LEXICAL" || places[0] == 0, "{mode}: {}", QUESTIONS[0].0);
        all.push((share(&places, 1), share(&places, 5)));
    }
    assert!(all[0].0 >= 0.8 && all[0].1 >= 0.95, "{all:?}");
    assert!(all[1..].iter().all(|single| all[0].0 >= single.0 && all[0].1 >= single.1), "{all:?}");
}
