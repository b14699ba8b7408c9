//! `embosser check --online`: how the cards that rows change or replace stand at Stripe, each looked at once. Changes nothing.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;

use futures_util::stream::{self, StreamExt as _};
use secrecy::SecretString;

use super::Exit;
use super::connect::connect;
use crate::config::Config;
use crate::line::standing_of;
use crate::manifest::{Manifest, Reading, Row, counted};
use crate::operation::Operation;
use crate::stripe::{CardStanding, StandingAnswer};

/// Cards that are looked at at once.
const AT_ONCE: usize = 16;
/// Cards that are looked at in a second.
const PER_SECOND_MAX: f64 = 5.0;
/// Programs whose cards take a new PIN only after one transaction with the old one.
const OLD_PIN_FIRST: [&str; 5] = ["IE", "GB", "FR", "MX", "AE"];

/// What a row does with a card that exists.
struct Use {
    line: u64,
    column: &'static str,
    status: Option<String>,
    is_only_metadata: bool,
    has_pin: bool,
    reason: Option<String>,
    cancels_first: bool,
}

/// Looks at every card that the rows name.
///
/// # Errors
/// If the manifest or Stripe cannot be asked.
pub async fn run(
    path: &Path,
    reading: Reading,
    mut config: Config,
    api_key: Option<SecretString>,
) -> Result<Exit, String> {
    let file = path.to_owned();
    let uses = tokio::task::spawn_blocking(move || uses_of(&file, &reading))
        .await
        .map_err(|error| error.to_string())??;
    let (access, _) = connect(false, &mut config, api_key).await?;
    // Beside whoever calls for the account at its full rate: few enough that the two together stay within it.
    config.pace.endpoint_per_second = config.pace.endpoint_per_second.min(PER_SECOND_MAX);
    config.pace.account_per_second = config.pace.endpoint_per_second;
    let pace = access.pace(&config.pace);
    let looks = stream::iter(uses).map(|(card, uses)| {
        let (pace, client) = (pace.clone(), access.client().clone());
        async move {
            let standing = standing_of(&pace, &client, &card).await;
            (card, uses, standing)
        }
    });
    let looked: Vec<_> = looks.buffer_unordered(AT_ONCE).collect().await;
    let (mut problems, mut old_pin_first) = (BTreeMap::new(), 0);
    let count = looked.len() as u64;
    for (card, uses, standing) in looked {
        for of_row in uses {
            let wrong = match &standing {
                StandingAnswer::Found(standing) => {
                    let is_late = standing.country().is_some_and(|country| OLD_PIN_FIRST.contains(&country));
                    old_pin_first += u64::from(is_late && of_row.has_pin);
                    wrong_with(&of_row, standing)
                }
                StandingAnswer::Missing => Some("is no card of this account".to_owned()),
                StandingAnswer::Failed(reason) => {
                    return Err(format!("{card} could not be looked at: {reason}"));
                }
            };
            if let Some(wrong) = wrong {
                problems.insert((of_row.line, of_row.column), format!("{card} {wrong}"));
            }
        }
    }
    tell(&problems, count, old_pin_first).map_err(|error| error.to_string())?;
    Ok(if problems.is_empty() { Exit::Success } else { Exit::Unusable })
}

fn tell(
    problems: &BTreeMap<(u64, &'static str), String>,
    looked_at: u64,
    old_pin_first: u64,
) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    for ((line, column), wrong) in problems {
        writeln!(out, "line {line}, column {column}: {wrong}")?;
    }
    if old_pin_first > 0 {
        writeln!(out, "{} new PINs work only after one transaction with the old one.", old_pin_first)?;
    }
    writeln!(
        out,
        "{} looked at: {}.",
        counted(looked_at, "card"),
        if problems.is_empty() {
            "all as the rows need them".to_owned()
        } else {
            counted(problems.len() as u64, "problem")
        }
    )
}

/// What rows do with cards that exist, by card.
fn uses_of(path: &Path, reading: &Reading) -> Result<BTreeMap<String, Vec<Use>>, String> {
    let manifest = Manifest::inspect(path, reading).map_err(|error| error.to_string())?;
    let mut uses: BTreeMap<String, Vec<Use>> = BTreeMap::new();
    for row in manifest.rows().map_err(|error| error.to_string())? {
        let Ok(row) = row else { continue };
        if let Some((card, of_row)) = use_of(&row) {
            uses.entry(card).or_default().push(of_row);
        }
    }
    Ok(uses)
}

fn use_of(row: &Row) -> Option<(String, Use)> {
    let request = &row.request;
    let (column, card) = match request.operation() {
        Operation::UpdateCard => ("card", request.target.clone()?),
        Operation::CreateCard => ("replacement_for", request.value("replacement_for")?.to_owned()),
        Operation::CreateCardholder => return None,
    };
    let has_pin = row.pin.is_some() || request.chooses_pin();
    let of_row = Use {
        line: row.line,
        column,
        status: request.value("status").map(str::to_owned),
        is_only_metadata: !has_pin && request.names().all(|name| name.starts_with("metadata[")),
        has_pin: has_pin && column == "card",
        reason: request.value("replacement_reason").map(str::to_owned),
        cancels_first: request.cancels_replaced(),
    };
    Some((card, of_row))
}

/// Why Stripe would refuse what a row does with a card that stands so.
fn wrong_with(of_row: &Use, standing: &CardStanding) -> Option<String> {
    let is_canceled = standing.status == "canceled";
    let wrong = match (of_row.column, of_row.reason.as_deref()) {
        ("card", _) if is_canceled && of_row.status.as_deref() == Some("active") => {
            "is cancelled, for ever: it cannot be activated; order a new card"
        }
        ("card", _) if is_canceled && !of_row.is_only_metadata => {
            "is cancelled, for ever: only its metadata can be changed"
        }
        ("card", _) => return None,
        _ if standing.replaced_by.is_some() => "was replaced already",
        (_, Some("damaged")) if standing.kind == "virtual" => "is virtual, and cannot be damaged",
        (_, Some("lost" | "stolen")) if is_canceled && of_row.cancels_first => {
            "is cancelled already: leave cancel_replaced empty"
        }
        (_, Some("lost" | "stolen")) if !is_canceled && !of_row.cancels_first => {
            "must be cancelled before it can be replaced: set cancel_replaced to true"
        }
        _ => return None,
    };
    Some(wrong.to_owned())
}
