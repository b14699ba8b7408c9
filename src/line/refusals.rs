//! When Stripe says the same of everybody: a refusal that is about the account must not spend the batch.
//!
//! After so many equal refusals in a row, with no success between, no further job is spent: `issue` ends, a server or a
//! worker lets one job try from time to time, and the others wait. A refusal that equals the repeated one is final for
//! nobody then.

use std::collections::BTreeSet;
use std::sync::PoisonError;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use crate::locks::{Mutex, MutexGuard};
use crate::metrics;

/// First wait before one job tries; it doubles.
const WAIT_MIN: Duration = Duration::from_secs(5);
/// Longest wait between two tries.
const WAIT_MAX: Duration = Duration::from_secs(60);

/// What becomes of the line when Stripe repeats itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnSameRefusals {
    /// It stops.
    Stop,
    /// Jobs wait, and one tries from time to time.
    Wait,
}

/// Which call was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Whose {
    /// The one that tried for all.
    Trial,
    /// One that was under way.
    UnderWay,
}

/// What a refusal is to its job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Meaning {
    /// Its end.
    Final,
    /// Its end, and the last one that is: from here on nobody is refused so.
    FinalAndLast,
    /// Nothing: the job waits with the others.
    Repeated,
}

/// The refusals in a row.
pub(super) struct Refusals {
    /// Whose, if that is known.
    account: Option<String>,
    same_max: u32,
    wait_min: Duration,
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Default)]
struct State {
    /// What the latest ones have in common, and the latest one's sentence.
    latest: Option<(String, String)>,
    count: u32,
    /// The cardholders that these were about, where they were: many of one cardholder's rows are refused for that one.
    about: BTreeSet<String>,
    /// None while jobs may go.
    open: Option<Open>,
}

struct Open {
    until: Instant,
    wait: Duration,
    is_tried: bool,
}

/// The right to try, while the others wait. Dropped without news, it goes to the next.
#[must_use]
pub(super) struct Try<'r> {
    refusals: &'r Refusals,
}

impl Refusals {
    pub(super) fn new(same_max: u32, account: Option<&str>) -> Self {
        let account = account.map(str::to_owned);
        Self { account, same_max, wait_min: WAIT_MIN, state: Mutex::default(), changed: Notify::new() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The sentence that Stripe repeats, while it does.
    pub(super) fn repeated(&self) -> Option<String> {
        let state = self.state();
        state.open.as_ref().and(state.latest.as_ref()).map(|(_, sentence)| sentence.clone())
    }

    /// A card was made.
    pub(super) fn accepted(&self) {
        let mut state = self.state();
        if state.count == 0 && state.open.is_none() {
            return;
        }
        *state = State::default();
        drop(state);
        metrics::refused_alike(false, self.account.as_deref());
        self.changed.notify_waiters();
    }

    /// A call was refused. `same` is what equal refusals have in common; `about` the cardholder whom it is about, if it is about one.
    pub(super) fn refused(&self, same: &str, sentence: &str, whose: Whose, about: Option<&str>) -> Meaning {
        let mut state = self.state();
        let is_same = state.latest.as_ref().is_some_and(|(latest, _)| latest == same);
        if is_same && let Some(open) = &mut state.open {
            // What was under way when it began tells nothing new.
            if whose == Whose::Trial {
                open.wait = (open.wait * 2).min(WAIT_MAX);
                open.until = Instant::now() + open.wait;
            }
            return Meaning::Repeated;
        }
        state.latest = Some((same.to_owned(), sentence.to_owned()));
        if !is_same {
            (state.count, state.about) = (0, BTreeSet::new());
        }
        // No more of them than are counted are kept.
        if about.is_none_or(|cardholder| state.about.insert(cardholder.to_owned())) {
            state.count += 1;
        }
        let was_open = state.open.take().is_some();
        let meaning = if state.count >= self.same_max {
            state.open =
                Some(Open { until: Instant::now() + self.wait_min, wait: self.wait_min, is_tried: false });
            Meaning::FinalAndLast
        } else {
            Meaning::Final
        };
        drop(state);
        metrics::refused_alike(meaning == Meaning::FinalAndLast, self.account.as_deref());
        if was_open {
            self.changed.notify_waiters();
        }
        meaning
    }

    /// Waits until jobs may go, or this one may try for them.
    pub(super) async fn ready(&self) -> Option<Try<'_>> {
        loop {
            let changed = self.changed.notified();
            let mut changed = std::pin::pin!(changed);
            // Before the state is looked at, so that no change is missed.
            changed.as_mut().enable();
            let until = {
                let mut state = self.state();
                let Some(open) = &mut state.open else { return None };
                if open.is_tried {
                    None
                } else if open.until <= Instant::now() {
                    open.is_tried = true;
                    return Some(Try { refusals: self });
                } else {
                    Some(open.until)
                }
            };
            match until {
                Some(until) => tokio::select! {
                    biased;
                    () = tokio::time::sleep_until(until) => {}
                    () = changed => {}
                },
                None => changed.await,
            }
        }
    }
}

impl Drop for Try<'_> {
    fn drop(&mut self) {
        if let Some(open) = &mut self.refusals.state().open {
            open.is_tried = false;
        }
        self.refusals.changed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_refusals_for_one_cardholder_are_as_one() {
        let refusals = Refusals::new(3, None);
        for _ in 0..50 {
            assert_eq!(refusals.refused("inactive", "I", Whose::UnderWay, Some("ich_1")), Meaning::Final);
        }
        assert_eq!(refusals.refused("inactive", "I", Whose::UnderWay, Some("ich_2")), Meaning::Final);
        assert_eq!(refusals.refused("inactive", "I", Whose::UnderWay, Some("ich_1")), Meaning::Final);
        assert_eq!(refusals.refused("inactive", "I", Whose::UnderWay, Some("ich_3")), Meaning::FinalAndLast);
    }

    #[tokio::test]
    async fn equal_refusals_in_a_row_stop_the_spending_and_one_success_lets_all_go() {
        const SHORT: Duration = Duration::from_millis(50);
        let refusals = Refusals { wait_min: SHORT, ..Refusals::new(3, None) };
        assert_eq!(refusals.refused("a", "A 1", Whose::UnderWay, None), Meaning::Final);
        assert_eq!(refusals.refused("b", "B", Whose::UnderWay, None), Meaning::Final, "another one");
        assert_eq!(refusals.refused("a", "A 2", Whose::UnderWay, None), Meaning::Final);
        assert_eq!(refusals.refused("a", "A 3", Whose::UnderWay, None), Meaning::Final);
        refusals.accepted();
        for _ in 0..2 {
            assert_eq!(refusals.refused("a", "A 4", Whose::UnderWay, None), Meaning::Final);
        }
        assert_eq!(refusals.repeated(), None);
        assert_eq!(refusals.refused("a", "A 5", Whose::UnderWay, None), Meaning::FinalAndLast);
        assert_eq!(refusals.repeated().as_deref(), Some("A 5"));
        for _ in 0..10 {
            assert_eq!(
                refusals.refused("a", "A 6", Whose::UnderWay, None),
                Meaning::Repeated,
                "one that was under way"
            );
        }
        let began = Instant::now();
        let first = refusals.ready().await.expect("one may try");
        assert!(began.elapsed() >= SHORT);
        assert!(began.elapsed() < 8 * SHORT, "those under way made nobody wait longer");
        assert!(tokio::time::timeout(4 * SHORT, refusals.ready()).await.is_err(), "and no other meanwhile");
        assert_eq!(refusals.refused("a", "A 7", Whose::Trial, None), Meaning::Repeated);
        drop(first);
        let second = refusals.ready().await.expect("again after a while");
        refusals.accepted();
        drop(second);
        assert!(refusals.ready().await.is_none(), "all may go");
    }
}
