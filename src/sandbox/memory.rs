//! What is remembered under idempotency keys (docs.stripe.com/api/idempotent_requests): from the moment execution
//! begins, with whatever it ends in, a 500 included, until the window is over.

use std::collections::HashMap;
use std::time::Duration;

use super::response::{ApiResponse, Fault};

/// What a request asks for, as far as one differs from another: no PIN is kept.
pub(super) type Parameters = [u8; 32];

enum Saved {
    Running { request: Parameters },
    Ended { request: Parameters, response: ApiResponse, at: Duration },
}

/// By account and key.
#[derive(Default)]
pub(super) struct Memory(HashMap<(String, String), Saved>);

/// What the memory says to a call.
pub(super) enum Remembered {
    /// Nothing: it is new.
    Nothing,
    /// The saved answer.
    Replay(ApiResponse),
    /// It may not be made.
    Refused(Fault),
}

impl Memory {
    pub(super) fn ask(
        &mut self,
        name: &(String, String),
        request: Parameters,
        now: Duration,
        window: Duration,
    ) -> Remembered {
        let expired = matches!(self.0.get(name),
            Some(Saved::Ended { at, .. }) if now.saturating_sub(*at) >= window);
        if expired {
            self.0.remove(name);
        }
        let (same, response) = match self.0.get(name) {
            None => return Remembered::Nothing,
            Some(Saved::Running { request: saved }) => (*saved == request, None),
            Some(Saved::Ended { request: saved, response, .. }) => {
                (*saved == request, Some(response.clone()))
            }
        };
        if !same {
            let message = format!(
                "Keys for idempotent requests can only be used with the same parameters they were first used with. \
                 Try using a key other than '{}' if you meant to execute a different request.",
                name.1
            );
            return Remembered::Refused(Fault::of(400, "idempotency_error", None, &message));
        }
        let Some(mut response) = response else {
            return Remembered::Refused(Fault::in_use());
        };
        response.headers.push(("idempotent-replayed", "true".into()));
        Remembered::Replay(response)
    }

    pub(super) fn begins(&mut self, name: (String, String), request: Parameters) {
        self.0.insert(name, Saved::Running { request });
    }

    pub(super) fn forgets(&mut self, name: &(String, String)) {
        self.0.remove(name);
    }

    pub(super) fn ends(
        &mut self,
        name: (String, String),
        request: Parameters,
        response: ApiResponse,
        at: Duration,
    ) {
        self.0.insert(name, Saved::Ended { request, response, at });
    }
}
