//! `embosser check --online`: how what the rows need stands at Stripe. Changes nothing.
//!
//! Looked at are the cards that rows change or replace ([`cards`]), the cardholders that they name or would create
//! ([`cardholders`]), and what new cards need of the account and of their designs ([`designs`]).

mod cardholders;
mod cards;
mod designs;

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::Path;

use secrecy::SecretString;

use self::cardholders::Cardholders;
use self::cards::Cards;
use self::designs::Designs;
use super::Exit;
use super::connect::connect;
use super::output::{Unwritten, exit};
use crate::config::Config;
use crate::line::tracking::READS_PER_SECOND_MAX;
use crate::manifest::{Manifest, Reading, counted};
use crate::pace::Pacer;

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
    let Needs { manifest, cards, cardholders, designs } =
        needs.await.map_err(|error| error.to_string())??;
    let (access, _) = connect(false, &mut config, api_key).await?;
    // Beside whoever calls for the account, whose pace knows nothing of these reads: few of them.
    config.pace.endpoint_per_second = config.pace.endpoint_per_second.min(READS_PER_SECOND_MAX);
    config.pace.account_per_second = config.pace.endpoint_per_second;
    let (pace, client) = (access.pace(&config.pace, &Pacer::start()), access.client());
    let reads = cards.count() + cardholders.reads() + designs.reads();
    announce(reads, cardholders.lists(), config.pace.endpoint_per_second);
    let mut problems = Problems::new();
    let counts = [(cards.count(), "card"), (cardholders.count(), "cardholder"), (designs.count(), "design")];
    let of_account = designs.look(&pace, client, &mut problems).await?;
    let old_pin_first = cards.look(&pace, client, &mut problems).await?;
    let looked = cardholders.look(&pace, client, &mut problems).await?;
    let may_issue = of_account.as_ref().is_none_or(|(_, is_problem)| !is_problem);
    let mut said: Vec<String> = of_account.map(|(said, _)| said).into_iter().collect();
    if old_pin_first > 0 {
        said.push(format!("{old_pin_first} new PINs work only after one transaction with the old one."));
    }
    said.extend(looked.said());
    exit(tell(&problems, &said, &counts, looked.people, &manifest).map_err(Unwritten::Output))?;
    Ok(if problems.is_empty() && may_issue { Exit::Success } else { Exit::Unusable })
}

/// Says how many questions it takes, before they are asked: reads have an allowance at Stripe.
fn announce(reads: u64, lists_cardholders: bool, per_second: f64) {
    let mut kinds = Vec::new();
    if reads > 0 {
        kinds.push(counted(reads, "read"));
    }
    if lists_cardholders {
        kinds.push("a read for each hundred cardholders of the account".to_owned());
    }
    if !kinds.is_empty() {
        eprintln!("Looking at Stripe: {}; {per_second} in a second.", kinds.join(", and "));
    }
}

/// Tells what is wrong, by the file's own headings, and then what else was found.
fn tell(
    problems: &Problems,
    said: &[String],
    counts: &[(u64, &str)],
    people: u64,
    manifest: &Manifest,
) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    for ((line, column), wrong) in problems {
        writeln!(out, "line {line}, column {}: {wrong}", manifest.heading_of(column))?;
    }
    for said in said {
        writeln!(out, "{said}")?;
    }
    let found = match problems.len() as u64 {
        0 => "all as the rows need them".to_owned(),
        count => counted(count, "problem"),
    };
    let people = match people {
        0 => None,
        1 => Some("1 row of a person".to_owned()),
        count => Some(format!("{count} rows of people")),
    };
    let objects = counts.iter().filter(|(count, _)| *count > 0).map(|(count, of)| counted(*count, of));
    let looked: Vec<_> = objects.chain(people).collect();
    if looked.is_empty() {
        return writeln!(out, "No row needs anything else that could be looked at.");
    }
    let what = format!("{} looked at", looked.join(" and "));
    writeln!(out, "{what}: {found}.")
}

/// What the rows need, and the manifest that they are of.
struct Needs {
    manifest: Manifest,
    cards: Cards,
    cardholders: Cardholders,
    designs: Designs,
}

fn needs_of(path: &Path, reading: &Reading) -> Result<Needs, String> {
    let manifest = Manifest::inspect(path, reading).map_err(|error| error.to_string())?;
    let (mut cards, mut cardholders, mut designs) =
        (Cards::default(), Cardholders::default(), Designs::default());
    for row in manifest.rows().map_err(|error| error.to_string())? {
        let Ok(row) = row else { continue };
        cards.add(&row);
        cardholders.add(&row);
        designs.add(&row);
    }
    Ok(Needs { manifest, cards, cardholders, designs })
}
