//! A command of the operator's own, which is run for an event: by `sh -c`, with the event on its standard input.
//!
//! Never: embosser's secrets in its environment, or a command that runs for ever. What it comes to is logged, and changes nothing.

use std::io::Write as _;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use super::event::Event;

/// Between two looks whether it has ended.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// Beginnings of the names of variables that hold embosser's own secrets: the API key, passwords of the broker and of PostgreSQL,
/// signing secrets.
const SECRET_VARIABLES: [&str; 3] = ["EMBOSSER", "STRIPE", "PG"];

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ran {
    /// It ended well.
    Well,
    /// It did not; a sentence about it.
    Badly(String),
}

/// Runs it to its end, or for so long. It blocks.
pub(super) fn run(command: &str, event: &Event, time_max: Duration) -> Ran {
    let text = serde_json::to_string(event).expect("texts and numbers always serialise");
    let mut shell = Command::new("/bin/sh");
    shell.arg("-c").arg(command).stdin(Stdio::piped());
    for (name, _) in std::env::vars_os() {
        let shown = name.to_string_lossy();
        if SECRET_VARIABLES.iter().any(|beginning| shown.starts_with(beginning)) {
            shell.env_remove(&name);
        }
    }
    shell.env("EMBOSSER_EVENT", event.kind.word()).env("EMBOSSER_BATCH", &event.data.object.batch);
    // A group of its own: whatever it starts is killed with it, and a Ctrl-C that stops embosser does not stop it.
    shell.process_group(0);
    let mut child = match shell.spawn() {
        Ok(child) => child,
        Err(error) => return Ran::Badly(format!("it could not be started: {error}")),
    };
    if let Some(mut stdin) = child.stdin.take() {
        // An event is far smaller than what a pipe holds, so this waits for nobody; a command may also read nothing at all.
        let _ = stdin.write_all(text.as_bytes());
    }
    ended(child, time_max)
}

fn ended(mut child: Child, time_max: Duration) -> Ran {
    let began = Instant::now();
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return of_status(status),
            Ok(None) if began.elapsed() < time_max => std::thread::sleep(LOOK_EVERY),
            Ok(None) => {
                let _ = rustix::process::kill_process_group(
                    rustix::process::Pid::from_child(&child),
                    rustix::process::Signal::KILL,
                );
                let _ = child.wait();
                return Ran::Badly(format!("it was killed, as it ran for {} s", time_max.as_secs_f64()));
            }
            Err(error) => return Ran::Badly(error.to_string()),
        }
    }
}

fn of_status(status: ExitStatus) -> Ran {
    match (status.code(), status.signal()) {
        (Some(0), _) => Ran::Well,
        (Some(code), _) => Ran::Badly(format!("it ended with exit code {code}")),
        (None, signal) => Ran::Badly(format!("signal {} ended it", signal.unwrap_or_default())),
    }
}
