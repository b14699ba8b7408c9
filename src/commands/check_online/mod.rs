//! `embosser check --online`: how what the rows need stands at Stripe. Changes nothing.
//!
//! Looked at are the cards that rows change or replace ([`cards`]), and the cardholders that they name or would create
//! ([`cardholders`]).

mod cardholders;
mod cards;

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::Path;

use secrecy::SecretString;

use self::cardholders::{Cardholders, Looked};
use self::cards::Cards;
use super::Exit;
use super::connect::connect;
use crate::config::Config;
use crate::line::tracking::READS_PER_SECOND_MAX;
use crate::manifest::{Manifest, Reading, counted};

/// What is looked at at once.
const AT_ONCE: usize = 16;

/// What is wrong, by line and column.
type Problems = BTreeMap<(u64, &'static str), String>;

/// Looks at everything that the rows need.
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
    let needs = tokio::task::spawn_blocking(move || needs_of(&file, &reading));
    let (cards, cardholders) = needs.await.map_err(|error| error.to_string())??;
    let (access, _) = connect(false, &mut config, api_key).await?;
    // Beside whoever calls for the account at its full rate: few enough that the two together stay within it.
    config.pace.endpoint_per_second = config.pace.endpoint_per_second.min(READS_PER_SECOND_MAX);
    config.pace.account_per_second = config.pace.endpoint_per_second;
    let (pace, client) = (access.pace(&config.pace), access.client());
    announce(&cards, &cardholders, config.pace.endpoint_per_second);
    let mut problems = Problems::new();
    let count = cards.count();
    let old_pin_first = cards.look(&pace, client, &mut problems).await?;
    let looked = cardholders.look(&pace, client, &mut problems).await?;
    tell(&problems, count, old_pin_first, &looked).map_err(|error| error.to_string())?;
    Ok(if problems.is_empty() { Exit::Success } else { Exit::Unusable })
}

/// Says how many questions it takes, before they are asked: reads have an allowance at Stripe.
fn announce(cards: &Cards, cardholders: &Cardholders, per_second: f64) {
    let reads = cards.count() + cardholders.reads();
    let mut kinds = Vec::new();
    if reads > 0 {
        kinds.push(counted(reads, "read"));
    }
    if cardholders.lists() {
        kinds.push("a read for each hundred cardholders of the account".to_owned());
    }
    if !kinds.is_empty() {
        eprintln!("Looking at Stripe: {}; {per_second} in a second.", kinds.join(", and "));
    }
}

fn tell(problems: &Problems, cards: u64, old_pin_first: u64, looked: &Looked) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    for ((line, column), wrong) in problems {
        writeln!(out, "line {line}, column {column}: {wrong}")?;
    }
    if old_pin_first > 0 {
        writeln!(out, "{old_pin_first} new PINs work only after one transaction with the old one.")?;
    }
    for said in looked.said() {
        writeln!(out, "{said}")?;
    }
    let found = match problems.len() as u64 {
        0 => "all as the rows need them".to_owned(),
        count => counted(count, "problem"),
    };
    let people = match looked.people {
        0 => None,
        1 => Some("1 row of a person".to_owned()),
        count => Some(format!("{count} rows of people")),
    };
    let objects = [(cards, "card"), (looked.cardholders, "cardholder")];
    let objects = objects.into_iter().filter(|(count, _)| *count > 0).map(|(count, of)| counted(count, of));
    let looked: Vec<_> = objects.chain(people).collect();
    if looked.is_empty() {
        return writeln!(out, "No row needs anything that could be looked at.");
    }
    let what = format!("{} looked at", looked.join(" and "));
    writeln!(out, "{what}: {found}.")
}

fn needs_of(path: &Path, reading: &Reading) -> Result<(Cards, Cardholders), String> {
    let manifest = Manifest::inspect(path, reading).map_err(|error| error.to_string())?;
    let (mut cards, mut cardholders) = (Cards::default(), Cardholders::default());
    for row in manifest.rows().map_err(|error| error.to_string())? {
        let Ok(row) = row else { continue };
        cards.add(&row);
        cardholders.add(&row);
    }
    Ok((cards, cardholders))
}
