//! `embosser submit MANIFEST`: every row becomes a job in RabbitMQ; publish again to resume, nothing is issued twice.

mod follow;

use std::io::{IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::Exit;
use super::issue::earlier::{recognise as recognise_rows, tell};
use super::signals::say;
use crate::config::{Config, place};
use crate::job::{Batch, Job};
use crate::ledger::{Ledger, LedgerError, Scope};
use crate::manifest::batch::{Jobs, SecondCards};
use crate::manifest::recognise::Recognition;
use crate::manifest::{CheckOptions, CheckReport, InvalidRow, Manifest, Row};
use crate::queue::Broker;
use crate::queue::publisher::{NotTaken, Publisher};
use crate::queue::send::Outgoing;
use crate::stripe::host_of;
use follow::Following;

/// Publishes that wait for their confirm at once.
const UNCONFIRMED_MAX: usize = 256;
/// Between two tries to publish to a full queue.
const FULL_WAIT: Duration = Duration::from_millis(500);
/// Between two lines of progress where there is no terminal.
const PROGRESS_EVERY: Duration = Duration::from_secs(5);

/// Options of `embosser submit`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The manifest: a CSV with a header row; - is standard input.
    pub manifest: PathBuf,
    /// Names the batch: with a row's id it names the job [default: the manifest's name].
    #[arg(long)]
    pub batch: Option<String>,
    /// Answer yes to the question before jobs are published.
    #[arg(long)]
    pub yes: bool,
    /// Publish the valid rows of a manifest that has invalid ones.
    #[arg(long)]
    pub skip_invalid: bool,
    /// Publish rows again that were issued before under other names: second cards.
    #[arg(long)]
    pub second_cards: bool,
    /// The worker's ledger, if it can be read here: rows that it knows under other names are told, and get no second cards
    /// [default: ledger.url, or the user's own place].
    #[arg(long, value_name = "URL")]
    pub ledger: Option<String>,
    /// Wait until every row has ended, and write the results.
    #[arg(long)]
    pub wait: bool,
    /// With --wait, where to write the results [default: the manifest's name with .results.csv].
    #[arg(long, value_name = "FILE", requires = "wait")]
    pub results: Option<PathBuf>,
}

/// How far publishing has come.
#[derive(Debug, Default)]
pub(super) struct Published {
    confirmed: AtomicU64,
    full: AtomicBool,
}

/// Publishes the manifest.
///
/// # Errors
/// A sentence for the operator.
pub async fn run(args: Args, config: Config) -> Result<Exit, String> {
    let broker = Broker::new(&config.rabbitmq).map_err(|error| error.to_string())?;
    let batch = super::manifest::batch_of(&args.manifest, args.batch.as_deref())?;
    let manifest = super::manifest::open(&args.manifest).await?;
    let report = check(&manifest).await?;
    if report.invalid_rows > 0 && !args.skip_invalid {
        super::check::print_problems(&report, &mut std::io::stderr()).map_err(|error| error.to_string())?;
        return Err(format!(
            "{} of {} rows are invalid; nothing was published. Mend them, or pass --skip-invalid to publish the others",
            report.invalid_rows, report.rows
        ));
    }
    let valid = report.rows - report.invalid_rows;
    if !confirm(&args, &broker, valid)? {
        return Err("nothing was published".into());
    }
    let recognition =
        if args.second_cards { Arc::default() } else { recognise(&args, &config, &batch, &manifest).await? };
    let publisher = Arc::new(Publisher::new(broker.clone(), "embosser submit"));
    publisher.connect().await.map_err(|error| format!("{}: {error}", broker.shown()))?;
    let of_manifest = || super::manifest::results_of(&args.manifest, &batch, "results.csv");
    let results = args.results.clone().unwrap_or_else(of_manifest);
    let following = match args.wait {
        true => Some(Following::begin(broker.clone(), &batch, valid, &results).await?),
        false => None,
    };
    let published = Arc::new(Published::default());
    let bar = progress(valid, &published);
    let ended =
        publish_all(&publisher, manifest, Jobs::new(batch.clone(), recognition), &published, &bar).await;
    bar.finish_and_clear();
    publisher.close().await;
    let cut = ended?;
    let confirmed = published.confirmed.load(Ordering::Relaxed);
    println!("{confirmed} of {} rows published to {} as batch {batch}.", report.rows, broker.topology.jobs);
    if let Some(reason) = &cut {
        eprintln!("stopped: {reason}");
    }
    let skipped = report.invalid_rows > 0;
    let exit = match following {
        Some(following) => following.until_all_ended(confirmed).await?,
        None => Exit::Success,
    };
    if cut.is_some() {
        return Ok(Exit::Unfinished);
    }
    Ok(if exit == Exit::Success && skipped { Exit::Refused } else { exit })
}

async fn check(manifest: &Arc<Manifest>) -> Result<CheckReport, String> {
    let manifest = manifest.clone();
    let checking = move || manifest.check(&CheckOptions::default(), &|_| {});
    tokio::task::spawn_blocking(checking)
        .await
        .map_err(|error| error.to_string())?
        .map_err(|error| error.to_string())
}

/// Whoever works on the queue may hold a live key: a person is asked first.
fn confirm(args: &Args, broker: &Broker, rows: u64) -> Result<bool, String> {
    eprintln!(
        "{rows} jobs go to {} at {}; its worker will issue their cards.",
        broker.topology.jobs,
        broker.shown()
    );
    if args.yes || !std::io::stdin().is_terminal() {
        return Ok(true);
    }
    eprint!("Publish them? [y/N] ");
    let _ = std::io::stderr().flush();
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer).map_err(|error| error.to_string())?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

/// The rows that are known under other names, as far as the ledger here knows: it may be the worker's, or there may be none.
async fn recognise(
    args: &Args,
    config: &Config,
    batch: &Batch,
    manifest: &Arc<Manifest>,
) -> Result<Arc<Recognition>, String> {
    let unknown = |why: &str| {
        say(&format!("rows that were issued before under other names cannot be told here: {why}"));
        Ok(Arc::default())
    };
    let named = args.ledger.as_deref().unwrap_or(&config.ledger.url);
    let url = match place::existing_ledger_url(named) {
        Ok(url) => url,
        Err(error) => return unknown(&error.to_string()),
    };
    let ledger = match Ledger::open_existing(&url).await {
        Ok(ledger) => ledger,
        // A worker that has just been started makes its first one: nothing was issued by it before.
        Err(error @ LedgerError::Missing(_)) => return unknown(&error.to_string()),
        Err(error) => return Err(error.to_string()),
    };
    let counts = ledger.counts().await.map_err(|error| error.to_string())?;
    // Whose the worker's key is is not known here. A rehearsal's cards, and those at another host, are not its.
    let host = host_of(&config.stripe.api_url)?;
    let account = config.stripe.account.as_deref().or(config.stripe.account_id.as_deref());
    let mut scopes: Vec<Scope> = counts.iter().map(|counts| Scope::of_ledger(&counts.scope)).collect();
    scopes.retain(|scope| scope.is_at(&host, account));
    scopes.sort_by(|one, other| one.as_str().cmp(other.as_str()));
    scopes.dedup();
    let recognition = match scopes.as_slice() {
        [] => Arc::default(),
        [scope] => {
            let recognition = recognise_rows(&ledger, scope, batch, SecondCards::Refused, manifest).await?;
            tell(&recognition, say);
            recognition
        }
        several => {
            let all: Vec<&str> = several.iter().map(Scope::as_str).collect();
            let all = all.join(", ");
            return unknown(&format!(
                "the ledger has cards of {all}; set stripe.account_id to the worker's account"
            ));
        }
    };
    ledger.close().await;
    Ok(recognition)
}

/// Answers why not all were read, if so.
async fn publish_all(
    publisher: &Arc<Publisher>,
    manifest: Arc<Manifest>,
    mut jobs: Jobs,
    published: &Arc<Published>,
    bar: &ProgressBar,
) -> Result<Option<String>, String> {
    let (rows, mut incoming) = mpsc::channel::<Result<Row, InvalidRow>>(1);
    let reader = std::thread::spawn(move || read_rows(&manifest, &rows));
    let mut publishing: JoinSet<Result<(), String>> = JoinSet::new();
    while let Some(row) = incoming.recv().await {
        // An invalid row was told by the check.
        let Ok(row) = row else { continue };
        let line = row.line;
        let job = jobs
            .job_of(row)
            .map_err(|error| format!("line {line}: batch and row_id together make a job id that {error}"))?;
        if publishing.len() >= UNCONFIRMED_MAX
            && let Some(ended) = publishing.join_next().await
        {
            ended.map_err(|error| error.to_string())??;
        }
        let (publisher, published, bar) = (publisher.clone(), published.clone(), bar.clone());
        publishing.spawn(async move {
            publish(&publisher, job, &published).await?;
            published.confirmed.fetch_add(1, Ordering::Relaxed);
            bar.inc(1);
            Ok(())
        });
    }
    while let Some(ended) = publishing.join_next().await {
        ended.map_err(|error| error.to_string())??;
    }
    reader.join().map_err(|_| "the manifest's reader failed".to_owned())?
}

fn read_rows(
    manifest: &Manifest,
    rows: &mpsc::Sender<Result<Row, InvalidRow>>,
) -> Result<Option<String>, String> {
    for row in manifest.rows().map_err(|error| error.to_string())? {
        if let Err(invalid) = &row
            && let Some(reason) = invalid.unreadable()
        {
            return Ok(Some(reason.to_owned()));
        }
        if rows.blocking_send(row).is_err() {
            break;
        }
    }
    Ok(None)
}

/// One row, waiting for as long as the queue is full.
async fn publish(publisher: &Publisher, job: Job, published: &Published) -> Result<(), String> {
    let outgoing = Outgoing::of(job);
    loop {
        match outgoing.publish(publisher).await {
            Ok(()) => {
                published.full.store(false, Ordering::Relaxed);
                return Ok(());
            }
            Err(NotTaken::Full) => {
                published.full.store(true, Ordering::Relaxed);
                tokio::time::sleep(FULL_WAIT).await;
            }
            Err(NotTaken::Unroutable) => {
                let queue = &publisher.topology().jobs;
                return Err(format!(
                    "there is no queue {queue}; start a worker, or let rabbitmq.declare be true"
                ));
            }
        }
    }
}

fn words(published: &Published) -> &'static str {
    if published.full.load(Ordering::Relaxed) { "the queue is full: waiting for the worker" } else { "" }
}

fn progress(rows: u64, published: &Arc<Published>) -> ProgressBar {
    let terminal = std::io::stderr().is_terminal();
    let bar = if terminal { ProgressBar::new(rows) } else { ProgressBar::hidden() };
    if terminal {
        let style = ProgressStyle::with_template("{bar:30} {pos}/{len} published, {per_sec} {msg}");
        bar.set_style(style.expect("the template is a constant that parses"));
    }
    let (shown, published) = (bar.clone(), published.clone());
    let every = if terminal { Duration::from_millis(200) } else { PROGRESS_EVERY };
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(every).await;
            if shown.is_finished() {
                return;
            }
            if terminal {
                shown.set_message(words(&published));
            } else {
                let confirmed = published.confirmed.load(Ordering::Relaxed);
                eprintln!("{confirmed}/{rows} published {}", words(&published));
            }
        }
    });
    bar
}
