//! The server of a company with the two pages, and a stand-in for the API behind them: links in memory, cards in a sandbox.
//! What the API really does is tested where it is built; here it answers as its contract says, and as a test orders.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{Path, Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use embosser::jwe::{self, PinKey};
use embosser::sandbox::Options;
use embosser::serve::pin_page::{PinPage, router};
use futures_util::StreamExt as _;
use reqwest::Method;
use serde_json::{Value, json};

use crate::support::asking::{Asking, CARD};

/// A link that was sent to a cardholder.
#[derive(Clone, Debug, Default)]
pub(crate) struct Link {
    /// The card that it is about; none: choosing makes a new one.
    pub(crate) card: Option<String>,
    /// What a viewing link shows; none: it is for choosing.
    pub(crate) shows: Option<Vec<&'static str>>,
    pub(crate) refused: Vec<&'static str>,
    pub(crate) digits: Option<(u32, u32)>,
    pub(crate) used: bool,
}

/// What the API is ordered to answer next, to any path.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Ordered {
    Problem(u16, &'static str),
    /// Too many requests; again after so many seconds.
    TooMany(u32),
    /// It does its work, and the connection breaks before its answer comes.
    Lost,
    /// The key is changed at Stripe just before the PIN comes.
    KeyChanged,
}

pub(crate) struct Company {
    pub(crate) asking: Asking,
    /// `http://127.0.0.1:PORT`
    pub(crate) url: String,
    links: Mutex<BTreeMap<String, Link>>,
    ordered: Mutex<VecDeque<(&'static str, Ordered)>>,
    /// Every request: its method and address, its headers, its body.
    heard: Mutex<Vec<(String, String, String)>>,
    /// How long choosing takes.
    pub(crate) takes: Mutex<Duration>,
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Company {
    pub(crate) async fn start(options: Options) -> Arc<Self> {
        let asking = Asking::of(options).await;
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let company = Arc::new(Self {
            url: format!("http://{}", listener.local_addr().unwrap()),
            asking,
            links: Mutex::default(),
            ordered: Mutex::default(),
            heard: Mutex::default(),
            takes: Mutex::default(),
        });
        let sandbox = &company.asking.sandbox;
        let elements = sandbox.elements_url();
        let page = PinPage::of(&sandbox.key_url(), Some(&elements), &sandbox.api_url()).unwrap();
        let app = Router::new()
            .merge(router(&page))
            .route("/v1/pin-links/look", post(look))
            .route("/v1/pin-links/choose", post(choose))
            .route("/v1/pin-key", get(pin_key))
            .route("/v1/cards/{card}/ephemeral-keys", post(ephemeral_key))
            .layer(from_fn_with_state(company.clone(), hear))
            .with_state(company.clone());
        tokio::spawn(async move { axum::serve(listener, app).await });
        company
    }

    /// Sends a link; answers its token.
    pub(crate) fn send(&self, link: Link) -> String {
        let mut links = lock(&self.links);
        let token = format!("{:A<43}", format!("link-{}", links.len()));
        links.insert(token.clone(), link);
        token
    }

    pub(crate) fn choose_url(&self, token: &str) -> String {
        format!("{}/pin#{token}", self.url)
    }

    pub(crate) fn view_url(&self, token: &str) -> String {
        format!("{}/pin/view#{token}", self.url)
    }

    pub(crate) fn is_used(&self, token: &str) -> bool {
        lock(&self.links)[token].used
    }

    /// Orders what requests to paths with this end are answered, one after the other.
    pub(crate) fn order(&self, path: &'static str, answers: impl IntoIterator<Item = Ordered>) {
        lock(&self.ordered).extend(answers.into_iter().map(|answer| (path, answer)));
    }

    /// Requests to paths with this end.
    pub(crate) fn heard(&self, path: &str) -> Vec<(String, String, String)> {
        let ends = |(line, ..): &&(String, String, String)| line.ends_with(path);
        lock(&self.heard).iter().filter(ends).cloned().collect()
    }

    /// A new card with this PIN.
    pub(crate) async fn card(&self, pin: &str) -> String {
        let body = format!("{CARD}&pin[encrypted_number]={}", self.asking.jwe(pin).await);
        let key = format!("card {}", self.asking.cards());
        let made = self.asking.create(&key, &body).await;
        made.body["id"].as_str().unwrap().to_owned()
    }

    /// The PINs of all cards, in the order in which these were made.
    pub(crate) fn pins(&self) -> Vec<String> {
        self.asking.sandbox.account().cards.into_iter().filter_map(|card| card.pin).collect()
    }

    fn usable(&self, token: &str) -> Option<Link> {
        lock(&self.links).get(token).filter(|link| !link.used).cloned()
    }

    fn use_up(&self, token: &str) {
        lock(&self.links).get_mut(token).unwrap().used = true;
    }
}

fn problem(status: u16, code: &str) -> Response {
    let kind = [(header::CONTENT_TYPE, "application/problem+json")];
    (StatusCode::from_u16(status).unwrap(), kind, json!({"status": status, "code": code}).to_string())
        .into_response()
}

/// Notes every request, and does what was ordered.
async fn hear(State(company): State<Arc<Company>>, request: Request, next: Next) -> Response {
    let (head, body) = request.into_parts();
    let body = axum::body::to_bytes(body, 1 << 20).await.unwrap();
    let line = format!("{} {}", head.method, head.uri);
    let (headers, text) = (format!("{:?}", head.headers), String::from_utf8_lossy(&body).into_owned());
    lock(&company.heard).push((line.clone(), headers, text));
    let ordered = {
        let mut ordered = lock(&company.ordered);
        let at = ordered.iter().position(|(path, _)| line.ends_with(path));
        at.and_then(|at| ordered.remove(at)).map(|(_, answer)| answer)
    };
    let answered = next.run(Request::from_parts(head, Bytes::clone(&body).into()));
    match ordered {
        None => answered.await,
        Some(Ordered::Problem(status, code)) => problem(status, code),
        Some(Ordered::TooMany(seconds)) => {
            let mut answer = problem(429, "too_many_requests");
            answer.headers_mut().insert(header::RETRY_AFTER, seconds.into());
            answer
        }
        Some(Ordered::Lost) => {
            answered.await;
            // A browser sends by itself again what was not answered at all: so the answer begins.
            let broken = futures_util::stream::once(async { Ok(Bytes::from_static(b"{")) }).chain(
                futures_util::stream::once(async {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    Err(std::io::Error::other("broken"))
                }),
            );
            Response::new(axum::body::Body::from_stream(broken))
        }
        Some(Ordered::KeyChanged) => {
            company.asking.sandbox.rotate_key();
            answered.await
        }
    }
}

async fn look(State(company): State<Arc<Company>>, Json(asked): Json<Value>) -> Response {
    let Some(link) = company.usable(asked["link"].as_str().unwrap()) else {
        return problem(404, "link_unusable");
    };
    let sandbox = &company.asking.sandbox;
    let (digits_min, digits_max) = link.digits.unwrap_or((4, 4));
    let view = link.shows.as_ref().map(|shows| {
        json!({
            "card": link.card, "publishable_key": "pk_test_sandbox", "shows": shows,
            "stripe_js": format!("{}/v3/", sandbox.elements_url()),
        })
    });
    Json(json!({
        "kind": if view.is_some() { "view" } else { "choose" },
        "changes_card": link.card.is_some(),
        "last4": link.card.as_ref().map(|_| "4242"),
        "expires": "2026-12-04T10:00:00Z",
        "policy": {
            "digits_min": digits_min, "digits_max": digits_max, "repeated": false, "ascending": false,
            "refused": link.refused,
        },
        "key_url": sandbox.key_url(),
        "view": view,
    }))
    .into_response()
}

async fn pin_key(State(company): State<Arc<Company>>) -> Response {
    let asking = &company.asking;
    match asking.client.get(asking.sandbox.key_url()).send().await {
        Ok(answer) if answer.status().is_success() => answer.bytes().await.unwrap().into_response(),
        _ => problem(503, "not_now"),
    }
}

async fn choose(State(company): State<Arc<Company>>, Json(asked): Json<Value>) -> Response {
    let text = |name: &str| asked[name].as_str().unwrap().to_owned();
    let (token, pin) = (text("link"), text("pin"));
    let takes = *lock(&company.takes);
    tokio::time::sleep(takes).await;
    let Some(link) = company.usable(&token) else { return problem(404, "link_unusable") };
    let asking = &company.asking;
    let key = asking.client.get(asking.sandbox.key_url()).send().await.unwrap().bytes().await.unwrap();
    if let Err(refusal) = jwe::verify(&pin, &PinKey::parse(&key).unwrap()) {
        let stale = refusal.code() == "stale_key";
        return if stale { problem(409, "stale_key") } else { problem(422, "pin_unusable") };
    }
    company.use_up(&token);
    let (path, body) = match &link.card {
        Some(card) => (format!("/v1/issuing/cards/{card}"), format!("pin[encrypted_number]={pin}")),
        None => ("/v1/issuing/cards".to_owned(), format!("{CARD}&pin[encrypted_number]={pin}")),
    };
    let done = asking.post(&path, &token, &body).await;
    if done.status == 200 {
        Json(json!({"state": "taken"})).into_response()
    } else {
        problem(409, "card_refused")
    }
}

async fn ephemeral_key(
    State(company): State<Arc<Company>>,
    Path(card): Path<String>,
    Json(asked): Json<Value>,
) -> Response {
    let token = asked["link"].as_str().unwrap();
    if company.usable(token).and_then(|link| link.card).as_deref() != Some(&*card) {
        return problem(404, "link_unusable");
    }
    company.use_up(token);
    let body = format!("issuing_card={card}&nonce={}", asked["nonce"].as_str().unwrap());
    let version = [("stripe-version", "2026-07-29")];
    let made = company.asking.send(Method::POST, "/v1/ephemeral_keys", &version, &body).await.unwrap();
    match made.body["secret"].as_str() {
        Some(secret) => Json(json!({"ephemeral_key_secret": secret, "card": card})).into_response(),
        None => problem(503, "not_now"),
    }
}
