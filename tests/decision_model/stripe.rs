//! Stripe as one job meets it: idempotency keys, and lists that lag.

use std::collections::BTreeMap;

use embosser::job::Generation;
use embosser::line::decision::Answered;
use embosser::outcome::{Card, Output, Refusal};
use rand::Rng as _;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;

/// How long Stripe remembers a key at least, in seconds.
const REMEMBERED: i64 = 24 * 3600;
/// How long a call may go on, on both sides of what clients wait; none as long as the rules allow.
const CALLS_LAST: [i64; 8] = [0, 0, 1, 59, 61, 75, 81, 119];

/// How a call ends, as Stripe saves it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Saved {
    Card,
    Error,
    Declined,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    body: u32,
    saved: Saved,
    at: i64,
    until: i64,
}

/// Stripe, as far as one job meets it.
#[derive(Debug, Default)]
pub(crate) struct Stripe {
    keys: BTreeMap<u32, Entry>,
    /// When each card is made, and when lists have it.
    pub(crate) cards: Vec<(i64, i64)>,
}

/// What befalls one call.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Call {
    /// Cut before Stripe did anything, or turned away without effect.
    Lost { known: bool },
    /// A 400 that is not saved.
    Invalid,
    /// It is executed, so long, with this end; and whether its answer is heard.
    Executed { saved: Saved, makes_card: bool, lasts: i64, heard: bool },
}

pub(crate) fn call(dice: &mut StdRng) -> Call {
    match dice.random_range(0..10) {
        0 => Call::Lost { known: true },
        1 => Call::Lost { known: false },
        2 => Call::Invalid,
        3 => Call::Executed { saved: Saved::Declined, makes_card: false, lasts: 0, heard: dice.random() },
        4 | 5 => Call::Executed {
            saved: Saved::Error,
            makes_card: dice.random(),
            lasts: *CALLS_LAST.choose(dice).unwrap(),
            heard: dice.random(),
        },
        _ => Call::Executed {
            saved: Saved::Card,
            makes_card: true,
            lasts: *CALLS_LAST.choose(dice).unwrap(),
            heard: dice.random(),
        },
    }
}

impl Stripe {
    pub(crate) fn create(
        &mut self,
        generation: Generation,
        body: u32,
        call: Call,
        lag: i64,
        now: i64,
    ) -> Answered {
        let heard = match call {
            Call::Lost { known: true } => return Answered::NoEffect,
            Call::Lost { known: false } => return Answered::Unknown,
            Call::Invalid => true,
            Call::Executed { heard, .. } => heard,
        };
        self.keys.retain(|_, entry| now - entry.at < REMEMBERED);
        if let Some(entry) = self.keys.get(&generation.0) {
            let answer = match entry {
                entry if entry.body != body => Answered::BodyDiffers,
                entry if now < entry.until => Answered::InUse,
                Entry { saved: Saved::Card, .. } => Answered::Done(card()),
                Entry { saved: Saved::Error, .. } => Answered::EndedBadly,
                Entry { saved: Saved::Declined, .. } => {
                    Answered::No { refusal: refusal("declined"), replayed: true }
                }
            };
            return if heard { answer } else { Answered::Unknown };
        }
        let Call::Executed { saved, makes_card, lasts, .. } = call else {
            return Answered::No { refusal: refusal("invalid"), replayed: false };
        };
        let until = now + lasts;
        self.keys.insert(generation.0, Entry { body, saved, at: now, until });
        if makes_card {
            self.cards.push((until, until + lag));
        }
        match saved {
            _ if !heard || lasts > 0 => Answered::Unknown,
            Saved::Card => Answered::Done(card()),
            Saved::Declined => Answered::No { refusal: refusal("declined"), replayed: false },
            Saved::Error => Answered::Unknown,
        }
    }

    pub(crate) fn lists(&self, now: i64) -> bool {
        self.cards.iter().any(|(_, listed)| *listed <= now)
    }
}

pub(crate) fn card() -> Output {
    Output::Issued(Card {
        id: "ic_1".into(),
        last4: "4242".into(),
        exp_month: 1,
        exp_year: 2030,
        cardholder: None,
        changed: Vec::new(),
    })
}

pub(crate) fn refusal(code: &'static str) -> Refusal {
    Refusal::own(code, "no")
}
