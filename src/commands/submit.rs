//! `embosser submit MANIFEST`: every row becomes a job in RabbitMQ; publish again to resume, nothing is issued twice.

mod follow;
mod left;

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use indicatif::ProgressBar;

use super::Exit;
use super::confirm::{WithoutTerminal, confirmed};
use super::issue::earlier::{print_recognised, recognise as recognise_rows, say_near, scopes_of};
use super::issue::persons_of;
use super::manifest::{Leniency, ReadingArgs, Verb};
use super::progress::progress;
use super::signals::{print, say};
use crate::config::{Config, place};
use crate::intake::feed::{Bounds, Each, Sink, feed};
use crate::job::Batch;
use crate::ledger::{Ledger, LedgerError, Scope};
use crate::line::{Admitted, Line};
use crate::manifest::batch::{Jobs, SecondCards};
use crate::manifest::checked::CheckedManifest;
use crate::manifest::recognise::Recognition;
use crate::manifest::{CheckOptions, InvalidRow, counted};
use crate::queue::Broker;
use crate::queue::obstacle::Obstacle;
use crate::queue::publisher::Publisher;
use crate::queue::send::{Outgoing, no_queue};
use crate::remedy::TryAgain;
use follow::{Awaited, Following};
use left::Left;

/// Options of `embosser submit`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The manifest: a CSV or a spreadsheet (XLSX, XLS, ODS) with a header row; - is standard input.
    pub manifest: PathBuf,
    /// How it is read.
    #[command(flatten)]
    pub reading: ReadingArgs,
    /// Which account it is for.
    #[command(flatten)]
    pub account: super::accounts::AccountArgs,
    /// Names the batch: with a row's id it names the job [default: the manifest's name].
    #[arg(long)]
    pub batch: Option<String>,
    /// Answer yes to the question before jobs are published.
    #[arg(long)]
    pub yes: bool,
    /// Publish the valid rows of a manifest that has invalid ones.
    #[arg(long)]
    pub skip_invalid: bool,
    /// Take warnings for problems.
    #[arg(long)]
    pub strict: bool,
    /// Publish rows again that were issued before under other names: second cards.
    #[arg(long)]
    pub second_cards: bool,
    /// Of rows that were refused before, publish only those again that need no change. Needs the worker's ledger.
    #[arg(long, conflicts_with = "second_cards")]
    pub retry: bool,
    /// How many cards the manifest cancels: that cannot be undone.
    #[arg(long, value_name = "N")]
    pub yes_cancel: Option<u64>,
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
#[derive(Debug)]
pub(super) struct Published {
    confirmed: AtomicU64,
    full: AtomicBool,
    obstacle: Arc<Obstacle>,
}

/// Publishes the manifest.
///
/// # Errors
/// A sentence for the operator.
pub async fn run(args: Args, config: Config) -> Result<Exit, String> {
    super::exposed::warn(&config);
    let broker = Broker::new(&config.rabbitmq).map_err(|error| error.to_string())?;
    let batch = super::manifest::batch_of(&args.manifest, args.batch.as_deref())?;
    let manifest = super::manifest::open(&args.manifest, args.reading.reading()).await?;
    let verb = Verb { infinitive: "publish", participle: "published" };
    let report = super::manifest::check(
        &manifest,
        CheckOptions::default(),
        Leniency { skip_invalid: args.skip_invalid, strict: args.strict },
        verb,
    )
    .await?;
    report.cancels_are_wanted(args.yes_cancel).map_err(|reason| {
        format!("{reason}; nothing was published. Pass --yes-cancel {} if that is meant", report.cancels)
    })?;
    let valid = report.rows - report.invalid_rows;
    // Whoever works on the queue may hold a live key: a person is asked first.
    let (queue, address) = (broker.topology.jobs.as_str(), broker.shown());
    let about = format!(
        "{valid} jobs go to {queue} at {address}, whose worker carries them out: {}.",
        report.contents()
    );
    if !confirmed(&about, "Publish them?", args.yes, &WithoutTerminal::Yes)? {
        return Err("nothing was published".into());
    }
    let manifest = CheckedManifest::new(manifest, &report);
    let Known { recognition, left } = if args.second_cards {
        Known::default()
    } else {
        recognise(&args, &config, &batch, &manifest).await?
    };
    let persons = persons_of(&manifest, Jobs::new(batch.clone(), recognition.clone())).await?;
    let publisher = Arc::new(Publisher::new(broker.clone(), "embosser submit"));
    publisher.connect().await.map_err(|error| format!("{address}: {error}"))?;
    let of_manifest = || super::manifest::results_of(&args.manifest, &batch, "results.csv");
    let results = args.results.clone().unwrap_or_else(of_manifest);
    let mut following = match args.wait {
        true => Some(Following::begin(broker.clone(), &batch, &results, persons).await?),
        false => None,
    };
    let published = Arc::new(Published::of(&publisher));
    let shown = published.clone();
    let bar = progress(valid, move || shown.words());
    // Rows that have their cards in another batch are not this one's.
    let rows = if recognition.rows > 0 { recognition.rows_of_batch() } else { valid };
    let account = config.stripe.account.clone().or_else(|| config.stripe.account_id.clone());
    let publishing = Publishing {
        publisher: publisher.clone(),
        published: published.clone(),
        bar: bar.clone(),
        rows,
        account,
        awaited: following.as_ref().map(Following::awaited),
        left,
    };
    let publishing = Arc::new(publishing);
    // It takes the manifest with it: PINs that came from a spreadsheet or standard input are in memory no longer than this.
    let cut = publish(manifest, Jobs::new(batch.clone(), recognition), &publishing).await;
    bar.finish_and_clear();
    publisher.close().await;
    let cut = match cut {
        Ok(cut) => cut,
        Err(reason) => {
            if let Some(following) = following {
                // Nothing was heard: why nothing more is published comes first.
                let _ = following.finish().await;
            }
            return Err(reason);
        }
    };
    let confirmed = published.confirmed.load(Ordering::Relaxed);
    print(&format!("{confirmed} of {} rows published to {queue} as batch {batch}.", report.rows));
    let mut stay_refused = 0;
    if let Some(left) = &publishing.left {
        stay_refused = left.count();
        let rows = counted(stay_refused, "row");
        print(&format!("Not published again, as they were refused and must be changed first: {rows}."));
        if let Some(following) = &mut following {
            following.add_left(left).await?;
        }
        left.close().await;
    }
    if let Some(reason) = &cut {
        eprintln!("stopped: {reason}");
    }
    let skipped = report.invalid_rows > 0 || stay_refused > 0;
    let exit = match following {
        Some(following) => following.until_all_ended().await?,
        None => Exit::Success,
    };
    if cut.is_some() {
        return Ok(Exit::Unfinished);
    }
    Ok(if exit == Exit::Success && skipped { Exit::Refused } else { exit })
}

/// Publishes the manifest's rows, and lets go of it; answers why not all of them, if that is so.
async fn publish(
    manifest: CheckedManifest,
    jobs: Jobs,
    publishing: &Arc<Publishing>,
) -> Result<Option<String>, String> {
    let read = move |each: &mut Each<'_>| {
        let _ = manifest.rows().map_err(|error| error.to_string())?.try_for_each(each);
        Ok(())
    };
    Ok(feed(read, jobs, publishing, Bounds::OF_QUEUE).await?.cut)
}

/// What the ledger here knows of the manifest's rows.
#[derive(Default)]
struct Known {
    recognition: Arc<Recognition>,
    /// Rows that stay refused, if not all of them are tried again.
    left: Option<Left>,
}

/// The rows that are known under other names, as far as the ledger here knows: it may be the worker's, or there may be none.
async fn recognise(
    args: &Args,
    config: &Config,
    batch: &Batch,
    manifest: &CheckedManifest,
) -> Result<Known, String> {
    let unknown = |why: &str| {
        if args.retry {
            return Err(format!(
                "which rows were refused, and why, cannot be told here: {why}. Nothing was published; pass the worker's ledger as \
                 --ledger"
            ));
        }
        say(&format!("rows that were issued before under other names cannot be told here: {why}"));
        Ok(Known::default())
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
    // Whose the worker's key is is not known here. A rehearsal's cards, and those at another host, are not its.
    let scopes = scopes_of(&ledger, config).await?;
    let scope = match scopes.as_slice() {
        [] => {
            ledger.close().await;
            return Ok(Known::default());
        }
        [scope] => scope,
        several => {
            let all: Vec<&str> = several.iter().map(Scope::as_str).collect();
            let all = all.join(", ");
            return unknown(&format!(
                "the ledger has cards of {all}; set stripe.account_id to the worker's account"
            ));
        }
    };
    let again = if args.retry { TryAgain::Unchanged } else { TryAgain::All };
    let recognition = recognise_rows(&ledger, scope, batch, (SecondCards::Refused, again), manifest).await?;
    print_recognised(&recognition, say);
    say_near(&recognition, args.strict)?;
    if args.retry {
        return Ok(Known { recognition, left: Some(Left::new(ledger, scope.clone())) });
    }
    ledger.close().await;
    Ok(Known { recognition, left: None })
}

impl Published {
    fn of(publisher: &Publisher) -> Self {
        let (confirmed, full) = (AtomicU64::new(0), AtomicBool::new(false));
        Self { confirmed, full, obstacle: publisher.obstacle().clone() }
    }

    fn words(&self) -> String {
        match self.obstacle.alarm() {
            Some(alarm) => format!("published; {alarm}"),
            None if self.full.load(Ordering::Relaxed) => {
                "published; the queue is full: waiting for the worker".to_owned()
            }
            None => "published".to_owned(),
        }
    }
}

/// The queue, as rows are fed to it.
struct Publishing {
    publisher: Arc<Publisher>,
    published: Arc<Published>,
    bar: ProgressBar,
    /// How many rows the batch has.
    rows: u64,
    /// The account that the jobs are for, if it is configured.
    account: Option<String>,
    /// Where the jobs are added whose ends are waited for.
    awaited: Option<Awaited>,
    /// Rows that stay refused, if not all of them are tried again.
    left: Option<Left>,
}

impl Sink for Publishing {
    fn line(&self) -> Option<&Line> {
        None
    }

    async fn carry(&self, job: Admitted) -> Result<(), String> {
        let job = job.into_job();
        if let Some(left) = &self.left
            && left.has(&job.id).await.map_err(|error| error.to_string())?
        {
            self.bar.inc(1);
            return Ok(());
        }
        let id = self.awaited.is_some().then(|| job.id.to_string());
        let outgoing = Outgoing::of(job).among(self.rows).meant_for(self.account.as_deref(), None);
        let full = &self.published.full;
        let while_full = || {
            full.store(true, Ordering::Relaxed);
            ControlFlow::Continue(())
        };
        let published = outgoing.publish(&self.publisher, while_full).await;
        published.map_err(|_| no_queue(&self.publisher))?;
        full.store(false, Ordering::Relaxed);
        if let (Some(awaited), Some(id)) = (&self.awaited, id) {
            awaited.add(id);
        }
        self.published.confirmed.fetch_add(1, Ordering::Relaxed);
        self.bar.inc(1);
        Ok(())
    }

    async fn refused(&self, _: &InvalidRow) -> Result<(), String> {
        // The check said so.
        Ok(())
    }
}
