//! The connections to one server: idle ones of HTTP/1, each for one call at a time, and the one of HTTP/2 that all share.
//!
//! The one that was in use last is used next: its memory is still in the processor's caches, and the others grow old.
//! Never: to send a request again that a server may have seen. One that a closed connection gives back unread goes on
//! another; anything else is for the caller to judge.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use http::header::HOST;
use http::uri::PathAndQuery;
use http::{HeaderValue, Request, Response, Uri};
use hyper::body::Incoming;
use hyper::client::conn::{TrySendError, http1, http2};
use hyper_util::client::legacy::connect::Connection as _;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tokio::time::timeout;

use super::connect::{Connector, Stream};
use super::outgoing::Outgoing;
use super::wire::{Silence, brief};

/// How long an idle connection is kept: below the 60 s after which load balancers tend to close theirs.
const IDLE_KEPT: Duration = Duration::from_secs(50);
/// How long a connection may take until it is ready again, once an answer was read to its end: it is a matter of
/// microseconds, unless the server answered before it had read the whole request.
const READY_WITHIN: Duration = Duration::from_millis(100);

/// A server, and the connections to it. Clones share them.
#[derive(Clone)]
pub(super) struct Peer {
    shared: Arc<Shared>,
}

struct Shared {
    /// Scheme, host and port.
    address: Uri,
    /// Host and port, as HTTP/1 names them in each request.
    host: HeaderValue,
    connector: Connector,
    open: Mutex<Open>,
}

#[derive(Default)]
struct Open {
    /// The latest at the end.
    idle: VecDeque<Used<http1::SendRequest<Outgoing>>>,
    multiplexed: Option<Used<http2::SendRequest<Outgoing>>>,
}

/// A connection, and when it was last in use.
struct Used<S> {
    sender: S,
    latest: Instant,
}

impl<S> Used<S> {
    fn now(sender: S) -> Self {
        Self { sender, latest: Instant::now() }
    }

    fn is_fresh(&self) -> bool {
        self.latest.elapsed() < IDLE_KEPT
    }
}

/// A connection that is to carry a call.
enum Sender {
    Http1(http1::SendRequest<Outgoing>),
    Http2(http2::SendRequest<Outgoing>),
}

/// The connection that an answer comes on, to be given back once its body was read.
pub(super) struct Carrier(Option<http1::SendRequest<Outgoing>>);

type Answered = (Response<Incoming>, Carrier);
type NoAnswer = TrySendError<Request<Outgoing>>;

impl Peer {
    /// Of the server that an address names: a path, or a name and password in it, are left out. No connection is opened
    /// yet.
    pub(super) fn new(address: &Uri, connector: Connector) -> Self {
        let host = authority(address);
        let mut parts = http::uri::Parts::default();
        parts.scheme = address.scheme().cloned();
        parts.authority = host.parse().ok();
        parts.path_and_query = Some(PathAndQuery::from_static("/"));
        let shared = Shared {
            address: Uri::from_parts(parts).expect("they are parts of an address"),
            host: HeaderValue::from_str(&host).expect("an authority is made of a header's characters"),
            connector,
            open: Mutex::default(),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Whether it is the server of this address, too.
    pub(super) fn is_at(&self, address: &Uri) -> bool {
        self.shared.address.scheme() == address.scheme() && self.shared.host == authority(address).as_str()
    }

    /// Sends a request, whose address is its path and query, and waits for its answer to begin.
    pub(super) async fn send(&self, mut request: Box<Request<Outgoing>>) -> Result<Answered, Silence> {
        while let Some(sender) = self.shared.take() {
            match self.shared.send_on(sender, request).await {
                Ok(answered) => return Ok(answered),
                Err(error) => request = unsent(error).map_err(Silence::NoAnswer)?,
            }
        }
        // On the heap: connecting is rare, and its kilobytes would be moved along with every call.
        let sender = Box::pin(self.shared.connect()).await.map_err(Silence::NotSent)?;
        let sent = self.shared.send_on(sender, request).await;
        sent.map_err(|error| {
            let reason = brief("connection failed", error.error());
            if error.message().is_some() { Silence::NotSent(reason) } else { Silence::NoAnswer(reason) }
        })
    }

    /// Takes back a connection whose answer was read to its end.
    pub(super) fn give_back(&self, Carrier(sender): Carrier) {
        if let Some(sender) = sender.filter(|sender| !sender.is_closed()) {
            self.shared.open().give_back(Used::now(sender));
        }
    }
}

/// Host and port of an address.
fn authority(address: &Uri) -> String {
    let host = address.host().unwrap_or("");
    address.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

/// The request, if the connection had closed before it took it; else why there is no answer.
fn unsent(mut error: NoAnswer) -> Result<Box<Request<Outgoing>>, String> {
    error.take_message().map(Box::new).ok_or_else(|| brief("connection failed", error.error()))
}

impl Open {
    fn take(&mut self) -> Option<Sender> {
        if let Some(multiplexed) = &mut self.multiplexed {
            if multiplexed.is_fresh() && !multiplexed.sender.is_closed() {
                multiplexed.latest = Instant::now();
                return Some(Sender::Http2(multiplexed.sender.clone()));
            }
            self.multiplexed = None;
        }
        while let Some(used) = self.idle.pop_back() {
            if !used.is_fresh() {
                // All before it are older.
                self.idle.clear();
            } else if !used.sender.is_closed() {
                return Some(Sender::Http1(used.sender));
            }
        }
        None
    }

    fn give_back(&mut self, used: Used<http1::SendRequest<Outgoing>>) {
        self.idle.push_back(used);
        while self.idle.front().is_some_and(|oldest| !oldest.is_fresh()) {
            self.idle.pop_front();
        }
    }
}

impl Shared {
    fn open(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self) -> Option<Sender> {
        self.open().take()
    }

    async fn connect(&self) -> Result<Sender, String> {
        let to_error = |error: &(dyn std::error::Error + 'static)| brief("cannot connect", error);
        let stream = self.connector.connect(self.address.clone()).await.map_err(|error| to_error(&*error))?;
        let sender = if stream.connected().is_negotiated_h2() {
            Sender::Http2(self.multiplex(stream).await.map_err(|error| to_error(&error))?)
        } else {
            let (sender, connection) = http1::handshake(stream).await.map_err(|error| to_error(&error))?;
            tokio::spawn(connection);
            Sender::Http1(sender)
        };
        Ok(sender)
    }

    /// HTTP/2 on a new connection, which is closed again if another call was faster: all share the first.
    async fn multiplex(&self, stream: Stream) -> hyper::Result<http2::SendRequest<Outgoing>> {
        let (sender, connection) =
            http2::Builder::new(TokioExecutor::new()).timer(TokioTimer::new()).handshake(stream).await?;
        let mut open = self.open();
        if let Some(Sender::Http2(first)) = open.multiplexed.is_some().then(|| open.take()).flatten() {
            return Ok(first);
        }
        open.multiplexed = Some(Used::now(sender.clone()));
        drop(open);
        tokio::spawn(connection);
        Ok(sender)
    }

    async fn send_on(
        &self,
        sender: Sender,
        mut request: Box<Request<Outgoing>>,
    ) -> Result<Answered, NoAnswer> {
        match sender {
            Sender::Http1(mut sender) => {
                // An answer's last byte may be read a moment before its connection is ready for more. One that has
                // closed, or still has something to say, gives the request back.
                if !sender.is_ready() {
                    let _ = timeout(READY_WITHIN, sender.ready()).await;
                }
                request.headers_mut().insert(HOST, self.host.clone());
                let answer = sender.try_send_request(*request).await?;
                Ok((answer, Carrier(Some(sender))))
            }
            Sender::Http2(mut sender) => {
                request.headers_mut().remove(HOST);
                *request.uri_mut() = self.whole(request.uri());
                let answer = sender.try_send_request(*request).await?;
                Ok((answer, Carrier(None)))
            }
        }
    }

    /// A path of this server with its scheme and authority, as HTTP/2 has them in each request.
    fn whole(&self, path: &Uri) -> Uri {
        let mut parts = self.address.clone().into_parts();
        parts.path_and_query = path.path_and_query().cloned();
        Uri::from_parts(parts).unwrap_or_else(|_| path.clone())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::super::connect::Proxies;
    use super::super::outgoing::Leave;
    use super::super::wire;
    use super::*;

    /// What a server does with a connection.
    #[derive(Clone, Copy)]
    enum Does {
        AnswersAndKeeps,
        AnswersAndCloses,
        /// Reads the request and closes.
        SaysNothing,
        /// Answers once a request has begun, and reads no further.
        AnswersEarly,
    }

    const OK: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

    /// A server that counts its connections and the requests on them.
    async fn server(does: Does) -> (Peer, Arc<[AtomicUsize; 2]>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}/", listener.local_addr().unwrap());
        let counts: Arc<[AtomicUsize; 2]> = Arc::default();
        let of_server = counts.clone();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                of_server[0].fetch_add(1, Ordering::Relaxed);
                let counts = of_server.clone();
                tokio::spawn(async move {
                    let mut head = Vec::new();
                    while stream.read_buf(&mut head).await.is_ok_and(|read| read > 0) {
                        if matches!(does, Does::AnswersEarly) {
                            stream.write_all(OK).await.unwrap();
                            return std::future::pending().await;
                        }
                        if !head.ends_with(b"\r\n\r\n") {
                            continue;
                        }
                        head.clear();
                        counts[1].fetch_add(1, Ordering::Relaxed);
                        if !matches!(does, Does::SaysNothing) {
                            stream.write_all(OK).await.unwrap();
                        }
                        if !matches!(does, Does::AnswersAndKeeps) {
                            return;
                        }
                    }
                });
            }
        });
        let tls = super::super::tls(false).unwrap();
        let connector = Connector::new(tls, Proxies::None, Duration::from_secs(5));
        (Peer::new(&address.parse().unwrap(), connector), counts)
    }

    async fn call(peer: &Peer) -> Result<bytes::Bytes, Silence> {
        let request = Box::new(Request::new(Outgoing::default()));
        let reply = wire::call(peer, request, Duration::from_secs(5)).await?;
        Ok(reply.body.unwrap())
    }

    fn counted(counts: &[AtomicUsize; 2]) -> (usize, usize) {
        (counts[0].load(Ordering::Relaxed), counts[1].load(Ordering::Relaxed))
    }

    #[tokio::test]
    async fn one_call_after_another_is_on_one_connection() {
        let (peer, counts) = server(Does::AnswersAndKeeps).await;
        for _ in 0..20 {
            assert_eq!(call(&peer).await.ok().unwrap(), "ok");
        }
        assert_eq!(counted(&counts), (1, 20));
    }

    #[tokio::test]
    async fn a_connection_that_was_closed_meanwhile_costs_no_call() {
        let (peer, counts) = server(Does::AnswersAndCloses).await;
        for _ in 0..20 {
            assert_eq!(call(&peer).await.ok().unwrap(), "ok");
            // Until the close has come.
            while peer.shared.open().idle.back().is_some_and(|used| !used.sender.is_closed()) {
                tokio::task::yield_now().await;
            }
        }
        assert_eq!(counted(&counts), (20, 20));
    }

    #[tokio::test]
    async fn a_request_that_the_server_has_seen_is_never_sent_again() {
        let (peer, counts) = server(Does::SaysNothing).await;
        assert!(matches!(call(&peer).await, Err(Silence::NoAnswer(_))));
        assert_eq!(counted(&counts), (1, 1));
    }

    #[tokio::test]
    async fn a_connection_whose_server_reads_no_further_costs_a_moment_and_no_call() {
        /// More than the sockets of both sides take in.
        const LONG: usize = 32 << 20;
        let (peer, counts) = server(Does::AnswersEarly).await;
        for _ in 0..3 {
            let (outgoing, _departures) = Outgoing::new(vec![b'x'; LONG].into(), || Leave::Go);
            let mut request = Box::new(Request::new(outgoing));
            *request.method_mut() = http::Method::POST;
            let reply = wire::call(&peer, request, Duration::from_secs(30)).await.ok().unwrap();
            assert_eq!(reply.body.unwrap(), "ok");
            assert_eq!(peer.shared.open().idle.len(), 1, "it was answered, so it may be ready soon");
        }
        assert_eq!(counts[0].load(Ordering::Relaxed), 3, "it was not, so another call has another one");
    }

    #[tokio::test]
    async fn without_a_server_nothing_was_sent() {
        let (peer, _) = server(Does::AnswersAndKeeps).await;
        let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let address = format!("http://{nobody}/").parse().unwrap();
        let nowhere = Peer::new(&address, peer.shared.connector.clone());
        assert!(
            matches!(call(&nowhere).await, Err(Silence::NotSent(reason)) if reason.contains("cannot connect"))
        );
        assert!(peer.is_at(&peer.shared.address) && !peer.is_at(&address));
    }

    #[tokio::test]
    async fn a_server_is_named_without_what_else_its_address_has() {
        let (peer, _) = server(Does::AnswersAndKeeps).await;
        let named =
            |address: &str| Peer::new(&address.parse().unwrap(), peer.shared.connector.clone()).shared;
        let shared = named("https://who:secret@stripe.test:8443/v1?a=b");
        assert_eq!(
            (shared.address.to_string().as_str(), shared.host.to_str().unwrap()),
            ("https://stripe.test:8443/", "stripe.test:8443")
        );
        assert_eq!(named("http://[::1]/").host, "[::1]");
    }
}
