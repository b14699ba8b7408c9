//! Places where the crash tests kill the process: between every pair of stages.
//!
//! Only with the `killpoints` feature, which no release has. `EMBOSSER_KILL_AT=recorded:7` ends the process with
//! SIGKILL, as a power cut would, the seventh time it passes there.

/// Ends the process here if a crash test asked for it.
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

    static WANTED: LazyLock<Option<(String, u64)>> = LazyLock::new(|| {
        let wanted = std::env::var("EMBOSSER_KILL_AT").ok()?;
        let (place, count) = wanted.split_once(':')?;
        Some((place.to_owned(), count.parse().ok()?))
    });
    static PASSED: AtomicU64 = AtomicU64::new(0);

    pub(super) fn pass(place: &str) {
        let Some((wanted, count)) = &*WANTED else { return };
        if wanted == place && PASSED.fetch_add(1, Ordering::SeqCst) + 1 == *count {
            let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
        }
    }
}
