//! A manifest after its check: its rows without those that are wrong only beside others.
//!
//! A row is read and judged alone; that its name, or its person's e-mail address, stands in another row too is known once all
//! were read. Whoever issues the rows that are right must leave out those, too.

use std::sync::Arc;

use super::{CheckReport, InvalidRow, Manifest, ManifestError, Problem, Row};

/// A manifest, and what its check found of rows beside others. Clones are the same one.
#[derive(Debug, Clone)]
pub struct CheckedManifest {
    manifest: Arc<Manifest>,
    excluded: Arc<[Excluded]>,
}

/// A row that is wrong beside others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Excluded {
    /// The data row's number, from 1.
    pub number: u64,
    /// Its line.
    pub line: u64,
    /// The problem's code.
    pub code: &'static str,
    /// The line of the row that it does not go together with.
    pub first: u64,
}

impl CheckedManifest {
    /// A manifest as this report judged it.
    #[must_use]
    pub fn new(manifest: Arc<Manifest>, report: &CheckReport) -> Self {
        Self { manifest, excluded: report.excluded.as_slice().into() }
    }

    /// The manifest.
    #[must_use]
    pub fn manifest(&self) -> &Arc<Manifest> {
        &self.manifest
    }

    /// The rows, from the first; blocks on the file.
    ///
    /// # Errors
    /// If the file cannot be opened again.
    pub fn rows(&self) -> Result<impl Iterator<Item = Result<Row, InvalidRow>> + use<'_>, ManifestError> {
        Ok(self.manifest.rows()?.map(|row| self.judged(row?)))
    }

    /// A row that is right alone.
    fn judged(&self, row: Row) -> Result<Row, InvalidRow> {
        let Ok(at) = self.excluded.binary_search_by_key(&row.number, |excluded| excluded.number) else {
            return Ok(row);
        };
        let Excluded { code, first, .. } = self.excluded[at];
        let reason = format!("does not go together with line {first}; `embosser check` says why");
        let Row { number, line, row_id, person, warnings, .. } = row;
        let problems = vec![Problem::new(line, number, "", code, reason)];
        Err(InvalidRow { number, line, row_id, person, problems, warnings })
    }
}
