//! Both pages on the real server, from a row that waits for its PIN to the PIN in Stripe's frame.

use embosser::sandbox::{Options, Sandbox};
use serde_json::{Value, json};

use super::viewing::in_frames;
use crate::support::browser::Browser;
use crate::support::serve::Served;
use crate::support::{Program, expect_exit, free_port};

async fn link(served: &Served, of: &Value) -> String {
    let json = [("content-type", "application/json")];
    let body = of.to_string().into_bytes();
    let made = served.ask(reqwest::Method::POST, "/v1/pin-links", &json, body).await.expect(200).json();
    made["links"][0]["pin_link"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cardholder_chooses_a_pin_for_a_card_and_sees_it() {
    let directory = tempfile::tempdir().unwrap();
    let sandbox = Sandbox::start(Options::default()).await.unwrap();
    let address = format!("127.0.0.1:{}", free_port());
    let program = Program::new(directory.path(), &sandbox)
        // Cards of a connected account: what Stripe.js asks for is that account's, too.
        .with("EMBOSSER__STRIPE__ACCOUNT", "acct_1Connected")
        .with("EMBOSSER__PIN_PAGE__URL", &format!("http://{address}"))
        .with("EMBOSSER__PIN_PAGE__PUBLISHABLE_KEY", "pk_test_sandbox")
        .with("EMBOSSER__PIN_PAGE__STRIPE_JS", &format!("{}/v3/", sandbox.elements_url()));
    // With tokens, as a server that others reach must have them; the pages ask for none.
    let roles = ["read", "submit", "operate", "pin"].map(|role| ["--role", role]);
    let made = program.run(&[&["token", "clerk"], roles.as_flattened()].concat()).await;
    expect_exit(&made, 0);
    let tokens = directory.path().join("tokens");
    std::fs::write(&tokens, &made.stderr).unwrap();
    let program = program.with("EMBOSSER__HTTP__TOKENS_FILE", tokens.to_str().unwrap());
    let served = Served::start(&program, &["--rate", "40", "--listen", &address]);
    let served = served.with_token(String::from_utf8(made.stdout).unwrap().trim());
    let rows = "row_id,cardholder,type,currency,pin[choose]\na,ich_1,virtual,eur,true\n";
    served.upload("/v1/batches?name=staff", rows.into()).await.expect(202);
    served.until_ended("staff").await;
    let browser = Browser::watched(directory.path(), &[]).await;
    let shows = async |state: &str| {
        browser
            .until(&format!("return Boolean(document.querySelector('#{state}')?.checkVisibility())"))
            .await;
    };

    let choose = link(&served, &json!({"batch": "staff"})).await;
    browser.open(&choose).await;
    shows("form").await;
    for field in ["#pin", "#repeat"] {
        browser.keys(field, "4715").await;
    }
    // The key is that of the moment in which the PIN is sent, not of the one in which the page was opened.
    sandbox.rotate_key();
    browser.click("#submit").await;
    shows("taken").await;
    let cards = sandbox.account().cards;
    assert_eq!((cards.len(), cards[0].pin.as_deref()), (1, Some("4715")));
    browser.open("about:blank").await;
    browser.open(&choose).await;
    shows("unusable").await;

    let view = link(&served, &json!({"card": cards[0].id, "shows": ["pin", "number"]})).await;
    for _ in 0..2 {
        browser.open("about:blank").await;
        browser.open(&view).await;
        shows("ready").await;
    }
    browser.click("#show").await;
    shows("shown").await;
    assert_eq!(in_frames(&browser).await[0], "4715");
    browser.open("about:blank").await;
    browser.open(&view).await;
    shows("unusable").await;
    // Neither the pages' policy nor anything else was in the way of anything; the links that were used said so.
    for entry in browser.log("browser").await {
        let message = entry["message"].as_str().unwrap();
        assert!(message.contains("/v1/pin-links/look") && message.contains("404"), "{message}");
    }
}
