//! Several accounts: one is chosen, its page is of it alone, and who may see one account is led to it.

use std::path::Path;

use embosser::sandbox::{Options, Sandbox};
use serde_json::json;

use super::approval::sign_in;
use super::looks::is_sound;
use super::support::Program;
use super::support::browser::{Browser, Look};
use super::support::serve::Served;
use super::support::tokens::people;

/// The key of the third one is another account's.
const ACCOUNTS: &str = "[accounts]\nlist = [{ id = \"acct_Berlin\" }, { id = \"acct_Paris\", name = \"Cartes <Île-de-France>\" }, \
    { id = \"acct_Rome\", api_key_file = \"key\" }]\n";

fn manifest(folder: &Path, name: &str, rows: usize) -> std::path::PathBuf {
    let mut text = "row_id,cardholder,type,currency\n".to_owned();
    for row in 0..rows {
        text += &format!("{row},ich_{row},virtual,eur\n");
    }
    let path = folder.join(name);
    std::fs::write(&path, text).unwrap();
    path
}

async fn accounts_are_chosen(look: Look) {
    let directory = tempfile::tempdir().unwrap();
    let sandbox = Sandbox::start(Options::default()).await.unwrap();
    let downloads = directory.path().join("downloads");
    std::fs::create_dir(&downloads).unwrap();
    std::fs::write(directory.path().join("accounts.toml"), ACCOUNTS).unwrap();
    std::fs::write(directory.path().join("key"), "sk_test_acct_Berlin_1").unwrap();
    let program = Program::new(directory.path(), &sandbox);
    let roles = ["submit", "read", "operate"];
    let mut people = people(program, &[("group", &roles), ("paris", &roles)]).await;
    let lines: Vec<&str> = people.lines.lines().collect();
    let tokens = directory.path().join("tokens");
    std::fs::write(tokens, format!("{}\n{} accounts=acct_Paris\n", lines[0], lines[1])).unwrap();
    people.lines.clear();
    let served = Served::start(&people.program, &["--config", "accounts.toml", "--rate", "50"]);
    let browser = Browser::start(look, &downloads).await;
    browser.open(&served.url).await;
    sign_in(&browser, &people, "group").await;
    let row = |account: &str| format!("#accounts-table tr[data-key='{account}']");
    browser.until_text(&row("acct_Berlin"), "Ready").await;
    browser.until_text(&row("acct_Rome"), "Stopped: ").await;
    browser.until_text(&row("acct_Rome"), "its API key is one of acct_Berlin").await;
    assert_eq!(browser.run("return document.title").await, "Accounts · embosser");
    assert_eq!(browser.run("return document.querySelector('#nav').checkVisibility()").await, json!(false));
    let links = "return [...document.querySelectorAll('#accounts-table a')].map((link) => link.textContent)";
    assert_eq!(
        browser.run(links).await,
        json!(["acct_Berlin", "Cartes <Île-de-France> · acct_Paris"]),
        "one that is not served has no page"
    );
    is_sound(&browser, "accounts").await;

    // What is done on one's page is done for it, and stands in no other's list.
    browser.click(&format!("{} a", row("acct_Berlin"))).await;
    browser.until_text("#account", "acct_Berlin").await;
    super::issue(&browser, &manifest(directory.path(), "berlin.csv", 5)).await;
    browser.until_text("#batch-chip", "finished").await;
    is_sound(&browser, "account-batch").await;
    assert_eq!(sandbox.account().cards.iter().filter(|card| card.account == "acct_Berlin").count(), 5);
    // A deep link, a reload and the way back are of the account, too.
    browser.run("location.reload()").await;
    browser.until_text("#batch-title", "berlin").await;
    browser.click("#all-accounts").await;
    browser.until_text(&row("acct_Paris"), "Ready").await;
    browser.click(&format!("{} a", row("acct_Paris"))).await;
    browser.until_text("#account", "Cartes <Île-de-France> · acct_Paris").await;
    browser.until_text("#list-none", "From a list of people").await;
    browser.run("history.back()").await;
    browser.until_text(&row("acct_Berlin"), "Ready").await;

    // Whoever may see one alone is led to it, and to no other.
    sign_in(&browser, &people, "paris").await;
    browser.until_text("#account", "Cartes <Île-de-France> · acct_Paris").await;
    super::issue(&browser, &manifest(directory.path(), "paris.csv", 3)).await;
    browser.until_text("#batch-chip", "finished").await;
    assert_eq!(sandbox.account().cards.iter().filter(|card| card.account == "acct_Paris").count(), 3);
    assert_eq!(sandbox.counts().cards, 8);
    browser.open(&format!("{}/accounts/acct_Berlin/", served.url)).await;
    browser.until_text("#notice", "is for acct_Paris; this server's account is acct_Berlin").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn accounts_are_chosen_at_a_desk() {
    accounts_are_chosen(Look::Desk).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn accounts_are_chosen_on_a_phone() {
    accounts_are_chosen(Look::PhoneInTheDark).await;
}
