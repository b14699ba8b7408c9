//! Which rows of a manifest are known under other names: the file was renamed, a spreadsheet changed the row ids, a row
//! was put in at the top.
//!
//! A row's id names its card, so the same people under other ids would all get second cards. What tells them is what is
//! asked for: a row whose id the ledger does not know, or knows as refused, and whose content it knows under an id that this
//! manifest does not have, is taken for that one. It goes on under the id that it had, and so keeps its card. One known id
//! serves one row: two equal rows are two cards.

use std::cmp::Reverse;
use std::collections::{HashMap, HashSet};

use tokio::runtime::Handle;

use super::batch::{RowNames, SecondCards};
use super::ids::Ids;
use super::known::{Changed, Others};
use super::nearby::{NamesNearby, Near};
use super::recognised::Recognised;
use super::work::{Asks, Settled, Work};
use super::{CheckReport, InvalidRow, Row};
use crate::job::{Batch, Content, JobId, Step};
use crate::ledger::{Kind, Ledger, LedgerError, Only, SameContent, Scope};
use crate::operation::Operation;
use crate::remedy::TryAgain;

/// Rows that are asked about in one question. The allocator gives answers for hundreds of rows back late, as they are large and
/// made on another thread: with 512 an upload of any size took 10 MB more.
const LOOKED_UP_AT_ONCE: usize = 64;

/// What a ledger knows of the rows of a manifest.
#[derive(Debug, Default)]
pub struct Recognition {
    by_row: HashMap<u64, Recognised>,
    /// Rows that were asked about.
    pub rows: u64,
    /// Rows that the ledger has in the manifest's batch already: under their own ids, or recognised there.
    present: u64,
    /// Rows that have their card under their own ids.
    done: u64,
    changed: Changed,
    /// Which rows that were refused are tried again.
    again: TryAgain,
    /// Rows that were refused under their own ids, and are not.
    stay_refused: u64,
    /// What of them all needs no call.
    settled: Settled,
    /// Rows that the ledger has under no id.
    new: u64,
    /// The ids that they have in the ledger or will have.
    ids: Ids,
    near: Near,
    /// What the rows ask for that may get a card of their own: a piece of each one's content, in order. Of half a million
    /// rows these are 4 MB.
    wanted: Vec<u64>,
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

    /// The batch that every row was issued before as one of, under another id, if there is one.
    #[must_use]
    pub fn issued_as(&self) -> Option<&Batch> {
        let other = &self.by_row.values().next()?.batch;
        let of_other = |recognised: &Recognised| recognised.kind == Kind::Done && recognised.batch == *other;
        let is_all = self.by_row.len() as u64 == self.rows && self.by_row.values().all(of_other);
        is_all.then_some(other)
    }

    /// The other batch, if every row was issued before as one of it: then this is that batch under another name.
    #[must_use]
    pub fn is_wholly(&self, batch: &Batch) -> Option<&Batch> {
        self.issued_as().filter(|other| *other != batch)
    }

    /// What is left to be done of a manifest with that report; and what second cards would be beside that.
    #[must_use]
    pub fn left_of(&self, report: &CheckReport) -> (Work, Work) {
        (Work::of(report).without(self.settled.work()), self.settled.second())
    }

    /// Rows that the ledger has in the manifest's batch already.
    #[must_use]
    pub fn rows_present(&self) -> u64 {
        self.present
    }

    /// Rows that have their card under their own ids: nothing is called for them.
    #[must_use]
    pub fn rows_done(&self) -> u64 {
        self.done
    }

    /// Which of the rows that were refused are tried again.
    #[must_use]
    pub fn again(&self) -> TryAgain {
        self.again
    }

    /// Rows that were refused, and stay so: nothing is called for them.
    #[must_use]
    pub fn rows_that_stay_refused(&self) -> u64 {
        self.stay_refused
    }

    /// Rows that ask for something else than what they had before under their own ids.
    #[must_use]
    pub fn changed(&self) -> &Changed {
        &self.changed
    }

    /// Rows that the ledger does not know, and whose names are nearly those of rows that this batch had before.
    #[must_use]
    pub fn near(&self) -> &Near {
        &self.near
    }

    /// Rows that have a row in the ledger as part of the manifest's batch, or will have.
    #[must_use]
    pub fn rows_of_batch(&self) -> u64 {
        self.present + self.new
    }

    /// The batch's rows that the ledger has and the manifest has not, as they are now. Another process may be issuing this
    /// very manifest, so that counts of two moments cannot tell: each row that is written between them would be one too many.
    ///
    /// # Errors
    /// If the ledger cannot be read.
    pub async fn others(&self, ledger: &Ledger, scope: &Scope, batch: &Batch) -> Result<Others, LedgerError> {
        let counts = ledger.counts_of(scope, batch).await?;
        let mut others =
            Others { latest: counts.as_ref().and_then(|counts| counts.latest), ..Others::default() };
        let known = counts.map_or(0, |counts| counts.known());
        // No row is ever taken out: if all that are there were there before, all of them are the manifest's.
        if known == self.present {
            return Ok(others);
        }
        let mut pages = ledger.pages(scope, batch, Only::default());
        while let Some(page) = pages.next().await? {
            for row in page.iter().filter(|row| !self.ids.has(&row.id)) {
                others.rows.add(row);
            }
        }
        Ok(others)
    }

    /// How many rows of both may get a card of their own and ask for the same.
    #[must_use]
    pub fn shares_with(&self, other: &Self) -> u64 {
        let (mut ours, mut theirs) = (self.wanted.iter().peekable(), other.wanted.iter().peekable());
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

/// A row that has no card under its own id, and whose call is not begun there.
struct Unknown {
    row: u64,
    line: u64,
    row_id: Option<String>,
    content: Content,
    /// Whether the ledger has no row of that id.
    is_new: bool,
    asks: Asks,
}

/// Looks rows up as they are read; blocks on the ledger.
pub struct Recogniser {
    ledger: Ledger,
    scope: Scope,
    batch: Batch,
    runtime: Handle,
    names: RowNames,
    /// With the other contents that the ledger may have a row under: a former version's, those of a mistaken reading, and those of
    /// dates and numbers in other forms.
    page: Vec<(JobId, Vec<Content>, Unknown)>,
    ids: Ids,
    unknown: Vec<Unknown>,
    known: HashMap<Content, Vec<SameContent>>,
    /// Of each row's contents that were asked about: equal rows are one question.
    looked_up: HashSet<u64>,
    second: SecondCards,
    /// What the rows are about, as the latest told.
    operation: Operation,
    names_nearby: NamesNearby,
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
            page: Vec::with_capacity(LOOKED_UP_AT_ONCE),
            ids: Ids::default(),
            unknown: Vec::new(),
            known: HashMap::new(),
            looked_up: HashSet::new(),
            second,
            operation: Operation::CreateCard,
            names_nearby: NamesNearby::default(),
            recognition: Recognition::default(),
        }
    }

    /// For an upload with which not all rows that were refused are tried again.
    #[must_use]
    pub fn trying(mut self, again: TryAgain) -> Self {
        self.recognition.again = again;
        self
    }

    /// Adds a row.
    ///
    /// # Errors
    /// If the ledger cannot be read.
    pub fn add(&mut self, row: &Result<Row, InvalidRow>) -> Result<(), LedgerError> {
        let Ok(row) = row else { return Ok(()) };
        self.recognition.rows += 1;
        self.operation = row.request.operation();
        let content = row.content();
        // A row that makes no id is told where its job is made.
        let Ok(id) = self.names.id_of(row, || content) else { return Ok(()) };
        self.ids.add(&id);
        let mut former = Content([0; 16]);
        former.0.copy_from_slice(&row.request.fingerprint()[..16]);
        let mut others = super::misread::contents(row);
        others.extend(super::respelt::contents(row));
        others.push(former);
        let (row_id, asks) = (row.row_id.clone(), Asks::of(row));
        let unknown = Unknown { row: row.number, line: row.line, row_id, content, is_new: true, asks };
        self.page.push((id, others, unknown));
        if self.page.len() >= LOOKED_UP_AT_ONCE {
            self.ask()?;
        }
        Ok(())
    }

    fn ask(&mut self) -> Result<(), LedgerError> {
        let page = std::mem::take(&mut self.page);
        let ids = page.iter().map(|(id, ..)| (id.clone(), Step::Last(self.operation))).collect();
        let rows = self.runtime.block_on(self.ledger.look_up_all(&self.scope, ids))?;
        let mut unknown = Vec::with_capacity(page.len());
        for (mut row, known) in page.into_iter().zip(rows) {
            let kind = known.as_ref().map(|known| known.state.kind());
            self.recognition.present += u64::from(kind.is_some());
            match kind {
                Some(kind @ (Kind::Done | Kind::Begun | Kind::AwaitingPin)) => {
                    if kind == Kind::Done {
                        self.recognition.done += 1;
                        self.recognition.settled.add(row.2.asks);
                    }
                    // The same change may well be wanted again, and be another each time.
                    let asks_for = |content: Content| row.2.content == content || row.1.contains(&content);
                    if self.operation != Operation::UpdateCard
                        && known.is_some_and(|known| !asks_for(known.content))
                    {
                        self.recognition.changed.add(row.2.row_id.as_deref(), &row.0);
                    }
                    continue;
                }
                Some(Kind::Refused)
                    if known.as_ref().is_some_and(|known| known.stays_refused(self.recognition.again)) =>
                {
                    self.recognition.stay_refused += 1;
                    self.recognition.settled.add(row.2.asks);
                    continue;
                }
                // It may have been issued under another name since.
                Some(Kind::Refused) => row.2.is_new = false,
                None => {
                    self.recognition.new += 1;
                    self.add_name(&row.2)?;
                }
            }
            // The same change may well be wanted again: a card is blocked, unblocked and blocked.
            if self.operation == Operation::UpdateCard {
                continue;
            }
            self.recognition.wanted.push(piece_of(row.2.content));
            unknown.push(row);
        }
        if self.second == SecondCards::Wanted {
            return Ok(());
        }
        let mut of_other = HashMap::new();
        let mut contents = Vec::with_capacity(2 * unknown.len());
        for (_, others, unknown) in &unknown {
            of_other.extend(others.iter().map(|other| (*other, unknown.content)));
            // One number for all, as they go together.
            let start = piece_of(unknown.content);
            let all = others.iter().fold(start, |all, other| all.rotate_left(1) ^ piece_of(*other));
            if self.looked_up.insert(all) {
                contents.push(unknown.content);
                contents.extend_from_slice(others);
            }
        }
        // A row's own content is no other row's, though that may be one that was misread.
        of_other.extend(unknown.iter().map(|(.., unknown)| (unknown.content, unknown.content)));
        contents.sort_unstable();
        contents.dedup();
        for same in self.runtime.block_on(self.ledger.same_content(&self.scope, contents))? {
            let content = of_other.get(&same.content).copied().unwrap_or(same.content);
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

    /// Remembers the name of a row that the ledger does not know, if it knows the batch.
    fn add_name(&mut self, row: &Unknown) -> Result<(), LedgerError> {
        let Some(row_id) = &row.row_id else { return Ok(()) };
        if self.names_nearby.is_of_use.is_none() {
            let some = self.ledger.batch_page(&self.scope, &self.batch, None, Only::default(), 1);
            self.names_nearby.is_of_use = Some(!self.runtime.block_on(some)?.is_empty());
        }
        self.names_nearby.add(row.row, row.line, row_id);
        Ok(())
    }

    /// Rows of the batch in the ledger whose names are nearly those of new ones.
    fn near(&self, recognition: &Recognition) -> Result<Near, LedgerError> {
        let mut near = Near::default();
        if self.names_nearby.is_empty() {
            return Ok(near);
        }
        let mut pages = self.ledger.pages(&self.scope, &self.batch, Only::default());
        while let Some(page) = self.runtime.block_on(pages.next())? {
            for known in page.iter().filter(|known| !recognition.ids.has(&known.id)) {
                let Some(row_id) = &known.row_id else { continue };
                near.add(self.names_nearby.like(row_id), row_id, recognition);
            }
        }
        near.problems.sort_by_key(|problem| problem.line);
        Ok(near)
    }

    /// Once every row was added.
    ///
    /// # Errors
    /// If the ledger cannot be read.
    pub fn finish(mut self) -> Result<Recognition, LedgerError> {
        self.ask()?;
        let (batch, mut ids) = (self.batch.clone(), std::mem::take(&mut self.ids));
        let (unknown, mut known) = (std::mem::take(&mut self.unknown), std::mem::take(&mut self.known));
        let mut recognition = std::mem::take(&mut self.recognition);
        ids.sort();
        for same in known.values_mut() {
            // An id that this manifest has is that row's.
            let mut seen = HashSet::new();
            same.retain(|same| !ids.has(&same.id) && seen.insert(same.id.clone()));
            // Taken from the end: this batch's own first, and then the earliest.
            same.sort_by_key(|same| (same.batch == batch, Reverse(same.written), Reverse(same.id.clone())));
        }
        let mut known_elsewhere = Vec::new();
        for Unknown { row, row_id, content, is_new, asks, .. } in unknown {
            let Some(same) = known.get_mut(&content).and_then(Vec::pop) else { continue };
            let SameContent { id, batch: known_batch, row_id: known_row_id, kind, written, .. } = same;
            if known_batch == batch {
                recognition.present += 1;
                ids.add(&id);
            }
            recognition.new -= u64::from(is_new);
            recognition.settled.add_known(asks);
            known_elsewhere.push(piece_of(content));
            let recognised = Recognised { row, row_id, id, batch: known_batch, known_row_id, kind, written };
            recognition.by_row.insert(row, recognised);
        }
        // Of each that is known elsewhere one gets no card of its own.
        known_elsewhere.sort_unstable();
        recognition.wanted.sort_unstable();
        let mut known_elsewhere = known_elsewhere.into_iter().peekable();
        recognition.wanted.retain(|piece| known_elsewhere.next_if_eq(piece).is_none());
        recognition.settled.close();
        ids.sort();
        recognition.ids = ids;
        recognition.near = self.near(&recognition)?;
        Ok(recognition)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;
    use crate::job::Job;
    use crate::ledger::{Conclude, Row as LedgerRow, State};
    use crate::manifest::{Manifest, Reading};
    use crate::operation::Request;
    use crate::outcome::Refusal;

    /// Rows that another process writes after they were looked up here are the manifest's all the same.
    #[tokio::test(flavor = "multi_thread")]
    async fn what_is_issued_elsewhere_meanwhile_is_no_other_row() {
        let directory = tempfile::tempdir().unwrap();
        let url = format!("sqlite://{}", directory.path().join("l.db").display());
        let ledger = Ledger::open(&url).await.unwrap();
        let (scope, batch) = (Scope::new("test", "here", None), Batch::new("staff").unwrap());
        let write = async |row_id: &str| {
            let id = JobId::of_row(&batch, row_id).unwrap();
            let pairs = [("cardholder", "ich_9"), ("type", "virtual"), ("currency", "eur")];
            let pairs = pairs.map(|(path, value)| (path.to_owned(), value.to_owned())).into();
            let card = Request::from_pairs(Operation::CreateCard, pairs).unwrap();
            let job = Job::new(id, batch.clone(), None, card, None);
            let state = State::Refused(Refusal::own("stale_key", "encrypt again"));
            let row = LedgerRow::of(&scope, &job, state, crate::clock::Time::from_unix_ms(1));
            assert!(matches!(ledger.conclude(row, None).await.unwrap(), Conclude::Written(_)));
        };
        write("earlier").await;
        write("a").await;
        let recognise = async |again: TryAgain| {
            let text = "row_id,cardholder,type,currency\na,ich_1,virtual,eur\nb,ich_2,virtual,eur\n";
            let (ledger, scope, batch) = (ledger.clone(), scope.clone(), batch.clone());
            let recognising = Recogniser::new(ledger, scope, batch, SecondCards::Refused, Handle::current());
            let recognition = tokio::task::spawn_blocking(move || {
                let mut recognising = recognising.trying(again);
                let manifest =
                    Manifest::read("staff.csv".as_ref(), text.as_bytes(), &Reading::default()).unwrap();
                manifest.rows().for_each(|row| recognising.add(&row).unwrap());
                recognising.finish().unwrap()
            });
            recognition.await.unwrap()
        };
        // A row that stays refused has ended when its run begins, as the batch's others have.
        let retry = recognise(TryAgain::Unchanged).await;
        let others = retry.others(&ledger, &scope, &batch).await.unwrap();
        assert_eq!(retry.rows_that_stay_refused(), 1);
        assert_eq!((others.begins(&retry).rows, others.begins(&retry).others_refused), (3, 2));
        let recognition = recognise(TryAgain::All).await;
        let others = recognition.others(&ledger, &scope, &batch).await.unwrap();
        assert_eq!((others.begins(&recognition).rows, others.begins(&recognition).others_refused), (3, 1));
        write("b").await;
        let others = recognition.others(&ledger, &scope, &batch).await.unwrap();
        assert_eq!((others.rows.rows(), others.rows.refused, recognition.rows_of_batch()), (1, 1, 2));
    }
}
