//! A stand-in for Stripe that does one thing: it counts. It is as strict as can be, and notes when each call arrived.
//!
//! Plain blocking sockets, a thread per connection: a call's arrival is the moment its first bytes were read,
//! whatever else the machine has to do. It knows nothing of embosser's own code, unlike the sandbox, and sets no store by
//! PINs, idempotency or parameters.

use std::collections::{HashMap, VecDeque};
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// How a limiter counts a second.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Counts {
    /// Any second.
    Sliding,
    /// Seconds of the clock.
    Fixed,
}

/// What is allowed, and how it behaves.
#[derive(Clone)]
pub struct Strict {
    pub counts: Counts,
    /// Calls of one endpoint in a second, the key endpoint's too; from the second of the run on.
    pub endpoint: Vec<(f64, usize)>,
    /// Calls of the account in a second.
    pub account: usize,
    /// Calls at once.
    pub concurrency: usize,
    /// The reason that goes with 429s of the endpoint's limiter; none: it is not a limiter's, but a lock's.
    pub reason: Option<&'static str>,
    /// One in so many calls is turned away for nothing; 0: none.
    pub one_in: usize,
    pub latency: Duration,
    pub key_latency: Duration,
    /// From when to when every call is answered with a 503, in seconds of the run.
    pub down: std::ops::Range<f64>,
}

impl Strict {
    pub fn of(limit: usize) -> Self {
        Self {
            counts: Counts::Sliding,
            endpoint: vec![(0.0, limit)],
            account: usize::MAX,
            concurrency: usize::MAX,
            reason: Some("endpoint-rate"),
            one_in: 0,
            latency: Duration::from_millis(20),
            key_latency: Duration::from_millis(5),
            down: 0.0..0.0,
        }
    }
}

/// What became of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Did {
    Made,
    TurnedAway,
    Failed,
    ServedKey,
}

/// A call.
#[derive(Debug, Clone, Copy)]
pub struct Arrival {
    /// In seconds since the first create.
    pub at: f64,
    pub when: Instant,
    pub endpoint: &'static str,
    pub did: Did,
}

struct World {
    options: Strict,
    began: Instant,
    arrivals: Vec<(Instant, &'static str, Did)>,
    windows: HashMap<&'static str, VecDeque<Instant>>,
    running: usize,
    creates: usize,
    key_document: String,
}

/// The server; it ends with the process.
pub struct Server {
    address: SocketAddr,
    world: Arc<Mutex<World>>,
}

const KEYS: &str = "keys";
const CREATE: &str = "create";
const LIST: &str = "list";
const ACCOUNT: &str = "account";

impl Server {
    /// Starts it with that key document.
    pub fn start(options: Strict, key_document: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let world = Arc::new(Mutex::new(World {
            options,
            began: Instant::now(),
            arrivals: Vec::new(),
            windows: HashMap::new(),
            running: 0,
            creates: 0,
            key_document,
        }));
        let of_listener = world.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let world = of_listener.clone();
                std::thread::Builder::new()
                    .stack_size(128 << 10)
                    .spawn(move || {
                        // A connection that ends is no trouble of the server's.
                        let _ = serve(stream, &world);
                    })
                    .unwrap();
            }
        });
        Self { address, world }
    }

    pub fn api_url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn key_url(&self) -> String {
        format!("http://{}/v1/keys", self.address)
    }

    /// All calls so far, in order of arrival.
    pub fn arrivals(&self) -> Vec<Arrival> {
        let world = self.world.lock().unwrap();
        let first = world.arrivals.iter().find(|(_, endpoint, _)| *endpoint == CREATE);
        let first = first.map_or(world.began, |(at, ..)| *at);
        let seconds = |at: Instant| match at.checked_duration_since(first) {
            Some(since) => since.as_secs_f64(),
            None => -(first - at).as_secs_f64(),
        };
        let arrival = |&(at, endpoint, did)| Arrival { at: seconds(at), when: at, endpoint, did };
        world.arrivals.iter().map(arrival).collect()
    }
}

fn serve(mut stream: TcpStream, world: &Mutex<World>) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut read = Vec::with_capacity(8192);
    let mut buffer = [0_u8; 8192];
    let mut arrived = None;
    loop {
        let request = httpless(&read);
        let Some((head, whole)) = request else {
            let count = stream.read(&mut buffer)?;
            if count == 0 {
                return Ok(());
            }
            arrived.get_or_insert_with(Instant::now);
            read.extend_from_slice(&buffer[..count]);
            continue;
        };
        let line = String::from_utf8_lossy(&read[..head]).lines().next().unwrap_or("").to_owned();
        let endpoint = if line.contains("/v1/keys") {
            KEYS
        } else if line.starts_with("POST") {
            CREATE
        } else {
            LIST
        };
        let job = job_of(&read[head..whole]);
        read.drain(..whole);
        let (did, wait, answer) =
            world.lock().unwrap().call(endpoint, &job, arrived.take().unwrap_or_else(Instant::now));
        std::thread::sleep(wait);
        if did == Did::Made {
            world.lock().unwrap().running -= 1;
        }
        stream.write_all(answer.as_bytes())?;
    }
}

/// Where a request's head and the request end, once all of it is there.
fn httpless(read: &[u8]) -> Option<(usize, usize)> {
    let head = read.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
    let text = String::from_utf8_lossy(&read[..head]).to_ascii_lowercase();
    let length = text.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse().ok());
    let whole = head + length.unwrap_or(0);
    (read.len() >= whole).then_some((head, whole))
}

/// The job's id in a create call's body.
fn job_of(body: &[u8]) -> String {
    let mut pairs = url::form_urlencoded::parse(body);
    pairs
        .find(|(name, _)| name == "metadata[embosser_job]")
        .map_or_else(String::new, |(_, job)| job.into_owned())
}

impl World {
    fn call(&mut self, endpoint: &'static str, job: &str, at: Instant) -> (Did, Duration, String) {
        let seconds = (at - self.began).as_secs_f64();
        let (did, wait, answer) = if self.options.down.contains(&seconds) {
            (Did::Failed, Duration::ZERO, response("503 Service Unavailable", "", "{}"))
        } else if let Some(reason) = self.limit(endpoint, at, seconds) {
            let header =
                reason.map_or_else(String::new, |reason| format!("stripe-rate-limited-reason: {reason}\r\n"));
            let code = if reason.is_some() { "rate_limit" } else { "lock_timeout" };
            let body = format!(
                r#"{{"error":{{"type":"invalid_request_error","code":"{code}","message":"not now"}}}}"#
            );
            (Did::TurnedAway, Duration::ZERO, response("429 Too Many Requests", &header, &body))
        } else if endpoint == KEYS {
            (Did::ServedKey, self.options.key_latency, response("200 OK", "", &self.key_document))
        } else {
            self.running += 1;
            (Did::Made, self.options.latency, response("200 OK", "", &card(self.creates, job)))
        };
        self.arrivals.push((at, endpoint, did));
        (did, wait, answer)
    }

    /// The reason if it is turned away.
    fn limit(&mut self, endpoint: &'static str, at: Instant, seconds: f64) -> Option<Option<&'static str>> {
        let counts = self.options.counts;
        let began = self.began;
        let allowed = self.options.endpoint.iter().rev().find(|(from, _)| *from <= seconds).unwrap().1;
        let mut limits = vec![(endpoint, allowed, self.options.reason)];
        if endpoint != KEYS {
            limits.push((ACCOUNT, self.options.account, Some("global-rate")));
        }
        for (name, allowed, reason) in &limits {
            let window = self.windows.entry(name).or_default();
            let old = |first: &Instant| match counts {
                Counts::Sliding => at.saturating_duration_since(*first) >= Duration::from_secs(1),
                Counts::Fixed => (*first - began).as_secs() < (at - began).as_secs(),
            };
            while window.front().is_some_and(old) {
                window.pop_front();
            }
            if window.len() >= *allowed {
                return Some(*reason);
            }
        }
        if endpoint == CREATE {
            self.creates += 1;
            if self.running >= self.options.concurrency {
                return Some(Some("endpoint-concurrency"));
            }
            // Scattered, but the same each time.
            let drawn = self.creates.wrapping_mul(2_654_435_761) >> 7;
            if self.options.one_in > 0 && drawn.is_multiple_of(self.options.one_in) {
                return Some(self.options.reason);
            }
        }
        for (name, _, _) in limits {
            self.windows.entry(name).or_default().push_back(at);
        }
        None
    }
}

fn response(status: &str, headers: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "HTTP/1.1 {status}\r\ncontent-type: application/json\r\n{headers}content-length: {length}\r\n\r\n{body}"
    )
}

fn card(number: usize, job: &str) -> String {
    format!(
        r#"{{"id":"ic_{number:08}","object":"issuing.card","last4":"4242","exp_month":8,"exp_year":2030,"metadata":{{"embosser_job":"{job}"}}}}"#
    )
}
