//! The connections to Stripe: pooled, kept warm, with HTTP/2 where the server offers it, and no delay for small writes.
//!
//! hyper's own client, which reqwest is built on too. What reqwest adds for each request (redirects that are never
//! followed here, for which it parses the address twice more) was a quarter of a job's cost. Never: to follow a redirect
//! or to send a request again that a server may have seen.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode, Uri};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder, MaybeHttpsStream};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::proxy::Tunnel;
use hyper_util::client::proxy::matcher::Matcher;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::ClientConfig;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};
use tower::{Service, ServiceExt as _};

use super::outgoing::Outgoing;

/// Connections kept open to each host while idle; as many as may ever be in flight.
const IDLE_CONNECTIONS_MAX: usize = 1024;
/// How long an idle connection is kept: below the 60 s after which load balancers tend to close theirs.
const IDLE_CONNECTION_KEPT: Duration = Duration::from_secs(50);
/// A peer that vanished is noticed on an idle connection after about a minute, on a busy one after half of it.
const KEEPALIVE: Duration = Duration::from_secs(15);
const KEEPALIVE_TRIES: u32 = 3;
const UNACKNOWLEDGED_MAX: Duration = Duration::from_secs(30);
/// Most bytes read of an answer. A page of 100 cards is about 400 KB; anything far beyond is not Stripe's.
const ANSWER_BYTES_MAX: usize = 8 << 20;

type BoxError = Box<dyn std::error::Error + Send + Sync>;
type Connecting<T> = Pin<Box<dyn Future<Output = Result<T, BoxError>> + Send>>;

/// How requests go out and how long they may take.
#[derive(Clone)]
pub(super) struct Wire {
    client: Client<Bounded, Outgoing>,
    total: Duration,
}

/// What a server answered; its body may have broken off.
pub(super) struct Reply {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Result<Bytes, String>,
}

/// Why there is no answer.
pub(super) enum Silence {
    /// No connection was to be had: the server never saw the request.
    NotSent(String),
    /// It may have.
    NoAnswer(String),
}

impl Silence {
    pub(super) fn reason(self) -> String {
        match self {
            Self::NotSent(reason) | Self::NoAnswer(reason) => reason,
        }
    }
}

/// Whether the environment's proxies are used (`HTTPS_PROXY`, `ALL_PROXY`, `NO_PROXY`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Proxies {
    OfEnvironment,
    None,
}

impl Wire {
    /// Makes the pool. No connection is opened yet.
    pub(super) fn new(tls: ClientConfig, proxies: Proxies, connect: Duration, total: Duration) -> Self {
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_keepalive(Some(KEEPALIVE));
        tcp.set_keepalive_interval(Some(KEEPALIVE));
        tcp.set_keepalive_retries(Some(KEEPALIVE_TRIES));
        #[cfg(target_os = "linux")]
        tcp.set_tcp_user_timeout(Some(UNACKNOWLEDGED_MAX));
        let proxies = (proxies == Proxies::OfEnvironment).then(|| Arc::new(Matcher::from_env()));
        let https = HttpsConnectorBuilder::new()
            .with_tls_config(tls)
            .https_or_http()
            .enable_http1()
            .enable_http2()
            .wrap_connector(Route { tcp, proxies });
        let client = Client::builder(TokioExecutor::new())
            .timer(TokioTimer::new())
            .pool_timer(TokioTimer::new())
            .pool_max_idle_per_host(IDLE_CONNECTIONS_MAX)
            .pool_idle_timeout(IDLE_CONNECTION_KEPT)
            .build(Bounded { https, limit: connect });
        Self { client, total }
    }

    /// Sends a request and reads its answer to the end.
    pub(super) async fn send(&self, request: Request<Outgoing>) -> Result<Reply, Silence> {
        let until = Instant::now() + self.total;
        let Ok(answered) = timeout_at(until, self.client.request(request)).await else {
            return Err(Silence::NoAnswer("no answer in time".into()));
        };
        let (head, body) = match answered {
            Ok(answer) => answer.into_parts(),
            Err(error) if error.is_connect() => {
                return Err(Silence::NotSent(brief("cannot connect", &error)));
            }
            Err(error) => return Err(Silence::NoAnswer(brief("connection failed", &error))),
        };
        let body = timeout_at(until, read(body)).await.unwrap_or_else(|_| Err("no answer in time".into()));
        Ok(Reply { status: head.status, headers: head.headers, body })
    }
}

async fn read(mut body: Incoming) -> Result<Bytes, String> {
    let mut first = Bytes::new();
    let mut whole = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| brief("connection failed", &error))?;
        let Ok(piece) = frame.into_data() else { continue };
        if first.is_empty() && whole.is_empty() {
            first = piece;
            continue;
        }
        if whole.is_empty() {
            whole.extend_from_slice(&std::mem::take(&mut first));
        }
        if whole.len() + piece.len() > ANSWER_BYTES_MAX {
            return Err("the answer is too long to be Stripe's".into());
        }
        whole.extend_from_slice(&piece);
    }
    Ok(if whole.is_empty() { first } else { whole.into() })
}

/// An HTTP error's last cause in one line, without the address (which may carry a query).
fn brief(what: &str, error: &(dyn std::error::Error + 'static)) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    if cause.is::<TimedOut>() {
        return "connecting timed out".into();
    }
    if std::ptr::eq(cause, error) { what.into() } else { format!("{what}: {cause}") }
}

/// No connection within the time for it.
#[derive(Debug, thiserror::Error)]
#[error("connecting timed out")]
struct TimedOut;

/// Connects within a time, TLS included.
#[derive(Clone)]
struct Bounded {
    https: HttpsConnector<Route>,
    limit: Duration,
}

impl Service<Uri> for Bounded {
    type Response = MaybeHttpsStream<TokioIo<TcpStream>>;
    type Error = BoxError;
    type Future = Connecting<Self::Response>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, to: Uri) -> Self::Future {
        let Self { https, limit } = self.clone();
        Box::pin(async move { tokio::time::timeout(limit, https.oneshot(to)).await.map_err(|_| TimedOut)? })
    }
}

/// Straight to the server, or through a proxy's tunnel.
#[derive(Clone)]
struct Route {
    tcp: HttpConnector,
    proxies: Option<Arc<Matcher>>,
}

impl Service<Uri> for Route {
    type Response = TokioIo<TcpStream>;
    type Error = BoxError;
    type Future = Connecting<Self::Response>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, to: Uri) -> Self::Future {
        let tcp = self.tcp.clone();
        let Some(proxy) = self.proxies.as_ref().and_then(|proxies| proxies.intercept(&to)) else {
            return Box::pin(async move { Ok(tcp.oneshot(to).await?) });
        };
        if proxy.uri().scheme_str() != Some("http") {
            let told = "a proxy must be http://HOST:PORT (it tunnels, so that TLS is with Stripe itself)";
            return Box::pin(std::future::ready(Err(told.into())));
        }
        let mut tunnel = Tunnel::new(proxy.uri().clone(), tcp);
        if let Some(password) = proxy.basic_auth() {
            tunnel = tunnel.with_auth(password.clone());
        }
        Box::pin(async move { Ok(tunnel.oneshot(with_port(to)).await?) })
    }
}

/// A tunnel takes every address without a port for one of TLS; plain HTTP's is named.
fn with_port(to: Uri) -> Uri {
    let host = to.host().filter(|_| to.port().is_none() && to.scheme_str() == Some("http"));
    let named = host.map(|host| {
        Uri::builder().scheme("http").authority(format!("{host}:80")).path_and_query("/").build()
    });
    named.and_then(Result::ok).unwrap_or(to)
}
