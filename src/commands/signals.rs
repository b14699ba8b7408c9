//! How a long-running command is told to stop: Ctrl-C, SIGTERM, and the end of its terminal.

use std::io::Write as _;
use std::time::{Duration, Instant};

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::Exit;

/// What SIGHUP means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HangUp {
    /// Stop: the terminal is gone. But where it is ignored, as under `nohup`, it stays so.
    Stops,
    /// Nothing to this: [`on_hang_up`] sees to it.
    SeenTo,
}

/// Listens for what stops a command.
pub struct StopSignals {
    interrupt: Signal,
    terminate: Signal,
    hang_up: Option<Signal>,
}

impl StopSignals {
    /// Listens from now on.
    ///
    /// # Errors
    /// If the system does not let it.
    pub fn listen(hang_up: HangUp) -> Result<Self, String> {
        // To listen is to end ignoring it, so it is asked first.
        let hang_up = match hang_up {
            HangUp::Stops if !is_hang_up_ignored() => Some(of(SignalKind::hangup())?),
            HangUp::Stops | HangUp::SeenTo => None,
        };
        Ok(Self { interrupt: of(SignalKind::interrupt())?, terminate: of(SignalKind::terminate())?, hang_up })
    }

    /// Stops by the first signal and ends the process by the second. A hang-up and another that come together are one:
    /// whoever ends a session sends both, and which of them is seen first is chance.
    pub async fn obey(mut self, stop: impl FnOnce()) {
        /// Far longer than one sender takes, and shorter than a person.
        const TOGETHER: Duration = Duration::from_millis(500);
        let hung_up_first = tokio::select! {
            biased;
            () = stop_signal(&mut self.interrupt, &mut self.terminate) => false,
            () = hung_up(self.hang_up.as_mut()) => true,
        };
        stop();
        let stopped = Instant::now();
        loop {
            stop_signal(&mut self.interrupt, &mut self.terminate).await;
            if !hung_up_first || stopped.elapsed() > TOGETHER {
                crate::logging::exit(Exit::Unfinished.code());
            }
        }
    }
}

/// Does this at each SIGHUP, which then ends nothing any more.
///
/// # Errors
/// If the system does not let it.
pub fn on_hang_up(mut todo: impl FnMut() + Send + 'static) -> Result<(), String> {
    let mut hang_up = of(SignalKind::hangup())?;
    tokio::spawn(async move {
        while hang_up.recv().await.is_some() {
            todo();
        }
    });
    Ok(())
}

fn of(kind: SignalKind) -> Result<Signal, String> {
    signal(kind).map_err(|error| format!("signals cannot be listened for: {error}"))
}

async fn stop_signal(interrupt: &mut Signal, terminate: &mut Signal) {
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
}

async fn hung_up(signal: Option<&mut Signal>) {
    match signal {
        Some(signal) => {
            signal.recv().await;
        }
        None => std::future::pending().await,
    }
}

/// A line on standard error, if anybody is there to read it: a terminal that is gone must end nothing.
pub fn say(line: &str) {
    crate::logging::say(line);
}

/// A line on standard output, likewise.
pub fn print(line: &str) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

/// Whether this process was started with SIGHUP ignored; where the system cannot tell, it was not.
fn is_hang_up_ignored() -> bool {
    /// The mask's first bit is of signal 1, which SIGHUP is.
    const HANG_UP: u64 = 1;
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    status
        .lines()
        .find_map(|line| u64::from_str_radix(line.strip_prefix("SigIgn:")?.trim(), 16).ok())
        .is_some_and(|mask| mask & HANG_UP != 0)
}
