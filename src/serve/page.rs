//! The page over the API: three files in the program, nothing from elsewhere.

use axum::Router;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use sha2::{Digest as _, Sha256};

use super::Server;

const INDEX: &str = include_str!("page/index.html");
const STYLE: &str = include_str!("page/page.css");
const SCRIPT: &str = include_str!("page/page.js");

/// The page may run its own script, use its own style and talk to its own server; nothing else, and in no frame.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
    img-src 'self' data:; form-action 'none'; base-uri 'none'; frame-ancestors 'none'; \
    require-trusted-types-for 'script'; trusted-types 'none'";

/// The page's routes.
pub(super) fn router() -> Router<Server> {
    Router::new()
        .route("/", get(async |headers: HeaderMap| file(INDEX, "text/html; charset=utf-8", &headers)))
        .route("/page.css", get(async |headers: HeaderMap| file(STYLE, "text/css; charset=utf-8", &headers)))
        .route(
            "/page.js",
            get(async |headers: HeaderMap| file(SCRIPT, "text/javascript; charset=utf-8", &headers)),
        )
}

/// A file, or the word that the browser's copy is still good: a new version has another tag.
fn file(text: &'static str, kind: &'static str, asked: &HeaderMap) -> Response {
    use std::fmt::Write as _;
    let mut tag = String::from("\"");
    for byte in &Sha256::digest(text.as_bytes())[..8] {
        let _ = write!(tag, "{byte:02x}");
    }
    tag.push('"');
    let fresh = asked.get(header::IF_NONE_MATCH).is_some_and(|seen| seen.as_bytes() == tag.as_bytes());
    let mut response = if fresh { StatusCode::NOT_MODIFIED.into_response() } else { text.into_response() };
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    if let Ok(tag) = HeaderValue::from_str(&tag) {
        headers.insert(header::ETAG, tag);
    }
    response
}
