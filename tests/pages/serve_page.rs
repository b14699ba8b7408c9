//! Promise: on the page a person gets from a spreadsheet to cards, watches, steers, mends and fetches, with a keyboard, at a
//! phone's width, in the dark, and when the connection drops.
//!
//! `EMBOSSER_SCREENSHOTS=docs cargo test --features killpoints --test pages serve_page` makes the pictures of the README and docs/page.md
//! (which are then brought to 128 colours, a third of their size);
//! with `EMBOSSER_LOOKS=FOLDER` every state is kept there.

use crate::support;

mod accounts;
mod approval;
mod headings;
mod large;
mod live;
mod looks;
mod odd;
mod retry;
mod tasks;
mod together;
mod way;
mod whole;

use std::io::Cursor;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use calamine::{Reader as _, Xlsx, open_workbook_from_rs};
use embosser::sandbox::{Faults, Options, Sandbox};
use fantoccini::key::Key;
use serde_json::json;
use support::browser::{Browser, Look, downloaded, downloaded_bytes};
use support::rabbit::Rabbit;
use support::serve::Served;
use support::{Expected, Program, expect_exit, one_card_each, write_manifest};

struct Stage {
    directory: tempfile::TempDir,
    sandbox: Sandbox,
    program: Program,
    downloads: PathBuf,
}

async fn stage() -> Stage {
    let directory = tempfile::tempdir().unwrap();
    // So that some calls are always under way when the server is killed.
    let options =
        Options { latency: Duration::from_millis(200), delay: Duration::from_secs(4), ..Options::default() };
    let sandbox = Sandbox::start(options).await.unwrap();
    let program = Program::new(directory.path(), &sandbox)
        .with("EMBOSSER__STRIPE__CALL_SECONDS_MAX", "6")
        .with("EMBOSSER__PACE__CONCURRENCY", "8");
    let downloads = directory.path().join("downloads");
    std::fs::create_dir(&downloads).unwrap();
    Stage { directory, sandbox, program, downloads }
}

async fn until_created(sandbox: &Sandbox, creates: u64) {
    let began = Instant::now();
    while sandbox.account().creates < creates {
        assert!(began.elapsed() < Duration::from_secs(60), "no {creates} cards were asked for");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Waits until so many cards were asked for, and has Stripe take its time from then on: a batch is then still under way whenever
/// the browser has come so far, two rows a second instead of forty.
async fn slow_after(sandbox: &Sandbox, creates: u64) {
    until_created(sandbox, creates).await;
    sandbox.set_faults(Faults { delay: 1.0, ..Faults::default() });
}

/// Chooses a file on the page for a new batch.
async fn choose(browser: &Browser, file: &Path) {
    browser.run("location.hash = '#/new'").await;
    browser.click("#steps li:first-child button").await;
    browser.keys("#file", file.to_str().unwrap()).await;
}

/// Chooses it, looks over what may be wrong with it, and goes on to the plan.
async fn plan(browser: &Browser, file: &Path) {
    choose(browser, file).await;
    let is_there = |css: &str| format!("document.querySelector('{css}').checkVisibility()");
    let (go, issue) = (is_there("#check-go"), is_there("#issue"));
    browser.until(&format!("return {go} || {issue}")).await;
    if browser.run(&format!("return {go}")).await == json!(true) {
        browser.click("#check-go").await;
    }
}

/// Says that it is to be issued, and says so once more.
async fn confirm(browser: &Browser) {
    browser.click("#issue").await;
    browser.until("return document.querySelector('#sure').open").await;
    browser.click("#sure-yes").await;
}

/// Chooses it, and issues it as it is.
async fn issue(browser: &Browser, file: &Path) {
    plan(browser, file).await;
    confirm(browser).await;
    browser.until_text("#batch-title", file.file_stem().unwrap().to_str().unwrap()).await;
}

/// A manifest whose first rows' PINs were encrypted under a key that is no more; what must come of the others.
async fn with_stale_pins(path: &Path, sandbox: &Sandbox, rows: usize, stale: usize) -> Expected {
    write_manifest(path, sandbox, rows).await;
    let old = std::fs::read_to_string(path).unwrap();
    sandbox.rotate_key();
    let mut expected = write_manifest(path, sandbox, rows).await;
    let new = std::fs::read_to_string(path).unwrap();
    let mut text = String::new();
    let mut refused = 0;
    for (index, (old, new)) in old.lines().zip(new.lines()).enumerate() {
        let pin = !old.ends_with(',');
        let outdated = index > 0 && pin && refused < stale;
        refused += usize::from(outdated);
        text += &format!("{}\n", if outdated { old } else { new });
        if outdated {
            expected.retain(|job, _| !job.ends_with(&format!("/r{index}")));
        }
    }
    std::fs::write(path, text).unwrap();
    expected
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn from_the_token_to_the_downloads() {
    let Stage { directory, sandbox, program, downloads } = stage().await;
    let made =
        program.run(&["token", "page", "--role", "read", "--role", "submit", "--role", "operate"]).await;
    expect_exit(&made, 0);
    std::fs::write(directory.path().join("tokens"), &made.stderr).unwrap();
    let token = String::from_utf8(made.stdout).unwrap().trim().to_owned();
    let program =
        program.with("EMBOSSER__HTTP__TOKENS_FILE", directory.path().join("tokens").to_str().unwrap());
    let served = Served::start(&program, &["--rate", "40"]);
    let browser = Browser::start(Look::Desk, &downloads).await;
    browser.open(&served.url).await;

    // What a token is and where it comes from is said, and nothing as if something were wrong.
    browser.until_text("#sign-in", "Whoever runs embosser in your company makes one for you").await;
    assert_eq!(browser.text("#notice").await, "");
    looks::is_sound(&browser, "sign-in").await;
    browser.keys("#token", "wrong").await;
    browser.keys("#token", &Key::Enter.to_string()).await;
    browser.until_text("#notice", "not known").await;
    browser.keys("#token", &token).await;
    browser.keys("#token", &Key::Enter.to_string()).await;
    browser.until_text("#server", "test cards, 40 calls a second").await;
    browser.until_text("#list-none", "From a list of people to cards").await;

    // A file with problems: each stands in its cell, and nothing is issued.
    let bad = directory.path().join("bad.csv");
    std::fs::write(
        &bad,
        "row_id,type,currency\n1,virtual,eur\n2,virtuel,eur\n=3,virtual,EURO\n4,\"virtual,eur\n",
    )
    .unwrap();
    choose(&browser, &bad).await;
    browser.until_text("#check-title", "3 rows of 4 cannot be issued").await;
    let table = browser.text("#mend-table tbody").await;
    assert!(table.contains("is not one of Stripe's values") && table.contains("Use “virtual”"), "{table}");
    // What cannot be read as a row stands there, too.
    assert!(
        table.contains("a quote that is opened in this row is never closed")
            && table.contains("Mend it in your spreadsheet"),
        "{table}"
    );
    browser.click("#problems-download").await;
    assert!(downloaded(&downloads, "bad.problems.csv").await.contains("\"'=3\",\"currency\""));
    assert_eq!(sandbox.account().creates, 0);

    // A good one: what it comes to, and then the cards, by keyboard.
    let good = directory.path().join("rollout.csv");
    let expected = with_stale_pins(&good, &sandbox, 240, 6).await;
    plan(&browser, &good).await;
    browser.until_text("#plan-figures", "240").await;
    let plan = browser.text("#plan-figures").await;
    assert!(plan.contains("With a PIN\n192") && plan.contains("Virtual\n240"), "{plan}");
    assert_eq!(browser.text("#issue").await, "Issue 240 cards");
    assert_eq!(browser.element("#name").await.prop("value").await.unwrap().as_deref(), Some("rollout"));
    assert_eq!(sandbox.account().creates, 0);
    browser.keys("#issue", &Key::Enter.to_string()).await;
    browser.until_text("#sure-words", "Issue 240 cards as “rollout”?").await;
    browser.until_text("#sure-words", "No card is real").await;
    // At the same time: on a busy machine the browser may say that a key was pressed when all is over.
    let yes = Key::Enter.to_string();
    tokio::join!(browser.keys("#sure-yes", &yes), slow_after(&sandbox, 60));
    browser.until_text("#batch-title", "rollout").await;
    browser.until("return document.querySelector('#batch-progress').value > 0.1").await;
    browser.until_text("#figures", "Rows a second").await;
    browser.until("return / % · rollout · embosser$/.test(document.title)").await;
    if let Ok(into) = std::env::var("EMBOSSER_SCREENSHOTS") {
        browser.until("return document.querySelectorAll('#chart rect').length > 3").await;
        std::fs::write(format!("{into}/page.png"), browser.page.screenshot().await.unwrap()).unwrap();
    }
    browser.keys("#pause", &Key::Enter.to_string()).await;
    browser.until_text("#batch-state", "No further row begins").await;
    looks::is_sound(&browser, "paused").await;
    sandbox.set_faults(Faults::default());
    browser.keys("#resume", &Key::Enter.to_string()).await;
    browser.until_text("#batch-state", "Every row has ended").await;
    browser.until("return document.querySelectorAll('#chart rect').length > 2").await;
    // Nothing above the rows moves any more.
    browser.until_text("#refused-reasons", "6 rows need a new PIN").await;
    browser.click("#row-filters button:nth-child(3)").await;
    browser.until("return document.querySelectorAll('#rows-table tbody tr').length === 6").await;
    browser
        .until_text("#rows-table", "The PIN was encrypted with a key that Stripe has replaced since")
        .await;
    // Whoever is asked about it finds the exact words behind these.
    let title = "return document.querySelector('#rows-table span[title^=stale_key]').title";
    let title = browser.run(title).await;
    assert!(title.as_str().unwrap().contains("encrypted under a key that is not the current one"), "{title}");
    browser.click("#row-filters button:first-child").await;
    browser.keys("#search", "R17").await;
    browser.until("return document.querySelectorAll('#rows-table tbody tr').length < 12").await;
    browser.until_text("#rows-table", "r17").await;
    one_card_each(&sandbox.account(), &expected);
    browser.click("#results").await;
    let results = downloaded(&downloads, "rollout.results.csv").await;
    assert_eq!((results.lines().count(), results.matches(",issued,").count()), (241, 234));
    browser.click("#results-workbook").await;
    let workbook = downloaded_bytes(&downloads, "rollout.results.xlsx").await;
    let mut workbook: Xlsx<_> = open_workbook_from_rs(Cursor::new(workbook)).unwrap();
    assert_eq!(workbook.worksheet_range("Results").unwrap().rows().count(), 241);
    browser.click("#refused-download").await;
    assert_eq!(downloaded(&downloads, "rollout.refused.csv").await.lines().count(), 7);
    browser.run("location.hash = '#/'").await;
    browser.until_text("#list-table", "finished").await;
}

/// Rows that have a card keep it: another upload's changes and another name for the same people are told, and second cards
/// are a choice of their own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cards_that_exist_are_kept_and_what_differs_is_shown() {
    let Stage { directory, sandbox, program, downloads } = stage().await;
    let served = Served::start(&program, &["--rate", "100"]);
    let browser = Browser::start(Look::PhoneInTheDark, &downloads).await;
    browser.open(&served.url).await;
    let staff = directory.path().join("staff.csv");
    write_manifest(&staff, &sandbox, 12).await;
    let finish = async |file: &Path| {
        browser.open(&served.url).await;
        issue(&browser, file).await;
        browser.until_text("#batch-state", "Every row has ended").await;
    };
    finish(&staff).await;
    // Two rows want something else now.
    let text = std::fs::read_to_string(&staff).unwrap();
    let changed = text.replacen("r3,ich_03,virtual,eur", "r3,ich_03,virtual,usd", 1);
    let changed = changed.replacen("r5,ich_05,virtual,eur", "r5,ich_05,virtual,usd", 1);
    std::fs::write(&staff, changed).unwrap();
    browser.open(&served.url).await;
    plan(&browser, &staff).await;
    let other = "2 rows ask for something else than when they were issued: r3, r5.";
    browser.until_text("#plan-notes", other).await;
    finish(&staff).await;
    browser.until_text("#row-filters", "With a note (2)").await;
    browser.click("#row-filters button:nth-child(3)").await;
    browser.until("return document.querySelectorAll('#rows-table tbody tr').length === 2").await;
    browser.until_text("#rows-table", "with a file of changes").await;
    assert_eq!(browser.run("return document.querySelector('#mend-refused').hidden").await, json!(true));
    // The same people and three more under another name.
    std::fs::write(&staff, text).unwrap();
    let more = directory.path().join("more.csv");
    let people = std::fs::read_to_string(&staff).unwrap();
    let new: String = (1..=3).map(|row| format!("n{row},ich_{},virtual,eur,,\n", 50 + row)).collect();
    std::fs::write(&more, people + &new).unwrap();
    browser.open(&served.url).await;
    plan(&browser, &more).await;
    browser.until_text("#plan-notes", "12 rows have their cards from another batch already").await;
    assert_eq!(sandbox.account().cards.len(), 12);
    // What is left to do of it, in the figures and in the last question.
    let figures = browser.text("#plan-figures").await;
    assert!(figures.contains("Cards\n3\n") && figures.contains("Done in another batch\n12"), "{figures}");
    browser.click("#issue").await;
    browser.until_text("#sure-words", "Issue 3 cards as “more”?").await;
    browser.click("#sure button[value=no]").await;
    finish(&more).await;
    browser.until_text("#figures", "Card from another batch").await;
    assert_eq!(sandbox.account().cards.len(), 15);
    // All of them under another name: where they were issued stands there, and nothing is asked that would be refused.
    let same = directory.path().join("same.csv");
    std::fs::copy(&staff, &same).unwrap();
    browser.open(&served.url).await;
    plan(&browser, &same).await;
    browser.until_text("#issue", "Nothing to issue: all of it was issued as “staff”").await;
    browser.click("#issue").await;
    let told = "All of these rows were issued in the batch “staff”. Nothing was issued.";
    browser.until_text("#plan-error", told).await;
    looks::is_sound(&browser, "issued-elsewhere").await;
    assert_eq!(browser.run("return document.querySelector('#sure').open").await, json!(false));
    browser.click("#plan-error a").await;
    browser.until_text("#batch-title", "staff").await;
    // Second cards, asked for and confirmed.
    let second = directory.path().join("second.csv");
    std::fs::copy(&more, &second).unwrap();
    browser.open(&served.url).await;
    plan(&browser, &second).await;
    browser.click("#second").await;
    browser.click("#issue").await;
    browser.until_text("#sure-words", "second ones too").await;
    looks::is_sound(&browser, "sure").await;
    browser.click("#sure-yes").await;
    browser.until_text("#batch-state", "Every row has ended").await;
    assert_eq!(sandbox.account().cards.len(), 30);
}

/// Who rolls out cards gets the links for their colleagues, each for its row; and nothing is cancelled without a yes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn links_to_choose_a_pin_are_downloaded_and_cancelling_is_asked_for() {
    let Stage { directory, sandbox, program, downloads } = stage().await;
    sandbox.stock("ich_9", 2);
    let program = program.with("EMBOSSER__PIN_PAGE__URL", "https://pins.example.com");
    let served = Served::start(&program, &["--rate", "100"]);
    let browser = Browser::start(Look::PhoneInTheDark, &downloads).await;
    browser.open(&served.url).await;
    let staff = directory.path().join("staff.csv");
    let rows =
        "row_id,cardholder,type,currency,pin[choose]\na,ich_1,virtual,eur,true\n=b,ich_2,virtual,eur,true\n";
    std::fs::write(&staff, rows).unwrap();
    plan(&browser, &staff).await;
    browser.until_text("#plan-notes", "2 rows wait for a PIN that the cardholder chooses").await;
    confirm(&browser).await;
    browser.until_text("#batch-state", "wait until their cardholders have chosen a PIN").await;
    browser.until_text("#figures", "Waiting for a PIN").await;
    browser.until_text("#awaited", "Waiting for a PIN: 2 for less than an hour").await;
    looks::is_sound(&browser, "awaiting").await;
    browser.click("#links-download").await;
    let links = downloaded(&downloads, "staff.pin-links.csv").await;
    let mut reader = csv::Reader::from_reader(links.as_bytes());
    let rows: Vec<csv::StringRecord> = reader.records().map(Result::unwrap).collect();
    let names: Vec<&str> = rows.iter().map(|row| &row[1]).collect();
    assert_eq!(names, ["a", "'=b"], "no cell is a formula");
    assert!(
        rows.iter().all(|row| row[3].starts_with("https://pins.example.com/pin#") && row[3].len() == 72),
        "{links}"
    );
    // All have theirs: others are made only if that is meant.
    browser.click("#links-download").await;
    browser.until_text("#sure-words", "Links that were sent before can be used no more").await;
    browser.keys("#sure button[value=no]", &Key::Enter.to_string()).await;
    browser.click("#awaiting-cancel").await;
    browser.until_text("#sure-words", "Cancel the rows that wait for a PIN?").await;
    browser.click("#sure-yes").await;
    browser.until_text("#rows-table", "cancelled").await;
    browser.until("return document.querySelector('#awaiting').hidden").await;
    browser.until("return document.querySelector('#awaited').hidden").await;
    let waiting = served.get("/v1/pin-links").await.expect(200).json();
    assert!(waiting["waiting"].as_array().unwrap().is_empty(), "{waiting}");

    let cancel = directory.path().join("cancel.csv");
    std::fs::write(&cancel, "card,status\nic_sandbox00000001,canceled\nic_sandbox00000002,canceled\n")
        .unwrap();
    browser.open(&served.url).await;
    plan(&browser, &cancel).await;
    confirm(&browser).await;
    browser.until_text("#sure-words", "cancels 2 cards, for ever").await;
    browser.keys("#sure button[value=no]", &Key::Enter.to_string()).await;
    assert!(sandbox.account().changes.is_empty());
    confirm(&browser).await;
    browser.until_text("#sure-words", "cancels 2 cards, for ever").await;
    browser.click("#sure-yes").await;
    browser.until_text("#batch-title", "cancel").await;
    browser.until_text("#batch-state", "Every row has ended").await;
    assert_eq!(sandbox.account().changes.len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_a_phone_in_the_dark_a_batch_is_cancelled_and_a_lost_connection_comes_back() {
    let Stage { directory, sandbox, program, downloads } = stage().await;
    let served = Served::start(&program, &["--rate", "20"]);
    let browser = Browser::start(Look::PhoneInTheDark, &downloads).await;
    browser.open(&served.url).await;
    let file = directory.path().join("staff.csv");
    write_manifest(&file, &sandbox, 600).await;
    tokio::join!(issue(&browser, &file), slow_after(&sandbox, 30));
    browser.until_text("#batch-state", "Its rows are being issued").await;
    browser.until("return document.querySelectorAll('#chart rect').length > 1").await;
    let wide = "return document.documentElement.scrollWidth <= document.documentElement.clientWidth";
    assert_eq!(browser.run(wide).await, json!(true), "nothing sticks out at a phone's width");
    let dark = browser.run("return getComputedStyle(document.body).backgroundColor").await;
    assert_eq!(dark, json!("rgb(16, 19, 24)"));

    // The dialog's first button with the focus is the harmless one.
    browser.click("#cancel").await;
    browser.until_text("#sure", "that have not begun?").await;
    browser.keys("#sure button[value=no]", &Key::Enter.to_string()).await;
    browser.until_text("#batch-state", "Its rows are being issued").await;
    browser.click("#cancel").await;
    browser.click("#sure-yes").await;
    browser.until_text("#batch-state", "It was cancelled").await;
    browser.until_text("#refused-reasons", "need no change").await;
    // Nobody refused them: they count apart, in figures, words and colours.
    browser.until_text("#figures", "Cancelled before they began").await;
    browser.until_text("#mend-refused-title", "Rows that were cancelled").await;
    browser.until_text("#row-filters", "Refused or cancelled (").await;
    browser.until("return document.querySelectorAll('#chart .refused').length === 0").await;
    browser.click("#row-filters button:nth-child(3)").await;
    browser.until_text("#rows-table", "cancelled").await;
    assert!(sandbox.account().cards.len() < 600);

    // The server goes away and comes back at the same address.
    let address = served.address().to_owned();
    served.killed();
    browser.until_text("#notice", "cannot be reached").await;
    let served = Served::start(&program, &["--rate", "20", "--listen", &address]);
    browser.until("return document.querySelector('#notice').hidden").await;
    // What the ledger knows is shown again, and the same file finishes it.
    browser.run("location.hash = '#/'").await;
    browser.until_text("#list-table", "rows cancelled").await;
    issue(&browser, &file).await;
    browser.until_text("#batch-state", "Its rows are being issued").await;
    // In the middle of it, with its stream open, and calls on their way: without any, each row has the end of before.
    until_created(&sandbox, sandbox.account().creates + 1).await;
    served.killed();
    browser.until_text("#batch-state", "The connection is lost").await;
    let _served = Served::start(&program, &["--rate", "20", "--listen", &address]);
    browser.until_text("#batch-state", "It was cut off").await;
    // How those ended that were on their way is found out at Stripe, without the file; and then all counts add up.
    looks::is_sound(&browser, "cut-off").await;
    let made = sandbox.account().creates;
    browser.click("#settle").await;
    browser.until_text("#settle-said", "Looking at Stripe for").await;
    browser.until("return !document.querySelector('#settle').disabled").await;
    browser.until("return /found at Stripe|Stripe has nothing/.test(document.querySelector('#settle-said').textContent)").await;
    browser.until("return document.querySelector('#again-panel').hidden").await;
    let counts = "const [rows, ...parts] = [...document.querySelectorAll('#figures dd')].map((one) => Number(one.textContent.replaceAll(',', '')));
        return rows === parts.reduce((sum, part) => sum + part, 0)";
    browser.until(counts).await;
    // Calls that had come before end at Stripe whatever happens here.
    assert_eq!(sandbox.account().creates, made, "looking makes nothing");
    looks::is_sound(&browser, "found-out").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_rabbitmq_is_away_the_page_says_so() {
    let Stage { directory, sandbox, program, downloads } = stage().await;
    let mut rabbit = Rabbit::start().await;
    let program = program
        .with("EMBOSSER__RABBITMQ__URL", &rabbit.url())
        .with("EMBOSSER__HTTP__JOBS_TO", "rabbitmq_test");
    let served = Served::start(&program, &["--rate", "20"]);
    let browser = Browser::start(Look::Desk, &downloads).await;
    browser.open(&served.url).await;
    browser.until_text("#server", "test cards, 20 calls a second").await;
    rabbit.kill();
    browser.until_text("#server", "stopped: RabbitMQ is away").await;
    let file = directory.path().join("staff.csv");
    write_manifest(&file, &sandbox, 5).await;
    plan(&browser, &file).await;
    confirm(&browser).await;
    browser.until_text("#notice", "RabbitMQ is away").await;
    rabbit.start_again().await;
    browser.until("return !document.querySelector('#server').textContent.includes('RabbitMQ')").await;
    confirm(&browser).await;
    browser.until_text("#batch-state", "Its rows are being issued").await;
}
