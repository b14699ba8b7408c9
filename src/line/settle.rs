//! How rows ended whose calls were cut off, found out at Stripe alone: without the file that they came from.
//!
//! The ledger keeps nothing of what a row asks for, so none can be called for again here. But what was made carries its job's id,
//! and the account's lists tell whether it is there. What is found is the row's; what is not, in a look that began when no call of
//! it could be open any more and lists have what such a call made, was never made: the row is refused then, and whoever sends it
//! again gets its card.
//!
//! Guarantees: an end is recorded only if the row still is what it was when this began (compare-and-set), so nothing that went on
//! meanwhile is overwritten; a job whose cardholder chose its PIN is not refused, as it waits for another one by itself. Never: a call
//! that makes or changes something. (A change of a card is told from what it asked for, which is in the file alone: such rows are
//! left.)

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream;
use tokio_util::sync::CancellationToken;

use super::look::{Of, PAGES_MAX, page};
use super::{LeaseUse, Line, Stop};
use crate::backoff::jittered;
use crate::clock::{Clock, Moment, Time};
use crate::job::{Batch, both};
use crate::ledger::{Conclude, Kind, Ledger, LedgerError, Only, Row, Scope, State};
use crate::metrics;
use crate::operation::{Found, Operation, Place};
use crate::outcome::{Output, Refusal};
use crate::pin_links::is_awaited;
use crate::stripe::Listed;

/// The code of a row whose call was cut off and certainly had no effect.
pub const CUT_OFF: &str = "cut_off";
/// Most rows of one go: a bound on memory. Whoever has more does it again.
const ROWS_MAX: usize = 100_000;
/// Tries of a page of a list before the others are left for another time.
const TRIES_MAX: u32 = 6;
/// The wait after the first of them; it doubles.
const RETRY_MIN: Duration = Duration::from_millis(500);
/// Ends that are written at the same time, so that they share the ledger's flushes.
const ENDS_AT_ONCE: usize = 64;
/// How long another process that calls for the account is waited for before the second look: whoever asked is told then, and may ask again.
const LEASE_WITHIN: Duration = Duration::from_secs(60);
/// The same for each page of a list, with its turn of the pace and the account's lease, if that was lost meanwhile.
const PAGE_WITHIN: Duration = Duration::from_secs(300);
/// A sleep of the process's own timer may be longer by the time that the machine slept.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What was made so long before the row's first call, by Stripe's clock and ours, was made by none of its calls.
const CLOCKS_DIFFER_MS: i64 = 10 * 60_000;

/// What is told beside what was found.
const FOUND: &str = "found at Stripe by its name after its call was cut off";

/// Rows that are to be found.
#[derive(Debug)]
#[must_use]
pub struct Settling {
    rows: Vec<Row>,
    others: u64,
    later: u64,
    /// When the ledger was asked: a call that somebody was about to make then is over some time after it.
    seen: Moment,
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Settled {
    /// Rows of which there is something at Stripe.
    pub found: u64,
    /// Rows of which there is nothing.
    pub absent: u64,
    /// Rows of which something is there that may not be theirs: their file tells.
    pub unclear: u64,
    /// Rows that are not known yet: the lists could not be read, the rows went on meanwhile, or wait for their cardholders' PINs.
    pub left: u64,
    /// Why the lists could not be read.
    pub failed: Option<String>,
}

/// Whether what a list does not have was never made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Absence {
    /// A call may be open.
    TellsNothing,
    /// All calls are over.
    Counts,
}

/// Why a list was not read to its end.
enum Unread {
    Failed(String),
    Stopped(Stop),
}

/// What a place has of rows: by their jobs, and how many of each.
type Effects = HashMap<String, (Found, u32)>;

/// What was read of the lists.
#[derive(Default)]
struct Lists {
    /// Rows, and what the list has of them in which they were looked for.
    read: Vec<(Vec<Row>, Effects)>,
    /// Those whose list was not read.
    unread: Vec<Row>,
    /// Why.
    why: Option<Unread>,
}

/// What became of a row in a look.
enum Concluded {
    /// It has what was found.
    Found,
    /// Nothing of it is there.
    Absent,
    /// Something is there that may not be its.
    Unclear(Row),
    /// It is not known yet.
    Left(Row),
    /// Somebody else went on with it.
    Changed,
    /// It could not be written down, or what is to be known for that could not be read.
    Failed(Row, LedgerError),
}

impl Settling {
    /// The rows of a batch whose end is not known.
    ///
    /// # Errors
    /// If the ledger cannot be read.
    pub async fn of(
        ledger: &Ledger,
        scope: &Scope,
        batch: &Batch,
        clock: &Clock,
    ) -> Result<Self, LedgerError> {
        let (mut rows, mut others, mut later) = (Vec::new(), 0, 0);
        let mut pages = ledger.pages(scope, batch, Only::of(Kind::Begun));
        while let Some(page) = pages.next().await? {
            for row in page {
                if place_of(row.step.operation()).is_none() {
                    others += 1;
                } else if rows.len() < ROWS_MAX {
                    rows.push(row);
                } else {
                    later += 1;
                }
            }
        }
        // After the last page: what was begun before that is in them.
        Ok(Self { rows, others, later, seen: clock.moment() })
    }

    /// How many rows are looked for.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.rows.len() as u64
    }

    /// How many cannot be found: changes of cards, whose file is needed.
    #[must_use]
    pub fn others(&self) -> u64 {
        self.others
    }

    /// How many are more than are looked for in one go.
    #[must_use]
    pub fn later(&self) -> u64 {
        self.later
    }

    /// How long until it is certain of each, in seconds, once the lists are read.
    #[must_use]
    pub fn seconds(&self, line: &Line) -> f64 {
        wait_of(line).as_secs_f64()
    }

    /// Looks for them, at once and again when no call can be open any more; until the line stops. `lease` is for the first look. If an end
    /// cannot be written down the line halts, as it does when a job's cannot.
    pub async fn run(self, line: &Arc<Line>, lease: LeaseUse) -> Settled {
        let Self { mut rows, seen, .. } = self;
        let (mut settled, mut lease) = (Settled::default(), Some(lease));
        for absence in [Absence::TellsNothing, Absence::Counts] {
            if rows.is_empty() {
                break;
            }
            if absence == Absence::Counts && !wait_until_over(line, seen).await {
                break;
            }
            let held = match lease.take() {
                Some(lease) => Ok(lease),
                None => lease_in_time(line).await,
            };
            let (left, why) = match held {
                Ok(lease) => look(line, lease, rows, absence, &mut settled).await,
                Err(why) => (rows, Some(why)),
            };
            rows = left;
            settled.failed = None;
            match why {
                None => {}
                Some(Unread::Failed(reason)) => settled.failed = Some(reason),
                Some(Unread::Stopped(stop)) => {
                    line.note(stop);
                    break;
                }
            }
        }
        settled.left += (rows.len() as u64).saturating_sub(settled.unclear);
        settled
    }
}

/// From when the ledger was read to when nothing can be on its way any more.
fn wait_of(line: &Line) -> Duration {
    let rules = &line.parts.rules;
    rules.departs_within + rules.call_lasts + rules.lists_lag
}

/// Waits until then by a clock that counts sleep; false if the line stops meanwhile.
async fn wait_until_over(line: &Line, seen: Moment) -> bool {
    let until = seen.boot.plus(wait_of(line));
    loop {
        let left = until.since(line.parts.clock.boot());
        if left.is_zero() {
            return !line.is_stopping();
        }
        tokio::select! {
            () = tokio::time::sleep(left.min(LOOK_EVERY)) => {}
            () = line.stopping.cancelled() => return false,
        }
    }
}

/// Where an operation's effect is looked for by its job's id alone.
fn place_of(operation: Operation) -> Option<Place> {
    match operation {
        Operation::CreateCard => Some(Place::Cards),
        Operation::CreateCardholder => Some(Place::Cardholders),
        Operation::UpdateCard => None,
    }
}

/// The account's lease, if no other process has it for long.
async fn lease_in_time(line: &Line) -> Result<LeaseUse, Unread> {
    match tokio::time::timeout(LEASE_WITHIN, line.hold_lease()).await {
        Ok(Some(lease)) => Ok(lease),
        Ok(None) => Err(Unread::Stopped(Stop::Closed)),
        Err(_) => Err(Unread::Failed("another process calls for this account".into())),
    }
}

/// Looks for these rows and records what is known of them then; answers those that are not known still, and why lists were not read.
async fn look(
    line: &Line,
    lease: LeaseUse,
    rows: Vec<Row>,
    absence: Absence,
    settled: &mut Settled,
) -> (Vec<Row>, Option<Unread>) {
    let Lists { read, unread: mut left, why } = read_lists(line, rows).await;
    // Whoever lists calls, one process of an account at a time; whoever writes an end down does not.
    drop(lease);
    let mut unclear = 0;
    for (rows, effects) in read {
        let mut concluding = stream::iter(rows)
            .map(|row| conclude(line, row, &effects, absence))
            .buffer_unordered(ENDS_AT_ONCE);
        while let Some(concluded) = concluding.next().await {
            match concluded {
                Concluded::Found => settled.found += 1,
                Concluded::Absent => settled.absent += 1,
                Concluded::Changed => settled.left += 1,
                Concluded::Left(row) => left.push(row),
                Concluded::Unclear(row) => {
                    unclear += 1;
                    left.push(row);
                }
                Concluded::Failed(row, error) => {
                    // The line stops then, and the others are left.
                    line.note(Stop::Ledger(error));
                    left.push(row);
                }
            }
        }
    }
    settled.unclear = unclear;
    (left, why)
}

/// Reads the lists in which these rows are.
async fn read_lists(line: &Line, rows: Vec<Row>) -> Lists {
    let mut lists = Lists { unread: rows, ..Lists::default() };
    for operation in Operation::ALL {
        let Some(place) = place_of(operation) else { continue };
        let (ours, others): (Vec<Row>, Vec<Row>) =
            lists.unread.into_iter().partition(|row| row.step.operation() == operation);
        lists.unread = others;
        let Some(began) = ours.iter().map(first_call).min() else { continue };
        let of = Of::made_since(line, place, began);
        match list(line, &of, operation, &ours).await {
            Ok(effects) => lists.read.push((ours, effects)),
            Err(why) => {
                lists.unread.extend(ours);
                lists.why = Some(why);
                break;
            }
        }
    }
    lists
}

/// The earliest moment at which a row can have had its effect.
fn first_call(row: &Row) -> Time {
    row.key_began.or(row.attempted).unwrap_or(row.written)
}

/// What a place has of these rows.
async fn list(line: &Line, of: &Of, operation: Operation, rows: &[Row]) -> Result<Effects, Unread> {
    let mut effects: HashMap<String, Option<(Found, u32)>> =
        rows.iter().map(|row| (row.id.as_str().to_owned(), None)).collect();
    let never = CancellationToken::new();
    let mut after = None::<String>;
    for _ in 0..PAGES_MAX {
        let mut tries = 0;
        let (found, more) = loop {
            let page = tokio::time::timeout(PAGE_WITHIN, page(line, of, after.as_deref(), &never));
            let Ok(page) = page.await else {
                return Err(Unread::Failed(
                    "Stripe does not answer, or another process calls for this account".into(),
                ));
            };
            match page.map_err(Unread::Stopped)? {
                Listed::Page { found, more } => break (found, more),
                Listed::Failed { reason, .. } if tries + 1 >= TRIES_MAX => {
                    return Err(Unread::Failed(reason));
                }
                Listed::Failed { .. } => {
                    let wait = jittered(RETRY_MIN * 2u32.pow(tries));
                    tries += 1;
                    tokio::select! {
                        () = tokio::time::sleep(wait) => {}
                        () = line.stopping.cancelled() => return Err(Unread::Stopped(Stop::Closed)),
                    }
                }
            }
        };
        after = found.last().map(|last| last.id.clone()).or(after);
        for found in found {
            let effect = found.job(operation).and_then(|job| effects.get_mut(job));
            if let Some(effect) = effect {
                // Lists come newest first: the oldest is told.
                let count = effect.as_ref().map_or(0, |(_, count)| *count) + 1;
                *effect = Some((found, count));
            }
        }
        if !more {
            return Ok(effects.into_iter().filter_map(|(job, effect)| Some((job, effect?))).collect());
        }
    }
    Err(Unread::Failed("the list does not end".into()))
}

/// Whether what has a row's job id is the row's, as far as can be told without its file.
fn is_of_row(found: &Found, batch: &Batch, first_call: Time) -> bool {
    let is_of_batch = found.metadata.batch.as_deref().is_none_or(|of| of == batch.as_str());
    let made = found.created.map(|seconds| seconds.saturating_mul(1000));
    is_of_batch && made.is_none_or(|made| made >= first_call.unix_ms() - CLOCKS_DIFFER_MS)
}

/// Records what is known of a row now, if that is anything.
async fn conclude(line: &Line, row: Row, effects: &Effects, absence: Absence) -> Concluded {
    if line.is_stopping() {
        return Concluded::Left(row);
    }
    let state = match (effects.get(row.id.as_str()), absence) {
        (Some((found, 1)), _) if is_of_row(found, &row.batch, first_call(&row)) => {
            State::Done(found.output(row.step.operation(), Vec::new()))
        }
        // Somebody copied metadata, or a card was made under the same id before the row was begun, for something else perhaps: what the
        // row asks for is in its file, which tells.
        (Some(_), _) => return Concluded::Unclear(row),
        (None, Absence::TellsNothing) => return Concluded::Left(row),
        (None, Absence::Counts) => {
            let reason = "its call was cut off, and Stripe has nothing of it: send the same file again";
            State::Refused(Refusal::own(CUT_OFF, reason))
        }
    };
    // One that is on the line now comes to its end there.
    let Some(_alone) = line.locks.try_take(&row.id) else { return Concluded::Left(row) };
    if matches!(state, State::Refused(_)) {
        // Its cardholder is asked for another PIN, by whoever has the pages: a refusal would end that.
        match is_awaited(&line.parts.ledger, &line.parts.scope, &row.id).await {
            Ok(false) => {}
            Ok(true) => return Concluded::Left(row),
            Err(error) => return Concluded::Failed(row, error),
        }
    }
    match record(line, &row, state).await {
        Ok(concluded) => concluded,
        Err(error) => Concluded::Failed(row, error),
    }
}

/// Writes an end down, if the row still is what it was.
async fn record(line: &Line, row: &Row, state: State) -> Result<Concluded, LedgerError> {
    let is_done = matches!(state, State::Done(_));
    let mut ended = Row { written: line.parts.clock.now(), ..row.clone() };
    if let State::Done(output) = &state {
        let needs = match output {
            Output::Created(cardholder) => cardholder.needs.clone(),
            Output::Issued(_) | Output::Updated(_) => None,
        };
        ended.note = both(both(ended.note.take(), needs), Some(FOUND.to_owned()));
    }
    ended.state = state;
    match line.parts.ledger.conclude(ended, Some(row)).await? {
        Conclude::Written(_) => {
            metrics::reconciled(if is_done { "found" } else { "absent" });
            tracing::info!(job = %row.id, found = is_done, "a row that was cut off was looked for");
            if row.step.operation() == Operation::CreateCardholder {
                line.people.forget().await;
            }
            Ok(if is_done { Concluded::Found } else { Concluded::Absent })
        }
        // Somebody else goes on with it.
        Conclude::Changed(_) => Ok(Concluded::Changed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_older_than_the_first_call_or_another_batchs_is_not_the_rows() {
        let (batch, first_call) = (Batch::new("staff").unwrap(), Time::from_unix_ms(10_000_000));
        let is_its = |object: &str| is_of_row(&serde_json::from_str(object).unwrap(), &batch, first_call);
        assert!(is_its(r#"{"id": "ic_1", "created": 10000, "metadata": {"embosser_batch": "staff"}}"#));
        assert!(is_its(r#"{"id": "ic_1", "created": 9400}"#), "clocks differ");
        assert!(!is_its(r#"{"id": "ic_1", "created": 9399}"#), "of a ledger that was lost, perhaps");
        assert!(!is_its(r#"{"id": "ic_1", "created": 10000, "metadata": {"embosser_batch": "other"}}"#));
    }
}
