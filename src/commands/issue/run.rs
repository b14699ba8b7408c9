//! A run for an account, to its end: its line is opened, its lease held, and a manifest's rows are carried down it.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::carry::{Carried, ResultsOfRun, carry_all};
use super::{about, earlier, persons_of};
use crate::account::{Access, Account, Patience, Purpose, Runs, ScopeError};
use crate::commands::Exit;
use crate::commands::connect::FIRST_CONTACT_MAX;
use crate::commands::progress::progress;
use crate::commands::signals::{HangUp, StopSignals, print, say};
use crate::config::{Config, seconds};
use crate::job::Batch;
use crate::ledger::{BatchRow, Ledger, LedgerError, Scope};
use crate::line::{Halt, LeaseUse, Line};
use crate::manifest::CheckReport;
use crate::manifest::batch::{Jobs, SecondCards, digest_of};
use crate::manifest::checked::CheckedManifest;
use crate::metrics::exporter::Exporter;
use crate::operation::Operation;
use crate::pace::{CircuitState, Pacer};
use crate::pin_links::LinksWhen;
use crate::remedy::TryAgain;
use crate::results::Results;
use crate::tally::{Counts, Tally};
use crate::webhooks::{self, Carrier, End, State, Webhooks};

/// Between two looks whether Stripe was ever reached, once it should have been.
const CHECK_EVERY: Duration = Duration::from_secs(1);

/// How a run is opened.
#[derive(Debug, Clone, Copy, Default)]
pub(in crate::commands) struct Opening {
    /// Where metrics are served while it runs.
    pub(in crate::commands) metrics: Option<SocketAddr>,
    /// Whether each row's effect is looked for at Stripe before the first call.
    pub(in crate::commands) reconcile_first: bool,
}

/// What a run carries.
pub(in crate::commands) struct What<'a> {
    pub(in crate::commands) batch: Batch,
    pub(in crate::commands) manifest: CheckedManifest,
    pub(in crate::commands) report: &'a CheckReport,
    pub(in crate::commands) second: SecondCards,
    /// Which rows that were refused before are tried again.
    pub(in crate::commands) again: TryAgain,
    /// Whether what may be wrong with rows beside those that the batch had keeps it from being done.
    pub(in crate::commands) strict: bool,
    /// The results file.
    pub(in crate::commands) results: PathBuf,
}

/// A run for an account.
pub(in crate::commands) struct Run {
    account: Account,
    patience_max: Duration,
}

impl Run {
    /// Opens it; none if Stripe cannot be reached, which was said then.
    ///
    /// # Errors
    /// A sentence for the operator.
    pub(in crate::commands) async fn open(
        access: Access,
        config: &Config,
        ledger: &Ledger,
        opening: Opening,
    ) -> Result<Option<Self>, String> {
        let Opening { metrics, reconcile_first } = opening;
        let exporter = metrics.map(|_| Exporter::install(crate::logging::dropped)).transpose()?;
        let pace = access.pace(&config.pace, &Pacer::start());
        if let (Some(exporter), Some(listen)) = (&exporter, metrics) {
            let shown = pace.clone();
            let serving = exporter.serve(listen, move || shown.show(None));
            serving.await.map_err(|error| format!("--metrics {listen}: {error}"))?;
        }
        let patience_max = FIRST_CONTACT_MAX.min(seconds(config.retry.elapsed_seconds_max));
        let patience = Patience::Bounded(config.retry.attempts_max, patience_max);
        let purpose = Purpose { runs: Runs::ToAnEnd, patience, reconcile_first, links: LinksWhen::AtOnce };
        let account = match Account::open(access, config, ledger, pace, purpose).await {
            Ok(account) => account,
            Err(ScopeError::Unusable(reason)) => return Err(reason),
            Err(ScopeError::Unreachable(reason)) => {
                say(&format!("stopped: {reason}"));
                return Ok(None);
            }
        };
        let stopped = account.line().clone();
        tokio::spawn(StopSignals::listen(HangUp::Stops)?.obey(move || {
            stopped.stop();
            say("\nstopping: calls in flight are finished (again to stop at once)");
        }));
        Ok(Some(Self { account, patience_max }))
    }

    /// Whose cards it is about.
    pub(in crate::commands) fn scope(&self) -> &Scope {
        self.account.scope()
    }

    /// Its line.
    pub(in crate::commands) fn line(&self) -> &Arc<Line> {
        self.account.line()
    }

    /// Stops it when this is cancelled, which it may be already.
    pub(in crate::commands) fn stop_with(&self, stopped: CancellationToken) {
        let line = self.line().clone();
        tokio::spawn(async move {
            stopped.cancelled().await;
            line.stop();
        });
    }

    /// The account's lease for the whole run; none if the run was stopped while it waited.
    ///
    /// # Errors
    /// A sentence for the operator.
    pub(in crate::commands) async fn lease(&self, no_wait: bool) -> Result<Option<LeaseUse>, String> {
        let line = self.line();
        match line.try_lease().await.map_err(|error| error.to_string())? {
            Ok(lease) => Ok(Some(lease)),
            Err(holder) if no_wait => Err(format!(
                "{holder} calls for this account; nothing was done. Run it again when that one has ended"
            )),
            Err(holder) => {
                say(&format!("waiting: {holder} calls for this account"));
                let lease = line.hold_lease().await;
                if let (None, Some(halt)) = (&lease, line.halt()) {
                    return Err(format!("stopped: {halt}"));
                }
                Ok(lease)
            }
        }
    }

    /// Carries a manifest's rows to their ends, and writes the results.
    ///
    /// # Errors
    /// A sentence for the operator; nothing was done then.
    pub(in crate::commands) async fn carry(
        &self,
        (ledger, webhooks): (&Ledger, &Webhooks),
        lease: LeaseUse,
        what: What<'_>,
    ) -> Result<Exit, String> {
        let What { batch, manifest, report, second, again, strict, results: path } = what;
        let (line, scope) = (self.line(), self.scope());
        let recognition = earlier::recognise(ledger, scope, &batch, (second, again), &manifest).await?;
        earlier::print_recognised(&recognition, say);
        earlier::say_near(&recognition, strict)?;
        earlier::say_stays(&recognition);
        let results = Results::create(&path, scope.as_str())
            .map_err(|error| format!("results file {}: {error}", path.display()))?;
        let persons = persons_of(&manifest, Jobs::new(batch.clone(), recognition.clone())).await?;
        let begins = earlier::begins(ledger, scope, &batch, &recognition).await?;
        let row = BatchRow {
            scope: scope.clone(),
            batch: batch.clone(),
            digest: digest_of(report),
            rows: begins.rows,
            began: line.parts().clock.now(),
        };
        let text = |error: LedgerError| error.to_string();
        webhooks.end_those_of_commands(scope).await.map_err(text)?;
        let run = webhooks.checked(scope, about(&batch, report), Carrier::Command, State::Checked).await;
        let run = run.map_err(text)?;
        let beginning = async {
            webhooks.begins(run.as_ref(), begins).await?;
            ledger.write_batch(row).await
        };
        if let Err(error) = beginning.await {
            webhooks.ended_if(run, || end_of(line, report, Counts::default(), &Err(error.to_string()))).await;
            return Err(error.to_string());
        }
        let host = self.account.access().host().to_owned();
        tokio::spawn(end_if_never_answered(line.clone(), host, self.patience_max));
        let tally = Arc::new(Tally::default());
        let (shown, operation) = (tally.clone(), manifest.manifest().operation());
        let bar = progress(report.rows, move || words(&shown, operation));
        // A task of its own, so that the rows and what becomes of them stay on the runtime's threads.
        let jobs = Jobs::new(batch, recognition);
        let results = ResultsOfRun { results, persons };
        let carrying = carry_all(line.clone(), manifest, jobs, results, tally.clone(), bar.clone());
        let carried = tokio::spawn(carrying).await.map_err(|error| error.to_string()).flatten();
        bar.finish_and_clear();
        webhooks.ended_if(run, || end_of(line, report, tally.counts(), &carried)).await;
        let carried = carried?;
        let exit = summary(line, report, operation, &tally, &carried, &path);
        drop(lease);
        Ok(exit)
    }
}

/// How a run has ended, for whoever is told.
fn end_of(line: &Line, report: &CheckReport, counts: Counts, carried: &Result<Carried, String>) -> End {
    let counts = webhooks::Counts {
        rows: report.rows,
        issued: counts.issued,
        refused: counts.refused,
        cancelled_rows: counts.cancelled,
        unresolved: counts.unresolved,
        awaiting_pin: counts.awaiting_pin,
        waiting: report.rows.saturating_sub(counts.ended()),
    };
    let reason = match (carried, line.halt()) {
        (Err(reason), _) | (Ok(Carried { cut: Some(reason), .. }), None) => Some(reason.clone()),
        (Ok(_), Some(halt)) if counts.waiting + counts.unresolved > 0 => Some(halt.to_string()),
        (Ok(Carried { cut: Some(reason), .. }), Some(_)) => Some(reason.clone()),
        (Ok(_), _) if counts.waiting > 0 => Some("it was stopped".to_owned()),
        (Ok(_), _) if counts.unresolved > 0 => {
            Some(format!("the end of {} rows is not known yet", counts.unresolved))
        }
        (Ok(_), _) => None,
    };
    let state = if reason.is_some() { State::Interrupted } else { State::Finished };
    End { state, reason, counts, at_ms: line.parts().clock.now().unix_ms() }
}

/// Whoever cannot be reached at all is not waited for without end.
async fn end_if_never_answered(line: Arc<Line>, host: String, time_max: Duration) {
    let mut wait = time_max;
    loop {
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = line.stopped() => return,
        }
        if line.was_answered() {
            return;
        }
        if line.parts().pace.health().circuit != CircuitState::Closed {
            let seconds = time_max.as_secs_f64();
            let reason =
                format!("{host} never answered in {seconds} s; look at the network and at stripe.api_url");
            return line.halt_with(Halt::Unreachable(reason));
        }
        // Too few calls have failed so far to say so.
        wait = CHECK_EVERY;
    }
}

/// How far a run has come, for the progress bar.
fn words(tally: &Tally, operation: Operation) -> String {
    let Counts { issued: done, refused, retried, .. } = tally.counts();
    format!("{done} {}, {refused} refused, {retried} retried", operation.done())
}

fn summary(
    line: &Line,
    report: &CheckReport,
    operation: Operation,
    tally: &Tally,
    carried: &Carried,
    results: &Path,
) -> Exit {
    let counts = tally.counts();
    let left = report.rows.saturating_sub(counts.ended());
    let before = counts.refused_before;
    print(&format!(
        "{} rows in {:.1} s: {} {} ({} of them before), {} refused{}, {} unresolved, {} retried.",
        report.rows,
        carried.took.as_secs_f64(),
        counts.issued,
        operation.done(),
        counts.issued_before(),
        counts.refused,
        if before > 0 { format!(" ({before} of them before)") } else { String::new() },
        counts.unresolved,
        counts.retried
    ));
    if counts.awaiting_pin > 0 {
        print(&format!(
            "{} of them wait for their cardholders to choose a PIN: each link is in the results, in the column pin_link.",
            counts.awaiting_pin
        ));
    }
    if let Err(error) = &carried.written {
        say(&format!(
            "the results could not be written to {} ({error}); `embosser results` has them",
            results.display()
        ));
    } else {
        print(&format!("Results: {}", results.display()));
    }
    if let Some(halt) = line.halt() {
        say(&format!("stopped: {halt}"));
        let new = counts.issued.saturating_sub(counts.issued_before());
        if matches!(halt, Halt::Key(_)) && new == 0 {
            return Exit::Unusable;
        }
    }
    if let Some(reason) = &carried.cut {
        say(&format!("stopped: {reason}"));
    }
    if left > 0 || counts.unresolved > 0 {
        say(&format!(
            "{} rows are not finished ({} were taken). Run the same command again to go on: finished rows are not \
             {} twice.",
            left + counts.unresolved,
            carried.taken,
            operation.done()
        ));
        return Exit::Unfinished;
    }
    if carried.written.is_err() || carried.cut.is_some() {
        return Exit::Unfinished;
    }
    if counts.refused > 0 { Exit::Refused } else { Exit::Success }
}
