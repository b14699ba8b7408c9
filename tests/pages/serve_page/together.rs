//! Not alone and not for a moment only: two people with one file, a token that is revoked while the page is open, and a page
//! that is left open while its connection goes silent.

use std::time::Duration;

use embosser::sandbox::{Options, Sandbox};
use serde_json::json;

use super::approval::sign_in;
use super::looks::is_sound;
use super::support::Program;
use super::support::browser::{Browser, Look};
use super::support::serve::Served;
use super::support::tokens::people;

const HEADER: &str = "row_id,cardholder,type,currency\n";

/// Whoever issues a file that a colleague has issued meanwhile is told so by the last question, and what they ask for
/// otherwise is named.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_people_who_mend_one_file_are_told_of_each_other() {
    let directory = tempfile::tempdir().unwrap();
    let sandbox = Sandbox::start(Options::default()).await.unwrap();
    let downloads = directory.path().join("downloads");
    std::fs::create_dir(&downloads).unwrap();
    let served = Served::start(&Program::new(directory.path(), &sandbox), &["--rate", "100"]);
    let browser = Browser::start(Look::Desk, &downloads).await;
    browser.open(&served.url).await;
    let file = directory.path().join("team.csv");
    let rows = "a,ich_a,virtual,eur\nb,ich_b,virtual,eur\nc,ich_c,virtual,euro\n";
    std::fs::write(&file, format!("{HEADER}{rows}")).unwrap();
    super::choose(&browser, &file).await;
    browser.until_text("#check-title", "1 row of 3 cannot be issued").await;
    let cell = "#mend-table [data-place='4:3']";
    browser.keys(cell, &format!("{}usd{}", "\u{e003}".repeat(4), fantoccini::key::Key::Tab)).await;
    browser.until_text("#check-title", "Nothing is wrong").await;
    browser.click("#check-go").await;
    browser.until_text("#issue", "Issue 3 cards").await;

    // The colleague takes "euro" for what it was meant for, and is the first.
    served
        .upload("/v1/batches?name=team", format!("{HEADER}{}", rows.replace("euro", "eur")).into())
        .await
        .expect(202);
    served.until_ended("team").await;
    browser.click("#issue").await;
    browser.until_text("#sure-words", "3 rows have their cards already and get no second ones.").await;
    browser.click("#sure button[value=no]").await;
    browser.until_text("#plan-notes", "1 row asks for something else than when it was issued: c.").await;
    browser.until_text("#issue", "nothing is left to do").await;
    is_sound(&browser, "once-more").await;
    assert_eq!(sandbox.account().creates, 3);

    // Under another name it is another batch: the plan is made anew for it.
    let name = browser.element("#name").await;
    name.clear().await.unwrap();
    browser.keys("#name", "others").await;
    browser.click("#issue").await;
    browser.until_text("#sure-words", "as “others”?").await;
    browser.click("#sure button[value=no]").await;
    browser.until_text("#plan-notes", "2 rows have their cards from another batch already").await;
    assert_eq!(sandbox.account().creates, 3, "nobody has said yes");
}

/// Whose token is revoked signs in again and goes on with what was mended; somebody else begins anew.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_that_is_revoked_while_the_page_is_open_loses_no_work() {
    let directory = tempfile::tempdir().unwrap();
    let sandbox = Sandbox::start(Options::default()).await.unwrap();
    let downloads = directory.path().join("downloads");
    std::fs::create_dir(&downloads).unwrap();
    let program = Program::new(directory.path(), &sandbox);
    let who: [(&str, &[&str]); 2] = [("payroll", &["submit", "read"]), ("boss", &["submit", "read"])];
    let mut people = people(program, &who).await;
    let served = Served::start(&people.program, &["--rate", "100"]);
    let browser = Browser::start(Look::PhoneInTheDark, &downloads).await;
    browser.open(&served.url).await;
    sign_in(&browser, &people, "payroll").await;
    let file = directory.path().join("team.csv");
    std::fs::write(&file, format!("{HEADER}a,ich_a,virtuell,eur\n")).unwrap();
    super::choose(&browser, &file).await;
    browser.until_text("#check-title", "1 row of 1 cannot be issued").await;
    let used = "[...document.querySelectorAll('#mend-table button')].find((one) => one.textContent === 'Use “virtual”')";
    browser.run(&format!("{used}.click()")).await;
    browser.until_text("#check-title", "Nothing is wrong").await;
    browser.click("#check-go").await;
    browser.click("#issue").await;
    browser.until_text("#sure-words", "Issue 1 card as “team”?").await;

    // Revoked, while the page asks: there is nothing to say yes to any more.
    let tokens = directory.path().join("tokens");
    let of_boss: String = people
        .lines
        .lines()
        .filter(|line| line.starts_with("boss "))
        .map(|line| format!("{line}\n"))
        .collect();
    std::fs::write(&tokens, &of_boss).unwrap();
    browser
        .until_text(
            "#notice",
            "This token is not known here. Sign in again, and go on: what you mended here is still there.",
        )
        .await;
    browser
        .until("return !document.querySelector('#sure').open && document.querySelector('#new').hidden")
        .await;
    is_sound(&browser, "revoked").await;

    // A new one of the same name: what was mended is there.
    let made = people.program.run(&["token", "payroll", "--role", "submit", "--role", "read"]).await;
    let line = String::from_utf8(made.stderr).unwrap().lines().last().unwrap().to_owned();
    std::fs::write(&tokens, format!("{of_boss}{line}\n")).unwrap();
    let new = String::from_utf8(made.stdout).unwrap().trim().to_owned();
    people.tokens.insert("payroll", new);
    let enter = async |who: &str| {
        browser.keys("#token", &people.tokens[who]).await;
        browser.keys("#token", &fantoccini::key::Key::Enter.to_string()).await;
    };
    // The server reads the file every second.
    let mut tries = 0;
    while served
        .ask(
            reqwest::Method::GET,
            "/v1/me",
            &[("authorization", &format!("Bearer {}", people.tokens["payroll"]))],
            Vec::new(),
        )
        .await
        .status
        != 200
    {
        tries += 1;
        assert!(tries < 200, "the new token is never known");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    enter("payroll").await;
    browser.until_text("#plan-notes", "1 cell mended here.").await;
    assert_eq!(sandbox.account().creates, 0);

    // Somebody else in the same tab begins with a file of their own.
    std::fs::write(&tokens, &of_boss).unwrap();
    browser.until_text("#notice", "Sign in again").await;
    browser.command("Network.enable", json!({})).await;
    // While it is not known who signs in, nothing of anybody is shown.
    browser.command("Network.setBlockedURLs", json!({"urls": ["*/v1/me"]})).await;
    enter("boss").await;
    browser.until_text("#notice", "The server cannot be reached").await;
    let is_hidden = "return !document.querySelector('#sign-in').hidden && document.querySelector('#new').hidden \
         && document.querySelector('#home').hidden && document.querySelector('#who-am-i').hidden";
    assert_eq!(browser.run(is_hidden).await, true);
    browser.command("Network.setBlockedURLs", json!({"urls": []})).await;
    browser.keys("#token", &fantoccini::key::Key::Enter.to_string()).await;
    browser.until_text("#drop", "Choose a spreadsheet").await;
    browser.until("return document.querySelector('#steps li:last-child button').disabled").await;
}

/// A machine that slept has a connection that is no more, and is told so by nobody.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_is_silent_for_long_is_opened_again() {
    let directory = tempfile::tempdir().unwrap();
    let options = Options { latency: Duration::from_millis(300), ..Options::default() };
    let sandbox = Sandbox::start(options).await.unwrap();
    let downloads = directory.path().join("downloads");
    std::fs::create_dir(&downloads).unwrap();
    let program = Program::new(directory.path(), &sandbox).with("EMBOSSER__PACE__CONCURRENCY", "1");
    let served = Served::start(&program, &["--rate", "2"]);
    let rows: String = (0..40).map(|row| format!("r{row},ich_{row},virtual,eur\n")).collect();
    served.upload("/v1/batches?name=long", format!("{HEADER}{rows}").into()).await.expect(202);
    served.post("/v1/batches/long/pause").await.expect(200);
    let browser = Browser::start(Look::Desk, &downloads).await;
    // Forty seconds of silence pass as fast as one.
    let sooner = "const later = window.setTimeout; window.setTimeout = (what, ms) => later(what, ms === 40000 ? 1000 : ms);";
    browser.command("Page.addScriptToEvaluateOnNewDocument", json!({"source": sooner})).await;
    browser.open(&format!("{}/#/batches/long", served.url)).await;
    browser.until_text("#batch-state", "No further row begins").await;
    let streams = "performance.getEntriesByType('resource').filter(({ name }) => name.endsWith('/batches/long/events')).length";
    browser.until(&format!("return {streams} >= 2")).await;
    // And what is shown is true again.
    served.post("/v1/batches/long/cancel").await.expect(200);
    browser.until_text("#batch-chip", "cancelled").await;
}

/// A browser does not send a file that was changed since it was chosen, and a server takes none with PINs that anybody can read:
/// whoever chose it is told what to do.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_cannot_be_sent_is_told_with_what_to_do() {
    let directory = tempfile::tempdir().unwrap();
    let sandbox = Sandbox::start(Options::default()).await.unwrap();
    let downloads = directory.path().join("downloads");
    std::fs::create_dir(&downloads).unwrap();
    let served = Served::start(&Program::new(directory.path(), &sandbox), &[]);
    let browser = Browser::start(Look::Desk, &downloads).await;
    browser.open(&served.url).await;
    let file = directory.path().join("team.csv");
    std::fs::write(&file, format!("{HEADER}a,ich_a,virtual,eur\n")).unwrap();
    super::plan(&browser, &file).await;
    std::fs::write(&file, format!("{HEADER}a,ich_a,virtual,eur\nb,ich_b,virtual,eur\n")).unwrap();
    super::confirm(&browser).await;
    browser
        .until_text("#notice", "team.csv was changed or moved since you chose it; nothing was issued.")
        .await;
    assert_eq!(sandbox.account().creates, 0);
    super::plan(&browser, &file).await;
    browser.until_text("#issue", "Issue 2 cards").await;

    std::fs::write(&file, "row_id,cardholder,type,currency,PIN\na,ich_a,virtual,eur,4821\n").unwrap();
    super::choose(&browser, &file).await;
    browser.until_text("#columns-problems", "take the column out of the file").await;
    browser.click("#columns-go").await;
    browser.until_text("#check-title", "1 row of 1 cannot be issued").await;
    assert!(!browser.run("return document.body.innerHTML").await.as_str().unwrap().contains("4821"));
}
