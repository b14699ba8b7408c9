//! Of rows that were refused those that need no change are tried again by a button; what stays refused is said before and after.

use embosser::sandbox::{Faults, Options, Sandbox};
use fantoccini::key::Key;
use serde_json::{Value, json};

use super::looks::is_sound;
use super::support::Program;
use super::support::browser::{Browser, Look};
use super::support::serve::Served;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_that_need_no_change_are_tried_again_and_the_others_stay() {
    let directory = tempfile::tempdir().unwrap();
    let cardholders = Some(["ich_1".to_owned()].into());
    let sandbox = Sandbox::start(Options { cardholders, ..Options::default() }).await.unwrap();
    let downloads = directory.path().join("downloads");
    std::fs::create_dir(&downloads).unwrap();
    // Slow enough that some of it is left when it is called off, however busy the machine is.
    let served = Served::start(&Program::new(directory.path(), &sandbox), &["--rate", "10"]);
    let file = directory.path().join("staff.csv");
    let rows = (0..64).map(|row| {
        let cardholder = if row < 4 { "ich_nobody" } else { "ich_1" };
        format!("r{row},{cardholder},virtual,eur,{row}\n")
    });
    let header = "row_id,cardholder,type,currency,metadata[employee]\n";
    std::fs::write(&file, format!("{header}{}", rows.collect::<String>())).unwrap();
    served.upload_file(&file).await.expect(202);
    served.until("staff", |view| view["issued"].as_u64() > Some(5) && view["refused"] == 4).await;
    served.post("/v1/batches/staff/cancel").await.expect(200);
    let view = served.until_ended("staff").await;
    let (issued, cancelled) = (view["issued"].as_u64().unwrap(), view["cancelled_rows"].as_u64().unwrap());
    assert_eq!(issued + cancelled, 60, "{view}");
    let of_nobody = || {
        let requests = sandbox.requests().into_iter();
        requests.filter(|seen| seen.path == "/v1/issuing/cards" && seen.status == Some(404)).count()
    };
    assert_eq!(of_nobody(), 4);

    let browser = Browser::start(Look::PhoneInTheDark, &downloads).await;
    browser.open(&format!("{}/#/batches/staff", served.url)).await;
    browser.until_text("#refused-reasons", &format!("{cancelled} rows need no change")).await;
    browser.until_text("#refused-reasons", "4 rows must be mended").await;
    let mending = browser.text("#refused-reasons li:last-child").await;
    assert!(mending.ends_with("No such issuing cardholder: 'ich_nobody'"), "{mending}");
    browser.until_text("#retry-words", &format!("Try these {cancelled} again: choose the same file")).await;
    browser.until_text("#retry-hint", "The other 4 rows that were refused stay as they are").await;
    is_sound(&browser, "retry").await;
    browser.element("#retry-file").await.send_keys(file.to_str().unwrap()).await.unwrap();
    // The plan says the same, and the question once more.
    browser.until_text("#plan-figures", "Stay refused").await;
    browser.until_text("#plan-notes", &format!("{cancelled} rows are tried now.")).await;
    browser.until_text("#plan-notes", "4 rows that were refused stay as they are").await;
    browser.until_text("#plan-notes", &format!("{issued} rows have their cards in the batch “staff”")).await;
    assert_eq!(browser.text("#issue").await, format!("Issue {cancelled} cards"));
    is_sound(&browser, "retry-plan").await;
    // A page that is loaded anew has lost the file, and not what it was chosen for.
    browser.run("location.reload()").await;
    browser
        .until_text("#into", "into the batch “staff” once more, and what needs no change is tried again")
        .await;
    browser.keys("#file", file.to_str().unwrap()).await;
    browser.until_text("#plan-figures", "Stay refused").await;
    browser.until_text("#issue", &format!("Issue {cancelled} cards")).await;
    browser.keys("#issue", &Key::Enter.to_string()).await;
    browser.until_text("#sure-words", &format!("Issue {cancelled} cards as “staff”?")).await;
    browser.until_text("#sure-words", "4 rows that were refused stay as they are").await;
    browser.click("#sure-yes").await;
    browser.until_text("#batch-title", "staff").await;
    browser.until_text("#batch-state", "Every row has ended").await;
    browser.until("return document.querySelector('#retry').hidden").await;
    browser.until_text("#refused-reasons", "4 rows must be mended").await;
    assert_eq!(sandbox.account().cards.len(), 60);
    assert_eq!(of_nobody(), 4, "rows that must be mended were called for");
    let view = served.get("/v1/batches/staff").await.expect(200).json();
    let counts: [&Value; 3] = ["issued", "refused", "cancelled_rows"].map(|name| &view[name]);
    assert_eq!(counts, [&json!(60), &json!(4), &json!(0)], "{view}");

    // Under another name it would be no retry: the file is then one like any other.
    browser.element("#refused-again").await.click().await.unwrap();
    browser.until_text("#into", "The file goes into the batch “staff”").await;
    browser.keys("#file", file.to_str().unwrap()).await;
    browser.until_text("#issue", "Issue 4 cards").await;
    assert!(!browser.text("#plan-figures").await.contains("Stay refused"));
}

/// Whoever finishes a batch whose calls were cut off has nothing asked for that was refused and must be mended.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_is_finished_and_what_must_be_mended_stays() {
    let directory = tempfile::tempdir().unwrap();
    let cardholders = Some(["ich_1".to_owned()].into());
    let sandbox = Sandbox::start(Options { cardholders, ..Options::default() }).await.unwrap();
    let downloads = directory.path().join("downloads");
    std::fs::create_dir(&downloads).unwrap();
    let program = Program::new(directory.path(), &sandbox).with("EMBOSSER__RETRY__ATTEMPTS_MAX", "1");
    let served = Served::start(&program, &["--rate", "100"]);
    let header = "row_id,cardholder,type,currency,metadata[employee]\n";
    let refused = "r1,ich_nobody,virtual,eur,1\nr2,ich_nobody,virtual,eur,2\n";
    let others = "r3,ich_1,virtual,eur,3\nr4,ich_1,virtual,eur,4\n";
    served.upload("/v1/batches?name=staff", format!("{header}{refused}").into()).await.expect(202);
    served.until_ended("staff").await;
    // Stripe makes their cards, and nobody hears of it.
    sandbox.set_faults(Faults { drop_after: 1.0, ..Faults::default() });
    let file = directory.path().join("staff.csv");
    std::fs::write(&file, format!("{header}{refused}{others}")).unwrap();
    let all = std::fs::read(&file).unwrap();
    served.upload("/v1/batches?name=staff&retry=true", all).await.expect(202);
    let view = served.until_ended("staff").await;
    assert_eq!([&view["refused"], &view["unresolved"]], [&json!(2), &json!(2)], "{view}");
    sandbox.set_faults(Faults::default());
    let seen = || sandbox.requests().iter().filter(|seen| seen.status == Some(404)).count();
    assert_eq!(seen(), 2);

    let browser = Browser::start(Look::Desk, &downloads).await;
    browser.open(&format!("{}/#/batches/staff", served.url)).await;
    browser.until_text("#again-panel", "must be mended stay as they are").await;
    is_sound(&browser, "finish").await;
    browser.keys("#settle-file", file.to_str().unwrap()).await;
    browser.until_text("#plan-figures", "Stay refused").await;
    browser.keys("#issue", &Key::Enter.to_string()).await;
    browser.click("#sure-yes").await;
    browser.until_text("#batch-state", "Every row has ended").await;
    browser.until("return document.querySelector('#again-panel').hidden").await;
    assert_eq!((sandbox.account().cards.len(), seen()), (2, 2));
    let view = served.get("/v1/batches/staff").await.expect(200).json();
    assert_eq!([&view["issued"], &view["refused"]], [&json!(2), &json!(2)], "{view}");
}
