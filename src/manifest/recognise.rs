//! Which rows of a manifest are known under other names: the file was renamed, a spreadsheet changed the row ids, a row
//! was put in at the top.
//!
//! A row's id names its card, so the same people under other ids would all get second cards. What tells them is what is
//! asked for: a row whose id the ledger does not know, and whose content it knows under an id that this manifest does not
//! have, is taken for that one. It goes on under the id that it had, and so keeps its card. One known id serves one row:
//! two equal rows are two cards.

use std::cmp::Reverse;
use std::collections::{HashMap, HashSet};
use std::hash::BuildHasher as _;

use tokio::runtime::Handle;

use super::batch::RowNames;
use super::{InvalidRow, Row};
use crate::clock::Time;
use crate::job::{Batch, Content, JobId, Step};
use crate::ledger::{Kind, Ledger, LedgerError, SameContent, Scope};

/// Rows that are asked about in one question.
const ASKED_AT_ONCE: usize = 512;

/// A row that is known under another id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recognised {
    /// The data row's number, from 1.
    pub row: u64,
    /// Its `row_id`, if it has one.
    pub row_id: Option<String>,
    /// The id that it is known under.
    pub id: JobId,
    /// The batch that this is of.
    pub batch: Batch,
    /// Its `row_id` there.
    pub known_row_id: Option<String>,
    /// Whether it has its card.
    pub kind: Kind,
    /// When that was written.
    pub written: Time,
}

impl Recognised {
    /// What stands beside the row's end.
    #[must_use]
    pub fn note(&self) -> String {
        let day = jiff::Timestamp::from_millisecond(self.written.unix_ms())
            .map_or_else(|_| "an unknown day".to_owned(), |day| day.strftime("%Y-%m-%d").to_string());
        let known = match &self.known_row_id {
            Some(row_id) => format!("{row_id} of batch {}", self.batch),
            None => self.id.to_string(),
        };
        let state = if self.kind == Kind::Issued { "issued" } else { "begun" };
        format!("{state} before as {known}, on {day}; no second card was made")
    }
}

/// The rows of a manifest that are known under other ids.
#[derive(Debug, Default)]
pub struct Recognition {
    by_row: HashMap<u64, Recognised>,
    /// Rows that were asked about.
    pub rows: u64,
}

impl Recognition {
    /// What a row is known as.
    #[must_use]
    pub fn of_row(&self, row: u64) -> Option<&Recognised> {
        self.by_row.get(&row)
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.by_row.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_row.is_empty()
    }

    /// All of them, in the manifest's order.
    #[must_use]
    pub fn rows_in_order(&self) -> Vec<&Recognised> {
        let mut all: Vec<_> = self.by_row.values().collect();
        all.sort_unstable_by_key(|recognised| recognised.row);
        all
    }

    /// The other batch, if every row was issued before as one of it: then this is that batch under another name.
    #[must_use]
    pub fn is_wholly(&self, batch: &Batch) -> Option<&Batch> {
        let of_other =
            |recognised: &Recognised| recognised.kind == Kind::Issued && recognised.batch != *batch;
        let first = self.by_row.values().min_by_key(|recognised| recognised.row)?;
        (self.by_row.len() as u64 == self.rows && self.by_row.values().all(of_other)).then_some(&first.batch)
    }
}

/// A row whose id is not known.
struct Unknown {
    row: u64,
    row_id: Option<String>,
    content: Content,
}

/// Looks rows up as they are read; blocks on the ledger.
pub struct Recogniser {
    ledger: Ledger,
    scope: Scope,
    batch: Batch,
    runtime: Handle,
    names: RowNames,
    page: Vec<(JobId, Content, Unknown)>,
    hasher: std::hash::RandomState,
    /// Hashes of the ids of this manifest. Two that are alike, of some 2^64, would leave one row out of the comparison.
    ids: HashSet<u64>,
    unknown: Vec<Unknown>,
    known: HashMap<Content, Vec<SameContent>>,
    rows: u64,
}

impl Recogniser {
    /// For the rows of a batch, in their order.
    #[must_use]
    pub fn new(ledger: Ledger, scope: Scope, batch: Batch, runtime: Handle) -> Self {
        Self {
            names: RowNames::new(batch.clone()),
            ledger,
            scope,
            batch,
            runtime,
            page: Vec::with_capacity(ASKED_AT_ONCE),
            hasher: std::hash::RandomState::new(),
            ids: HashSet::new(),
            unknown: Vec::new(),
            known: HashMap::new(),
            rows: 0,
        }
    }

    /// Adds a row.
    ///
    /// # Errors
    /// If the ledger cannot be read.
    pub fn add(&mut self, row: &Result<Row, InvalidRow>) -> Result<(), LedgerError> {
        let Ok(row) = row else { return Ok(()) };
        self.rows += 1;
        let content = row.card.content();
        // A row that makes no id is told where its job is made.
        let Ok(id) = self.names.id_of(row, content) else { return Ok(()) };
        self.ids.insert(self.hasher.hash_one(&id));
        let mut former = [0; 16];
        former.copy_from_slice(&row.card.fingerprint()[..16]);
        let unknown = Unknown { row: row.number, row_id: row.row_id.clone(), content };
        self.page.push((id, Content(former), unknown));
        if self.page.len() >= ASKED_AT_ONCE {
            self.ask()?;
        }
        Ok(())
    }

    fn ask(&mut self) -> Result<(), LedgerError> {
        let page = std::mem::take(&mut self.page);
        let ids = page.iter().map(|(id, ..)| (id.clone(), Step::CreateCard)).collect();
        let rows = self.runtime.block_on(self.ledger.look_up_all(&self.scope, ids))?;
        let unknown: Vec<_> =
            page.into_iter().zip(rows).filter(|(_, row)| row.is_none()).map(|(asked, _)| asked).collect();
        let mut of_former = HashMap::new();
        let mut contents = Vec::with_capacity(2 * unknown.len());
        for (_, former, unknown) in &unknown {
            contents.extend([unknown.content, *former]);
            of_former.insert(*former, unknown.content);
        }
        contents.sort_unstable();
        contents.dedup();
        for same in self.runtime.block_on(self.ledger.same_content(&self.scope, contents))? {
            let content = of_former.get(&same.content).copied().unwrap_or(same.content);
            let known = self.known.entry(content).or_default();
            if !known.iter().any(|known| known.id == same.id) {
                known.push(same);
            }
        }
        let known = &self.known;
        self.unknown.extend(
            unknown
                .into_iter()
                .map(|(.., unknown)| unknown)
                .filter(|unknown| known.contains_key(&unknown.content)),
        );
        Ok(())
    }

    /// Once every row was added.
    ///
    /// # Errors
    /// If the ledger cannot be read.
    pub fn finish(mut self) -> Result<Recognition, LedgerError> {
        self.ask()?;
        let Self { batch, hasher, ids, unknown, mut known, rows, .. } = self;
        for same in known.values_mut() {
            // An id that this manifest has is that row's.
            same.retain(|same| !ids.contains(&hasher.hash_one(&same.id)));
            // Taken from the end: this batch's own first, and then the earliest.
            same.sort_by_key(|same| (same.batch == batch, Reverse(same.written), Reverse(same.id.clone())));
        }
        let mut by_row = HashMap::new();
        for Unknown { row, row_id, content } in unknown {
            let Some(same) = known.get_mut(&content).and_then(Vec::pop) else { continue };
            let SameContent { id, batch, row_id: known_row_id, kind, written, .. } = same;
            by_row.insert(row, Recognised { row, row_id, id, batch, known_row_id, kind, written });
        }
        Ok(Recognition { by_row, rows })
    }
}
