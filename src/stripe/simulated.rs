//! Calls that go to a simulation's model of Stripe, in the place of HTTP.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use reqwest::Request;

use super::Client;
pub use super::transport::Reply;

/// Answers requests.
pub trait Transport: Send + Sync {
    /// One request and its whole answer; or a sentence saying why there is none. The request has left once its body was asked for
    /// its first piece; a body that answers with an error stays.
    fn send(&self, request: Request) -> BoxFuture<'_, Result<Reply, String>>;
}

impl Client {
    /// The same client, whose calls go there.
    #[must_use]
    pub fn over(&self, transport: Arc<dyn Transport>) -> Self {
        Self { simulated: Some(transport), ..self.clone() }
    }
}
