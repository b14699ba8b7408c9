//! Cardholders' pages without a browser: what they send to a real server, and what came of it.

use std::collections::BTreeMap;

use embosser::encrypt::encrypt_pin;
use embosser::sandbox::{Options, Sandbox};
use serde_json::{Value, json};

use super::serve::{Answer, Served};
use super::{Program, client_of};

/// A sandbox, and a program with pages for cardholders.
pub struct Stage {
    pub directory: tempfile::TempDir,
    pub sandbox: Sandbox,
    pub program: Program,
}

pub async fn stage() -> Stage {
    let directory = tempfile::tempdir().unwrap();
    let sandbox = Sandbox::start(Options::default()).await.unwrap();
    let program = Program::new(directory.path(), &sandbox)
        .with("EMBOSSER__PIN_PAGE__URL", "https://pins.example.com/")
        .with("EMBOSSER__PIN_PAGE__PUBLISHABLE_KEY", "pk_test_1")
        .with("EMBOSSER__PIN_PAGE__REFUSED", "1234, 2000");
    Stage { directory, sandbox, program }
}

/// One row whose cardholder chooses the PIN, and two others.
pub const ONE: &str = "row_id,cardholder,type,currency,pin[choose]\na,ich_1,virtual,eur,true\nb,ich_2,virtual,eur,\nc,ich_3,virtual,eur,\n";

pub fn token_of(link: &str) -> &str {
    let (page, token) = link.split_once('#').unwrap();
    assert_eq!(page, "https://pins.example.com/pin");
    assert_eq!(token.len(), 43);
    token
}

pub async fn encrypted(sandbox: &Sandbox, pin: &str) -> String {
    encrypt_pin(pin, &client_of(sandbox).pin_key().await.unwrap()).unwrap()
}

pub async fn ask(served: &Served, path: &str, body: &Value) -> Answer {
    let json = [("content-type", "application/json")];
    served.ask(reqwest::Method::POST, path, &json, body.to_string().into_bytes()).await
}

pub async fn choose(served: &Served, link: &str, jwe: &str) -> Answer {
    ask(served, "/v1/pin-links/choose", &json!({"link": token_of(link), "pin": jwe})).await
}

pub async fn look(served: &Served, link: &str) -> Answer {
    ask(served, "/v1/pin-links/look", &json!({"link": token_of(link)})).await
}

/// Links of a batch, by row.
pub async fn links_of(served: &Served, batch: &str) -> BTreeMap<String, String> {
    let made = ask(served, "/v1/pin-links", &json!({"batch": batch})).await.expect(200).json();
    let links = made["links"].as_array().unwrap().iter();
    links
        .map(|link| {
            let text = |name: &str| link[name].as_str().unwrap().to_owned();
            (text("row_id"), text("pin_link"))
        })
        .collect()
}

/// Uploads [`ONE`] as that batch and waits until its row waits; its link.
pub async fn one_that_waits(served: &Served, batch: &str) -> String {
    served.upload(&format!("/v1/batches?name={batch}"), ONE.into()).await.expect(202);
    served.until_ended(batch).await;
    links_of(served, batch).await.remove("a").unwrap()
}

/// The PINs of the cards that a job has: one, if all is well.
pub fn pins_of(sandbox: &Sandbox, job: &str) -> Vec<Option<String>> {
    let cards = sandbox.account().cards.into_iter();
    cards.filter(|card| card.job.as_deref() == Some(job)).map(|card| card.pin).collect()
}

/// Every PIN that a card was made with, by its job.
pub fn pins(sandbox: &Sandbox) -> BTreeMap<String, Option<String>> {
    let cards = sandbox.account().cards.into_iter();
    cards.map(|card| (card.job.unwrap_or_default(), card.pin)).collect()
}
