//! `[stripe_events]`: what Stripe tells by itself, at `POST /v1/stripe-events`.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// `[stripe_events]`
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StripeEventsConfig {
    /// File that holds the endpoint's signing secret, when `STRIPE_WEBHOOK_SECRET` does not; without either, events are not
    /// taken.
    pub secret_file: Option<PathBuf>,
}
