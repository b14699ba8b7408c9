//! A request's body that tells when it leaves.
//!
//! The pace must know when a call left, not when somebody wanted it to: between the two may lie a new connection, or
//! a busy machine. A connection asks a body for its bytes right before it writes them.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

/// One piece or none, and whom to tell.
#[derive(Default)]
pub(super) struct Outgoing {
    bytes: Option<Bytes>,
    leaves: Option<Box<dyn FnOnce() + Send>>,
}

impl Outgoing {
    pub(super) fn new(bytes: Bytes, leaves: impl FnOnce() + Send + 'static) -> Self {
        Self { bytes: Some(bytes), leaves: Some(Box::new(leaves)) }
    }
}

impl Body for Outgoing {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let this = self.get_mut();
        if let Some(leaves) = this.leaves.take() {
            leaves();
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
