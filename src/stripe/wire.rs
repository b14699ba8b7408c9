//! One request and its whole answer, within a time.
//!
//! hyper's connections, which reqwest is built on too. What reqwest adds for each request (redirects that are never
//! followed here, for which it parses the address twice more) was a quarter of a job's cost, and what a general pool adds a
//! tenth. Never: to follow a redirect.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use tokio::time::timeout;

use super::connect::TimedOut;
use super::outgoing::Outgoing;
use super::peer::Peer;

/// Most bytes read of an answer. A page of 100 cards is about 400 KB; anything far beyond is not Stripe's.
const ANSWER_BYTES_MAX: usize = 8 << 20;

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

/// Sends a request and reads its answer to the end.
pub(super) async fn call(
    peer: &Peer,
    request: Box<Request<Outgoing>>,
    total: Duration,
) -> Result<Reply, Silence> {
    const TOO_LATE: &str = "no answer in time";
    // What was read of the answer before the time was up.
    let mut begun = None;
    let whole = {
        // In its place, not moved into the timer's.
        let exchange = std::pin::pin!(exchange(peer, request, &mut begun));
        timeout(total, exchange).await
    };
    let body = match whole {
        Ok(Ok(body)) => body,
        Ok(Err(silence)) => return Err(silence),
        Err(_) => Err(TOO_LATE.into()),
    };
    let (status, headers) = begun.ok_or_else(|| Silence::NoAnswer(TOO_LATE.into()))?;
    Ok(Reply { status, headers, body })
}

/// Tells the answer's head as soon as it is there, and its body at the end.
async fn exchange(
    peer: &Peer,
    request: Box<Request<Outgoing>>,
    begun: &mut Option<(StatusCode, HeaderMap)>,
) -> Result<Result<Bytes, String>, Silence> {
    let (answer, carrier) = peer.send(request).await?;
    let (head, body) = answer.into_parts();
    *begun = Some((head.status, head.headers));
    let body = read(body).await;
    if body.is_ok() {
        peer.give_back(carrier);
    }
    Ok(body)
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
pub(super) fn brief(what: &str, error: &(dyn std::error::Error + 'static)) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    if cause.is::<TimedOut>() { "connecting timed out".into() } else { format!("{what}: {cause}") }
}
