//! What the repository says of the program, held against the program. Each file states a promise and tests it.
//!
//! tests/run gives each file a process of its own.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../support/mod.rs"]
mod support;

mod config_reference_is_true;
mod dashboard_and_alerts_are_fed;
mod deploy_is_sound;
mod floors;
mod output_goes_where_it_is_wanted;
mod security_is_as_told;
