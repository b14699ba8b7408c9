//! Look-ups and records are right beside many rows. What they cost is printed for docs/ledger.md:
//! `EMBOSSER_ROWS=1000000 cargo test --features killpoints --test ledger many_rows -- --nocapture`.

use std::time::{Duration, Instant};

use embosser::clock::Time;
use embosser::job::JobId;
use embosser::ledger::{Begin, Conclude, Ledger, Row, Scope, State};
use embosser::outcome::{Card, Output};
use embosser::sandbox::{Options, Sandbox};

use super::filled::{in_file, path};
use super::support::{line, sqlite};

/// Of each kind.
const MEASURED: u64 = 2_000;

/// So many issued rows in batches of 50,000, with contents that are in no order. Indexes are made afterwards, as that is sooner.
fn filled(rows: u64) -> String {
    let indexes = [
        "steps_by_batch ON steps (scope, batch, row_number, job_id)",
        "steps_by_content ON steps (scope, content)",
    ];
    let drop: String =
        indexes.iter().map(|index| format!("DROP INDEX {}; ", index.split(' ').next().unwrap())).collect();
    let make: String = indexes.iter().map(|index| format!("CREATE INDEX {index}; ")).collect();
    format!(
        "{drop} PRAGMA synchronous = off;
        WITH RECURSIVE counted (n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM counted WHERE n + 1 < {rows})
        INSERT INTO steps (scope, job_id, step, version, batch, row_number, row_id, content, state, generation, key_began_ms, attempted_ms,
                attempts, output, request_id, written_ms)
            SELECT 'live:api.stripe.com:acct_1032D82eZvKYlo2C', printf('cards-%05d/r%06d', n / 50000, n % 50000), 'create_card', 2,
                printf('cards-%05d', n / 50000), n % 50000 + 1, printf('r%06d', n % 50000), lower(hex(randomblob(16))), 'done', 0,
                1700000000000 + n, 1700000000000 + n, 1,
                printf('{{\"id\":\"ic_1MvSieLkdIwHu7ix%08d\",\"last4\":\"%04d\",\"exp_month\":12,\"exp_year\":2031}}', n, n % 10000),
                printf('req_%014d', n), 1700000000000 + n FROM counted;
        {make} PRAGMA wal_checkpoint(TRUNCATE);"
    )
}

fn print_times(what: &str, mut took: Vec<Duration>) {
    took.sort_unstable();
    let at = |share: usize| took[took.len() * share / 100].as_secs_f64() * 1e6;
    println!("{what}: p50 {:.0} us, p99 {:.0} us", at(50), at(99));
}

#[tokio::test(flavor = "multi_thread")]
async fn look_ups_and_records_beside_many_rows() {
    let rows: u64 = std::env::var("EMBOSSER_ROWS").map_or(10_000, |rows| rows.parse().unwrap());
    let directory = tempfile::tempdir().unwrap();
    let file = path(&directory, "a.db");
    Ledger::open(&sqlite(&file)).await.unwrap().close().await;
    let began = Instant::now();
    in_file(&file, &filled(rows));
    let bytes = std::fs::metadata(&file).unwrap().len();
    println!("{rows} rows, {:.2} GB, filled in {:.0?}", bytes as f64 / 1e9, began.elapsed());
    let began = Instant::now();
    let ledger = Ledger::open(&sqlite(&file)).await.unwrap();
    println!("opened in {:.1?}", began.elapsed());
    let scope = Scope::new("live", "api.stripe.com", Some("acct_1032D82eZvKYlo2C"));
    let (mut found, mut absent) = (Vec::new(), Vec::new());
    for number in 0..MEASURED {
        // All over the table.
        let n = number * 7_919_999 % rows;
        let id = JobId::new(format!("cards-{:05}/r{:06}", n / 50_000, n % 50_000)).unwrap();
        let began = Instant::now();
        let row = ledger.look_up(&scope, &id).await.unwrap();
        found.push(began.elapsed());
        assert!(row.is_some_and(|row| matches!(row.state, State::Done(_))), "{id}");
        let id = JobId::new(format!("cards-{:05}/x{number}", n / 50_000)).unwrap();
        let began = Instant::now();
        assert!(ledger.look_up(&scope, &id).await.unwrap().is_none());
        absent.push(began.elapsed());
    }
    print_times("look-up of a row", found);
    print_times("look-up of none", absent);
    let sandbox = Sandbox::start(Options::default()).await.unwrap();
    let (mut begins, mut ends) = (Vec::new(), Vec::new());
    for number in 0..MEASURED / 4 {
        let n = number * 7_919_999 % rows;
        let job = line::job(&sandbox, &format!("cards-{:05}/y{number}", n / 50_000), "eur", None).await;
        let row = Row::of(&scope, &job, State::Begun, Time::from_unix_ms(1));
        let began = Instant::now();
        let Begin::Recorded(begun) = ledger.begin(row, None).await.unwrap() else {
            panic!("nobody else writes")
        };
        begins.push(began.elapsed());
        let card = Card {
            id: format!("ic_{number}"),
            last4: "0042".into(),
            exp_month: 12,
            exp_year: 2031,
            cardholder: None,
            changed: Vec::new(),
        };
        let done = Row { state: State::Done(Output::Issued(card)), ..begun.row().clone() };
        let began = Instant::now();
        let ended = ledger.conclude(done, Some(begun.row())).await.unwrap();
        ends.push(began.elapsed());
        assert!(matches!(ended, Conclude::Written(_)));
    }
    print_times("an attempt recorded", begins);
    print_times("an end recorded", ends);
    ledger.close().await;
    sandbox.stop().await;
}
