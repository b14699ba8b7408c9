//! Seeing a PIN: it is in a frame of another origin, and the page around it never has it.

use serde_json::{Value, json};

use super::Stage;
use super::company::{Company, Link, Ordered};
use crate::support::browser::Browser;

/// What each frame shows, once it does.
pub(crate) async fn in_frames(browser: &Browser) -> Vec<String> {
    let frames = browser.run("return document.querySelectorAll('iframe').length").await;
    let mut texts = Vec::new();
    for frame in 0..u16::try_from(frames.as_u64().unwrap()).unwrap() {
        browser.page.enter_frame(frame).await.unwrap();
        browser.until("return document.querySelector('#value').textContent !== ''").await;
        texts.push(browser.text("#value").await);
        browser.page.enter_parent_frame().await.unwrap();
    }
    texts
}

async fn link(company: &Company, pin: &str, shows: &[&'static str]) -> String {
    let card = company.card(pin).await;
    company.send(Link { card: Some(card), shows: Some(shows.to_vec()), ..Link::default() })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pin_is_shown_once_when_it_is_asked_for_and_the_page_never_has_it() {
    let stage = Stage::new().await;
    let Stage { company, browser, .. } = &stage;
    let token = link(company, "4715", &["pin"]).await;
    for _ in 0..3 {
        stage.open(&company.view_url(&token)).await;
        stage.shows("ready").await;
    }
    assert!(!company.is_used(&token), "opening the link uses nothing up");
    assert_eq!(browser.text("#ready-card").await, "Card ending in 4242");

    browser.press(&format!("{}{}", fantoccini::key::Key::Tab, fantoccini::key::Key::Enter)).await;
    stage.shows("shown").await;
    assert_eq!(in_frames(browser).await, ["4715"]);
    browser.until("return document.querySelector('#shown-status').textContent === ''").await;
    assert!(company.is_used(&token));
    assert_eq!(
        browser.run("return [document.activeElement.innerText, location.hash]").await,
        json!(["Your card’s PIN", ""])
    );
    let page = "return document.documentElement.outerHTML + JSON.stringify(performance.getEntries().map((entry) => entry.name))
        + JSON.stringify([localStorage, sessionStorage, document.cookie]) + document.querySelector('iframe').contentDocument";
    let page = browser.run(page).await.as_str().unwrap().to_owned();
    assert!(!page.contains(">4715<") && page.ends_with("null"), "{page}");
    assert_eq!(browser.log("browser").await, Vec::<Value>::new(), "the console");

    browser.click("#hide").await;
    stage.shows("hidden").await;
    assert_eq!(browser.run("return document.querySelector('iframe')").await, Value::Null);
    stage.open(&company.view_url(&token)).await;
    stage.shows("unusable").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn number_expiry_and_cvc_are_shown_where_the_link_says_so() {
    let stage = Stage::new().await;
    let Stage { company, browser, .. } = &stage;
    let token = link(company, "9283", &["pin", "number", "expiry", "cvc"]).await;
    stage.open(&company.view_url(&token)).await;
    browser.click("#show").await;
    stage.shows("shown").await;
    let shown = in_frames(browser).await;
    assert_eq!((shown.len(), &*shown[0], &*shown[2]), (4, "9283", "08/30"));
    assert_eq!((shown[1].len(), shown[3].len()), (19, 3), "{shown:?}");
    let names = "return [...document.querySelectorAll('dt')].map((each) => each.innerText)";
    let wanted = json!(["PIN", "Card number", "Expiry date", "Security code (CVC)"]);
    assert_eq!(browser.run(names).await, wanted);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_goes_wrong_on_the_way_is_said_with_what_became_of_the_link() {
    let stage = Stage::new().await;
    let Stage { company, browser, .. } = &stage;
    // The link stays good.
    let token = link(company, "4715", &["pin"]).await;
    company.order("ephemeral-keys", [Ordered::Problem(503, "not_now"), Ordered::TooMany(30)]);
    stage.open(&company.view_url(&token)).await;
    for words in ["Your link still works", "Try again in 30 seconds"] {
        browser.click("#show").await;
        browser.until_text("#problem", words).await;
    }
    browser.click("#show").await;
    stage.shows("shown").await;

    // It is used up meanwhile, or the card is one that shows nothing any more.
    for (code, status, shown) in [("link_unusable", 404, "unusable"), ("card_refused", 409, "refused")] {
        let token = link(company, "4716", &["pin"]).await;
        company.order("ephemeral-keys", [Ordered::Problem(status, code)]);
        stage.open(&company.view_url(&token)).await;
        browser.click("#show").await;
        stage.shows(shown).await;
    }
    // Stripe's frame cannot show it: its key has expired.
    let token = link(company, "4717", &["pin"]).await;
    stage.open(&company.view_url(&token)).await;
    browser.click("#show").await;
    stage.shows("shown").await;
    in_frames(browser).await;
    company.asking.sandbox.advance(std::time::Duration::from_secs(3600));
    browser
        .command(
            "Emulation.setEmulatedMedia",
            json!({"features": [{"name": "prefers-color-scheme", "value": "dark"}]}),
        )
        .await;
    stage.shows("failed").await;
    assert_eq!(browser.run("return document.querySelector('iframe')").await, Value::Null);

    // Stripe's script is blocked.
    let token = link(company, "4718", &["pin"]).await;
    browser.command("Network.enable", json!({})).await;
    browser.command("Network.setBlockedURLs", json!({"urls": ["*/v3/"]})).await;
    stage.open(&company.view_url(&token)).await;
    stage.shows("trouble").await;
    browser.until_text("#trouble-text", "part of this page could not be loaded. Your link still works").await;
    browser.command("Network.setBlockedURLs", json!({"urls": []})).await;
    browser.click("#look-again").await;
    stage.shows("ready").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_link_of_the_other_kind_goes_to_its_own_page() {
    let stage = Stage::new().await;
    let Stage { company, .. } = &stage;
    let (choose, view) = (company.send(Link::default()), link(company, "4715", &["pin"]).await);
    stage.open(&company.view_url(&choose)).await;
    stage.shows("form").await;
    stage.open(&company.choose_url(&view)).await;
    stage.shows("ready").await;
}
