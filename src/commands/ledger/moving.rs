//! `embosser ledger move`: a ledger to another database.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::super::Exit;
use super::super::progress::progress;
use crate::config::place::{existing_ledger_url, shown};
use crate::config::range::grouped;
use crate::ledger::{Moved, Stage, abandon_move, move_ledger};
use crate::logging::say;

/// Options of `embosser ledger move`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The ledger as it is: sqlite://FILE or postgres://…
    from: String,
    /// Where it is to be: a file that is not there yet, or an empty database.
    to: String,
    /// Give up a move that was interrupted: the ledger serves again where it was.
    #[arg(long)]
    abandon: bool,
}

pub(super) async fn run(args: &Args) -> Result<Exit, String> {
    let from = existing_ledger_url(&args.from).map_err(|error| error.to_string())?;
    let done = match args.abandon {
        true => abandon_move(&from, &args.to).await.map(|to| {
            say(&format!(
                "The ledger is {} still, and serves again. What had been copied to {to} serves nobody: delete it before anything is \
                 moved there.",
                shown(&from)
            ));
        }),
        false => run_move(&from, &args.to).await,
    };
    match done {
        Ok(()) => Ok(Exit::Success),
        Err(error) if error.may_pass() => {
            say(&format!("embosser: {error}"));
            Ok(Exit::Unfinished)
        }
        Err(error) => Err(error.to_string()),
    }
}

async fn run_move(from: &str, to: &str) -> Result<(), crate::ledger::MoveError> {
    let is_compared = Arc::new(AtomicBool::new(false));
    let of_words = is_compared.clone();
    let bar = progress(0, move || match of_words.load(Ordering::Relaxed) {
        true => "rows of both compared".to_owned(),
        false => "rows copied".to_owned(),
    });
    let moved = move_ledger(from, to, |stage| {
        let (Stage::Copied { rows, of } | Stage::Compared { rows, of }) = stage;
        is_compared.store(matches!(stage, Stage::Compared { .. }), Ordering::Relaxed);
        bar.set_length(of);
        bar.set_position(rows);
    })
    .await;
    bar.finish_and_clear();
    let Moved { to, tables, was_there } = moved?;
    if was_there {
        say(&format!("The ledger had been moved before: it is {to}."));
        return Ok(());
    }
    for (table, rows, digest) in tables {
        say(&format!("{table}: {} rows, the same in both (SHA-256 {digest})", grouped(rows)));
    }
    say(&format!(
        "The ledger is now {to}: name it in ledger.url, wherever embosser runs for these accounts. {} refuses to serve from now on; keep \
         it as a copy, or delete it once the new one is in your backups.",
        shown(from)
    ));
    Ok(())
}
