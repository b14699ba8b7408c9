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
    pub(super) fn hash(&self, name: &[u8]) -> u64 {
        self.0.hash_one(name)
    }
}

/// Names and their lines, in parts that grow one after the other: while one is copied, only that one is there twice.
#[derive(Debug, Default)]
pub(super) struct Names([Part; PARTS]);

/// How many parts; a power of two.
const PARTS: usize = 16;

/// A table with open addressing, at most three quarters full.
#[derive(Debug, Default)]
struct Part {
    hashes: Vec<u64>,
    /// 0 where no name is.
    lines: Vec<u32>,
    count: usize,
}

/// Most names that room is made for beforehand: a guess from a file's first rows may be far off.
const EXPECTED_MAX: usize = 1_500_000;

impl Names {
    /// Makes room for so many names at once: growing leaves the smaller tables' memory behind.
    pub(super) fn expect(&mut self, names: u64) {
        let names = usize::try_from(names).unwrap_or(usize::MAX).min(EXPECTED_MAX);
        // A hash falls into each part as often, but for chance, for which there is a tenth more.
        let part_names = names / PARTS * 11 / 10;
        let places = (part_names * 4 / 3 + 1).next_power_of_two();
        self.0.iter_mut().filter(|part| part.lines.len() < places).for_each(|part| part.resize(places));
    }

    /// Puts a name in; if it stands there already, answers the line of its first row.
    #[inline]
    pub(super) fn insert(&mut self, hash: u64, line: u64) -> Option<u64> {
        // The low bits choose the place in the part.
        #[expect(clippy::cast_possible_truncation, reason = "the high bits of 64")]
        let part = (hash >> (u64::BITS - PARTS.ilog2())) as usize;
        self.0[part].insert(hash, line)
    }
}

impl Part {
    #[inline]
    fn insert(&mut self, hash: u64, line: u64) -> Option<u64> {
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
        // The length is a power of two.
        let mask = self.lines.len() - 1;
        #[expect(clippy::cast_possible_truncation, reason = "only the low bits count")]
        let mut place = hash as usize & mask;
        while self.lines[place] != 0 && self.hashes[place] != hash {
            place = (place + 1) & mask;
        }
        place
    }

    fn grow(&mut self) {
        const PLACES_MIN: usize = 64;
        self.resize((self.lines.len() * 2).max(PLACES_MIN));
    }

    fn resize(&mut self, places: usize) {
        let longer = Self { hashes: vec![0; places], lines: vec![0; places], count: self.count };
        let Self { hashes, lines, .. } = std::mem::replace(self, longer);
        for (hash, line) in hashes.into_iter().zip(lines).filter(|(_, line)| *line != 0) {
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
        names.expect(1000);
        for row in 0..100_000_u64 {
            assert_eq!(names.insert(hasher.hash(row.to_string().as_bytes()), row + 2), None);
        }
        assert_eq!(names.insert(hasher.hash(b"77777"), 1), Some(77_779));
        assert_eq!(names.insert(0, 5), None);
        assert_eq!(names.insert(0, 6), Some(5));
    }
}
