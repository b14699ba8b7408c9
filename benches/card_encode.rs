//! The body of a card-create request: `Request::encode_into` beside serde_qs on a struct of the same shape.
#![allow(missing_docs, reason = "Criterion's macros make public functions")]
#![allow(clippy::unwrap_used, reason = "a bench fails by panicking")]

mod compare;

use std::alloc::{GlobalAlloc, Layout, System};
use std::collections::BTreeMap;
use std::hint::black_box;
use std::sync::atomic::{AtomicU64, Ordering};

use compare::Compare;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use embosser::operation::{Operation, PIN, Request};
use serde::Serialize;

/// Counts allocations: there must be none once the buffer is warm.
struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

#[expect(unsafe_code, reason = "an allocator is; each call is passed on as it came")]
// SAFETY: `System` keeps the contract, and this passes every call on unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[derive(Serialize)]
struct Card {
    cardholder: String,
    currency: String,
    metadata: BTreeMap<String, String>,
    pin: Pin,
    second_line: String,
    shipping: Shipping,
    spending_controls: SpendingControls,
    status: String,
    r#type: String,
}

#[derive(Serialize)]
struct Pin {
    encrypted_number: String,
}

#[derive(Serialize)]
struct Shipping {
    address: Address,
    name: String,
    phone_number: String,
    require_signature: bool,
    service: String,
}

#[derive(Serialize)]
struct Address {
    city: String,
    country: String,
    line1: String,
    line2: String,
    postal_code: String,
}

#[derive(Serialize)]
struct SpendingControls {
    blocked_categories: Vec<String>,
    spending_limits: Vec<Limit>,
}

#[derive(Serialize)]
struct Limit {
    amount: u64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    categories: Vec<String>,
    interval: String,
}

const JOB: &str = "rollout/E00042";
const BATCH: &str = "rollout";

fn card() -> Card {
    let limit = |amount, interval: &str, categories: &[&str]| Limit {
        amount,
        categories: categories.iter().map(|category| (*category).to_owned()).collect(),
        interval: interval.into(),
    };
    let metadata = [
        ("cost_centre", "1042"),
        ("department", "R&D, Dublin"),
        ("manager", "Zoë Ångström"),
        ("request", "2026-11-0042"),
    ];
    Card {
        cardholder: "ich_1Pgag4B7WZ01zgkWdPVfBngi".into(),
        currency: "eur".into(),
        metadata: metadata.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect(),
        pin: Pin { encrypted_number: jwe() },
        second_line: "ACME LTD".into(),
        shipping: Shipping {
            address: Address {
                city: "Dublin".into(),
                country: "IE".into(),
                line1: "12 Upper Mount Street".into(),
                line2: "2nd floor".into(),
                postal_code: "D02 X285".into(),
            },
            name: "Siobhán O'Brien".into(),
            phone_number: "+353 1 234 5678".into(),
            require_signature: true,
            service: "express".into(),
        },
        spending_controls: SpendingControls {
            blocked_categories: vec!["betting_casino_gambling".into(), "dating_escort_services".into()],
            spending_limits: vec![
                limit(500_000, "monthly", &[]),
                limit(100_000, "daily", &["airlines_air_carriers", "hotels_motels_and_resorts"]),
                limit(25_000, "per_authorization", &[]),
            ],
        },
        status: "active".into(),
        r#type: "physical".into(),
    }
}

/// As long as a JWE under a 2048-bit key.
fn jwe() -> String {
    use base64::Engine as _;
    let encode = |bytes: &[u8]| base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes);
    let header = encode(br#"{"alg":"RSA-OAEP","enc":"A128CBC-HS256","kid":"key_0123456789abcdef"}"#);
    let (key, block) = (encode(&[0x5a; 256]), encode(&[0xa5; 16]));
    format!("{header}.{key}.{block}.{block}.{block}")
}

fn sorted_pairs(body: &[u8]) -> Vec<(String, String)> {
    let mut pairs: Vec<_> = url::form_urlencoded::parse(body).into_owned().collect();
    pairs.sort();
    pairs
}

fn encode(criterion: &mut Criterion) {
    let card = card();
    let jwe = card.pin.encrypted_number.clone();
    let mut request =
        Request::from_json(Operation::CreateCard, &serde_json::to_value(&card).unwrap()).unwrap();
    assert_eq!(request.take_pin().unwrap().expose(), jwe);
    // The reference writes the two entries of metadata that embosser adds as entries like the others.
    let mut card = card;
    card.metadata.insert("embosser_job".into(), JOB.into());
    card.metadata.insert("embosser_batch".into(), BATCH.into());

    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    request.encode_into(&mut ours, Some(&jwe), JOB, BATCH);
    serde_qs::to_writer(&card, &mut theirs).unwrap();
    let pairs = sorted_pairs(&ours);
    assert_eq!(pairs, sorted_pairs(&theirs), "both say the same");
    assert!(pairs.iter().any(|(path, value)| path == PIN && *value == jwe));
    println!("{} pairs, {} bytes", pairs.len(), ours.len());

    let before = ALLOCATIONS.load(Ordering::Relaxed);
    for _ in 0..1000 {
        ours.clear();
        request.encode_into(black_box(&mut ours), Some(&jwe), JOB, BATCH);
    }
    assert_eq!(ALLOCATIONS.load(Ordering::Relaxed), before, "a warm buffer is enough");

    let compare = Compare::default();
    let mut group = criterion.benchmark_group("card_encode");
    group.throughput(Throughput::Bytes(ours.len() as u64));
    let length = ours.len();
    group.bench_function("embosser", |bencher| {
        bencher.iter_custom(|iterations| {
            compare.time("embosser", iterations, || {
                ours.clear();
                black_box(&request).encode_into(black_box(&mut ours), Some(black_box(&jwe)), JOB, BATCH);
                assert_eq!(ours.len(), length);
            })
        });
    });
    let length = theirs.len();
    group.bench_function("serde_qs", |bencher| {
        bencher.iter_custom(|iterations| {
            compare.time("serde_qs", iterations, || {
                theirs.clear();
                serde_qs::to_writer(black_box(&card), black_box(&mut theirs)).unwrap();
                assert_eq!(theirs.len(), length);
            })
        });
    });
    group.finish();
    compare.ratio("embosser", "serde_qs");
}

criterion_group!(benches, encode);
criterion_main!(benches);
