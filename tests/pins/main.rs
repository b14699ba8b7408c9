//! PINs: their form, who chooses them, and where they must not be. Each file states a promise and tests it.
//!
//! tests/run gives each file a process of its own.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../forge/mod.rs"]
mod forge;
#[path = "../support/mod.rs"]
mod support;

mod a_chosen_pin_outlives_what_fails_half_way;
mod jwe_agreement;
mod jwe_key;
mod jwe_refused_before_the_call;
mod jwe_rules;
mod no_pin_in_any_output;
mod pins_are_chosen_by_cardholders;
mod pins_are_chosen_by_cardholders_in_bad_times;
mod pins_changed_in_bulk_are_right;
mod pins_of_every_client_library;
mod secrets_are_found_in_every_form;
