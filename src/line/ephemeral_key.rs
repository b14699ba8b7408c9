//! A key by which Stripe's own frame shows a card to its cardholder. It changes nothing, so it is asked for once, in its turn of
//! the pace.

use super::{Halt, Line};
use crate::pace::{Answered, Endpoint, Waited};
use crate::stripe::EphemeralKeyAnswer;

/// What came of asking for one.
pub enum EphemeralKey {
    /// Its secret, for the page alone.
    Made(String),
    /// Stripe makes none, and why.
    Refused(String),
    /// There is none to be had at this moment, and why.
    NotNow(String),
}

impl Line {
    /// Asks for a key for one card and the page with this nonce.
    pub async fn ephemeral_key(&self, card: &str, nonce: &str) -> EphemeralKey {
        // Of one account one process calls at a time, for this as for anything.
        let _lease = match self.try_lease().await {
            Ok(Ok(lease)) => lease,
            Ok(Err(holder)) => return EphemeralKey::NotNow(format!("{holder} calls for this account")),
            Err(error) => return EphemeralKey::NotNow(error.to_string()),
        };
        let Ok(turn) = self.parts.pace.turn(Endpoint::EphemeralKeys).await else {
            return EphemeralKey::NotNow("the line is closed".into());
        };
        let Waited::Permit(mut permit) = turn.permit().await else {
            return EphemeralKey::NotNow("Stripe does not answer".into());
        };
        if !self.lease.is_surely_ours() {
            return EphemeralKey::NotNow("another process may call for this account".into());
        }
        let departure = permit.departure();
        let leaving = Box::new(|| departure.left());
        match self.parts.client.ephemeral_key(card, nonce, leaving).await {
            EphemeralKeyAnswer::Made(secret) => {
                permit.answered(Answered::Accepted);
                self.has_answered();
                EphemeralKey::Made(secret)
            }
            EphemeralKeyAnswer::Refused(reason) => {
                permit.answered(Answered::Accepted);
                EphemeralKey::Refused(reason)
            }
            EphemeralKeyAnswer::KeyRejected(reason) => {
                permit.answered(Answered::Accepted);
                self.halt_with(Halt::Key(reason.clone()));
                EphemeralKey::NotNow(reason)
            }
            EphemeralKeyAnswer::Limited(reason) => {
                permit.answered(Answered::Limited(super::limiter_of(reason)));
                EphemeralKey::NotNow("Stripe limits".into())
            }
            EphemeralKeyAnswer::Failed(reason) => {
                permit.answered(Answered::Failed(reason.clone()));
                EphemeralKey::NotNow(reason)
            }
        }
    }
}
