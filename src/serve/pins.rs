//! A cardholder chooses a PIN, or looks at one: what stands behind their pages.
//!
//! The PIN comes as a JWE in one request, goes down the line with its job at once, and is kept nowhere. Guarantees: a link is
//! used once; what had no effect gives it back. Never: why a link cannot be used, but in the log.

use std::net::IpAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;
use utoipa::ToSchema;
use zeroize::Zeroizing;

use super::Server;
use super::access::Caller;
use super::audit::{About, Action};
use super::problem::{Kind, Problem};
use crate::job::{Job, JobId, PinDigest};
use crate::jwe;
use crate::ledger::{LedgerError, Row, State};
use crate::line::{CarriedOnly, Line, Options, cardholder_of, is_about_pin, standing_of};
use crate::metrics;
use crate::outcome::{Ended, Outcome};
use crate::pin::PinJwe;
use crate::pin_links::{Claimed, PinLinks, Purpose, Show, Unusable, Usable, Waits};
use crate::stripe::{FoundAnswer, StandingAnswer};

/// How long a page waits for what Stripe knows of its card, without which it does as well.
const KNOWN_WITHIN: Duration = Duration::from_secs(3);
/// How long a job with a chosen PIN may take before it is called back, so that no PIN waits here.
pub(super) const WAITS_FOR: Duration = Duration::from_secs(25);

/// A link's text, wiped when it is dropped.
pub(super) struct LinkText(Zeroizing<String>);

impl<'de> Deserialize<'de> for LinkText {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(|text| Self(Zeroizing::new(text)))
    }
}

impl std::ops::Deref for LinkText {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

/// Between two looks whether the first of two equal requests has ended.
const LOOKS_AGAIN: Duration = Duration::from_millis(200);

/// What a link is given with.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct LookBody {
    /// The link's text, from its address's fragment.
    #[schema(value_type = String)]
    pub(super) link: LinkText,
}

/// A PIN that was chosen.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ChooseBody {
    /// The link's text.
    #[schema(value_type = String)]
    link: LinkText,
    /// The PIN's compact JWE, encrypted on the cardholder's device.
    #[schema(value_type = String, max_length = 5000)]
    pin: PinJwe,
}

/// What a link is for.
#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum LinkKind {
    /// To choose a PIN.
    Choose,
    /// To look at one.
    View,
}

/// What a page needs to know of its link.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(super) struct LinkView {
    kind: LinkKind,
    /// Whether the PIN is a card's that exists.
    changes_card: bool,
    /// The last digits of that card, where they are known.
    last4: Option<String>,
    /// Until when it can be used, RFC 3339.
    expires: String,
    policy: PolicyView,
    /// Where the key is fetched.
    key_url: String,
    view: Option<ViewingView>,
}

/// Which PINs are taken.
#[derive(Debug, Clone, Serialize, ToSchema)]
struct PolicyView {
    digits_min: u32,
    digits_max: u32,
    /// Whether the same digit four times is.
    repeated: bool,
    /// Whether digits in a row are.
    ascending: bool,
    /// These are not.
    refused: Vec<String>,
}

/// What shows a PIN.
#[derive(Debug, Clone, Serialize, ToSchema)]
struct ViewingView {
    card: String,
    publishable_key: String,
    stripe_js: String,
    /// The connected account whose card it is.
    account: Option<String>,
    shows: Vec<Show>,
}

/// The PIN was taken.
#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
pub(super) struct TakenView {
    /// `taken`
    state: &'static str,
}

impl Server {
    /// Whether work is taken. Why not is said in the log alone.
    pub(super) fn ready_for_cardholders(&self) -> Result<(), Problem> {
        self.ready().map_err(|problem| {
            tracing::warn!(?problem, "nothing is taken from cardholders");
            not_now()
        })
    }

    /// The link of this text, if it can be used.
    pub(super) async fn usable_link(&self, token: &str, address: IpAddr) -> Result<Usable, Problem> {
        self.pin_limits.address(address)?;
        self.pin_limits.link(token)?;
        match self.for_cardholders()?.links.find(token).await.map_err(unsaid)? {
            Ok(usable) => Ok(usable),
            Err(found) => Err(self.came_in_vain(&found, address)),
        }
    }

    fn came_in_vain(&self, found: &Unusable, address: IpAddr) -> Problem {
        self.pin_limits.guessed(address);
        tracing::warn!(standing = ?found.standing, %address, "a link that cannot be used");
        metrics::pin_link("unusable");
        unusable()
    }

    /// The link of this text for this PIN; none if it was used for this very ciphertext, which was taken.
    async fn link_for(
        &self,
        token: &str,
        pin: PinDigest,
        address: IpAddr,
    ) -> Result<Option<Usable>, Problem> {
        self.pin_limits.address(address)?;
        self.pin_limits.link(token)?;
        let links = self.for_cardholders()?.links;
        let until = tokio::time::Instant::now() + WAITS_FOR;
        // A call that was begun by then runs to its end, and may yet turn out to have had no effect.
        let call_until = until + self.for_cardholders()?.line.parts().client.call_max();
        loop {
            let found = match links.find(token).await.map_err(unsaid)? {
                Ok(usable) => return Ok(Some(usable)),
                Err(found) => found,
            };
            // A browser sends a request again whose connection broke, and must not be told that its own link was used.
            let Some(job) = found.used_for(pin) else { return Err(self.came_in_vain(&found, address)) };
            let id = JobId::new(job).map_err(|_| unusable())?;
            let row = self.row_of(&id).await?;
            let now = tokio::time::Instant::now();
            let has_this_pin = row.as_ref().is_some_and(|row| row.pin == Some(pin));
            match row.as_ref().map(|row| &row.state) {
                Some(State::Done(_)) if has_this_pin => return Ok(None),
                Some(State::Done(_)) => return Err(self.came_in_vain(&found, address)),
                Some(State::Begun) if has_this_pin => {
                    if now > call_until {
                        return Ok(None);
                    }
                    tokio::time::sleep(LOOKS_AGAIN).await;
                }
                _ if now > until => return Err(self.came_in_vain(&found, address)),
                _ => tokio::time::sleep(LOOKS_AGAIN).await,
            }
        }
    }

    /// What is known of a job.
    async fn row_of(&self, id: &JobId) -> Result<Option<Row>, Problem> {
        self.parts.views.look_up(self.scope(), id).await.map_err(unsaid)
    }

    /// The job behind a link, as far as is known before it is carried.
    async fn waits_behind(&self, usable: &Usable, id: &JobId) -> Result<Behind, Problem> {
        match self.row_of(id).await?.map(|row| row.state) {
            None | Some(State::AwaitingPin) => {}
            Some(State::Refused(refusal)) if is_about_pin(&refusal.code) => {}
            Some(State::Begun) => return Ok(Behind::Open),
            Some(State::Refused(_) | State::Done(_)) => return Ok(Behind::Nothing),
        }
        let waits = self.for_cardholders()?.links.waits(id, usable).await.map_err(unsaid)?;
        Ok(waits.map_or(Behind::Nothing, |waits| Behind::Waits(Box::new(waits))))
    }
}

/// What stands behind a link to choose a PIN.
enum Behind {
    /// A job that waits for it.
    Waits(Box<Waits>),
    /// One of whose calls the end is not known yet: it may wait again once it is.
    Open,
    /// None that takes a PIN.
    Nothing,
}

/// All links that cannot be used look alike.
pub(super) fn unusable() -> Problem {
    Problem::new(Kind::LinkUnusable, "this link cannot be used; ask for a new one")
}

/// What a link is for. Looking uses nothing up.
pub(super) async fn look(server: &Server, body: LookBody, address: IpAddr) -> Result<LinkView, Problem> {
    let usable = server.usable_link(&body.link, address).await?;
    let there = server.for_cardholders()?;
    let config = there.config;
    let mut refused: Vec<String> = config.refused_pins().map(str::to_owned).collect();
    let (kind, asked, view) = match usable.purpose() {
        Purpose::Choose { job } => {
            let id = JobId::new(job.as_str()).map_err(|_| unusable())?;
            let waits = match server.waits_behind(&usable, &id).await? {
                Behind::Waits(waits) => waits,
                Behind::Open => return Err(not_now()),
                Behind::Nothing => return Err(unusable()),
            };
            let card = waits.changes().map(str::to_owned);
            let wants_year = !config.birth_year && waits.birth_year.is_none();
            let cardholder = waits.cardholder().filter(|_| wants_year).map(str::to_owned);
            refused.extend(waits.birth_year.clone().filter(|_| !config.birth_year));
            (LinkKind::Choose, Asked { card, cardholder }, None)
        }
        Purpose::View { card, shows } => {
            let publishable_key = config.publishable_key.clone().ok_or_else(unusable)?;
            let view = ViewingView {
                card: card.clone(),
                publishable_key,
                stripe_js: config.stripe_js.clone(),
                account: server.parts.account.clone(),
                shows: shows.clone(),
            };
            (LinkKind::View, Asked { card: Some(card.clone()), cardholder: None }, Some(view))
        }
    };
    let known = known_of(there.line, &asked).await;
    if !config.birth_year && matches!(kind, LinkKind::Choose) {
        refused.extend(known.birth_year);
    }
    metrics::pin_link("looked_at");
    let expires = jiff::Timestamp::from_millisecond(usable.expires().unix_ms()).unwrap_or_default();
    Ok(LinkView {
        kind,
        changes_card: asked.card.is_some(),
        last4: known.last4,
        expires: expires.to_string(),
        policy: PolicyView {
            digits_min: 4,
            digits_max: 4,
            repeated: config.repeated,
            ascending: config.ascending,
            refused,
        },
        key_url: there.line.parts().client.key_address().to_owned(),
        view,
    })
}

/// What Stripe is asked about for a page.
struct Asked {
    /// A card that exists.
    card: Option<String>,
    /// The cardholder of one that does not.
    cardholder: Option<String>,
}

/// What it tells.
#[derive(Default)]
struct Known {
    /// The card's last digits.
    last4: Option<String>,
    /// When the cardholder was born.
    birth_year: Option<String>,
}

/// What Stripe tells soon.
async fn known_of(line: &Line, asked: &Asked) -> Known {
    let parts = line.parts();
    let asking = async {
        if asked.card.is_none() && asked.cardholder.is_none() {
            return None;
        }
        // Of one account one process calls at a time, for this as for anything.
        let Ok(Ok(_lease)) = line.try_lease().await else { return None };
        if let Some(card) = &asked.card {
            let StandingAnswer::Found(card) = standing_of(&parts.pace, &parts.client, card).await else {
                return None;
            };
            let birth_year = card.birth_year();
            return Some(Known { last4: Some(card.last4).filter(|last4| !last4.is_empty()), birth_year });
        }
        match cardholder_of(&parts.pace, &parts.client, asked.cardholder.as_deref()?).await {
            FoundAnswer::Found(found) => Some(Known { last4: None, birth_year: found.birth_year() }),
            _ => None,
        }
    };
    tokio::time::timeout(KNOWN_WITHIN, asking).await.ok().flatten().unwrap_or_default()
}

/// Takes a PIN that was chosen, and has its job go on.
pub(super) async fn choose(server: &Server, body: ChooseBody, address: IpAddr) -> Result<TakenView, Problem> {
    let ChooseBody { link, pin } = body;
    let digest = PinDigest::of(&pin);
    let Some(usable) = server.link_for(&link, digest, address).await? else { return Ok(TAKEN) };
    if let Err(refusal) = jwe::inspect(pin.expose()) {
        return Err(Problem::new(Kind::PinUnusable, format!("the encrypted PIN: {refusal}")));
    }
    server.ready_for_cardholders()?;
    let there = server.for_cardholders()?;
    if let Some(reason) = there.line.all_wait_for() {
        // A PIN is not to wait here for that.
        tracing::warn!(reason, "a PIN was not taken at this moment");
        return Err(not_now());
    }
    let Purpose::Choose { job } = usable.purpose() else { return Err(unusable()) };
    let id = JobId::new(job.as_str()).map_err(|_| unusable())?;
    // On a task of its own: a page that is closed stops nothing that was begun, the use of its link included.
    let (server_of_task, line) = (server.clone(), there.line.clone());
    let carried =
        server.tasks.spawn(async move { claim_and_carry(&server_of_task, &line, usable, &id, pin).await });
    // A bug; it has been logged.
    carried.await.unwrap_or_else(|_| Err(Problem::new(Kind::Lost, "whether the PIN was taken is not known")))
}

/// Uses the link, and carries its job with the PIN.
async fn claim_and_carry(
    server: &Server,
    line: &Line,
    usable: Usable,
    id: &JobId,
    pin: PinJwe,
) -> Result<TakenView, Problem> {
    let (links, digest) = (server.for_cardholders()?.links, PinDigest::of(&pin));
    let Some(claimed) = links.claim(&usable, Some(digest)).await.map_err(unsaid)? else {
        tracing::warn!("a link was used by somebody else at the same moment");
        return Err(unusable());
    };
    // Now that nobody else can: what the job asks for may have been changed until then.
    match server.waits_behind(&usable, id).await {
        Ok(Behind::Waits(waits)) => {
            let job = waits.into_job(Some(pin));
            let about = About { batch: Some(job.batch.to_string()), ..About::job(id.as_str()) };
            // Before its call, as whatever makes a card.
            if server.record(&Caller::CARDHOLDER, Action::PinChosen, about).await.is_err() {
                return Err(given_back(links, claimed).await);
            }
            carry(server, line, job, claimed, digest).await
        }
        Ok(Behind::Open) => Err(given_back(links, claimed).await),
        Ok(Behind::Nothing) => Err(unusable()),
        Err(problem) => {
            given_back(links, claimed).await;
            Err(problem)
        }
    }
}

const CARD_REFUSED: &str = "the card could not be made or changed; its sender must look";
const TAKEN: TakenView = TakenView { state: "taken" };

fn not_now() -> Problem {
    Problem::new(Kind::NotNow, "nothing can be taken at this moment; try again in a while")
}

/// What a cardholder is told where the ledger does not serve; why is said in the log alone.
pub(super) fn unsaid(error: LedgerError) -> Problem {
    tracing::error!(%error, "the ledger does not serve");
    not_now()
}

/// The job goes on waiting, with the same link.
async fn given_back(links: &PinLinks, claimed: Claimed) -> Problem {
    if let Err(error) = links.give_back(claimed).await {
        tracing::warn!(%error, "a link was used for nothing, and could not be given back: its cardholder needs a new one");
    }
    not_now()
}

/// Carries a job with its PIN, for as long as a page waits: then it is called back, and what is under way ends.
async fn carried_soon(line: &Line, job: Job) -> Option<Ended> {
    let recall = CancellationToken::new();
    let way = Options { recall: Some(&recall), only: CarriedOnly::WhileItWaits, ..Options::default() };
    let mut carried = std::pin::pin!(line.carry(job, way));
    tokio::select! {
        ended = &mut carried => ended,
        () = tokio::time::sleep(WAITS_FOR) => {
            recall.cancel();
            carried.await
        }
    }
}

/// What came of a job with its PIN.
async fn carry(
    server: &Server,
    line: &Line,
    job: Job,
    claimed: Claimed,
    pin: PinDigest,
) -> Result<TakenView, Problem> {
    let links = server.for_cardholders()?.links;
    let (id, batch, again) = (job.id.clone(), job.batch.clone(), job.without_pin());
    // None, or one that waits again: certainly no call had an effect.
    let Some(ended) = carried_soon(line, job).await else { return Err(given_back(links, claimed).await) };
    match &ended.outcome {
        Outcome::AwaitingPin(_) => Err(given_back(links, claimed).await),
        // Another process has begun it.
        Outcome::Unresolved(_) if ended.recorded_before => Err(given_back(links, claimed).await),
        // It was sent: how that ended is found out later, and the PIN is not asked for again before.
        Outcome::Unresolved(_) => {
            server.settle.notify_one();
            Ok(TAKEN)
        }
        Outcome::Refused(refusal) if is_about_pin(&refusal.code) => {
            // It waits for another one, unless it was cancelled since.
            let open = Options { only: CarriedOnly::WhileItIsOpen, ..Options::default() };
            let _ = line.carry(again, open).await;
            given_back(links, claimed).await;
            let kind = if refusal.code == "stale_key" { Kind::StaleKey } else { Kind::PinUnusable };
            Err(Problem::new(kind, refusal.message.clone()))
        }
        Outcome::Refused(_) | Outcome::Done(_) => {
            if let Err(error) = links.ended(&id, None).await {
                tracing::warn!(job = %id, %error, "a job has ended, and still stands among those that wait for a PIN");
            }
            server.batches.pin_chosen(batch.as_str(), &ended);
            ended_well(server, &id, &ended, pin).await
        }
    }
}

/// What the page is told of a job that has ended.
async fn ended_well(
    server: &Server,
    id: &JobId,
    ended: &Ended,
    pin: PinDigest,
) -> Result<TakenView, Problem> {
    match &ended.outcome {
        // Somebody cancelled it, for instance.
        Outcome::Refused(_) if ended.recorded_before => Err(unusable()),
        Outcome::Refused(refusal) => {
            metrics::pin_link("used");
            tracing::warn!(code = %refusal.code, reason = refusal.message, "a card with a chosen PIN was refused");
            Err(Problem::new(Kind::CardRefused, CARD_REFUSED))
        }
        Outcome::Done(_) | Outcome::Unresolved(_) | Outcome::AwaitingPin(_) => {
            // Its end may be another's: only what the ledger says of this very ciphertext is told.
            let row = server.row_of(id).await.map_err(|_| {
                tracing::warn!(job = %id, "whether a card has the PIN that was chosen cannot be read");
                Problem::new(Kind::Lost, "whether the PIN was taken is not known")
            })?;
            if row.is_none_or(|row| row.pin != Some(pin)) {
                // A card that was there already, from another ledger's time for instance, keeps the PIN that it has.
                tracing::warn!(job = %id, "a PIN was chosen for a card that was made before; it was not applied");
                return Err(Problem::new(Kind::CardRefused, CARD_REFUSED));
            }
            metrics::pin_link("used");
            Ok(TAKEN)
        }
    }
}
