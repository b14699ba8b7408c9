//! How a job is to be carried, where that is not as usual.

use tokio_util::sync::CancellationToken;

use super::gate::Gate;
use crate::operation::Request;
use crate::outcome::Refusal;
use crate::pin_links::EventWanted;
use crate::remedy::TryAgain;

/// How a job goes down the line.
#[derive(Default)]
pub struct Options<'o> {
    /// What it passes before its first call of this run: shut, it waits there; called off, it is refused `cancelled`
    /// unless it has begun, now or in an earlier run.
    pub gate: Option<&'o Gate>,
    /// Cancelled when it is to go back to where it came from: a call under way ends, no other begins, and the job ends as if
    /// the line had stopped.
    pub recall: Option<&'o CancellationToken>,
    /// It will not be called for any more, and this is why: it is answered with its card if it has one, by a look at
    /// Stripe if a call was begun for it, and else with this refusal.
    pub given_up: Option<Refusal>,
    /// Whether that is because its first step was refused.
    pub is_first_refused: bool,
    /// Who was to be its cardholder then, unless it was to be a new one in any case.
    pub person: Option<Box<Request>>,
    /// Its end is told by an event: if it waits for its cardholder's PIN first, so is the one that comes after that.
    pub event: Option<EventWanted>,
    /// What it must be to be carried, for one that waits for its cardholder's PIN, or comes with it.
    pub only: CarriedOnly,
    /// Whether it is carried at all if it was refused before: else that stays its end.
    pub again: TryAgain,
}

/// What a job must be to be carried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CarriedOnly {
    /// Whatever its row says.
    #[default]
    Always,
    /// One that waits for its PIN. If its row says anything else, at first or later, because it was cancelled meanwhile for
    /// instance, that is told as its end and nothing is called for. If it comes to no end, and certainly none of its calls had
    /// an effect, then it waits again; so *unresolved* is told only of a PIN that may be the card's.
    WhileItWaits,
    /// One that waited, and of whose call with a PIN the end is not known, or that has not been recorded yet as waiting for
    /// another one. Anything else is told as its end: what was cancelled meanwhile does not wait again.
    WhileItIsOpen,
}
