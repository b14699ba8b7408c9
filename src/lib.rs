//! embosser issues payment cards in bulk through Stripe Issuing.
//!
//! One job goes down one line, once: intake → admit → pace → key → verify → create → record → settle.

pub mod card;
pub mod config;
pub mod jwe;
pub mod manifest;
pub mod pace;
pub mod pin;
pub mod sandbox;
