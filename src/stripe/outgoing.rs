//! A request's body that is asked whether it may leave, and that of a question, which tells when it leaves.
//!
//! The pace must know when a call left, not when somebody wanted it to: between the two may lie a new connection, or
//! a busy machine, or a night of sleep. A connection asks a body for its bytes right before it writes them, so this is
//! where a call is let go or held back. A body that is held back ends in an error: the connection has then promised the
//! server more bytes than it sends, and never says that the request is whole. A question has no bytes that could be asked for:
//! a connection drops its empty body when it takes the question and writes it.

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

/// One piece, and whom to ask before it leaves.
pub(super) struct Outgoing {
    bytes: Option<Bytes>,
    departing: Option<Departing>,
}

/// Who lets the body go, and where that is noted.
struct Departing {
    leaves: Box<dyn FnOnce() -> Leave + Send + Sync>,
    noted: Arc<AtomicU8>,
}

/// What became of a body, as its [`Departures`] notes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Departed {
    /// It left, or part of it.
    Yes,
    /// It was asked and stayed.
    HeldBack,
    /// No connection ever asked for it, and none will.
    NeverPolled,
}

/// Nobody has asked yet whether the body may leave.
const PENDING: u8 = 0;
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
            Err(HELD_BACK) => Departed::HeldBack,
            Ok(_) | Err(_) => Departed::NeverPolled,
        }
    }

    fn seal(&self) -> Result<u8, u8> {
        self.0.compare_exchange(PENDING, SEALED, Ordering::SeqCst, Ordering::SeqCst)
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
        let pending = self.noted.compare_exchange(PENDING, LEFT, Ordering::SeqCst, Ordering::SeqCst);
        if pending.is_err() {
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
    pub(super) fn new(
        bytes: Bytes,
        leaves: impl FnOnce() -> Leave + Send + Sync + 'static,
    ) -> (Self, Departures) {
        let noted = Arc::new(AtomicU8::new(PENDING));
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

/// Called when a question leaves.
pub type Leaving = Box<dyn FnOnce() + Send + Sync>;

/// The empty body of a question. One that no connection takes is dropped once that is certain, and counts as having left then.
pub(super) struct Question(Option<Leaving>);

impl Question {
    /// `leaving` is called once, when a connection takes the question, or none will.
    pub(super) fn new(leaving: Leaving) -> Self {
        Self(Some(leaving))
    }
}

impl Drop for Question {
    fn drop(&mut self) {
        if let Some(leaving) = self.0.take() {
            leaving();
        }
    }
}

impl Body for Question {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        Poll::Ready(None)
    }

    fn is_end_stream(&self) -> bool {
        true
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(0)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;
    use tokio::task::JoinHandle;

    use super::super::{Answer, Client};
    use super::*;
    use crate::config::StripeConfig;
    use crate::operation::{Operation, Request as Wanted};

    fn wanted() -> Wanted {
        let pairs =
            [("type", "virtual"), ("currency", "eur")].map(|(path, value)| (path.into(), value.into()));
        Wanted::from_pairs(Operation::CreateCard, pairs.into()).unwrap()
    }

    const BODY: &str = "a body that must not be seen";

    /// A client, and everything that it writes to its server until it closes or `enough` says so.
    async fn pair(greeting: &'static [u8], enough: fn(&[u8]) -> bool) -> (Client, JoinHandle<Vec<u8>>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let api_url = format!("http://{}", listener.local_addr().unwrap());
        let config = StripeConfig { key_url: api_url.clone(), api_url, ..StripeConfig::default() };
        let client = Client::new(&config, &"sk_test_1".to_owned().into()).unwrap();
        let seen = tokio::spawn(async move {
            let (mut server, _) = listener.accept().await.unwrap();
            server.write_all(greeting).await.unwrap();
            let mut seen = Vec::new();
            while !enough(&seen) && server.read_buf(&mut seen).await.is_ok_and(|read| read > 0) {}
            seen
        });
        (client, seen)
    }

    async fn create(client: &Client, leave: Leave) -> Answer {
        client.change(&wanted(), "emb_1", BODY.as_bytes().to_vec().into(), move || leave).await
    }

    fn after_head(request: &[u8]) -> &[u8] {
        let head = request.windows(4).position(|window| window == b"\r\n\r\n");
        head.map_or(b"", |head| &request[head + 4..])
    }

    #[tokio::test]
    async fn a_request_that_stays_is_never_whole_over_http_1() {
        let (client, seen) = pair(b"", |_| false).await;
        assert_eq!(create(&client, Leave::Stay).await, Answer::HeldBack);
        let seen = seen.await.unwrap();
        // At most the head, which promises a body of a length that never came.
        let said = String::from_utf8_lossy(&seen);
        assert_eq!(after_head(&seen), b"", "{said}");
        assert!(seen.is_empty() || said.contains(&format!("content-length: {}", BODY.len())), "{said}");
    }

    #[tokio::test]
    async fn a_request_that_goes_is_whole_over_http_1() {
        let (client, seen) = pair(b"", |seen| seen.ends_with(BODY.as_bytes())).await;
        let answer = create(&client, Leave::Go).await;
        assert!(matches!(answer, Answer::Unknown { heard: false, .. }), "no answer: {answer:?}");
        assert_eq!(after_head(&seen.await.unwrap()), BODY.as_bytes());
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

    async fn over_http_2(leave: Leave, enough: fn(&[u8]) -> bool) -> (Answer, Vec<(u8, u8)>) {
        let (client, seen) = pair(SETTINGS, enough).await;
        let http = reqwest::Client::builder().no_proxy().http2_prior_knowledge().build().unwrap();
        let answer = create(&Client { http, ..client }, leave).await;
        (answer, frames(&seen.await.unwrap()))
    }

    #[tokio::test]
    async fn a_request_that_stays_is_never_whole_over_http_2() {
        let reset = |seen: &[u8]| frames(seen).iter().any(|(kind, _)| *kind == RST_STREAM);
        let (answer, seen) = over_http_2(Leave::Stay, reset).await;
        assert_eq!(answer, Answer::HeldBack);
        let of_stream = |(kind, _): &&(u8, u8)| matches!(*kind, DATA | HEADERS);
        assert!(seen.iter().filter(of_stream).all(|(_, flags)| flags & END_STREAM == 0), "{seen:?}");
        assert!(seen.iter().all(|(kind, _)| *kind != DATA), "{seen:?}");
    }

    #[tokio::test]
    async fn a_request_that_goes_is_whole_over_http_2() {
        let ended =
            |seen: &[u8]| frames(seen).iter().any(|(kind, flags)| *kind == DATA && flags & END_STREAM != 0);
        let (answer, seen) = over_http_2(Leave::Go, ended).await;
        assert!(matches!(answer, Answer::Unknown { heard: false, .. }), "no answer: {answer:?}");
        assert!(seen.iter().any(|(kind, _)| *kind == DATA), "{seen:?}");
    }

    /// A callback, and how often it was called.
    fn counted() -> (Leaving, Arc<AtomicU8>) {
        let times = Arc::new(AtomicU8::new(0));
        let of_question = times.clone();
        let leaving = move || {
            of_question.fetch_add(1, Ordering::SeqCst);
        };
        (Box::new(leaving), times)
    }

    #[tokio::test]
    async fn a_question_tells_once_that_it_leaves_and_has_no_body_over_http_1() {
        let (client, seen) = pair(b"", |seen| seen.ends_with(b"\r\n\r\n")).await;
        let (leaving, times) = counted();
        let (_, seen) = tokio::join!(client.account(leaving), seen);
        assert_eq!(times.load(Ordering::SeqCst), 1);
        let head = String::from_utf8(seen.unwrap()).unwrap().to_ascii_lowercase();
        assert!(head.starts_with("get /v1/account http/1.1\r\n"), "{head}");
        assert!(!head.contains("content-length") && !head.contains("transfer-encoding"), "{head}");
    }

    #[tokio::test]
    async fn a_question_tells_once_that_it_leaves_and_has_no_body_over_http_2() {
        let has_headers = |seen: &[u8]| frames(seen).iter().any(|(kind, _)| *kind == HEADERS);
        let (client, seen) = pair(SETTINGS, has_headers).await;
        let http = reqwest::Client::builder().no_proxy().http2_prior_knowledge().build().unwrap();
        let client = Client { http, ..client };
        let (leaving, times) = counted();
        let (_, seen) = tokio::join!(client.account(leaving), seen);
        assert_eq!(times.load(Ordering::SeqCst), 1);
        let seen = frames(&seen.unwrap());
        assert!(seen.iter().any(|(kind, flags)| *kind == HEADERS && flags & END_STREAM != 0), "{seen:?}");
        assert!(seen.iter().all(|(kind, _)| *kind != DATA), "{seen:?}");
    }

    #[tokio::test]
    async fn a_question_has_not_left_while_its_connection_is_being_made() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let api_url = format!("https://{}/", listener.local_addr().unwrap());
        let config = StripeConfig { key_url: api_url.clone(), api_url, ..StripeConfig::default() };
        let client = Client::new(&config, &"sk_test_1".to_owned().into()).unwrap();
        let (leaving, times) = counted();
        let asking = tokio::spawn(async move { client.account(leaving).await });
        let (mut server, _) = listener.accept().await.unwrap();
        // The begin of the handshake, which nobody answers.
        assert!(server.read_u8().await.is_ok());
        assert_eq!(times.load(Ordering::SeqCst), 0);
        drop(server);
        asking.await.unwrap();
        assert_eq!(times.load(Ordering::SeqCst), 1, "it never will, and nothing waits for it");
    }

    #[test]
    fn what_nobody_waits_for_any_more_does_not_leave() {
        let (mut outgoing, departures) =
            Outgoing::new(Bytes::from_static(b"x"), || unreachable!("nobody is asked"));
        drop(departures);
        let mut context = Context::from_waker(std::task::Waker::noop());
        assert!(matches!(Pin::new(&mut outgoing).poll_frame(&mut context), Poll::Ready(Some(Err(HeldBack)))));
    }

    #[test]
    fn what_was_never_asked_has_not_left() {
        let (outgoing, departures) = Outgoing::new(Bytes::from_static(b"x"), || Leave::Go);
        assert_eq!(departures.end(), Departed::NeverPolled);
        drop(outgoing);
    }
}
