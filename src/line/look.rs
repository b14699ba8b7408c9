//! Looking for a job's card at Stripe.
//!
//! Stripe has no search by metadata, so a list is read page by page, each page with a permit of the pace. Jobs of one
//! cardholder share a listing: who comes while it is read waits for it, and who comes later takes it if it began late
//! enough for him. A page that failed is where the next one goes on. A card counts whatever its status: one that was
//! cancelled since is still the job's.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::decision::{Among, Verdict};
use super::{Halt, Line, Stop, limiter_of};
use crate::clock::{Boot, Time};
use crate::job::Job;
use crate::pace::{Answered as Paced, Waited};
use crate::stripe::{ListFailure, Listed, ListedCard};

/// Without a cardholder to filter by, cards made from this long before the first attempt on are looked through: it
/// covers clocks that disagree by a day.
const CLOCKS_DIFFER: Duration = Duration::from_secs(25 * 3600);
/// The call under a key may be older than its record by as long as Stripe remembers keys, if an earlier ledger was lost.
const RECORDED_LATE: Duration = Duration::from_secs(24 * 3600);
/// Most pages of one listing: 100,000 cards. A list that never ends is not one.
const PAGES_MAX: usize = 1000;
/// How long a listing serves those who may begin theirs at any time.
const SERVES_FOR: Duration = Duration::from_secs(60);
/// Without a cardholder, jobs of one hour share a listing.
const SHARED_SECONDS: i64 = 3600;
/// Most listings that are kept: a bound on memory.
const LISTINGS_MAX: usize = 512;

/// Which cards are listed.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Of {
    /// A cardholder's.
    Cardholder(String),
    /// The account's, made since a moment (Unix seconds), or all.
    Account(Option<i64>),
}

/// What a listing found so far: only cards that embosser made.
struct Listing {
    began: Boot,
    /// By their job: the oldest, as lists come newest first, and how many there are.
    cards: HashMap<String, (ListedCard, usize)>,
    /// The batches that they are of.
    batches: HashSet<String>,
    after: Option<String>,
    pages: usize,
    is_whole: bool,
}

impl Listing {
    fn new(began: Boot) -> Self {
        let (cards, batches) = (HashMap::new(), HashSet::new());
        Self { began, cards, batches, after: None, pages: 0, is_whole: false }
    }

    fn has(&self, job: &Job) -> bool {
        self.cards.contains_key(job.id.as_str())
    }

    fn add(&mut self, page: Vec<ListedCard>) {
        for card in page {
            if let Some(batch) = &card.batch {
                self.batches.insert(batch.clone());
            }
            let Some(job) = card.job.clone() else { continue };
            let count = self.cards.get(&job).map_or(0, |(_, count)| *count) + 1;
            self.cards.insert(job, (card, count));
        }
    }

    /// Whether it has a card of the job's batch, or of the job itself.
    fn of_batch(&self, job: &Job) -> OfBatch {
        let is_found = self.batches.contains(job.batch.as_str()) || self.has(job);
        if is_found { OfBatch::Found } else { OfBatch::Absent }
    }
}

/// The listings of a line.
#[derive(Default)]
pub(super) struct Looks {
    listings: Mutex<HashMap<Of, Arc<tokio::sync::Mutex<Option<Listing>>>>>,
}

/// What a look came to.
pub(super) enum Looked {
    /// The verdict, and when the look began.
    Verdict(Verdict, Boot),
    /// None this time, and why.
    Failed(String),
}

/// Whether cards of a batch that the ledger does not know are at Stripe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum OfBatch {
    /// There are.
    Found,
    /// There are none among those that were looked at.
    Absent,
    /// Stripe does not know the job's cardholder.
    NoSuchCardholder,
    /// Cards cannot be listed with this key.
    Unreadable,
}

impl Looks {
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
    let of = match (&job.card.cardholder, among) {
        (Some(cardholder), Among::Cardholder) => Of::Cardholder(cardholder.clone()),
        (None, _) | (_, Among::All) => Of::Account(key_began.and_then(|began| since(line, began))),
    };
    let shared = line.looks.listing(&of);
    let mut listing = tokio::select! {
        listing = shared.lock() => listing,
        () = recalled.cancelled() => return Err(Stop::Closed),
        () = line.stopping.cancelled() => return Err(Stop::Closed),
    };
    if let Err(Unread { reason, .. }) = read(line, &of, from, &mut listing, recalled, job).await? {
        return Ok(Looked::Failed(reason));
    }
    let listing = listing.as_ref().expect("it was read");
    let Some((first, count)) = listing.cards.get(job.id.as_str()) else {
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
fn verdict(job: &Job, found: &ListedCard) -> Verdict {
    let compared = [
        ("type", job.card.value("type"), found.kind.as_deref()),
        ("currency", job.card.value("currency"), found.currency.as_deref()),
        ("cardholder", job.card.cardholder.as_deref(), found.cardholder.as_deref()),
    ];
    let differs: Vec<String> = compared
        .into_iter()
        .filter_map(|(name, wanted, has)| Some((name, wanted?, has?)))
        .filter(|(_, wanted, has)| !wanted.trim().eq_ignore_ascii_case(has))
        .map(|(name, wanted, has)| format!("its {name} is {has}, not {wanted}"))
        .collect();
    if differs.is_empty() {
        Verdict::Found(found.card.clone())
    } else {
        Verdict::Other { card: found.card.id.clone(), differs: differs.join(", ") }
    }
}

/// Whether the job's cardholder, or without one the account's latest page, has a card of the job's batch.
pub(super) async fn look_for_batch(
    line: &Line,
    job: &Job,
    recalled: &CancellationToken,
) -> Result<Result<OfBatch, String>, Stop> {
    let Some(cardholder) = &job.card.cardholder else {
        return Ok(match page(line, &Of::Account(None), None, recalled).await? {
            Listed::Page { cards, .. } => {
                let mut listing = Listing::new(line.parts.clock.boot());
                listing.add(cards);
                Ok(listing.of_batch(job))
            }
            Listed::Failed { reason, failure } => Unread { reason, failure }.for_batch(job),
        });
    };
    let of = Of::Cardholder(cardholder.clone());
    let shared = line.looks.listing(&of);
    let mut listing = tokio::select! {
        listing = shared.lock() => listing,
        () = recalled.cancelled() => return Err(Stop::Closed),
        () = line.stopping.cancelled() => return Err(Stop::Closed),
    };
    if let Err(unread) = read(line, &of, None, &mut listing, recalled, job).await? {
        return Ok(unread.for_batch(job));
    }
    Ok(Ok(listing.as_ref().expect("it was read").of_batch(job)))
}

/// Why a listing is not whole.
struct Unread {
    reason: String,
    failure: ListFailure,
}

impl Unread {
    /// What it means for a batch that the ledger does not know. A key that may not list cards cannot be helped by trying
    /// again.
    fn for_batch(self, job: &Job) -> Result<OfBatch, String> {
        match self.failure {
            ListFailure::Passing | ListFailure::Limited(_) | ListFailure::KeyRejected => Err(self.reason),
            ListFailure::Refused if job.card.cardholder.is_some() => Ok(OfBatch::NoSuchCardholder),
            ListFailure::Refused | ListFailure::Forbidden => {
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
            Listed::Page { cards, more } => {
                listing.pages += 1;
                if let Some(last) = cards.last() {
                    listing.after = Some(last.card.id.clone());
                }
                listing.is_whole = !more;
                listing.add(cards);
            }
            Listed::Failed { reason, failure } => return Ok(Err(Unread { reason, failure })),
        }
    }
    Ok(Ok(()))
}

async fn page(
    line: &Line,
    of: &Of,
    after: Option<&str>,
    recalled: &CancellationToken,
) -> Result<Listed, Stop> {
    let (cardholder, since) = match of {
        Of::Cardholder(cardholder) => (Some(cardholder.as_str()), None),
        Of::Account(since) => (None, *since),
    };
    loop {
        let turn = tokio::select! {
            turn = line.parts.pace.turn() => turn.map_err(|_| Stop::Closed)?,
            () = recalled.cancelled() => return Err(Stop::Closed),
        };
        let Waited::Permit(mut permit) = turn.permit().await else { continue };
        permit.departure().left();
        let listed = line.parts.client.list_cards(cardholder, since, after).await;
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
            Listed::Failed { failure: ListFailure::Forbidden | ListFailure::Refused, .. } => {
                permit.answered(Paced::Accepted);
            }
            Listed::Failed { failure: ListFailure::Passing, reason } => {
                permit.answered(Paced::Failed(reason.clone()));
            }
        }
        return Ok(listed);
    }
}
