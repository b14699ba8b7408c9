//! The ids of a manifest's rows, as hashes.

use std::hash::BuildHasher as _;

use crate::job::JobId;

/// Hashes of the ids of a manifest's rows. Two that are alike, of some 2^64, would be taken for one.
#[derive(Debug, Default)]
pub(super) struct Ids {
    hasher: std::hash::RandomState,
    hashes: Vec<u64>,
}

impl Ids {
    pub(super) fn add(&mut self, id: &JobId) {
        self.hashes.push(self.hasher.hash_one(id));
    }

    pub(super) fn sort(&mut self) {
        self.hashes.sort_unstable();
    }

    /// Whether it is one of them, once they are sorted.
    pub(super) fn has(&self, id: &JobId) -> bool {
        self.hashes.binary_search(&self.hasher.hash_one(id)).is_ok()
    }
}
