//! What must never be, and what must be in the end. It sees Stripe as it truly is, and what processes tell.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use embosser::outcome::{Ended, Outcome, Output};

use super::executor::Life;
use super::ledger::Database;
use super::setup::{Asks, Row, Setup};
use super::stripe::{Account, Made};
use super::world::World;

/// What a limit counts by, in milliseconds.
const SECOND_MS: u64 = 1000;
/// How long an attempt may take from its record to its call: what was prepared for longer is prepared again.
const JUST_MS: u64 = 5000;
/// Codes of refusals that say themselves that there may be an effect: the id has another one already, or a later change of the card came
/// before the end of this one was known, and nothing at Stripe tells of it any more.
const MAY_HAVE_EFFECT: [&str; 2] = ["job_conflict", "superseded"];

#[derive(Default)]
pub(crate) struct Oracle {
    /// Counts what happens, to tell what was before what.
    number: u64,
    left: BTreeMap<(usize, &'static str), VecDeque<u64>>,
    ended: BTreeSet<(usize, usize)>,
    /// Whether a backup was restored.
    is_restored: bool,
    /// Copies of each row that a life has under way.
    under_way: BTreeMap<Life, BTreeMap<(usize, usize), u32>>,
    /// When a refusal was told that the ledger said, too.
    refused: BTreeMap<(usize, String), u64>,
    /// Who told first that a job is done, and when, in milliseconds.
    done: BTreeMap<(usize, String), (Life, u64)>,
    /// Who heard last that a call under a key had its effect, and when, in milliseconds.
    heard: BTreeMap<String, (Life, u64)>,
    /// How often things came about, to see that the simulation meets them.
    pub(crate) counts: BTreeMap<&'static str, u64>,
}

impl Oracle {
    pub(crate) fn number(&mut self) -> u64 {
        self.number += 1;
        self.number
    }

    pub(crate) fn count(&mut self, what: &'static str) {
        *self.counts.entry(what).or_default() += 1;
    }

    /// A call leaves: no second has more of them than are allowed.
    pub(crate) fn left(
        &mut self,
        setup: &Setup,
        account: usize,
        endpoint: &'static str,
        now: u64,
        is_holder: bool,
    ) -> Result<(), String> {
        self.count(if is_holder { "calls" } else { "calls without the lease" });
        for (of, limit) in [(endpoint, setup.endpoint_per_second), ("all", setup.account_per_second)] {
            let left = self.left.entry((account, of)).or_default();
            left.push_back(now);
            while left.front().is_some_and(|at| at + SECOND_MS <= now) {
                left.pop_front();
            }
            if left.len() > limit as usize {
                return Err(format!("{} calls of {of} left in one second; {limit} may", left.len()));
            }
        }
        Ok(())
    }

    /// Something had an effect, by a call that left then.
    pub(crate) fn made(
        &mut self,
        accounts: &[Account],
        account: usize,
        made: &Made,
        left: u64,
    ) -> Result<(), String> {
        self.count("effects");
        let Made { job, id, is_change } = made;
        let there = &accounts[account];
        if *is_change && self.is_restored {
            // Of a card's changes Stripe shows the latest only: an older ledger does not know of those before, nor can anybody else.
            return Ok(());
        }
        if *is_change {
            let card = there.cards.iter().find(|card| card.id == *id).ok_or("no card")?;
            let jobs: Vec<&str> = card.changes.iter().map(|change| change.job.as_str()).collect();
            let before = &jobs[..jobs.len() - 1];
            if let Some(first) = before.iter().position(|other| other == job)
                && before[first..].iter().any(|other| other != job)
            {
                return Err(format!("{job} changed {id} again after a later change: {jobs:?}"));
            }
        } else {
            let count = effects(there, job, &id[..3]).len();
            if count > 1 {
                return Err(format!("{job} has {count} effects"));
            }
        }
        let is_refused = |refused: &u64| *refused > left;
        if !id.starts_with("ich_") && self.refused.get(&(account, job.clone())).is_some_and(is_refused) {
            return Err(format!("{job} was told to be refused, and a call of it had left before"));
        }
        Ok(())
    }

    /// A process tells that a job is done.
    pub(crate) fn is_done(&mut self, life: Life, account: usize, job: &str, now_ms: u64) {
        self.done.entry((account, job.to_owned())).or_insert((life, now_ms));
    }

    /// A process hears that its call had its effect.
    pub(crate) fn hears(&mut self, life: Life, key: &str, now_ms: u64) {
        self.heard.insert(key.to_owned(), (life, now_ms));
    }

    /// Whether another process told just now that a job is done, or heard that this step of it is, which nobody is told.
    pub(crate) fn is_just_done(
        &self,
        life: Life,
        (account, job, key): (usize, &str, &str),
        now_ms: u64,
    ) -> bool {
        let told = self.done.get(&(account, job.to_owned()));
        told.into_iter().chain(self.heard.get(key)).any(|(by, at)| *by != life && now_ms < at + JUST_MS)
    }

    /// A process takes a row up.
    pub(crate) fn is_sent(&mut self, life: Life, upload: usize, at: usize) {
        *self.under_way.entry(life).or_default().entry((upload, at)).or_default() += 1;
        self.ended.remove(&(upload, at));
    }

    /// It is done with it: it has an end if it was told one and no other copy is under way. One that crashed has told none.
    fn is_through(&mut self, life: Life, upload: usize, at: usize) {
        let copies = self.under_way.entry(life).or_default().entry((upload, at)).or_default();
        *copies = copies.saturating_sub(1);
        if *copies == 0 {
            self.ended.insert((upload, at));
        }
    }

    /// A process tells what became of a row.
    pub(crate) fn told(
        &mut self,
        accounts: &[Account],
        database: &Database,
        life: Life,
        (account, upload, at): (usize, usize, usize),
        row: &Row,
        ended: &Ended,
    ) -> Result<(), String> {
        let number = self.number();
        let recorded = database.row(&World::scope(account), &row.id);
        let there = &accounts[account];
        match &ended.outcome {
            Outcome::Done(output) => {
                self.count("done");
                let id = match output {
                    Output::Issued(card) | Output::Updated(card) => &card.id,
                    Output::Created(cardholder) => &cardholder.id,
                };
                let is_effect = match &row.asks {
                    Asks::Change(_) => there.is_changed(id, &row.id),
                    Asks::Card(_) | Asks::Person { .. } => there.effects(&row.id).contains(&id.as_str()),
                };
                if !is_effect {
                    return Err(format!("{}: {id} was told, and is not its effect", row.id));
                }
                let in_ledger = recorded.filter(|recorded| recorded.state == "done");
                if in_ledger.and_then(|recorded| recorded.effect).as_ref() != Some(id) {
                    return Err(format!("{}: {id} was told, and the ledger does not say so", row.id));
                }
                self.is_through(life, upload, at);
            }
            Outcome::Refused(refusal) => {
                self.count("refused");
                let is_recorded = recorded.is_some_and(|recorded| {
                    recorded.state == "refused" && recorded.code.as_deref() == Some(refusal.code.as_ref())
                });
                if is_recorded && !MAY_HAVE_EFFECT.contains(&refusal.code.as_ref()) {
                    if has_effect(there, row) && !self.is_overwritten(row) {
                        return Err(format!(
                            "{} was told to be refused ({}) and has its effect",
                            row.id, refusal.code
                        ));
                    }
                    self.refused.insert((account, row.id.clone()), number);
                }
                self.is_through(life, upload, at);
            }
            Outcome::Unresolved(_) | Outcome::AwaitingPin(_) => self.count("unresolved"),
        }
        Ok(())
    }

    /// Whether it is a change of which nothing may tell any more.
    fn is_overwritten(&self, row: &Row) -> bool {
        self.is_restored && matches!(row.asks, Asks::Change(_))
    }

    /// An older ledger is in use: what was told is to be told again.
    pub(crate) fn restored(&mut self) {
        self.ended.clear();
        self.is_restored = true;
        self.count("restored");
    }

    /// An empty ledger is in use: the same.
    pub(crate) fn lost(&mut self) {
        self.ended.clear();
        self.count("lost");
    }

    pub(crate) fn is_ended(&self, upload: usize, setup: &Setup) -> bool {
        (0..setup.uploads[upload].rows.len()).all(|row| self.ended.contains(&(upload, row)))
    }

    pub(crate) fn is_all_ended(&self, setup: &Setup) -> bool {
        (0..setup.uploads.len()).all(|upload| self.is_ended(upload, setup))
    }

    /// The rows that have no end.
    pub(crate) fn open(&self, setup: &Setup) -> String {
        let open = setup.uploads.iter().enumerate().flat_map(|(upload, of)| {
            let rows = of.rows.iter().enumerate();
            rows.filter(move |(at, _)| !self.ended.contains(&(upload, *at))).map(|(_, row)| row.id.as_str())
        });
        open.collect::<Vec<_>>().join(", ")
    }

    /// All have been told an end.
    pub(crate) fn at_end(
        &self,
        setup: &Setup,
        accounts: &[Account],
        database: &Database,
    ) -> Result<(), String> {
        for upload in &setup.uploads {
            for row in &upload.rows {
                let there = &accounts[upload.account];
                let recorded = database.row(&World::scope(upload.account), &row.id);
                let Some(recorded) = recorded else {
                    return Err(format!("{}: no row in the ledger", row.id));
                };
                let has_effect = has_effect(there, row) && !self.is_overwritten(row);
                match recorded.state.as_str() {
                    "done" if !has_effect && !self.is_overwritten(row) => {
                        return Err(format!("{} is done and has no effect", row.id));
                    }
                    "refused"
                        if has_effect
                            && !recorded
                                .code
                                .as_deref()
                                .is_some_and(|code| MAY_HAVE_EFFECT.contains(&code)) =>
                    {
                        return Err(format!("{} is refused and has its effect", row.id));
                    }
                    "begun" => return Err(format!("{} has no end in the ledger", row.id)),
                    _ => {}
                }
            }
        }
        Ok(())
    }
}

fn has_effect(there: &Account, row: &Row) -> bool {
    match &row.asks {
        Asks::Change(_) => {
            there.cards.iter().any(|card| card.changes.iter().any(|change| change.job == row.id))
        }
        Asks::Card(_) | Asks::Person { .. } => !there.effects(&row.id).is_empty(),
    }
}

/// What a job has made, of those whose ids begin so.
fn effects<'a>(there: &'a Account, job: &str, prefix: &str) -> Vec<&'a str> {
    let cards = there.cards.iter().map(|card| (card.id.as_str(), &card.metadata));
    let cardholders = there.cardholders.iter().map(|one| (one.id.as_str(), &one.metadata));
    let those = cards.chain(cardholders).filter(|(id, metadata)| {
        id.starts_with(prefix) && metadata.get("embosser_job").is_some_and(|known| known == job)
    });
    those.map(|(id, _)| id).collect()
}
