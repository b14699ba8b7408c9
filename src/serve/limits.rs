//! Bounds on what clients may use, with their reasons; those that are worth setting come from `[http]`.

use std::time::Duration;

use crate::config::{HttpConfig, seconds};

/// Connections at once: each costs a task and at most [`READ_BUFFER_BYTES`].
pub(super) const CONNECTIONS_MAX: usize = 1024;
/// Of those, how many may have shown no token, in all: half of the places are for whoever has one.
pub(super) const UNKNOWN_MAX: usize = 512;
/// And from one address. Browsers open six; a proxy's connections that are in use have shown tokens.
pub(super) const UNKNOWN_OF_ADDRESS_MAX: usize = 256;
/// A connection's read buffer, and with it the longest head of a request and the longest piece of an upload.
pub(super) const READ_BUFFER_BYTES: usize = 64 << 10;
/// Headers of a request; browsers send about 20.
pub(super) const HEADERS_MAX: usize = 64;
/// Event streams at once: each wakes up twice a second while its batch proceeds.
pub(super) const STREAMS_MAX: usize = 256;
/// Downloads of results at once: each holds a page of rows.
pub(super) const DOWNLOADS_MAX: usize = 32;
/// Spreadsheets of results at once, made or sent: each is held whole.
pub(super) const WORKBOOKS_MAX: usize = 2;
/// A job's JSON: Stripe's longest values in all of its fields are less.
pub(super) const JOB_BYTES_MAX: usize = 256 << 10;
/// Jobs that were sent one by one and wait for their call.
pub(super) const JOBS_MAX: usize = 1000;
/// Batches under way at once.
pub(super) const BATCHES_MAX: usize = 100;
/// How long the rest of a refused upload is read and thrown away, so that its sender hears why it was refused
/// instead of a cut connection.
pub(super) const LINGER: Duration = Duration::from_secs(10);
/// Pieces of an upload between the connection and its check.
pub(super) const PIECES_WAITING: usize = 4;

/// Those that the configuration sets.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// Bytes of an upload.
    pub(super) upload_bytes_max: u64,
    /// Rows of an upload.
    pub(super) rows_max: u64,
    /// For a request's head, and between requests.
    pub(super) header_max: Duration,
    /// For the next piece of an upload or a download.
    pub(super) idle_max: Duration,
}

impl From<&HttpConfig> for Limits {
    fn from(config: &HttpConfig) -> Self {
        Self {
            upload_bytes_max: config.upload_mib_max << 20,
            rows_max: config.rows_max,
            header_max: seconds(config.header_seconds_max),
            idle_max: seconds(config.idle_seconds_max),
        }
    }
}
