//! embosser issues payment cards in bulk through Stripe Issuing.
//!
//! One job goes down one line, once: intake → admit → pace → key → verify → create → record → settle.

#![forbid(unsafe_code)]

pub mod account;
pub mod backoff;
pub mod clock;
pub mod commands;
pub mod config;
pub mod content;
pub mod encrypt;
pub mod files;
pub mod http_failure;
pub mod intake;
pub mod job;
pub mod jwe;
pub mod killpoint;
pub mod ledger;
pub mod line;
mod locks;
pub mod logging;
pub mod manifest;
pub mod metrics;
pub mod operation;
pub mod outcome;
pub mod pace;
pub mod pin;
pub mod pin_links;
pub mod queue;
pub mod remedy;
pub mod results;
pub mod sandbox;
pub mod serve;
pub mod shipping;
pub mod signature;
pub mod simulation;
pub mod stripe;
pub mod tally;
pub mod trace;
pub mod webhooks;
pub mod worker;
