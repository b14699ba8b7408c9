//! What a check adds up over the rows: counts, names that stand twice, problems, the digest.
//!
//! The same for a file and for an upload, so that both come to the same verdict and the same digest.

use std::collections::HashMap;
use std::path::Path;

use sha2::{Digest, Sha256};

use super::{CheckOptions, CheckReport, InvalidRow, ManifestError, PROBLEMS_MAX, Problem, ROW_ID, Row};

/// Adds rows up, one after the other, in the manifest's order.
pub struct Checker {
    report: CheckReport,
    digest: Option<Sha256>,
    /// A name's digest, not the name: half a million names are not held. To the line it stands on.
    names: HashMap<u128, u64>,
}

impl Checker {
    /// With nothing added yet.
    #[must_use]
    pub fn new(options: &CheckOptions) -> Self {
        Self {
            report: CheckReport::default(),
            digest: options.digest.then(Sha256::new),
            names: HashMap::new(),
        }
    }

    /// Rows added so far.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.report.rows
    }

    /// Rows with problems so far.
    #[must_use]
    pub fn invalid_rows(&self) -> u64 {
        self.report.invalid_rows
    }

    /// Adds the next row.
    pub fn add(&mut self, row: &Result<Row, InvalidRow>) {
        let report = &mut self.report;
        report.rows += 1;
        let (line, number, row_id) = match row {
            Ok(row) => (row.line, row.number, row.row_id.as_deref()),
            Err(row) => (row.line, row.number, row.row_id.as_deref()),
        };
        let twice =
            row_id.and_then(|row_id| self.names.insert(name_digest(row_id), line)).map(|first| Problem {
                line,
                row: number,
                column: ROW_ID.into(),
                code: "duplicate_row_id",
                reason: format!("the same row_id as on line {first}; each row needs its own"),
                suggestion: None,
            });
        let problems: &[Problem] = match row {
            Ok(row) => {
                report.pins += u64::from(row.pin.is_some());
                match row.card.kind() {
                    "physical" => report.physical += 1,
                    _ => report.r#virtual += 1,
                }
                if let Some(digest) = &mut self.digest {
                    digest.update(row.row_id.as_deref().unwrap_or("").as_bytes());
                    digest.update(row.card.fingerprint());
                }
                &[]
            }
            Err(row) => &row.problems,
        };
        if problems.is_empty() && twice.is_none() {
            return;
        }
        report.invalid_rows += 1;
        report.problem_count += problems.len() as u64 + u64::from(twice.is_some());
        let room = PROBLEMS_MAX.saturating_sub(report.problems.len());
        report.problems.extend(problems.iter().cloned().chain(twice).take(room));
    }

    /// The report over all of them.
    ///
    /// # Errors
    /// If there was no row.
    pub fn finish(self, path: &Path) -> Result<CheckReport, ManifestError> {
        let Self { mut report, digest, .. } = self;
        if report.rows == 0 {
            return Err(ManifestError::Shape {
                path: path.into(),
                reason: "there is a header but no row".into(),
            });
        }
        report.digest = digest.map(|digest| digest.finalize().into());
        Ok(report)
    }
}

fn name_digest(name: &str) -> u128 {
    let digest = Sha256::digest(name.as_bytes());
    u128::from_be_bytes(digest[..16].try_into().expect("SHA-256 has 32 bytes"))
}
