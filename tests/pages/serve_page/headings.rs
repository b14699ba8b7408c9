//! Headings that only together are a name or a street: what a person wrote into two columns is not lost.

use embosser::sandbox::{Options, Sandbox};
use fantoccini::key::Key;
use serde_json::{Value, json};

use super::looks::is_sound;
use super::support;
use super::support::Program;
use super::support::browser::{Browser, Look};
use super::support::serve::Served;
use super::tasks::Newcomer;

/// Names and streets of the cardholders there are, in order.
async fn people(sandbox: &Sandbox) -> Vec<(String, String)> {
    let list = support::http_client().get(format!("{}/v1/issuing/cardholders", sandbox.api_url()));
    let list: Value = list.bearer_auth("rk_test_1").send().await.unwrap().json().await.unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let of = |made: &Value| (text(&made["name"]), text(&made["billing"]["address"]["line1"]));
    let mut people: Vec<_> = list["data"].as_array().unwrap().iter().map(of).collect();
    people.sort();
    people
}

/// A server that keeps columns, before a browser.
struct Keeping {
    directory: tempfile::TempDir,
    sandbox: Sandbox,
    _served: Served,
    browser: Browser,
}

async fn keeping() -> Keeping {
    let directory = tempfile::tempdir().unwrap();
    let folder = directory.path().join("columns");
    std::fs::create_dir(&folder).unwrap();
    let sandbox = Sandbox::start(Options::default()).await.unwrap();
    let program = Program::new(directory.path(), &sandbox)
        .with("EMBOSSER__HTTP__COLUMNS_DIRECTORY", folder.to_str().unwrap());
    let served = Served::start(&program, &["--rate", "100"]);
    let browser = Browser::start(Look::Desk, directory.path()).await;
    browser.open(&served.url).await;
    Keeping { directory, sandbox, _served: served, browser }
}

/// Says what a heading is.
async fn sets(browser: &Browser, heading: &str, column: &str) {
    let script = "const select = document.querySelector(`#columns-table select[aria-label='What ${arguments[0]} is']`);
        select.value = arguments[1]; select.dispatchEvent(new Event('change', { bubbles: true })); return select.value";
    let set = browser.page.execute(script, vec![json!(heading), json!(column)]).await.unwrap();
    assert_eq!(set, json!(column), "{heading}");
}

/// Chooses columns that were kept, once the page knows of them: it asks now and then.
async fn takes_kept(browser: &Browser, name: &str) {
    browser.until(&format!("return Boolean(document.querySelector('#saved option[value={name}]'))")).await;
    let script = "const saved = document.querySelector('#saved'); saved.value = arguments[0]; saved.dispatchEvent(new Event('change'))";
    browser.page.execute(script, vec![json!(name)]).await.unwrap();
}

async fn issues(browser: &Browser, cards: &str) {
    plans(browser).await;
    let newcomer = Newcomer(browser);
    newcomer.presses(&format!("Issue {cards}")).await;
    newcomer.presses_in(&format!("Issue {cards}"), "No card is real").await;
    newcomer.sees("Every row has ended").await;
}

async fn plans(browser: &Browser) {
    let newcomer = Newcomer(browser);
    browser.keys("#default-currency", "eur").await;
    newcomer.presses("Check the rows").await;
    let is_there = |css: &str| format!("document.querySelector('{css}').checkVisibility()");
    let (go, issue) = (is_there("#check-go"), is_there("#issue"));
    browser.until(&format!("return {go} || {issue}")).await;
    if browser.run(&format!("return {go}")).await == json!(true) {
        browser.click("#check-go").await;
    }
    browser.until(&format!("return {issue}")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_house_keeps_its_number_and_a_person_the_second_surname() {
    let Keeping { directory, sandbox, _served, browser } = keeping().await;
    let newcomer = Newcomer(&browser);

    let german = directory.path().join("karten.csv");
    let rows = "Name,E-Mail,Straße,Hausnr.,PLZ,Ort,Land,Kartenart,Geburtsdatum,Monatslimit,Kommentar\n\
        Ada Byron,kaethe.gross.3@beispiel.de,Lange Straße,5,10115,Berlin,DE,virtual,,\"1.500,00 €\",\
        fängt im neuen Jahr in Dresden an und braucht die Karte schon vorher für ihre Reise und den Umzug; bitte an das Büro in Berlin\n";
    std::fs::write(&german, rows).unwrap();
    super::choose(&browser, &german).await;
    newcomer.sees("Street and number, together with “Hausnr.”").await;
    newcomer.sees("Street and number, together with “Straße”").await;
    // No word of theirs breaks where there is room.
    let broken = "return [...document.querySelectorAll('#columns-table :is(tbody th, td.hint)')].filter((one) => {
        const range = document.createRange(); range.selectNodeContents(one);
        return !/\\s/.test(one.textContent) && new Set([...range.getClientRects()].map(({ top }) => top)).size > 1;
    }).map((one) => one.textContent)";
    assert_eq!(browser.run(broken).await, json!([]));
    // By keyboard several letters choose, and the focus stays.
    browser.run("document.querySelector(\"#columns-table select[aria-label='What Land is']\").focus()").await;
    browser.press("to").await;
    let focused = "const one = document.activeElement; return [one.getAttribute('aria-label'), one.selectedOptions?.[0].text.slice(0, 2)]";
    assert_eq!(browser.run(focused).await, json!(["What Land is", "To"]));
    sets(&browser, "Land", "cardholder[billing][address][country]").await;
    // Nor is anything added before it is said.
    browser.run("document.querySelector('#add-default').focus()").await;
    browser.press("sta").await;
    let added = "return [document.activeElement.id, document.querySelectorAll('#more-defaults p').length]";
    assert_eq!(browser.run(added).await, json!(["add-default", 0]));
    browser.press(&format!("{}{}", char::from(Key::Tab), char::from(Key::Enter))).await;
    assert_eq!(browser.run("return document.querySelectorAll('#more-defaults p').length").await, json!(1));
    newcomer.presses("Take it out").await;
    // What looks like a limit and is left out is told before cards are made that have none.
    for heading in ["Geburtsdatum", "Monatslimit", "Kommentar"] {
        sets(&browser, heading, "").await;
    }
    plans(&browser).await;
    newcomer.sees("Left out of your file: Monatslimit, Kommentar.").await;
    newcomer
        .sees("“Monatslimit” is left out: no card gets it as its limit. “1.500,00 €” looks like money.")
        .await;
    is_sound(&browser, "left-out").await;
    newcomer.presses("Issue 1 card").await;
    newcomer.sees("No card is real").await;
    browser.until_text("#sure-words", "“Monatslimit” is left out: no card gets it as its limit.").await;
    browser.click("#sure-yes").await;
    newcomer.sees("Every row has ended").await;

    // In the order in which the server reads them, whatever the file's is; and kept for the next file.
    let spanish = directory.path().join("tarjetas.csv");
    let headings =
        "Nombre,Segundo apellido,Primer apellido,Correo,Calle,Número,Código postal,Ciudad,País,Tipo";
    let rows =
        format!("{headings}\nLucía,Gil,Ruiz,lucia@example.com,Calle Mayor,7,28013,Madrid,ES,virtual\n");
    std::fs::write(&spanish, rows).unwrap();
    super::choose(&browser, &spanish).await;
    newcomer.sees("Name, together with “Nombre” and “Primer apellido”").await;
    is_sound(&browser, "together").await;
    for (heading, column) in
        [("Tipo", "type"), ("Código postal", "cardholder[billing][address][postal_code]")]
    {
        sets(&browser, heading, column).await;
    }
    browser.run("document.querySelector('#keep-columns').open = true").await;
    browser.keys("#keep-name", "personal").await;
    browser.click("#keep").await;
    newcomer.sees("Kept as “personal”").await;
    let kept = std::fs::read_to_string(directory.path().join("columns").join("personal.toml")).unwrap();
    let name = r#""cardholder[name]" = ["Nombre", "Primer apellido", "Segundo apellido"]"#;
    assert!(kept.contains(name) && kept.contains(r#"= ["Calle", "Número"]"#), "{kept}");
    issues(&browser, "1 card").await;

    // A columns file comes back into the form, with what is joined in it.
    let again = directory.path().join("otra.csv");
    let rows = format!(
        "{}\nEva,Sanz,Mora,eva@example.com,Calle Luna,9,28004,Madrid,ES,virtual\n",
        headings.to_uppercase()
    );
    std::fs::write(&again, rows).unwrap();
    super::choose(&browser, &again).await;
    newcomer.sees("What are the columns of otra.csv?").await;
    sets(&browser, "NÚMERO", "").await;
    takes_kept(&browser, "personal").await;
    newcomer.sees("Street and number, together with “CALLE”").await;
    newcomer.sees("Name, together with “NOMBRE” and “PRIMER APELLIDO”").await;
    issues(&browser, "1 card").await;

    // What nobody proposes can be said: several headings are one thing, in the file's order.
    let own = directory.path().join("own.csv");
    let rows = "Given,Last name,Mail,Where,House,PLZ,Town,Country,Type,Kind\n\
        Ida,Roe,ida@example.com,High Street,12,10115,Berlin,DE,virtual,virtual\n";
    std::fs::write(&own, rows).unwrap();
    super::choose(&browser, &own).await;
    newcomer.sees("What are the columns of own.csv?").await;
    for heading in ["Given", "Last name"] {
        sets(&browser, heading, "cardholder[name]").await;
    }
    for heading in ["Where", "House"] {
        sets(&browser, heading, "cardholder[billing][address][line1]").await;
    }
    newcomer.sees("Name, together with “Last name”").await;
    // What cannot be said together is told before it is sent.
    for heading in ["Type", "Kind"] {
        sets(&browser, heading, "type").await;
    }
    newcomer.sees("“Type” and “Kind” are both “Kind: virtual or physical”").await;
    sets(&browser, "Kind", "").await;
    issues(&browser, "1 card").await;
    let expected = [
        ("Ada Byron", "Lange Straße 5"),
        ("Eva Mora Sanz", "Calle Luna 9"),
        ("Ida Roe", "High Street 12"),
        ("Lucía Ruiz Gil", "Calle Mayor 7"),
    ];
    let expected = expected.map(|(name, street)| (name.to_owned(), street.to_owned()));
    assert_eq!(people(&sandbox).await, expected);
    assert_eq!(sandbox.account().cards.len(), 4);
}

/// Where each card goes: its recipient and street, in order.
async fn parcels(sandbox: &Sandbox) -> Vec<(String, String)> {
    let list = support::http_client().get(format!("{}/v1/issuing/cards", sandbox.api_url()));
    let list: Value = list.bearer_auth("rk_test_1").send().await.unwrap().json().await.unwrap();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let of = |card: &Value| (text(&card["shipping"]["name"]), text(&card["shipping"]["address"]["line1"]));
    let mut parcels: Vec<_> = list["data"].as_array().unwrap().iter().map(of).collect();
    parcels.sort();
    parcels
}

/// Whoever has a list of people says once that their cards go to them, before or after they hear that an address is missing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn physical_cards_go_to_their_peoples_own_addresses_once_somebody_says_so() {
    let Keeping { directory, sandbox, _served, browser } = keeping().await;
    let newcomer = Newcomer(&browser);
    let offered = "return document.querySelector('#own-address').checkVisibility()";
    let write = |name: &str, text: &str| {
        let path = directory.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };

    // On the step of the columns, once it is known that cards may be physical and nothing else is said for all.
    let staff = write(
        "staff.csv",
        "Name,E-Mail,Straße,PLZ,Ort,Land\nAda Byron,ada@firma.example,Lange Straße 5,10115,Berlin,DE\n",
    );
    super::choose(&browser, &staff).await;
    newcomer.sees("What are the columns of staff.csv?").await;
    assert_eq!(browser.run(offered).await, json!(false), "nothing is said of physical cards yet");
    let kind = |kind: &str| {
        format!(
            "const kind = document.querySelector('#default-type'); kind.value = '{kind}';
             kind.dispatchEvent(new Event('input')); {offered}"
        )
    };
    assert_eq!(browser.run(&kind("virtual")).await, json!(false));
    assert_eq!(browser.run(&kind("physical")).await, json!(true));
    browser.click("#own-address").await;
    is_sound(&browser, "own-address").await;
    browser.run("document.querySelector('#keep-columns').open = true").await;
    browser.keys("#keep-name", "staff").await;
    browser.click("#keep").await;
    newcomer.sees("Kept as “staff”").await;
    let kept = std::fs::read_to_string(directory.path().join("columns").join("staff.toml")).unwrap();
    assert!(kept.ends_with("[shipping]\nto = \"own address\"\n"), "{kept}");
    issues(&browser, "1 card").await;
    assert_eq!(parcels(&sandbox).await, [("Ada Byron".to_owned(), "Lange Straße 5".to_owned())]);

    // What was kept comes back.
    let again = write(
        "again.csv",
        "NAME,E-Mail,Straße,PLZ,Ort,Land\nEva Roe,eva@firma.example,Kurze Straße 6,10115,Berlin,DE\n",
    );
    super::choose(&browser, &again).await;
    newcomer.sees("What are the columns of again.csv?").await;
    takes_kept(&browser, "staff").await;
    browser.until("return document.querySelector('#own-address').checked").await;
    issues(&browser, "1 card").await;

    // And where it is told that an address is missing: of each card, said once for all of them.
    let plain = write(
        "plain.csv",
        "row_id,cardholder[name],cardholder[billing][address][line1],cardholder[billing][address][postal_code],\
         cardholder[billing][address][city],cardholder[billing][address][country],type,currency\n\
         E1,Ida Low,High Street 12,10115,Berlin,DE,physical,eur\nE2,Bo Low,High Street 12,10115,Berlin,DE,physical,eur\n",
    );
    super::choose(&browser, &plain).await;
    newcomer.sees("the row does not say where its card is sent").await;
    newcomer.presses("Send such cards to their people’s own addresses").await;
    newcomer.sees("Nothing is wrong with the 2 rows").await;
    browser.click("#check-go").await;
    newcomer.sees("2 cards are sent to 2 people's own addresses").await;
    newcomer.presses("Issue 2 cards").await;
    newcomer.presses_in("Issue 2 cards", "No card is real").await;
    newcomer.sees("Every row has ended").await;
    let expected = [
        ("Ada Byron", "Lange Straße 5"),
        ("Bo Low", "High Street 12"),
        ("Eva Roe", "Kurze Straße 6"),
        ("Ida Low", "High Street 12"),
    ];
    let expected = expected.map(|(name, street)| (name.to_owned(), street.to_owned()));
    assert_eq!(parcels(&sandbox).await, expected);
}

/// Dates that may be two are asked about: before, where the column is chosen, or after, where they are told of.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_comes_first_in_dates_is_said_once_for_their_column() {
    let Keeping { directory, sandbox, _served, browser } = keeping().await;
    let newcomer = Newcomer(&browser);
    let write = |name: &str, rows: &str| {
        let path = directory.path().join(name);
        let headings = "Name,Straße,PLZ,Ort,Land,Kartenart,Date of birth";
        std::fs::write(&path, format!("{headings}\n{rows}")).unwrap();
        path
    };
    let order = "return document.querySelector('#date-order')?.value ?? null";

    // Dates that are sure are not asked about.
    let sure = write("sure.csv", "Ada Byron,Weg 1,10115,Berlin,DE,virtual,10.12.1990\n");
    super::choose(&browser, &sure).await;
    newcomer.sees("What are the columns of sure.csv?").await;
    assert_eq!(browser.run(order).await, json!(null));
    let open = write("open.csv", "Eva Roe,Weg 2,10115,Berlin,DE,virtual,01/02/1990\n");
    super::choose(&browser, &open).await;
    newcomer.sees("What are the columns of open.csv?").await;
    assert_eq!(browser.run(order).await, json!(""), "as they show");
    is_sound(&browser, "dates").await;
    browser.keys("#default-currency", "eur").await;
    newcomer.presses("Check the rows").await;
    newcomer.sees("may be 1 February 1990 or 2 January 1990").await;
    newcomer.sees("write the year first, as in 1990-02-28, or say what comes first").await;
    is_sound(&browser, "dates-to-mend").await;
    newcomer.presses("The column’s dates are day, month, year").await;
    newcomer.sees("Nothing is wrong with the 1 row").await;
    browser.click("#steps [data-step=columns] button").await;
    assert_eq!(browser.run(order).await, json!("day/month/year"));
    browser.run("document.querySelector('#keep-columns').open = true").await;
    browser.keys("#keep-name", "dates").await;
    browser.click("#keep").await;
    newcomer.sees("Kept as “dates”").await;
    let kept = std::fs::read_to_string(directory.path().join("columns").join("dates.toml")).unwrap();
    assert!(kept.ends_with("[dates]\norder = \"day/month/year\"\n"), "{kept}");
    issues(&browser, "1 card").await;

    // What was kept comes back, and is changed where it is wrong.
    let next = write("next.csv", "Bob Low,Weg 3,10115,Berlin,DE,virtual,12/25/1990\n");
    super::choose(&browser, &next).await;
    newcomer.sees("What are the columns of next.csv?").await;
    takes_kept(&browser, "dates").await;
    browser.until("return document.querySelector('#date-order')?.value === 'day/month/year'").await;
    newcomer.presses("Check the rows").await;
    newcomer.sees("is a day that no calendar has if it is read as day/month/year, as you said").await;
    browser.click("#steps [data-step=columns] button").await;
    let choice = "const order = document.querySelector('#date-order'); order.value = 'month/day/year';
        order.dispatchEvent(new Event('change'))";
    browser.run(choice).await;
    newcomer.presses("Check the rows").await;
    newcomer.presses("Issue 1 card").await;
    newcomer.presses_in("Issue 1 card", "No card is real").await;
    newcomer.sees("Every row has ended").await;
    let list = support::http_client().get(format!("{}/v1/issuing/cardholders", sandbox.api_url()));
    let list: Value = list.bearer_auth("rk_test_1").send().await.unwrap().json().await.unwrap();
    let mut born: Vec<_> =
        list["data"].as_array().unwrap().iter().map(|made| made["individual"]["dob"].clone()).collect();
    born.sort_by_key(Value::to_string);
    assert_eq!(
        born,
        [json!({"day": 1, "month": 2, "year": 1990}), json!({"day": 25, "month": 12, "year": 1990})]
    );
}

/// Headings in a language of which none is known here: each is chosen by hand, in a CSV of an old Japanese Excel and in a spreadsheet.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn headings_that_nobody_knows_are_chosen_one_by_one() {
    const ROWS: [[&str; 7]; 2] = [
        ["氏名", "メールアドレス", "住所", "郵便番号", "市", "国", "種類"],
        ["Hanako Sato", "hanako@example.com", "1-2-3 Ginza", "104-0061", "Tokyo", "JP", "virtual"],
    ];
    const COLUMNS: [&str; 7] = [
        "cardholder[name]",
        "cardholder[email]",
        "cardholder[billing][address][line1]",
        "cardholder[billing][address][postal_code]",
        "cardholder[billing][address][city]",
        "cardholder[billing][address][country]",
        "type",
    ];
    let directory = tempfile::tempdir().unwrap();
    let sandbox = Sandbox::start(Options::default()).await.unwrap();
    let served = Served::start(&Program::new(directory.path(), &sandbox), &["--rate", "100"]);
    let csv = directory.path().join("meibo.csv");
    let text = ROWS.map(|row| row.join(",") + "\r\n").concat();
    std::fs::write(&csv, encoding_rs::SHIFT_JIS.encode(&text).0).unwrap();
    let xlsx = directory.path().join("sheet.xlsx");
    let mut workbook = rust_xlsxwriter::Workbook::new();
    let sheet = workbook.add_worksheet();
    for (row, cells) in (0..).zip(ROWS) {
        sheet.write_row(row, 0, cells.map(|cell| cell.replace("anako", "anae"))).unwrap();
    }
    workbook.save(&xlsx).unwrap();
    let browser = Browser::start(Look::PhoneInTheDark, directory.path()).await;
    browser.open(&served.url).await;
    let newcomer = Newcomer(&browser);
    for (file, looks) in [(csv, true), (xlsx, false)] {
        super::choose(&browser, &file).await;
        newcomer.sees("None of these headings is known here").await;
        if looks {
            is_sound(&browser, "unknown").await;
        }
        for (heading, column) in ROWS[0].into_iter().zip(COLUMNS) {
            sets(&browser, heading, column).await;
        }
        let said = browser.run("return document.querySelector('#columns-problems').innerText.trim()").await;
        assert!(!said.as_str().unwrap().contains("None of these"), "{said}");
        issues(&browser, "1 card").await;
    }
    let expected = ["Hanae Sato", "Hanako Sato"].map(|name| (name.to_owned(), "1-2-3 Ginza".to_owned()));
    assert_eq!(people(&sandbox).await, expected);
    assert_eq!(sandbox.account().cards.len(), 2);
    // A line that nobody wrote as headings is told as before.
    let bare = directory.path().join("bare.csv");
    std::fs::write(&bare, "E1,ich_1,virtual,eur\nE2,ich_2,virtual,eur\n").unwrap();
    super::choose(&browser, &bare).await;
    newcomer.sees("is the row of headings missing?").await;
}
