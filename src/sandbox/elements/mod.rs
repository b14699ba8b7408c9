//! The stand-in for the part of Stripe.js that shows a card's details (docs.stripe.com/issuing/elements), on an origin of its
//! own, as js.stripe.com is.
//!
//! It serves a script and a frame, and nothing of a card: both ask the API, the script for nonces with the publishable key,
//! the frame for the card with its ephemeral key. So a page that embeds it needs the same permissions in its
//! Content-Security-Policy as with Stripe: scripts and frames from here, connections to the API.

mod ephemeral;

use axum::Router;
use axum::http::{HeaderName, header};
use axum::response::IntoResponse;
use axum::routing::get;
use tokio::net::TcpListener;

pub(super) use ephemeral::{EphemeralKeys, NoUse};

const HTML: &str = "text/html; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";

/// What stands in the files where the API's port belongs.
const API_PORT: &str = "__API_PORT__";

/// Serves the script and the frame for cards of the API at this port of the same host.
pub(super) async fn serve(listener: TcpListener, api_port: u16) {
    // It only ends with the listener's own failure, and then there is nothing left to serve.
    let _ = axum::serve(listener, router(api_port)).await;
}

fn router(api_port: u16) -> Router {
    let script = file(SCRIPT, include_str!("page/stripe.js"), api_port);
    let frame = file(HTML, include_str!("page/frame.html"), api_port);
    Router::new()
        .route("/v3/", script.clone())
        .route("/v3", script.clone())
        // Named releases (js.stripe.com/dahlia/stripe.js) are the same script here.
        .route("/{release}/stripe.js", script)
        .route("/v3/frame", frame)
        .route("/v3/frame.js", file(SCRIPT, include_str!("page/frame.js"), api_port))
        .route("/v3/frame.css", file(CSS, include_str!("page/frame.css"), api_port))
}

/// A file that no browser keeps: another sandbox may be at this address next time.
fn file(kind: &'static str, text: &str, api_port: u16) -> axum::routing::MethodRouter {
    let text = text.replace(API_PORT, &api_port.to_string());
    // The frame may talk to the API at any host, since the browser knows this host by a name that this server does not.
    let policy = format!(
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src http://*:{api_port} https://*:{api_port}; \
         base-uri 'none'; form-action 'none'"
    );
    get(async move || {
        let headers: [(HeaderName, String); 5] = [
            (header::CONTENT_TYPE, kind.to_owned()),
            (header::CONTENT_SECURITY_POLICY, policy.clone()),
            (header::CACHE_CONTROL, "no-store".to_owned()),
            (header::REFERRER_POLICY, "no-referrer".to_owned()),
            (header::X_CONTENT_TYPE_OPTIONS, "nosniff".to_owned()),
        ];
        (headers, text.clone()).into_response()
    })
}
