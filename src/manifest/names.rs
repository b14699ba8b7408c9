//! Which row has a name already, for as many rows as a file may have, in little memory.
//!
//! Held are a keyed 64-bit hash of the name and the line it stands on, no name. The key is random, so that nobody can
//! write a file whose names meet; by chance two of a million names meet once in 37 million files, and that file is told of
//! a name that stands twice, and is right the next time.

use std::collections::HashMap;
use std::collections::hash_map::{Entry, RandomState};
use std::hash::{BuildHasher as _, BuildHasherDefault, Hash};

/// Names hashed under one key.
#[derive(Debug, Clone, Default)]
pub(super) struct Hasher(RandomState);

impl Hasher {
    /// A name's hash.
    pub(super) fn hash(&self, name: &[u8]) -> u64 {
        self.0.hash_one(name)
    }
}

/// Names and their lines.
#[derive(Debug, Default)]
pub(super) struct Names(HashMap<Halves, u32, BuildHasherDefault<Hashed>>);

/// A hash in two halves: so a name and its line take 12 bytes of the table, not 16.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Halves([u32; 2]);

impl Hash for Halves {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        state.write_u64(u64::from(self.0[0]) << 32 | u64::from(self.0[1]));
    }
}

/// What is a hash already is not hashed again.
#[derive(Debug, Default)]
struct Hashed(u64);

impl std::hash::Hasher for Hashed {
    fn write(&mut self, _: &[u8]) {
        unreachable!("only whole hashes are written")
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// Most names that room is made for beforehand: a guess from a file's first rows may be far off.
const EXPECTED_MAX: usize = 1_500_000;

impl Names {
    /// Makes room for so many names at once: growing leaves the smaller tables' memory behind.
    pub(super) fn expect(&mut self, names: u64) {
        self.0.reserve(usize::try_from(names).unwrap_or(usize::MAX).min(EXPECTED_MAX));
    }

    /// Puts a name in; if it stands there already, answers the line of its first row.
    #[expect(clippy::cast_possible_truncation, reason = "in two halves")]
    pub(super) fn insert(&mut self, hash: u64, line: u64) -> Option<u64> {
        match self.0.entry(Halves([(hash >> 32) as u32, hash as u32])) {
            Entry::Occupied(first) => Some(u64::from(*first.get())),
            Entry::Vacant(place) => {
                place.insert(u32::try_from(line).unwrap_or(u32::MAX));
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_met_again_among_many() {
        let (hasher, mut names) = (Hasher::default(), Names::default());
        names.expect(1000);
        for row in 0..100_000_u64 {
            assert_eq!(names.insert(hasher.hash(row.to_string().as_bytes()), row + 2), None);
        }
        assert_eq!(names.insert(hasher.hash(b"77777"), 1), Some(77_779));
        assert_eq!(names.insert(0, 5), None);
        assert_eq!(names.insert(0, 6), Some(5));
    }
}
