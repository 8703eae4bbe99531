//! What media type a client wants its answers in.

use axum::http::HeaderMap;
use axum::http::header::ACCEPT;

/// What a client takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Wanted {
    /// An answer in JSON: in the media type of GraphQL (true) or in plain JSON (false).
    pub(super) json: Option<bool>,
    /// A stream of events; it also has room for one answer.
    pub(super) events: bool,
    /// A stream of parts, as Apollo's clients read it.
    pub(super) parts: bool,
}

impl Wanted {
    /// `None` if it is nothing that can be had here.
    pub(super) fn of(headers: &HeaderMap) -> Option<Self> {
        let mut wanted = Self { json: Some(false), events: false, parts: false };
        let Some(accept) = headers.get(ACCEPT).and_then(|value| value.to_str().ok()) else {
            return Some(wanted);
        };
        wanted.json = None;
        let mut best: Option<f32> = None;
        for range in accept.split(',') {
            let quality = quality(range);
            if quality <= 0.0 {
                continue;
            }
            let modern = match range.split(';').next().unwrap_or_default().trim() {
                "application/graphql-response+json" => true,
                "application/json" | "application/*" | "*/*" => false,
                "text/event-stream" => {
                    wanted.events = true;
                    continue;
                }
                "multipart/mixed" => {
                    wanted.parts = range.contains("subscriptionSpec");
                    continue;
                }
                _ => continue,
            };
            if best.is_none_or(|known| quality > known) {
                best = Some(quality);
                wanted.json = Some(modern);
            }
        }
        (wanted.json.is_some() || wanted.events || wanted.parts).then_some(wanted)
    }

    /// Whether it can take more than one answer.
    pub(super) const fn many(self) -> bool {
        self.events || self.parts
    }
}

fn quality(range: &str) -> f32 {
    let parameter = range.split(';').skip(1).find_map(|part| part.trim().strip_prefix("q="));
    parameter.map_or(1.0, |quality| quality.trim().parse::<f32>().unwrap_or(0.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_get_what_they_ask_for() {
        let wanted = |json, events, parts| Some(Wanted { json, events, parts });
        for (accept, expected) in [
            ("*/*", wanted(Some(false), false, false)),
            ("application/json;q=0.5, application/graphql-response+json", wanted(Some(true), false, false)),
            ("text/event-stream", wanted(None, true, false)),
            ("text/event-stream;q=0", None),
            ("text/html", None),
            // urql, with a subscription and without.
            ("text/event-stream, multipart/mixed", wanted(None, true, false)),
            (
                "application/graphql-response+json, application/graphql+json, application/json, text/event-stream, \
                 multipart/mixed",
                wanted(Some(true), true, false),
            ),
            // Apollo Client.
            (
                "multipart/mixed;boundary=graphql;subscriptionSpec=1.0,application/graphql-response+json,application/json;q=0.9",
                wanted(Some(true), false, true),
            ),
        ] {
            let headers = [(ACCEPT, accept.parse().unwrap())].into_iter().collect();
            assert_eq!(Wanted::of(&headers), expected, "{accept}");
        }
    }
}
