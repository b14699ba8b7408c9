//! Promise: a page that embeds the sandbox's stand-in for Stripe.js shows a card's PIN without ever having it, under a policy
//! that allows what Stripe's own needs; and a key that is another card's, or a nonce of another page, shows an error.

use crate::support;

use std::sync::Arc;

use axum::Router;
use axum::extract::{Query, State};
use axum::http::header;
use axum::routing::get;
use embosser::sandbox::{Options, Sandbox};
use serde_json::{Value, json};
use support::asking::Asking;
use support::browser::{Browser, Look};

/// The page of a company, as a third origin: it makes nonces and asks its own server for keys.
const PAGE_SCRIPT: &str = r#"
"use strict";
const heard = [];
addEventListener("message", ({ data }) => heard.push(data));
const stripe = Stripe("pk_test_sandbox");
const elements = stripe.elements();
async function secretFor(card, nonce) {
  const answer = await fetch(`/key?card=${card}&nonce=${nonce}`);
  return (await answer.json()).secret;
}
async function keyFor(card) {
  const { nonce } = await stripe.createEphemeralKeyNonce({ issuingCard: card });
  return { nonce, ephemeralKeySecret: await secretFor(card, nonce) };
}
function show(type, options) {
  const element = elements.create(type, { style: { base: { fontSize: "20px" } }, ...options });
  for (const event of ["ready", "loaderror"]) {
    element.on(event, (told) => heard.push({ event, ...told }));
  }
  element.mount("[id=detail]");
  return element;
}
"#;

/// The company's server: what it knows is the API and its secret key.
struct Company {
    asking: Asking,
}

async fn company(options: Options) -> (Arc<Company>, String) {
    let company = Arc::new(Company { asking: Asking::of(options).await });
    let (elements, api) = (company.asking.sandbox.elements_url(), company.asking.sandbox.api_url());
    let html = format!(
        "<!doctype html><meta charset=utf-8><title>PIN</title><script src='{elements}/v3/'></script>\
         <script src='/page.js'></script><body><div id=detail></div>"
    );
    let policy = format!(
        "default-src 'none'; script-src 'self' {elements}; frame-src {elements}; connect-src 'self' {api}"
    );
    let router = Router::new()
        .route(
            "/",
            get(async move || {
                let kind = "text/html".to_owned();
                (
                    [(header::CONTENT_TYPE, kind), (header::CONTENT_SECURITY_POLICY, policy.clone())],
                    html.clone(),
                )
            }),
        )
        .route("/page.js", get(async || ([(header::CONTENT_TYPE, "text/javascript")], PAGE_SCRIPT)))
        .route("/key", get(make_key))
        .with_state(company.clone());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await });
    (company, url)
}

async fn make_key(
    State(company): State<Arc<Company>>,
    Query(asked): Query<std::collections::HashMap<String, String>>,
) -> axum::Json<Value> {
    let body = format!("issuing_card={}&nonce={}", asked["card"], asked["nonce"]);
    let version = [("stripe-version", "2026-07-29")];
    let made =
        company.asking.send(reqwest::Method::POST, "/v1/ephemeral_keys", &version, &body).await.unwrap();
    axum::Json(made.body)
}

async fn card(asking: &Asking, kind: &str, pin: &str) -> String {
    let body =
        format!("cardholder=ich_1&type={kind}&currency=eur&pin[encrypted_number]={}", asking.jwe(pin).await);
    let made = asking.create(&format!("{kind}{pin}"), &body).await;
    made.body["id"].as_str().unwrap().to_owned()
}

/// What the page was told last, once it was told anything more.
async fn told(browser: &Browser, before: u64) -> Value {
    browser.until(&format!("return heard.length > {before}")).await;
    browser.run("return heard.at(-1)").await
}

async fn in_frame(browser: &Browser) -> String {
    browser.page.enter_frame(0).await.unwrap();
    let text = browser.text("#value").await;
    browser.page.enter_parent_frame().await.unwrap();
    text
}

/// The page's whole document, and all that its script heard.
async fn all_that_the_page_has(browser: &Browser) -> String {
    let all = browser
        .run("return document.documentElement.outerHTML + JSON.stringify(heard) + document.querySelector('iframe')?.contentDocument")
        .await;
    all.as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_pin_is_in_the_frame_and_never_in_the_page() {
    let (company, url) = company(Options::default()).await;
    let (physical, with_number) =
        (card(&company.asking, "physical", "4715").await, card(&company.asking, "virtual", "9283").await);
    let downloads = tempfile::tempdir().unwrap();
    let browser = Browser::start(Look::Desk, downloads.path()).await;
    browser.open(&url).await;

    browser.run(&format!("keyFor({physical:?}).then((key) => {{ window.key = key; show('issuingCardPinDisplay', {{ issuingCard: {physical:?}, ...key }}) }})")).await;
    let ready = told(&browser, 0).await;
    assert_eq!(ready, json!({"event": "ready", "elementType": "issuingCardPinDisplay"}));
    assert_eq!(in_frame(&browser).await, "4715");
    let page = all_that_the_page_has(&browser).await;
    assert!(!page.contains("4715") && page.ends_with("null"), "{page}");

    // The same key serves other elements of the page, with what this kind of card has.
    browser
        .run(&format!("show('issuingCardExpiryDisplay', {{ issuingCard: {physical:?}, ...window.key }})"))
        .await;
    assert_eq!(told(&browser, 1).await["event"], "ready");
    assert_eq!(in_frame(&browser).await, "08/30");
    browser
        .run(&format!("show('issuingCardNumberDisplay', {{ issuingCard: {physical:?}, ...window.key }})"))
        .await;
    assert_eq!(told(&browser, 2).await["event"], "loaderror", "a physical card's number is not shown");
    browser.run(&format!("keyFor({with_number:?}).then((key) => show('issuingCardNumberDisplay', {{ issuingCard: {with_number:?}, ...key }}))")).await;
    assert_eq!(told(&browser, 3).await["event"], "ready");
    let number = in_frame(&browser).await;
    assert!(number.ends_with("0002") && number.len() == 19, "{number}");
    let page = all_that_the_page_has(&browser).await;
    assert!(!page.contains(&number) && !page.contains(&number.replace(' ', "")), "{page}");

    // The card itself comes without what is secret.
    let script = format!(
        "stripe.retrieveIssuingCard({physical:?}, window.key).then(({{ issuingCard }}) => heard.push(issuingCard))"
    );
    browser.run(&script).await;
    let retrieved = told(&browser, 4).await;
    assert_eq!((&retrieved["id"], retrieved.get("pin")), (&json!(physical), None));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_of_another_card_or_page_shows_an_error_and_no_pin() {
    let (company, url) = company(Options::default()).await;
    let (one, other) =
        (card(&company.asking, "physical", "4715").await, card(&company.asking, "physical", "9283").await);
    let downloads = tempfile::tempdir().unwrap();
    let browser = Browser::start(Look::Desk, downloads.path()).await;
    browser.open(&url).await;

    // The nonce of one card with the key of the other, and the other card with the key of the one.
    let script = format!(
        "Promise.all([keyFor({one:?}), keyFor({other:?})]).then(([one, other]) => {{ window.one = one; \
         show('issuingCardPinDisplay', {{ issuingCard: {other:?}, nonce: one.nonce, ephemeralKeySecret: other.ephemeralKeySecret }}) }})"
    );
    browser.run(&script).await;
    let refused = told(&browser, 0).await;
    assert_eq!(
        (&refused["event"], &refused["error"]["type"]),
        (&json!("loaderror"), &json!("invalid_request_error"))
    );
    let shown = in_frame(&browser).await;
    assert!(shown.contains("cannot be shown"), "{shown}");
    browser.run(&format!("show('issuingCardPinDisplay', {{ issuingCard: {other:?}, ...window.one }})")).await;
    assert_eq!(told(&browser, 1).await["event"], "loaderror");

    // Another page, that has both the nonce and the key, has not what Stripe.js kept in the first one.
    let key = browser.run("return window.one").await;
    browser.open(&url).await;
    browser.run(&format!("show('issuingCardPinDisplay', {{ issuingCard: {one:?}, ...{key} }})")).await;
    assert_eq!(told(&browser, 0).await["event"], "loaderror");
    for pin in ["4715", "9283"] {
        assert!(
            !in_frame(&browser).await.contains(pin) && !all_that_the_page_has(&browser).await.contains(pin)
        );
    }

    // A page that mounts nothing that is known is told so, as is one that has a secret key.
    for wrong in
        ["elements.create('card')", "Stripe('sk_test_1')", "elements.create('issuingCardPinDisplay', {})"]
    {
        let told = browser
            .run(&format!("try {{ {wrong}; return null }} catch (error) {{ return error.name }}"))
            .await;
        assert_eq!(told, "IntegrationError", "{wrong}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_browser_reads_the_key_unless_the_sandbox_forbids_it() {
    let (_company, url) = company(Options::default()).await;
    let downloads = tempfile::tempdir().unwrap();
    let browser = Browser::start(Look::Desk, downloads.path()).await;
    for cors in [true, false] {
        let sandbox = Sandbox::start(Options { cors, ..Options::default() }).await.unwrap();
        let (company_url, key_url) = (&url, sandbox.key_url());
        // From a page whose policy allows it: the elements' frame may connect to nothing else, a blank page to all.
        browser.open(&format!("{company_url}/page.js")).await;
        let script = format!(
            "window.read = undefined; fetch({key_url:?}).then((answer) => answer.json()).then((key) => {{ window.read = key.key_id }}, \
             () => {{ window.read = 'nothing' }})"
        );
        browser.run(&script).await;
        browser.until("return window.read !== undefined").await;
        let expected = if cors { "sandbox-demo-1" } else { "nothing" };
        assert_eq!(browser.run("return window.read").await, expected);
    }
}
