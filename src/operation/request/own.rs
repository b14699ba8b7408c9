//! Parameters that are embosser's own: they say what it does, and are not sent.

use super::{Form, Operation, Request};

/// What stands for it where the cardholder is to choose the PIN on a page of embosser's. It is no parameter of Stripe's.
pub const PIN_CHOICE: &str = "pin[choose]";
/// Whether the card that is replaced is cancelled first. It is no parameter of Stripe's.
pub const CANCEL_REPLACED: &str = "cancel_replaced";
/// Whether a person who has a cardholder already keeps that one, and gets no second. It is no parameter of Stripe's.
pub const REUSE: &str = "reuse";
/// Parameters that are embosser's own: they say what it does, and are not sent.
pub const OWN: [&str; 3] = [CANCEL_REPLACED, PIN_CHOICE, REUSE];

impl Request {
    /// Takes a parameter that is embosser's own; false if it is Stripe's.
    pub(super) fn takes_own(&mut self, path: &str, value: &str) -> bool {
        let is_true = value.eq_ignore_ascii_case("true");
        match path {
            PIN_CHOICE => self.chooses_pin = is_true,
            CANCEL_REPLACED => self.cancels_replaced = is_true,
            REUSE => self.reuses = Some(is_true),
            _ => return false,
        }
        true
    }

    /// Whether the card that it replaces is cancelled first.
    #[must_use]
    pub fn cancels_replaced(&self) -> bool {
        self.cancels_replaced
    }

    /// Whether a person who has a cardholder already keeps that one.
    #[must_use]
    pub fn reuses(&self) -> bool {
        self.reuses == Some(true)
    }

    /// Whether it says that it wants a cardholder beside whom the person may have.
    #[must_use]
    pub fn makes_another(&self) -> bool {
        self.reuses == Some(false)
    }

    /// The same; a person keeps a cardholder unless it says otherwise.
    #[must_use]
    pub fn reusing(self) -> Self {
        Self { reuses: self.reuses.or(Some(true)), ..self }
    }

    /// Whether its cardholder is to choose the PIN.
    #[must_use]
    pub fn chooses_pin(&self) -> bool {
        self.chooses_pin
    }

    /// The change that cancels the card which this one replaces, if it is to be cancelled first.
    #[must_use]
    pub fn cancel_of_replaced(&self) -> Option<Self> {
        let replaced = self.value("replacement_for").filter(|_| self.cancels_replaced)?;
        let mut cancel = Self::empty(Operation::UpdateCard, Form::default());
        cancel.push("cancellation_reason", self.value("replacement_reason")?);
        cancel.push("status", "canceled");
        Some(cancel.with_target(replaced.to_owned()))
    }
}
