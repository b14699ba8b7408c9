//! Rows that name no cardholder where others do: a total below the table, or rows that were filled in beforehand.
//!
//! Stripe would make a card of each. Whether others do is known once all rows were read.

use super::people::WrongBeside;
use super::plan::Good;
use super::{Problem, Severity};

/// So many rows that name nobody are kept before the first that names somebody: a file of that many has no cardholders at all.
const KEPT_MAX: usize = 100_000;

/// Whether a row names a cardholder, in a file that has a column for that.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Names {
    /// It does, or the file has no such column.
    #[default]
    Somebody,
    /// Nobody, and says other things all the same.
    Nobody,
    /// Nobody, and has nothing in it but what many rows have in common: amounts, currencies and the like.
    Nothing,
}

/// The rows so far that name nobody.
#[derive(Debug, Default)]
pub(super) struct Nobody {
    rows: Vec<(Names, Good, u64, u64)>,
    /// The line of the first row that names somebody.
    somebody: Option<u64>,
    /// Whether there are too many to be a mistake.
    are_many: bool,
}

/// What is found of them.
#[derive(Debug, Default)]
pub(super) struct OfNobody {
    pub(super) wrong: Vec<WrongBeside>,
    pub(super) odd: Vec<Problem>,
}

impl Nobody {
    pub(super) fn add(&mut self, names: Names, good: Good, (line, number): (u64, u64)) {
        if names == Names::Somebody {
            self.somebody.get_or_insert(line);
            return;
        }
        if self.rows.len() == KEPT_MAX && self.somebody.is_none() {
            self.are_many = true;
            self.rows = Vec::new();
        }
        if !self.are_many {
            self.rows.push((names, good, line, number));
        }
    }

    /// What is told of them; `duplicates` are the lines of rows that count for nothing.
    pub(super) fn findings(self, duplicates: &[u64]) -> OfNobody {
        let mut found = OfNobody::default();
        let Some(first) = self.somebody else { return found };
        let rows = self.rows.into_iter().filter(|(.., line, _)| duplicates.binary_search(line).is_err());
        for (names, good, line, number) in rows {
            let problem = |reason: String| Problem::new(line, number, "cardholder", "no_cardholder", reason);
            if names == Names::Nothing {
                let reason = format!(
                    "is empty, and nothing in the row says whose its card would be, as line {first} does: is it a total, or was it \
                     filled in beforehand? Delete the row, or write whose it is"
                );
                found.wrong.push(WrongBeside { problem: problem(reason), good, first });
            } else {
                let reason = format!("is empty: the card would be nobody's, other than that of line {first}");
                found.odd.push(Problem { severity: Severity::Warning, ..problem(reason) });
            }
        }
        found
    }
}
