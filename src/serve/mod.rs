//! The HTTP API and the page over it.
//!
//! Duty: to take manifests and jobs from whoever may send them, to carry them down the line, and to say what became
//! of them. Never: an upload on a disk, a PIN's ciphertext in an answer or a log. Guarantees: an upload is issued
//! whole or not at all; the same upload again is the same batch; what is under way when the server stops is
//! finished by the next upload of the same file.

pub mod access;
mod api;
mod audit;
mod batch;
mod batch_events;
mod batches;
mod begin;
mod cancellation;
pub mod capacity;
mod cardholders;
mod check;
mod columns;
mod connection;
mod door;
mod download;
mod events;
mod extract;
mod following;
mod held;
mod history;
pub mod intake;
mod jobs;
mod key_relay;
mod limits;
mod names;
mod openapi;
mod page;
mod patience;
mod pending;
mod pin_limits;
pub mod pin_page;
mod pin_view;
mod pin_waiting;
mod pins;
mod plan;
mod problem;
mod publish;
mod refusals;
mod refused;
mod results;
mod results_workbook;
mod run;
mod settling;
pub mod several;
pub mod stripe_events;
mod table;
pub mod tokens;
mod tracking;
mod unpacked;
mod upload;
mod upload_fields;
mod view;

use std::any::Any;
use std::ops::Deref;
use std::sync::Arc;

use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::{HeaderName, HeaderValue, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Router};
use tokio::net::TcpListener;
use tokio::sync::{Notify, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower_http::catch_panic::CatchPanicLayer;
use utoipa::OpenApi as _;

use crate::clock::Clock;
use crate::config::{ApprovalConfig, HttpConfig, PinConfig, PinPageConfig};
use crate::ledger::{Ledger, Scope};
use crate::manifest::recognise::Recognition;
use crate::metrics::exporter::Exporter;
use crate::webhooks::Webhooks;
use access::{Caller, of_this_page};
use audit::{About, Action};
use batch::Batch;
use batches::Registry;
use capacity::Capacity;
use connection::Peer;
use held::Held;
use intake::Intake;
use jobs::Jobs;
use key_relay::KeyRelay;
use limits::Limits;
use pin_limits::PinLimits;
use pin_waiting::Awaited;
use problem::{Kind, Problem};
use stripe_events::EventSecret;
use tokens::Tokens;

/// What a server is made of.
pub struct Parts {
    /// `[http]`
    pub config: HttpConfig,
    /// Who may do what.
    pub tokens: Arc<Tokens>,
    /// How much may be under way.
    pub capacity: Capacity,
    /// Whether this is one of several accounts' servers behind one address.
    pub is_one_of_several: bool,
    /// What people call its account.
    pub account_name: Option<String>,
    /// Where jobs go.
    pub intake: Intake,
    /// The ledger of whoever issues them, on connections of its own: a long look never delays a job.
    pub views: Ledger,
    /// `live`, `test` or `sandbox`, for the page.
    pub mode: &'static str,
    /// The connected account that cards are made for, if there is one.
    pub account: Option<String>,
    /// `[approval]`
    pub approval: ApprovalConfig,
    /// `[pin]`
    pub pin: PinConfig,
    /// `[pin_page]`
    pub pin_page: PinPageConfig,
    /// What Stripe signs its events with; without it none is taken.
    pub event_secret: Option<Arc<EventSecret>>,
    /// Who is told of batches.
    pub webhooks: Webhooks,
    /// What is recorded of all this.
    pub exporter: Exporter,
}

/// A server. Clones are the same one.
#[derive(Clone)]
pub struct Server(Arc<Shared>);

impl Deref for Server {
    type Target = Shared;

    fn deref(&self) -> &Shared {
        &self.0
    }
}

/// What its requests share.
pub struct Shared {
    parts: Parts,
    limits: Limits,
    /// Whoever holds it has the cards of a batch looked at: one at a time, as all of it is to stay slow.
    tracking: Arc<Semaphore>,
    /// The same for rows whose end is found out.
    settling: Arc<Semaphore>,
    batches: Registry,
    jobs: Jobs,
    pin_limits: PinLimits,
    key_relay: KeyRelay,
    awaited: Awaited,
    /// A call with a chosen PIN was begun, and its end is not known.
    settle: Notify,
    stopping: CancellationToken,
    tasks: TaskTracker,
}

impl Server {
    /// A server of these parts, not listening yet.
    #[must_use]
    pub fn new(parts: Parts) -> Self {
        let limits = Limits::from(&parts.config);
        Self(Arc::new(Shared {
            limits,
            tracking: Arc::new(Semaphore::new(1)),
            settling: Arc::new(Semaphore::new(1)),
            batches: Registry::default(),
            jobs: Jobs::default(),
            pin_limits: PinLimits::default(),
            key_relay: KeyRelay::default(),
            awaited: Awaited::default(),
            settle: Notify::new(),
            stopping: CancellationToken::new(),
            tasks: TaskTracker::new(),
            parts,
        }))
    }

    /// Where its jobs go.
    #[must_use]
    pub fn intake(&self) -> &Intake {
        &self.parts.intake
    }

    /// Serves until [`Self::stop`], and then until everything under way has ended.
    pub async fn run(&self, listener: TcpListener) {
        self.begin();
        self.tasks.spawn(self.clone().watch_tokens());
        connection::serve(listener, self.whole_router(), self.limits, self.stopping.clone()).await;
        self.ended().await;
    }

    /// What it does without being asked begins.
    fn begin(&self) {
        self.parts.intake.begin(self);
        self.tasks.spawn(pin_waiting::count(self.clone()));
        self.tasks.spawn(pin_waiting::settle(self.clone()));
    }

    /// Resolves when everything under way has ended, once it was stopped.
    pub async fn ended(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// Stops: no more requests, no more calls; calls under way end, and their outcomes are recorded.
    pub fn stop(&self) {
        self.stopping.cancel();
        self.parts.intake.stop();
        self.parts.views.stop_waiting();
    }

    /// Reads the file of tokens anew. If it cannot be used, those that are known stay.
    pub async fn reload_tokens(&self, why: &'static str) {
        let Some(file) = self.parts.config.tokens_file.clone() else {
            tracing::info!("{why}: there is no http.tokens_file to read anew; going on");
            return;
        };
        if let Some(detail) = tokens::read_anew(&self.parts.tokens, file, why).await {
            self.tell_tokens_read(detail).await;
        }
    }

    /// Writes down that the tokens were read anew.
    async fn tell_tokens_read(&self, detail: String) {
        let about = About { detail: Some(detail), ..About::default() };
        // They are in use already: what cannot be told in the audit log stands in this one.
        if self.record(&Caller::THIS_SERVER, Action::TokensRead, about).await.is_err() {
            tracing::error!("that the tokens were read anew does not stand in the audit log");
        }
    }

    /// Reads the file of tokens anew whenever it has changed.
    async fn watch_tokens(self) {
        let Some(file) = self.parts.config.tokens_file.clone() else { return };
        let changes = async {
            loop {
                tokens::changed(&self.parts.tokens, &file).await;
                self.reload_tokens("the file changed").await;
            }
        };
        tokio::select! {
            () = changes => {}
            () = self.stopping.cancelled() => {}
        }
    }

    /// All that it answers, also at the address that it would have beside servers of other accounts.
    fn whole_router(&self) -> Router {
        let router = self.router();
        let Some(account) = self.scope().account() else { return router };
        let address = several::address(account);
        // The server's own endpoints are those of this address, too.
        Router::new().nest_service(&address, router.clone()).fallback_service(router)
    }

    fn router(&self) -> Router {
        let (router, _) = api::router(openapi::Document::openapi()).split_for_parts();
        let router = router
            .merge(api::document_route())
            .merge(page::router())
            .merge(cardholders::pages(self))
            .fallback(no_route)
            .method_not_allowed_fallback(no_method)
            // Each endpoint counts its own body.
            .layer(DefaultBodyLimit::disable())
            .layer(CatchPanicLayer::custom(panicked))
            .layer(from_fn_with_state(self.parts.tokens.clone(), guard));
        crate::trace::serving(router).with_state(self.clone())
    }

    /// A batch goes on its way.
    fn go(&self, batch: Arc<Batch>, held: Held, recognition: Arc<Recognition>) {
        tracing::info!(batch = %batch.name, rows = batch.rows(), "a batch begins");
        let server = self.clone();
        self.tasks
            .spawn(async move { server.clone().parts.intake.run(server, batch, held, recognition).await });
    }

    /// Whether work is taken.
    fn ready(&self) -> Result<(), Problem> {
        if let Some(reason) = self.parts.intake.health().stopped {
            return Err(Problem::new(Kind::Unavailable, reason));
        }
        if let Some(away) =
            self.parts.intake.ledger().unwrap_or(&self.parts.views).away().or_else(|| self.parts.views.away())
        {
            return Err(Problem::new(Kind::Unavailable, away.reason));
        }
        if self.stopping.is_cancelled() {
            return Err(Problem::new(Kind::Unavailable, "the server is stopping"));
        }
        Ok(())
    }

    fn scope(&self) -> &Scope {
        self.parts.intake.scope()
    }

    fn clock(&self) -> &Clock {
        self.parts.intake.clock()
    }

    fn pace_per_second(&self) -> f64 {
        self.parts.intake.health().current_per_second
    }
}

/// An answer of no route.
#[derive(Clone, Copy)]
struct NoRoute;

async fn no_route() -> impl IntoResponse {
    (Extension(NoRoute), Problem::new(Kind::NotFound, "there is nothing at this address"))
}

async fn no_method() -> Problem {
    Problem::new(Kind::MethodNotAllowed, "this address does not take this method; see Allow")
}

/// Before every request: may it come from where it comes? After it: the headers that every answer has.
async fn guard(State(tokens): State<Arc<Tokens>>, request: Request, next: Next) -> Response {
    let began = std::time::Instant::now();
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let allowed = match request.extensions().get::<Peer>() {
        Some(Peer(peer)) => of_this_page(&tokens, *peer, &method, request.headers()),
        None => Err(Problem::new(Kind::Internal, "a request without a connection")),
    };
    let mut response = match allowed {
        Ok(()) => next.run(request).await,
        Err(problem) => problem.into_response(),
    };
    let (status, ms) = (response.status().as_u16(), began.elapsed().as_millis());
    // Nobody knows what stands in an address that is none of ours: a link's token, where a mail program has made its `#` a `%23`.
    let path = if response.extensions().get::<NoRoute>().is_some() { "(none)" } else { &*path };
    tracing::info!(%method, path, status, ms, "request");
    with_headers(&mut response);
    response
}

fn with_headers(response: &mut Response) {
    let headers = response.headers_mut();
    for (name, value) in EVERY_ANSWER {
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    }
}

/// What every answer says, unless it says otherwise itself.
const EVERY_ANSWER: [(HeaderName, &str); 8] = [
    (header::CONTENT_SECURITY_POLICY, "default-src 'none'; frame-ancestors 'none'"),
    (header::CACHE_CONTROL, "no-store"),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::X_FRAME_OPTIONS, "DENY"),
    (header::REFERRER_POLICY, "no-referrer"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    (HeaderName::from_static("permissions-policy"), "camera=(), geolocation=(), microphone=()"),
];

/// A bug in one request is that request's alone. What it said is not told: it may quote what was sent.
fn panicked(_: Box<dyn Any + Send>) -> Response {
    tracing::error!("a request failed by a bug");
    Problem::new(Kind::Internal, "a bug; it has been logged").into_response()
}
