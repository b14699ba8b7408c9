//! Where a batch's physical cards are: each is read at Stripe, at a low pace, and what it tells is kept in the ledger.
//!
//! Which cards are physical is not known before each was read once. A card that is virtual, or whose way has come to its end,
//! is not read again. Guarantees: what was told earlier, by an event for instance, does not take the place of what is newer.

use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{self, StreamExt as _};
use tokio::time::MissedTickBehavior;

use super::{Line, standing_of};
use crate::job::Batch;
use crate::ledger::{Kind, Ledger, LedgerError, Only, Row, Scope, State};
use crate::outcome::Output;
use crate::shipping::{KnownShipping, Shipping};
use crate::stripe::StandingAnswer;

/// Reads in a second: few enough beside whoever calls for the account at its full rate.
pub const READS_PER_SECOND_MAX: f64 = 5.0;
/// Reads in flight at once.
const AT_ONCE: usize = 8;
/// Reads that fail in a row before the others are left for another time.
const FAILED_IN_A_ROW_MAX: u32 = 10;

/// Cards that are to be read.
#[derive(Debug)]
#[must_use]
pub struct Tracking {
    cards: Vec<String>,
}

/// What came of reading them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Tracked {
    /// Cards that are shipped.
    pub physical: u64,
    /// Cards that are not.
    pub r#virtual: u64,
    /// Cards that this account does not have.
    pub missing: u64,
    /// Cards that could not be read, and why the latest could not.
    pub failed: Option<(u64, String)>,
    /// Cards that were not read.
    pub left: u64,
}

impl Tracking {
    /// The cards of a batch of which there may be news.
    ///
    /// # Errors
    /// If the ledger cannot be read.
    pub async fn of(ledger: &Ledger, scope: &Scope, batch: &Batch) -> Result<Self, LedgerError> {
        let mut cards = Vec::new();
        let mut pages = ledger.pages(scope, batch, Only::of(Kind::Done));
        while let Some(rows) = pages.next().await? {
            let is_made = |row: &&Row| matches!(row.state, State::Done(Output::Issued(_)));
            let made: Vec<&str> = rows.iter().filter(is_made).filter_map(Row::card).collect();
            let known = ledger.shipping_of(scope, made.iter().copied()).await?;
            let may_change = |card: &&str| known.get(*card).is_none_or(|known| !known.is_final());
            cards.extend(made.into_iter().filter(may_change).map(str::to_owned));
        }
        Ok(Self { cards })
    }

    /// How many reads that is.
    #[must_use]
    pub fn reads(&self) -> u64 {
        self.cards.len() as u64
    }

    /// About how long they take, in seconds.
    #[must_use]
    pub fn seconds(&self) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "an estimate")]
        let reads = self.cards.len() as f64;
        reads / READS_PER_SECOND_MAX
    }

    /// Reads them, until the line stops.
    ///
    /// # Errors
    /// If what was told cannot be written down.
    pub async fn run(self, line: &Arc<Line>) -> Result<Tracked, LedgerError> {
        let parts = line.parts();
        let mut tracked = Tracked { left: self.reads(), ..Tracked::default() };
        let mut tick = tokio::time::interval(Duration::from_secs_f64(1.0 / READS_PER_SECOND_MAX));
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let in_time = stream::unfold((self.cards.into_iter(), tick), async |(mut cards, mut tick)| {
            let card = cards.next()?;
            tick.tick().await;
            Some((card, (cards, tick)))
        });
        let stopped = {
            let line = line.clone();
            async move { line.stopped().await }
        };
        let reads = in_time.take_until(Box::pin(stopped)).map(|card| async move {
            let asked_at = parts.clock.now();
            (standing_of(&parts.pace, &parts.client, &card).await, card, asked_at)
        });
        let mut reads = std::pin::pin!(reads.buffer_unordered(AT_ONCE));
        let mut failed_in_a_row = 0;
        while let Some((answer, card, asked_at)) = reads.next().await {
            tracked.left -= 1;
            match answer {
                StandingAnswer::Found(standing) => {
                    failed_in_a_row = 0;
                    let is_physical = standing.kind == "physical";
                    tracked.physical += u64::from(is_physical);
                    tracked.r#virtual += u64::from(!is_physical);
                    let at = standing.told.unwrap_or(asked_at).unix_ms().div_euclid(1000);
                    let shipping = is_physical.then(|| standing.shipping.unwrap_or_default());
                    let known = KnownShipping { shipping: shipping.map(Shipping::fit_to_show), at };
                    parts.ledger.keep_shipping(&parts.scope, &card, &known).await?;
                }
                StandingAnswer::Missing => {
                    failed_in_a_row = 0;
                    tracked.missing += 1;
                }
                StandingAnswer::Failed(reason) => {
                    failed_in_a_row += 1;
                    let before = tracked.failed.take().map_or(0, |(count, _)| count);
                    tracked.failed = Some((before + 1, reason));
                    if failed_in_a_row >= FAILED_IN_A_ROW_MAX {
                        return Ok(tracked);
                    }
                }
            }
        }
        Ok(tracked)
    }
}
