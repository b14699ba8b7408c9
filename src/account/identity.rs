//! Which account a key belongs to, and so whose the ledger's rows are.

use std::time::Duration;

use super::Access;
use crate::backoff::Backoff;
use crate::job::Batch;
use crate::ledger::{Kind, Ledger, LedgerError, Only, Scope, State};
use crate::line::limiter_of;
use crate::outcome::Output;
use crate::pace::{Answered as Paced, Endpoint, Pace, Waited};
use crate::stripe::{AccountAnswer, FoundAnswer, Leaving};

/// Waits before the account is asked again.
const ASK_AGAIN: Backoff = Backoff::between(Duration::from_millis(250), Duration::from_secs(5));
/// Cards of a former scope that are looked for before its rows are taken for this account's.
const FORMER_CARDS: u32 = 3;

/// Why it is not known whose cards they are.
#[derive(Debug, thiserror::Error)]
pub enum ScopeError {
    /// The key or the ledger cannot be used.
    #[error("{0}")]
    Unusable(String),
    /// Stripe or the ledger never answered: another time they may.
    #[error("{0}")]
    Unreachable(String),
}

impl From<LedgerError> for ScopeError {
    fn from(error: LedgerError) -> Self {
        let reason = error.to_string();
        if error.may_pass() { Self::Unreachable(reason) } else { Self::Unusable(reason) }
    }
}

/// For how long an account is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Patience {
    /// So often at most, and no longer than that.
    Bounded(u32, Duration),
    /// For ever: a server waits for Stripe.
    Unbounded,
}

/// What came of asking whose account a key is of.
enum Asked {
    /// This one's.
    Is(String),
    /// The key may not ask, for that reason.
    MayNotAsk(String),
}

impl Access {
    /// Whose cards they are: the account that the key belongs to is asked for once and remembered in the ledger.
    ///
    /// # Errors
    /// A sentence for the operator.
    pub(super) async fn scope(
        &self,
        ledger: &Ledger,
        pace: &Pace,
        patience: Patience,
    ) -> Result<Scope, ScopeError> {
        let mode = self.mode_word();
        let key_digest = match (&self.key_digest, &self.id) {
            (Some(digest), None) => digest,
            (Some(digest), Some(id)) if self.id_is_asked => {
                self.is_of(id, digest, ledger, pace, patience).await?;
                return Ok(Scope::new(mode, &self.host, Some(id)));
            }
            (_, id) => return Ok(Scope::new(mode, &self.host, id.as_deref())),
        };
        let former = Scope::new(mode, &self.host, None);
        let remembered = ledger.account_of(mode, &self.host, key_digest).await?;
        let account = match remembered {
            Some(account) => account,
            None => {
                let account = match self.ask(pace, patience).await? {
                    Asked::Is(account) => account,
                    Asked::MayNotAsk(reason) => {
                        eprintln!(
                            "embosser: this key may not ask which account it belongs to ({reason}); set stripe.account_id = \
                             \"acct_…\", so that another account's rows in this ledger are never taken for this one's"
                        );
                        return self.without_account(ledger, former).await;
                    }
                };
                ledger.remember_account(mode, &self.host, key_digest, &account).await?;
                account
            }
        };
        let scope = Scope::new(mode, &self.host, Some(&account));
        self.adopt(ledger, pace, &former, &scope).await?;
        Ok(scope)
    }

    /// Without an account's id: unless the ledger has rows of one for this host, which may be this one's or not.
    async fn without_account(&self, ledger: &Ledger, former: Scope) -> Result<Scope, ScopeError> {
        let known = ledger.accounts(self.mode_word(), &self.host).await?;
        if known.is_empty() {
            return Ok(former);
        }
        Err(ScopeError::Unusable(format!(
            "this key may not ask which account it belongs to, and the ledger has cards of {}: set stripe.account_id to \
             this key's account",
            known.join(", ")
        )))
    }

    /// Of several accounts the keys of two may have been mixed up: then one's jobs would become cards of the other. A key that
    /// may not say whose it is is taken for what the configuration says.
    async fn is_of(
        &self,
        id: &str,
        key_digest: &str,
        ledger: &Ledger,
        pace: &Pace,
        patience: Patience,
    ) -> Result<(), ScopeError> {
        let mode = self.mode_word();
        let remembered = ledger.account_of(mode, &self.host, key_digest).await?;
        let account = match remembered {
            Some(account) => account,
            None => {
                let Asked::Is(account) = self.ask(pace, patience).await? else { return Ok(()) };
                ledger.remember_account(mode, &self.host, key_digest, &account).await?;
                account
            }
        };
        if account == id {
            return Ok(());
        }
        Err(ScopeError::Unusable(format!(
            "account {id}: its API key is one of {account}; give it its own (api_key_file or api_key_variable), so that no card is \
             made in the other account"
        )))
    }

    /// Whose account the key is of.
    async fn ask(&self, pace: &Pace, patience: Patience) -> Result<Asked, ScopeError> {
        let began = std::time::Instant::now();
        let (mut backoff, mut tries) = (ASK_AGAIN, 0);
        loop {
            tries += 1;
            let Some(answer) = paced(
                pace,
                |leaving| self.client.account(leaving),
                |answer| match answer {
                    AccountAnswer::Limited(reason) => Paced::Limited(limiter_of(*reason)),
                    AccountAnswer::Failed(reason) => Paced::Failed(reason.clone()),
                    _ => Paced::Accepted,
                },
            )
            .await
            else {
                return Err(ScopeError::Unreachable(
                    "stopped before Stripe was asked whose key it is".into(),
                ));
            };
            let reason = match answer {
                AccountAnswer::Is(account) => return Ok(Asked::Is(account)),
                AccountAnswer::Forbidden(reason) => return Ok(Asked::MayNotAsk(reason)),
                AccountAnswer::KeyRejected(reason) => {
                    return Err(ScopeError::Unusable(format!(
                        "stopped: Stripe refuses the API key: {reason}"
                    )));
                }
                AccountAnswer::Limited(reason) => format!("Stripe limits: {}", reason.word()),
                AccountAnswer::Failed(reason) => reason,
            };
            if let Patience::Bounded(tries_max, time_max) = patience
                && (tries >= tries_max || began.elapsed() > time_max)
            {
                return Err(ScopeError::Unreachable(format!(
                    "{} never answered ({reason}); nothing was issued. Look at the network and at stripe.api_url, then run \
                     it again",
                    self.host
                )));
            }
            tracing::warn!(host = self.host, reason, "Stripe does not answer; trying again");
            tokio::time::sleep(backoff.wait()).await;
        }
    }

    /// Rows from before accounts were part of the scope become this account's, if their cards are in it.
    async fn adopt(
        &self,
        ledger: &Ledger,
        pace: &Pace,
        former: &Scope,
        scope: &Scope,
    ) -> Result<(), ScopeError> {
        let counts = ledger.counts().await?;
        let of_former: Vec<_> = counts.iter().filter(|counts| counts.scope == former.as_str()).collect();
        if of_former.is_empty() {
            return Ok(());
        }
        for counts in &of_former {
            let batch = Batch::new(counts.batch.clone())
                .map_err(|error| ScopeError::Unusable(format!("a batch's name in the ledger {error}")))?;
            let page = ledger.batch_page(former, &batch, None, Only::of(Kind::Done), FORMER_CARDS).await?;
            for row in page {
                let State::Done(Output::Issued(card)) = &row.state else { continue };
                let paced = paced(
                    pace,
                    |leaving| self.client.card(&card.id, leaving),
                    |answer| match answer {
                        FoundAnswer::Failed(reason) => Paced::Failed(reason.clone()),
                        FoundAnswer::Limited(reason) => Paced::Limited(limiter_of(*reason)),
                        _ => Paced::Accepted,
                    },
                );
                match paced.await {
                    Some(FoundAnswer::Found(_)) => {
                        tracing::info!(
                            from = former.as_str(),
                            to = scope.as_str(),
                            "rows of the ledger get their account"
                        );
                        return Ok(ledger.rename_scope(former, scope).await?);
                    }
                    // Another account's.
                    Some(FoundAnswer::Missing) => return Ok(()),
                    Some(FoundAnswer::Limited(limit)) => {
                        return Err(ScopeError::Unreachable(format!(
                            "Stripe limits: {}; run it again",
                            limit.word()
                        )));
                    }
                    Some(
                        FoundAnswer::Failed(reason)
                        | FoundAnswer::Forbidden(reason)
                        | FoundAnswer::KeyRejected(reason),
                    ) => {
                        return Err(ScopeError::Unreachable(format!(
                            "whose the ledger's cards are could not be asked: {reason}; run it again"
                        )));
                    }
                    None => {
                        return Err(ScopeError::Unreachable(
                            "stopped before Stripe was asked whose the ledger's cards are".into(),
                        ));
                    }
                }
            }
        }
        // No card was made in it: whatever was begun is looked for in this account.
        Ok(ledger.rename_scope(former, scope).await?)
    }
}

/// One call at the account's pace; none if the line is closing.
async fn paced<T, F: Future<Output = T>>(
    pace: &Pace,
    call: impl FnOnce(Leaving) -> F,
    meaning: impl Fn(&T) -> Paced,
) -> Option<T> {
    loop {
        let turn = pace.turn(Endpoint::Retrieve).await.ok()?;
        let Waited::Permit(mut permit) = turn.permit().await else { continue };
        let departure = permit.departure();
        let answer = call(Box::new(|| departure.left())).await;
        permit.answered(meaning(&answer));
        return Some(answer);
    }
}
