//! Runs whose end nobody has told: those of this process are kept alive, and those of one that has gone are ended.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::event::{Counts, State};
use super::run::{self, Carrier, End, Entry, Found};
use super::{Alive, Inner};
use crate::clock::Time;
use crate::job::Batch;
use crate::ledger::{Kind, LedgerError, Only, Scope};

/// After so long without a sign of life a run's process is taken for gone. It is many times what one takes to give it; if it is too
/// short after all, `batch.stopped` is told of a batch that then finishes, and is told to have finished as well.
const GONE_AFTER: Duration = Duration::from_secs(20);
/// Between two looks whether a worker has come to the end of a batch whose publisher has gone: all of the ledger is counted for it.
const COUNT_EVERY: Duration = Duration::from_secs(15);
/// Nor is it counted before so many times what that took.
const COUNT_EVERY_TIMES: u32 = 20;
/// How long a worker may take to the end of such a batch.
const WORKER_MAX: Duration = Duration::from_secs(3 * 24 * 3600);

/// Runs of others, and since when they stand as they do.
#[derive(Default)]
pub(super) struct Seen {
    runs: HashMap<String, (String, Instant)>,
    counted_until: Option<Instant>,
}

impl Inner {
    /// Gives a sign of life of this process's runs.
    pub(super) async fn beat(&self) {
        let mut runs = self.runs.lock().await;
        // Nobody has these any more, so that nobody ends them: what began them failed, or its client hung up.
        runs.retain(|_, alive| alive.run.strong_count() > 0);
        for (name, Alive { entry, .. }) in runs.iter_mut() {
            let next = Entry { beat: entry.beat.wrapping_add(1), ..entry.clone() };
            match self.ledger.swap_metadata(&**name, Some(entry.text()), Some(next.text())).await {
                Ok(Ok(())) => *entry = next,
                // Another process took it for gone, or renamed its scope. Its end is told all the same, once it comes.
                Ok(Err(_)) => tracing::debug!(batch = entry.batch, "a batch under way is not as it was left"),
                Err(error) => {
                    return tracing::warn!(%error, "no sign of life can be given of batches under way");
                }
            }
        }
    }

    /// Ends the runs of processes that have gone.
    pub(super) async fn settle(&self, seen: &mut Seen) -> Result<(), LedgerError> {
        let found = run::all(&self.ledger).await?;
        let (mut still, mut failed) = (HashMap::new(), None);
        // All runs of workers are counted in one pass, or none: the first must not keep the others from it.
        let may_count = seen.counted_until.is_none_or(|until| Instant::now() >= until);
        let mut counting = Duration::ZERO;
        for found in found {
            if self.runs.lock().await.contains_key(&found.name) {
                continue;
            }
            let now = Instant::now();
            let since = match seen.runs.remove(&found.name) {
                Some((value, since)) if value == found.value => since,
                _ => now,
            };
            still.insert(found.name.clone(), (found.value.clone(), since));
            let is_workers = found.entry.carrier == Carrier::Worker && found.entry.end.is_none();
            if now.duration_since(since) < GONE_AFTER || (is_workers && !may_count) {
                continue;
            }
            // One that cannot be told at this moment keeps no other from being told.
            failed = self.settle_one(found).await.err().or(failed);
            if is_workers {
                counting += now.elapsed();
            }
        }
        seen.runs = still;
        if !counting.is_zero() {
            seen.counted_until = Some(Instant::now() + COUNT_EVERY.max(counting * COUNT_EVERY_TIMES));
        }
        failed.map_or(Ok(()), Err)
    }

    /// Ends the runs that commands before this one have left: it holds the account's lease, so they run no more.
    pub(super) async fn settle_of_commands(&self, scope: &Scope) -> Result<(), LedgerError> {
        for found in run::all(&self.ledger).await? {
            if found.scope == *scope && found.entry.carrier == Carrier::Command {
                self.settle_one(found).await?;
            }
        }
        Ok(())
    }

    async fn settle_one(&self, found: Found) -> Result<(), LedgerError> {
        if found.entry.end.is_some() {
            return self.tell_end(&found).await;
        }
        let is_workers = found.entry.carrier == Carrier::Worker;
        let counts = self.counts_of(&found).await?;
        let now = self.clock.now();
        let age = now.since(Time::from_unix_ms(found.entry.began_ms));
        let has_begun = found.entry.begins.is_some();
        let (state, reason) = if has_begun && counts.all_ended() {
            (State::Finished, None)
        } else if is_workers && age < WORKER_MAX {
            return Ok(());
        } else {
            let reason = match has_begun {
                true => {
                    "the embosser that had it was stopped, or is gone. The same file again goes on with it: rows that have what they \
                     asked for get it no second time"
                }
                false => {
                    "it never began: the embosser that had it was stopped, or is gone, or could not begin it. Nothing of this file was \
                     issued; upload it again"
                }
            };
            (State::Interrupted, Some(reason.to_owned()))
        };
        let end = End { state, reason, counts, at_ms: now.unix_ms() };
        let entry = Entry { end: Some(end), is_settled: true, ..found.entry };
        let value = entry.text();
        if self.ledger.swap_metadata(&*found.name, Some(found.value), Some(value.clone())).await?.is_err() {
            // Its process lives, or another has seen to it.
            return Ok(());
        }
        self.tell_end(&Found { entry, value, ..found }).await
    }

    /// How the rows of a run stand, as the ledger has them. Of a batch's rows that were refused before the run began, each is tried again
    /// if the run has it: until then it waits.
    async fn counts_of(&self, found: &Found) -> Result<Counts, LedgerError> {
        let Found { scope, entry, .. } = found;
        let Ok(batch) = Batch::new(entry.batch.as_str()) else { return Ok(Counts::of_rows(entry.rows)) };
        let Some(counts) = self.ledger.counts_of(scope, &batch).await? else {
            return Ok(Counts::of_rows(entry.rows));
        };
        let Some(begins) = entry.begins else { return Ok(Counts::of_ledger(&counts, entry.rows, 0)) };
        let mut refused_before = 0_u64;
        if let Some(latest_ms) = begins.latest_ms
            && counts.refused > begins.others_refused
        {
            let latest = Time::from_unix_ms(latest_ms);
            let mut pages = self.ledger.pages(scope, &batch, Only::of(Kind::Refused));
            while let Some(page) = pages.next().await? {
                refused_before += page.iter().filter(|row| row.written <= latest).count() as u64;
            }
        }
        let left = refused_before.saturating_sub(begins.others_refused);
        Ok(Counts::of_ledger(&counts, begins.rows, left))
    }
}
