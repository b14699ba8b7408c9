//! A job: one card to create, as every intake makes it and every stage reads it.
//!
//! Guarantees: a job's id is short enough for Stripe's metadata and the ledger; its fingerprint covers all that
//! was asked for except the PIN, whose encryption differs each time; its idempotency keys follow from its id alone.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};
use tokio::sync::OwnedSemaphorePermit;

use crate::card::CardRequest;
use crate::clock::Time;
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

    /// The id of a manifest's row: its batch with its `row_id`, or with its number where the manifest has no ids.
    ///
    /// # Errors
    /// If the two together are too long.
    pub fn of_row(batch: &Batch, row_id: Option<&str>, number: u64) -> Result<Self, NameError> {
        match row_id {
            Some(row_id) => Self::new(format!("{batch}/{row_id}")),
            None => Self::new(format!("{batch}/row {number}")),
        }
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

/// What was asked for, without the PIN: the same job id with another fingerprint is a conflict.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Fingerprint(pub [u8; 32]);

impl Fingerprint {
    /// As the ledger stores it.
    #[must_use]
    pub fn to_hex(self) -> String {
        hex(&self.0)
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Fingerprint({})", hex(&self.0[..4]))
    }
}

fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = Vec::with_capacity(2 * bytes.len());
    for byte in bytes {
        text.extend([DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
    }
    String::from_utf8(text).expect("digits are ASCII")
}

/// Where in a manifest a job came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The data row's number, from 1.
    pub row: u64,
    /// The manifest's own `row_id`, if it has one.
    pub row_id: Option<String>,
}

/// One card to create.
#[derive(Debug)]
pub struct Job {
    /// Names the job.
    pub id: JobId,
    /// The batch it belongs to.
    pub batch: Batch,
    /// Its row, when it came from a manifest.
    pub place: Option<Place>,
    /// What Stripe is asked for.
    pub card: CardRequest,
    /// The PIN its cardholder chose, encrypted.
    pub pin: Option<PinJwe>,
    /// After this moment the PIN may not be used any more.
    pub deadline: Option<Time>,
    /// Its place among the jobs that an intake may have waiting; given back when its first turn comes, or it ends.
    pub waiting: Option<OwnedSemaphorePermit>,
    taken: Instant,
    fingerprint: Fingerprint,
}

impl Job {
    /// Makes a job of its parts. A PIN still inside the card is taken out.
    #[must_use]
    pub fn new(
        id: JobId,
        batch: Batch,
        place: Option<Place>,
        mut card: CardRequest,
        pin: Option<PinJwe>,
    ) -> Self {
        let pin = pin.or_else(|| card.take_pin());
        let fingerprint = Fingerprint(card.fingerprint());
        Self {
            id,
            batch,
            place,
            card,
            pin,
            deadline: None,
            waiting: None,
            taken: Instant::now(),
            fingerprint,
        }
    }

    /// How long ago it came into our hands.
    #[must_use]
    pub fn age(&self) -> Duration {
        self.taken.elapsed()
    }

    /// What was asked for, without the PIN.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }
}
