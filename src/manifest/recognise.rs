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

use super::batch::{RowNames, SecondCards};
use super::{InvalidRow, Row};
use crate::clock::Time;
use crate::job::{Batch, Content, JobId, Step};
use crate::ledger::{self, Kind, Ledger, LedgerError, SameContent, Scope, State};

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

/// What a ledger knows of the rows of a manifest.
#[derive(Debug, Default)]
pub struct Recognition {
    by_row: HashMap<u64, Recognised>,
    /// Rows that were asked about.
    pub rows: u64,
    /// Those that are known under their own ids.
    pub present: Present,
    /// What the others ask for that are not known under other ids either: a piece of each one's content, in order. Of half a
    /// million rows these are 4 MB.
    new: Vec<u64>,
}

/// Rows that the ledger knows under their own ids, by what it says of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Present {
    /// With a card.
    pub issued: u64,
    /// Without one.
    pub refused: u64,
    /// Begun, and their end is not known.
    pub begun: u64,
    /// Those of all that have a note.
    pub noted: u64,
}

impl Present {
    fn add(&mut self, row: &ledger::Row) {
        self.noted += u64::from(row.note.is_some());
        match &row.state {
            State::Issued(_) => self.issued += 1,
            State::Refused(_) => self.refused += 1,
            State::Begun => self.begun += 1,
        }
    }
}

/// What tells one content from others well enough to find that two batches share rows.
fn piece_of(content: Content) -> u64 {
    let mut piece = [0; 8];
    piece.copy_from_slice(&content.0[..8]);
    u64::from_be_bytes(piece)
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
        let other = &self.by_row.values().next()?.batch;
        let of_other =
            |recognised: &Recognised| recognised.kind == Kind::Issued && recognised.batch == *other;
        let is_all = self.by_row.len() as u64 == self.rows && self.by_row.values().all(of_other);
        (is_all && other != batch).then_some(other)
    }

    /// Rows that will have a row in the ledger of their own, which they have not yet.
    #[must_use]
    pub fn new_rows(&self) -> u64 {
        self.new.len() as u64
    }

    /// How many rows of both are new and ask for the same.
    #[must_use]
    pub fn shares_with(&self, other: &Self) -> u64 {
        let (mut ours, mut theirs) = (self.new.iter().peekable(), other.new.iter().peekable());
        let mut shared = 0;
        while let (Some(our), Some(their)) = (ours.peek(), theirs.peek()) {
            let order = our.cmp(their);
            shared += u64::from(order.is_eq());
            if order.is_le() {
                ours.next();
            }
            if order.is_ge() {
                theirs.next();
            }
        }
        shared
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
    /// Pieces of the contents that were asked about: equal rows are one question.
    looked_up: HashSet<u64>,
    second: SecondCards,
    recognition: Recognition,
}

impl Recogniser {
    /// For the rows of a batch, in their order. Where second cards are wanted, none is taken for one that is known under
    /// another id.
    #[must_use]
    pub fn new(ledger: Ledger, scope: Scope, batch: Batch, second: SecondCards, runtime: Handle) -> Self {
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
            looked_up: HashSet::new(),
            second,
            recognition: Recognition::default(),
        }
    }

    /// Adds a row.
    ///
    /// # Errors
    /// If the ledger cannot be read.
    pub fn add(&mut self, row: &Result<Row, InvalidRow>) -> Result<(), LedgerError> {
        let Ok(row) = row else { return Ok(()) };
        self.recognition.rows += 1;
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
        let mut unknown = Vec::with_capacity(page.len());
        for (row, known) in page.into_iter().zip(rows) {
            match known {
                Some(known) => self.recognition.present.add(&known),
                None => unknown.push(row),
            }
        }
        self.recognition.new.extend(unknown.iter().map(|(.., unknown)| piece_of(unknown.content)));
        if self.second == SecondCards::Wanted {
            return Ok(());
        }
        let mut of_former = HashMap::new();
        let mut contents = Vec::with_capacity(2 * unknown.len());
        for (_, former, unknown) in &unknown {
            contents.extend([unknown.content, *former]);
            of_former.insert(*former, unknown.content);
        }
        contents.sort_unstable();
        contents.dedup();
        contents.retain(|content| self.looked_up.insert(piece_of(*content)));
        for same in self.runtime.block_on(self.ledger.same_content(&self.scope, contents))? {
            let content = of_former.get(&same.content).copied().unwrap_or(same.content);
            self.known.entry(content).or_default().push(same);
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
        let Self { batch, hasher, ids, unknown, mut known, mut recognition, .. } = self;
        for same in known.values_mut() {
            // An id that this manifest has is that row's.
            let mut seen = HashSet::new();
            same.retain(|same| !ids.contains(&hasher.hash_one(&same.id)) && seen.insert(same.id.clone()));
            // Taken from the end: this batch's own first, and then the earliest.
            same.sort_by_key(|same| (same.batch == batch, Reverse(same.written), Reverse(same.id.clone())));
        }
        let mut known_elsewhere = Vec::new();
        for Unknown { row, row_id, content } in unknown {
            let Some(same) = known.get_mut(&content).and_then(Vec::pop) else { continue };
            let SameContent { id, batch, row_id: known_row_id, kind, written, .. } = same;
            let recognised = Recognised { row, row_id, id, batch, known_row_id, kind, written };
            recognition.by_row.insert(row, recognised);
            known_elsewhere.push(piece_of(content));
        }
        // Of each that is known elsewhere one is not new.
        known_elsewhere.sort_unstable();
        recognition.new.sort_unstable();
        let mut known_elsewhere = known_elsewhere.into_iter().peekable();
        recognition.new.retain(|piece| known_elsewhere.next_if_eq(piece).is_none());
        Ok(recognition)
    }
}
