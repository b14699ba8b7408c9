//! The whole way of somebody with a staff list: their own headings, mended cells, a plan, cards, the rows that were refused, and
//! those again.

use embosser::sandbox::{Options, Sandbox};
use fantoccini::key::Key;
use serde_json::json;

use super::looks::is_sound;
use super::support::Program;
use super::support::browser::{Browser, Look, downloaded};
use super::support::serve::Served;
use super::{choose, stage};

/// As a person keeps it, from a German Excel: semicolons, other headings, words of their own, and mistakes.
fn staff() -> String {
    let mut text = "Personal-Nr.;Name;E-Mail;Straße;PLZ;Ort;Land;Kartenart;Gehalt\n".to_owned();
    for row in 1..=30 {
        let code = if row == 4 { "1067" } else { "01067" };
        let name =
            if row == 7 { "Müller \u{202e}gro.live".to_owned() } else { format!("Person {row} Muster") };
        let kind = if row % 10 == 9 { "Plastik" } else { "virtual" };
        let land = if row == 12 { "#N/A" } else { "DE" };
        text += &format!(
            "E{row:03};{name};p{row}@example.com;Weg {row};{code};Dresden;{land};{kind};{}\n",
            row * 100
        );
    }
    text
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn from_a_staff_list_to_cards() {
    let super::Stage { directory, sandbox, program, downloads } = stage().await;
    let folder = directory.path().join("columns");
    std::fs::create_dir(&folder).unwrap();
    let program = program.with("EMBOSSER__HTTP__COLUMNS_DIRECTORY", folder.to_str().unwrap());
    let served = Served::start(&program, &["--rate", "100"]);
    let browser = Browser::start(Look::Desk, &downloads).await;
    browser.open(&served.url).await;
    browser.until_text("#list-none", "From a list of people").await;
    is_sound(&browser, "empty").await;
    browser.click("#list-none .button").await;
    browser.until_text("#step-file", "Begin with a template").await;
    is_sound(&browser, "file").await;
    browser.click("#templates button").await;
    assert!(
        std::fs::metadata(downloads.join("people.xlsx")).is_ok() || wait_for(&downloads, "people.xlsx").await
    );

    // Its own headings: what each is stands there already, and what every row needs is asked for once.
    let file = directory.path().join("staff.csv");
    std::fs::write(&file, staff()).unwrap();
    choose(&browser, &file).await;
    browser.until_text("#columns-title", "What are the columns of staff.csv?").await;
    let taken =
        "return [...document.querySelectorAll('#columns-table select')].map((select) => select.value).join()";
    let taken = browser.run(taken).await;
    assert_eq!(
        taken,
        json!(
            "row_id,cardholder[name],cardholder[email],cardholder[billing][address][line1],\
             cardholder[billing][address][postal_code],cardholder[billing][address][city],\
             cardholder[billing][address][country],type,"
        )
    );
    is_sound(&browser, "columns").await;
    browser.keys("#default-currency", "eur").await;
    browser.click("#columns-go").await;

    // Mistakes stand in their cells; a word of theirs is said once for all rows.
    browser.until_text("#check-title", "5 rows of 30 cannot be issued").await;
    is_sound(&browser, "mend").await;
    browser.keys("[data-place='5:4']", &Key::Control.to_string()).await;
    browser.run("const cell = document.querySelector(\"[data-place='5:4']\"); cell.value = ''").await;
    browser.keys("[data-place='5:4']", "01067").await;
    browser.keys("[data-place='5:4']", &Key::Tab.to_string()).await;
    browser.until_text("#check-title", "4 rows of 30 cannot be issued").await;
    browser.until_text("#mend-table", "mended").await;
    browser.run("document.querySelector(\"[data-place='13:6']\").value = ''").await;
    browser.keys("[data-place='13:6']", "DE").await;
    browser.keys("[data-place='13:6']", &Key::Enter.to_string()).await;
    browser.until_text("#check-title", "3 rows of 30 cannot be issued").await;
    let word = "[...document.querySelectorAll('#mend-table button')].find((one) => one.textContent.startsWith('“Plastik” is virtual in all 3 rows'))";
    browser.run(&format!("{word}.click()")).await;
    browser.until_text("#check-title", "Nothing is wrong").await;
    browser.until_text("#edits-count", "2 cells mended here").await;
    // A letter that turns a name round is seen where it is mended.
    browser.click("#filters button:nth-child(2)").await;
    browser
        .until("return document.querySelector(\"[data-place='8:1']\")?.value === 'Müller \\ufffdgro.live'")
        .await;
    browser.click("#edits-download").await;
    let mended = downloaded(&downloads, "staff.mended.csv").await;
    assert!(mended.contains("E004,Person 4 Muster,p4@example.com,Weg 4,01067,"), "{mended}");
    assert!(
        !mended.contains("Plastik") && !mended.contains("#N/A") && mended.lines().count() == 31,
        "{mended}"
    );

    // What is kept is there for the next file.
    browser.click("#steps li:nth-child(2) button").await;
    browser.run("document.querySelector('#keep-columns').open = true").await;
    browser.keys("#keep-name", "staff-list").await;
    browser.click("#keep").await;
    browser.until_text("#keep-said", "Kept as “staff-list”").await;
    let kept = std::fs::read_to_string(folder.join("staff-list.toml")).unwrap();
    assert!(kept.contains("\"Gehalt\" = \"\"") && kept.contains("\"Plastik\" = \"virtual\""), "{kept}");
    browser.click("#columns-go").await;
    browser.until_text("#check-title", "Nothing is wrong").await;
    browser.click("#check-go").await;

    // The plan, and the cards.
    browser.until_text("#plan-figures", "New cardholders").await;
    browser.until_text("#plan-notes", "Left out of your file: Gehalt.").await;
    assert_eq!(browser.text("#issue").await, "Issue 30 cards");
    is_sound(&browser, "plan").await;
    super::confirm(&browser).await;
    browser.until_text("#batch-state", "Every row has ended").await;
    browser.until_text("#rows-table", "E001").await;
    is_sound(&browser, "batch").await;
    assert_eq!((sandbox.account().cards.len(), sandbox.account().cardholders.len()), (30, 30));
    // Undone: what that saves is told first, and only this batch's cards are cancelled.
    browser.click("#undo").await;
    browser.until_text("#sure-words", "Cancel 30 cards of “staff”, for ever?").await;
    browser.keys("#sure button[value=no]", &Key::Enter.to_string()).await;
    assert!(sandbox.account().changes.is_empty());
    browser.click("#undo").await;
    browser.until_text("#sure-words", "Cancel 30 cards").await;
    browser.click("#sure-yes").await;
    browser.until_text("#batch-title", "staff.cancel").await;
    browser.until_text("#batch-state", "Every row has ended").await;
    browser.until_text("#rows-table", "changed").await;
    assert_eq!(sandbox.account().changes.len(), 30);
    browser.page.back().await.unwrap();
    browser.until_text("#batch-title", "staff").await;
    // An address outlives a reload, and a wrong one is told as such.
    browser.page.refresh().await.unwrap();
    browser.until_text("#batch-title", "staff").await;
    browser.until_text("#rows-table", "E001").await;
    browser.run("location.hash = '#/batches/%E0'").await;
    browser.until_text("#nowhere", "There is no such page").await;
    is_sound(&browser, "nowhere").await;
    browser.page.back().await.unwrap();
    browser.until_text("#batch-title", "staff").await;
    browser.click(".back a").await;
    browser.until_text("#list-table", "finished").await;
    is_sound(&browser, "list").await;
}

async fn wait_for(folder: &std::path::Path, name: &str) -> bool {
    for _ in 0..600 {
        if folder.join(name).exists() {
            return true;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    false
}

/// Rows that were refused are taken out of their file, each with its reason, mended, and go into the same batch.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_refused_is_mended_and_sent_again() {
    let directory = tempfile::tempdir().unwrap();
    let sandbox = Sandbox::start(Options::default()).await.unwrap();
    let downloads = directory.path().join("downloads");
    std::fs::create_dir(&downloads).unwrap();
    let program = Program::new(directory.path(), &sandbox);
    let served = Served::start(&program, &["--rate", "100"]);
    let browser = Browser::start(Look::PhoneInTheDark, &downloads).await;
    browser.open(&served.url).await;
    let file = directory.path().join("rollout.csv");
    super::with_stale_pins(&file, &sandbox, 40, 12).await;
    // Each row is another person's.
    let text = std::fs::read_to_string(&file).unwrap();
    let theirs =
        text.lines().enumerate().map(|(row, line)| match line.splitn(3, ',').collect::<Vec<_>>()[..] {
            [name, _, rest] if row > 0 => format!("{name},ich_person{row},{rest}\n"),
            _ => format!("{line}\n"),
        });
    std::fs::write(&file, theirs.collect::<String>()).unwrap();
    super::issue(&browser, &file).await;
    browser.until_text("#batch-state", "Every row has ended").await;
    browser.until_text("#mend-refused", "Rows that were refused").await;
    is_sound(&browser, "refused").await;
    browser.keys("#refused-file", file.to_str().unwrap()).await;
    browser.until_text("#refused-said", "12 rows, each with its reason").await;
    let rows = downloaded(&downloads, "rollout.to-mend.csv").await;
    assert!(!rows.contains("eyJ"), "a PIN's ciphertext came back");
    assert!(rows.lines().next().unwrap().ends_with("Why it was refused (embosser)"), "{rows}");
    assert_eq!(rows.lines().count(), 13);
    // Mended: without a PIN they are cards all the same, and the batch is whole, however its rows came.
    browser.click("#refused-again").await;
    browser.keys("#file", downloads.join("rollout.to-mend.csv").to_str().unwrap()).await;
    browser.until("return document.querySelector('#check-go').checkVisibility() || document.querySelector('#issue').checkVisibility()").await;
    if browser.run("return document.querySelector('#check-go').checkVisibility()").await == json!(true) {
        browser.click("#check-go").await;
    }
    browser.until_text("#plan-figures", "12").await;
    assert_eq!(browser.element("#name").await.prop("value").await.unwrap().as_deref(), Some("rollout"));
    super::confirm(&browser).await;
    browser.until_text("#batch-title", "rollout").await;
    browser.until_text("#batch-state", "Every row has ended").await;
    browser.until_text("#figures", "Rows40").await;
    browser.until("return document.querySelector('#mend-refused').hidden").await;
    let view = served.get("/v1/batches/rollout").await.expect(200).json();
    assert_eq!(
        (&view["rows"], &view["issued"], &view["refused"]),
        (&json!(40), &json!(40), &json!(0)),
        "{view}"
    );
    assert_eq!(sandbox.account().cards.len(), 40);
}
