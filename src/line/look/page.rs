//! One page of a list of Stripe's, and when it is believed that there is none.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::{Of, SERVES_FOR};
use crate::backoff::Backoff;
use crate::clock::Boot;
use crate::line::limiter::{endpoint_of_place, limiter_of};
use crate::line::{Halt, Line, Stop};
use crate::pace::{Answered as Paced, Closed, Waited};
use crate::stripe::{ListFailure, Listed};

/// How often in a row a list must be refused until that is believed.
const NO_TIMES: u32 = 4;
/// Between two such questions.
const NO_AGAIN: Duration = Duration::from_millis(200);
/// Longest such wait.
const NO_AGAIN_MAX: Duration = Duration::from_secs(2);

/// Whether a definite no was the answer to a kind of list, several times: then the key may not list these, and is not asked over and
/// over.
#[derive(Default)]
pub(super) struct Refused {
    is: AtomicBool,
    /// When that was heard last.
    at: Mutex<Option<Boot>>,
    /// Whoever finds that out holds it.
    finding_out: tokio::sync::Mutex<()>,
}

impl Refused {
    fn is(&self) -> bool {
        self.is.load(Ordering::Relaxed)
    }

    /// Whether that was heard a moment ago, so that another question would tell nothing.
    pub(super) fn was_just_now(&self, now: Boot) -> bool {
        let at = *self.at.lock().unwrap_or_else(PoisonError::into_inner);
        self.is() && at.is_some_and(|at| now.since(at) < SERVES_FOR)
    }

    /// What the answer was at last.
    fn hears(&self, listed: &Listed, now: Boot) {
        match (listed, No::of(listed)) {
            (Listed::Page { .. }, _) => self.is.store(false, Ordering::Relaxed),
            (_, Some(No::ToAll)) => {
                *self.at.lock().unwrap_or_else(PoisonError::into_inner) = Some(now);
                self.is.store(true, Ordering::Relaxed);
            }
            (_, Some(No::ToThis) | None) => {}
        }
    }
}

/// A definite no to a question for a list.
#[derive(Clone, Copy)]
enum No {
    /// To this question: Stripe does not know, or not understand, what the list is narrowed by.
    ToThis,
    /// To all of the kind: the key may not, or there is no such list.
    ToAll,
}

impl No {
    fn of(listed: &Listed) -> Option<Self> {
        match listed {
            Listed::Failed { failure: ListFailure::Missing | ListFailure::Refused, .. } => Some(Self::ToThis),
            Listed::Failed { failure: ListFailure::Forbidden, .. } => Some(Self::ToAll),
            Listed::Page { .. } | Listed::Failed { .. } => None,
        }
    }
}

/// A page of a list. That there is none is believed only if it was the answer several times: what stands before Stripe may say no
/// for once, and whoever took that for an empty list would make a second card, or cardholder.
pub(in crate::line) async fn page(
    line: &Line,
    of: &Of,
    after: Option<&str>,
    recalled: &CancellationToken,
) -> Result<Listed, Stop> {
    let refused = line.looks.refused(of);
    let mut listed = page_once(line, of, after, recalled).await?;
    // One finds out for the others what is said to all.
    let finding_out = match No::of(&listed) {
        None => None,
        Some(No::ToThis) => Some(None),
        Some(No::ToAll) if refused.is() => None,
        Some(No::ToAll) => tokio::select! {
            one = refused.finding_out.lock() => Some(Some(one)),
            () = recalled.cancelled() => return Err(Stop::Closed),
            () = line.stopping.cancelled() => return Err(Stop::Closed),
        },
    };
    if let Some(_for_the_others) = finding_out {
        let mut backoff = Backoff::between(NO_AGAIN, NO_AGAIN_MAX);
        for _ in 1..NO_TIMES {
            let is_known = match No::of(&listed) {
                None => true,
                Some(No::ToThis) => false,
                Some(No::ToAll) => refused.is(),
            };
            if is_known {
                break;
            }
            tokio::select! {
                () = tokio::time::sleep(backoff.wait()) => {}
                () = recalled.cancelled() => return Err(Stop::Closed),
                () = line.stopping.cancelled() => return Err(Stop::Closed),
            }
            listed = page_once(line, of, after, recalled).await?;
        }
    }
    refused.hears(&listed, line.parts.clock.boot());
    Ok(listed)
}

async fn page_once(
    line: &Line,
    of: &Of,
    after: Option<&str>,
    recalled: &CancellationToken,
) -> Result<Listed, Stop> {
    loop {
        let waited = async {
            let turn = line.parts.pace.turn(endpoint_of_place(&of.place)).await?;
            Ok::<_, Closed>(turn.permit().await)
        };
        let waited = tokio::select! {
            biased;
            waited = waited => waited.map_err(|Closed| Stop::Closed)?,
            () = recalled.cancelled() => return Err(Stop::Closed),
        };
        let Waited::Permit(mut permit) = waited else { continue };
        if !line.lease.is_surely_ours() {
            // A process that slept may have lost the lease to one that calls now; whoever lists calls, too.
            drop(permit);
            tokio::select! {
                biased;
                assured = line.lease.assure(&line.stopping) => { assured?; }
                () = recalled.cancelled() => return Err(Stop::Closed),
            }
            continue;
        }
        let departure = permit.departure();
        let leaving = Box::new(|| departure.left());
        let listed = line.parts.client.list(&of.place, of.since, after, leaving).await;
        match &listed {
            Listed::Page { .. } => {
                line.has_answered();
                permit.answered(Paced::Accepted);
            }
            Listed::Failed { failure: ListFailure::Limited(reason), .. } => {
                crate::metrics::rate_limited(reason.word());
                permit.answered(Paced::Limited(limiter_of(*reason)));
                continue;
            }
            Listed::Failed { failure: ListFailure::KeyRejected, reason } => {
                permit.answered(Paced::Accepted);
                line.halt_with(Halt::Key(reason.clone()));
                return Err(Stop::Halted);
            }
            Listed::Failed {
                failure: ListFailure::Forbidden | ListFailure::Refused | ListFailure::Missing,
                ..
            } => {
                permit.answered(Paced::Accepted);
            }
            Listed::Failed { failure: ListFailure::Passing, reason } => {
                permit.answered(Paced::Failed(reason.clone()));
            }
        }
        return Ok(listed);
    }
}
