//! A file of 100,000 rows, most of it right, a third of it wrong, or too long to be mended here: what is shown, sent and held of it
//! is bounded, and the page stays quick. Nothing of it is issued.

use std::path::Path;

use serde_json::json;

use super::support::browser::{Browser, Look};
use super::support::serve::Served;
use super::{Stage, choose, stage};

const ROWS: usize = 100_000;
/// The most that an answer to a check may have, whatever is wrong with however many rows.
const ANSWER_BYTES_MAX: usize = 1 << 20;
/// What the server may need for checks of such files, beside what it needs for itself.
const CHECKS_MIB_MAX: u64 = 64;
/// Elements of the whole page at most: with a row for each of the file's they would be half a million.
const ELEMENTS_MAX: u64 = 6_000;
/// The page does nothing else for so long at most; with a row for each of the file's it would be many seconds.
const BUSY_MS_MAX: f64 = 1_500.0;

/// Writes such a file; every third row is `wrong`, and each has so many letters to itself.
fn write(path: &Path, wrong: &str, letters: usize) {
    let of_each = "a".repeat(letters);
    let rows = (1..=ROWS).map(|row| {
        let kind = if row % 3 == 0 { wrong } else { "virtual" };
        format!("E{row:06},ich_1,{kind},eur,{row}{of_each}\n")
    });
    let header = "row_id,cardholder,type,currency,metadata[desk]\n";
    std::fs::write(path, format!("{header}{}", rows.collect::<String>())).unwrap();
}

/// Notes from now on for how long the page did nothing else at a time.
async fn watch(browser: &Browser) {
    let script = "window.busy = 0; new PerformanceObserver((list) => {
        for (const task of list.getEntries()) window.busy = Math.max(window.busy, task.duration);
    }).observe({ type: 'longtask', buffered: true })";
    browser.run(script).await;
    // It is seen, else the test would tell nothing.
    browser.run("setTimeout(() => { for (const end = Date.now() + 200; Date.now() < end;); })").await;
    browser.until("return window.busy >= 190").await;
    browser.run("window.busy = 0").await;
}

async fn is_usable(browser: &Browser, what: &str) {
    let elements = browser.run("return document.querySelectorAll('*').length").await.as_u64().unwrap();
    assert!(elements <= ELEMENTS_MAX, "{what}: {elements} elements");
    let busy = browser.run("return window.busy").await.as_f64().unwrap();
    assert!(busy <= BUSY_MS_MAX, "{what}: the page did nothing else for {busy} ms");
    eprintln!("{what}: {elements} elements, busy for {busy} ms at most");
}

async fn rows_of(browser: &Browser) -> u64 {
    browser.run("return document.querySelectorAll('#mend-table tbody tr').length").await.as_u64().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_thousand_rows_leave_the_page_quick_and_the_server_small() {
    let Stage { directory, sandbox, program, downloads } = stage().await;
    let path = |name: &str| directory.path().join(name);
    write(&path("wrong.csv"), "Plastik", 0);
    write(&path("long.csv"), "Plastik", 40);
    write(&path("right.csv"), "virtual", 0);
    let served = Served::start(&program, &["--rate", "25"]);
    let alone = served.peak_mib();

    // What is sent of it is bounded, as a table or not.
    for (name, has_table) in [("wrong.csv", true), ("long.csv", false)] {
        let checked =
            served.upload("/v1/checks?table=500", std::fs::read(path(name)).unwrap()).await.expect(422);
        assert!(checked.text.len() <= ANSWER_BYTES_MAX, "{name}: {} bytes", checked.text.len());
        eprintln!("{name}: an answer of {} KiB", checked.text.len() >> 10);
        let checked = checked.json();
        assert_eq!(
            (&checked["rows"], &checked["invalid_rows"], &checked["problem_count"]),
            (&json!(ROWS), &json!(ROWS / 3), &json!(ROWS / 3))
        );
        assert_eq!(checked["problems"].as_array().unwrap().len(), 1_000);
        assert_eq!(checked["table"].is_object(), has_table, "{name}");
    }

    let browser = Browser::start(Look::Desk, &downloads).await;
    browser.open(&served.url).await;
    watch(&browser).await;
    // A third is wrong: the first of it is shown, some more at a time, and mended in place.
    choose(&browser, &path("wrong.csv")).await;
    browser.until_text("#check-title", "33,333 rows of 100,000 cannot be issued").await;
    browser.until_text("#check-said", "The first 1,000 of 33,333 are shown.").await;
    assert_eq!(rows_of(&browser).await, 50);
    browser.click("#mend-more").await;
    browser.until("return document.querySelectorAll('#mend-table tbody tr').length === 100").await;
    is_usable(&browser, "a third is wrong").await;
    browser.run("document.querySelector(\"[data-place='4:2']\").value = ''").await;
    browser.keys("[data-place='4:2']", "virtual\u{e004}").await;
    browser.until_text("#check-title", "33,332 rows of 100,000 cannot be issued").await;
    // Or a word of theirs is said once for all of them.
    let word = "[...document.querySelectorAll('#mend-table button')].find((one) => one.textContent.includes('Plastik” is virtual in every row that has it'))";
    browser.run(&format!("{word}.click()")).await;
    browser.until_text("#check-title", "Nothing is wrong").await;
    browser.click("#check-go").await;
    browser.until_text("#issue", "Issue 100,000 cards").await;
    is_usable(&browser, "mended").await;

    // One that is too long for a table is told line by line, the first of it.
    choose(&browser, &path("long.csv")).await;
    browser.until_text("#no-table", "too large to be mended here").await;
    browser.until_text("#check-title", "33,333 rows of 100,000 cannot be issued").await;
    assert_eq!(rows_of(&browser).await, 200);
    is_usable(&browser, "too long to be mended").await;
    browser.click("#check-skip").await;
    browser.until_text("#plan-notes", "33,333 rows with problems are left out").await;
    browser.until_text("#issue", "Issue 66,667 cards").await;

    // All of it is right: what it comes to, and how long it takes.
    choose(&browser, &path("right.csv")).await;
    browser.until_text("#issue", "Issue 100,000 cards").await;
    browser.until_text("#plan-figures", "Takes about").await;
    is_usable(&browser, "right").await;

    let peak = served.peak_mib();
    eprintln!("{alone} MiB before, {peak} MiB at most");
    assert!(peak <= alone + CHECKS_MIB_MAX, "{peak} MiB");
    assert_eq!(sandbox.account().creates, 0);
    assert_eq!(served.get("/v1/batches").await.expect(200).json()["total"], 0);
}
