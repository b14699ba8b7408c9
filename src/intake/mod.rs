//! How jobs come in as documents: what a sender writes and how it is read, wherever it comes from.
//!
//! Duty: one decoder for the queue and for HTTP, so that both take and refuse the same. Never: a value of a document in an
//! error or in `Debug`, since any of them could be a PIN.

pub mod document;
mod tree;
