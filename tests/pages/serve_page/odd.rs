//! Names and files that are odd: they are shown as what they are, do nothing to the page, and can be issued.

use std::path::Path;

use embosser::sandbox::{Options, Sandbox};
use serde_json::json;

use super::support::Program;
use super::support::browser::{Browser, Look, downloaded};
use super::support::serve::Served;
use super::tasks::Newcomer;

/// Letters that turn text round, markup, an emoji, and names that are written from right to left.
const NAMES: [&str; 4] =
    ["staff \u{202e}gpj.exe", "<img src=x onerror=document.title='hacked'>", "🎉 2026 %E0", "עובדים"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn odd_names_of_batches_are_shown_and_do_nothing() {
    let (directory, _sandbox, served) = serving().await;
    for (number, name) in NAMES.iter().enumerate() {
        let name: String = name.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let row = format!("row_id,cardholder,type,currency\n<b>{number}</b>,ich_{number},virtual,eur\n");
        served.upload(&format!("/v1/batches?name={name}"), row.into_bytes()).await.expect(202);
    }
    // Scripts may make no markup of any text: the browser itself forbids it.
    let page = served.get("/").await;
    let policy = page.headers["content-security-policy"].to_str().unwrap();
    assert!(
        policy.contains("require-trusted-types-for 'script'") && policy.contains("trusted-types 'none'"),
        "{policy}"
    );
    let browser = Browser::start(Look::PhoneInTheDark, directory.path()).await;
    browser.open(&served.url).await;
    for name in NAMES {
        browser.run("location.hash = '#/'").await;
        let seen = name.replace('\u{202e}', "\u{fffd}");
        Newcomer(&browser).presses(&seen).await;
        browser.until_text("#batch-title", &seen).await;
        browser.until_text("#batch-state", "Every row has ended").await;
        browser.until_text("#rows-table", "<b>").await;
        browser.until(&format!("return document.title.includes({})", json!(seen))).await;
        // An address with it outlives a reload.
        browser.page.refresh().await.unwrap();
        browser.until_text("#batch-title", &seen).await;
    }
    let made = browser.run("return document.querySelectorAll('img, #rows-table b').length").await;
    assert_eq!(made, json!(0));
}

/// A folder, the sandbox, and a server that issues there.
async fn serving() -> (tempfile::TempDir, Sandbox, Served) {
    let directory = tempfile::tempdir().unwrap();
    let sandbox = Sandbox::start(Options::default()).await.unwrap();
    let served = Served::start(&Program::new(directory.path(), &sandbox), &["--rate", "100"]);
    (directory, sandbox, served)
}

/// A desk's browser in which that file was chosen.
async fn chosen(served: &Served, file: &Path) -> Browser {
    let browser = Browser::start(Look::Desk, file.parent().unwrap()).await;
    browser.open(&served.url).await;
    let newcomer = Newcomer(&browser);
    newcomer.presses("Choose a spreadsheet").await;
    newcomer.gives("Choose a spreadsheet", file).await;
    browser
}

/// From a German Excel: Windows-1252, semicolons, and an amount with a comma.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_of_a_german_excel_is_mended_with_a_button() {
    let (directory, sandbox, served) = serving().await;
    let file = directory.path().join("karten.csv");
    let limit = "spending_controls[spending_limits][0]";
    let text = format!(
        "row_id;cardholder;type;currency;metadata[team];{limit}[amount];{limit}[interval]\n\
         a;ich_a;virtual;eur;Gr\u{f6}\u{df}e;500,00;monthly\nb;ich_b;virtual;eur;M\u{fc}ller;75000;monthly\n"
    );
    // In Windows-1252 these letters are their numbers in Unicode.
    std::fs::write(
        &file,
        text.chars().map(|letter| u8::try_from(u32::from(letter)).unwrap()).collect::<Vec<u8>>(),
    )
    .unwrap();
    let browser = chosen(&served, &file).await;
    let newcomer = Newcomer(&browser);
    browser.until_text("#check-title", "1 row of 2 cannot be issued").await;
    newcomer.presses("Use “50000”").await;
    browser.until_text("#check-title", "Nothing is wrong").await;
    newcomer.presses("Plan").await;
    // What it is in money is told before.
    newcomer.sees("500.00 EUR").await;
    newcomer.presses("Issue 2 cards").await;
    newcomer.presses_in("Issue 2 cards", "No card is real").await;
    newcomer.sees("Every row has ended").await;
    let bodies = sandbox.account().cards;
    assert_eq!(bodies.len(), 2);
}

/// With Stripe's headings nobody says what the columns are; what was said of a word is taken back all the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_word_means_can_be_taken_back() {
    let (directory, _sandbox, served) = serving().await;
    let file = directory.path().join("words.csv");
    std::fs::write(&file, "row_id,cardholder,type,currency\na,ich_a,Plastik,eur\nb,ich_b,Plastik,eur\n")
        .unwrap();
    let browser = chosen(&served, &file).await;
    let newcomer = Newcomer(&browser);
    browser.until_text("#check-title", "2 rows of 2 cannot be issued").await;
    newcomer.presses("“Plastik” is virtual in all 2 rows").await;
    browser.until_text("#check-title", "Nothing is wrong").await;
    newcomer.presses("Download the mended file").await;
    let mended = downloaded(directory.path(), "words.mended.csv").await;
    assert!(mended.contains("a,ich_a,virtual,eur") && !mended.contains("Plastik"), "{mended}");
    newcomer.presses("Undo all").await;
    browser.until_text("#check-title", "2 rows of 2 cannot be issued").await;
}

/// Which of two rows with one staff number is meant, the page cannot know: it says so, and does not offer what would be refused.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_are_left_out_only_where_none_contradict_each_other() {
    let (directory, sandbox, served) = serving().await;
    let file = directory.path().join("staff.csv");
    let rows =
        "row_id,cardholder,type,currency\nE1,ich_a,virtual,eur\nE2,ich_b,virtuel,eur\nE1,ich_c,virtual,usd\n";
    std::fs::write(&file, rows).unwrap();
    let browser = chosen(&served, &file).await;
    let newcomer = Newcomer(&browser);
    browser.until_text("#check-title", "2 rows of 3 cannot be issued").await;
    newcomer.sees("lines 2 and 4 have the same staff number. Mend one of these first.").await;
    let offered = browser.run("return document.querySelector('#check-skip').checkVisibility()").await;
    assert_eq!(offered, json!(false));
    super::looks::is_sound(&browser, "contradiction").await;
    browser.run("document.querySelector(\"[data-place='4:0']\").value = ''").await;
    browser.keys("[data-place='4:0']", "E3\n").await;
    newcomer.presses("Leave out 1 row, go on with 2").await;
    newcomer.presses("Issue 2 cards").await;
    newcomer.presses_in("Issue 2 cards", "No card is real").await;
    newcomer.sees("Every row has ended").await;
    assert_eq!(sandbox.account().cards.len(), 2);
}

/// While the server is away nothing can be checked: what was mended stays, and one button goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_check_that_was_cut_off_is_made_again() {
    let directory = tempfile::tempdir().unwrap();
    let sandbox = Sandbox::start(Options::default()).await.unwrap();
    let program = Program::new(directory.path(), &sandbox);
    let served = Served::start(&program, &["--rate", "100"]);
    let file = directory.path().join("words.csv");
    std::fs::write(&file, "row_id,cardholder,type,currency\na,ich_a,Plastik,eur\nb,ich_b,Plastik,eur\n")
        .unwrap();
    let browser = chosen(&served, &file).await;
    let newcomer = Newcomer(&browser);
    browser.until_text("#check-title", "2 rows of 2 cannot be issued").await;
    let address = served.address().to_owned();
    served.killed();
    newcomer.presses("“Plastik” is virtual in all 2 rows").await;
    newcomer.sees("Not checked yet; what you mended is kept.").await;
    let _served = Served::start(&program, &["--rate", "100", "--listen", &address]);
    newcomer.presses("Check again").await;
    browser.until_text("#check-title", "Nothing is wrong").await;
    newcomer.presses("Go on to the plan").await;
    newcomer.sees("Issue 2 cards").await;
}

/// What is wrong with a row as a whole has the row's width, and the words of whoever made the file.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_about_a_whole_row_stands_below_it() {
    let (directory, _sandbox, served) = serving().await;
    let file = directory.path().join("staff.csv");
    let limit = "spending_controls[spending_limits][0]";
    let rows = format!(
        "row_id,cardholder,type,currency,{limit}[interval]\nE1,ich_a,virtual,eur,monthly\nE2,ich_b,virtual,eur,\n"
    );
    std::fs::write(&file, rows).unwrap();
    let browser = chosen(&served, &file).await;
    browser.until_text("#check-title", "1 row of 2 cannot be issued").await;
    let told = browser.text("#mend-table .whole").await;
    assert!(told.contains("is required when any other part of “Limit” is given"), "{told}");
    let shown = browser.run("return document.querySelector('#mend-table tbody').innerText").await;
    assert!(!shown.as_str().unwrap().contains('['), "{shown}");
    let height = browser.run("return document.querySelector('#mend-table .whole').offsetHeight").await;
    assert!(height.as_u64().unwrap() < 120, "{height}");
    super::looks::is_sound(&browser, "whole-row").await;
    Newcomer(&browser).presses("Type in “Limit, in the smallest unit").await;
    browser.keys("[data-place='2:5']", "50000\n").await;
    browser.until_text("#check-title", "Nothing is wrong").await;
}

/// An answer has the first thousand problems: no number is told as if these were all, and a word is mended in every row that has it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_cut_off_is_not_counted_as_the_whole() {
    let (directory, _sandbox, served) = serving().await;
    let file = directory.path().join("staff.csv");
    let header = "row_id,cardholder[name],cardholder[email],cardholder[billing][address][line1],cardholder[billing][address][city],\
        cardholder[billing][address][postal_code],cardholder[billing][address][country],type,currency,status,\
        spending_controls[spending_limits][0][amount],spending_controls[spending_limits][0][interval]\n";
    let rows = (1..=300).map(|row| {
        let country = if row > 298 { "Frankreich" } else { "Deutschland" };
        format!("E{row},Person {row},nobody,Weg {row},Dresden,01067,{country},virtuel,EURO,aktiv,viel,oft\n")
    });
    std::fs::write(&file, header.to_owned() + &rows.collect::<String>()).unwrap();
    let browser = chosen(&served, &file).await;
    let newcomer = Newcomer(&browser);
    browser.until_text("#check-title", "300 rows of 300 cannot be issued").await;
    browser.until_text("#check-said", "2,100 problems").await;
    browser.until_text("#filters", "To mend or mended (at least 14").await;
    newcomer.presses("Use it for every row with “Deutschland”").await;
    browser.until_text("#check-said", "1,802 problems").await;
}
