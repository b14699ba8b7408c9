//! A request's body that is asked whether it may leave.
//!
//! The pace must know when a call left, not when somebody wanted it to: between the two may lie a new connection, or
//! a busy machine, or a night of sleep. A connection asks a body for its bytes right before it writes them, so this is
//! where a call is let go or held back. A body that is held back ends in an error: the connection has then promised the
//! server more bytes than it sends, and never says that the request is whole.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

/// Whether a request that a connection is about to write may leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Leave {
    /// It leaves now.
    Go,
    /// It stays: nothing of it has any effect.
    Stay,
}

/// What a body that was held back tells its connection.
#[derive(Debug, thiserror::Error)]
#[error("the request was held back before its first byte")]
pub(super) struct HeldBack;

/// One piece or none, and whom to ask before it leaves.
#[derive(Default)]
pub(super) struct Outgoing {
    bytes: Option<Bytes>,
    departing: Option<Departing>,
}

/// Who lets the body go, and where that is noted.
struct Departing {
    leaves: Box<dyn FnOnce() -> Leave + Send>,
    noted: Arc<AtomicU8>,
}

/// What became of a body, as its [`Departures`] notes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Departed {
    /// It left, or part of it.
    Yes,
    /// It was held back, or no connection ever asked for it and none will.
    No(Stayed),
}

/// Why nothing of a body left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stayed {
    /// It was asked and stayed.
    HeldBack,
    /// It was never asked.
    NeverAsked,
}

/// Nobody has asked yet whether the body may leave.
const UNASKED: u8 = 0;
const LEFT: u8 = 1;
const HELD_BACK: u8 = 2;
/// Nobody waits for the answer any more: a connection that asks now gets nothing.
const SEALED: u8 = 3;

/// Notes whether a body has left. Dropped, it seals the body: what nobody waits for any more does not leave.
#[must_use]
pub(super) struct Departures(Arc<AtomicU8>);

impl Departures {
    /// What became of the body. If it has not been asked by now it never leaves.
    pub(super) fn end(self) -> Departed {
        match self.seal() {
            Err(LEFT) => Departed::Yes,
            Err(HELD_BACK) => Departed::No(Stayed::HeldBack),
            Ok(_) | Err(_) => Departed::No(Stayed::NeverAsked),
        }
    }

    fn seal(&self) -> Result<u8, u8> {
        self.0.compare_exchange(UNASKED, SEALED, Ordering::SeqCst, Ordering::SeqCst)
    }
}

impl Drop for Departures {
    fn drop(&mut self) {
        let _ = self.seal();
    }
}

impl Departing {
    fn ask(self) -> Leave {
        // Noted as left before it is asked: whoever looks in between must not take it for held back.
        let unasked = self.noted.compare_exchange(UNASKED, LEFT, Ordering::SeqCst, Ordering::SeqCst);
        if unasked.is_err() {
            return Leave::Stay;
        }
        let leave = (self.leaves)();
        if leave == Leave::Stay {
            self.noted.store(HELD_BACK, Ordering::SeqCst);
        }
        leave
    }
}

impl Outgoing {
    /// `leaves` is called once at most, right before the first byte is written.
    pub(super) fn new(bytes: Bytes, leaves: impl FnOnce() -> Leave + Send + 'static) -> (Self, Departures) {
        let noted = Arc::new(AtomicU8::new(UNASKED));
        let departing = Departing { leaves: Box::new(leaves), noted: noted.clone() };
        (Self { bytes: Some(bytes), departing: Some(departing) }, Departures(noted))
    }
}

impl Body for Outgoing {
    type Data = Bytes;
    type Error = HeldBack;

    fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, HeldBack>>> {
        let this = self.get_mut();
        if this.departing.take().is_some_and(|departing| departing.ask() == Leave::Stay) {
            return Poll::Ready(Some(Err(HeldBack)));
        }
        Poll::Ready(this.bytes.take().map(|bytes| Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        self.bytes.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.bytes.as_ref().map_or(0, |bytes| bytes.len() as u64))
    }
}

#[cfg(test)]
mod tests {
    use http::Request;
    use hyper::client::conn::{http1, http2};
    use hyper_util::rt::{TokioExecutor, TokioIo};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::{TcpListener, TcpStream};

    use super::super::{Answer, Client};
    use super::*;
    use crate::config::StripeConfig;
    use crate::operation::{Operation, Request as Wanted};

    const BODY: &[u8] = b"a body that must not be seen";

    /// A connection, and everything that its client writes until it closes or `enough` says so.
    async fn pair(
        greeting: &'static [u8],
        enough: fn(&[u8]) -> bool,
    ) -> (TcpStream, tokio::task::JoinHandle<Vec<u8>>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (mut server, _) = listener.accept().await.unwrap();
        let seen = tokio::spawn(async move {
            server.write_all(greeting).await.unwrap();
            let mut seen = Vec::new();
            while !enough(&seen) && server.read_buf(&mut seen).await.is_ok_and(|read| read > 0) {}
            seen
        });
        (client, seen)
    }

    fn request(leave: Leave) -> (Request<Outgoing>, Departures) {
        let (outgoing, departures) = Outgoing::new(Bytes::from_static(BODY), move || leave);
        let request = Request::post("http://stripe.test/v1/issuing/cards").header("host", "stripe.test");
        (request.body(outgoing).unwrap(), departures)
    }

    fn after_head(request: &[u8]) -> &[u8] {
        let head = request.windows(4).position(|window| window == b"\r\n\r\n");
        head.map_or(b"", |head| &request[head + 4..])
    }

    fn contains(bytes: &[u8], piece: &[u8]) -> bool {
        bytes.windows(piece.len()).any(|window| window == piece)
    }

    #[tokio::test]
    async fn a_request_that_stays_is_never_whole_over_http_1() {
        let (stream, seen) = pair(b"", |_| false).await;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        let (request, departures) = request(Leave::Stay);
        assert!(sender.send_request(request).await.is_err());
        assert_eq!(departures.end(), Departed::No(Stayed::HeldBack));
        let seen = seen.await.unwrap();
        // At most the head, which promises a body of a length that never came.
        assert_eq!(after_head(&seen), b"", "{}", String::from_utf8_lossy(&seen));
        let promised = format!("content-length: {}", BODY.len());
        assert!(
            seen.is_empty() || contains(&seen, promised.as_bytes()),
            "{}",
            String::from_utf8_lossy(&seen)
        );
    }

    #[tokio::test]
    async fn a_request_that_goes_is_whole_over_http_1() {
        let (stream, seen) = pair(b"", |seen| seen.ends_with(BODY)).await;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        let (request, departures) = request(Leave::Go);
        assert!(sender.send_request(request).await.is_err(), "the server closes without an answer");
        assert_eq!(departures.end(), Departed::Yes);
        assert_eq!(after_head(&seen.await.unwrap()), BODY);
    }

    /// Frames of HTTP/2 (RFC 9113, section 4.1) after the client's preface: type and flags of each.
    fn frames(bytes: &[u8]) -> Vec<(u8, u8)> {
        let mut rest = bytes.strip_prefix(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").unwrap_or_default();
        let mut frames = Vec::new();
        while let [a, b, c, kind, flags, _, _, _, _, after @ ..] = rest {
            let length = usize::from(*a) << 16 | usize::from(*b) << 8 | usize::from(*c);
            let Some(next) = after.get(length..) else { break };
            frames.push((*kind, *flags));
            rest = next;
        }
        frames
    }

    const DATA: u8 = 0;
    const HEADERS: u8 = 1;
    const RST_STREAM: u8 = 3;
    const END_STREAM: u8 = 1;
    /// An empty SETTINGS frame, as each side begins with.
    const SETTINGS: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 0, 0];

    async fn over_http_2(
        leave: Leave,
        enough: fn(&[u8]) -> bool,
    ) -> (hyper::Result<()>, Departed, Vec<(u8, u8)>) {
        let (stream, seen) = pair(SETTINGS, enough).await;
        let executor = TokioExecutor::new();
        let (mut sender, connection) = http2::handshake(executor, TokioIo::new(stream)).await.unwrap();
        let connection = tokio::spawn(connection);
        let (request, departures) = request(leave);
        let answer = sender.send_request(request).await.map(|_| ());
        let seen = frames(&seen.await.unwrap());
        connection.abort();
        (answer, departures.end(), seen)
    }

    #[tokio::test]
    async fn a_request_that_stays_is_never_whole_over_http_2() {
        let reset = |seen: &[u8]| frames(seen).iter().any(|(kind, _)| *kind == RST_STREAM);
        let (answer, departed, seen) = over_http_2(Leave::Stay, reset).await;
        assert!(answer.is_err());
        assert_eq!(departed, Departed::No(Stayed::HeldBack));
        let of_stream = |(kind, _): &&(u8, u8)| matches!(*kind, DATA | HEADERS);
        assert!(seen.iter().filter(of_stream).all(|(_, flags)| flags & END_STREAM == 0), "{seen:?}");
        assert!(seen.iter().all(|(kind, _)| *kind != DATA), "{seen:?}");
    }

    #[tokio::test]
    async fn a_request_that_goes_is_whole_over_http_2() {
        let ended =
            |seen: &[u8]| frames(seen).iter().any(|(kind, flags)| *kind == DATA && flags & END_STREAM != 0);
        let (_, departed, seen) = over_http_2(Leave::Go, ended).await;
        assert_eq!(departed, Departed::Yes);
        assert!(seen.iter().any(|(kind, _)| *kind == DATA), "{seen:?}");
    }

    #[tokio::test]
    async fn a_call_that_stays_is_answered_as_held_back() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let api_url = format!("http://{}", listener.local_addr().unwrap());
        let seen = tokio::spawn(async move {
            let (mut server, _) = listener.accept().await.unwrap();
            let mut seen = Vec::new();
            let _ = server.read_to_end(&mut seen).await;
            seen
        });
        let config = StripeConfig { key_url: api_url.clone(), api_url, ..StripeConfig::default() };
        let client = Client::new(&config, &"sk_test_1".to_owned().into()).unwrap();
        let body = String::from_utf8(BODY.to_vec()).unwrap().into();
        let slot = client.slot().await;
        let pairs =
            [("type", "virtual"), ("currency", "eur")].map(|(path, value)| (path.into(), value.into()));
        let wanted = Wanted::from_pairs(Operation::CreateCard, pairs.into()).unwrap();
        let answer = client.post(slot, &wanted, "emb_1", body, || Leave::Stay).await;
        assert_eq!(answer, Answer::HeldBack);
        assert_eq!(after_head(&seen.await.unwrap()), b"");
    }

    #[test]
    fn what_nobody_waits_for_any_more_does_not_leave() {
        let (mut outgoing, departures) =
            Outgoing::new(Bytes::from_static(BODY), || unreachable!("nobody is asked"));
        drop(departures);
        let mut context = Context::from_waker(std::task::Waker::noop());
        assert!(matches!(Pin::new(&mut outgoing).poll_frame(&mut context), Poll::Ready(Some(Err(HeldBack)))));
    }

    #[test]
    fn what_was_never_asked_has_not_left() {
        let (outgoing, departures) = Outgoing::new(Bytes::from_static(BODY), || Leave::Go);
        assert_eq!(departures.end(), Departed::No(Stayed::NeverAsked));
        drop(outgoing);
    }
}
