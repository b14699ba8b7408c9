//! Places where the crash tests kill the process, or stop it: between every pair of stages.
//!
//! Only with the `killpoints` feature, which no release has. `EMBOSSER_KILL_AT=recorded:7` ends the process with
//! SIGKILL, as a power cut would, the seventh time it passes there; `EMBOSSER_STOP_AT` suspends it with SIGSTOP, as a lid
//! that is closed would.

/// Ends or suspends the process here if a test asked for it.
#[inline]
pub fn pass(place: &'static str) {
    #[cfg(feature = "killpoints")]
    armed::pass(place);
    #[cfg(not(feature = "killpoints"))]
    let _ = place;
}

#[cfg(feature = "killpoints")]
mod armed {
    use std::sync::LazyLock;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::time::Duration;

    use rustix::process::{Signal, getpid, kill_process};

    /// Within this time a signal to the process has been taken, also on a busy machine. It is over when a process goes on that
    /// was stopped for longer.
    const TAKEN_WITHIN: Duration = Duration::from_secs(1);

    /// A signal, and the pass_number at which the process sends it to itself.
    struct Wanted {
        signal: Signal,
        place: String,
        pass_number: u64,
        passed: AtomicU64,
    }

    static WANTED: LazyLock<Vec<Wanted>> = LazyLock::new(|| {
        let named = [("EMBOSSER_KILL_AT", Signal::KILL), ("EMBOSSER_STOP_AT", Signal::STOP)];
        named.into_iter().filter_map(|(variable, signal)| wanted(variable, signal)).collect()
    });

    fn wanted(variable: &str, signal: Signal) -> Option<Wanted> {
        let wanted = std::env::var(variable).ok()?;
        let (place, pass_number) = wanted.split_once(':')?;
        let pass_number = pass_number.parse().ok()?;
        Some(Wanted { signal, place: place.to_owned(), pass_number, passed: AtomicU64::new(0) })
    }

    pub(super) fn pass(place: &str) {
        for wanted in WANTED.iter().filter(|wanted| wanted.place == place) {
            if wanted.passed.fetch_add(1, Ordering::SeqCst) + 1 == wanted.pass_number {
                let _ = kill_process(getpid(), wanted.signal);
                // Another thread may be the one that takes the signal, and until then this one would go on.
                std::thread::sleep(TAKEN_WITHIN);
            }
        }
    }
}
