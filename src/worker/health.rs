//! `/healthz`: the process runs. `/readyz`: it has a broker, a consumer and a ledger. `/metrics`.
//!
//! Of a worker for several accounts it is ready when each of them is, and says of each what keeps it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::http::StatusCode;
use axum::routing::get;
use axum::{Json, Router};
use serde_json::{Value, json};

use super::Ready;
use crate::ledger::Ledger;
use crate::line::Line;
use crate::metrics::exporter::Exporter;

/// How each of several accounts stands. Clones share it.
#[derive(Clone, Default)]
pub struct Standings(Arc<Mutex<BTreeMap<String, Standing>>>);

/// How one of them stands.
#[derive(Clone)]
enum Standing {
    /// It is asked whose account its key is.
    Opening,
    /// Its jobs are taken, or that is tried.
    Working(Arc<Line>, Arc<Ready>),
    /// No job of it is taken any more, for this reason.
    Stopped(String),
}

impl Standings {
    fn all(&self) -> MutexGuard<'_, BTreeMap<String, Standing>> {
        // Every change is an insertion or a removal.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// It is being opened.
    pub fn opening(&self, account: &str) {
        self.all().insert(account.to_owned(), Standing::Opening);
    }

    /// Its worker works.
    pub fn working(&self, account: &str, line: &Arc<Line>, ready: &Arc<Ready>) {
        self.all().insert(account.to_owned(), Standing::Working(line.clone(), ready.clone()));
    }

    /// It has stopped by itself.
    pub fn stopped(&self, account: &str, reason: &str) {
        self.all().insert(account.to_owned(), Standing::Stopped(reason.to_owned()));
    }

    /// It is not worked for any more, and is not to be.
    pub fn gone(&self, account: &str) {
        self.all().remove(account);
    }

    /// Whether an account's line has stopped by itself, or is about to.
    #[must_use]
    pub fn has_halted(&self, account: &str) -> bool {
        match self.all().get(account) {
            Some(Standing::Stopped(_)) => true,
            Some(Standing::Working(line, _)) => line.halt().is_some(),
            Some(Standing::Opening) | None => false,
        }
    }

    /// Those that stopped by themselves, and why.
    #[must_use]
    pub fn all_stopped(&self) -> Vec<(String, String)> {
        let all = self.all();
        let stopped = all.iter().filter_map(|(account, standing)| match standing {
            Standing::Stopped(reason) => Some((account.clone(), reason.clone())),
            Standing::Opening | Standing::Working(..) => None,
        });
        stopped.collect()
    }

    /// Sets the gauges that are read at the moment of asking.
    fn show(&self) {
        // The lock is not held meanwhile: whoever writes metrics may be slow.
        let all = self.all().clone();
        for (account, standing) in all {
            if let Standing::Working(line, ready) = standing {
                line.parts().pace.show(Some(&account));
                ready.show();
            }
        }
    }
}

/// The HTTP side of a worker for one account.
pub fn router(line: Arc<Line>, ready: Arc<Ready>, exporter: &Exporter) -> Router {
    let (pace, shown) = (line.parts().pace.clone(), ready.clone());
    let readiness = move || async move {
        let parts = line.parts();
        let away = parts.ledger.answers().await.err();
        let ledger = away.is_none();
        let (is_well, mut body) = standing_of(&line, &ready, away);
        let is_ready = is_well && ledger;
        body["ready"] = is_ready.into();
        body["ledger"] = ledger.into();
        (code_of(is_ready), Json(body))
    };
    with_metrics(get(readiness), exporter, move || {
        pace.show(None);
        shown.show();
    })
}

/// The HTTP side of a worker for several accounts.
pub fn router_of_several(standings: &Standings, ledger: Ledger, exporter: &Exporter) -> Router {
    let (asked, shown) = (standings.clone(), standings.clone());
    let readiness = move || async move {
        let away = ledger.answers().await.err();
        let mut is_ready = away.is_none();
        let mut accounts = serde_json::Map::new();
        let all = asked.all().clone();
        for (account, standing) in all {
            let (is_well, of_account) = match standing {
                Standing::Opening => {
                    let reason = "Stripe was not reached yet to learn whose key it is";
                    (
                        false,
                        json!({ "broker": false, "consumer": false, "reason": reason, "waits_for": null }),
                    )
                }
                Standing::Working(line, ready) => standing_of(&line, &ready, None),
                Standing::Stopped(reason) => {
                    let reason = format!("stopped: {reason}");
                    (
                        false,
                        json!({ "broker": false, "consumer": false, "reason": reason, "waits_for": null }),
                    )
                }
            };
            is_ready &= is_well;
            accounts.insert(account, of_account);
        }
        let body =
            json!({ "ready": is_ready, "ledger": away.is_none(), "reason": away, "accounts": accounts });
        (code_of(is_ready), Json(body))
    };
    with_metrics(get(readiness), exporter, move || shown.show())
}

fn with_metrics(
    readiness: axum::routing::MethodRouter,
    exporter: &Exporter,
    refresh: impl Fn() + Clone + Send + Sync + 'static,
) -> Router {
    Router::new()
        .route("/healthz", get(|| async { Json(json!({ "ok": true })) }))
        .route("/readyz", readiness)
        .merge(exporter.router(refresh))
}

fn code_of(is_ready: bool) -> StatusCode {
    if is_ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }
}

/// Whether an account's jobs can be carried, as far as that is not the ledger's; and how it stands. `away`: why the ledger is.
fn standing_of(line: &Line, ready: &Ready, away: Option<String>) -> (bool, Value) {
    let (broker, consumer, obstacle) = (ready.is_connected(), ready.is_consuming(), ready.obstacle());
    let halt = line.halt().map(|halt| halt.to_string());
    let is_well = broker && consumer && halt.is_none() && obstacle.is_none();
    let reason = halt.or(away).or_else(|| ready.reason()).or(obstacle);
    let waits_for = line.all_wait_for();
    (is_well, json!({ "broker": broker, "consumer": consumer, "reason": reason, "waits_for": waits_for }))
}
