//! Promise: a ledger that does not know a batch asks Stripe before it issues it, and one that knows it for one account
//! does not take another account's cards for issued.

use crate::support;

use std::time::Duration;

use embosser::account::{Access, Account, Patience, Purpose, Runs};
use embosser::config::{Config, StripeConfig};
use embosser::ledger::Ledger;
use embosser::line::Options as CarryOptions;
use embosser::pace::Pacer;
use embosser::pin_links::LinksWhen;
use embosser::sandbox::Options;
use support::issuing::{Issuing, ended, issue, said};
use support::line::{issued, job};
use support::time::A_DAY;
use support::{Program, expect_exit, one_card_each, write_manifest};

#[tokio::test(flavor = "multi_thread")]
async fn the_same_manifest_from_another_folder_with_another_ledger_makes_no_second_cards() {
    let issuing = Issuing::with(Options::default()).await;
    let expected = issuing.manifest(40).await;
    expect_exit(&ended(issue(&issuing.program(), "200", &[])).await, 0);
    // The keys are forgotten: only the cards themselves tell.
    issuing.pass(A_DAY, 25 * 3600);
    let elsewhere = issuing.path("elsewhere");
    std::fs::create_dir(&elsewhere).unwrap();
    std::fs::copy(issuing.path("cards.csv"), elsewhere.join("cards.csv")).unwrap();
    let program = Program { directory: elsewhere, ..issuing.program() }
        .with("EMBOSSER__LEDGER__URL", &issuing.ledger("other.db"));
    let again = ended(issue(&program, "200", &[])).await;
    one_card_each(&issuing.sandbox.account(), &expected);
    expect_exit(&again, 0);
    issuing.results_are_true("elsewhere/cards.results.csv");
}

#[tokio::test(flavor = "multi_thread")]
async fn another_accounts_key_on_the_same_ledger_issues_for_that_account_anew() {
    let issuing = Issuing::with(Options::default()).await;
    let expected = issuing.manifest(30).await;
    let of = |account: &str| issuing.program().with("STRIPE_API_KEY", &format!("sk_test_{account}_1"));
    for (account, name) in [("acct_A", "a.results.csv"), ("acct_B", "b.results.csv")] {
        let output = ended(issue(&of(account), "200", &["--results", name])).await;
        expect_exit(&output, 0);
        assert!(said(&output).contains("30 issued (0 of them before)"), "{}", said(&output));
        let mut made = issuing.sandbox.account();
        made.cards.retain(|card| card.account == account);
        one_card_each(&made, &expected);
        let ids: Vec<_> = issuing.results(name).into_values().map(|(_, card)| card).collect();
        assert!(ids.iter().all(|id| made.cards.iter().any(|card| &card.id == id)), "{account}: {ids:?}");
    }
    // Each account's rows are still known.
    for account in ["acct_A", "acct_B"] {
        let output = ended(issue(&of(account), "200", &[])).await;
        assert!(said(&output).contains("30 issued (30 of them before)"), "{account}: {}", said(&output));
    }
    assert_eq!(issuing.sandbox.counts().cards, 60);
}

/// A key that may not ask whose it is works all the same; the account can be told.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_may_not_name_its_account_issues_with_the_configured_one() {
    let issuing = Issuing::with(Options { may_read_account: false, ..Options::default() }).await;
    let expected = write_manifest(&issuing.path("cards.csv"), &issuing.sandbox, 10).await;
    let program = issuing.program().with("EMBOSSER__STRIPE__ACCOUNT_ID", "acct_sandbox");
    expect_exit(&ended(issue(&program, "200", &[])).await, 0);
    one_card_each(&issuing.sandbox.account(), &expected);
}

/// One row each: as it was, another currency, another type, another cardholder.
const AS_ISSUED: [&str; 4] = [
    "ich_01,virtual,eur,,,,,",
    "ich_02,virtual,eur,,,,,",
    "ich_03,physical,eur,A,B,C,1,IE",
    "ich_04,virtual,eur,,,,,",
];
const AS_ASKED: [&str; 4] = [
    "ich_01,virtual,eur,,,,,",
    "ich_02,virtual,usd,,,,,",
    "ich_03,virtual,eur,,,,,",
    "ich_05,virtual,eur,,,,,",
];

fn write_rows(issuing: &Issuing, rows: [&str; 4]) {
    let mut text =
        "row_id,cardholder,type,currency,shipping[name],shipping[address][line1],shipping[address][city],\
        shipping[address][postal_code],shipping[address][country]\n"
            .to_owned();
    for (row, rest) in rows.iter().enumerate() {
        text += &format!("r{row},{rest}\n");
    }
    std::fs::write(issuing.path("cards.csv"), text).unwrap();
}

/// The ledger is deleted, and so many rows ask for something else by then.
async fn asks_for_something_else(passes: Duration, rows: usize) {
    let issuing = Issuing::with(Options::default()).await;
    write_rows(&issuing, AS_ISSUED);
    expect_exit(&ended(issue(&issuing.program(), "200", &[])).await, 0);
    let cards = issuing.results("cards.results.csv");
    for file in ["ledger.db", "cards.results.csv"] {
        std::fs::remove_file(issuing.path(file)).unwrap();
    }
    issuing.pass(passes, i64::try_from(passes.as_secs()).unwrap());
    let mut asked = AS_ISSUED;
    asked[..=rows].copy_from_slice(&AS_ASKED[..=rows]);
    write_rows(&issuing, asked);
    let output = ended(issue(&issuing.program(), "200", &[])).await;
    assert_eq!(issuing.sandbox.counts().cards, 4, "{}", said(&output));
    expect_exit(&output, 1);
    let mut told = csv::Reader::from_path(issuing.path("cards.results.csv")).unwrap();
    let differ = ["", "currency is eur", "type is physical", "cardholder is ich_04"];
    for (number, row) in told.records().enumerate() {
        let (row, differs) = (row.unwrap(), if number <= rows { differ[number] } else { "" });
        let (_, card) = &cards[&row[2]];
        if differs.is_empty() {
            assert_eq!((&row[3], &row[4]), ("issued", card.as_str()));
        } else {
            assert_eq!((&row[3], &row[8]), ("refused", "job_conflict"), "{row:?}");
            assert!(row[9].contains(card) && row[9].contains(differs), "{row:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_ledgers_card_that_is_not_what_a_job_asks_for_is_named_and_not_taken_for_its() {
    asks_for_something_else(Duration::ZERO, 3).await;
}

/// Without its key, only the cards of the cardholder that is asked for are looked through.
#[tokio::test(flavor = "multi_thread")]
async fn a_lost_ledgers_card_that_is_not_what_a_job_asks_for_is_named_after_its_key_is_forgotten() {
    asks_for_something_else(A_DAY, 2).await;
}

/// A card tells of its latest change only, so each of its changes is looked for after the one before it was made again.
#[tokio::test(flavor = "multi_thread")]
async fn beside_a_lost_ledger_the_last_change_of_a_card_is_the_last() {
    let issuing = Issuing::with(Options::default()).await;
    issuing.sandbox.stock("ich_1", 3);
    let rows = ["active", "inactive", "active"].into_iter().enumerate().flat_map(|(turn, status)| {
        (1..=3).map(move |card| format!("r{turn}{card},ic_sandbox0000000{card},{status},{turn}\n"))
    });
    let text = "row_id,card,status,metadata[turn]\n".to_owned() + &rows.collect::<String>();
    std::fs::write(issuing.path("cards.csv"), text).unwrap();
    expect_exit(&ended(issue(&issuing.program(), "200", &[])).await, 0);
    for file in ["ledger.db", "cards.results.csv"] {
        std::fs::remove_file(issuing.path(file)).unwrap();
    }
    issuing.pass(A_DAY, 25 * 3600);
    expect_exit(&ended(issue(&issuing.program(), "200", &["--reconcile-first"])).await, 0);
    for card in 1..=3 {
        let mut changes = issuing.sandbox.account().changes.into_iter();
        let last = changes.rfind(|change| change.card == format!("ic_sandbox0000000{card}")).unwrap();
        assert_eq!(last.job, Some(format!("cards/r2{card}")));
    }
}

/// A batch's name, a slash and a row's name are a job's id, whichever of them has slashes of its own.
#[tokio::test(flavor = "multi_thread")]
async fn a_row_whose_id_is_another_batchs_is_told_nobody_elses_card() {
    let issuing = Issuing::with(Options::default()).await;
    let header = "row_id,cardholder,type,currency\n";
    std::fs::write(issuing.path("cards.csv"), format!("{header}2026/001,ich_1,virtual,eur\n")).unwrap();
    expect_exit(&ended(issue(&issuing.program(), "200", &["--batch", "rollout"])).await, 0);
    std::fs::write(issuing.path("cards.csv"), format!("{header}001,ich_2,virtual,eur\n")).unwrap();
    let other = ["--batch", "rollout/2026", "--results", "other.csv"];
    let output = ended(issue(&issuing.program(), "200", &other)).await;
    expect_exit(&output, 1);
    let told = std::fs::read_to_string(issuing.path("other.csv")).unwrap();
    assert!(told.contains("job_conflict") && !told.contains("ic_"), "{told}");
    assert!(told.contains("give this batch another name"), "{told}");
    assert_eq!(issuing.sandbox.counts().cards, 1);
}

/// A run that looks for each row, since its ledger does not know the batch, is killed in the middle.
#[tokio::test(flavor = "multi_thread")]
async fn killed_while_it_looks_for_another_ledgers_batch_it_goes_on_looking() {
    const ROWS: usize = 60;
    let issuing = Issuing::with(Options::default()).await;
    // A cardholder each, so that each row is a look of its own.
    let rows = (0..ROWS).map(|row| format!("r{row},ich_{row:03},virtual,eur\n"));
    let text = "row_id,cardholder,type,currency\n".to_owned() + &rows.collect::<String>();
    std::fs::write(issuing.path("cards.csv"), text).unwrap();
    expect_exit(&ended(issue(&issuing.program(), "300", &[])).await, 0);
    std::fs::remove_file(issuing.path("cards.results.csv")).unwrap();
    issuing.pass(A_DAY, 25 * 3600);
    let program = issuing.program().with("EMBOSSER__LEDGER__URL", &issuing.ledger("other.db"));
    for looked in [10, 25] {
        let running = issue(&program, "20", &[]);
        issuing.until("some looks", |_| issuing.lists() > looked).await;
        running.killed().await;
    }
    expect_exit(&ended(issue(&program, "300", &[])).await, 0);
    assert_eq!(issuing.sandbox.counts().cards, ROWS, "no second card");
    issuing.results_are_true("cards.results.csv");
    assert!(issuing.lists() >= ROWS, "each row was looked for: {} lists", issuing.lists());
}

/// A ledger of the first version, its rows of the sandbox's host; answers under which scopes it has them after a run.
async fn first_version(issuing: &Issuing, program: Program, rows: &str) -> Vec<String> {
    let file = issuing.path("ledger.db");
    let fixture = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/ledger-v1.db");
    std::fs::copy(fixture, &file).unwrap();
    let connection = rusqlite::Connection::open(&file).unwrap();
    let scope = format!("test:{}", issuing.sandbox.address());
    for table in ["jobs", "batches"] {
        connection.execute(&format!("UPDATE {table} SET scope = ?1"), [&scope]).unwrap();
    }
    drop(connection);
    std::fs::write(issuing.path("staff.csv"), format!("row_id,cardholder,type,currency\n{rows}")).unwrap();
    let output = ended(program.spawn(&["issue", "staff.csv", "--rate", "200"])).await;
    expect_exit(&output, 0);
    let connection = rusqlite::Connection::open(&file).unwrap();
    let mut scopes = connection.prepare("SELECT DISTINCT scope FROM steps ORDER BY scope").unwrap();
    scopes.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_of_the_first_version_get_the_account_that_has_their_cards() {
    let issuing = Issuing::with(Options::default()).await;
    // The sandbox's cards have the ids that the fixture's have.
    issuing.manifest(20).await;
    let program = issuing.program().with("EMBOSSER__LEDGER__URL", &issuing.ledger("their.db"));
    expect_exit(&ended(issue(&program, "300", &[])).await, 0);
    let scopes = first_version(&issuing, issuing.program(), "E00001,ich_1,virtual,eur\n").await;
    assert_eq!(scopes, [format!("test:{}:acct_sandbox", issuing.sandbox.address())]);
    assert_eq!(issuing.sandbox.counts().cards, 20, "the row has its card");
    let told = issuing.results("staff.results.csv");
    assert!(told["staff/E00001"].1.starts_with("ic_sandbox"), "{told:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_of_the_first_version_are_not_taken_for_an_account_that_has_not_their_cards() {
    let issuing = Issuing::with(Options::default()).await;
    issuing.manifest(20).await;
    let program = issuing.program().with("EMBOSSER__LEDGER__URL", &issuing.ledger("their.db"));
    expect_exit(&ended(issue(&program, "300", &[])).await, 0);
    let other = issuing.program().with("STRIPE_API_KEY", "sk_test_acct_B_1");
    let scopes = first_version(&issuing, other, "E00001,ich_1,virtual,eur\n").await;
    let host = format!("test:{}", issuing.sandbox.address());
    assert_eq!(scopes, [host.clone(), format!("{host}:acct_B")]);
    let made = issuing.sandbox.account().cards;
    let of_other: Vec<_> = made.iter().filter(|card| card.account == "acct_B").collect();
    assert_eq!((made.len(), of_other.len()), (21, 1), "this account's card is made");
    assert_eq!(issuing.results("staff.results.csv")["staff/E00001"].1, of_other[0].id);
}

/// An account in this process.
async fn account(issuing: &Issuing, ledger: &Ledger, name: &str) -> Account {
    let (api_url, key_url) = (issuing.sandbox.api_url(), issuing.sandbox.key_url());
    let config =
        Config { stripe: StripeConfig { api_url, key_url, ..StripeConfig::default() }, ..Config::default() };
    let access = Access::with_key(&config.stripe, &format!("sk_test_{name}_1").into()).unwrap();
    let pace = access.pace(&config.pace, &Pacer::start());
    let links = LinksWhen::Asked;
    let purpose =
        Purpose { runs: Runs::Forever, patience: Patience::Unbounded, reconcile_first: false, links };
    Account::open(access, &config, ledger, pace, purpose).await.unwrap()
}

/// Jobs that each account gets, under the same ids.
const JOBS: usize = 20;

/// Carries the jobs of an account; their cards.
async fn carry_all(issuing: &Issuing, of: &Account) -> Vec<String> {
    let sandbox = &issuing.sandbox;
    let carried = (0..JOBS).map(|number| async move {
        let job = job(sandbox, &format!("job{number}"), "eur", None).await;
        issued(&of.line().carry(job, CarryOptions::default()).await.unwrap()).id.clone()
    });
    futures_util::future::join_all(carried).await
}

#[tokio::test(flavor = "multi_thread")]
async fn one_process_acts_for_several_accounts_and_none_waits_for_another() {
    let issuing = Issuing::with(Options::default()).await;
    let ledger = Ledger::open(&issuing.ledger("ledger.db")).await.unwrap();
    let (a, b) = (account(&issuing, &ledger, "acct_A").await, account(&issuing, &ledger, "acct_B").await);
    assert!(a.scope().as_str().ends_with(":acct_A") && b.scope().as_str().ends_with(":acct_B"));
    // Somebody else calls for A.
    let other = account(&issuing, &ledger, "acct_A").await;
    let lease = other.line().hold_lease().await.unwrap();
    let waiting = carry_all(&issuing, &a);
    tokio::pin!(waiting);
    // B's jobs end although A's cannot begin.
    let of_b = tokio::select! {
        of_b = carry_all(&issuing, &b) => of_b,
        _ = &mut waiting => panic!("two processes called for one account"),
    };
    drop(lease);
    let of_a = waiting.await;
    // The same ids are other jobs in another account.
    let made = issuing.sandbox.account().cards;
    assert_eq!(made.len(), 2 * JOBS);
    for (cards, name) in [(of_a, "acct_A"), (of_b, "acct_B")] {
        assert!(
            made.iter().filter(|card| card.account == name).all(|card| cards.contains(&card.id)),
            "{name}"
        );
        assert_eq!(cards.len(), JOBS);
    }
    ledger.close().await;
}
