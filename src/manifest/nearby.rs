//! Names of new rows that are nearly those of rows that their batch had before: `7` where it was `007`.
//!
//! Such a row asks for something else than that one did, or it would have been taken for it: so it would get a card of its own.

use std::collections::HashMap;

use super::names::Hasher;
use super::recognise::Recognition;
use super::{Problem, ROW_ID, Severity};

/// Most that are told; others are counted.
const TOLD_MAX: usize = 1000;

/// Rows whose names are near others', each with a warning.
#[derive(Debug, Default)]
pub struct Near {
    /// The first of them, in the order of their lines.
    pub problems: Vec<Problem>,
    /// All of them.
    pub count: u64,
}

/// A new row.
#[derive(Debug)]
pub(super) struct Named {
    row: u64,
    line: u64,
    row_id: Box<str>,
}

/// The names of new rows of a batch.
#[derive(Default)]
pub(super) struct NamesNearby {
    hasher: Hasher,
    rows: HashMap<u64, Vec<Named>>,
    /// Whether the ledger has rows of the batch at all, once it was asked: for a new one no name is kept.
    pub(super) is_of_use: Option<bool>,
}

impl NamesNearby {
    pub(super) fn add(&mut self, row: u64, line: u64, row_id: &str) {
        if self.is_of_use == Some(true) {
            let named = Named { row, line, row_id: row_id.into() };
            self.rows.entry(self.hasher.hash(row_id).rough()).or_default().push(named);
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The rows whose names are like this one.
    pub(super) fn like(&self, row_id: &str) -> &[Named] {
        self.rows.get(&self.hasher.hash(row_id).rough()).map_or(&[], Vec::as_slice)
    }
}

impl Near {
    /// Adds those of the rows that were not taken for others.
    pub(super) fn add(&mut self, rows: &[Named], known: &str, recognition: &Recognition) {
        for Named { row, line, row_id } in rows {
            if recognition.of_row(*row).is_some() {
                continue;
            }
            self.count += 1;
            if self.problems.len() < TOLD_MAX {
                let reason = format!(
                    "differs in blanks, capitals or zeros alone from {known:?}, which this batch had before and asks for something \
                     else; if they are one, write it as it was, or there will be a second card"
                );
                let problem = Problem::new(*line, *row, ROW_ID, "near_known_row_id", reason);
                let (severity, row_id) = (Severity::Warning, Some(String::from(&**row_id)));
                self.problems.push(Problem { severity, row_id, ..problem });
            }
        }
    }
}
