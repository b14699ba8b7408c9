//! The ledger in both databases. Each file states a promise and tests it.
//!
//! tests/run gives each file a process of its own.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../support/mod.rs"]
mod support;

mod a_database_that_goes_away_is_waited_for;
mod ledger_keeps_what_it_was_told;
mod ledgers_are_moved_and_kept;
mod pages_are_read_from_an_index;
