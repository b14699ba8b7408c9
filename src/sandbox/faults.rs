//! What goes wrong on request, and how often. It is drawn from the sandbox's dice, so that one seed brings the same
//! faults in each run.

use rand::Rng as _;
use rand::rngs::StdRng;

/// Probabilities, 0 to 1, that a call which creates or changes, or a list where that is said, meets a fault.
#[derive(Debug, Clone, Copy, Default, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Faults {
    /// 500, saved under the key, and no card.
    pub error_before: f64,
    /// The card is made; the answer, saved under the key, is 500.
    pub error_after: f64,
    /// The connection is cut and nothing is done.
    pub drop_before: f64,
    /// The card is made and saved; the connection is cut.
    pub drop_after: f64,
    /// 409 as for a key that is in use, and nothing is done.
    pub conflict: f64,
    /// 429 that is not a limiter's, and nothing is done.
    pub lock_timeout: f64,
    /// The key rotates right after it was served.
    pub rotate: f64,
    /// An HTML page instead of an answer, and nothing is done.
    pub html: f64,
    /// The call takes longer, by [`Options::delay`].
    pub delay: f64,
    /// The card is made and saved; the connection is cut in the middle of the answer.
    pub half_body: f64,
    /// The card is made and saved; the answer is 200 with nothing in it.
    pub empty: f64,
    /// A list is answered 500.
    pub list_error: f64,
    /// A list says that there is more, and has nothing in it.
    pub empty_page: f64,
}

/// What goes wrong with a call that creates or changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mishap {
    ErrorBefore,
    ErrorAfter,
    DropBefore,
    DropAfter,
    Conflict,
    LockTimeout,
    Html,
    Delay,
    HalfBody,
    Empty,
}

/// What goes wrong with a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ListMishap {
    Error,
    EmptyPage,
}

impl Faults {
    /// What the next call that creates or changes meets.
    pub(super) fn draw(&self, dice: &mut StdRng) -> Option<Mishap> {
        let chances = [
            (self.error_before, Mishap::ErrorBefore),
            (self.error_after, Mishap::ErrorAfter),
            (self.drop_before, Mishap::DropBefore),
            (self.drop_after, Mishap::DropAfter),
            (self.conflict, Mishap::Conflict),
            (self.lock_timeout, Mishap::LockTimeout),
            (self.html, Mishap::Html),
            (self.delay, Mishap::Delay),
            (self.half_body, Mishap::HalfBody),
            (self.empty, Mishap::Empty),
        ];
        chances.into_iter().find(|(chance, _)| dice.random_bool(*chance)).map(|(_, mishap)| mishap)
    }

    /// What the next list meets. Without faults of lists nothing is drawn, so that the number of lists does not change
    /// which fault the other calls meet.
    pub(super) fn draw_for_list(&self, dice: &mut StdRng) -> Option<ListMishap> {
        let chances = [(self.list_error, ListMishap::Error), (self.empty_page, ListMishap::EmptyPage)];
        let mut chances = chances.into_iter().filter(|(chance, _)| *chance > 0.0);
        chances.find(|(chance, _)| dice.random_bool(*chance)).map(|(_, mishap)| mishap)
    }
}
