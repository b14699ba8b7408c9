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
    places: Vec<Place>,
    count: usize,
}

/// A hash in two halves and a line: side by side in 12 bytes, so that one look into memory finds both.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Place {
    hash: [u32; 2],
    /// 0 where no name is.
    line: u32,
}

/// A hash as a place holds it.
#[inline]
#[expect(clippy::cast_possible_truncation, reason = "in two halves")]
fn halves(hash: u64) -> [u32; 2] {
    [(hash >> 32) as u32, hash as u32]
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
        self.0.iter_mut().filter(|part| part.places.len() < places).for_each(|part| part.resize(places));
    }

    /// Brings the places that these hashes will ask for into the processor's caches, all at once: asked one by one, each
    /// would be waited for.
    pub(super) fn prefetch(&self, hashes: impl Iterator<Item = u64>) {
        let seen = hashes.fold(0, |seen, hash| {
            let places = &self.0[part_of(hash)].places;
            seen ^ places.get(first_place(halves(hash), places.len())).map_or(0, |place| place.line)
        });
        std::hint::black_box(seen);
    }

    /// Puts a name in; if it stands there already, answers the line of its first row.
    #[inline]
    pub(super) fn insert(&mut self, hash: u64, line: u64) -> Option<u64> {
        self.0[part_of(hash)].insert(hash, line)
    }
}

/// The part that a hash belongs to: its highest bits. The lowest choose the place there.
#[inline]
#[expect(clippy::cast_possible_truncation, reason = "the high bits of 64")]
fn part_of(hash: u64) -> usize {
    (hash >> (u64::BITS - PARTS.ilog2())) as usize
}

/// Where to look for a hash first. The number of places is a power of two, or 0.
#[inline]
fn first_place(hash: [u32; 2], places: usize) -> usize {
    hash[1] as usize & places.wrapping_sub(1)
}

impl Part {
    #[inline]
    fn insert(&mut self, hash: u64, line: u64) -> Option<u64> {
        if self.count * 4 >= self.places.len() * 3 {
            self.grow();
        }
        let hash = halves(hash);
        let place = self.place(hash);
        let place = &mut self.places[place];
        if place.line != 0 {
            return Some(u64::from(place.line));
        }
        *place = Place { hash, line: u32::try_from(line).unwrap_or(u32::MAX).max(1) };
        self.count += 1;
        None
    }

    /// Where the hash stands, or could.
    #[inline]
    fn place(&self, hash: [u32; 2]) -> usize {
        let mask = self.places.len() - 1;
        let mut at = first_place(hash, self.places.len());
        while self.places[at].line != 0 && self.places[at].hash != hash {
            at = (at + 1) & mask;
        }
        at
    }

    fn grow(&mut self) {
        const PLACES_MIN: usize = 64;
        self.resize((self.places.len() * 2).max(PLACES_MIN));
    }

    fn resize(&mut self, places: usize) {
        let longer = Self { places: vec![Place::default(); places], count: self.count };
        let shorter = std::mem::replace(self, longer);
        for taken in shorter.places.into_iter().filter(|place| place.line != 0) {
            let at = self.place(taken.hash);
            self.places[at] = taken;
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
