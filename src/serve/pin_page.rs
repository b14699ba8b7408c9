//! The pages on which a cardholder chooses a PIN, or sees one: a few files in the program, nothing from elsewhere but Stripe's
//! own script where a PIN is shown.
//!
//! They are public: whoever has a link proves it by the token, which the page sends to the API. Never: a token in an address
//! that is sent, or a page that another site can frame.

use axum::Router;
use axum::http::{HeaderName, HeaderValue, header};
use axum::routing::get;
use url::Url;

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const SVG: &str = "image/svg+xml";

/// Address, type and text of each file that both pages use.
const ASSETS: [(&str, &str, &str); 10] = [
    ("/pin/assets/choose.js", SCRIPT, include_str!("pin_page/choose.js")),
    ("/pin/assets/encrypt.js", SCRIPT, include_str!("pin_page/encrypt.js")),
    ("/pin/assets/icon.svg", SVG, include_str!("pin_page/icon.svg")),
    ("/pin/assets/lock.svg", SVG, include_str!("pin_page/lock.svg")),
    ("/pin/assets/page.js", SCRIPT, include_str!("pin_page/page.js")),
    ("/pin/assets/pin.css", CSS, include_str!("pin_page/pin.css")),
    ("/pin/assets/policy.js", SCRIPT, include_str!("pin_page/policy.js")),
    ("/pin/assets/server.js", SCRIPT, include_str!("pin_page/server.js")),
    ("/pin/assets/texts.js", SCRIPT, include_str!("pin_page/texts.js")),
    ("/pin/assets/view.js", SCRIPT, include_str!("pin_page/view.js")),
];

const CHOOSE: &str = include_str!("pin_page/choose.html");
const VIEW: &str = include_str!("pin_page/view.html");

/// What no page may do, whatever else it may.
const NOTHING_ELSE: &str = "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'none'; base-uri 'none'; \
     frame-ancestors 'none'";

/// Whom the pages talk to beside their own server: origins (`https://api.stripe.com`).
#[derive(Debug, Clone)]
pub struct PinPage {
    key_origin: String,
    script_origin: Option<String>,
    api_origin: String,
}

impl PinPage {
    /// Of the address of Stripe's PIN key, of Stripe.js (none where no PIN is shown), and of Stripe's API, which that script
    /// calls.
    ///
    /// # Errors
    /// One of them is no address.
    pub fn of(key: &str, script: Option<&str>, api: &str) -> Result<Self, url::ParseError> {
        let origin = |address: &str| Url::parse(address).map(|url| url.origin().ascii_serialization());
        Ok(Self {
            key_origin: origin(key)?,
            script_origin: script.map(origin).transpose()?,
            api_origin: origin(api)?,
        })
    }

    fn choosing(&self) -> String {
        // No text is ever read as markup, and no script is made while it runs.
        format!(
            "{NOTHING_ELSE}; script-src 'self'; connect-src 'self' {}; require-trusted-types-for 'script'; trusted-types 'none'",
            self.key_origin
        )
    }

    fn viewing(&self) -> String {
        let Some(script) = &self.script_origin else {
            return format!("{NOTHING_ELSE}; script-src 'self'; connect-src 'self'");
        };
        let frames = match script.as_str() {
            // The frames in which Stripe.js shows what it shows (docs.stripe.com/security/guide).
            "https://js.stripe.com" => {
                "https://js.stripe.com https://*.js.stripe.com https://hooks.stripe.com"
            }
            stand_in => stand_in,
        };
        let api = &self.api_origin;
        format!(
            "{NOTHING_ELSE}; script-src 'self' {script}; frame-src {frames}; connect-src 'self' {script} {api}"
        )
    }
}

/// The pages' routes, for a server of any state; none of them asks for a token.
pub fn router<S: Clone + Send + Sync + 'static>(page: &PinPage) -> Router<S> {
    let assets = ASSETS.into_iter().fold(Router::new(), |router, (address, kind, text)| {
        file(router, address, kind, text, "default-src 'none'; frame-ancestors 'none'")
    });
    let router = file(assets, "/pin", HTML, CHOOSE, &page.choosing());
    file(router, "/pin/view", HTML, VIEW, &page.viewing())
}

/// One file, which no browser keeps and from which no address goes on.
fn file<S: Clone + Send + Sync + 'static>(
    router: Router<S>,
    address: &str,
    kind: &'static str,
    text: &'static str,
    policy: &str,
) -> Router<S> {
    let policy = HeaderValue::from_str(policy).expect("an origin in ASCII is a header's text");
    let headers: [(HeaderName, HeaderValue); 5] = [
        (header::CONTENT_TYPE, HeaderValue::from_static(kind)),
        (header::CONTENT_SECURITY_POLICY, policy),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
        (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
        (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    ];
    router.route(address, get(async move || (headers.clone(), text)))
}
