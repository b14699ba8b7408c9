//! The line: one effect per job, whatever happens on the way, at the pace that Stripe allows. Each file states a promise and tests it.
//!
//! tests/run gives each file a process of its own.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../support/mod.rs"]
mod support;

mod a_dead_host_is_named_and_holds_up_only_its_own;
mod a_look_waits_until_lists_can_tell;
mod a_lost_card_is_cancelled_before_it_is_replaced;
mod a_person_has_one_cardholder;
mod a_run_outlives_its_ledger;
mod a_signal_ends_no_call;
mod all_accounts_share_a_limit_fairly;
mod cards_belong_to_an_account_not_to_a_ledger;
mod changes_of_a_card_keep_their_order;
mod clocks_that_are_set_make_no_second_card;
mod every_operation_has_its_effect_once;
mod issue_says_what_it_did;
mod killed_at_any_stage_one_card_per_row;
mod log_holds_nothing_up;
mod metrics_are_as_documented;
mod one_odd_answer_of_a_list_proves_nothing;
mod operators_find_what_they_look_for;
mod pace_is_fair;
mod pace_uses_the_limit_and_keeps_it;
mod people_outlive_kills;
mod stripe_answers_nonsense;
mod the_same_people_get_no_second_cards;
mod two_runs_at_once_are_as_one;
mod unknown_ends_are_settled_at_stripe;
mod what_changed_while_a_job_waited_is_noticed;
mod what_stripe_says_of_everybody_spends_no_batch;
