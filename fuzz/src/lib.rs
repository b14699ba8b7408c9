//! What is fuzzed: everything that reads what others write. Each function takes any bytes, must neither panic nor run on, and holds
//! what comes out to what is promised of it.
//!
//! cargo-fuzz drives them on nightly (`fuzz_targets/`), and `tests/fuzz_targets.rs` on stable, with the corpora and proptest.

#![allow(clippy::unwrap_used, reason = "a target fails by panicking")]

mod manifests;
mod messages;
mod secrets;

/// What reads some bytes.
pub type Target = fn(&[u8]);

/// Every target, by its name, which is also its corpus's.
pub const TARGETS: [(&str, Target); 10] = [
    ("jwe", secrets::jwe),
    ("pin_link", secrets::pin_link),
    ("config_file", secrets::config_file),
    ("job_document", messages::job_document),
    ("amqp_properties", messages::amqp_properties),
    ("stripe_answer", messages::stripe_answer),
    ("csv", manifests::csv),
    ("spreadsheet", manifests::spreadsheet),
    ("columns_file", manifests::columns_file),
    ("upload", manifests::upload),
];

/// Runs the target of that name.
pub fn run(name: &str, data: &[u8]) {
    let (_, target) =
        TARGETS.iter().find(|(known, _)| *known == name).expect("a target has its name in TARGETS");
    target(data);
}
