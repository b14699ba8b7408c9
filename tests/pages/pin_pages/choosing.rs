//! Choosing a PIN, from the link to the card.

use embosser::sandbox::{KeyEndpoint, Options};
use fantoccini::key::Key;
use serde_json::json;

use super::Stage;
use super::company::{Link, Ordered};

/// Whether a text has these digits as a word of their own: a PIN that is sent or kept, and no part of a time, a port or a JWE.
fn has_as_word(text: &str, digits: &str) -> bool {
    let of_word = |each: char| each.is_ascii_alphanumeric() || "_-".contains(each);
    text.match_indices(digits).any(|(at, _)| {
        let (before, after) = (text[..at].chars().next_back(), text[at + digits.len()..].chars().next());
        !before.is_some_and(of_word) && !after.is_some_and(of_word)
    })
}

/// All that the page left in the browser.
const LEFT: &str = "return Promise.all([indexedDB.databases(), caches.keys()]).then((kept) => JSON.stringify({
    kept, stored: [localStorage.length, sessionStorage.length, document.cookie], history: [history.state, location.href, name],
    page: document.documentElement.outerHTML, asked: performance.getEntries().map((entry) => entry.name),
    fields: [...document.querySelectorAll('input')].map((field) => field.value)}))";

/// With the keyboard alone: the new card has the PIN, and nothing but its JWE was ever sent.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pin_that_is_typed_arrives_encrypted_and_is_nowhere_else() {
    let stage = Stage::new().await;
    let Stage { company, browser, .. } = &stage;
    let token = stage.choosing(Link::default()).await;
    assert_eq!(browser.text("#form-title").await, "Choose the PIN for your new card");
    assert_eq!(stage.focus().await, "BODY", "a screen reader begins at the beginning");

    let tab = Key::Tab.to_string();
    browser.press(&tab).await;
    assert_eq!(stage.focus().await, "pin");
    let field = "const e = document.activeElement; return [e.type, e.inputMode, e.autocomplete, e.labels[0].innerText]";
    assert_eq!(browser.run(field).await, json!(["password", "numeric", "off", "New PIN"]));
    browser.press(&format!("4715{tab}4715{tab}")).await;
    assert_eq!(stage.focus().await, "reveal");
    // The digits are shown, and hidden again by sending.
    browser.press(" ").await;
    assert_eq!(browser.run("return document.querySelector('#pin').type").await, "text");
    browser.press(&format!("{tab}{}", Key::Enter)).await;
    stage.shows("taken").await;
    assert_eq!(browser.run("return document.activeElement.innerText").await, "Your PIN was accepted");
    assert!(browser.text("#taken").await.contains("Your new card gets this PIN"));
    assert_eq!(
        browser.text("footer .safe").await,
        "Your PIN is encrypted in this browser before it is sent. Nobody on the way can read it."
    );

    assert_eq!(company.pins(), ["4715"]);
    let sent = company.heard("choose");
    let body: serde_json::Value = serde_json::from_str(&sent[0].2).unwrap();
    assert_eq!((sent.len(), body["link"].as_str()), (1, Some(&*token)));
    let header = body["pin"].as_str().unwrap().split('.').next().unwrap().to_owned();
    let header = {
        use base64::Engine as _;
        String::from_utf8(base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(header).unwrap()).unwrap()
    };
    assert!(header.starts_with(r#"{"alg":"RSA-OAEP","enc":"A128CBC-HS256","kid":""#), "{header}");

    let left = browser.run(LEFT).await.as_str().unwrap().to_owned();
    assert!(
        left.contains(r#""kept":[[],[]],"stored":[0,0,""],"#) && left.contains(r#""fields":[]"#),
        "{left}"
    );
    assert!(
        left.contains(&format!(r#""history":[null,"{}/pin","#, company.url)),
        "the token is gone: {left}"
    );
    assert_eq!(browser.log("browser").await, Vec::<serde_json::Value>::new(), "the console");
    let network = serde_json::to_string(&browser.log("performance").await).unwrap();
    assert!(network.contains("pin-links/choose") && network.contains(body["pin"].as_str().unwrap()));
    let heard = format!("{:?}", company.heard(""));
    for place in [&left, &network, &heard] {
        assert!(!has_as_word(place, "4715"), "{place}");
    }
    // The token is in the bodies that prove the link, and in no address or header of any request.
    let addresses: String =
        company.heard("").iter().map(|(line, headers, _)| line.to_owned() + headers).collect();
    assert!(!addresses.contains(&token) && addresses.contains("/pin/assets/choose.js"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_pin_of_a_card_is_changed_and_the_old_one_is_told_of() {
    let stage = Stage::new().await;
    let Stage { company, browser, .. } = &stage;
    let card = company.card("2580").await;
    let token = stage.choosing(Link { card: Some(card), ..Link::default() }).await;
    assert_eq!(browser.text("#form-title").await, "Change your card’s PIN");
    assert_eq!(browser.text("#form-card").await, "Card ending in 4242");
    // Looking, and looking again, uses nothing up; the link is in the address until it is used.
    browser.page.refresh().await.unwrap();
    stage.shows("form").await;
    assert!(browser.run("return location.hash").await.as_str().unwrap().contains(&token));
    stage.enter("9283", "9283").await;
    stage.shows("taken").await;
    let words = browser.text("#taken").await;
    assert!(words.contains("At first use, some terminals may still ask for your old PIN"), "{words}");
    assert_eq!((company.pins(), company.is_used(&token)), (vec!["9283".to_owned()], true));
    // Now a reload finds no link.
    browser.page.refresh().await.unwrap();
    stage.shows("unusable").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pin_is_encrypted_again_when_the_key_changed() {
    let stage = Stage::new().await;
    let Stage { company, browser, .. } = &stage;
    let token = stage.choosing(Link::default()).await;
    company.order("choose", [Ordered::KeyChanged, Ordered::KeyChanged]);
    stage.enter("4715", "4715").await;
    stage.shows("taken").await;
    assert_eq!((company.heard("choose").len(), company.pins()), (3, vec!["4715".to_owned()]));
    assert!(company.is_used(&token));
    // Not for ever: after three the cardholder is told, and the PIN waits in its fields.
    stage.choosing(Link::default()).await;
    company.order("choose", [Ordered::KeyChanged, Ordered::KeyChanged, Ordered::KeyChanged]);
    stage.enter("4716", "4716").await;
    browser.until_text("#problem", "This does not work right now").await;
    assert_eq!(company.heard("choose").len(), 6);
    browser.click("#submit").await;
    stage.shows("taken").await;
    assert_eq!(company.pins(), ["4715", "4716"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_the_browser_cannot_reach_stripes_key_the_server_passes_it_on() {
    let stage = Stage::set(Options { cors: false, ..Options::default() }, &[]).await;
    let Stage { company, browser, .. } = &stage;
    stage.choosing(Link::default()).await;
    stage.enter("4715", "4715").await;
    stage.shows("taken").await;
    assert_eq!((company.heard("/v1/pin-key").len(), company.pins()), (1, vec!["4715".to_owned()]));

    // And where neither has it, nothing is sent, and the PIN can be sent later.
    stage.choosing(Link::default()).await;
    company.asking.sandbox.set_key_endpoint(KeyEndpoint::Unavailable);
    stage.enter("4716", "4716").await;
    browser.until_text("#problem", "the card issuer’s key cannot be reached. Nothing was sent").await;
    assert_eq!(company.heard("choose").len(), 1);
    company.asking.sandbox.set_key_endpoint(KeyEndpoint::Up);
    browser.click("#submit").await;
    stage.shows("taken").await;
    assert_eq!(company.pins(), ["4715", "4716"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_pin_is_left_in_a_page_that_was_left_and_another_link_in_its_tab_is_opened() {
    let stage = Stage::new().await;
    let Stage { company, browser, .. } = &stage;
    stage.choosing(Link::default()).await;
    browser.keys("#pin", "4715").await;
    browser.keys("#repeat", "4715").await;
    browser.open(&format!("{}/pin/assets/icon.svg", company.url)).await;
    browser.page.back().await.unwrap();
    stage.shows("form").await;
    let fields = "return [...document.querySelectorAll('input')].map((field) => field.value)";
    assert_eq!(browser.run(fields).await, json!(["", ""]));
    // Only the fragment differs: the browser itself would load nothing.
    browser.open(&company.choose_url("none")).await;
    stage.shows("unusable").await;
    browser.open(&company.choose_url(&company.send(Link::default()))).await;
    stage.shows("form").await;
}

/// The page's functions are those of the client that runs against every header shape and key.
#[test]
fn the_page_encrypts_as_docs_pins_md_shows_it() {
    let part = |text: &str, begin: &str, end: &str| -> String {
        let (_, from) = text.split_once(begin).unwrap();
        from.split_once(end).unwrap().0.replace('\'', "\"")
    };
    let page = include_str!("../../../src/serve/pin_page/encrypt.js");
    let shown = include_str!("../../clients/webcrypto/encrypt.mjs");
    for (begin, end) in [("const utf8 = ", "\n\n"), ("async function encryptUnder", "\n}\n")] {
        assert_eq!(part(page, begin, end), part(shown, begin, end));
    }
}
