//! The pages, in Chromium. Each file states a promise and tests it.
//!
//! tests/run gives each file a process of its own.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../support/mod.rs"]
mod support;

mod pin_pages;
mod sandbox_shows_a_pin_in_a_frame_of_its_own;
mod serve_page;
