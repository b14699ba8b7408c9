//! Jobs through the whole line, against a server on this machine that answers at once: what embosser itself costs.
//!
//! The reference, in the same run, is a bare loop with the same HTTP client: the same two calls for each job, 64 jobs
//! at a time, and no record of anything. All figures are ratios to it: jobs a second, CPU and allocations per
//! job, server included in both. `cargo bench` measures; anything else (CI) runs each for a moment.
#![allow(missing_docs, reason = "a program of its own")]
#![allow(unsafe_code, reason = "an allocator that counts can only be written with it")]

use std::alloc::{GlobalAlloc, Layout};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use base64::Engine as _;
use embosser::card::CardRequest;
use embosser::clock::Clock;
use embosser::config::{PaceConfig, RetryConfig, StripeConfig};
use embosser::encrypt::encrypt_pin;
use embosser::job::{Batch, Job, JobId};
use embosser::ledger::{Ledger, Scope};
use embosser::line::course::Rules;
use embosser::line::{Line, LookFirst, Parts};
use embosser::outcome::Outcome;
use embosser::pace::Pace;
use embosser::pin::PinJwe;
use embosser::stripe::Client;
use mimalloc::MiMalloc;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// Jobs at a time, in the reference and in the line.
const AT_A_TIME: usize = 64;
/// Runs of each, taken in turns; the median counts.
const ROUNDS: usize = 5;
/// A pace that limits nothing here.
const UNLIMITED: f64 = 10_000_000.0;

/// mimalloc, as in the program, and a count.
struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

#[global_allocator]
static ALLOCATOR: Counting = Counting;

// SAFETY: every call is handed on as it came to an allocator that keeps the contract.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's own promise.
        unsafe { MiMalloc.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's own promise.
        unsafe { MiMalloc.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's own promise.
        unsafe { MiMalloc.realloc(pointer, layout, size) }
    }
}

/// What a run cost.
#[derive(Debug, Clone, Copy)]
struct Cost {
    jobs_per_second: f64,
    cpu_us_per_job: f64,
    allocations_per_job: f64,
}

/// The process's CPU time, of all its threads.
fn cpu() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").expect("Linux");
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap_or("").split(' ').collect();
    let ticks: u64 = [11, 12].iter().filter_map(|field| fields.get(*field)?.parse::<u64>().ok()).sum();
    Duration::from_millis(ticks * 10)
}

#[expect(clippy::cast_precision_loss, reason = "counts of a bench")]
async fn measured(jobs: usize, run: impl Future<Output = ()>) -> Cost {
    let (cpu_before, allocations_before) = (cpu(), ALLOCATIONS.load(Ordering::Relaxed));
    let began = Instant::now();
    run.await;
    let took = began.elapsed();
    Cost {
        jobs_per_second: jobs as f64 / took.as_secs_f64(),
        cpu_us_per_job: (cpu() - cpu_before).as_secs_f64() * 1e6 / jobs as f64,
        allocations_per_job: (ALLOCATIONS.load(Ordering::Relaxed) - allocations_before) as f64 / jobs as f64,
    }
}

/// A server that answers at once: the key document to a GET, a card to a POST.
struct Server {
    url: String,
    creates: Arc<AtomicUsize>,
}

async fn serve(key: Arc<str>) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("http://{}", listener.local_addr().expect("it is bound"));
    let creates = Arc::new(AtomicUsize::new(0));
    let counted = creates.clone();
    tokio::spawn(async move {
        let key = answer(&key);
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(connection(stream, key.clone(), counted.clone()));
        }
    });
    Server { url, creates }
}

fn answer(body: &str) -> Arc<[u8]> {
    let length = body.len();
    format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}")
        .into_bytes()
        .into()
}

async fn connection(mut stream: TcpStream, key: Arc<[u8]>, creates: Arc<AtomicUsize>) {
    let _ = stream.set_nodelay(true);
    let card = answer(
        r#"{"id":"ic_00000001","object":"issuing.card","last4":"4242","exp_month":8,"exp_year":2030,"status":"inactive","metadata":{}}"#,
    );
    let mut read = Vec::with_capacity(16 << 10);
    loop {
        if let Some(whole) = whole_request(&read) {
            let created = read.starts_with(b"POST");
            read.drain(..whole);
            creates.fetch_add(usize::from(created), Ordering::Relaxed);
            if stream.write_all(if created { &card } else { &key }).await.is_err() {
                return;
            }
        } else if !matches!(stream.read_buf(&mut read).await, Ok(1..)) {
            return;
        }
    }
}

/// The length of the request that is there in whole.
fn whole_request(read: &[u8]) -> Option<usize> {
    let head = memchr::memmem::find(read, b"\r\n\r\n")? + 4;
    let length = memchr::memmem::find(&read[..head], b"content-length: ").map_or(0, |at| {
        let digits = read[at + 16..].iter().take_while(|byte| byte.is_ascii_digit());
        digits.fold(0, |length, digit| length * 10 + usize::from(digit - b'0'))
    });
    (read.len() >= head + length).then_some(head + length)
}

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
    let card = CardRequest::from_pairs(pairs()).expect("the pairs are valid");
    let id = JobId::new(format!("{run}/{number}")).expect("a short name");
    let batch = Batch::new(run).expect("a short name");
    Job::new(id, batch, None, card, Some(PinJwe::new(jwe.to_owned())))
}

/// The same two calls for each job, and nothing else.
async fn bare(server: &Server, jobs: usize, body: Arc<[u8]>) {
    let client = reqwest::Client::builder()
        .tcp_nodelay(true)
        .pool_max_idle_per_host(1024)
        .timeout(Duration::from_secs(30))
        .no_proxy()
        .build()
        .expect("a client");
    let next = Arc::new(AtomicUsize::new(0));
    let before = server.creates.load(Ordering::Relaxed);
    let mut loops = JoinSet::new();
    for _ in 0..AT_A_TIME {
        let (client, next, body, url) = (client.clone(), next.clone(), body.clone(), server.url.clone());
        loops.spawn(async move {
            while next.fetch_add(1, Ordering::Relaxed) < jobs {
                let key = client.get(format!("{url}/v1/keys")).send().await.expect("a key");
                assert!(!key.bytes().await.expect("a body").is_empty());
                let create = client
                    .post(format!("{url}/v1/issuing/cards"))
                    .header("authorization", "Bearer sk_test_bench")
                    .header("content-type", "application/x-www-form-urlencoded")
                    .header("idempotency-key", "bench")
                    .body(body.to_vec());
                let card = create.send().await.expect("a card");
                assert!(card.status().is_success());
                assert!(!card.bytes().await.expect("a body").is_empty());
            }
        });
    }
    loops.join_all().await;
    assert_eq!(server.creates.load(Ordering::Relaxed) - before, jobs, "one call for each job");
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
            concurrency: 512,
        }),
        ledger: Ledger::open(&url).await.expect("a ledger in a new directory"),
        scope: Scope::new("test", "bench", None),
        clock: Clock::system(),
        retry: RetryConfig::default(),
        rules: Rules::default(),
        look_first: LookFirst::No,
    }))
}

/// Jobs down the line, 64 at a time.
async fn through(line: &Arc<Line>, server: &Server, jobs: Vec<Job>) {
    let count = jobs.len();
    let before = server.creates.load(Ordering::Relaxed);
    let (give, take) = std::sync::mpsc::channel();
    for job in jobs {
        give.send(job).expect("it is held below");
    }
    drop(give);
    let take = Arc::new(std::sync::Mutex::new(take));
    let mut loops = JoinSet::new();
    for _ in 0..AT_A_TIME {
        let (line, take) = (line.clone(), take.clone());
        loops.spawn(async move {
            loop {
                let job = take.lock().expect("nobody panics").try_recv();
                let Ok(job) = job else { return };
                let ended = line.carry(job).await.expect("the line is open");
                assert!(matches!(ended.outcome, Outcome::Issued(_)), "{:?}", ended.outcome);
            }
        });
    }
    loops.join_all().await;
    assert_eq!(server.creates.load(Ordering::Relaxed) - before, count, "one call for each job");
}

fn median(mut costs: Vec<Cost>) -> Cost {
    costs.sort_unstable_by(|one, other| one.jobs_per_second.total_cmp(&other.jobs_per_second));
    costs[costs.len() / 2]
}

fn print(what: &str, cost: Cost, reference: Cost) {
    println!(
        "{what:<28} {:>7.0} jobs/s ({:.2}x)  {:>6.1} us CPU a job ({:.2}x)  {:>5.0} allocations a job ({:.2}x)",
        cost.jobs_per_second,
        cost.jobs_per_second / reference.jobs_per_second,
        cost.cpu_us_per_job,
        cost.cpu_us_per_job / reference.cpu_us_per_job,
        cost.allocations_per_job,
        cost.allocations_per_job / reference.allocations_per_job
    );
}

async fn costs(server: &Server, jobs: usize, rounds: usize, jwe: &str) {
    let mut body = Vec::new();
    let card = CardRequest::from_pairs(pairs()).expect("the pairs are valid");
    card.encode_into(&mut body, Some(jwe), "bench/1", "bench");
    let body: Arc<[u8]> = body.into();
    let disk = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory on the disk");
    let memory = tempfile::tempdir_in("/dev/shm").expect("a directory in memory");
    let lines = [line(server, disk.path(), UNLIMITED).await, line(server, memory.path(), UNLIMITED).await];
    let mut measures: [Vec<Cost>; 3] = Default::default();
    for round in 0..rounds {
        measures[0].push(measured(jobs, bare(server, jobs, body.clone())).await);
        for (at, line) in lines.iter().enumerate() {
            let made: Vec<Job> = (0..jobs).map(|number| job(&format!("b{round}"), number, jwe)).collect();
            measures[at + 1].push(measured(jobs, through(line, server, made)).await);
        }
    }
    let [reference, durable, memory] = measures.map(median);
    print("bare loop, no record", reference, reference);
    print("line, ledger on disk", durable, reference);
    print("line, ledger in memory", memory, reference);
    let commits = lines[0].parts().ledger.commits();
    println!(
        "rows a commit on disk: {:.1}",
        commits.rows.load(Ordering::Relaxed) as f64 / commits.commits.load(Ordering::Relaxed).max(1) as f64
    );
}

/// What the line adds between taking a job and making its call, at 80 % of the pace.
async fn added(server: &Server, seconds: usize, jwe: &str) {
    const PACE: f64 = 1000.0;
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory on the disk");
    let line = line(server, directory.path(), PACE).await;
    let mut every = tokio::time::interval(Duration::from_secs_f64(1.0 / (PACE * 0.8)));
    let mut jobs = JoinSet::new();
    for number in 0..800 * seconds {
        every.tick().await;
        let (line, job) = (line.clone(), job("added", number, jwe));
        let taken = Instant::now();
        jobs.spawn(async move {
            let ended = line.carry(job).await.expect("the line is open");
            assert!(matches!(ended.outcome, Outcome::Issued(_)));
            taken.elapsed()
        });
    }
    let mut took = jobs.join_all().await;
    took.sort_unstable();
    let percentile = |percent: usize| took[(took.len() - 1) * percent / 100].as_secs_f64() * 1e3;
    println!(
        "at 80 % of {PACE}/s, from taking a job to its recorded end (both calls and both flushes): median {:.2} ms, p99 {:.2} ms",
        percentile(50),
        percentile(99)
    );
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
        let server = serve(document.into()).await;
        costs(&server, if whole { 20_000 } else { 500 }, if whole { ROUNDS } else { 1 }, &jwe).await;
        added(&server, if whole { 10 } else { 1 }, &jwe).await;
    });
}
