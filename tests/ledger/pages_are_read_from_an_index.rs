//! Promise: a page of the ledger costs what stands on it, however much else the ledger holds, and the indexes for that cost a job that
//! ends well nothing. PostgreSQL is asked here how it
//! answers the very statements that the ledger sends; SQLite is asked in src/ledger/select.rs.

use crate::support;

use std::time::{Duration, Instant};

use embosser::clock::Time;
use embosser::content::Content;
use embosser::job::{Batch, JobId};
use embosser::ledger::{Begin, Conclude, Kind, Ledger, Only, Row, Scope, State};
use embosser::outcome::{Card, Output};
use embosser::sandbox::{Options, Sandbox};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection, Row as _};
use support::postgres::Postgres;

/// In a batch of 20,000 rows that were issued, every 200th waits, is refused or has a note; beside it are 20,000 names.
const FILLED: &str = "
    INSERT INTO steps (scope, job_id, step, version, batch, row_number, content, state, generation, attempts, written_ms,
            output, error_code, note)
        SELECT 'test:h', 'b/' || n, 'create_card', 1, 'b', n, substr(md5(n::text), 1, 32),
            CASE WHEN n % 200 < 2 THEN 'refused' ELSE 'done' END, 0, 1, 1, '{\"id\": \"ic_1\"}',
            CASE n % 200 WHEN 0 THEN 'awaiting_pin' WHEN 1 THEN 'card_declined' END,
            CASE WHEN n % 200 = 2 THEN 'seen' END
        FROM generate_series(1, 20000) AS n;
    INSERT INTO metadata (name, value)
        SELECT 'pin_link:test:h|' || md5(n::text), '{}' FROM generate_series(1, 20000) AS n;
    INSERT INTO metadata (name, value)
        SELECT 'awaiting_pin:test:h|b/' || n, '{}' FROM generate_series(200, 20000, 200) AS n;
    ANALYZE;";

async fn run(connection: &mut PgConnection, sql: impl Into<String>) {
    sqlx::raw_sql(AssertSqlSafe(sql.into())).execute(connection).await.unwrap();
}

/// PostgreSQL's plan for what one of the ledger's connections asked last of that table, whatever its parameters are.
async fn plan_of_last(connection: &mut PgConnection, table: &str, parameters: usize) -> String {
    let last = "SELECT query FROM pg_stat_activity WHERE application_name LIKE 'embosser%' AND query LIKE $1
        ORDER BY query_start DESC LIMIT 1";
    let asked: String = sqlx::query_scalar(last)
        .bind(format!("SELECT % FROM {table} WHERE %"))
        .fetch_one(&mut *connection)
        .await
        .unwrap();
    run(connection, format!("SET plan_cache_mode = force_generic_plan; PREPARE asked AS {asked}")).await;
    let values = vec!["NULL"; parameters].join(", ");
    let explain = AssertSqlSafe(format!("EXPLAIN EXECUTE asked({values})"));
    let lines = sqlx::raw_sql(explain).fetch_all(&mut *connection).await.unwrap();
    run(connection, "DEALLOCATE asked").await;
    lines.iter().map(|line| line.get::<String, _>(0)).collect::<Vec<_>>().join("\n")
}

/// It is read from that index, in its order, from where the page before ended.
fn reads(plan: &str, index: &str, from: &str) {
    assert!(plan.contains(&format!("Index Scan using {index} on ")), "{plan}");
    let condition = plan.lines().find(|line| line.contains("Index Cond")).expect(plan);
    assert!(condition.contains(from), "{plan}");
    assert!(!plan.contains("Seq Scan") && !plan.contains("Sort"), "{plan}");
}

#[tokio::test(flavor = "multi_thread")]
async fn postgresql_reads_each_page_from_an_index() {
    let server = Postgres::start();
    let ledger = Ledger::open(&server.url()).await.unwrap();
    let mut connection = PgConnection::connect(&server.url()).await.unwrap();
    run(&mut connection, FILLED).await;
    let (scope, batch) = (Scope::new("test", "h", None), Batch::new("b").unwrap());
    let only = |kind, noted| Only { kind, noted, with: None };
    for (only, index, remainder) in [
        (only(None, false), "steps_by_batch", None),
        (only(Some(Kind::AwaitingPin), false), "steps_awaiting_pin", Some(0)),
        (only(Some(Kind::Refused), false), "steps_refused", Some(1)),
        (only(None, true), "steps_noted", Some(2)),
    ] {
        let after = Some((10_000, JobId::new("b/10000").unwrap()));
        let page = ledger.batch_page(&scope, &batch, after, only, 40).await.unwrap();
        let numbers: Vec<u64> = page.iter().filter_map(|row| row.row).collect();
        assert!(numbers.is_sorted() && numbers.len() == 40 && numbers[0] > 10_000, "{numbers:?}");
        assert!(
            remainder.is_none_or(|wanted| numbers.iter().all(|number| number % 200 == wanted)),
            "{numbers:?}"
        );
        reads(&plan_of_last(&mut connection, "steps", 5).await, index, " > ROW($3, ");
    }
    // What has a row's content: the digest of row 7.
    let digest = Content::of_hex("8f14e45fceea167a5a36dedd4bea2543").unwrap();
    let same = ledger.same_content(&scope, vec![digest]).await.unwrap();
    assert_eq!(same.len(), 1);
    let plan = plan_of_last(&mut connection, "steps", 2).await;
    assert!(plan.contains("steps_by_content") && plan.contains("content = ANY ($2)"), "{plan}");
    assert!(!plan.contains("Seq Scan") && !plan.contains("steps_pkey"), "{plan}");
    let prefix = "awaiting_pin:test:h|";
    let page = ledger.metadata_page(prefix, &format!("{prefix}b/2000"), 40).await.unwrap();
    assert!(page.is_sorted() && page.len() == 40 && page[0].0 > format!("{prefix}b/2000"), "{page:?}");
    reads(&plan_of_last(&mut connection, "metadata", 3).await, "metadata_by_name", " < $2)");
    ledger.close().await;
}

/// PostgreSQL updates a row in its place ("heap-only") where no column changes that an index looks at.
#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_ends_well_writes_no_index_a_second_time() {
    const JOBS: i64 = 300;
    let (server, sandbox) = (Postgres::start(), Sandbox::start(Options::default()).await.unwrap());
    let ledger = Ledger::open(&server.url()).await.unwrap();
    let scope = Scope::new("test", "h", None);
    for number in 0..JOBS {
        let job = support::line::job(&sandbox, &format!("b/{number}"), "eur", None).await;
        let row = Row::of(&scope, &job, State::Begun, Time::from_unix_ms(1));
        let Begin::Recorded(begun) = ledger.begin(row, None).await.unwrap() else {
            panic!("nobody else writes")
        };
        let card = Card {
            id: format!("ic_{number}"),
            last4: "0042".into(),
            exp_month: 12,
            exp_year: 2031,
            cardholder: None,
            changed: Vec::new(),
        };
        let done = Row { state: State::Done(Output::Issued(card)), ..begun.row().clone() };
        let ended = ledger.conclude(done, Some(begun.row())).await.unwrap();
        assert!(matches!(ended, Conclude::Written(_)), "{ended:?}");
    }
    ledger.close().await;
    let mut connection = PgConnection::connect(&server.url()).await.unwrap();
    let began = Instant::now();
    loop {
        let updates = "SELECT n_tup_upd, n_tup_hot_upd FROM pg_stat_user_tables WHERE relname = 'steps'";
        let (all, in_place): (i64, i64) = sqlx::query_as(updates).fetch_one(&mut connection).await.unwrap();
        if all == JOBS {
            // But where its page is full, which is so for one in some.
            assert!(in_place > JOBS / 2, "{in_place} of {all} in place");
            break;
        }
        // PostgreSQL counts a little later.
        assert!(began.elapsed() < Duration::from_secs(30), "{all} of {JOBS} updates are counted");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    sandbox.stop().await;
}

/// A ledger that was made without these indexes gets them when it is next opened.
#[tokio::test(flavor = "multi_thread")]
async fn a_ledger_without_these_indexes_gets_them() {
    const DROPPED: &str = "DROP INDEX steps_awaiting_pin; DROP INDEX steps_refused; DROP INDEX steps_noted; DROP INDEX metadata_by_name";
    let server = Postgres::start();
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("ledger.db");
    for round in ["made", "opened again"] {
        Ledger::open(&support::sqlite(&file)).await.unwrap().close().await;
        // Without them, whoever changes nothing reads it as it is.
        let sqlite = rusqlite::Connection::open(&file).unwrap();
        sqlite.execute_batch(DROPPED).unwrap_or_else(|error| panic!("{round}: {error}"));
        Ledger::open_existing(&support::sqlite(&file)).await.unwrap().close().await;
        assert!(sqlite.execute_batch(DROPPED).is_err());
        let url = server.url();
        let (one, other) = tokio::join!(Ledger::open(&url), Ledger::open(&url));
        one.unwrap().close().await;
        other.unwrap().close().await;
        let mut postgres = PgConnection::connect(&server.url()).await.unwrap();
        run(&mut postgres, DROPPED).await;
        Ledger::open_existing(&server.url()).await.unwrap().close().await;
        postgres.close().await.unwrap();
    }
}
