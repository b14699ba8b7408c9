//! The page over the API: a few files in the program, nothing from elsewhere, and no build step.

use axum::Router;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use sha2::{Digest as _, Sha256};

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";

/// Address, type and text of each file.
const FILES: [(&str, &str, &str); 26] = [
    ("/", HTML, include_str!("page/index.html")),
    ("/page.css", CSS, include_str!("page/page.css")),
    ("/page.js", SCRIPT, include_str!("page/page.js")),
    ("/page/accounts.js", SCRIPT, include_str!("page/accounts.js")),
    ("/page/batch.js", SCRIPT, include_str!("page/batch.js")),
    ("/page/columns.js", SCRIPT, include_str!("page/columns.js")),
    ("/page/csv.js", SCRIPT, include_str!("page/csv.js")),
    ("/page/elements.js", SCRIPT, include_str!("page/elements.js")),
    ("/page/found.js", SCRIPT, include_str!("page/found.js")),
    ("/page/held.js", SCRIPT, include_str!("page/held.js")),
    ("/page/history.js", SCRIPT, include_str!("page/history.js")),
    ("/page/http.js", SCRIPT, include_str!("page/http.js")),
    ("/page/left_out.js", SCRIPT, include_str!("page/left_out.js")),
    ("/page/list.js", SCRIPT, include_str!("page/list.js")),
    ("/page/log.js", SCRIPT, include_str!("page/log.js")),
    ("/page/mend.js", SCRIPT, include_str!("page/mend.js")),
    ("/page/mended.js", SCRIPT, include_str!("page/mended.js")),
    ("/page/new.js", SCRIPT, include_str!("page/new.js")),
    ("/page/plan.js", SCRIPT, include_str!("page/plan.js")),
    ("/page/reasons.js", SCRIPT, include_str!("page/reasons.js")),
    ("/page/refusals.js", SCRIPT, include_str!("page/refusals.js")),
    ("/page/rows.js", SCRIPT, include_str!("page/rows.js")),
    ("/page/chosen.js", SCRIPT, include_str!("page/chosen.js")),
    ("/page/settle.js", SCRIPT, include_str!("page/settle.js")),
    ("/page/standing.js", SCRIPT, include_str!("page/standing.js")),
    ("/page/states.js", SCRIPT, include_str!("page/states.js")),
];

/// The page may run its own script, use its own style and talk to its own server; nothing else, and in no frame.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
    img-src 'self' data:; form-action 'none'; base-uri 'none'; frame-ancestors 'none'; \
    require-trusted-types-for 'script'; trusted-types 'none'";

/// The page's routes.
pub(super) fn router<S: Clone + Send + Sync + 'static>() -> Router<S> {
    FILES.into_iter().fold(Router::new(), |router, (address, kind, text)| {
        router.route(address, get(async move |headers: HeaderMap| file(text, kind, &headers)))
    })
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
