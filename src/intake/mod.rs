//! How jobs come in: as documents, whoever sends them, and as rows.
//!
//! Duty: one decoder of documents for the queue and for HTTP, so that both take and refuse the same ([`document`]); one way from
//! rows to whatever takes their jobs ([`feed`]). Never: a value of a document in an
//! error or in `Debug`, since any of them could be a PIN.

pub mod document;
pub mod feed;
pub mod readable;
mod requests;
pub mod start;
mod tree;
