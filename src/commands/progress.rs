//! How far a command has come: a bar on a terminal, a line now and then elsewhere.

use std::io::IsTerminal as _;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use super::signals::say;

/// Between two changes of the bar.
const BAR_EVERY: Duration = Duration::from_millis(200);
/// Between two lines where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(5);

/// Shows how many rows of all are done, and these words, until the bar is finished.
pub(super) fn progress(rows: u64, words: impl Fn() -> String + Send + 'static) -> ProgressBar {
    let is_terminal = std::io::stderr().is_terminal();
    let bar = if is_terminal { ProgressBar::new(rows) } else { ProgressBar::hidden() };
    bar.set_length(rows);
    if is_terminal {
        let style = ProgressStyle::with_template("{bar:30} {pos}/{len} {per_sec}, {eta} left: {msg}");
        bar.set_style(style.expect("the template is a constant that parses"));
        bar.enable_steady_tick(BAR_EVERY);
    }
    let shown = bar.clone();
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(if is_terminal { BAR_EVERY } else { LINE_EVERY }).await;
            if shown.is_finished() {
                return;
            }
            if is_terminal {
                shown.set_message(words());
            } else {
                let rows = shown.length().unwrap_or(rows);
                say(&format!("{}/{rows}, {:.1}/s: {}", shown.position(), shown.per_sec(), words()));
            }
        }
    });
    bar
}

/// Shows for how long something is waited for yet, until the bar is finished.
pub(super) fn countdown(left: impl Fn() -> Duration + Send + 'static) -> ProgressBar {
    /// Between two lines where there is no terminal: a wait may be of days.
    const LINE_EVERY: Duration = Duration::from_secs(600);
    let is_terminal = std::io::stderr().is_terminal();
    let bar = if is_terminal { ProgressBar::new_spinner() } else { ProgressBar::hidden() };
    if is_terminal {
        bar.enable_steady_tick(BAR_EVERY);
    }
    let words = move || {
        let seconds = left().as_secs();
        format!("starts in {}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60)
    };
    let shown = bar.clone();
    tokio::spawn(async move {
        while !shown.is_finished() {
            if is_terminal {
                shown.set_message(words());
            } else {
                say(&words());
            }
            tokio::time::sleep(if is_terminal { BAR_EVERY } else { LINE_EVERY }).await;
        }
    });
    bar
}
