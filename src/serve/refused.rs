//! The rows of a batch that were refused, out of the file that they came from: to be mended and sent again.
//!
//! The ledger knows which they are and why, and only the file has what stood in them. It is held in memory meanwhile, as any
//! upload is; what may be a PIN is left out of what comes back.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::Server;
use super::held::Held;
use super::problem::{Kind, Problem};
use crate::job;
use crate::ledger::{self, Only};
use crate::manifest::table::write_refused;
use crate::outcome::Outcome;

/// Most rows of such a file: whoever has more refused mends the whole.
const ROWS_MAX: usize = 10_000;

/// Most rows whose reasons are held meanwhile.
const REASONS_MAX: usize = 100_000;

/// Why rows were refused, by their names and, for those without, by their numbers.
#[derive(Default)]
struct Reasons {
    named: HashMap<String, Arc<str>>,
    numbered: HashMap<u64, Arc<str>>,
    /// Each reason once: many rows have the same.
    all: HashSet<Arc<str>>,
}

impl Reasons {
    /// As the ledger has them.
    async fn of(server: &Server, batch: &job::Batch) -> Result<Self, Problem> {
        let mut reasons = Self::default();
        let mut pages = server.parts.views.pages(server.scope(), batch, Only::of(ledger::Kind::Refused));
        while let Some(rows) = pages.next().await? {
            for row in rows {
                let Outcome::Refused(refusal) = row.ended().outcome else { continue };
                if reasons.named.len() + reasons.numbered.len() == REASONS_MAX {
                    let detail = format!(
                        "more than {REASONS_MAX} rows of this batch were refused: mend the file itself"
                    );
                    return Err(Problem::new(Kind::Conflict, detail));
                }
                let reason = reasons.one(said(&refusal.message, &refusal.code));
                match (row.row_id, row.row) {
                    (Some(name), _) => reasons.named.insert(name, reason),
                    (None, Some(number)) => reasons.numbered.insert(number, reason),
                    (None, None) => None,
                };
            }
        }
        Ok(reasons)
    }

    fn get(&self, name: Option<&str>, number: u64) -> Option<String> {
        let of_name = name.and_then(|name| self.named.get(name));
        of_name.or_else(|| self.numbered.get(&number)).map(ToString::to_string)
    }

    fn one(&mut self, reason: String) -> Arc<str> {
        if let Some(known) = self.all.get(reason.as_str()) {
            return known.clone();
        }
        let reason: Arc<str> = reason.into();
        self.all.insert(reason.clone());
        reason
    }
}

/// A reason as a cell that no spreadsheet takes for a formula.
fn said(message: &str, code: &str) -> String {
    let message = if message.is_empty() { code } else { message };
    let begins = message.starts_with(['=', '+', '-', '@', '\t', '\r']);
    if begins { format!("'{message}") } else { message.to_owned() }
}

/// The refused rows of the batch that the upload has, as CSV.
pub(super) async fn rows(server: &Server, batch: &job::Batch, held: Held) -> Result<Vec<u8>, Problem> {
    let reasons = Reasons::of(server, batch).await?;
    if reasons.named.is_empty() && reasons.numbered.is_empty() {
        return Err(Problem::new(Kind::Conflict, "no row of this batch was refused"));
    }
    let written = tokio::task::spawn_blocking(move || {
        let (mut csv, reading) = (Vec::new(), held.reading.clone());
        let reason_of = |name: Option<&str>, number| reasons.get(name, number);
        write_refused(held.into_reader(), &reading, reason_of, ROWS_MAX, &mut csv).map(|rows| (rows, csv))
    });
    match written.await {
        Ok(Ok((0, _))) => {
            let reason = "none of its rows is one of this batch's that were refused; is it the file that they came from?";
            Err(Problem::new(Kind::InvalidManifest, reason))
        }
        Ok(Ok((_, csv))) => Ok(csv),
        Ok(Err(error)) => {
            let error = error.to_string();
            Err(Problem::new(Kind::InvalidManifest, error.strip_prefix("upload: ").unwrap_or(&error)))
        }
        Err(_) => Err(Problem::new(Kind::Internal, "the rows could not be looked for")),
    }
}
