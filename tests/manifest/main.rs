//! Manifests: what is read, what is said of it, and what is written for people. Each file states a promise and tests it.
//!
//! tests/run gives each file a process of its own.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../support/mod.rs"]
mod support;

mod a_manifest_can_ask_for_every_operation;
mod amounts_of_two_kinds_are_told;
mod cards_go_to_peoples_own_addresses;
mod check_finds_what_stripe_refuses;
mod check_is_the_same_on_any_number_of_threads;
mod check_keeps_memory_flat;
mod check_reads_any_file;
mod columns_files_name_the_columns;
mod csv_and_json_agree;
mod dates_of_birth_stand_in_one_column;
mod names_stand_in_several_columns;
mod real_files_have_their_verdicts;
mod spreadsheets_are_read_as_their_csv;
mod spreadsheets_are_read_as_they_look;
mod spreadsheets_are_written_for_people;
mod the_file_that_was_checked_is_issued;
mod the_same_table_is_the_same_in_any_format;
