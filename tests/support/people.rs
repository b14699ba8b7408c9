//! Manifests of people who get a cardholder and a card each, and what came of them.

use std::collections::BTreeMap;

use embosser::encrypt::encrypt_pin;
use embosser::sandbox::{Faults, Options};

use super::issuing::Issuing;
use super::{Program, http_client};

/// Stripe with these faults, and a program that soon knows that a call has ended.
pub async fn issuing_with(faults: Faults) -> (Issuing, Program) {
    let issuing = Issuing::with(Options { faults, ..Options::default() }).await;
    let program = issuing
        .program()
        .with("EMBOSSER__STRIPE__CALL_SECONDS_MAX", "3")
        .with("EMBOSSER__STRIPE__TOTAL_TIMEOUT_SECONDS", "3")
        .with("EMBOSSER__STRIPE__LIST_LAG_SECONDS", "0.1");
    (issuing, program)
}

pub const ADDRESS: &str = "cardholder[billing][address]";

/// The columns of a person.
pub fn people_header() -> String {
    format!(
        "cardholder[name],cardholder[email],{ADDRESS}[line1],{ADDRESS}[city],{ADDRESS}[postal_code],{ADDRESS}[country]"
    )
}

pub fn person(number: usize) -> String {
    format!("Person {number},p{number}@example.com,{number} Main Street,Cork,T12,IE")
}

/// PINs encrypted under the key that is current now.
pub async fn jwes(issuing: &Issuing, pins: impl Iterator<Item = String>) -> Vec<String> {
    let key = http_client().get(issuing.sandbox.key_url()).send().await.unwrap().bytes().await.unwrap();
    pins.map(|pin| encrypt_pin(&pin, &key).unwrap()).collect()
}

/// Of each row its outcome, its card and its cardholder, as the results file has them.
pub fn results(issuing: &Issuing, name: &str) -> BTreeMap<String, [String; 3]> {
    let mut reader = csv::Reader::from_path(issuing.path(name)).unwrap();
    let headers = reader.headers().unwrap().clone();
    let at = |name: &str| headers.iter().position(|header| header == name).unwrap();
    let of = [at("outcome"), at("card_id"), at("cardholder_id")];
    let rows = reader.records().map(|row| {
        let row = row.unwrap();
        (row[at("row_id")].to_owned(), of.map(|at| row[at].to_owned()))
    });
    rows.collect()
}
