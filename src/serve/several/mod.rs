//! Servers of several accounts behind one address: each at a path of its own, `/accounts/acct_…`, with a line, batches, a log and
//! counts of its own. They share the connections' bounds, the memory for uploads, the tokens and the ledger.
//!
//! Guarantees: what befalls one account (its key is refused, Stripe does not answer for it) shows there alone. A token that is
//! for some accounts opens nothing of the others, nor is told of them.

mod endpoints;

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock, PoisonError, RwLock};

use axum::Router;
use axum::body::Body;
use axum::extract::{DefaultBodyLimit, Request};
use axum::http::Uri;
use axum::http::uri::PathAndQuery;
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;
use tower_http::catch_panic::CatchPanicLayer;
use tracing::Instrument as _;

use super::access::{Caller, caller_of};
use super::api::accounts::{AccountState, AccountView};
use super::limits::Limits;
use super::problem::{Kind, Problem};
use super::tokens::{self, Tokens};
use super::{Server, api, connection, guard, no_method, no_route, page, panicked, with_headers};
use crate::clock::Clock;
use crate::config::HttpConfig;
use crate::ledger::Ledger;
use crate::metrics::exporter::Exporter;

/// What all accounts' paths begin with.
const PATH: &str = "/accounts/";

/// The path of an account's page and endpoints.
#[must_use]
pub fn address(account: &str) -> String {
    format!("{PATH}{account}")
}

/// What they are made of, beside the accounts' own servers.
pub struct Parts {
    /// `[http]`
    pub config: HttpConfig,
    /// Who may do what.
    pub tokens: Arc<Tokens>,
    /// The ledger that all share.
    pub views: Ledger,
    /// What is recorded of all this.
    pub exporter: Exporter,
}

/// The servers. Clones are the same ones.
#[derive(Clone)]
pub struct Several(Arc<Shared>);

struct Shared {
    parts: Parts,
    clock: Clock,
    accounts: RwLock<BTreeMap<String, OneOf>>,
    stopping: CancellationToken,
}

/// An account.
#[derive(Clone)]
struct OneOf {
    /// What people call it.
    name: Option<String>,
    standing: Standing,
}

/// How an account stands.
#[derive(Clone)]
enum Standing {
    /// It is asked whose account its key is.
    Opening,
    /// Its requests are answered.
    Serving(Arc<Serving>),
    /// It could not be opened, for this reason.
    Stopped(String),
}

struct Serving {
    server: Server,
    /// Made by the first request: there may be thousands of accounts that nobody asks for.
    router: OnceLock<Router>,
}

impl Several {
    /// None yet.
    #[must_use]
    pub fn new(parts: Parts) -> Self {
        let accounts = RwLock::default();
        let (clock, stopping) = (Clock::system(), CancellationToken::new());
        Self(Arc::new(Shared { parts, clock, accounts, stopping }))
    }

    fn set(&self, account: &str, standing: Standing) {
        let mut accounts = self.0.accounts.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(one) = accounts.get_mut(account) {
            one.standing = standing;
        }
    }

    fn standing(&self, account: &str) -> Option<Standing> {
        let accounts = self.0.accounts.read().unwrap_or_else(PoisonError::into_inner);
        accounts.get(account).map(|one| one.standing.clone())
    }

    fn all(&self) -> BTreeMap<String, OneOf> {
        self.0.accounts.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn servers(&self) -> Vec<Server> {
        let serving = |one: OneOf| match one.standing {
            Standing::Serving(serving) => Some(serving.server.clone()),
            Standing::Opening | Standing::Stopped(_) => None,
        };
        self.all().into_values().filter_map(serving).collect()
    }

    /// An account, which people call so, is being opened.
    pub fn opening(&self, account: &str, name: Option<String>) {
        let one = OneOf { name, standing: Standing::Opening };
        let mut accounts = self.0.accounts.write().unwrap_or_else(PoisonError::into_inner);
        accounts.insert(account.to_owned(), one);
    }

    /// An account's server begins.
    pub fn serves(&self, account: &str, server: Server) {
        server.begin();
        self.set(account, Standing::Serving(Arc::new(Serving { server, router: OnceLock::new() })));
    }

    /// An account cannot be opened.
    pub fn stopped(&self, account: &str, reason: &str) {
        self.set(account, Standing::Stopped(reason.to_owned()));
    }

    /// An account is not served any more, nor is to be.
    pub fn gone(&self, account: &str) {
        self.0.accounts.write().unwrap_or_else(PoisonError::into_inner).remove(account);
    }

    /// Those that could not be opened, and why.
    #[must_use]
    pub fn all_stopped(&self) -> Vec<(String, String)> {
        let stopped = |(account, one): (String, OneOf)| match one.standing {
            Standing::Stopped(reason) => Some((account, reason)),
            Standing::Opening | Standing::Serving(_) => None,
        };
        self.all().into_iter().filter_map(stopped).collect()
    }

    /// Whether nothing is issued for an account any more, and its files may have been mended since.
    #[must_use]
    pub fn has_halted(&self, account: &str) -> bool {
        match self.standing(account) {
            Some(Standing::Stopped(_)) => true,
            Some(Standing::Serving(serving)) => serving.server.intake().health().stopped.is_some(),
            Some(Standing::Opening) | None => false,
        }
    }

    /// Answers requests until [`Self::stop`], and then until those under way have ended.
    pub async fn run(&self, listener: TcpListener) {
        let limits = Limits::from(&self.0.parts.config);
        let watching = tokio::spawn(self.clone().watch_tokens());
        connection::serve(listener, self.router(), limits, self.0.stopping.clone()).await;
        watching.abort();
    }

    /// No more requests.
    pub fn stop(&self) {
        self.0.stopping.cancel();
        self.0.parts.views.stop_waiting();
    }

    /// Reads the file of tokens anew. If it cannot be used, those that are known stay.
    pub async fn reload_tokens(&self, why: &'static str) {
        let Some(file) = self.0.parts.config.tokens_file.clone() else {
            tracing::info!("{why}: there is no http.tokens_file to read anew; going on");
            return;
        };
        if let Some(detail) = tokens::read_anew(&self.0.parts.tokens, file, why).await {
            for server in self.servers() {
                server.tell_tokens_read(detail.clone()).await;
            }
        }
    }

    async fn watch_tokens(self) {
        let Some(file) = self.0.parts.config.tokens_file.clone() else { return };
        loop {
            tokens::changed(&self.0.parts.tokens, &file).await;
            self.reload_tokens("the file changed").await;
        }
    }

    fn router(&self) -> Router {
        // By the path's beginning, before any route: what a route finds in a path is told to all below it.
        let (several, own) = (self.clone(), self.own_router());
        Router::new().fallback(async move |request: Request| {
            match account_of(request.uri().path()).map(str::to_owned) {
                Some(account) => several.pass_on(&account, request).await,
                None => match own.oneshot(request).await {
                    Ok(response) => response,
                    Err(never) => match never {},
                },
            }
        })
    }

    /// What is asked at the address itself.
    fn own_router(&self) -> Router {
        let router = Router::new()
            .route("/v1/accounts", get(endpoints::list_accounts))
            .route("/v1/me", get(endpoints::show_caller))
            .route("/v1/stripe-events", post(endpoints::take_event))
            .route("/metrics", get(endpoints::show_metrics))
            .route("/healthz", get(api::server::healthz))
            .route("/readyz", get(endpoints::readyz))
            .merge(api::document_route())
            .merge(page::router())
            .fallback(no_route)
            .method_not_allowed_fallback(no_method)
            .layer(DefaultBodyLimit::disable())
            .layer(CatchPanicLayer::custom(panicked))
            .layer(from_fn_with_state(self.0.parts.tokens.clone(), guard));
        crate::trace::serving(router).with_state(self.clone())
    }

    /// Lets the account answer that the path begins with.
    async fn pass_on(&self, account: &str, request: Request) -> Response {
        let standing = self.standing(account);
        let Some(Standing::Serving(serving)) = standing else {
            let problem = match standing {
                None => {
                    let detail = "no such account is served here; /v1/accounts lists those that are";
                    Problem::new(Kind::NotFound, detail)
                }
                // Why may name what is configured: /v1/accounts tells it whoever has a token.
                Some(_) => {
                    let detail = "this account is not served at this moment; /v1/accounts tells why";
                    Problem::new(Kind::Unavailable, detail)
                }
            };
            let mut response = problem.into_response();
            with_headers(&mut response);
            return response;
        };
        let router = serving.router.get_or_init(|| serving.server.router()).clone();
        let span = tracing::info_span!("account", id = account);
        match router.oneshot(at_its_own_path(account, request)).instrument(span).await {
            Ok(response) => response,
            Err(never) => match never {},
        }
    }

    fn caller(&self, request: &axum::http::HeaderMap) -> Result<Caller, Problem> {
        caller_of(&self.0.parts.tokens, request, self.0.clock.now())
    }

    /// The accounts that somebody may see, and how each stands.
    fn seen_by(&self, caller: &Caller) -> Vec<AccountView> {
        let seen = self.all().into_iter().filter(|(account, _)| caller.is_for(account));
        let view = |(account, OneOf { name, standing }): (String, OneOf)| match standing {
            Standing::Opening => {
                let reason = "Stripe was not reached yet to learn whose key it is".to_owned();
                AccountView::idle(&account, name, AccountState::Opening, reason)
            }
            Standing::Serving(serving) => AccountView::of(&serving.server),
            Standing::Stopped(reason) => AccountView::idle(&account, name, AccountState::Stopped, reason),
        };
        seen.map(view).collect()
    }
}

/// The account whose path this is, or is below.
fn account_of(path: &str) -> Option<&str> {
    let rest = path.strip_prefix(PATH)?;
    let account = rest.split_once('/').map_or(rest, |(account, _)| account);
    (!account.is_empty()).then_some(account)
}

/// A request as its account's own server knows it: without the account's path.
fn at_its_own_path(account: &str, request: Request) -> Request<Body> {
    let (mut head, body) = request.into_parts();
    let mut uri = head.uri.into_parts();
    let whole = uri.path_and_query.as_ref().map_or("/", PathAndQuery::as_str);
    let rest = whole.get(PATH.len() + account.len()..).unwrap_or("");
    let own = if rest.starts_with('/') { rest.to_owned() } else { format!("/{rest}") };
    uri.path_and_query = own.parse().ok();
    head.uri = Uri::from_parts(uri).unwrap_or_default();
    Request::from_parts(head, body)
}
