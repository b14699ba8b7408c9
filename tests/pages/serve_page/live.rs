//! Cards that are real: nobody makes them by a slip of the hand. The question says how many, and on whose account, and wants the
//! number typed.

use embosser::sandbox::{Options, Sandbox};
use fantoccini::key::Key;
use serde_json::json;

use super::approval::sign_in;
use super::looks::is_sound;
use super::plan;
use super::support::browser::{Browser, Look};
use super::support::serve::Served;
use super::support::tls::live;
use super::support::tokens::people;
use super::support::{Program, one_card_each, write_manifest};

const ENTER: char = '\u{e007}';

/// Goes to the question of the plan that is shown.
async fn ask(browser: &Browser) {
    browser.click("#issue").await;
    browser.until("return document.querySelector('#sure').open").await;
}

async fn is_open(browser: &Browser) -> bool {
    browser.run("return document.querySelector('#sure').open").await == json!(true)
}

async fn real_cards(look: Look) {
    let directory = tempfile::tempdir().unwrap();
    let sandbox = Sandbox::start(Options::default()).await.unwrap();
    let downloads = directory.path().join("downloads");
    std::fs::create_dir(&downloads).unwrap();
    let file = directory.path().join("staff.csv");
    let expected = write_manifest(&file, &sandbox, 12).await;
    let program = live(Program::new(directory.path(), &sandbox), directory.path(), &sandbox).await;
    let people = people(program, &[("payroll", &["submit", "read"])]).await;
    let served = Served::start(&people.program, &["--rate", "100"]);
    let browser = Browser::start(look, &downloads).await;
    browser.open(&served.url).await;
    sign_in(&browser, &people, "payroll").await;
    browser.until_text("#server", "live cards, 100 calls a second").await;
    plan(&browser, &file).await;
    browser.until_text("#issue", "Issue 12 live cards").await;

    ask(&browser).await;
    for words in [
        "Issue 12 live cards as “staff”?",
        "They are real and cannot be taken back",
        "on Stripe’s account acct_sandbox.",
    ] {
        browser.until_text("#sure-words", words).await;
    }
    browser.until_text("#sure-label", "Type 12 to go on").await;
    is_sound(&browser, "live").await;
    // Neither a yes alone does it, nor another number, nor words.
    browser.click("#sure-yes").await;
    assert!(is_open(&browser).await, "a yes without the number is none");
    for wrong in ["13", "yes", "-", "1 2 0"] {
        browser.run("document.querySelector('#sure-input').value = ''").await;
        browser.keys("#sure-input", &format!("{wrong}{ENTER}")).await;
        browser.until_text("#sure-wrong", "That is another number than 12. Nothing was done.").await;
        assert!(is_open(&browser).await, "{wrong:?} was taken for the number");
    }
    browser.keys("#sure button[value=no]", &Key::Enter.to_string()).await;
    browser.until("return !document.querySelector('#sure').open").await;
    // Nor does the number with a no; and what was typed is not there the next time.
    ask(&browser).await;
    assert_eq!(browser.run("return document.querySelector('#sure-wrong').hidden").await, json!(true));
    assert_eq!(browser.element("#sure-input").await.prop("value").await.unwrap().as_deref(), Some(""));
    browser.keys("#sure-input", "12").await;
    browser.click("#sure button[value=no]").await;
    browser.until("return !document.querySelector('#sure').open").await;
    // Nor with Escape.
    ask(&browser).await;
    browser.keys("#sure-input", &format!("12{}", char::from(Key::Escape))).await;
    browser.until("return !document.querySelector('#sure').open").await;
    let known = served.with_token(&people.tokens["payroll"]);
    let batches = known.get("/v1/batches").await.expect(200).json();
    assert_eq!(
        (&batches["total"], sandbox.account().creates),
        (&json!(0), 0),
        "nothing was begun: {batches}"
    );

    // The number, and a yes.
    ask(&browser).await;
    browser.keys("#sure-input", "12").await;
    browser.click("#sure-yes").await;
    browser.until_text("#batch-title", "staff").await;
    browser.until_text("#batch-state", "Every row has ended").await;
    one_card_each(&sandbox.account(), &expected);

    // Nothing is left to do: then no number is asked for.
    plan(&browser, &file).await;
    ask(&browser).await;
    browser.until_text("#sure-words", "Nothing of it is left to do.").await;
    assert_eq!(browser.run("return document.querySelector('#sure-asks').hidden").await, json!(true));
    browser.click("#sure-yes").await;
    browser.until_text("#batch-state", "Every row has ended").await;
    one_card_each(&sandbox.account(), &expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn real_cards_are_made_only_after_their_number_was_typed_at_a_desk() {
    real_cards(Look::Desk).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn real_cards_are_made_only_after_their_number_was_typed_on_a_phone() {
    real_cards(Look::PhoneInTheDark).await;
}

/// Who sends a batch for approval types nothing: whoever lets it go is told that it is real, and on whose account.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_approves_real_cards_is_told_that_they_are() {
    let directory = tempfile::tempdir().unwrap();
    let sandbox = Sandbox::start(Options::default()).await.unwrap();
    let downloads = directory.path().join("downloads");
    std::fs::create_dir(&downloads).unwrap();
    let file = directory.path().join("staff.csv");
    let expected = write_manifest(&file, &sandbox, 5).await;
    let program = live(Program::new(directory.path(), &sandbox), directory.path(), &sandbox).await;
    let program = program.with("EMBOSSER__APPROVAL__REQUIRED", "true");
    let who: [(&str, &[&str]); 2] = [("payroll", &["submit", "read"]), ("boss", &["approve", "read"])];
    let people = people(program, &who).await;
    let served = Served::start(&people.program, &["--rate", "100"]);
    let browser = Browser::start(Look::Desk, &downloads).await;
    browser.open(&served.url).await;
    sign_in(&browser, &people, "payroll").await;
    plan(&browser, &file).await;
    browser.until_text("#issue", "Send for approval: issue 5 live cards").await;
    browser.click("#issue").await;
    browser.until_text("#batch-state", "before somebody else has approved it").await;
    sign_in(&browser, &people, "boss").await;
    browser.click("#approve").await;
    browser.until_text("#sure-words", "Approve “staff”: 5 rows?").await;
    let real = "What it does is real and cannot be taken back: it is done on Stripe’s account acct_sandbox.";
    browser.until_text("#sure-words", real).await;
    browser.keys("#sure button[value=no]", &Key::Enter.to_string()).await;
    browser.until("return !document.querySelector('#sure').open").await;
    assert_eq!(sandbox.account().creates, 0);
    browser.click("#approve").await;
    browser.until("return document.querySelector('#sure').open").await;
    browser.click("#sure-yes").await;
    browser.until_text("#batch-state", "Every row has ended").await;
    one_card_each(&sandbox.account(), &expected);
}
