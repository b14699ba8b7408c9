//! One thing that is wrong with a manifest, or may be: where it is, what stands there, and what is meant.

use serde::Serialize;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Nothing is issued before it is mended.
    Problem,
    /// It may be meant.
    Warning,
}

/// One thing that is wrong, or may be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// How bad it is.
    pub severity: Severity,
    /// The file's line, from 1.
    pub line: u64,
    /// The data row's number, from 1; 0 for the header.
    pub row: u64,
    /// The row's `row_id`, if it has one.
    pub row_id: Option<String>,
    /// The column's name.
    pub column: String,
    /// A code to switch on.
    pub code: &'static str,
    /// What is wrong.
    pub reason: String,
    /// What stands there; never where it may be a PIN.
    pub found: Option<String>,
    /// A near match.
    pub suggestion: Option<String>,
}

impl Problem {
    /// Without a suggestion.
    pub(crate) fn new(
        line: u64,
        row: u64,
        column: impl Into<String>,
        code: &'static str,
        reason: impl Into<String>,
    ) -> Self {
        let (column, reason) = (column.into(), reason.into());
        let severity = Severity::Problem;
        Self { severity, line, row, row_id: None, column, code, reason, found: None, suggestion: None }
    }
}

impl std::fmt::Display for Problem {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.severity == Severity::Warning {
            formatter.write_str("warning: ")?;
        }
        write!(formatter, "line {}", self.line)?;
        if let Some(row_id) = &self.row_id {
            write!(formatter, " ({row_id})")?;
        }
        if !self.column.is_empty() {
            write!(formatter, ", column {}", self.column)?;
        }
        formatter.write_str(": ")?;
        if let Some(found) = &self.found {
            write!(formatter, "{found:?} ")?;
        }
        formatter.write_str(&self.reason)?;
        if let Some(suggestion) = &self.suggestion {
            write!(formatter, " (did you mean {suggestion}?)")?;
        }
        Ok(())
    }
}
