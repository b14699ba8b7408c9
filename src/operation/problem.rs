//! What is wrong with one parameter of a request.

use super::kind;

/// What is wrong with one parameter.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct FieldProblem {
    /// The parameter in bracket form.
    pub path: String,
    /// A code to switch on.
    pub code: &'static str,
    /// What it must be.
    pub reason: String,
    /// A near match, if there is one.
    pub suggestion: Option<String>,
}

impl FieldProblem {
    pub(crate) fn new(path: &str, code: &'static str, reason: impl Into<String>) -> Self {
        /// A path is quoted up to here; a header cell or a member's name can be anything.
        const QUOTED_MAX: usize = 120;
        let quoted = |letter: char| if letter.is_control() { char::REPLACEMENT_CHARACTER } else { letter };
        let path = path.chars().take(QUOTED_MAX).map(quoted).collect();
        Self { path, code, reason: reason.into(), suggestion: None }
    }

    pub(crate) fn of(path: &str, wrong: kind::Wrong) -> Self {
        let kind::Wrong { code, reason, suggestion } = wrong;
        Self { suggestion, ..Self::new(path, code, reason) }
    }
}
