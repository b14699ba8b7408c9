//! The worker and its broker. Each file states a promise and tests it.
//!
//! tests/run gives each file a process of its own.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../support/mod.rs"]
mod support;

mod a_broker_in_trouble_is_told_of;
mod a_cluster_loses_its_parts;
mod a_rolling_restart_is_not_felt;
mod accounts_are_apart;
mod one_message_costs_only_itself;
mod what_is_confirmed_is_in_the_queue;
mod who_sent_a_job_learns_its_end;
mod worker_answers_every_job;
mod worker_believes_no_wrong_time;
mod worker_shows_no_pin;
mod worker_stands_a_bad_day;
mod worker_survives_crashes;
mod worker_takes_nothing_it_cannot_record;
