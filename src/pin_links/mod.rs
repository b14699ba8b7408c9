//! Links by which cardholders choose a PIN or look at one, and the jobs that wait for such a choice.
//!
//! A link is 256 random bits that stand in an address's fragment, so that no server's log, no referrer and no mail scanner has
//! them; the ledger keeps their digest alone. Guarantees: a link is used once, whoever tries at the same moment, since using it
//! is a compare-and-set; a job has one usable link at a time; a job that waits is kept whole, without any PIN.

mod awaiting;
mod claim;
mod link;
mod outbox;
mod owing;
mod reconcile;
mod renewal;
mod waiting;

use std::time::Duration;

use crate::clock::{Clock, Time};
use crate::config::PinPageConfig;
use crate::job::{Job, JobId, PinDigest};
use crate::ledger::{Ledger, LedgerError, Scope};
use crate::outcome::PinLink;
use awaiting::Awaiting;
use link::{Link, name_of, new_token, under};

pub use awaiting::Waits;
pub use claim::Claimed;
pub use link::{Purpose, Show, Standing, TOKEN_CHARACTERS, digest_of};
pub use outbox::{EventWanted, Outbox, Owed};
pub use owing::Owing;
pub use reconcile::{is_looked_for_first, reconcile_first};
pub use renewal::Spent;
pub use waiting::{Waiting, is_awaited};

/// The page on which a PIN is chosen.
const CHOOSE: &str = "/pin";
/// Entries that are read from the ledger at once.
const PAGE: u32 = 500;
/// Tries of a compare-and-set on something that others change at the same moment.
const TRIES_MAX: usize = 16;

/// When a job that waits for its PIN gets its link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinksWhen {
    /// At once: it is told with the job's result.
    AtOnce,
    /// When somebody asks for it.
    Asked,
}

/// An account's links.
#[derive(Clone)]
pub struct PinLinks {
    ledger: Ledger,
    scope: Scope,
    clock: Clock,
    when: LinksWhen,
    /// Where the pages are.
    url: String,
    lasts: Duration,
    /// Whether a job of the queue gets another by itself.
    renews: bool,
}

/// A link that was just made; its text is known only now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Made {
    /// The whole address.
    pub link: PinLink,
    /// Until when it can be used.
    pub expires: Time,
}

/// A link that can be used.
#[derive(Debug, Clone)]
pub struct Usable {
    name: String,
    /// The ledger's entry as it was read.
    value: String,
    link: Link,
}

impl Usable {
    /// What it is for.
    #[must_use]
    pub fn purpose(&self) -> &Purpose {
        &self.link.purpose
    }

    /// Until when it can be used.
    #[must_use]
    pub fn expires(&self) -> Time {
        Time::from_unix_ms(self.link.expires_ms)
    }
}

/// A link that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unusable {
    /// Why; none if there is no such link.
    pub standing: Option<Standing>,
    purpose: Option<Purpose>,
    used_with: Option<String>,
}

impl Unusable {
    /// The job whose PIN it was used to choose, with this very ciphertext: who comes again has not heard that it was taken.
    #[must_use]
    pub fn used_for(&self, with: PinDigest) -> Option<&str> {
        match (&self.purpose, self.standing) {
            (Some(Purpose::Choose { job }), Some(Standing::Used | Standing::Revoked))
                if self.used_with.as_deref() == Some(&with.to_hex()) =>
            {
                Some(job)
            }
            _ => None,
        }
    }
}

impl PinLinks {
    /// Of an account; none if there are no pages for cardholders.
    #[must_use]
    pub fn of(
        config: &PinPageConfig,
        when: LinksWhen,
        (ledger, scope, clock): (&Ledger, &Scope, &Clock),
    ) -> Option<Self> {
        let url = config.url.as_deref()?.trim_end_matches('/').to_owned();
        let lasts = Duration::from_secs(u64::from(config.link_days) * 24 * 3600);
        let (ledger, scope, clock) = (ledger.clone(), scope.clone(), clock.clone());
        Some(Self { ledger, scope, clock, when, url, lasts, renews: config.new_links })
    }

    /// Has a job wait for its PIN, and who sent it be told its end by an event if that is `wanted`. Answers the link, if this made
    /// one: a job that waits already has been given its own.
    ///
    /// # Errors
    /// If the ledger does not serve.
    pub async fn await_pin(
        &self,
        job: &Job,
        wanted: Option<&EventWanted>,
    ) -> Result<Option<Made>, LedgerError> {
        for _ in 0..TRIES_MAX {
            let name = self.awaiting(&job.id);
            let known = self.ledger.metadata(&name).await?;
            let before = known.as_deref().and_then(Awaiting::of_json);
            let since_ms = before.as_ref().map_or(self.clock.now().unix_ms(), |before| before.since_ms);
            let former = before.as_ref().and_then(|before| before.link.clone());
            let is_given = match &former {
                // One that nobody was told of, as this process or its connection ended first, is as good as none.
                Some(hash) => {
                    before.as_ref().is_some_and(|before| before.is_delivered) && self.serves(hash).await?
                }
                None => false,
            };
            let made = (!is_given && self.when == LinksWhen::AtOnce).then(|| self.new_link(CHOOSE));
            if let Some((made, hash)) = &made {
                self.write_link(hash, Purpose::Choose { job: job.id.to_string() }, made.expires).await?;
            }
            let is_delivered = made.is_none() && before.as_ref().is_some_and(|before| before.is_delivered);
            let link = made.as_ref().map(|(_, hash)| hash.clone()).or_else(|| former.clone());
            let (reconciled, event) = match before {
                Some(before) => (before.reconciled, before.event),
                None if job.looks_first => (None, None),
                None => (reconcile::latest(&self.ledger, &self.scope).await?, None),
            };
            let mut awaiting = Awaiting::of(job, since_ms, link, is_delivered);
            (awaiting.reconciled, awaiting.event) = (reconciled, wanted.cloned().or(event));
            let value = awaiting.to_json();
            if known.as_ref() == Some(&value)
                || self.ledger.swap_metadata(&*name, known, Some(value)).await?.is_ok()
            {
                if let (Some(former), true) = (former, made.is_some()) {
                    self.revoke_hash(&former).await?;
                }
                return Ok(made.map(|(made, _)| made));
            }
        }
        Ok(None)
    }

    /// A job's link was delivered to whoever sends it to the cardholder: from now on it is not made anew by itself.
    ///
    /// # Errors
    /// If the ledger does not serve.
    pub async fn mark_delivered(&self, job: &JobId) -> Result<(), LedgerError> {
        for _ in 0..TRIES_MAX {
            let name = self.awaiting(job);
            let known = self.ledger.metadata(&name).await?;
            let Some(mut awaiting) = known.as_deref().and_then(Awaiting::of_json) else { return Ok(()) };
            if std::mem::replace(&mut awaiting.is_delivered, true) {
                return Ok(());
            }
            if self.ledger.swap_metadata(name, known, Some(awaiting.to_json())).await?.is_ok() {
                return Ok(());
            }
        }
        Ok(())
    }

    /// The same links, over another connection: for looks that are to delay no job.
    #[must_use]
    pub fn over(&self, ledger: &Ledger) -> Self {
        Self { ledger: ledger.clone(), ..self.clone() }
    }

    /// Makes a new link for a job that waits; the one before can be used no more. None if no such job waits.
    ///
    /// # Errors
    /// If the ledger does not serve.
    pub async fn renew(&self, job: &JobId) -> Result<Option<Made>, LedgerError> {
        for _ in 0..TRIES_MAX {
            let name = self.awaiting(job);
            let known = self.ledger.metadata(&name).await?;
            let Some(mut awaiting) = known.as_deref().and_then(Awaiting::of_json) else { return Ok(None) };
            let (made, hash) = self.new_link(CHOOSE);
            self.write_link(&hash, Purpose::Choose { job: job.to_string() }, made.expires).await?;
            let before = awaiting.link.replace(hash);
            awaiting.is_delivered = true;
            if self.ledger.swap_metadata(name, known, Some(awaiting.to_json())).await?.is_ok() {
                if let Some(before) = before {
                    self.revoke_hash(&before).await?;
                }
                return Ok(Some(made));
            }
        }
        Ok(None)
    }

    /// Makes a link by which a card's PIN, and what else is named, can be looked at once.
    ///
    /// # Errors
    /// If the ledger does not serve.
    pub async fn make_viewing(&self, card: &str, shows: Vec<Show>) -> Result<Made, LedgerError> {
        let (made, hash) = self.new_link("/pin/view");
        self.write_link(&hash, Purpose::View { card: card.to_owned(), shows }, made.expires).await?;
        Ok(made)
    }

    /// The link of this text, if it can be used, or how it stands, if there is one. Looking uses nothing up.
    ///
    /// # Errors
    /// If the ledger does not serve.
    pub async fn find(&self, token: &str) -> Result<Result<Usable, Unusable>, LedgerError> {
        let unknown = Unusable { standing: None, purpose: None, used_with: None };
        let Some(hash) = link::digest_of(token) else { return Ok(Err(unknown)) };
        let Some((value, link)) = self.link_of(&hash).await? else { return Ok(Err(unknown)) };
        Ok(match link.standing(self.clock.now()) {
            Standing::Usable => Ok(Usable { name: name_of(&self.scope, &hash), value, link }),
            standing => Err(Unusable {
                standing: Some(standing),
                purpose: Some(link.purpose),
                used_with: link.used_with,
            }),
        })
    }

    /// A job that waits, if this is its latest link.
    ///
    /// # Errors
    /// If the ledger does not serve.
    pub async fn waits(&self, job: &JobId, link: &Usable) -> Result<Option<Waits>, LedgerError> {
        let known = self.ledger.metadata(&self.awaiting(job)).await?;
        let awaiting = known.as_deref().and_then(Awaiting::of_json);
        let is_latest = |awaiting: &Awaiting| {
            awaiting.link.as_ref().is_some_and(|hash| link.name == name_of(&self.scope, hash))
        };
        Ok(awaiting.filter(is_latest).and_then(|awaiting| awaiting.waits(job)))
    }

    /// A job waits no more: its end is known, and nothing of what it asked for is kept beside that. Who wanted an event of it gets
    /// one from the worker, unless that is `told` anyway.
    ///
    /// # Errors
    /// If the ledger does not serve.
    pub async fn ended(&self, job: &JobId, told: Option<&EventWanted>) -> Result<(), LedgerError> {
        let name = self.awaiting(job);
        for _ in 0..TRIES_MAX {
            let Some(known) = self.ledger.metadata(&name).await? else { return Ok(()) };
            let awaiting = Awaiting::of_json(&known);
            let (link, event) = awaiting.map_or((None, None), |waits| (waits.link, waits.event));
            // Before it is forgotten: a crash in between repeats the event, and loses none.
            if let Some(event) = event.filter(|event| Some(event) != told) {
                Outbox::of(&self.ledger, &self.scope).add(job, &event).await?;
            }
            if self.ledger.swap_metadata(&*name, Some(known), None).await?.is_ok() {
                if let Some(link) = link {
                    self.revoke_hash(&link).await?;
                }
                return Ok(());
            }
        }
        Ok(())
    }

    /// Revokes the latest link of a job that waits. False if it has none.
    ///
    /// # Errors
    /// If the ledger does not serve.
    pub async fn revoke(&self, job: &JobId) -> Result<bool, LedgerError> {
        let known = self.ledger.metadata(&self.awaiting(job)).await?;
        match known.as_deref().and_then(Awaiting::of_json).and_then(|awaiting| awaiting.link) {
            Some(hash) => self.revoke_hash(&hash).await,
            None => Ok(false),
        }
    }

    /// Forgets links that have been of no use for long. Answers how many.
    ///
    /// # Errors
    /// If the ledger does not serve.
    pub async fn forget_old(&self) -> Result<u64, LedgerError> {
        /// After its time a link is known for so long, to tell in the log what somebody came with.
        const KNOWN_AFTER: Duration = Duration::from_secs(30 * 24 * 3600);
        let (prefix, now, mut forgotten) = (under("pin_link", &self.scope), self.clock.now(), 0);
        let mut after = prefix.clone();
        loop {
            let page = self.ledger.metadata_page(&prefix, &after, PAGE).await?;
            for (name, value) in &page {
                let is_old = |link: &Link| now.since(Time::from_unix_ms(link.expires_ms)) > KNOWN_AFTER;
                if Link::of_json(value).as_ref().is_some_and(is_old) {
                    let value = Some(value.clone());
                    forgotten += u64::from(self.ledger.swap_metadata(&**name, value, None).await?.is_ok());
                }
            }
            match page.last() {
                Some((name, _)) if page.len() == PAGE as usize => after.clone_from(name),
                _ => return Ok(forgotten),
            }
        }
    }

    fn new_link(&self, page: &str) -> (Made, String) {
        let (token, hash) = new_token();
        let link = PinLink::new(format!("{}{page}#{}", self.url, token.as_str()));
        (Made { link, expires: self.clock.now().plus(self.lasts) }, hash)
    }

    async fn write_link(&self, hash: &str, purpose: Purpose, expires: Time) -> Result<(), LedgerError> {
        let made_ms = self.clock.now().unix_ms();
        let link = Link {
            purpose,
            made_ms,
            expires_ms: expires.unix_ms(),
            used_ms: None,
            used_with: None,
            claim: None,
            revoked_ms: None,
        };
        self.ledger.set_metadata(name_of(&self.scope, hash), link.to_json()).await
    }

    async fn link_of(&self, hash: &str) -> Result<Option<(String, Link)>, LedgerError> {
        let found = self.ledger.metadata(&name_of(&self.scope, hash)).await?;
        Ok(found.and_then(|value| Link::of_json(&value).map(|link| (value, link))))
    }

    /// Whether a link can be used, or is being used at this moment.
    async fn serves(&self, hash: &str) -> Result<bool, LedgerError> {
        let now = self.clock.now();
        let found = self.link_of(hash).await?;
        Ok(found.is_some_and(|(_, link)| link.standing(now) == Standing::Usable))
    }

    async fn revoke_hash(&self, hash: &str) -> Result<bool, LedgerError> {
        // It may be used, or given back, at the same moment.
        for _ in 0..TRIES_MAX {
            let Some((value, link)) = self.link_of(hash).await? else { return Ok(false) };
            if link.revoked_ms.is_some() {
                return Ok(false);
            }
            let revoked = Link { revoked_ms: Some(self.clock.now().unix_ms()), ..link };
            let name = name_of(&self.scope, hash);
            if self.ledger.swap_metadata(name, Some(value), Some(revoked.to_json())).await?.is_ok() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn awaiting_prefix(&self) -> String {
        awaiting_prefix(&self.scope)
    }

    fn awaiting(&self, job: &JobId) -> String {
        awaiting_name(&self.scope, job)
    }
}

fn awaiting_prefix(scope: &Scope) -> String {
    under("awaiting_pin", scope)
}

/// The name of a waiting job's entry.
fn awaiting_name(scope: &Scope, job: &JobId) -> String {
    format!("{}{job}", awaiting_prefix(scope))
}
