//! The whole way in one piece, at a desk in the light and on a phone in the dark: a template, own columns, cells that are mended, a
//! plan, a colleague's approval, progress, rows that were refused and sent again, who still has no card, where the parcels are, undo.

use embosser::sandbox::{Faults, Options, Sandbox};
use fantoccini::key::Key;
use serde_json::json;

use super::approval::sign_in;
use super::looks::is_sound;
use super::support::Program;
use super::support::browser::{Browser, Look, downloaded};
use super::support::serve::Served;
use super::support::tokens::people;
use super::tasks::Newcomer;

/// A list of 30 people with headings of its own, physical cards, and PINs of which 12 are under a key that is no more. The post code of
/// one has lost its zero, and another's country is what a spreadsheet says where it finds nothing.
async fn staff(folder: &std::path::Path, sandbox: &Sandbox) -> String {
    let pins = folder.join("pins.csv");
    super::with_stale_pins(&pins, sandbox, 30, 12).await;
    let pins = std::fs::read_to_string(pins).unwrap();
    let mut text =
        "Personal-Nr.,Name,E-Mail,Straße,PLZ,Ort,Land,Kartenart,PIN,shipping[name],shipping[address][line1],\
        shipping[address][city],shipping[address][postal_code],shipping[address][country]\n"
            .to_owned();
    for (row, line) in pins.lines().enumerate().skip(1) {
        let code = if row == 4 { "1067" } else { "01067" };
        let land = if row == 25 { "#N/A" } else { "DE" };
        let pin = line.rsplit(',').next().unwrap();
        text += &format!(
            "E{row:03},Person {row} Muster,p{row}@example.com,Weg {row},{code},Dresden,{land},physical,{pin},\
             Person {row} Muster,Weg {row},Dresden,01067,DE\n"
        );
    }
    text
}

async fn the_whole_way(look: Look) {
    let directory = tempfile::tempdir().unwrap();
    let sandbox = Sandbox::start(Options::default()).await.unwrap();
    let downloads = directory.path().join("downloads");
    std::fs::create_dir(&downloads).unwrap();
    let program = Program::new(directory.path(), &sandbox).with("EMBOSSER__APPROVAL__REQUIRED", "true");
    let who: [(&str, &[&str]); 2] =
        [("clerk", &["submit", "read", "operate"]), ("boss", &["approve", "read", "operate"])];
    let people = people(program, &who).await;
    let served = Served::start(&people.program, &["--rate", "100"]);
    let browser = Browser::start(look, &downloads).await;
    browser.open(&served.url).await;
    let newcomer = Newcomer(&browser);
    let approves = async |rows: &str| {
        sign_in(&browser, &people, "boss").await;
        newcomer.sees("Look it over").await;
        newcomer.presses(&format!("Approve: {rows}")).await;
        newcomer.presses_in("Approve it", "Approve “").await;
    };

    // A template, and then a list of their own.
    sign_in(&browser, &people, "clerk").await;
    newcomer.presses("Choose a spreadsheet").await;
    newcomer.presses_in("CSV", "People who get a card").await;
    assert!(downloaded(&downloads, "people.csv").await.contains("cardholder[name]"));
    let file = directory.path().join("staff.csv");
    std::fs::write(&file, staff(directory.path(), &sandbox).await).unwrap();
    newcomer.gives("Choose a spreadsheet", &file).await;
    newcomer.sees("What are the columns of staff.csv?").await;
    browser.keys("#default-currency", "eur").await;
    newcomer.presses("Check the rows").await;

    // One mistake is mended where it stands; the other row is left out.
    browser.until_text("#check-title", "2 rows of 30 cannot be issued").await;
    browser.run("document.querySelector(\"[data-place='5:4']\").value = ''").await;
    browser.keys("[data-place='5:4']", &format!("01067{}", Key::Tab)).await;
    browser.until_text("#check-title", "1 row of 30 cannot be issued").await;
    newcomer.presses("Leave out 1 row, go on with 29").await;
    newcomer.sees("PINs may wait for 1 h from when you send it, the colleague’s look included.").await;
    newcomer.presses("Send for approval: issue 29 cards").await;
    newcomer.sees("Nothing of it is issued before somebody else has approved it.").await;
    newcomer.sees("You sent it: somebody else must approve it.").await;
    assert_eq!(sandbox.account().creates, 0);

    // The other token lets it go, and both may watch.
    sandbox.set_faults(Faults { delay: 0.5, ..Faults::default() });
    approves("29 rows").await;
    newcomer.sees("Its rows are being issued.").await;
    newcomer.gives("Show names from your file", &file).await;
    newcomer.presses("Not done here").await;
    sandbox.set_faults(Faults::default());
    newcomer.sees("Every row has ended").await;
    // What was looked at meanwhile is as it is at the end.
    newcomer.sees("Not done here (13)").await;
    browser.until("return document.querySelectorAll('#rows-table tbody tr').length === 13").await;
    newcomer.sees("boss approved a batch").await;
    newcomer.sees("12 rows need a new PIN").await;

    // Who still has no card: those that were refused, and the one that was left out, of whom the batch knows nothing.
    sign_in(&browser, &people, "clerk").await;
    newcomer.gives("Show names from your file", &file).await;
    newcomer.presses("Not done here (13)").await;
    newcomer.sees("Person 25 Muster").await;
    newcomer.sees("it was left out when the file was sent").await;
    is_sound(&browser, "without").await;
    newcomer.presses("All (29)").await;
    newcomer.writes("Search by staff number", "person 25").await;
    newcomer.sees("not in this batch").await;
    newcomer.presses("Not done here (13)").await;
    newcomer.writes("Search by staff number", "e025").await;
    browser.until("return document.querySelectorAll('#rows-table tbody tr').length === 1").await;
    newcomer.sees("Person 25 Muster").await;
    // On the line on which its check said that it stands, and the spreadsheet does.
    let place = "return document.querySelector('#rows-table tbody td').textContent";
    assert_eq!(browser.run(place).await, json!("line 26"));
    newcomer.writes("Search by staff number", "").await;

    // The 12, each with its reason and without its PIN, once more.
    newcomer.gives("Make a file of these rows", &file).await;
    newcomer.sees("12 rows, each with its reason").await;
    let rows = downloaded(&downloads, "staff.to-mend.csv").await;
    assert!(!rows.contains("eyJ") && rows.lines().count() == 13, "{rows}");
    newcomer.presses("Upload into this batch").await;
    newcomer.gives("Choose a spreadsheet", &downloads.join("staff.to-mend.csv")).await;
    newcomer.sees("What are the columns of staff.to-mend.csv?").await;
    browser.keys("#default-currency", "eur").await;
    newcomer.presses("Check the rows").await;
    browser.until("return ['#check-go', '#check-skip', '#issue'].some((css) => document.querySelector(css).checkVisibility())").await;
    if browser.run("return document.querySelector('#mend-table').checkVisibility()").await == json!(true) {
        // The post code was mended on the page, not in the file that the rows came from.
        browser.run("document.querySelector(\"[data-place='5:4']\").value = ''").await;
        browser.keys("[data-place='5:4']", &format!("01067{}", Key::Tab)).await;
        browser.until_text("#check-title", "Nothing is wrong").await;
        newcomer.presses("Go on to the plan").await;
    }
    newcomer.presses("Send for approval: issue 12 cards").await;
    newcomer.sees("You sent it: somebody else must approve it.").await;
    approves("12 rows").await;
    newcomer.sees("Every row has ended").await;
    newcomer.sees("Done (29)").await;
    assert_eq!(sandbox.account().cards.len(), 29);

    // Where the parcels are, and the end of it all.
    sign_in(&browser, &people, "clerk").await;
    newcomer.presses("Look where its cards are").await;
    newcomer.sees("Stripe was asked about 29 cards. That has ended").await;
    newcomer.sees("not sent yet").await;
    newcomer.presses("Cancel its cards…").await;
    newcomer.presses_in("Cancel 29 cards", "for ever?").await;
    browser.until_text("#batch-title", "staff.cancel").await;
    if browser.run("return document.querySelector('#held').checkVisibility()").await == json!(true) {
        // Whose cards they are stands there, and that they are lost.
        sign_in(&browser, &people, "boss").await;
        newcomer.sees("from “staff”").await;
        is_sound(&browser, "held-cancel").await;
        newcomer.presses("Approve: 29 rows").await;
        newcomer.presses_in("Approve it", "29 cards are cancelled, for ever.").await;
    }
    newcomer.sees("Every row has ended").await;
    assert_eq!(sandbox.account().changes.len(), 29);
    browser.run("location.hash = '#/'").await;
    newcomer.sees("its cards were cancelled").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_whole_way_at_a_desk() {
    the_whole_way(Look::Desk).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_whole_way_on_a_phone_in_the_dark() {
    the_whole_way(Look::PhoneInTheDark).await;
}

/// A batch among many is found by its name, and more of them are shown than the last hundred.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_among_many_is_found() {
    let super::Stage { directory: _directory, sandbox: _sandbox, program, downloads } = super::stage().await;
    let served = Served::start(&program, &["--rate", "200"]);
    for number in 1..=104 {
        let row = format!("row_id,cardholder,type,currency\nr{number},ich_{number},virtual,eur\n");
        let path = format!("/v1/batches?name=Team%20{number}");
        served.upload(&path, row.into_bytes()).await.expect(202);
    }
    let browser = Browser::start(Look::Desk, &downloads).await;
    browser.open(&served.url).await;
    let newcomer = Newcomer(&browser);
    newcomer.sees("The 100 batches last heard of, of 104.").await;
    newcomer.presses("Show more batches").await;
    browser.until("return document.querySelectorAll('#list-table tbody tr').length === 104").await;
    newcomer.writes("Search the batches by name", "team 10").await;
    browser.until("return document.querySelectorAll('#list-table tbody tr').length === 6").await;
    newcomer.writes("Search the batches by name", "nobody’s").await;
    newcomer.sees("No batch has “nobody’s” in its name.").await;
    newcomer.writes("Search the batches by name", "TEAM 77").await;
    newcomer.presses("Team 77").await;
    browser.until_text("#batch-title", "Team 77").await;
    let found = served.get("/v1/batches?q=team%207").await.expect(200).json();
    assert_eq!(found["total"], 11, "{found}");
    served.get(&format!("/v1/batches?q={}", "x".repeat(256))).await.expect(400);
}
