//! The endpoint that tells a token's holder what it allows.

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use crate::clock::Time;
use crate::serve::Server;
use crate::serve::access::{Anybody, Caller, Role};

/// Who asks, and what they may do.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(in crate::serve) struct CallerView {
    /// The token's name, as the audit log shows it; `this machine` where no tokens are configured.
    name: String,
    /// What it allows: any of `read`, `submit`, `operate`, `approve`, `pin` and `audit`.
    roles: Vec<String>,
    /// From when on it opens nothing, in milliseconds since 1970; null if it does not expire.
    expires_ms: Option<i64>,
    /// The Stripe accounts that it is for; null: whichever this server's is.
    accounts: Option<Vec<String>>,
    /// This server's account; null if that is not known, or this is the address of several.
    account: Option<String>,
    /// What people call that account; null if that is not configured.
    account_name: Option<String>,
    /// Whether several accounts are served here, each at a path of its own: see `/v1/accounts`.
    several_accounts: bool,
}

impl CallerView {
    /// Of a caller, by the address of an account, or of several.
    pub(in crate::serve) fn of(
        caller: &Caller,
        (account, account_name): (Option<&str>, Option<&str>),
        several_accounts: bool,
    ) -> Self {
        let accounts = caller.accounts();
        Self {
            name: caller.name().to_owned(),
            roles: caller.roles().iter().map(Role::to_string).collect(),
            expires_ms: caller.expires().map(Time::unix_ms),
            accounts: (!accounts.is_empty()).then(|| accounts.to_vec()),
            account: account.map(str::to_owned),
            account_name: account_name.map(str::to_owned),
            several_accounts,
        }
    }
}

/// Show whose token this is and what it allows. Any token will do.
#[utoipa::path(
    get, path = "/v1/me", tag = "server", security(("token" = [])),
    responses((status = 200, body = CallerView))
)]
pub(super) async fn show_caller(Anybody(caller): Anybody, State(server): State<Server>) -> Json<CallerView> {
    let account = (server.scope().account(), server.parts.account_name.as_deref());
    Json(CallerView::of(&caller, account, server.parts.is_one_of_several))
}
