//! Rows and columns that a sheet has and does not show: whoever filters a list means, as often as not, the rows that are left.

use super::super::{Problem, Severity, counted};
use super::cells::column_letters;

/// Most lines that are named.
const NAMED_MAX: usize = 5;

/// The first and the last of each of several, from 0.
type Ranges = Vec<(u32, u32)>;

/// What a sheet does not show.
#[derive(Debug, Default)]
pub(super) struct Hidden {
    rows: Ranges,
    columns: Ranges,
}

impl Hidden {
    /// Adds rows, those after all before them.
    pub(super) fn add_rows(&mut self, first: u32, last: u32) {
        match self.rows.last_mut() {
            Some((_, before)) if before.saturating_add(1) >= first => *before = last.max(*before),
            _ => self.rows.push((first, last)),
        }
    }

    /// Adds columns.
    pub(super) fn add_columns(&mut self, first: u32, last: u32) {
        self.columns.push((first, last));
    }

    /// Whether a row is not shown.
    pub(super) fn has_row(&self, row: u32) -> bool {
        let after = self.rows.partition_point(|(first, _)| *first <= row);
        after.checked_sub(1).is_some_and(|at| row <= self.rows[at].1)
    }

    /// The columns that are not shown, of so many, as spreadsheets call them.
    pub(super) fn columns(&self, of: u32) -> Vec<String> {
        let is_hidden =
            |column: &u32| self.columns.iter().any(|(first, last)| (*first..=*last).contains(column));
        (0..of).filter(is_hidden).map(column_letters).collect()
    }
}

/// What is to be told of rows below the headings that are not shown, and of their lines.
pub(super) fn warning(lines: &[u64]) -> Option<Problem> {
    let first = *lines.first()?;
    let named: Vec<String> = lines.iter().take(NAMED_MAX).map(u64::to_string).collect();
    let more = if lines.len() > NAMED_MAX { " and more" } else { "" };
    let (are, they, them, line) = match lines.len() {
        1 => ("is", "it is", "it", "line"),
        _ => ("are", "they are", "them", "lines"),
    };
    let reason = format!(
        "{} {are} hidden in the spreadsheet ({line} {}{more}), by a filter perhaps, and {are} read, too; if {they} not wanted, \
         delete {them}, or copy what is shown into a new sheet",
        counted(lines.len() as u64, "row"),
        named.join(", "),
    );
    let problem = Problem::new(first, 0, "", "hidden_rows", reason);
    Some(Problem { severity: Severity::Warning, ..problem })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_and_columns_are_found_by_their_ranges() {
        let mut hidden = Hidden::default();
        [(2, 2), (3, 5), (9, 9)].into_iter().for_each(|(first, last)| hidden.add_rows(first, last));
        assert_eq!(hidden.rows, [(2, 5), (9, 9)]);
        assert!((0..12).filter(|row| hidden.has_row(*row)).eq([2, 3, 4, 5, 9]));
        hidden.add_columns(3, 16_383);
        assert_eq!(hidden.columns(5), ["D", "E"]);
        let said = warning(&[3, 4, 5, 6, 7, 8]).unwrap().reason;
        assert!(
            said.starts_with("6 rows are hidden in the spreadsheet (lines 3, 4, 5, 6, 7 and more)"),
            "{said}"
        );
    }
}
