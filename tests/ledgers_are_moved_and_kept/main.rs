//! Promise: a ledger comes over to another database with every row as it was, however often that is interrupted, and at no time do two
//! ledgers serve; what is pruned of it makes no second card; and what was altered or lost in it is found.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod filled;
mod given_up;
mod kept;
mod many_rows;
mod moved;
#[path = "../support/mod.rs"]
mod support;
