//! Promise: a PostgreSQL that restarts, falls silent, takes no writes, has no connection left or is replaced by its standby is
//! waited for, and said to be; work goes on within ten seconds of its return, each card is made once, and nobody who is told to
//! stop waits for it.

use crate::support;

use std::time::{Duration, Instant};

use embosser::clock::{Clock, Time};
use embosser::job::{Batch, Job, JobId};
use embosser::ledger::{Begin, Leased, Ledger, LedgerError, Row, Scope, State};
use embosser::operation::{Operation, Request};
use embosser::sandbox::{Options, Sandbox};
use sqlx::{Connection as _, PgConnection};
use support::pgbouncer::PgBouncer;
use support::postgres::Postgres;
use support::proxy::Proxy;
use support::serve::Served;
use support::{Expected, Program, expect_exit, one_card_each, write_manifest};

/// Until work goes on after the database has come back.
const GOES_ON_WITHIN: Duration = Duration::from_secs(10);

/// A manifest of `cards.csv`, and a program that issues it.
struct Office {
    directory: tempfile::TempDir,
    sandbox: Sandbox,
    expected: Expected,
    program: Program,
}

impl Office {
    async fn with(rows: usize, ledger: &str) -> Self {
        let (directory, sandbox) =
            (tempfile::tempdir().unwrap(), Sandbox::start(Options::default()).await.unwrap());
        let expected = write_manifest(&directory.path().join("cards.csv"), &sandbox, rows).await;
        let program = Program::new(directory.path(), &sandbox)
            .with("EMBOSSER__LEDGER__URL", ledger)
            .with("EMBOSSER__RETRY__BACKOFF_SECONDS_MAX", "0.5");
        Self { directory, sandbox, expected, program }
    }

    /// Waits for more cards than that, no longer than `within`.
    async fn cards_above(&self, cards: usize, within: Duration) {
        let began = Instant::now();
        while self.sandbox.counts().cards <= cards {
            assert!(began.elapsed() < within, "{} cards after {within:?}", self.sandbox.counts().cards);
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    async fn some_cards(&self) {
        self.cards_above(20, Duration::from_secs(30)).await;
    }

    /// Work goes on: more cards than now.
    async fn goes_on(&self) {
        self.cards_above(self.sandbox.counts().cards + 5, GOES_ON_WITHIN).await;
    }
}

async fn sql(postgres: &Postgres, statements: &str) {
    let mut database = PgConnection::connect(&postgres.url()).await.unwrap();
    sqlx::raw_sql(sqlx::AssertSqlSafe(statements.to_owned())).execute(&mut database).await.unwrap();
    database.close().await.unwrap();
}

/// Bytes are swallowed, both ways, and no end of a connection is told.
#[tokio::test(flavor = "multi_thread")]
async fn a_silent_network_holds_a_run_up_and_nobody_who_is_told_to_stop() {
    let postgres = Postgres::start();
    let proxy = Proxy::before(postgres.port()).await;
    let by_proxy = postgres.url().replace(&postgres.port().to_string(), &proxy.port().to_string());
    let (waits, stops) = tokio::join!(Office::with(250, &by_proxy), Office::with(250, &by_proxy));
    let waiting = waits.program.spawn(&["issue", "cards.csv", "--rate", "25"]);
    let stopping = stops.program.spawn(&["issue", "cards.csv", "--rate", "25"]);
    tokio::join!(waits.some_cards(), stops.some_cards());
    proxy.stall(true);
    let silent = Instant::now();
    tokio::time::sleep(Duration::from_secs(1)).await;
    stopping.signal(rustix::process::Signal::TERM);
    expect_exit(&stopping.ended().await, 3);
    assert!(silent.elapsed() < Duration::from_secs(11), "it ended after {:?}", silent.elapsed());
    // Longer than any of the run's questions waits for its answer.
    tokio::time::sleep(Duration::from_secs(12).saturating_sub(silent.elapsed())).await;
    proxy.stall(false);
    waits.goes_on().await;
    let output = waiting.ended().await;
    expect_exit(&output, 0);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("the ledger does not serve") && said.contains("does not answer"), "{said}");
    one_card_each(&waits.sandbox.account(), &waits.expected);
    expect_exit(&stops.program.run(&["issue", "cards.csv", "--rate", "600"]).await, 0);
    one_card_each(&stops.sandbox.account(), &stops.expected);
}

/// Waits until the server says that it is ready, or is not and why.
async fn until_ready(served: &Served, ready: bool, why: &str) {
    let began = Instant::now();
    loop {
        let answer = served.get("/readyz").await;
        if answer.status.is_success() == ready && answer.text.contains(why) {
            return;
        }
        assert!(began.elapsed() < GOES_ON_WITHIN, "{} {}", answer.status, answer.text);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn serve_waits_for_its_database_says_why_and_goes_on_with_every_question() {
    const END_SESSIONS: &str =
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'embosser'";
    let mut postgres = Postgres::start();
    sql(&postgres, "CREATE ROLE embosser LOGIN; GRANT CREATE ON SCHEMA public TO embosser").await;
    let url = postgres.url().replace("postgres@", "embosser@");
    let office = Office::with(600, &url).await;
    let served = Served::start(&office.program, &["--rate", "25"]);
    served.upload_file(&office.directory.path().join("cards.csv")).await.expect(202);
    office.some_cards().await;
    // Every session ends, and the next question of each kind is answered.
    sql(&postgres, END_SESSIONS).await;
    for path in ["/v1/batches", "/v1/batches/cards", "/v1/batches/cards/rows", "/v1/jobs/cards%2Fr1"] {
        served.get(path).await.expect(200);
    }
    until_ready(&served, true, "").await;
    // It is away.
    postgres.stop();
    until_ready(&served, false, "does not answer").await;
    let list = served.get("/v1/batches/cards/rows").await;
    assert!(list.status == 503 && list.headers.contains_key("retry-after"), "{} {}", list.status, list.text);
    assert!(!list.text.contains("bytes"), "{}", list.text);
    postgres.start_again();
    office.goes_on().await;
    until_ready(&served, true, "").await;
    served.get("/v1/batches/cards/rows").await.expect(200);
    // It takes no writes.
    sql(&postgres, "ALTER ROLE embosser SET default_transaction_read_only = on").await;
    sql(&postgres, END_SESSIONS).await;
    until_ready(&served, false, "is read-only").await;
    sql(&postgres, "ALTER ROLE embosser SET default_transaction_read_only = off").await;
    office.goes_on().await;
    until_ready(&served, true, "").await;
    // It has no connection left.
    sql(&postgres, "ALTER ROLE embosser CONNECTION LIMIT 0").await;
    sql(&postgres, END_SESSIONS).await;
    until_ready(&served, false, "has no connection left").await;
    sql(&postgres, "ALTER ROLE embosser CONNECTION LIMIT -1").await;
    office.goes_on().await;
    until_ready(&served, true, "").await;
    let view = served.until_ended("cards").await;
    assert_eq!(view["state"], "finished", "{view}");
    one_card_each(&office.sandbox.account(), &office.expected);
    assert_eq!(served.stopped().await.0, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn serve_ends_with_3_where_its_database_stays_away() {
    let mut postgres = Postgres::start();
    let office = Office::with(300, &postgres.url()).await;
    let program = office.program.clone().with("EMBOSSER__LEDGER__PATIENCE_SECONDS", "1");
    let served = Served::start(&program, &["--rate", "25"]);
    served.upload_file(&office.directory.path().join("cards.csv")).await.expect(202);
    office.some_cards().await;
    postgres.stop();
    let (code, log) = served.ended().await;
    assert_eq!(code, Some(3), "{log}");
    postgres.start_again();
    expect_exit(&office.program.run(&["issue", "cards.csv", "--rate", "600"]).await, 0);
    one_card_each(&office.sandbox.account(), &office.expected);
}

/// The sessions that are open go on, and none can be begun to take the account's lease again.
#[tokio::test(flavor = "multi_thread")]
async fn serve_ends_with_3_where_only_its_lease_cannot_be_had() {
    let postgres = Postgres::start();
    sql(&postgres, "CREATE ROLE embosser LOGIN; GRANT CREATE ON SCHEMA public TO embosser").await;
    let office = Office::with(300, &postgres.url().replace("postgres@", "embosser@")).await;
    let program = office.program.clone().with("EMBOSSER__LEDGER__PATIENCE_SECONDS", "1");
    let served = Served::start(&program, &["--rate", "25"]);
    served.upload_file(&office.directory.path().join("cards.csv")).await.expect(202);
    office.some_cards().await;
    let end_lease = "ALTER ROLE embosser CONNECTION LIMIT 0;
        SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory'";
    sql(&postgres, end_lease).await;
    let (code, log) = served.ended().await;
    assert_eq!(code, Some(3), "{log}");
    sql(&postgres, "ALTER ROLE embosser CONNECTION LIMIT -1").await;
    expect_exit(&office.program.run(&["issue", "cards.csv", "--rate", "600"]).await, 0);
    one_card_each(&office.sandbox.account(), &office.expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_goes_on_with_the_promoted_standby_and_never_with_the_primary_of_before() {
    let mut primary = Postgres::start();
    let standby = primary.standby();
    let hosts = format!("127.0.0.1:{},127.0.0.1:{}", standby.port(), primary.port());
    let ledger = format!("postgres://postgres@{hosts}/postgres?target_session_attrs=read-write");
    let office = Office::with(400, &ledger).await;
    let running = office.program.spawn(&["issue", "cards.csv", "--rate", "25"]);
    office.some_cards().await;
    // What it has committed is with the standby before it ends.
    primary.stop();
    standby.promote();
    office.goes_on().await;
    // The primary of before comes back, and takes itself for the primary.
    primary.start_again();
    sql(
        &standby,
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'embosser%'",
    )
    .await;
    office.goes_on().await;
    let output = running.ended().await;
    expect_exit(&output, 0);
    one_card_each(&office.sandbox.account(), &office.expected);
    let ledger = Ledger::open(&standby.url()).await.unwrap();
    let issued: u64 = ledger.counts().await.unwrap().iter().map(|batch| batch.issued).sum();
    assert_eq!(issued, 400, "each row's end is with the server that was promoted");
    ledger.close().await;
}

/// The primary of before was never stopped, and the session that writes to it is well.
#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_is_well_is_left_once_another_server_is_the_primary() {
    let primary = Postgres::start();
    let standby = primary.standby();
    let url =
        format!("postgres://postgres@127.0.0.1:{},127.0.0.1:{}/postgres", primary.port(), standby.port());
    let ledger = Ledger::open(&url).await.unwrap();
    assert!(matches!(ledger.begin(row("before"), None).await, Ok(Begin::Recorded(_))));
    let clock = Clock::system();
    let Ok(Leased::Ours(lease)) = ledger.lease(&scope(), &clock).await else { panic!("nobody has it") };
    let mut database = PgConnection::connect(&primary.url()).await.unwrap();
    let follows = "SELECT EXISTS (SELECT FROM pg_stat_replication WHERE replay_lsn = pg_current_wal_lsn())";
    let began = Instant::now();
    while !sqlx::query_scalar::<_, bool>(follows).fetch_one(&mut database).await.unwrap() {
        assert!(began.elapsed() < Duration::from_secs(20), "the standby follows");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    standby.promote();
    // Only the second of the sessions, which looks jobs up, is lost; it finds the later timeline.
    let end_one = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
        WHERE application_name LIKE 'embosser%' ORDER BY backend_start LIMIT 1 OFFSET 1";
    sql(&primary, end_one).await;
    let known = |id: &str| JobId::new(id).unwrap();
    ledger.look_up(&scope(), &known("before")).await.unwrap();
    assert!(matches!(ledger.begin(row("after"), None).await, Ok(Begin::Recorded(_))));
    assert!(!lease.is_surely_ours(), "its session is with the primary of before");
    let promoted = Ledger::open(&standby.url()).await.unwrap();
    assert!(promoted.look_up(&scope(), &known("after")).await.unwrap().is_some());
    promoted.close().await;
    ledger.close().await;
}

/// Its sessions are shared among clients, and a lease is held by one.
#[tokio::test(flavor = "multi_thread")]
async fn a_pooler_that_shares_sessions_is_refused_and_one_that_does_not_is_used() {
    let postgres = Postgres::start();
    for mode in ["transaction", "statement"] {
        let pooler = PgBouncer::before(&postgres, mode).await;
        let refused = Ledger::open(&pooler.url()).await.err().unwrap();
        assert!(matches!(refused, LedgerError::Pooled(_)), "{mode}: {refused}");
        assert!(refused.to_string().contains("pool_mode = session") && !refused.may_pass(), "{refused}");
    }
    let pooler = PgBouncer::before(&postgres, "session").await;
    let office = Office::with(30, &pooler.url()).await;
    expect_exit(&office.program.run(&["issue", "cards.csv", "--rate", "300"]).await, 0);
    one_card_each(&office.sandbox.account(), &office.expected);
}

fn scope() -> Scope {
    Scope::new("test", "model", None)
}

fn row(id: &str) -> Row {
    let pairs = [("type", "virtual"), ("currency", "eur"), ("cardholder", "ich_1")];
    let pairs = pairs.map(|(name, value)| (name.into(), value.into()));
    let request = Request::from_pairs(Operation::CreateCard, pairs.into()).unwrap();
    let job = Job::new(JobId::new(id).unwrap(), Batch::new("b").unwrap(), None, request, None);
    Row::of(&scope(), &job, State::Begun, Time::from_unix_ms(1))
}

/// Each of these is told apart, and what may pass is asked again.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_database_takes_back_is_asked_again() {
    let postgres = Postgres::start();
    // Of several that start at once each finds or makes the tables.
    let opening: Vec<_> = (0..6).map(|_| Ledger::open(postgres.url().leak())).collect();
    for ledger in futures_util::future::join_all(opening).await {
        ledger.unwrap().close().await;
    }
    let ledger = Ledger::open_patient(&postgres.url(), Duration::from_secs(20)).await.unwrap();
    // A sequence goes on though what asked it is taken back.
    let fails_twice = "CREATE SEQUENCE tries;
        CREATE TABLE fails (code TEXT);
        CREATE FUNCTION fails() RETURNS trigger LANGUAGE plpgsql AS $$ DECLARE code TEXT;
            BEGIN SELECT fails.code INTO code FROM fails;
            IF nextval('tries') % 3 <> 0 THEN RAISE EXCEPTION 'taken back' USING ERRCODE = code; END IF;
            RETURN NEW; END $$;
        CREATE TRIGGER fails BEFORE INSERT ON steps FOR EACH ROW EXECUTE FUNCTION fails()";
    sql(&postgres, fails_twice).await;
    for code in ["40001", "40P01", "55P03", "53100", "53300", "57P01"] {
        sql(
            &postgres,
            &format!("DELETE FROM fails; INSERT INTO fails VALUES ('{code}'); ALTER SEQUENCE tries RESTART"),
        )
        .await;
        let begun = ledger.begin(row(code), None).await;
        assert!(matches!(begun, Ok(Begin::Recorded(_))), "{code}: {begun:?}");
        assert_eq!(ledger.away(), None, "{code}");
    }
    // What no wait mends is told at once.
    sql(&postgres, "UPDATE fails SET code = '42501'; ALTER SEQUENCE tries RESTART").await;
    let refused = ledger.begin(row("42501"), None).await;
    assert!(matches!(refused, Err(LedgerError::Database { .. })), "{refused:?}");
    // A newer embosser has brought it on: one that may still use it goes on, and another does not.
    sql(&postgres, "INSERT INTO embosser_ledger SELECT max(version) + 1 FROM embosser_ledger").await;
    Ledger::open(&postgres.url()).await.unwrap().close().await;
    sql(&postgres, "UPDATE metadata SET value = '99' WHERE name = 'ledger_read_from'").await;
    assert!(matches!(Ledger::open(&postgres.url()).await, Err(LedgerError::Newer { .. })));
    ledger.close().await;
}

/// Nobody else takes a lease whose session was lost while its server still believes in it, but its own process does at once.
#[tokio::test(flavor = "multi_thread")]
async fn a_lease_whose_session_was_lost_is_had_again_at_once() {
    let postgres = Postgres::start();
    let proxy = Proxy::before(postgres.port()).await;
    let by_proxy = postgres.url().replace(&postgres.port().to_string(), &proxy.port().to_string());
    let (ledger, clock) = (Ledger::open(&by_proxy).await.unwrap(), Clock::system());
    let (scope, other) = (Scope::new("test", "model", None), Ledger::open(&postgres.url()).await.unwrap());
    let Leased::Ours(lease) = ledger.lease(&scope, &clock).await.unwrap() else { panic!("nobody has it") };
    proxy.stall(true);
    let began = Instant::now();
    while lease.is_ours().await {
        assert!(began.elapsed() < Duration::from_secs(12), "its session is silent");
    }
    assert!(
        matches!(other.lease(&scope, &clock).await.unwrap(), Leased::HeldBy(_)),
        "the server has it still"
    );
    proxy.stall(false);
    drop(lease);
    assert!(matches!(ledger.lease(&scope, &clock).await.unwrap(), Leased::Ours(_)));
    ledger.close().await;
    other.close().await;
}
