//! Physical cards that are sent to their person's own name and address, where a columns file says so (`[shipping]`) and the row says
//! nothing else.
//!
//! The row is as if its name and address had been written into the columns of the parcel, too. Never: of a row that says itself where
//! its card is sent, even in part, or whose card is virtual.

use std::collections::BTreeSet;

use super::Problem;

/// Columns of a person, and those of the parcel that say the same.
pub(super) const COPIED: [(&str, &str); 7] = [
    ("cardholder[name]", "shipping[name]"),
    ("cardholder[billing][address][line1]", "shipping[address][line1]"),
    ("cardholder[billing][address][line2]", "shipping[address][line2]"),
    ("cardholder[billing][address][postal_code]", "shipping[address][postal_code]"),
    ("cardholder[billing][address][city]", "shipping[address][city]"),
    ("cardholder[billing][address][state]", "shipping[address][state]"),
    ("cardholder[billing][address][country]", "shipping[address][country]"),
];

/// Whether a column says to whom or where a card is sent: the columns that are filled in.
pub(super) fn is_filled_in(column: &str) -> bool {
    COPIED.iter().any(|(_, of_parcel)| *of_parcel == column)
}

/// Where a record's cells are that are copied.
#[derive(Debug, Clone)]
pub(super) struct OwnAddress {
    /// The place of the card's kind.
    pub(super) kind: usize,
    /// The places of a person's cells, and of those of the parcel that hold the same.
    pub(super) copied: Vec<(usize, usize)>,
}

impl OwnAddress {
    /// Whether a record's card is sent to its person's own address. `cell` gives the n-th cell without the blanks around it.
    pub(super) fn is_meant<'c>(&self, cell: impl Fn(usize) -> &'c [u8]) -> bool {
        cell(self.kind) == b"physical"
            && self.copied.iter().all(|(_, to)| cell(*to).is_empty())
            && self.copied.iter().any(|(from, _)| !cell(*from).is_empty())
    }

    /// The place of the cell that is copied to this one.
    pub(super) fn copied_to(&self, place: usize) -> Option<usize> {
        self.copied.iter().find(|(_, to)| *to == place).map(|(from, _)| *from)
    }
}

/// What is told of a copy is told of the person's cell, and not twice: nothing else stands in the file.
pub(super) fn tell_of_person(told: &mut Vec<Problem>) {
    let own: BTreeSet<_> = told.iter().map(|problem| (problem.column.clone(), problem.code)).collect();
    told.retain_mut(|problem| {
        let copy = COPIED.iter().find(|(_, of_parcel)| *of_parcel == problem.column);
        let Some((of_person, _)) = copy else { return true };
        problem.column = (*of_person).to_owned();
        !own.contains(&(problem.column.clone(), problem.code))
    });
}
