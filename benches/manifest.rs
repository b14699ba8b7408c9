//! `check` from file to verdict: beside the csv crate with josekit for each row, and beside a bare read of the file.
//!
//! `EMBOSSER_BENCH_ROWS` sets how many rows (1,000,000, of about 750 bytes, each with a PIN).
#![allow(missing_docs, reason = "Criterion's macros make public functions")]
#![allow(clippy::unwrap_used, reason = "a bench fails by panicking")]

mod compare;

use std::fs::File;
use std::io::{BufWriter, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use compare::Compare;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use embosser::encrypt::encrypt_pin;
use embosser::manifest::{CheckOptions, Manifest};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Different JWEs; enough that none stays in a cache of one, few enough that the file is made fast.
const JWES: u64 = 4096;
/// Every so many rows have cells in quotes.
const QUOTED_EVERY: u64 = 10;

const HEADER: &str = "row_id,cardholder,type,currency,status,pin[encrypted_number],personalization_design,shipping[name],\
    shipping[address][line1],shipping[address][city],shipping[address][postal_code],shipping[address][country],\
    shipping[service],spending_controls[spending_limits][0][amount],spending_controls[spending_limits][0][interval],\
    spending_controls[spending_limits][1][amount],spending_controls[spending_limits][1][interval],\
    metadata[department],metadata[cost_centre],metadata[manager]";

fn rows() -> u64 {
    let testing = std::env::args().any(|argument| argument == "--test");
    let given = std::env::var("EMBOSSER_BENCH_ROWS").ok().and_then(|rows| rows.parse().ok());
    given.unwrap_or(if testing { 20_000 } else { 1_000_000 })
}

fn key_document() -> Vec<u8> {
    let rsa = openssl::rsa::Rsa::generate(2048).unwrap();
    let encode = |number: &openssl::bn::BigNumRef| {
        use base64::Engine as _;
        base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(number.to_vec())
    };
    let jwk = serde_json::json!({ "kty": "RSA", "n": encode(rsa.n()), "e": encode(rsa.e()) });
    serde_json::to_vec(&serde_json::json!({ "key_id": "ipk_0123456789abcdef", "jwk": jwk })).unwrap()
}

fn write(path: &Path, rows: u64) -> u64 {
    let key = key_document();
    let jwes: Vec<String> =
        (0..JWES.min(rows)).map(|pin| encrypt_pin(&format!("{pin:04}"), &key).unwrap()).collect();
    let mut out = BufWriter::with_capacity(1 << 20, File::create(path).unwrap());
    writeln!(out, "{HEADER}").unwrap();
    for row in 0..rows {
        let jwe = &jwes[usize::try_from(row % JWES).unwrap()];
        let (name, street, department) = if row.is_multiple_of(QUOTED_EVERY) {
            ("\"O'Brien, Siobhán\"", "\"The \"\"Old\"\" Mill, 12\"", "\"Finance, legal\"")
        } else {
            ("Ada Lovelace", "12 Upper Mount Street", "Research")
        };
        writeln!(
            out,
            "E{row:07},ich_{row:016},physical,eur,active,{jwe},pd_example,{name},{street},Dublin,D02 X285,IE,standard,\
             {},monthly,{},daily,{department},{},Grace Hopper",
            500_000 + row,
            10_000 + row % 1000,
            1000 + row % 7
        )
        .unwrap();
    }
    out.flush().unwrap();
    std::fs::metadata(path).unwrap().len()
}

/// The reference: every row through the csv crate, its JWE read by josekit as far as it can be without the key.
fn csv_and_josekit(path: &Path) -> u64 {
    let mut reader = csv::Reader::from_path(path).unwrap();
    let column = reader.headers().unwrap().iter().position(|name| name == "pin[encrypted_number]").unwrap();
    let mut record = csv::StringRecord::new();
    let mut read = 0;
    while reader.read_record(&mut record).unwrap() {
        // All five segments are decoded and the header is parsed before a key is asked for; there is none.
        let selector = |_: &josekit::jwe::JweHeader| Ok(None);
        let refused = josekit::jwe::deserialize_compact_with_selector(&record[column], selector);
        read += u64::from(refused.is_err());
    }
    read
}

/// The floor: the file's bytes read, its lines counted.
fn newlines(path: &Path) -> u64 {
    let mut file = File::open(path).unwrap();
    let mut buffer = vec![0; 256 << 10];
    let mut lines = 0;
    loop {
        match file.read(&mut buffer).unwrap() {
            0 => return lines,
            length => lines += memchr::memchr_iter(b'\n', &buffer[..length]).count() as u64,
        }
    }
}

fn check(path: &Path) -> u64 {
    let report = Manifest::open(path).unwrap().check(&CheckOptions::default(), &|_| {}).unwrap();
    assert_eq!((report.problem_count, report.pins), (0, report.rows));
    // Of two hundred files of a million rows one has two rows that are taken for alike and are not.
    assert!(report.warning_count <= 1, "{} warnings", report.warning_count);
    report.rows
}

fn manifest(criterion: &mut Criterion) {
    assert!(
        std::env::var_os("RUST_BACKTRACE").is_none(),
        "with a backtrace josekit's errors are three times slower"
    );
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("manifest_bench.csv");
    let rows = rows();
    let bytes = write(&path, rows);
    println!("{rows} rows, {} bytes a row, {} MB", bytes / rows, bytes >> 20);
    newlines(&path);

    let pool = |threads| rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
    let (one, two) = (pool(1), pool(2));
    let compare = Compare::default();
    let mut group = criterion.benchmark_group("manifest");
    group.sample_size(10).warm_up_time(Duration::from_millis(100)).measurement_time(Duration::from_secs(1));
    group.throughput(Throughput::Bytes(bytes));
    type Run<'r> = (&'static str, Box<dyn Fn() -> u64 + 'r>);
    let runs: [Run; 4] = [
        ("newlines counted", Box::new(|| newlines(&path) - 1)),
        ("check, two threads", Box::new(|| two.install(|| check(&path)))),
        ("check, one thread", Box::new(|| one.install(|| check(&path)))),
        ("csv and josekit", Box::new(|| csv_and_josekit(&path))),
    ];
    for (name, run) in &runs {
        group.bench_function(*name, |bencher| {
            bencher.iter_custom(|iterations| compare.time(name, iterations, || assert_eq!(run(), rows)));
        });
    }
    group.finish();
    compare.ratio("check, one thread", "csv and josekit");
    compare.ratio("check, two threads", "csv and josekit");
    compare.ratio("check, one thread", "newlines counted");
    compare.ratio("check, two threads", "newlines counted");
    std::fs::remove_file(&path).unwrap();
}

criterion_group!(benches, manifest);
criterion_main!(benches);
