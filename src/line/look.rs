//! Looking for a job's card at Stripe.
//!
//! Stripe has no search by metadata, so a list is read page by page, each page with a permit of the pace. Jobs of one
//! cardholder share a listing: who comes while it is read waits for it, and who comes later takes it if it began late
//! enough for him. A page that failed is where the next one goes on. A card counts whatever its status: one that was
//! cancelled since is still the job's.

mod page;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use self::page::Refused;
pub(super) use self::page::page;
use super::decision::{Among, Verdict};
use super::{Line, Stop};
use crate::clock::{Boot, Time};
use crate::job::{Job, JobId};
use crate::operation::{Found, Operation, Place};
use crate::simulation::{Mutation, is_broken};
use crate::stripe::{ListFailure, Listed};

/// Without a cardholder to filter by, cards made from this long before the first attempt on are looked through: it
/// covers clocks that disagree by a day.
const CLOCKS_DIFFER: Duration = Duration::from_secs(25 * 3600);
/// The call under a key may be older than its record by as long as Stripe remembers keys, if an earlier ledger was lost.
const RECORDED_LATE: Duration = Duration::from_secs(24 * 3600);
/// Most pages of one listing: 100,000 cards. A list that never ends is not one.
pub(super) const PAGES_MAX: usize = 1000;
/// How long a listing serves those who may begin theirs at any time.
const SERVES_FOR: Duration = Duration::from_secs(60);
/// Without a cardholder, jobs of one hour share a listing.
const SHARED_SECONDS: i64 = 3600;
/// Of how many jobs of a batch the ledger is asked whether it knows them: more would tell the same.
const JOBS_MAX: usize = 16;
/// Most listings that are kept: a bound on memory.
const LISTINGS_MAX: usize = 512;

/// What is listed.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Of {
    place: Place,
    /// Of what was made since a moment (Unix seconds), where the place is all of the account's; else of all.
    since: Option<i64>,
}

impl Of {
    pub(super) fn all(place: Place) -> Self {
        Self { place, since: None }
    }

    /// What is at a place of all of the account's, and was made since about then.
    pub(super) fn made_since(line: &Line, place: Place, began: Time) -> Self {
        Self { place, since: since(line, began) }
    }

    /// The operation whose effects are looked for there.
    fn operation(&self) -> Operation {
        match self.place {
            Place::Card(_) => Operation::UpdateCard,
            Place::Cards | Place::CardsOf(_) => Operation::CreateCard,
            Place::Cardholders | Place::CardholdersByEmail(_) | Place::CardholdersByPhone(_) => {
                Operation::CreateCardholder
            }
        }
    }

    fn is_whole_account(&self) -> bool {
        matches!(self.place, Place::Cards | Place::Cardholders)
    }
}

/// What a listing found so far: only what embosser made or changed.
struct Listing {
    began: Boot,
    /// By their job: the oldest, as lists come newest first, and how many there are.
    effects: BTreeMap<String, (Found, usize)>,
    after: Option<String>,
    pages: usize,
    is_whole: bool,
}

impl Listing {
    fn new(began: Boot) -> Self {
        Self { began, effects: BTreeMap::new(), after: None, pages: 0, is_whole: false }
    }

    fn has(&self, job: &Job) -> bool {
        self.effects.contains_key(job.id.as_str())
    }

    fn add(&mut self, operation: Operation, page: Vec<Found>) {
        for found in page {
            let Some(job) = found.job(operation).map(str::to_owned) else { continue };
            let count = self.effects.get(&job).map_or(0, |(_, count)| *count) + 1;
            self.effects.insert(job, (found, count));
        }
    }

    /// Jobs of the same batch that it has effects of, the job itself among them; a few of them.
    fn of_batch(&self, job: &Job) -> OfBatch {
        let is_of_batch = |(id, (found, _)): &(&String, &(Found, usize))| {
            found.metadata.batch.as_deref() == Some(job.batch.as_str()) || *id == job.id.as_str()
        };
        let ids = self.effects.iter().filter(is_of_batch).filter_map(|(id, _)| JobId::new(id.as_str()).ok());
        let ids: Vec<JobId> = ids.take(JOBS_MAX).collect();
        if ids.is_empty() { OfBatch::Absent } else { OfBatch::Found(ids) }
    }
}

/// The listings of a line.
#[derive(Default)]
pub(super) struct Looks {
    listings: Mutex<HashMap<Of, Arc<tokio::sync::Mutex<Option<Listing>>>>>,
    of_cards: Refused,
    of_cardholders: Refused,
}

/// What a look came to.
pub(super) enum Looked {
    /// The verdict, and when the look began.
    Verdict(Verdict, Boot),
    /// None this time, and why.
    Failed(String),
}

/// Whether cards of a batch that the ledger does not know are at Stripe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum OfBatch {
    /// There are, of these jobs.
    Found(Vec<JobId>),
    /// There are none among those that were looked at.
    Absent,
    /// Stripe does not know the job's cardholder.
    NoSuchCardholder,
    /// The cards cannot be listed: the key may not, or Stripe refuses the question.
    Unreadable,
}

impl Looks {
    /// How it is with lists of this kind.
    fn refused(&self, of: &Of) -> &Refused {
        match of.place {
            Place::Cardholders | Place::CardholdersByEmail(_) | Place::CardholdersByPhone(_) => {
                &self.of_cardholders
            }
            Place::Card(_) | Place::Cards | Place::CardsOf(_) => &self.of_cards,
        }
    }

    fn listing(&self, of: &Of) -> Arc<tokio::sync::Mutex<Option<Listing>>> {
        let mut listings = self.listings.lock().unwrap_or_else(PoisonError::into_inner);
        if listings.len() >= LISTINGS_MAX && !listings.contains_key(of) {
            // Those that somebody reads or waits for stay.
            listings.retain(|_, listing| Arc::strong_count(listing) > 1);
        }
        listings.entry(of.clone()).or_default().clone()
    }
}

/// Looks for a job's card. An older listing serves if it began at `from` or later.
pub(super) async fn look(
    line: &Line,
    job: &Job,
    among: Among,
    key_began: Option<Time>,
    from: Option<Boot>,
    recalled: &CancellationToken,
) -> Result<Looked, Stop> {
    let [narrow, wide] = job.request.places();
    let mut of = Of::all(if among == Among::All { wide } else { narrow });
    if of.is_whole_account() {
        of.since = key_began.and_then(|began| since(line, began));
    }
    let (listing, is_read) = read_shared(line, &of, from, recalled, job).await?;
    let listing = listing.as_ref().expect("it was begun");
    match is_read.err() {
        None => {}
        // Whom Stripe does not know has no card.
        Some(Unread { failure: ListFailure::Missing, .. }) if matches!(of.place, Place::CardsOf(_)) => {
            return Ok(Looked::Verdict(Verdict::Absent, listing.began));
        }
        Some(Unread { reason, .. }) => return Ok(Looked::Failed(reason)),
    }
    let Some((first, count)) = listing.effects.get(job.id.as_str()) else {
        return Ok(Looked::Verdict(Verdict::Absent, listing.began));
    };
    if *count > 1 {
        // Never by embosser's rules: somebody copied the metadata, or Stripe forgot a key early.
        tracing::error!(job = %job.id, cards = count, "several cards carry this job's id");
    }
    Ok(Looked::Verdict(verdict(job, first), listing.began))
}

/// The moment from which on an account's cards are listed; none if it lies in the future, as a clock was set then.
fn since(line: &Line, began: Time) -> Option<i64> {
    let margin = i64::try_from((CLOCKS_DIFFER + RECORDED_LATE).as_millis()).unwrap_or(i64::MAX);
    (began <= line.parts.clock.now())
        .then(|| (began.unix_ms().saturating_sub(margin) / 1000).div_euclid(SHARED_SECONDS) * SHARED_SECONDS)
}

/// Whether what was found is what the job asks for.
fn verdict(job: &Job, found: &Found) -> Verdict {
    let differs = job.request.differences(found);
    if differs.is_empty() {
        Verdict::Found(found.output(job.request.operation(), job.changed()))
    } else {
        Verdict::Other { card: found.id.clone(), differs: differs.join(", ") }
    }
}

/// Whether the job's cardholder, or without one the account's latest page, has a card of the job's batch.
pub(super) async fn look_for_batch(
    line: &Line,
    job: &Job,
    recalled: &CancellationToken,
) -> Result<Result<OfBatch, String>, Stop> {
    let [narrow, _] = job.request.places();
    let of = Of::all(narrow);
    if line.looks.refused(&of).was_just_now(line.parts.clock.boot()) {
        return Ok(Ok(OfBatch::Unreadable));
    }
    if of.is_whole_account() {
        return Ok(match page(line, &of, None, recalled).await? {
            Listed::Page { found, .. } => {
                let mut listing = Listing::new(line.parts.clock.boot());
                listing.add(of.operation(), found);
                Ok(listing.of_batch(job))
            }
            Listed::Failed { reason, failure } => Unread { reason, failure }.for_batch(job),
        });
    }
    let (listing, is_read) = read_shared(line, &of, None, recalled, job).await?;
    if let Err(unread) = is_read {
        return Ok(unread.for_batch(job));
    }
    Ok(Ok(listing.as_ref().expect("it was read").of_batch(job)))
}

/// Whether that cardholder has a card of the job's; else why that is not known. An older listing serves if it began at `from` or later.
pub(super) async fn has_card(
    line: &Line,
    job: &Job,
    cardholder: &str,
    from: Option<Boot>,
    recalled: &CancellationToken,
) -> Result<Result<bool, String>, Stop> {
    let of = Of::all(Place::CardsOf(cardholder.to_owned()));
    let (listing, is_read) = read_shared(line, &of, from, recalled, job).await?;
    Ok(match is_read {
        Ok(()) => Ok(listing.as_ref().expect("it was read").has(job)),
        // A key that may not list cards is not helped by trying again.
        Err(Unread {
            failure: ListFailure::Missing | ListFailure::Refused | ListFailure::Forbidden, ..
        }) => Ok(false),
        Err(Unread { reason, .. }) => Err(reason),
    })
}

/// A listing that others may read as well.
type Shared = tokio::sync::OwnedMutexGuard<Option<Listing>>;

/// Reads a listing that others may read as well, when nobody else does.
async fn read_shared(
    line: &Line,
    of: &Of,
    from: Option<Boot>,
    recalled: &CancellationToken,
    job: &Job,
) -> Result<(Shared, Result<(), Unread>), Stop> {
    let mut listing = tokio::select! {
        biased;
        listing = line.looks.listing(of).lock_owned() => listing,
        () = recalled.cancelled() => return Err(Stop::Closed),
        () = line.stopping.cancelled() => return Err(Stop::Closed),
    };
    let is_read = read(line, of, from, &mut listing, recalled, job).await?;
    Ok((listing, is_read))
}

/// Why a listing is not whole.
struct Unread {
    reason: String,
    failure: ListFailure,
}

impl Unread {
    /// What it means for a batch that the ledger does not know. A key that may not list cards is not helped by trying
    /// again at once.
    fn for_batch(self, job: &Job) -> Result<OfBatch, String> {
        match self.failure {
            ListFailure::Passing | ListFailure::Limited(_) | ListFailure::KeyRejected => Err(self.reason),
            ListFailure::Missing if job.request.cardholder.is_some() => Ok(OfBatch::NoSuchCardholder),
            ListFailure::Missing | ListFailure::Refused | ListFailure::Forbidden => {
                tracing::warn!(
                    reason = self.reason,
                    "the cards cannot be listed, so whether this batch was issued from another ledger is not known"
                );
                Ok(OfBatch::Unreadable)
            }
        }
    }
}

/// Reads a listing to its end, from where it stands if it serves, else anew; or until it has the job's card.
async fn read(
    line: &Line,
    of: &Of,
    from: Option<Boot>,
    listing: &mut Option<Listing>,
    recalled: &CancellationToken,
    job: &Job,
) -> Result<Result<(), Unread>, Stop> {
    let now = line.parts.clock.boot();
    let serves = |listing: &Listing| {
        // A card tells of its latest change, and another may have been made since.
        if matches!(of.place, Place::Card(_)) {
            return false;
        }
        listing.has(job) || from.map_or(now.since(listing.began) < SERVES_FOR, |from| listing.began >= from)
    };
    if !listing.as_ref().is_some_and(serves) {
        *listing = Some(Listing::new(line.parts.clock.boot()));
    }
    let listing = listing.as_mut().expect("it was made if it was missing");
    while !listing.is_whole && !listing.has(job) {
        if listing.pages >= PAGES_MAX {
            *listing = Listing::new(line.parts.clock.boot());
            let reason = "the list of cards does not end".into();
            return Ok(Err(Unread { reason, failure: ListFailure::Passing }));
        }
        match page(line, of, listing.after.as_deref(), recalled).await? {
            Listed::Page { found, more } => {
                listing.pages += 1;
                if let Some(last) = found.last() {
                    listing.after = Some(last.id.clone());
                }
                listing.is_whole = !more || is_broken(Mutation::ReadFirstPageOnly);
                listing.add(of.operation(), found);
            }
            Listed::Failed { reason, failure } => return Ok(Err(Unread { reason, failure })),
        }
    }
    Ok(Ok(()))
}
