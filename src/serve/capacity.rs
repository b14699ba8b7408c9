//! What all servers of a process share: how much may be under way at once, whichever account it is for.

use std::sync::Arc;

use tokio::sync::Semaphore;

use super::held::Budget;
use super::limits::{DOWNLOADS_MAX, STREAMS_MAX, WORKBOOKS_MAX};
use crate::config::HttpConfig;

/// Places and memory. Clones share them.
#[derive(Clone)]
pub struct Capacity {
    pub(super) budget: Arc<Budget>,
    pub(super) uploads: Arc<Semaphore>,
    pub(super) streams: Arc<Semaphore>,
    pub(super) downloads: Arc<Semaphore>,
    pub(super) workbooks: Arc<Semaphore>,
}

impl Capacity {
    /// As much as is configured.
    #[must_use]
    pub fn of(config: &HttpConfig) -> Self {
        let held_bytes_max = usize::try_from(config.held_mib_max << 20).unwrap_or(usize::MAX);
        let places = |count| Arc::new(Semaphore::new(count));
        Self {
            budget: Budget::new(held_bytes_max),
            uploads: places(config.uploads_max),
            streams: places(STREAMS_MAX),
            downloads: places(DOWNLOADS_MAX),
            workbooks: places(WORKBOOKS_MAX),
        }
    }
}
