//! Which row has a name already, for as many rows as a file may have, in little memory.
//!
//! Held are a keyed 64-bit hash of the name and the line it stands on: 12 bytes a row, no name. The key is random, so
//! that nobody can write a file whose names meet; by chance two of a million names meet once in 37 million files, and
//! that file is told of a name that stands twice, and is right the next time.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher as _;

/// Names hashed under one key.
#[derive(Debug, Clone, Default)]
pub(super) struct Hasher(RandomState);

impl Hasher {
    /// A name's hash.
    #[inline]
    pub(super) fn hash(&self, name: &str) -> u64 {
        self.0.hash_one(name.as_bytes())
    }
}

/// Names and their lines: a table with open addressing, at most three quarters full.
#[derive(Debug, Default)]
pub(super) struct Names {
    hashes: Vec<u64>,
    /// 0 where no name is.
    lines: Vec<u32>,
    count: usize,
}

impl Names {
    /// Puts a name in; if it stands there already, answers the line of its first row.
    #[inline]
    pub(super) fn insert(&mut self, hash: u64, line: u64) -> Option<u64> {
        if self.count * 4 >= self.hashes.len() * 3 {
            self.grow();
        }
        let line = u32::try_from(line).unwrap_or(u32::MAX).max(1);
        let place = self.place(hash);
        if self.lines[place] != 0 {
            return Some(u64::from(self.lines[place]));
        }
        (self.hashes[place], self.lines[place]) = (hash, line);
        self.count += 1;
        None
    }

    /// Where the hash stands, or could.
    #[inline]
    fn place(&self, hash: u64) -> usize {
        // The length is a power of two. The hash's low bits are as good as any.
        let mask = self.lines.len() - 1;
        #[expect(clippy::cast_possible_truncation, reason = "only the low bits count")]
        let mut place = hash as usize & mask;
        while self.lines[place] != 0 && self.hashes[place] != hash {
            place = (place + 1) & mask;
        }
        place
    }

    fn grow(&mut self) {
        const PLACES_MIN: usize = 1024;
        let places = (self.lines.len() * 2).max(PLACES_MIN);
        let old = std::mem::replace(
            self,
            Self { hashes: vec![0; places], lines: vec![0; places], count: self.count },
        );
        for (hash, line) in old.hashes.into_iter().zip(old.lines).filter(|(_, line)| *line != 0) {
            let place = self.place(hash);
            (self.hashes[place], self.lines[place]) = (hash, line);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_met_again_among_many() {
        let (hasher, mut names) = (Hasher::default(), Names::default());
        for row in 0..100_000_u64 {
            assert_eq!(names.insert(hasher.hash(&row.to_string()), row + 2), None);
        }
        assert_eq!(names.insert(hasher.hash("77777"), 1), Some(77_779));
        assert_eq!(names.insert(0, 5), None);
        assert_eq!(names.insert(0, 6), Some(5));
    }
}
