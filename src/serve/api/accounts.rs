//! The endpoint that tells which accounts are served, and how each stands.

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use crate::serve::access::Anybody;
use crate::serve::{Server, several};

/// How an account stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(in crate::serve) enum AccountState {
    /// Stripe is asked whose account its key is.
    Opening,
    /// Its batches are taken.
    Serving,
    /// Nothing is issued for it any more.
    Stopped,
}

/// An account that is served.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(in crate::serve) struct AccountView {
    /// Stripe's id of it; null if that is not known.
    pub(in crate::serve) id: Option<String>,
    /// What people call it; null if that is not configured.
    pub(in crate::serve) name: Option<String>,
    /// Where this account's page and endpoints are: its page at this path and a slash, and each path of this document after it.
    /// Empty where only one account is served, and it is not known which.
    pub(in crate::serve) path: String,
    /// How it stands.
    pub(in crate::serve) state: AccountState,
    /// Why it stands so, or what all of its jobs wait for, if there is something to tell.
    pub(in crate::serve) reason: Option<String>,
    /// Whose cards: `live`, `test`, or `sandbox` (no card is real); null while that is not known.
    pub(in crate::serve) mode: Option<String>,
    /// Batches under way.
    pub(in crate::serve) batches_under_way: usize,
    /// Batches that wait for their approval or start.
    pub(in crate::serve) batches_waiting: usize,
}

/// The accounts that are served.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(in crate::serve) struct AccountsView {
    /// Those that the token is for, by their ids.
    pub(in crate::serve) accounts: Vec<AccountView>,
}

impl AccountView {
    /// One that nothing is done for.
    pub(in crate::serve) fn idle(
        id: &str,
        name: Option<String>,
        state: AccountState,
        reason: String,
    ) -> Self {
        let (path, id, reason) = (several::address(id), Some(id.to_owned()), Some(reason));
        Self { id, name, path, state, reason, mode: None, batches_under_way: 0, batches_waiting: 0 }
    }

    /// That of a server.
    pub(in crate::serve) fn of(server: &Server) -> Self {
        let health = server.parts.intake.health();
        let id = server.scope().account().map(str::to_owned);
        let (batches_under_way, batches_waiting) = server.batches.numbers();
        Self {
            path: id.as_deref().map(several::address).unwrap_or_default(),
            id,
            name: server.parts.account_name.clone(),
            state: if health.stopped.is_some() { AccountState::Stopped } else { AccountState::Serving },
            reason: health.stopped.or(health.waits_for),
            mode: Some(server.parts.mode.to_owned()),
            batches_under_way,
            batches_waiting,
        }
    }
}

/// List the accounts that are served here, and where each one's endpoints are. Any token will do.
///
/// Where several are served each path of this document is found after its account's own (`/accounts/acct_1/v1/batches`); only this
/// one, `/v1/me`, `/v1/stripe-events`, `/metrics`, `/healthz` and `/readyz` are also there without.
#[utoipa::path(
    get, path = "/v1/accounts", tag = "server", security(("token" = [])),
    responses((status = 200, body = AccountsView))
)]
pub(super) async fn list_accounts(_: Anybody, State(server): State<Server>) -> Json<AccountsView> {
    Json(AccountsView { accounts: vec![AccountView::of(&server)] })
}
