//! A job: something to be done at Stripe exactly once, in one step or two, as every intake makes it and every stage reads it.
//!
//! Guarantees: a job's id is short enough for Stripe's metadata and the ledger; its fingerprint covers all that
//! was asked for except the PIN, whose encryption differs each time; its idempotency keys follow from its id alone.

use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};
use tokio::sync::OwnedSemaphorePermit;

use crate::clock::Time;
use crate::content::hex;
pub use crate::content::{Content, Fingerprint};
use crate::operation::{Key, Operation, Person, Request};
use crate::pin::PinJwe;

/// Longest job id or batch name, in bytes: both become Stripe metadata values, which hold 500 characters.
pub const NAME_BYTES_MAX: usize = 255;

/// Names a job for ever. One id, one card.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize)]
#[serde(transparent)]
pub struct JobId(Arc<str>);

/// Why a text cannot be a job id or a batch name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Nothing in it.
    #[error("is empty")]
    Empty,
    /// Longer than [`NAME_BYTES_MAX`].
    #[error("is longer than {NAME_BYTES_MAX} bytes")]
    TooLong,
    /// A control character in it.
    #[error("has a control character")]
    Control,
}

fn name_error(text: &str) -> Option<NameError> {
    if text.trim().is_empty() {
        Some(NameError::Empty)
    } else if text.len() > NAME_BYTES_MAX {
        Some(NameError::TooLong)
    } else if text.chars().any(char::is_control) {
        Some(NameError::Control)
    } else {
        None
    }
}

impl JobId {
    /// Takes an id that a sender chose.
    ///
    /// # Errors
    /// If it is empty, too long or has control characters.
    pub fn new(text: impl Into<Arc<str>>) -> Result<Self, NameError> {
        let text = text.into();
        name_error(&text).map_or(Ok(Self(text)), Err)
    }

    /// The id of a manifest's row: its batch with its name in it.
    ///
    /// # Errors
    /// If the two together are too long.
    pub fn of_row(batch: &Batch, name: &str) -> Result<Self, NameError> {
        Self::new(format!("{batch}/{name}"))
    }

    /// The id's text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The `Idempotency-Key` of this job's n-th generation.
    ///
    /// From the id and the generation only, so that a worker whose ledger was lost still meets at Stripe the key
    /// it used before; hashed, since ids may be longer than a key's 255 characters or hold personal data.
    #[must_use]
    pub fn idempotency_key(&self, generation: Generation) -> String {
        let digest = Sha256::digest(self.0.as_bytes());
        format!("embosser-{}-{}", hex(&digest[..16]), generation.0)
    }
}

impl fmt::Display for JobId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// Names a batch of jobs.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize)]
#[serde(transparent)]
pub struct Batch(Arc<str>);

impl Batch {
    /// Takes a batch name.
    ///
    /// # Errors
    /// If it is empty, too long or has control characters.
    pub fn new(text: impl Into<Arc<str>>) -> Result<Self, NameError> {
        let text = text.into();
        name_error(&text).map_or(Ok(Self(text)), Err)
    }

    /// The name's text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Batch {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// Which idempotency key of a job: the next one is used only once the one before is proven to have made no card.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Generation(pub u32);

impl Generation {
    /// The first.
    pub const FIRST: Self = Self(1);

    /// The one after.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

/// Which ciphertext a card was made with, told by a piece of its digest: enough to see that a later one is another,
/// and nothing of the PIN.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PinDigest(pub [u8; 8]);

impl PinDigest {
    /// Of a PIN's ciphertext.
    #[must_use]
    pub fn of(pin: &PinJwe) -> Self {
        let digest = Sha256::digest(pin.expose().as_bytes());
        let mut piece = [0; 8];
        piece.copy_from_slice(&digest[..8]);
        Self(piece)
    }

    /// As the ledger stores it.
    #[must_use]
    pub fn to_hex(self) -> String {
        hex(&self.0)
    }

    /// One that was read from the ledger.
    #[must_use]
    pub fn of_hex(text: &str) -> Option<Self> {
        u64::from_str_radix(text, 16).ok().filter(|_| text.len() == 16).map(|mark| Self(mark.to_be_bytes()))
    }
}

/// One step of a job: an operation at Stripe that is done once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Step {
    /// What the job is about, and its last step.
    Last(Operation),
    /// What comes before it: the cardholder of a card.
    First(Operation),
}

impl Step {
    /// Every step there can be.
    const ALL: [(Self, &'static str); 5] = [
        (Self::Last(Operation::CreateCardholder), "create_cardholder"),
        (Self::Last(Operation::CreateCard), "create_card"),
        (Self::Last(Operation::UpdateCard), "update_card"),
        (Self::First(Operation::CreateCardholder), "first:create_cardholder"),
        (Self::First(Operation::UpdateCard), "first:update_card"),
    ];

    /// Every step there can be.
    pub fn every() -> impl Iterator<Item = Self> {
        Self::ALL.iter().map(|(step, _)| *step)
    }

    /// Whether it is what its job is about.
    #[must_use]
    pub const fn is_last(self) -> bool {
        matches!(self, Self::Last(_))
    }

    /// The operation.
    #[must_use]
    pub const fn operation(self) -> Operation {
        match self {
            Self::Last(operation) | Self::First(operation) => operation,
        }
    }

    /// The word in the ledger.
    #[must_use]
    pub fn word(self) -> &'static str {
        Self::ALL.iter().find(|(step, _)| *step == self).map_or("", |(_, word)| word)
    }

    /// The step of that word.
    #[must_use]
    pub fn of_word(word: &str) -> Option<Self> {
        Self::ALL.iter().find(|(_, other)| *other == word).map(|(step, _)| *step)
    }
}

/// Both notes, if there are two.
pub(crate) fn both(first: Option<String>, second: Option<String>) -> Option<String> {
    match (first, second) {
        (Some(first), Some(second)) => Some(format!("{first}; {second}")),
        (first, second) => first.or(second),
    }
}

/// Where in a manifest a job came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The data row's number, from 1.
    pub row: u64,
    /// The manifest's own `row_id`, if it has one.
    pub row_id: Option<String>,
}

/// What Stripe is asked to do, once.
#[derive(Debug)]
pub struct Job {
    /// Names the job.
    pub id: JobId,
    /// The batch it belongs to.
    pub batch: Batch,
    /// Its row, when it came from a manifest.
    pub place: Option<Place>,
    /// The cardholder to create first, if the card is for one who is not known yet.
    pub cardholder: Option<Box<Request>>,
    /// What Stripe is asked for.
    pub request: Request,
    /// The PIN its cardholder chose, encrypted.
    pub pin: Option<PinJwe>,
    /// Whether its cardholder is to choose it: then it waits for that.
    pub chooses_pin: bool,
    /// After this moment the PIN may not be used any more.
    pub deadline: Option<Time>,
    /// Its place among the jobs that an intake may have waiting; given back when its first turn comes, or it ends.
    pub waiting: Option<OwnedSemaphorePermit>,
    /// Told beside its end: how it is known to differ from what was asked for, for instance.
    pub note: Option<String>,
    /// What is told of its cardholder: recorded with its end.
    pub(crate) of_cardholder: Option<String>,
    /// Whether its effect is looked for at Stripe before its first call.
    pub(crate) looks_first: bool,
    /// Whether the card that it replaces is still to be cancelled, before anything else.
    cancels_first: bool,
    taken: Instant,
    step: Step,
    fingerprint: Fingerprint,
    content: Content,
    /// Of its PIN, once it was asked for.
    pin_digest: OnceLock<PinDigest>,
}

impl Job {
    /// Makes a job of its parts. A PIN still inside the request is taken out.
    #[must_use]
    pub fn new(
        id: JobId,
        batch: Batch,
        place: Option<Place>,
        mut request: Request,
        pin: Option<PinJwe>,
    ) -> Self {
        let pin = pin.or_else(|| request.take_pin());
        let chooses_pin = request.chooses_pin() && pin.is_none();
        let fingerprint = Fingerprint(request.fingerprint());
        Self {
            id,
            batch,
            place,
            pin,
            chooses_pin,
            deadline: None,
            waiting: None,
            note: None,
            of_cardholder: None,
            looks_first: false,
            cancels_first: request.cancels_replaced(),
            taken: Instant::now(),
            step: Step::Last(request.operation()),
            content: request.content(None),
            cardholder: None,
            request,
            fingerprint,
            pin_digest: OnceLock::new(),
        }
    }

    /// With a cardholder who is to be created first.
    #[must_use]
    pub fn after(mut self, cardholder: Request) -> Self {
        self.content = self.request.content(Some(&cardholder));
        self.cardholder = Some(Box::new(cardholder));
        self
    }

    /// Its first step as a job of its own, if it has not been taken before.
    pub(crate) fn take_first(&mut self) -> Option<Self> {
        let request = match self.cardholder.take() {
            Some(person) => *person,
            None if std::mem::take(&mut self.cancels_first) => self.request.cancel_of_replaced()?,
            None => return None,
        };
        let mut first = Self::new(self.id.clone(), self.batch.clone(), self.place.clone(), request, None);
        first.step = Step::First(first.request.operation());
        first.deadline = self.deadline;
        first.waiting = self.waiting.take();
        first.taken = self.taken;
        first.looks_first = self.looks_first;
        Some(first)
    }

    /// The step of a person who may have other jobs: one for all of them, under a name that follows from who it is. None if
    /// each job has its own.
    pub(crate) fn id_of_person(&self) -> Option<JobId> {
        JobId::new(format!("person/{}", self.person()?.identity()?)).ok()
    }

    /// All that tells its person, as names in their order; jobs that share one of these are for one person, or for two of whom
    /// somebody has to say so.
    pub(crate) fn signs_of_person(&self) -> Vec<JobId> {
        let person = self.person();
        let keys = person.iter().flat_map(|person| person.keys());
        let mut signs: Vec<_> = keys.filter_map(|(_, key)| Self::sign(key)).collect();
        signs.sort_unstable();
        signs
    }

    /// One of these.
    pub(crate) fn sign(key: &Key) -> Option<JobId> {
        JobId::new(format!("sign/{}", hex(key))).ok()
    }

    /// Whose cardholder it creates, if the person keeps one that is there.
    fn person(&self) -> Option<Person> {
        let is_shared = self.request.operation() == Operation::CreateCardholder && self.request.reuses();
        is_shared.then(|| self.request.person())
    }

    /// Under another name.
    pub(crate) fn named(self, id: JobId) -> Self {
        Self { id, ..self }
    }

    /// The same job without its PIN, to wait for another one.
    #[must_use]
    pub fn without_pin(&self) -> Self {
        let request = self.request.without_pin();
        let mut job = Self::new(self.id.clone(), self.batch.clone(), self.place.clone(), request, None);
        job.cardholder = self.cardholder.as_ref().map(|first| Box::new(first.without_pin()));
        (job.content, job.deadline, job.note) = (self.content, self.deadline, self.note.clone());
        job.looks_first = self.looks_first;
        job
    }

    /// Which ciphertext its PIN is; none without a PIN.
    #[must_use]
    pub fn pin_digest(&self) -> Option<PinDigest> {
        self.pin.as_ref().map(|pin| *self.pin_digest.get_or_init(|| PinDigest::of(pin)))
    }

    /// How long ago it came into our hands.
    #[must_use]
    pub fn age(&self) -> Duration {
        self.taken.elapsed()
    }

    /// What was asked for, without the PIN, as it is spelt.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }

    /// What was asked for, without the PIN and however it is spelt.
    #[must_use]
    pub fn content(&self) -> Content {
        self.content
    }

    /// The content as a ledger of the first version holds it: the beginning of the fingerprint.
    #[must_use]
    pub fn former_content(&self) -> Content {
        let mut content = [0; 16];
        content.copy_from_slice(&self.fingerprint.0[..16]);
        Content(content)
    }

    /// What a change asks for, by its parameters' names; nothing if it is no change.
    #[must_use]
    pub fn changed(&self) -> Vec<String> {
        if self.request.operation() != Operation::UpdateCard {
            return Vec::new();
        }
        let pin = self.pin.as_ref().map(|_| crate::operation::PIN);
        self.request.names().chain(pin).map(str::to_owned).collect()
    }

    /// Whether it asks for what the ledger says was asked for.
    #[must_use]
    pub fn asks_for(&self, recorded: Content) -> bool {
        recorded == self.content || recorded == self.former_content()
    }

    /// The step that it is about.
    #[must_use]
    pub fn step(&self) -> Step {
        self.step
    }

    /// The `Idempotency-Key` of its step's n-th generation.
    #[must_use]
    pub fn idempotency_key(&self, generation: Generation) -> String {
        let of_job = self.id.idempotency_key(generation);
        match self.step {
            Step::Last(_) => of_job,
            Step::First(_) => format!("{of_job}-first"),
        }
    }
}
