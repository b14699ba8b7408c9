//! Whether a pooler stands before the server that gives each transaction another session.
//!
//! Behind one, prepared statements and settings end up in sessions of other clients, and the advisory lock that is an account's
//! lease is held by whoever has the session next. So it is found out before anything else is asked.

use super::LedgerError;
use super::address::Needs;
use super::database::in_time;
use super::postgres::Postgres;
use super::servers::{Servers, Work};

/// How often both connections are asked in turn, the first of them twice. A pooler gives the session that became free last, so that
/// both have one, or the one that has been free longest, so that each has another every time: either is seen at once. With just two
/// sessions and two connections that take turns each has the same one every time, but for the one that asks twice.
const ROUNDS: u32 = 3;

/// Refuses such a pooler: two connections are two sessions, and stay so.
///
/// # Errors
/// If there is one, or the server does not answer.
pub(super) async fn refuse(servers: &Servers, needs: Needs) -> Result<(), LedgerError> {
    let mut one = Postgres::connect(servers, needs, Work::Trial).await?;
    let mut other = Postgres::connect(servers, needs, Work::Trial).await?;
    let asking = async {
        let mut seen = None;
        for _ in 0..ROUNDS {
            let now = (one.pid().await?, one.pid().await?, other.pid().await?);
            if now.0 != now.1 || now.0 == now.2 || seen.is_some_and(|seen| seen != now) {
                return Err(LedgerError::Pooled(servers.name().to_owned()));
            }
            seen = Some(now);
        }
        Ok(())
    };
    in_time(servers.name(), Work::Trial.answer_max(), asking).await?;
    one.close().await;
    other.close().await;
    Ok(())
}
