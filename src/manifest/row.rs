//! A row of a manifest: one that can be a job, and one that cannot.

use super::likeness::Likeness;
use super::{Problem, ROW_ID, UNREADABLE};
use crate::content::Content;
use crate::job::{Batch, JobId, NameError};
use crate::operation::Request;
use crate::pin::PinJwe;

/// A row that can be a job.
#[derive(Debug)]
pub struct Row {
    /// The data row's number, from 1.
    pub number: u64,
    /// Its line in the file, from 1.
    pub line: u64,
    /// Its name, if the manifest has them.
    pub row_id: Option<String>,
    /// The cardholder to create first, if its card is for one who is not known yet.
    pub first: Option<Request>,
    /// What to ask Stripe for.
    pub request: Request,
    /// The encrypted PIN.
    pub pin: Option<PinJwe>,
    /// Whose it is, by the columns that were named for that.
    pub person: Option<String>,
    /// Whether its card is sent to its person's own address because the columns file says so.
    pub(super) to_own_address: bool,
    /// What may be wrong with it.
    pub warnings: Vec<Problem>,
    /// What tells rows that ask for the same.
    pub(super) likeness: Likeness,
}

impl Row {
    /// On a line, with a number: what it asks for first, and last, which has the PIN.
    pub(super) fn new(
        (line, number): (u64, u64),
        row_id: Option<String>,
        (first, mut request): (Option<Request>, Request),
    ) -> Self {
        let pin = request.take_pin();
        let (warnings, likeness) = (Vec::new(), Likeness::default());
        let (person, to_own_address) = (None, false);
        Self { number, line, row_id, first, request, pin, person, to_own_address, warnings, likeness }
    }

    /// What is asked for, without the PIN and however it is spelt.
    #[must_use]
    pub fn content(&self) -> Content {
        self.request.content(self.first.as_ref())
    }

    /// Its name and what is asked for, without the PIN, as they are written: what a manifest's digest is made of.
    pub(super) fn digest(&self, mut add: impl FnMut(&[u8])) {
        add(self.row_id.as_deref().unwrap_or_default().as_bytes());
        self.first.iter().chain([&self.request]).for_each(|request| add(&request.fingerprint()));
    }
}

/// A row that cannot.
#[derive(Debug)]
pub struct InvalidRow {
    /// The data row's number, from 1.
    pub number: u64,
    /// Its line in the file, from 1.
    pub line: u64,
    /// Its name, if it could be read.
    pub row_id: Option<String>,
    /// Whose it is, by the columns that were named for that.
    pub person: Option<String>,
    /// Why.
    pub problems: Vec<Problem>,
    /// What may be wrong with it besides.
    pub warnings: Vec<Problem>,
}

impl InvalidRow {
    /// One whose name makes no job id together with its batch's.
    #[must_use]
    pub fn without_id(number: u64, line: u64, row_id: Option<String>, error: &NameError) -> Self {
        let reason = format!("together with the batch's name it makes a job id that {error}");
        let problem = Problem::new(line, number, ROW_ID, ROW_ID, reason);
        Self { number, line, row_id, problems: vec![problem], warnings: Vec::new(), person: None }
    }

    /// The id that stands for it in results.
    ///
    /// # Errors
    /// If batch and name together make no job id.
    pub fn job_id(&self, batch: &Batch) -> Result<JobId, NameError> {
        match &self.row_id {
            Some(row_id) => JobId::of_row(batch, row_id),
            None => JobId::of_row(batch, &format!("row {}", self.number)),
        }
    }

    /// Why nothing after it can be read, if that is what is wrong: then it is no row, but the end of the file as far as
    /// it is known.
    #[must_use]
    pub fn unreadable(&self) -> Option<&str> {
        self.problems.iter().find(|problem| problem.code == UNREADABLE).map(|problem| problem.reason.as_str())
    }
}
