//! Stripe's PIN key, passed through to browsers that cannot reach it.
//!
//! Anybody may ask for it, so one fetch at a time is under way, and who asks meanwhile shares the next one. Guarantee: a key was
//! fetched after its page asked for it; a key that was fetched before is given to nobody.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Mutex;

use crate::line::Line;

/// How long a page waits for the key: it gives up by itself a little later.
const WITHIN: Duration = Duration::from_secs(8);

/// Fetches the key for those who ask.
#[derive(Default)]
pub(super) struct KeyRelay {
    /// Fetches that were begun.
    begun: AtomicU64,
    latest: Mutex<Option<Fetched>>,
}

/// The latest fetch.
struct Fetched {
    number: u64,
    document: Result<Bytes, String>,
}

impl KeyRelay {
    /// The key's document, of a fetch that begins from now on.
    pub(super) async fn fetched(&self, line: &Line) -> Result<Bytes, String> {
        let fetched = tokio::time::timeout(WITHIN, self.fetched_after_now(line));
        fetched.await.unwrap_or_else(|_| Err("the key endpoint does not answer in time".to_owned()))
    }

    async fn fetched_after_now(&self, line: &Line) -> Result<Bytes, String> {
        let came_after = self.begun.load(Ordering::SeqCst);
        let mut latest = self.latest.lock().await;
        if let Some(fetched) = latest.as_ref().filter(|fetched| fetched.number > came_after) {
            return fetched.document.clone();
        }
        // Where the endpoint does not answer, one at a time asks whether it is back, jobs among them.
        let pass = line.parts().pace.key_endpoint().ready().await;
        let number = self.begun.fetch_add(1, Ordering::SeqCst) + 1;
        let document = line.parts().client.pin_key().await;
        match &document {
            Ok(_) => pass.answered(),
            Err(reason) => pass.failed(reason),
        }
        *latest = Some(Fetched { number, document: document.clone() });
        document
    }
}
