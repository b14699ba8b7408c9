//! Whose each job is, as the manifest's own column says: for results that a person reads.
//!
//! Held in memory for as long as results are written, about a hundred bytes for each row. Never: in a job, a message or the
//! ledger, which have no use for a name.

use std::collections::HashMap;

use super::ManifestError;
use super::batch::Jobs;
use super::checked::CheckedManifest;

/// Persons by the ids of their jobs.
#[derive(Debug, Default)]
pub struct Persons(HashMap<Box<str>, Box<str>>);

impl Persons {
    /// Of a manifest's rows, named as these jobs are; reads the file, and blocks. Nobody, where no column says who it is.
    ///
    /// # Errors
    /// If the file cannot be opened again.
    pub fn of(manifest: &CheckedManifest, mut jobs: Jobs) -> Result<Self, ManifestError> {
        let mut persons = HashMap::new();
        if !manifest.manifest().names_persons() {
            return Ok(Self(persons));
        }
        for row in manifest.rows()? {
            let (id, person) = match row {
                Ok(row) => (jobs.id_of(&row).ok(), row.person),
                Err(row) => (row.job_id(jobs.batch()).ok(), row.person),
            };
            persons.extend(id.zip(person).map(|(id, person)| (id.as_str().into(), person.into())));
        }
        Ok(Self(persons))
    }

    /// Whose job this is.
    #[must_use]
    pub fn of_job(&self, id: &str) -> Option<&str> {
        self.0.get(id).map(AsRef::as_ref)
    }
}
