//! Jobs through the whole line, against a server on this machine that answers at once: what embosser itself costs.
//!
//! The reference, in the same run, is a bare loop on reqwest: the same two calls for each job, 64 jobs at a time, and no
//! record of anything, as a program's main function would have it. All figures are ratios to it: jobs a second, CPU and
//! allocations per job, server included in both. Beside it stand the same calls as 64 tasks on all of the runtime's
//! threads, and the loop with its server on one thread. `cargo bench` measures; anything else (CI) runs each for a
//! moment. A word after `--` (`bare`, `issue`, `line`, `worker`, `start`, `added`) runs that part alone, for a profiler.
#![allow(missing_docs, reason = "a program of its own")]
#![allow(clippy::unwrap_used, reason = "a bench fails by panicking")]

mod bare;
mod cost;
mod loopback;
mod rabbitmq;
mod startup;
#[path = "../../tests/support/mod.rs"]
mod support;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use base64::Engine as _;
use embosser::clock::Clock;
use embosser::commands::issue;
use embosser::config::{Config, PaceConfig, RetryConfig, StripeConfig};
use embosser::encrypt::encrypt_pin;
use embosser::job::{Batch, Job, JobId};
use embosser::ledger::{Ledger, Scope};
use embosser::line::decision::Rules;
use embosser::line::{LEASE_IDLE, Line, LookFirst, OnSameRefusals, Options, Parts, Vet};
use embosser::operation::{Operation, Request};
use embosser::outcome::Outcome;
use embosser::pace::Pace;
use embosser::pin::PinJwe;
use embosser::stripe::Client;
use tokio::task::JoinSet;

use cost::{Cost, measured, median, print};
use loopback::{Server, serve};

/// Jobs at a time in the reference; calls at a time in `issue` where it does not choose for itself.
const AT_A_TIME: usize = 64;
/// Jobs at a time in the line: what the pace itself chooses at a high rate.
const IN_FLIGHT: usize = 512;
/// Jobs of each run, unless `EMBOSSER_BENCH_ROWS` says otherwise: enough that what `issue` does once (its start, the ledger's end) weighs as little as in a rollout.
const JOBS: usize = 50_000;
/// Runs of each, taken in turns, unless `EMBOSSER_BENCH_ROUNDS` says otherwise; the median counts.
const ROUNDS: usize = 5;
/// A pace that limits nothing here, the highest that can be configured.
const UNLIMITED: f64 = 100_000.0;

fn pairs() -> Vec<(String, String)> {
    [
        ("cardholder", "ich_1MzFMzK8F4fqH0lBmFq8CjbU"),
        ("currency", "usd"),
        ("type", "physical"),
        ("status", "inactive"),
        ("second_line", "ACME GmbH"),
        ("shipping[name]", "Jenny Rosen"),
        ("shipping[address][line1]", "1234 Main Street"),
        ("shipping[address][city]", "San Francisco"),
        ("shipping[address][state]", "CA"),
        ("shipping[address][postal_code]", "94111"),
        ("shipping[address][country]", "US"),
        ("spending_controls[spending_limits][0][amount]", "50000"),
        ("spending_controls[spending_limits][0][interval]", "monthly"),
        ("metadata[department]", "engineering"),
        ("metadata[cost_center]", "4711"),
    ]
    .map(|(path, value)| (path.to_owned(), value.to_owned()))
    .into()
}

fn job(run: &str, number: usize, jwe: &str) -> Job {
    let card = Request::from_pairs(Operation::CreateCard, pairs()).expect("the pairs are valid");
    let id = JobId::new(format!("{run}/{number}")).expect("a short name");
    let batch = Batch::new(run).expect("a short name");
    Job::new(id, batch, None, card, Some(PinJwe::new(jwe.to_owned())))
}

async fn line(server: &Server, directory: &Path, per_second: f64) -> Arc<Line> {
    let stripe = StripeConfig {
        api_url: server.url.clone(),
        key_url: format!("{}/v1/keys", server.url),
        ..StripeConfig::default()
    };
    let url = format!("sqlite://{}", directory.join("ledger.db").display());
    Arc::new(Line::new(Parts {
        client: Client::new(&stripe, &"sk_test_bench".to_owned().into()).expect("the addresses are valid"),
        pace: Pace::start(&PaceConfig {
            endpoint_per_second: per_second,
            account_per_second: per_second,
            concurrency: IN_FLIGHT,
        }),
        ledger: Ledger::open(&url).await.expect("a ledger in a new directory"),
        scope: Scope::new("test", "bench", None),
        clock: Clock::system(),
        retry: RetryConfig::default(),
        rules: Rules::default(),
        look_first: LookFirst::No,
        vet: Vet::No,
        lease_idle: LEASE_IDLE,
        pin_links: None,
        same_refusals: (10, OnSameRefusals::Wait),
    }))
}

/// Jobs down the line, so many at a time.
async fn through(line: &Arc<Line>, server: &Server, at_a_time: usize, jobs: Vec<Job>) {
    let count = jobs.len();
    let before = server.creates.load(Ordering::Relaxed);
    let (give, take) = std::sync::mpsc::channel();
    for job in jobs {
        give.send(job).expect("it is held below");
    }
    drop(give);
    let take = Arc::new(std::sync::Mutex::new(take));
    let mut loops = JoinSet::new();
    for _ in 0..at_a_time {
        let (line, take) = (line.clone(), take.clone());
        loops.spawn(async move {
            loop {
                let job = take.lock().expect("nobody panics").try_recv();
                let Ok(job) = job else { return };
                let ended = line.carry(job, Options::default()).await.expect("the line is open");
                assert!(matches!(ended.outcome, Outcome::Done(_)), "{:?}", ended.outcome);
            }
        });
    }
    loops.join_all().await;
    assert_eq!(server.creates.load(Ordering::Relaxed) - before, count, "one call for each job");
}

/// A manifest of such jobs, and the whole of `embosser issue` on it: check, read, issue, record, results.
struct Rollout {
    name: String,
    args: issue::Args,
    config: Config,
    rows: usize,
}

impl Rollout {
    /// With so many calls at a time, or as many as `issue` chooses.
    fn write(
        server: &Server,
        directory: &Path,
        name: &str,
        (rows, concurrency): (usize, Option<usize>),
        jwe: &str,
    ) -> Self {
        let manifest = directory.join(format!("{name}.csv"));
        let mut csv = csv::Writer::from_path(&manifest).unwrap();
        let pairs = pairs();
        let columns = pairs.iter().map(|(path, _)| path.as_str());
        csv.write_record(["row_id"].into_iter().chain(columns).chain(["pin[encrypted_number]"])).unwrap();
        for row in 0..rows {
            let row_id = format!("{name}-{row}");
            let values = pairs.iter().map(|(_, value)| value.as_str());
            csv.write_record([row_id.as_str()].into_iter().chain(values).chain([jwe])).unwrap();
        }
        csv.flush().unwrap();
        let mut config = Config::default();
        config.stripe.api_url.clone_from(&server.url);
        config.stripe.key_url = format!("{}/v1/keys", server.url);
        config.ledger.url = format!("sqlite://{}", directory.join("issue.db").display());
        let args = issue::Args {
            strict: false,
            reading: embosser::commands::manifest::ReadingArgs::default(),
            manifest,
            account: embosser::commands::accounts::AccountArgs::default(),
            sandbox: false,
            results: None,
            ledger: None,
            batch: None,
            rate: Some(UNLIMITED),
            concurrency,
            yes: false,
            reconcile_first: false,
            metrics: None,
            skip_invalid: false,
            // Every rollout asks for the same cards.
            second_cards: true,
            retry: false,
            yes_cancel: None,
            start: None,
            no_wait: false,
            notify_command: None,
        };
        Self { name: name.to_owned(), args, config, rows }
    }

    async fn issue(self, server: &Server) {
        let before = server.creates.load(Ordering::Relaxed);
        let key = Some("sk_test_bench".to_owned().into());
        let exit = issue::run(self.args, self.config, key).await.unwrap();
        assert_eq!(exit.code(), 0, "{}", self.name);
        assert_eq!(server.creates.load(Ordering::Relaxed) - before, self.rows, "one call for each job");
    }
}

/// Whether a part is to be run: it was asked for, or none was.
fn wanted(part: &str) -> bool {
    let mut asked = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).peekable();
    asked.peek().is_none() || asked.any(|asked| asked == part)
}

/// A number that the environment may give.
fn given(name: &str, usual: usize) -> usize {
    std::env::var(name).ok().and_then(|number| number.parse().ok()).unwrap_or(usual)
}

async fn costs(server: &Server, document: &Arc<str>, jobs: usize, rounds: usize, jwe: &str) {
    let mut body = Vec::new();
    let card = Request::from_pairs(Operation::CreateCard, pairs()).expect("the pairs are valid");
    card.encode_into(&mut body, Some(jwe), "bench/1", "bench");
    let body: Arc<[u8]> = body.into();
    let disk = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory on the disk");
    let few = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory on the disk");
    let memory = tempfile::tempdir_in("/dev/shm").expect("a directory in memory");
    let lines = [
        ("line, ledger on disk", IN_FLIGHT, line(server, disk.path(), UNLIMITED).await),
        ("the same, 64 at a time", AT_A_TIME, line(server, few.path(), UNLIMITED).await),
        ("line, ledger in memory", IN_FLIGHT, line(server, memory.path(), UNLIMITED).await),
    ];
    let (mut bare_loops, mut as_tasks, mut on_one_thread) = (Vec::new(), Vec::new(), Vec::new());
    let ways =
        [("embosser issue, all of it", "issue", None), ("the same, 64 at a time", "few", Some(AT_A_TIME))];
    let mut issues: [Vec<Cost>; 2] = Default::default();
    let mut measures: [Vec<Cost>; 3] = Default::default();
    for round in 0..rounds {
        if wanted("bare") {
            bare_loops.push(measured(jobs, bare::in_one_loop(server, jobs, body.clone())).await);
            as_tasks.push(measured(jobs, bare::as_tasks(server, jobs, body.clone())).await);
            let alone = bare::on_one_thread(document.clone(), jobs, body.clone());
            on_one_thread.push(measured(jobs, alone).await);
        }
        for ((_, name, concurrency), measures) in ways.iter().zip(&mut issues).filter(|_| wanted("issue")) {
            let name = format!("{name}{round}");
            let rollout = Rollout::write(server, disk.path(), &name, (jobs, *concurrency), jwe);
            measures.push(measured(jobs, rollout.issue(server)).await);
        }
        for ((_, at_a_time, line), measures) in lines.iter().zip(&mut measures).filter(|_| wanted("line")) {
            let made: Vec<Job> = (0..jobs).map(|number| job(&format!("b{round}"), number, jwe)).collect();
            measures.push(measured(jobs, through(line, server, *at_a_time, made)).await);
        }
    }
    let reference = median(bare_loops);
    print("bare loop, no record", reference, reference);
    print("the same as 64 tasks", median(as_tasks), reference);
    print("the same on one thread", median(on_one_thread), reference);
    for ((what, ..), measures) in ways.iter().zip(issues) {
        print(what, median(measures), reference);
    }
    for ((name, _, line), measures) in lines.iter().zip(measures) {
        print(name, median(measures), reference);
        let commits = line.parts().ledger.commits();
        let (rows, commits) = (commits.rows.load(Ordering::Relaxed), commits.commits.load(Ordering::Relaxed));
        println!("{:<28} {:.1} rows a commit", "", rows as f64 / commits.max(1) as f64);
    }
    if wanted("worker") {
        rabbitmq::cost(server, jobs, jwe, reference).await;
    }
}

/// What the line adds between taking a job and its create call, and its recorded end, at 80 % of the pace.
async fn added(server: &Server, seconds: usize, jwe: &str) {
    const PACE: f64 = 1000.0;
    server.noted.lock().expect("nobody panics").clear();
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory on the disk");
    let line = line(server, directory.path(), PACE).await;
    let mut every = tokio::time::interval(Duration::from_secs_f64(1.0 / (PACE * 0.8)));
    let mut jobs = JoinSet::new();
    for number in 0..800 * seconds {
        every.tick().await;
        let (line, job) = (line.clone(), job(loopback::NOTED, number, jwe));
        let taken = Instant::now();
        jobs.spawn(async move {
            let ended = line.carry(job, Options::default()).await.expect("the line is open");
            assert!(matches!(ended.outcome, Outcome::Done(_)));
            (number, taken, taken.elapsed())
        });
    }
    let ended = jobs.join_all().await;
    let noted = server.noted.lock().expect("nobody panics").clone();
    let until_call = ended.iter().map(|(number, taken, _)| noted[number].duration_since(*taken)).collect();
    let until_end = ended.iter().map(|(.., took)| *took).collect();
    for (what, took) in [
        ("its create call (pace, key, verification, one flush)", until_call),
        ("its recorded end (both calls and both flushes)", until_end),
    ] {
        let mut took: Vec<Duration> = took;
        took.sort_unstable();
        let percentile = |percent: usize| took[(took.len() - 1) * percent / 100].as_secs_f64() * 1e3;
        let (median, p99) = (percentile(50), percentile(99));
        println!("at 80 % of {PACE}/s, from taking a job to {what}: median {median:.2} ms, p99 {p99:.2} ms");
    }
}

fn main() {
    let whole = std::env::args().any(|argument| argument == "--bench");
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = tokio::runtime::Runtime::new().expect("a runtime starts");
    runtime.block_on(async {
        let key = openssl::rsa::Rsa::generate(2048).expect("OpenSSL makes keys");
        let pem = key.public_key_to_pem().expect("a public key has a form");
        let url_safe = |number: &openssl::bn::BigNumRef| {
            base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(number.to_vec())
        };
        let document = serde_json::json!({
            "key_id": "bench",
            "jwk": {"kty": "RSA", "use": "enc", "kid": "bench", "n": url_safe(key.n()), "e": url_safe(key.e())},
            "pkcs8": String::from_utf8_lossy(&pem),
        })
        .to_string();
        let jwe = encrypt_pin("4711", document.as_bytes()).expect("the key is valid");
        let document: Arc<str> = document.into();
        let server = serve(document.clone()).await;
        let jobs = given("EMBOSSER_BENCH_ROWS", if whole { JOBS } else { 500 });
        let rounds = given("EMBOSSER_BENCH_ROUNDS", if whole { ROUNDS } else { 1 });
        costs(&server, &document, jobs, rounds, &jwe).await;
        if wanted("start") {
            startup::until_first_request(&server, if whole { 21 } else { 1 }, &jwe).await;
        }
        if wanted("added") {
            // More than once: a single flush that the disk takes long for is more than a hundredth of a run's jobs.
            for _ in 0..if whole { 5 } else { 1 } {
                added(&server, if whole { 5 } else { 1 }, &jwe).await;
            }
        }
    });
}
