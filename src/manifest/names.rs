//! Which rows have the same name, or nearly the same, for as many rows as a file may have, in little memory.
//!
//! Held are keyed hashes of each name, as it is and as it is without what spreadsheets and people change in it, and no name.
//! The keys are random, so that nobody can write a file whose names meet. By chance two of a million names meet once in 37 million
//! files, and that file is told of a name that stands twice, and is right the next time.

use std::hash::{BuildHasher as _, Hasher as _, RandomState};

use rayon::slice::ParallelSliceMut as _;

use super::plan::Good;

/// Makes hashers several times as fast as the standard library's, for what costs nobody more than a warning if it only seems
/// alike.
pub(super) type FastState = foldhash::quality::SeedableRandomState;

/// One under a key that nobody knows: the standard library's.
pub(super) fn fast_state() -> FastState {
    FastState::with_seed(RandomState::new().hash_one(()), foldhash::SharedSeed::global_random())
}

/// Names hashed under keys of their own.
#[derive(Debug, Clone)]
pub(super) struct Hasher {
    exact: RandomState,
    rough: FastState,
}

impl Default for Hasher {
    fn default() -> Self {
        Self { exact: RandomState::new(), rough: fast_state() }
    }
}

impl Hasher {
    /// A name's hashes.
    pub(super) fn hash(&self, name: &str) -> NameHash {
        let mut rough = self.rough.build_hasher();
        let mut in_number = false;
        for letter in name.chars().filter(|letter| !letter.is_whitespace()) {
            if letter == '0' && !in_number {
                continue;
            }
            in_number = letter.is_ascii_digit();
            if letter.is_ascii() {
                rough.write_u32(letter.to_ascii_lowercase().into());
            } else {
                letter.to_lowercase().for_each(|letter| rough.write_u32(letter.into()));
            }
        }
        NameHash { exact: self.exact.hash_one(name), rough: rough.finish() }
    }
}

/// A name's hashes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NameHash {
    /// Of the name as it is.
    exact: u64,
    /// Of the name without blanks, the case of its letters, and zeros that its numbers begin with.
    rough: u64,
}

impl NameHash {
    /// What names have in common that differ in nothing but what nobody sees.
    pub(super) fn rough(self) -> u64 {
        self.rough
    }
}

/// Most rows that room is made for beforehand: a guess from a file's first rows may be far off.
const EXPECTED_MAX: usize = 1_500_000;

/// How many rows that is.
pub(super) fn expected(rows: u64) -> usize {
    // A little more than guessed, so that the room need not be made larger at the end.
    usize::try_from(rows + rows / 32).unwrap_or(usize::MAX).min(EXPECTED_MAX)
}

/// The names of rows, in the rows' order.
#[derive(Debug, Default)]
pub(super) struct Names {
    exact: Vec<u64>,
    rough: Vec<Short>,
    /// What each row counts as, if it is right.
    good: Vec<Option<Good>>,
    positions: Positions,
}

/// A row that is like one before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Repeat {
    pub(super) line: u64,
    pub(super) number: u64,
    /// The line of the first row that it is like.
    pub(super) first: u64,
}

impl Names {
    /// Makes room for about so many.
    pub(super) fn expect(&mut self, rows: u64) {
        self.exact.reserve(expected(rows));
        self.rough.reserve(expected(rows));
        self.good.reserve(expected(rows));
    }

    pub(super) fn add(&mut self, name: NameHash, line: u64, number: u64, good: Option<Good>) {
        let place = index(self.exact.len());
        self.positions.add(place, (line, number));
        self.exact.push(name.exact);
        self.rough.push(short(name.rough));
        self.good.push(good);
    }

    /// Rows whose name a row before them has, in their order; each with what it counts as, if it is right otherwise.
    pub(super) fn duplicates(&self) -> impl Iterator<Item = (Repeat, Option<Good>)> {
        let with_good = |(place, first)| (self.positions.repeat(place, first), self.good[place as usize]);
        pairs(&self.exact).into_iter().map(with_good)
    }

    /// Rows whose names differ from one before them in nothing but what nobody sees, in their order.
    pub(super) fn near(&self) -> Vec<Repeat> {
        let mut near = pairs(&self.rough);
        near.retain(|(place, first)| self.exact[*place as usize] != self.exact[*first as usize]);
        near.into_iter().map(|(place, first)| self.positions.repeat(place, first)).collect()
    }
}

/// 48 bits of a hash. Of five hundred files of a million rows one has two rows that are taken for alike and are not: enough
/// for a warning.
pub(super) type Short = [u8; 6];

pub(super) fn short(hash: u64) -> Short {
    let mut short = Short::default();
    short.copy_from_slice(&hash.to_le_bytes()[..6]);
    short
}

pub(super) fn index(place: usize) -> u32 {
    u32::try_from(place).unwrap_or(u32::MAX)
}

/// A hash, as much of it as is kept.
pub(super) trait Bits: Copy + PartialEq {
    /// As a number.
    fn bits(self) -> u64;
}

impl Bits for u64 {
    fn bits(self) -> u64 {
        self
    }
}

impl Bits for Short {
    fn bits(self) -> u64 {
        let mut whole = [0; 8];
        whole[..6].copy_from_slice(&self);
        u64::from_le_bytes(whole)
    }
}

/// The place of each that is like one before it, and that of the first of these; in their order.
pub(super) fn pairs<H: Bits>(hashes: &[H]) -> Vec<(u32, u32)> {
    // Sorted are numbers, each of as many bits of a hash as there is room for and its place: several times as fast as to sort places
    // by what stands there, which is all over the memory. Those that are alike are held against each other in full.
    let room = usize::BITS - hashes.len().leading_zeros();
    let place_of = |key: &u64| (key & ((1 << room) - 1)) as usize;
    let mut keys: Vec<u64> = (0..).zip(hashes).map(|(place, hash)| (hash.bits() << room) | place).collect();
    keys.par_sort_unstable();
    let mut pairs = Vec::new();
    for alike in keys.chunk_by(|one, other| one >> room == other >> room) {
        for (at, key) in alike.iter().enumerate().skip(1) {
            let is_same = |other: &&u64| hashes[place_of(other)] == hashes[place_of(key)];
            let first = alike[..at].iter().find(is_same);
            pairs.extend(first.map(|first| (index(place_of(key)), index(place_of(first)))));
        }
    }
    pairs.sort_unstable();
    pairs
}

/// The lines and numbers of rows, by their places.
#[derive(Debug, Default)]
pub(super) struct Positions {
    lines: Shifts,
    numbers: Shifts,
}

impl Positions {
    /// Those of the row at the next place.
    pub(super) fn add(&mut self, place: u32, (line, number): (u64, u64)) {
        self.lines.add(place, line);
        self.numbers.add(place, number);
    }

    pub(super) fn repeat(&self, place: u32, first: u32) -> Repeat {
        Repeat { line: self.lines.at(place), number: self.numbers.at(place), first: self.lines.at(first) }
    }
}

/// Numbers that mostly grow by one from place to place, in little memory.
#[derive(Debug, Default)]
struct Shifts {
    /// From which place on a number is the place and so much more.
    from: Vec<(u32, u32)>,
}

impl Shifts {
    /// The number at the next place.
    fn add(&mut self, place: u32, number: u64) {
        let shift = u32::try_from(number).unwrap_or(u32::MAX).saturating_sub(place);
        if self.from.last().is_none_or(|(_, last)| *last != shift) {
            self.from.push((place, shift));
        }
    }

    fn at(&self, place: u32) -> u64 {
        let last = self.from.partition_point(|(from, _)| *from <= place).checked_sub(1);
        u64::from(place) + last.map_or(0, |at| u64::from(self.from[at].1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The lines of names that stand twice, and of those that are near others.
    type Found = (Vec<(u64, u64)>, Vec<(u64, u64)>);

    fn found(names: &[&str]) -> Found {
        let (hasher, mut all) = (Hasher::default(), Names::default());
        for (number, name) in (1..).zip(names) {
            // With a blank line after the second row.
            all.add(hasher.hash(name), if number > 2 { number + 2 } else { number + 1 }, number, None);
        }
        let lines = |row: Repeat| (row.line, row.first);
        (all.duplicates().map(|(row, _)| lines(row)).collect(), all.near().into_iter().map(lines).collect())
    }

    #[test]
    fn names_that_stand_twice_are_told_and_those_that_nearly_do() {
        assert_eq!(found(&["a", "b", "a", "c", "a", "b"]), (vec![(5, 2), (7, 2), (8, 3)], vec![]));
        assert_eq!(found(&["E007", "E7", "e007", "E 007"]), (vec![], vec![(3, 2), (5, 2), (6, 2)]));
        assert_eq!(
            found(&["E007", "E70", "E0", "E07a", "E", "F7", "7", "10", "100"]),
            (vec![], vec![(7, 5)])
        );
        assert_eq!(found(&[]), (vec![], vec![]));
    }

    #[test]
    fn hashes_that_share_the_bits_that_are_sorted_by_are_told_apart() {
        // Of three there is room for all bits but the highest two.
        let high = 1 << 63;
        assert_eq!(pairs(&[5, 5 | high, 5]), [(2, 0)]);
        assert_eq!(pairs(&[high, 0, high, 0]), [(2, 0), (3, 1)]);
        assert_eq!(pairs(&[short(7), short(9), short(7)]), [(2, 0)]);
        let many: Vec<u64> = (0..10_000).map(|number: u64| (number % 5000) << 50).collect();
        assert_eq!(pairs(&many), (5000..10_000).map(|place| (place, place - 5000)).collect::<Vec<_>>());
        assert!(pairs::<u64>(&[]).is_empty());
    }

    #[test]
    fn a_number_is_found_again_wherever_it_jumped() {
        let mut shifts = Shifts::default();
        let numbers = [2, 3, 4, 9, 10, 20, 21];
        for (place, number) in (0..).zip(numbers) {
            shifts.add(place, number);
        }
        assert_eq!(shifts.from.len(), 3);
        assert!((0..).zip(numbers).all(|(place, number)| shifts.at(place) == number));
    }
}
