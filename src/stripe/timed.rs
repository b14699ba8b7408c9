//! How long each request takes, for the metrics and the traces.

use std::time::Instant;

use http::Method;

/// A request under way; its duration is told when it ends, however it ends.
pub(super) struct Timed {
    operation: &'static str,
    began: Instant,
    pub(super) status: Option<u16>,
    span: tracing::Span,
}

impl Timed {
    pub(super) fn begin(operation: &'static str, method: &Method, url: &url::Url) -> Self {
        let span = crate::trace::requesting(method.as_str(), url);
        Self { operation, began: Instant::now(), status: None, span }
    }
}

impl Drop for Timed {
    fn drop(&mut self) {
        crate::trace::answered(&self.span, self.status);
        crate::metrics::stripe_request(self.operation, self.status, self.began.elapsed());
    }
}
