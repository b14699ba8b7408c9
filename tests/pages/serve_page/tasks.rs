//! Ten tasks as somebody does them who has never seen the page: by the words that stand on it, and by nothing else.

use embosser::sandbox::{Options, Sandbox};
use fantoccini::key::Key;
use serde_json::json;

use super::approval::sign_in;
use super::looks::is_sound;
use super::stage;
use super::support::Program;
use super::support::browser::{Browser, Look, downloaded};
use super::support::serve::Served;
use super::support::tokens::people;

/// What can be pressed, by the words on it: buttons, links and labels of files, if they are seen.
const PRESSABLE: &str = "const seen = (one) => one.checkVisibility() && !one.disabled;
    const [words, within] = arguments;
    const places = within ? [...document.querySelectorAll('li, tr, dialog')].filter((one) => seen(one) && one.textContent.includes(within)) : [document];
    const all = places.flatMap((place) => [...place.querySelectorAll('button, a, label, summary')]).filter(seen);
    const found = all.find((one) => one.textContent.trim() === words) ?? all.find((one) => one.textContent.includes(words));";

/// Somebody before the page.
pub(super) struct Newcomer<'b>(pub(super) &'b Browser);

impl Newcomer<'_> {
    async fn run(&self, script: &str, words: &str, within: &str) -> serde_json::Value {
        let arguments = vec![json!(words), json!(within)];
        self.0.page.execute(&format!("{PRESSABLE} {script}"), arguments).await.unwrap()
    }

    /// Waits until something with these words can be pressed.
    async fn finds(&self, words: &str, within: &str) {
        for _ in 0..600 {
            if self.run("return Boolean(found)", words, within).await == json!(true) {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
        panic!("nothing says {words:?}: {}", self.0.text("body").await);
    }

    pub(super) async fn presses(&self, words: &str) {
        self.presses_in(words, "").await;
    }

    pub(super) async fn presses_in(&self, words: &str, within: &str) {
        let mark = "document.querySelector('[data-press]')?.removeAttribute('data-press'); found.dataset.press = 'this';
            found.addEventListener('click', () => { found.dataset.press = 'done'; }, { once: true });";
        // What comes meanwhile moves what stands below it, and the hand may fall beside it: then it presses once more.
        let missed = "return document.querySelector('[data-press]')?.dataset.press === 'this'";
        loop {
            self.finds(words, within).await;
            self.run(mark, words, within).await;
            // A click as a hand makes it: without one a browser saves no second file.
            self.0.click("[data-press]").await;
            if self.0.run(missed).await != json!(true) {
                return;
            }
        }
    }

    /// Gives a file to what asks for one with these words.
    pub(super) async fn gives(&self, words: &str, file: &std::path::Path) {
        self.finds(words, "").await;
        let mark = "document.querySelector('[data-task]')?.removeAttribute('data-task');
            const input = found.control ?? found.querySelector('input'); input.dataset.task = 'here';";
        self.run(mark, words, "").await;
        self.0.keys("[data-task]", file.to_str().unwrap()).await;
    }

    /// Writes into the field that is called so.
    pub(super) async fn writes(&self, label: &str, text: &str) {
        let script = "const field = [...document.querySelectorAll('label')].find((one) => one.textContent.includes(words) && one.control?.checkVisibility()).control;
            field.value = arguments[1]; field.dispatchEvent(new Event('input', { bubbles: true }));";
        self.run(script, label, text).await;
    }

    /// Waits until these words stand there, where somebody sees them.
    pub(super) async fn sees(&self, words: &str) {
        self.0.until(&format!("return document.body.innerText.includes({words:?})")).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_newcomer_does_what_the_office_asks_for() {
    let super::Stage { directory, sandbox, program, downloads } = stage().await;
    let _served = Served::start(&program, &["--rate", "200"]);
    let browser = Browser::start(Look::Desk, &downloads).await;
    browser.open(&_served.url).await;
    let newcomer = Newcomer(&browser);

    // "Give me a template for people."
    newcomer.presses("New batch").await;
    newcomer.presses_in("CSV", "People who get a card").await;
    let template = downloaded(&downloads, "people.csv").await;
    assert!(template.contains("cardholder[name]") && template.contains("Ada Lovelace"), "{template}");
    // Left as it is, its example is nobody's and is not issued.
    newcomer.gives("Choose a spreadsheet", &downloads.join("people.csv")).await;
    newcomer.sees("is the template's example").await;

    // "What will it cost?"
    let parcels = directory.path().join("parcels.csv");
    let header = "row_id,cardholder,type,currency,shipping[name],shipping[type],shipping[phone_number],shipping[address][line1],\
        shipping[address][city],shipping[address][postal_code],shipping[address][country],shipping[customs][eori_number]\n";
    let rows = (1..=3).map(|row| {
        format!("p{row},ich_p{row},physical,eur,Office,bulk,+353871234567,1 High Street,Dublin,D02 X285,IE,IE123456789\n")
    });
    std::fs::write(&parcels, header.to_owned() + &rows.collect::<String>()).unwrap();
    newcomer.presses("File").await;
    newcomer.gives("Choose a spreadsheet", &parcels).await;
    newcomer.sees("What it comes to").await;
    newcomer.sees("3 cards are sent in 1 box").await;
    newcomer.sees("USD").await;
    newcomer.presses("Issue 3 cards").await;
    newcomer.sees("3 physical cards will be printed and sent.").await;
    newcomer.presses_in("Issue 3 cards", "No card is real").await;
    newcomer.sees("Every row has ended").await;

    // "Where are the parcels?"
    newcomer.presses("Look where its cards are").await;
    newcomer.sees("Stripe is asked about 3 cards").await;
    newcomer.sees("not sent yet").await;
    is_sound(&browser, "parcels").await;

    // "Which cards have a PIN too old?"
    let staff = directory.path().join("staff.csv");
    super::with_stale_pins(&staff, &sandbox, 30, 12).await;
    let named = std::fs::read_to_string(&staff).unwrap();
    let named =
        named.lines().enumerate().map(|(row, line)| match (row, line.splitn(3, ',').collect::<Vec<_>>()) {
            (0, _) => format!("{line},Full name\n"),
            (_, parts) => format!("{},ich_s{row},{},Person {row} Muster\n", parts[0], parts[2]),
        });
    std::fs::write(&staff, named.collect::<String>()).unwrap();
    newcomer.presses("New batch").await;
    newcomer.gives("Choose a spreadsheet", &staff).await;
    newcomer.sees("What are the columns of staff.csv?").await;
    newcomer.presses("Check the rows").await;
    newcomer.sees("What it comes to").await;
    newcomer.presses("Issue 30 cards").await;
    newcomer.presses_in("Issue 30 cards", "No card is real").await;
    newcomer.sees("Every row has ended").await;
    newcomer.sees("12 rows need a new PIN").await;

    // "Who still has no card?"
    newcomer.presses("Refused (12)").await;
    newcomer.sees("refused").await;
    newcomer.gives("Show names from your file", &staff).await;
    newcomer.sees("30 names from staff.csv").await;

    // "The 12 that were refused: mended, and once more."
    newcomer.gives("Make a file of these rows", &staff).await;
    newcomer.sees("12 rows, each with its reason").await;
    downloaded(&downloads, "staff.to-mend.csv").await;
    newcomer.presses("Upload into this batch").await;
    newcomer.gives("Choose a spreadsheet", &downloads.join("staff.to-mend.csv")).await;
    // What its columns are was said of the file before.
    newcomer.sees("What it comes to").await;
    newcomer.presses("Issue 12 cards").await;
    newcomer.presses_in("Issue 12 cards", "No card is real").await;
    newcomer.sees("Every row has ended").await;
    newcomer.sees("Done (30)").await;
    assert_eq!(sandbox.account().cards.len(), 33);

    // "Three people left: cancel their cards."
    newcomer.gives("Show names from your file", &staff).await;
    for person in ["Person 7 Muster", "Person 8 Muster", "Person 9 Muster"] {
        newcomer.writes("Search by staff number", person).await;
        browser.until("return document.querySelectorAll('#rows-table tbody tr').length === 1").await;
        newcomer.sees(person).await;
        browser.click("#rows-table tbody input[type=checkbox]").await;
    }
    newcomer.sees("Cancel the 3 chosen cards…").await;
    newcomer.writes("Search by staff number", "Person 7 Muster").await;
    browser.until("return document.querySelectorAll('#rows-table tbody tr').length === 1").await;
    newcomer.sees("Person 7 Muster").await;
    // What was chosen stays so while somebody looks for others.
    let is_checked = "return document.querySelector('#rows-table tbody input[type=checkbox]').checked";
    assert_eq!(browser.run(is_checked).await, json!(true));
    newcomer.presses("Cancel the 3 chosen cards…").await;
    newcomer.presses("Change 3 cards").await;
    newcomer.presses_in("Change 3 cards", "No card is real").await;
    newcomer.presses("Cancel 3 cards").await;
    newcomer.sees("Every row has ended").await;
    newcomer.presses("Batches").await;
    newcomer.presses("staff").await;
    newcomer.sees("issued, cancelled since").await;

    // "Undo the batch."
    newcomer.presses("All batches").await;
    newcomer.presses("parcels").await;
    newcomer.presses("Cancel its cards…").await;
    newcomer.presses("Cancel 3 cards").await;
    newcomer.sees("parcels.cancel").await;
    newcomer.sees("Every row has ended").await;
    newcomer.presses("All batches").await;
    newcomer.sees("its cards were cancelled").await;

    // "Start it on Monday at five."
    let later = directory.path().join("later.csv");
    let limit = "spending_controls[spending_limits][0]";
    let header = format!("row_id,cardholder,type,currency,{limit}[amount],{limit}[interval]");
    std::fs::write(&later, format!("{header}\nl1,ich_l1,virtual,eur,500,monthly\n")).unwrap();
    newcomer.presses("New batch").await;
    newcomer.gives("Choose a spreadsheet", &later).await;
    newcomer.sees("What it comes to").await;
    // Whoever meant five hundred sees what it is.
    newcomer.sees("The limits in this file are 5.00 EUR.").await;
    let monday = "const at = new Date(); at.setDate(at.getDate() + ((8 - at.getDay()) % 7 || 7)); const two = (number) => String(number).padStart(2, '0');
        return `${at.getFullYear()}-${two(at.getMonth() + 1)}-${two(at.getDate())}T05:00`";
    let monday = browser.run(monday).await;
    newcomer.writes("Start", monday.as_str().unwrap()).await;
    newcomer.presses("Issue 1 card").await;
    newcomer.sees("It starts").await;
    newcomer.presses_in("Issue 1 card", "It starts").await;
    newcomer.sees("It begins by itself at its time.").await;
    // Whoever reads it knows no UTC.
    let clocks = "return /sent a batch to start later \\(1 row, starts at [A-Z][a-z]+ \\d+, \\d{4}, 5:00\\sAM\\)/.test(document.querySelector('#history').textContent)";
    browser.until(clocks).await;
    is_sound(&browser, "scheduled").await;
    // The same file without a time would begin at once: that is asked.
    newcomer.presses("New batch").await;
    newcomer.gives("Choose a spreadsheet", &later).await;
    newcomer.presses("Issue 1 card").await;
    newcomer.presses_in("Issue 1 card", "It begins at once").await;
    newcomer.sees("“later” waits for its start").await;
    newcomer.presses("No").await;
    assert_eq!(sandbox.account().cards.len(), 33);

    // "Zoë's card goes to her home": what the file has no column for is typed in.
    let home = directory.path().join("home.csv");
    let header = "cardholder,type,currency,Full name\n";
    let [zoe, bob] = ["ich_h1,physical,eur,Zoë Muster\n", "ich_h2,virtual,eur,Bob Muster\n"];
    std::fs::write(&home, format!("{header}{zoe}{bob}")).unwrap();
    newcomer.presses("File").await;
    newcomer.gives("Choose a spreadsheet", &home).await;
    newcomer.sees("What are the columns of home.csv?").await;
    newcomer.presses("Check the rows").await;
    newcomer.presses("Type in its address").await;
    for (at, text) in ["Zoë Muster", "Weg 4", "01067", "Dresden", "DE"].iter().enumerate() {
        let cell = format!("[data-place='2:{}']", at + 4);
        browser.keys(&cell, &format!("{text}{}", Key::Tab)).await;
        // Its answer is there, and the table as it says: a hand is slower than a driver.
        let is_checked = format!(
            "return document.querySelector({cell:?})?.className === 'changed' && document.querySelector('#check-said').textContent !== 'Checking…'"
        );
        browser.until(&is_checked).await;
    }
    newcomer.sees("5 cells mended here.").await;
    newcomer.sees("Nothing is wrong").await;
    is_sound(&browser, "address").await;
    newcomer.presses("Download the mended file").await;
    let mended = downloaded(&downloads, "home.mended.csv").await;
    assert!(
        mended.contains(",Full name,shipping[name],")
            && mended.contains("Muster,Zoë Muster,Weg 4,01067,Dresden,DE"),
        "{mended}"
    );
    newcomer.presses("Plan").await;
    newcomer.sees("it is sent to: Zoë Muster, Weg 4, 01067, Dresden, DE").await;
    newcomer.presses("Issue 2 cards").await;
    newcomer.presses_in("Issue 2 cards", "No card is real").await;
    newcomer.sees("Every row has ended").await;
    // Rows without a staff number are told by their places in the very file; in one that was sorted since, somebody else stands there.
    let sorted = directory.path().join("sorted.csv");
    std::fs::write(&sorted, format!("{header}{bob}{zoe}")).unwrap();
    newcomer.gives("Show names from your file", &sorted).await;
    newcomer.sees("It is not certain that sorted.csv is the very file that this batch was made from").await;
    newcomer.gives("Show names from your file", &home).await;
    newcomer.sees("2 names from home.csv").await;
    newcomer.writes("Search by staff number", "bob").await;
    browser.until("return document.querySelectorAll('#rows-table tbody tr').length === 1").await;
    newcomer.sees("Bob Muster").await;
    assert_eq!(sandbox.account().cards.len(), 35);
}

/// "Prove to the auditor who approved it": whoever approves has seen each row, and who did what stands on the batch's own page.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_auditor_is_shown_who_approved_what() {
    let directory = tempfile::tempdir().unwrap();
    let sandbox = Sandbox::start(Options::default()).await.unwrap();
    let downloads = directory.path().join("downloads");
    std::fs::create_dir(&downloads).unwrap();
    let program = Program::new(directory.path(), &sandbox).with("EMBOSSER__APPROVAL__REQUIRED", "true");
    let who: [(&str, &[&str]); 3] =
        [("payroll", &["submit", "read"]), ("boss", &["approve", "read"]), ("auditor", &["audit", "read"])];
    let people = people(program, &who).await;
    let served = Served::start(&people.program, &["--rate", "100"]);
    let browser = Browser::start(Look::Desk, &downloads).await;
    browser.open(&served.url).await;
    let newcomer = Newcomer(&browser);
    sign_in(&browser, &people, "payroll").await;
    let file = directory.path().join("staff.csv");
    let rows = (1..=60).map(|row| match row {
        3 => "E3,ich_3,virtual,EURO,,,,,\n".to_owned(),
        4 => "E4,ich_4,physical,eur,Zoë Muster,Weg 4,Dresden,01067,DE\n".to_owned(),
        row => format!("E{row},ich_{row},virtual,eur,,,,,\n"),
    });
    let header = "row_id,cardholder,type,currency,shipping[name],shipping[address][line1],shipping[address][city],\
        shipping[address][postal_code],shipping[address][country]\n";
    std::fs::write(&file, header.to_owned() + &rows.collect::<String>()).unwrap();
    super::choose(&browser, &file).await;
    newcomer.presses("Leave out 1 row, go on with 59").await;
    newcomer.sees("Rows left out").await;
    newcomer.presses("Send for approval: issue 59 cards").await;
    newcomer.sees("You sent it: somebody else must approve it.").await;

    sign_in(&browser, &people, "boss").await;
    newcomer.sees("Every row").await;
    newcomer.sees("Zoë Muster").await;
    newcomer.sees("Weg 4, 01067, Dresden, DE").await;
    is_sound(&browser, "rows").await;
    newcomer.presses("Show more rows").await;
    browser.until("return document.querySelectorAll('#held-table tbody tr').length === 60").await;
    newcomer.presses("Left out (1)").await;
    newcomer.sees("“EURO”").await;
    newcomer.presses("Approve: 59 rows").await;
    newcomer.presses("Approve it").await;
    newcomer.sees("Every row has ended").await;
    // Whoever audits may change nothing, and needs not.
    sign_in(&browser, &people, "auditor").await;
    newcomer.sees("boss approved a batch").await;
    newcomer.sees("payroll sent a batch for approval").await;
    newcomer.presses("to search and to download").await;
    newcomer.sees("Everything that somebody did").await;
    newcomer.presses("Download as CSV").await;
    let log = downloaded(&downloads, "who-did-what.csv").await;
    assert!(log.contains("batch_approved") && log.contains("boss") && log.contains("staff"), "{log}");
}
