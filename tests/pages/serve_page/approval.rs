//! A second look: who sends a batch cannot approve it, who approves it sees what it would do, and who did what can be shown.

use embosser::sandbox::{Options, Sandbox};
use fantoccini::key::Key;
use serde_json::json;

use super::looks::is_sound;
use super::support::browser::{Browser, Look, downloaded};
use super::support::serve::Served;
use super::support::tokens::{People, people};
use super::support::{Program, write_manifest};

pub(crate) async fn sign_in(browser: &Browser, people: &People, who: &str) {
    browser.run("sessionStorage.clear(); location.reload()").await;
    browser.until_text("#sign-in", "Access token").await;
    browser.keys("#token", &people.tokens[who]).await;
    browser.keys("#token", &Key::Enter.to_string()).await;
    browser.until_text("#who-am-i", who).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_colleague_looks_twice_before_cards_are_issued() {
    let directory = tempfile::tempdir().unwrap();
    let sandbox = Sandbox::start(Options::default()).await.unwrap();
    let downloads = directory.path().join("downloads");
    std::fs::create_dir(&downloads).unwrap();
    let program = Program::new(directory.path(), &sandbox).with("EMBOSSER__APPROVAL__REQUIRED", "true");
    let who: [(&str, &[&str]); 3] =
        [("payroll", &["submit", "read", "approve"]), ("boss", &["approve", "read"]), ("robot", &["submit"])];
    let people = people(program, &who).await;
    let served = Served::start(&people.program, &["--rate", "100"]);
    let browser = Browser::start(Look::Desk, &downloads).await;
    browser.open(&served.url).await;
    sign_in(&browser, &people, "payroll").await;
    let file = directory.path().join("rollout.csv");
    write_manifest(&file, &sandbox, 40).await;
    super::plan(&browser, &file).await;
    assert_eq!(browser.text("#issue").await, "Send for approval: issue 40 cards");
    browser.click("#issue").await;
    browser.until_text("#batch-state", "before somebody else has approved it").await;
    browser.until_text("#held-why", "You sent it: somebody else must approve it.").await;
    assert_eq!(browser.run("return document.querySelector('#approve').hidden").await, json!(true));
    // What has not begun can be rejected by who may approve at all, and is not here.
    assert_eq!(sandbox.account().creates, 0);

    // The colleague sees what it would do, and lets it go.
    sign_in(&browser, &people, "boss").await;
    browser.until_text("#held-said", "Sent by payroll").await;
    browser.until_text("#held-notes", "No batch of this name was issued before").await;
    let figures = browser.text("#held-figures").await;
    assert!(figures.contains("Virtual cards\n40") && figures.contains("With a PIN\n32"), "{figures}");
    is_sound(&browser, "held").await;
    browser.click("#approve").await;
    browser.until_text("#sure-words", "Approve “rollout”: 40 rows?").await;
    browser.click("#sure-yes").await;
    browser.until_text("#batch-state", "Every row has ended").await;
    assert_eq!(sandbox.account().cards.len(), 40);
    // What this token may not do is not offered, and it is said which may.
    browser.until_text("#may-not-operate", "takes a token with the role “operate”").await;
    assert_eq!(browser.run("return document.querySelector('#undo').hidden").await, json!(true));
    browser.until("return document.title.startsWith('✓ rollout')").await;

    // Who approved it is there to be shown.
    browser.click("#nav-log").await;
    browser.until_text("#log-table", "approved a batch").await;
    let log = browser.text("#log-table tbody tr:first-child").await;
    assert!(log.contains("boss") && log.contains("rollout"), "{log}");
    is_sound(&browser, "log").await;
    browser.click("#log-download").await;
    assert!(downloaded(&downloads, "who-did-what.csv").await.contains("batch_approved"));

    // Another file under the name is compared with what was issued, and a no comes with its reason.
    sign_in(&browser, &people, "payroll").await;
    let more = std::fs::read_to_string(&file).unwrap();
    let (header, rows) = more.split_once('\n').unwrap();
    let rest: String = rows.lines().skip(1).map(|line| format!("{line}\n")).collect();
    std::fs::write(&file, format!("{header}\n{rest}x1,ich_new,virtual,eur,,\n")).unwrap();
    super::plan(&browser, &file).await;
    browser.click("#issue").await;
    browser.until_text("#held-notes", "39 rows as before, of which 39 are done already").await;
    browser.until_text("#held-notes", "1 row that was not there before: x1").await;
    browser.until_text("#held-notes", "1 row is no more in the file: r1").await;
    sign_in(&browser, &people, "boss").await;
    browser.run("location.hash = '#/batches/rollout'").await;
    // What is left to do of it, and not what was done before.
    browser.until_text("#approve", "Approve: 1 of 40 rows").await;
    let figures = browser.text("#held-figures").await;
    assert!(figures.contains("Virtual cards\n1\n") && figures.contains("Done already\n39"), "{figures}");
    assert!(!figures.contains("With a PIN"), "{figures}");
    browser.until_text("#held-table tbody tr:first-child", "done already").await;
    browser.until_text("#held-table tbody tr:last-child", "virtual card").await;
    browser.click("#reject").await;
    browser.until_text("#sure-asks", "Why, for whoever sent it").await;
    browser.keys("#sure-input", "x1 has left").await;
    browser.click("#sure-yes").await;
    let state = "Nothing of the file that was sent last was issued, and the 40 rows that were done before stay as they are: boss rejected it: x1 has left.";
    browser.until_text("#batch-state", state).await;
    browser.until_text("#batch-chip", "its last file was rejected").await;
    assert_eq!(sandbox.account().cards.len(), 40);

    // One that only asks for something else than before changes nothing, and says so to both.
    sign_in(&browser, &people, "payroll").await;
    std::fs::write(&file, more.replacen("r3,ich_03,virtual,eur", "r3,ich_03,virtual,usd", 1)).unwrap();
    super::plan(&browser, &file).await;
    let other = "1 row asks for something else than when it was issued: r3. That changes no card";
    browser.until_text("#plan-notes", other).await;
    browser.click("#issue").await;
    browser.until_text("#batch-state", "before somebody else has approved it").await;
    sign_in(&browser, &people, "boss").await;
    browser.run("location.hash = '#/batches/rollout'").await;
    browser.until_text("#held-notes", other).await;
    browser.until_text("#approve", "Approve: 40 rows, of which nothing is left to do").await;
    assert!(!browser.text("#held-figures").await.contains("Virtual"));

    // A token that may only send says so, and sends.
    sign_in(&browser, &people, "robot").await;
    browser.run("location.hash = '#/'").await;
    browser.until_text("#may-not-read", "one with the role “read”").await;
    // Of what it may not see it is told why, and of what nobody sent here nothing.
    browser.run("location.hash = '#/log'").await;
    browser.until_text("#log-none", "Your token may not read what was done").await;
    let empty = "return ['#log-table', '#log-download', '#log-batch'].some((css) => document.querySelector(css).checkVisibility())";
    assert_eq!(browser.run(empty).await, json!(false));
    browser.run("location.hash = '#/batches/never-was'").await;
    browser.until_text("#batch-state", "takes a token with the role “read”").await;
    assert!(!browser.text("#batch-state").await.contains("taken"));
    let one = directory.path().join("one.csv");
    std::fs::write(&one, "row_id,cardholder,type,currency\nz,ich_z,virtual,eur\n").unwrap();
    super::plan(&browser, &one).await;
    browser.click("#issue").await;
    browser.until_text("#batch-state", "It was taken, and waits until somebody else has approved it").await;
}
