//! Who has a cardholder at Stripe already.
//!
//! An account's cardholders are listed once for all the people of a batch, which is a read for each hundred of them, where a
//! question for each person would be a read or two for each row. Only where an account has more than are listed is each person
//! asked for, by the e-mail address and then by the phone number. Kept are digests of what tells a person.

mod directory;

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::limiter::endpoint_of_place;
use super::look::{Of, page};
use super::standing::in_turn;
use super::{Line, Stop};
use crate::clock::Boot;
use crate::job::{Job, JobId, Step};
use crate::ledger::{LedgerError, State};
use crate::operation::{By, Found, Operation, Person, Place, Request};
use crate::outcome::{Cardholder, Output};
use crate::pace::{Answered, Pace};
use crate::stripe::{Client, ListFailure, Listed};
pub use directory::{Directory, Known, Match, doubtful, several};
pub(super) use directory::{created, note};

/// Most pages that are listed: 20,000 cardholders.
const PAGES_MAX: usize = 200;
/// How long a list is relied on: others may create cardholders as well.
const SERVES_FOR: Duration = Duration::from_secs(600);

/// The people with cardholders.
#[derive(Default)]
pub(super) struct People {
    listed: tokio::sync::Mutex<Option<Current>>,
    created: Mutex<Created>,
}

/// Cardholders that were created here since the oldest list that may be relied on: a list may not show them.
#[derive(Default)]
struct Created {
    /// How many there were before these.
    before: usize,
    latest: VecDeque<(Boot, Known)>,
}

/// A list, and how long it can be relied on.
struct Current {
    listing: Listing,
    began: Boot,
    /// How often the account's lease had been taken: whoever has it in between may create cardholders.
    lease: u64,
    /// How many of all that were created here are in it, or were too old for it.
    created: usize,
}

/// What of the account's was listed.
#[derive(Default)]
struct Listing {
    after: Option<String>,
    pages: usize,
    reach: Reach,
    directory: Directory,
}

/// How far a list goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Reach {
    /// It is being read.
    #[default]
    Partly,
    /// To the account's first cardholder.
    Whole,
    /// There are more than are listed.
    TooMany,
    /// The key may not list them.
    Unreadable,
}

impl People {
    /// A cardholder was created, or is known to be a person's.
    pub(super) fn add(&self, now: Boot, request: &Request, cardholder: &Cardholder) {
        let mut created = self.created();
        created.latest.push_back((now, Known::created(cardholder, request)));
        // Whoever creates cardholders and never looks for one keeps no more than these.
        while created.latest.front().is_some_and(|(at, _)| now.since(*at) > SERVES_FOR) {
            created.latest.pop_front();
            created.before += 1;
        }
    }

    fn created(&self) -> MutexGuard<'_, Created> {
        self.created.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds those that were created since it was last done.
    fn bring_up_to_date(&self, current: &mut Current) {
        let created = self.created();
        let known = current.created.saturating_sub(created.before);
        for (_, known) in created.latest.iter().skip(known) {
            current.listing.directory.add_known(known.clone());
        }
        current.created = created.before + created.latest.len();
    }

    /// One may have been created whose id is not known: it is to be seen in a list.
    pub(super) async fn forget(&self) {
        *self.listed.lock().await = None;
    }
}

impl Listing {
    fn add(&mut self, found: &[Found], more: bool) {
        self.pages += 1;
        if let Some(last) = found.last() {
            self.after = Some(last.id.clone());
        }
        found.iter().for_each(|found| self.directory.add(found));
        self.reach = match more {
            false => Reach::Whole,
            true if self.pages >= PAGES_MAX => Reach::TooMany,
            true => Reach::Partly,
        };
    }
}

/// Under which name the ledger keeps who began to create a cardholder for a sign last.
fn name(line: &Line, sign: &JobId) -> String {
    format!("person:{}:{}", line.parts.scope.as_str(), sign.as_str())
}

/// Whether what is to be done about a person still is what was decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Decided {
    /// It is.
    Still,
    /// Another process has begun a call for the person meanwhile: all is to be decided anew.
    Anew,
}

/// A call for this person is about to be recorded: whoever shares a sign with it sees that its end is not known. The write may
/// wait for its database for minutes, so it takes effect only if what stands there still is what was read; and what was read is
/// looked at again, unless a call of this job's own may have had its effect.
pub(super) async fn begins(line: &Line, job: &Job, may_have_effect: bool) -> Result<Decided, LedgerError> {
    let ledger = &line.parts.ledger;
    for sign in job.signs_of_person() {
        let name = name(line, &sign);
        let read = ledger.metadata(&name).await?;
        let is_settled = !job.request.reuses() || may_have_effect;
        if !is_settled && of_another(line, job, read.as_deref()).await?.is_some() {
            return Ok(Decided::Anew);
        }
        if ledger.swap_metadata(name, read, Some(job.id.to_string())).await?.is_err() {
            return Ok(Decided::Anew);
        }
    }
    Ok(Decided::Still)
}

/// What the ledger knows of somebody with one of a person's signs, under another id.
pub(super) enum Other {
    /// A call was begun, and its end is not known.
    Open,
    /// A cardholder was created, which lists may not show yet.
    Created(Cardholder, By),
}

/// How the call of another job for a person stands.
enum Call {
    Open,
    Created(Cardholder),
}

/// Whether a cardholder was created, or may have been, under another id for somebody with one of the person's signs.
pub(super) async fn other(line: &Line, job: &Job) -> Result<Option<Other>, LedgerError> {
    let mut created = None;
    for (by, key) in job.request.person().keys() {
        let Some(sign) = Job::sign(key) else { continue };
        let read = line.parts.ledger.metadata(&name(line, &sign)).await?;
        match of_another(line, job, read.as_deref()).await? {
            Some(Call::Open) => return Ok(Some(Other::Open)),
            Some(Call::Created(cardholder)) if created.is_none() => {
                created = Some(Other::Created(cardholder, *by));
            }
            Some(Call::Created(_)) | None => {}
        }
    }
    Ok(created)
}

/// How the call stands of the job that stands under a sign, if that is another one and has or may have had an effect.
async fn of_another(line: &Line, job: &Job, read: Option<&str>) -> Result<Option<Call>, LedgerError> {
    let create = Operation::CreateCardholder;
    let other = read.filter(|other| *other != job.id.as_str());
    let Some(other) = other.and_then(|other| JobId::new(other).ok()) else { return Ok(None) };
    let steps = [Step::First(create), Step::Last(create)].map(|step| (other.clone(), step));
    let mut created = None;
    for row in line.parts.ledger.look_up_all(&line.parts.scope, steps.into()).await?.into_iter().flatten() {
        match row.state {
            State::Begun => return Ok(Some(Call::Open)),
            State::Done(Output::Created(cardholder)) if created.is_none() => {
                created = Some(Call::Created(cardholder));
            }
            State::Done(_) | State::Refused(_) | State::AwaitingPin => {}
        }
    }
    Ok(created)
}

/// Lists the cardholders of an account, each page in its turn of the pace; and whether those are all.
///
/// # Errors
/// How and why they cannot be listed.
pub async fn list_cardholders(
    pace: &Pace,
    client: &Client,
) -> Result<(Directory, bool), (ListFailure, String)> {
    let mut listing = Listing::default();
    while listing.reach == Reach::Partly {
        let place = Place::Cardholders;
        let ask = |leaving| client.list(&place, None, listing.after.as_deref(), leaving);
        let limited = |listed: &Listed| match listed {
            Listed::Failed { failure: ListFailure::Limited(reason), .. } => Err(*reason),
            Listed::Failed { failure: ListFailure::Passing, reason } => Ok(Answered::Failed(reason.clone())),
            Listed::Page { .. } | Listed::Failed { .. } => Ok(Answered::Accepted),
        };
        match in_turn(pace, endpoint_of_place(&place), ask, limited).await {
            Some(Listed::Page { found, more }) => listing.add(&found, more),
            Some(Listed::Failed { reason, failure }) => return Err((failure, reason)),
            None => return Err((ListFailure::Passing, "the pace is closed".into())),
        }
    }
    Ok((listing.directory, listing.reach == Reach::Whole))
}

/// Looks whether a person has a cardholder; if it cannot be told, why.
pub(super) async fn find(
    line: &Line,
    request: &Request,
    person: &Person,
    recalled: &CancellationToken,
) -> Result<Result<Match, String>, Stop> {
    let mut listed = tokio::select! {
        biased;
        listed = line.people.listed.lock() => listed,
        () = recalled.cancelled() => return Err(Stop::Closed),
        () = line.stopping.cancelled() => return Err(Stop::Closed),
    };
    let (now, lease) = (line.parts.clock.boot(), line.lease.times());
    let serves = |listed: &Current| listed.lease == lease && now.since(listed.began) < SERVES_FOR;
    if !listed.as_ref().is_some_and(serves) {
        *listed = Some(Current { listing: Listing::default(), began: now, lease, created: 0 });
    }
    let current = listed.as_mut().expect("it was made if it was missing");
    let listing = &mut current.listing;
    while listing.reach == Reach::Partly {
        match page(line, &Of::all(Place::Cardholders), listing.after.as_deref(), recalled).await? {
            Listed::Page { found, more } => listing.add(&found, more),
            Listed::Failed { reason, failure: ListFailure::Refused | ListFailure::Missing }
                if listing.after.is_some() =>
            {
                // The cardholder after whom it was to go on is gone, for instance: from the beginning, then.
                *listing = Listing::default();
                return Ok(Err(reason));
            }
            Listed::Failed {
                reason,
                failure: ListFailure::Forbidden | ListFailure::Refused | ListFailure::Missing,
            } => {
                tracing::warn!(
                    reason,
                    "cardholders cannot be listed, so people who have one already are not found"
                );
                listing.reach = Reach::Unreadable;
            }
            Listed::Failed { reason, .. } => return Ok(Err(reason)),
        }
    }
    line.people.bring_up_to_date(current);
    let (found, reach) = (current.listing.directory.find(person), current.listing.reach);
    drop(listed);
    if found == Match::None && reach == Reach::TooMany {
        return ask(line, request, person, recalled).await;
    }
    Ok(Ok(found))
}

/// Asks for one person, where there are more than are listed.
async fn ask(
    line: &Line,
    request: &Request,
    person: &Person,
    recalled: &CancellationToken,
) -> Result<Result<Match, String>, Stop> {
    let by = |path: &str| request.value(path).map(str::to_owned);
    let places = [
        (By::Email, by("email").map(Place::CardholdersByEmail)),
        (By::Phone, by("phone_number").map(Place::CardholdersByPhone)),
    ];
    for (by, place) in places {
        let Some(place) = place else { continue };
        match page(line, &Of::all(place), None, recalled).await? {
            Listed::Page { found, .. } => {
                // Whatever the list was narrowed by, it is this person's only if it says so itself.
                let found: Vec<_> = found.iter().map(Known::of).collect();
                let theirs = found.iter().filter(|known| known.has(by, person.key(by)));
                match directory::matched(theirs, by, person) {
                    Match::None => {}
                    found => return Ok(Ok(found)),
                }
            }
            Listed::Failed {
                failure: ListFailure::Forbidden | ListFailure::Refused | ListFailure::Missing,
                ..
            } => {}
            Listed::Failed { reason, .. } => return Ok(Err(reason)),
        }
    }
    Ok(Ok(Match::None))
}
