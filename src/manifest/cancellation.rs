//! A batch undone: the manifest of changes that cancels the cards which the batch's own jobs made, and what that saves.
//!
//! The cards are those that the ledger has of the batch, so a card that another batch made, and that a row of this one was
//! recognised as, is none of them. The manifest is issued as any other, as a batch of its own: a card that was cancelled by it
//! already is a row that is done. Never: a call; what is told here is told from the ledger alone.

use std::collections::HashSet;
use std::time::Duration;

use super::cancelled::{cancelled, contents_of};
use super::counted;
use super::rows::row_id_is_good;
use crate::clock::Time;
use crate::job::{Batch, JobId, NameError, Step};
use crate::ledger::{Kind, Ledger, LedgerError, Only, Pages, Row, Scope, State};
use crate::operation::Operation;
use crate::outcome::Output;

/// The manifest's columns, as its first line.
pub const HEADER: &str = "row_id,card,status\n";
/// What is added to a batch's name for that of the batch which undoes it.
pub const UNDO: &str = ".cancel";
/// The value of `status` that cancels a card.
pub(super) const CANCELED: &str = "canceled";
/// Jobs that are asked about in one question.
const LOOKED_UP_AT_ONCE: usize = 500;
/// Physical cards go to print once a day, at six in the morning UTC (docs.stripe.com/issuing/cards/physical).
const PRINT_RUN_MS: i64 = 6 * 3_600_000;
const DAY_MS: i64 = 24 * 3_600_000;

/// The name of the batch that cancels a batch's cards.
///
/// # Errors
/// If it would be too long.
pub fn name_of(batch: &Batch) -> Result<Batch, NameError> {
    Batch::new(format!("{batch}{UNDO}"))
}

/// A card that a batch's job made, as a row of the manifest that cancels it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Made {
    /// The row's name: that of the row that made the card, or the card's id where that has none.
    pub row_id: String,
    /// The card's id at Stripe.
    pub card: String,
    /// It was made then, or later.
    pub since: Time,
}

/// The cards of a batch in the order of its rows, some at a time.
pub struct Cards<'l> {
    ledger: &'l Ledger,
    scope: &'l Scope,
    pages: Pages<'l>,
    canceling: Batch,
    named: HashSet<String>,
    /// Rows whose end is not known, so far.
    unresolved: u64,
    /// Rows that wait for their cardholders' PINs, so far.
    awaiting_pin: u64,
    /// Cards that another batch has cancelled, so far.
    elsewhere: u64,
}

impl<'l> Cards<'l> {
    /// From the first.
    ///
    /// # Errors
    /// If the batch that cancels them can have no name.
    pub fn of(ledger: &'l Ledger, scope: &'l Scope, batch: &'l Batch) -> Result<Self, NameError> {
        Ok(Self {
            ledger,
            scope,
            pages: ledger.pages(scope, batch, Only::default()),
            canceling: name_of(batch)?,
            named: HashSet::new(),
            unresolved: 0,
            awaiting_pin: 0,
            elsewhere: 0,
        })
    }

    /// The next ones, which may be none; nothing after the last row. A card that another batch has cancelled is none of them: Stripe
    /// changes no cancelled card.
    ///
    /// # Errors
    /// If the ledger cannot be read.
    pub async fn next(&mut self) -> Result<Option<Vec<Made>>, LedgerError> {
        let Some(rows) = self.pages.next().await? else { return Ok(None) };
        let mut cards = Vec::with_capacity(rows.len());
        let taken = self.taken(&rows).await?;
        let cancelled = cancelled(self.ledger, self.scope, &rows).await?;
        for row in rows {
            match &row.state {
                State::Done(Output::Issued(card)) => {
                    let card = card.id.clone();
                    let name = self.name(&row, &card, &taken);
                    let own = JobId::of_row(&self.canceling, &name).ok();
                    if cancelled.get(&card).is_some_and(|by| own.as_ref() != Some(by)) {
                        self.elsewhere += 1;
                        continue;
                    }
                    cards.push(Made { row_id: name, card, since: made_since(&row) });
                }
                State::Begun => self.unresolved += 1,
                State::AwaitingPin => self.awaiting_pin += 1,
                State::Done(_) | State::Refused(_) => {}
            }
        }
        Ok(Some(cards))
    }

    /// Under which rows' names the batch that cancels them has other jobs: somebody has issued a file of his own under its name.
    async fn taken(&self, rows: &[Row]) -> Result<HashSet<String>, LedgerError> {
        let mut taken = HashSet::new();
        for rows in rows.chunks(LOOKED_UP_AT_ONCE) {
            let named = rows.iter().filter_map(|row| {
                let (State::Done(Output::Issued(card)), Some(name)) = (&row.state, &row.row_id) else {
                    return None;
                };
                Some((JobId::of_row(&self.canceling, name).ok()?, name, card.id.as_str()))
            });
            let named: Vec<_> = named.collect();
            let ids: Vec<JobId> = named.iter().map(|(id, ..)| id.clone()).collect();
            let known = self.ledger.look_up_jobs(self.scope, &ids).await?;
            let others = named.iter().zip(known).filter(|((_, _, card), known)| {
                known.as_ref().is_some_and(|known| !contents_of(card).contains(&known.content))
            });
            taken.extend(others.map(|((_, name, _), _)| (*name).clone()));
        }
        Ok(taken)
    }

    /// What a card's row is called: the same each time, and no two the same.
    fn name(&mut self, row: &Row, card: &str, taken: &HashSet<String>) -> String {
        let own = row.row_id.as_deref().filter(|own| {
            let is_plain = row_id_is_good(own) && own.trim() == *own && !taken.contains(*own);
            is_plain && JobId::of_row(&self.canceling, own).is_ok() && !self.named.contains(*own)
        });
        let name = own.unwrap_or(card).to_owned();
        self.named.insert(name.clone());
        name
    }
}

/// The earliest moment at which a row's card can have been made.
fn made_since(row: &Row) -> Time {
    row.key_began.or(row.attempted).unwrap_or(row.written)
}

/// Rows of the manifest, as lines of CSV.
#[must_use]
pub fn lines_of(cards: &[Made]) -> Vec<u8> {
    let mut lines = csv::Writer::from_writer(Vec::new());
    for card in cards {
        let written = lines.write_record([card.row_id.as_str(), card.card.as_str(), CANCELED]);
        written.expect("writing to memory does not fail, and every record has three fields");
    }
    lines.into_inner().expect("writing to memory does not fail")
}

/// The whole manifest.
///
/// # Errors
/// If the ledger cannot be read.
pub async fn manifest_of(mut cards: Cards<'_>) -> Result<Vec<u8>, LedgerError> {
    let mut text = HEADER.as_bytes().to_vec();
    while let Some(some) = cards.next().await? {
        text.extend(lines_of(&some));
    }
    Ok(text)
}

/// What cancelling a batch's cards comes to, as far as the ledger tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CancelPlan {
    /// The batch whose cards they are.
    pub batch: Batch,
    /// The batch that cancels them.
    pub canceling: Batch,
    /// Its cards, all of them.
    pub cards: u64,
    /// Those that were cancelled by this before.
    pub cancelled: u64,
    /// Cards of the batch that another batch has cancelled, and that are none of these.
    pub cancelled_elsewhere: u64,
    /// Of the others, those that were made since the last print run: if they are physical, they are not printed yet.
    pub not_printed_yet: u64,
    /// The last print run.
    pub printed: Time,
    /// The next one.
    pub until: Time,
    /// Rows whose end is not known: they may have cards, which this does not cancel.
    pub unresolved: u64,
    /// Rows that wait for their cardholders' PINs: they may get cards later.
    pub awaiting_pin: u64,
    /// When this was so.
    now: Time,
}

impl CancelPlan {
    /// That of a batch as it stands now.
    ///
    /// # Errors
    /// If the ledger cannot be read, or the batch that cancels its cards can have no name.
    pub async fn of(ledger: &Ledger, scope: &Scope, batch: &Batch, now: Time) -> Result<Self, PlanError> {
        let (printed, until) = print_runs_around(now);
        let mut cards = Cards::of(ledger, scope, batch)?;
        let mut plan = Self {
            batch: batch.clone(),
            canceling: cards.canceling.clone(),
            cards: 0,
            cancelled: 0,
            cancelled_elsewhere: 0,
            not_printed_yet: 0,
            printed,
            until,
            unresolved: 0,
            awaiting_pin: 0,
            now,
        };
        while let Some(some) = cards.next().await? {
            for some in some.chunks(LOOKED_UP_AT_ONCE) {
                let is_cancelled = are_cancelled(ledger, scope, &plan.canceling, some).await?;
                for (card, is_cancelled) in some.iter().zip(is_cancelled) {
                    plan.cards += 1;
                    plan.cancelled += u64::from(is_cancelled);
                    plan.not_printed_yet += u64::from(!is_cancelled && card.since >= printed);
                }
            }
        }
        (plan.unresolved, plan.awaiting_pin) = (cards.unresolved, cards.awaiting_pin);
        plan.cancelled_elsewhere = cards.elsewhere;
        Ok(plan)
    }

    /// What it does, saves and does not save, in sentences; at so many calls a second.
    #[must_use]
    pub fn notes(&self, per_second: f64) -> Vec<String> {
        let left = self.cards - self.cancelled;
        let (printed, until) = (self.printed.in_utc(), self.until.in_utc());
        let mut notes = vec![match (self.cards, self.cancelled) {
            (0, _) if self.cancelled_elsewhere > 0 => {
                format!("Batch {:?} has no card that is not cancelled.", self.batch.as_str())
            }
            (0, _) => format!("Batch {:?} has no cards.", self.batch.as_str()),
            (cards, 0) => {
                format!(
                    "{} of batch {:?} will be cancelled, for ever.",
                    counted(cards, "card"),
                    self.batch.as_str()
                )
            }
            (cards, cancelled) => format!(
                "{} of batch {:?} will be cancelled, for ever; {cancelled} of them are already.",
                counted(cards, "card"),
                self.batch.as_str()
            ),
        }];
        if self.cancelled_elsewhere > 0 {
            notes.push(format!(
                "Left out: {}, cancelled by another file already.",
                counted(self.cancelled_elsewhere, "card")
            ));
        }
        if left > 0 {
            notes.push(
                "Virtual cards cost nothing more. Which of the cards are physical is not recorded here; what follows is about \
                 those that are."
                    .to_owned(),
            );
            let early = self.not_printed_yet;
            if early > 0 {
                notes.push(format!(
                    "Not printed yet: {}, made since the last print run ({printed}). Cancelled before the next one ({until}), they \
                     are not printed, billed or shipped.",
                    counted(early, "card")
                ));
            }
            if left > early {
                notes.push(format!(
                    "Too late to save printing: {}, made before {printed}. They are printed, billed and shipped all the same; \
                     nobody can pay with them.",
                    counted(left - early, "card")
                ));
            }
            #[expect(clippy::cast_precision_loss, reason = "an estimate")]
            let takes = Duration::try_from_secs_f64(left as f64 / per_second).unwrap_or(Duration::MAX);
            if early > 0 && takes > self.until.since(self.now) {
                notes.push(format!(
                    "At {per_second} cards a second this is not done before the next print run: the last ones are printed."
                ));
            }
        }
        if self.unresolved > 0 {
            notes.push(format!(
                "How {} ended is not known yet, so a card of theirs is not cancelled: issue the batch's file again, and then \
                 cancel again.",
                counted(self.unresolved, "row")
            ));
        }
        if self.awaiting_pin > 0 {
            notes.push(format!(
                "Cardholders of {} have not chosen their PINs: their cards are made once they do, unless that is called off.",
                counted(self.awaiting_pin, "row")
            ));
        }
        notes
    }
}

/// Why there is no plan.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// The batch's name is too long for another one to be made of it.
    #[error("the name of the batch that would cancel its cards {0}")]
    Name(#[from] NameError),
    /// The ledger cannot be read.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

/// Whether each of these cards was cancelled by that batch.
async fn are_cancelled(
    ledger: &Ledger,
    scope: &Scope,
    canceling: &Batch,
    cards: &[Made],
) -> Result<Vec<bool>, PlanError> {
    let step = Step::Last(Operation::UpdateCard);
    let ids: Result<Vec<_>, NameError> =
        cards.iter().map(|card| Ok((JobId::of_row(canceling, &card.row_id)?, step))).collect();
    let rows = ledger.look_up_all(scope, ids?).await?;
    let does_it = |(row, card): (Option<Row>, &Made)| {
        let done = row.filter(|row| row.state.kind() == Kind::Done);
        done.is_some_and(|row| contents_of(&card.card).contains(&row.content))
    };
    Ok(rows.into_iter().zip(cards).map(does_it).collect())
}

/// The last print run at that time, and the next one.
fn print_runs_around(now: Time) -> (Time, Time) {
    let last = (now.unix_ms() - PRINT_RUN_MS).div_euclid(DAY_MS) * DAY_MS + PRINT_RUN_MS;
    (Time::from_unix_ms(last), Time::from_unix_ms(last + DAY_MS))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    #[test]
    fn cards_are_printed_at_six_in_the_morning() {
        let at = |text: &str| Time::from_words(text).unwrap();
        for (now, last, next) in [
            ("2026-12-01T05:59:59Z", "2026-11-30T06:00Z", "2026-12-01T06:00Z"),
            ("2026-12-01T06:00:00Z", "2026-12-01T06:00Z", "2026-12-02T06:00Z"),
            ("2026-12-31T23:00:00Z", "2026-12-31T06:00Z", "2027-01-01T06:00Z"),
            ("1969-12-31T23:00:00Z", "1969-12-31T06:00Z", "1970-01-01T06:00Z"),
        ] {
            assert_eq!(print_runs_around(at(now)), (at(last), at(next)), "{now}");
        }
    }

    fn plan() -> CancelPlan {
        let now = Time::from_words("2026-12-01T05:00Z").unwrap();
        let (printed, until) = print_runs_around(now);
        let batch = Batch::new("staff").unwrap();
        CancelPlan {
            canceling: name_of(&batch).unwrap(),
            batch,
            cards: 300,
            cancelled: 0,
            cancelled_elsewhere: 0,
            not_printed_yet: 120,
            printed,
            until,
            unresolved: 0,
            awaiting_pin: 0,
            now,
        }
    }

    #[test]
    fn what_is_saved_and_what_is_not_is_said() {
        let said = plan().notes(25.0).join("\n");
        for part in [
            "300 cards of batch \"staff\" will be cancelled, for ever.",
            "Not printed yet: 120 cards, made since the last print run (2026-11-30T06:00:00Z). Cancelled before the next one \
             (2026-12-01T06:00:00Z), they are not printed, billed or shipped.",
            "Too late to save printing: 180 cards, made before 2026-11-30T06:00:00Z.",
            "is not recorded here",
        ] {
            assert!(said.contains(part), "{part}: {said}");
        }
        assert!(!said.contains("not done before"), "{said}");
        let slow = plan().notes(0.05).join("\n");
        assert!(slow.contains("At 0.05 cards a second this is not done before the next print run"), "{slow}");
        let rest =
            CancelPlan { cancelled: 300, not_printed_yet: 0, unresolved: 1, awaiting_pin: 2, ..plan() };
        let said = rest.notes(25.0);
        assert_eq!(said.len(), 3, "{said:?}");
        assert!(
            said[0].ends_with("300 of them are already.") && said[1].contains("How 1 row ended"),
            "{said:?}"
        );
        assert!(said[2].starts_with("Cardholders of 2 rows"), "{said:?}");
    }

    #[test]
    fn rows_are_quoted_where_they_must_be() {
        let card =
            |row_id: &str| Made { row_id: row_id.into(), card: "ic_1".into(), since: Time::from_unix_ms(0) };
        let lines = lines_of(&[card("a"), card("b, \"c\"")]);
        assert_eq!(String::from_utf8(lines).unwrap(), "a,ic_1,canceled\n\"b, \"\"c\"\"\",ic_1,canceled\n");
    }
}
