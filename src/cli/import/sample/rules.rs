//! How an advisory is judged: who works on it, how urgent it is, how far its task is, what its links are.

use super::advisory::Advisory;
use crate::cli::import::cvss;

/// The project and the agent for a category of advisories. No category: for kinds of notices.
pub(super) fn place(category: &str) -> (&'static str, &'static str) {
    match category {
        "memory-corruption" => ("ai-engineering-platform", "debugger"),
        "memory-exposure" => ("ai-engineering-platform", "reviewer"),
        "denial-of-service" => ("moe-router", "tester"),
        "thread-safety" => ("moe-router", "architect"),
        "format-injection" => ("frontend-ui", "codegen"),
        "file-disclosure" => ("frontend-ui", "deployer"),
        "crypto-failure" | "privilege-escalation" | "malicious" | "code-execution" => {
            ("integration-hub", "security")
        }
        "unmaintained" => ("agent-library", "planner"),
        "unsound" => ("agent-library", "reviewer"),
        "notice" => ("agent-library", "documentation"),
        _ => ("agent-library", "orchestrator"),
    }
}

/// From 1 to 5, by the bands of CVSS; what was never scored is in the middle, save malice and mere notices.
pub(super) fn priority(advisory: &Advisory) -> i32 {
    if let Some(score) = advisory.cvss.as_deref().and_then(cvss::base_score) {
        return match score {
            9.0.. => 5,
            7.0.. => 4,
            4.0.. => 3,
            _ => 2,
        };
    }
    match (advisory.category(), advisory.informational.as_deref()) {
        ("malicious", _) => 5,
        (_, Some("unmaintained" | "notice")) => 2,
        _ => 3,
    }
}

/// A withdrawn advisory needs no work, one with a patch has been worked on, a notice can wait.
pub(super) fn status(advisory: &Advisory) -> &'static str {
    if advisory.withdrawn.is_some() {
        "cancelled"
    } else if !advisory.patched.is_empty() {
        "completed"
    } else if advisory.informational.is_some() {
        "pending"
    } else {
        "processing"
    }
}

const DOMAINS: [(&str, &[&str]); 3] = [
    ("legal", &["license", "licensed", "licensing", "copyright", "legal", "gdpr", "privacy"]),
    (
        "financial",
        &[
            "wallet",
            "wallets",
            "cryptocurrency",
            "blockchain",
            "bitcoin",
            "ethereum",
            "solana",
            "evm",
            "payment",
            "financial",
            "polymarket",
        ],
    ),
    ("social", &["nostr", "social", "matrix-sdk", "activitypub", "mastodon"]),
];

/// Which collection the evidence belongs to: by what the advisory's own words are about.
pub(super) fn domain(advisory: &Advisory) -> &'static str {
    let texts =
        [&advisory.title, &advisory.package, &advisory.description].into_iter().chain(&advisory.keywords);
    let mut words = texts.flat_map(|text| text.split(|c: char| !c.is_alphanumeric() && c != '-'));
    // A name such as `solana-sdk` counts, too.
    let is_about = |word: &str, topic: &str| {
        let begins = word.get(..topic.len()).is_some_and(|beginning| beginning.eq_ignore_ascii_case(topic));
        begins && matches!(word.as_bytes().get(topic.len()), None | Some(b'-'))
    };
    let domain_of = |word: &str| {
        let domain = DOMAINS.iter().find(|(_, topics)| topics.iter().any(|topic| is_about(word, topic)));
        domain.map(|(domain, _)| *domain)
    };
    words.find_map(domain_of).unwrap_or("general")
}

/// What stands behind an address, and how much it is worth: source type and credibility.
pub(super) fn source_of(url: &str) -> (&'static str, f64) {
    let has = |part: &str| url.contains(part);
    if has("/commit/") || has("/commits/") {
        ("commit", 0.9)
    } else if has("/pull/") || has("/merge_requests/") {
        ("pull_request", 0.85)
    } else if has("/security/advisories")
        || has("/advisories/")
        || has("nvd.nist.gov")
        || has("cve.mitre.org")
    {
        ("security_advisory", 0.9)
    } else if has("/issues/") || has("bugzilla") {
        ("issue", 0.7)
    } else if has("docs.rs") || has("CHANGELOG") || has("/blob/") || has("/releases") {
        ("documentation", 0.75)
    } else if has("eprint.iacr.org") || has("arxiv.org") {
        ("research_paper", 0.85)
    } else {
        ("web_page", 0.6)
    }
}

/// The number in `https://github.com/<owner>/<name>/<kind>/<number>…`
pub(super) fn github_number(url: &str, kind: &str) -> Option<i32> {
    let path = url.strip_prefix("https://github.com/")?;
    let mut parts = path.split(['/', '#', '?']).skip(2);
    (parts.next() == Some(kind)).then(|| parts.next()?.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_tell_their_kind() {
        assert_eq!(source_of("https://github.com/a/b/commit/1f").0, "commit");
        assert_eq!(source_of("https://gitlab.com/a/b/-/issues/3").0, "issue");
        assert_eq!(source_of("https://github.com/a/b/pull/3").0, "pull_request");
        assert_eq!(source_of("https://github.com/a/b/security/advisories/GHSA-1").0, "security_advisory");
        assert_eq!(source_of("https://example.com/").0, "web_page");
        assert_eq!(github_number("https://github.com/a/b/issues/144#issuecomment-1", "issues"), Some(144));
        assert_eq!(github_number("https://github.com/a/b/pull/12", "issues"), None);
        assert_eq!(github_number("https://example.com/a/b/pull/12", "pull"), None);
    }
}
