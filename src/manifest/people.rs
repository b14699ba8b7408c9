//! Who is created for a manifest's rows, and what is found of people who stand there more than once.
//!
//! A person is known here by what [`Person`] is known by, so that a check counts the cardholders that there will be.

use super::Problem;
use super::names::{Positions, Repeat, Short, index, pairs, short};
use super::plan::Good;
use crate::operation::{By, Key, Person};

/// Somebody who is created.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Somebody {
    /// What tells the person, in the order of [`SIGNS`].
    signs: [Option<u64>; SIGNS.len()],
    name: u64,
    /// All that is told of the person.
    details: u64,
}

/// By what a person is known, the surest first.
const SIGNS: [By; 3] = [By::Email, By::Phone, By::NameAndAddress];

/// Who is created for each row.
#[derive(Debug, Default)]
pub(super) struct People {
    rows: Vec<PersonRow>,
    positions: Positions,
}

#[derive(Debug)]
struct PersonRow {
    signs: [Option<Short>; SIGNS.len()],
    name: Short,
    details: Short,
    good: Good,
}

impl Somebody {
    /// A person; `details` is a hash of all that is told of it.
    pub(super) fn of(person: &Person, details: u64) -> Self {
        let number = |key: &Key| u64::from_le_bytes(*key.first_chunk().expect("a key has 16 bytes"));
        let signs = SIGNS.map(|by| person.key(by).map(number));
        Self { signs, name: number(person.name()), details }
    }

    /// What tells the person: the surest of it.
    pub(super) fn sign(&self) -> Option<u64> {
        self.signs.into_iter().flatten().next()
    }
}

impl People {
    pub(super) fn add(&mut self, person: Somebody, good: Good, position: (u64, u64)) {
        let Somebody { signs, name, details } = person;
        self.positions.add(index(self.rows.len()), position);
        self.rows.push(PersonRow {
            signs: signs.map(|sign| sign.map(short)),
            name: short(name),
            details: short(details),
            good,
        });
    }

    /// What is found of people who stand there more than once. `duplicates`: lines that count for nothing; and of rows of which
    /// is told that they ask for the same, only what is wrong.
    pub(super) fn findings(self, duplicates: &[u64], is_told: impl Fn(&Repeat) -> bool) -> OfPeople {
        let mut firsts: Vec<Option<(By, u32)>> = vec![None; self.rows.len()];
        let line = |place: u32| self.positions.repeat(place, place).line;
        for (at, by) in SIGNS.into_iter().enumerate() {
            let has_it = |place: &u32| {
                let row = &self.rows[*place as usize];
                row.signs[at].is_some() && duplicates.binary_search(&line(*place)).is_err()
            };
            let places: Vec<u32> = (0..index(self.rows.len())).filter(has_it).collect();
            let signs: Vec<Short> =
                places.iter().filter_map(|place| self.rows[*place as usize].signs[at]).collect();
            for (place, first) in pairs(&signs) {
                let (place, first) = (places[place as usize], places[first as usize]);
                firsts[place as usize].get_or_insert((by, first));
            }
        }
        let mut found = OfPeople::default();
        for (place, (by, first)) in (0..).zip(firsts).filter_map(|(place, first)| Some((place, first?))) {
            let (this, before) = (&self.rows[place as usize], &self.rows[first as usize]);
            let row = self.positions.repeat(place, first);
            let is_shared = this.good.person;
            found.shared += u64::from(is_shared);
            let has_other_email = by != By::Email
                && matches!((this.signs[0], before.signs[0]), (Some(this), Some(before)) if this != before);
            if is_shared && by == By::Email && this.name != before.name {
                found.problem(row, this.good, "two_people_one_email", &format!(
                    "is the e-mail address of line {}, where another name stands: if they are one person, write one name in both \
                     rows; if they are two, give each an e-mail address of their own, or none",
                    row.first
                ));
            } else if is_shared && has_other_email {
                found.problem(row, this.good, "one_person_two_emails", &format!(
                    "is another one than on line {}, where the same {} stands: if they are one person, write one e-mail address in \
                     both rows; if they are two, set cardholder[reuse] to false in this one",
                    row.first,
                    by.word()
                ));
            } else if !is_shared && !is_told(&row) {
                found.twice.push(row);
            } else if is_shared && this.details != before.details && !is_told(&row) {
                found.differing.push(row);
            }
        }
        found
    }
}

impl OfPeople {
    fn problem(&mut self, row: Repeat, good: Good, code: &'static str, reason: &str) {
        let problem = Problem::new(row.line, row.number, "cardholder[email]", code, reason.to_owned());
        self.problems.push(WrongBeside { problem, good, first: row.first });
    }
}

/// A row that does not go together with one before it.
#[derive(Debug)]
pub(super) struct WrongBeside {
    pub(super) problem: Problem,
    /// What the row counts as.
    pub(super) good: Good,
    /// The line of the one before it.
    pub(super) first: u64,
}

/// What is found.
#[derive(Default)]
pub(super) struct OfPeople {
    pub(super) problems: Vec<WrongBeside>,
    /// Rows that create a cardholder where another row creates one for the same person.
    pub(super) twice: Vec<Repeat>,
    /// Rows that tell other details of their person.
    pub(super) differing: Vec<Repeat>,
    /// Rows for whose person a row before them creates the cardholder.
    pub(super) shared: u64,
}
