//! Verifying an encrypted PIN against the current key, beside josekit reading the same compact JWE.
//!
//! josekit decodes all five segments, parses the header and asks its selector for a key, which answers none: what
//! any use of a JOSE library costs before it can compare anything. Run with `RUST_BACKTRACE` unset: josekit's error
//! path captures a backtrace, which would flatter every ratio here.

use std::hint::black_box;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use criterion::{Criterion, Throughput};
use embosser::encrypt::encrypt_pin;
use embosser::jwe::{PinKey, Verifier};
use openssl::rsa::Rsa;

const KID: &str = "issuing_pin_key_2026_11_01";
/// Rounds of the comparison; each times every way once, so that a machine that slows down slows all of them.
const ROUNDS: usize = 41;
/// How long one way is timed in one round.
const ROUND: Duration = Duration::from_millis(5);

/// A key, its document, and a PIN under it.
struct Case {
    bits: u32,
    document: Vec<u8>,
    key: PinKey,
    compact: String,
}

/// A name, and one verification that way.
type Way<'a> = (&'static str, Box<dyn FnMut() + 'a>);

impl Case {
    fn new(bits: u32) -> Self {
        let rsa = Rsa::generate(bits).expect("OpenSSL makes keys");
        let n = URL_SAFE_NO_PAD.encode(rsa.n().to_vec());
        let pem = rsa.public_key_to_pem().expect("a key has a PEM form");
        let document = serde_json::json!({
            "key_id": KID,
            "jwk": {"kty": "RSA", "use": "enc", "kid": KID, "n": n, "e": "AQAB"},
            "pkcs8": String::from_utf8_lossy(&pem),
        });
        let document = document.to_string().into_bytes();
        let key = PinKey::parse(&document).expect("the document is in order");
        let compact = encrypt_pin("1234", &document).expect("the key encrypts");
        Self { bits, document, key, compact }
    }

    /// The ways, the reference first. Each does it once and holds its result to be right.
    fn ways(&self) -> Vec<Way<'_>> {
        let of = move || {
            let mut verifier = Verifier::new();
            move || assert_eq!(verifier.verify(black_box(&self.compact), black_box(&self.key)), Ok(()))
        };
        let mut inspector = Verifier::new();
        vec![
            ("josekit", Box::new(|| josekit_reads(black_box(&self.compact)))),
            ("known_header", Box::new(of())),
            ("header_never_seen", Box::new(move || of()())),
            (
                "inspect_known_header",
                Box::new(move || {
                    assert_eq!(inspector.inspect(black_box(&self.compact)), Ok(()));
                }),
            ),
            (
                "key_document",
                Box::new(|| {
                    assert_eq!(PinKey::parse(black_box(&self.document)).as_ref(), Ok(&self.key));
                }),
            ),
        ]
    }
}

fn josekit_reads(compact: &str) {
    let asked = std::cell::Cell::new(false);
    let read = josekit::jwe::deserialize_compact_with_selector(compact, |header| {
        asked.set(header.key_id() == Some(KID));
        Ok(None)
    });
    assert!(read.is_err() && asked.get());
}

fn main() {
    assert!(
        std::env::var_os("RUST_BACKTRACE").is_none(),
        "with a backtrace josekit's errors are three times slower"
    );
    let cases = [2048, 4096].map(Case::new);
    let mut criterion = Criterion::default().configure_from_args();
    for case in &cases {
        let mut group = criterion.benchmark_group(format!("pin_verify_{}_bit", case.bits));
        group.throughput(Throughput::Bytes(case.compact.len() as u64));
        for (name, mut once) in case.ways() {
            group.bench_function(name, |bencher| bencher.iter(&mut once));
        }
    }
    criterion.final_summary();
    // A listing or a trial run (`--list`, `--test`) compares nothing.
    if !std::env::args().any(|argument| ["--list", "--test"].contains(&argument.as_str())) {
        cases.iter().for_each(compare);
    }
}

/// Times all ways in turn, round after round, and prints each one's median beside the reference's.
fn compare(case: &Case) {
    let mut ways = case.ways();
    let mut nanoseconds: Vec<Vec<f64>> = vec![Vec::with_capacity(ROUNDS); ways.len()];
    for _ in 0..ROUNDS {
        for ((_, once), times) in ways.iter_mut().zip(&mut nanoseconds) {
            times.push(nanoseconds_of(once));
        }
    }
    let median = |times: &[f64]| {
        let mut times = times.to_vec();
        times.sort_by(f64::total_cmp);
        times[times.len() / 2]
    };
    let reference = median(&nanoseconds[0]);
    println!("\n{} bit, {} characters: median of {ROUNDS} rounds, in turn", case.bits, case.compact.len());
    for ((name, _), times) in ways.iter().zip(&nanoseconds) {
        let time = median(times);
        println!("  {name:24} {time:8.1} ns {:9.2} M/s {:7.1}x josekit", 1e3 / time, reference / time);
    }
}

fn nanoseconds_of(once: &mut dyn FnMut()) -> f64 {
    /// Calls between two looks at the clock.
    const BATCH: u32 = 256;
    let began = Instant::now();
    let mut calls = 0;
    while began.elapsed() < ROUND {
        for _ in 0..BATCH {
            once();
        }
        calls += BATCH;
    }
    began.elapsed().as_secs_f64() * 1e9 / f64::from(calls)
}
