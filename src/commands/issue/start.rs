//! `issue --start`: a run that waits until its time. Nothing is open while it waits, and nothing was issued if it is stopped.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::clock::{Clock, Time};
use crate::commands::progress::countdown;
use crate::commands::signals::{HangUp, StopSignals, say};
use crate::intake::start::{latest_with_pins, start_of};
use crate::manifest::CheckReport;

/// Between two looks at the clock: the machine may sleep meanwhile, and its clock be set.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// When a run is to start.
pub(super) struct Start {
    clock: Clock,
    began: Time,
    at: Time,
}

impl Start {
    /// As it was said on the command line; it is judged before anything else is done.
    ///
    /// # Errors
    /// If it is past, too far away, or no time.
    pub(super) fn of(text: &str) -> Result<Self, String> {
        let clock = Clock::system();
        let began = clock.now();
        let at = start_of(text, began).map_err(|wrong| format!("--start: {wrong}"))?;
        Ok(Self { clock, began, at })
    }

    /// Whether the manifest's PINs are young enough by then.
    ///
    /// # Errors
    /// If not, with the time by which it must start.
    pub(super) fn suits(&self, report: &CheckReport, pin_seconds_max: f64) -> Result<(), String> {
        let latest = latest_with_pins(self.began, pin_seconds_max);
        if report.pins == 0 || self.at <= latest {
            return Ok(());
        }
        Err(format!(
            "--start: {} rows have PINs, which may wait for {:.0} minutes (pin.max_age_seconds): it must start by {}; nothing was \
             issued. Name an earlier start, or run it later",
            report.pins,
            pin_seconds_max / 60.0,
            latest.in_utc()
        ))
    }

    /// Waits for it. Answers what is cancelled once the run is told to stop, which may be at once.
    ///
    /// # Errors
    /// If signals cannot be listened for.
    pub(super) async fn wait(&self) -> Result<CancellationToken, String> {
        let stopped = CancellationToken::new();
        let stop = stopped.clone();
        tokio::spawn(StopSignals::listen(HangUp::Stops)?.obey(move || stop.cancel()));
        say(&format!("waiting until {}; nothing is issued before (Ctrl-C ends it)", self.at.in_utc()));
        let (clock, at) = (self.clock.clone(), self.at);
        let bar = countdown(move || at.since(clock.now()));
        while self.clock.now() < self.at {
            tokio::select! {
                () = tokio::time::sleep(self.at.since(self.clock.now()).min(LOOK_EVERY)) => {}
                () = stopped.cancelled() => break,
            }
        }
        bar.finish_and_clear();
        Ok(stopped)
    }
}
