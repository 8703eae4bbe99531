//! A guard for `dev`, which asks nobody who they are: a page of the web can let its own name point at this machine
//! and then talk to a server here as if it were its own (DNS rebinding). Such requests still carry the page's name.

use std::net::IpAddr;

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::http::header::{CONTENT_TYPE, HOST};
use axum::http::uri::Authority;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use crate::app::App;
use crate::error::{Code, Error};
use crate::graphql::refusal;

/// Refuses what was not addressed to this machine by a name of its own. A gateway that asks for credentials, or one
/// that other machines are meant to reach, answers to any name.
pub async fn guard(State(app): State<App>, request: Request, next: Next) -> Response {
    if !app.access.lets_everyone_in() || !app.config.listen.ip().is_loopback() || is_local(&request) {
        return next.run(request).await;
    }
    let text = "dev answers only requests that are addressed to localhost, 127.0.0.1 or [::1]";
    let body = refusal(&Error::new(Code::Forbidden, text).into());
    (StatusCode::FORBIDDEN, [(CONTENT_TYPE, "application/json; charset=utf-8")], body).into_response()
}

fn is_local(request: &Request) -> bool {
    let headers = request.headers().get_all(HOST).iter().map(|value| value.to_str().unwrap_or_default());
    // HTTP/2 and proxies name the host in the address instead.
    let mut names = headers.chain(request.uri().authority().map(Authority::as_str)).peekable();
    names.peek().is_some() && names.all(is_loopback)
}

fn is_loopback(authority: &str) -> bool {
    let Ok(authority) = authority.parse::<Authority>() else { return false };
    // What stands before an @ is a user's name, which no client puts there.
    if authority.as_str().contains('@') {
        return false;
    }
    let host = authority.host();
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    host.eq_ignore_ascii_case("localhost") || address.is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::is_loopback;

    #[test]
    fn names_of_this_machine_are_told_from_others() {
        for name in
            ["localhost", "LocalHost:8080", "127.0.0.1", "127.0.0.1:1", "127.8.9.1:80", "[::1]", "[::1]:80"]
        {
            assert!(is_loopback(name), "{name}");
        }
        for name in [
            "",
            "example.org",
            "localhost.example.org:8080",
            "127.0.0.1.example.org",
            "10.0.0.1",
            "0.0.0.0:8080",
            "[::2]:80",
            "localhost@example.org",
            "example.org:80@localhost:8080",
            "a b",
        ] {
            assert!(!is_loopback(name), "{name}");
        }
    }
}
