//! `embosser ledger prune`: what was said beside rows that ended long ago.

use std::time::Duration;

use super::super::Exit;
use super::super::confirm::{WithoutTerminal, confirmed};
use super::super::progress::progress;
use super::url_of;
use crate::clock::{Clock, Time};
use crate::config::Config;
use crate::config::range::grouped;
use crate::ledger::{PRUNE_AGE_MIN, Prunable, prunable};
use crate::logging::say;

const DAY_SECONDS: u64 = 24 * 3600;

/// Options of `embosser ledger prune`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// How long ago a row must have ended: days, as 400d, or years, as 2y; no less than 35d.
    #[arg(long, value_name = "AGE", value_parser = age)]
    older_than: Duration,
    /// The ledger: sqlite://FILE or postgres://… [default: as for issue].
    #[arg(long, value_name = "URL")]
    ledger: Option<String>,
    /// Only say what would be taken out.
    #[arg(long)]
    dry_run: bool,
    /// Do it without a question.
    #[arg(long, conflicts_with = "dry_run")]
    yes: bool,
}

fn age(text: &str) -> Result<Duration, String> {
    let (number, unit) = text.split_at(text.trim_end_matches(|letter: char| !letter.is_ascii_digit()).len());
    let days = match unit {
        "d" => 1,
        "y" => 365,
        _ => return Err("it is a number of days, as 400d, or of years, as 2y".into()),
    };
    let number: u64 = number.parse().map_err(|_| "it is a whole number of days, as 400d".to_owned())?;
    let age =
        number.checked_mul(days * DAY_SECONDS).map(Duration::from_secs).ok_or("that is too long ago")?;
    if age < PRUNE_AGE_MIN {
        let days = PRUNE_AGE_MIN.as_secs() / DAY_SECONDS;
        return Err(format!("what is younger than {days} days stays: Stripe may still be asked about it"));
    }
    Ok(age)
}

pub(super) async fn run(args: &Args, config: &Config) -> Result<Exit, String> {
    let url = url_of(args.ledger.as_ref(), config)?;
    let age_ms = i64::try_from(args.older_than.as_millis()).map_err(|_| "that is too long ago")?;
    let before = Time::from_unix_ms(Clock::system().now().unix_ms().saturating_sub(age_ms));
    let found = prunable(&url, before).await.map_err(|error| error.to_string())?;
    let about = about(&found, before);
    if args.dry_run || found.rows + found.shipments == 0 {
        say(&about);
        say("Nothing was changed.");
        return Ok(Exit::Success);
    }
    let reason = "nobody can be asked whether that is wanted: pass --yes, or --dry-run to look only";
    if !confirmed(&about, "Take it out?", args.yes, &WithoutTerminal::Refused(reason))? {
        say("Nothing was changed.");
        return Ok(Exit::Unusable);
    }
    let bar = progress(found.kept, || "rows looked at".to_owned());
    let pruned = crate::ledger::prune(&url, before, |seen, of| {
        bar.set_length(of);
        bar.set_position(seen);
    })
    .await;
    bar.finish_and_clear();
    let pruned = pruned.map_err(|error| error.to_string())?;
    say(&format!(
        "Taken out beside {} rows and {} shipments. The file or database gets no smaller by that: what comes next takes the room (or \
         run VACUUM while no embosser runs).",
        grouped(pruned.rows),
        grouped(pruned.shipments)
    ));
    Ok(Exit::Success)
}

fn about(found: &Prunable, before: Time) -> String {
    let Prunable { rows, shipments, kept, not_ended, audit } = *found;
    format!(
        "Of what was written before {}:\n\
         taken out: beside {} rows that ended, Stripe's request id and the sentence of a refusal\n\
         taken out: of {} cards that arrived or will not, how they were sent (tracking number, link)\n\
         kept: all {} rows themselves, with what they made. A row's id is what keeps its card from being made again when its file comes \
         again, however late\n\
         kept as they are: {} rows that have not ended or wait for a PIN; refusals that name a card or cardholders to look at; notes; batches; links; \
         {} entries of the audit log, which the database lets nobody take out",
        before.in_utc(),
        grouped(rows),
        grouped(shipments),
        grouped(kept),
        grouped(not_ended),
        grouped(audit)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_age_is_in_days_or_years_and_never_within_stripes_memory() {
        assert_eq!(age("400d"), Ok(Duration::from_secs(400 * DAY_SECONDS)));
        assert_eq!(age("2y"), Ok(Duration::from_secs(730 * DAY_SECONDS)));
        assert_eq!(age("35d"), Ok(PRUNE_AGE_MIN));
        for refused in
            ["34d", "0d", "400", "d", "", "1h", "-400d", "99999999999999999999d", "18446744073709551d"]
        {
            assert!(age(refused).is_err(), "{refused}");
        }
    }
}
