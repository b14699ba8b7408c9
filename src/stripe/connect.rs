//! A new connection: straight to the server or through a proxy's tunnel, with TLS, within a time.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::Uri;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder, MaybeHttpsStream};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::proxy::Tunnel;
use hyper_util::client::proxy::matcher::Matcher;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use tokio::net::TcpStream;
use tower::{Service, ServiceExt as _};

/// A peer that vanished is noticed on an idle connection after about a minute, on a busy one after half of it.
const KEEPALIVE: Duration = Duration::from_secs(15);
const KEEPALIVE_TRIES: u32 = 3;
const UNACKNOWLEDGED_MAX: Duration = Duration::from_secs(30);

type BoxError = Box<dyn std::error::Error + Send + Sync>;
type Connecting<T> = Pin<Box<dyn Future<Output = Result<T, BoxError>> + Send>>;
pub(super) type Stream = MaybeHttpsStream<TokioIo<TcpStream>>;

/// Whether the environment's proxies are used (`HTTPS_PROXY`, `ALL_PROXY`, `NO_PROXY`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Proxies {
    OfEnvironment,
    None,
}

/// No connection within the time for it.
#[derive(Debug, thiserror::Error)]
#[error("connecting timed out")]
pub(super) struct TimedOut;

/// Connects within a time, TLS included.
#[derive(Clone)]
pub(super) struct Connector {
    https: HttpsConnector<Route>,
    limit: Duration,
}

impl Connector {
    /// No connection is opened yet.
    pub(super) fn new(tls: ClientConfig, proxies: Proxies, limit: Duration) -> Self {
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
        Self { https, limit }
    }

    /// A connection to the address's server.
    pub(super) async fn connect(&self, to: Uri) -> Result<Stream, BoxError> {
        tokio::time::timeout(self.limit, self.https.clone().oneshot(to)).await.map_err(|_| TimedOut)?
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
            let message = "a proxy must be http://HOST:PORT (it tunnels, so that TLS is with Stripe itself)";
            return Box::pin(std::future::ready(Err(message.into())));
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
