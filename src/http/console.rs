//! The pages for people: the start page and GraphiQL, built in `web/` and carried inside the program.

use axum::extract::Path;
use axum::http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use rust_embed::RustEmbed;

use crate::graphql::Graph;

/// The pages are made of files of their own and speak to nobody else. Monaco, GraphiQL's editor, writes its styles
/// into the page and may start its workers from blobs.
const POLICY: &str = "default-src 'none'; script-src 'self'; worker-src 'self' blob:; \
    style-src 'self' 'unsafe-inline'; img-src 'self' data:; font-src 'self' data:; connect-src 'self'; \
    base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

#[derive(RustEmbed)]
#[folder = "web/dist"]
#[allow_missing = true]
struct Assets;

/// `/`
pub async fn index() -> Response {
    page("index.html")
}

/// `/graphiql`
pub async fn graphiql() -> Response {
    page("graphiql.html")
}

/// `/assets/…`
pub async fn asset(Path(path): Path<String>) -> Response {
    // Their names carry a hash of their content, so they never change.
    send(&format!("assets/{path}"), "public, max-age=31536000, immutable")
        .unwrap_or_else(|| StatusCode::NOT_FOUND.into_response())
}

/// `/schema.graphql`
pub async fn schema() -> Response {
    ([(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"))], Graph::sdl()).into_response()
}

fn page(name: &str) -> Response {
    let Some(mut page) = send(name, "no-cache") else {
        let text = "The pages were not built into this program. Run `make web` and build it again; \
                    the API works without them.\n";
        return (StatusCode::NOT_FOUND, text).into_response();
    };
    page.headers_mut().insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    page
}

fn send(path: &str, caching: &'static str) -> Option<Response> {
    let file = Assets::get(path)?;
    let kind = HeaderValue::from_static(content_type(path));
    let caching = HeaderValue::from_static(caching);
    Some(([(CONTENT_TYPE, kind), (CACHE_CONTROL, caching)], file.data).into_response())
}

fn content_type(path: &str) -> &'static str {
    match path.rsplit('.').next().unwrap_or_default() {
        "html" => "text/html; charset=utf-8",
        "js" => "text/javascript; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        "svg" => "image/svg+xml",
        "ttf" => "font/ttf",
        _ => "application/octet-stream",
    }
}
