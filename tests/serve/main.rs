//! Uploads over HTTP, from the check to the card in its letter box. Each file states a promise and tests it.
//!
//! tests/run gives each file a process of its own.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../support/mod.rs"]
mod support;

mod a_batch_is_undone;
mod a_batch_starts_at_its_time;
mod a_second_look_before_cards;
mod an_upload_is_mended_before_it_is_issued;
mod batches_hold_up_no_others;
mod cards_are_tracked_after_printing;
mod serve_answers_as_its_document_says;
mod serve_issues_an_upload_once;
mod serve_keeps_its_bounds;
mod serve_lets_nobody_in_without_the_role;
mod serve_publishes_to_rabbitmq;
mod serve_shows_no_pin;
mod serve_survives_being_killed;
mod several_accounts_are_served;
mod webhooks_arrive;
mod what_needs_no_change_is_tried_again;
mod who_did_what_is_recorded;
mod whoever_decides_sees_what_about;
