//! Stripe: how it is reached, its documents, and the sandbox that stands in for it. Each file states a promise and tests it.
//!
//! tests/run gives each file a process of its own.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../support/mod.rs"]
mod support;

mod calls_reach_stripe;
mod sandbox_behaves_as_stripe_documents;
mod sandbox_is_steered_from_outside;
mod sandbox_models_pins_as_stripe_does;
mod stripe_contract;
