//! Promise: in the sandbox a PIN is blocked, unblocked and changed as Stripe tells it (docs.stripe.com/issuing/cards/pin-management),
//! a canceled card stays canceled, a replacement follows its rules, and an ephemeral key shows one card to one page for a while.

use crate::support;

use std::time::Duration;

use embosser::sandbox::{Faults, Options};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use support::asking::{Answer, Asking, with};

/// One card of a sandbox, with whoever holds it.
struct Held {
    asking: Asking,
    card: String,
}

impl Held {
    /// A physical card, active, whose cardholder lives there.
    async fn of(country: &str, pin: Option<&str>) -> Self {
        let asking = Asking::of(Options::default()).await;
        let holder = format!(
            "name=A B&billing[address][line1]=1&billing[address][city]=C&billing[address][postal_code]=T&\
             billing[address][country]={country}"
        );
        let holder = asking.post("/v1/issuing/cardholders", "h", &holder).await.body;
        let holder = holder["id"].as_str().unwrap().to_owned();
        let mut body = format!("cardholder={holder}&type=physical&currency=eur&status=active");
        if let Some(pin) = pin {
            body += &format!("&pin[encrypted_number]={}", asking.jwe(pin).await);
        }
        let card = asking.create("c", &body).await;
        assert_eq!(card.status, 200, "{card:?}");
        Self { card: card.body["id"].as_str().unwrap().to_owned(), asking }
    }

    async fn order(&self, what: &str, order: Value) -> Value {
        let path = format!("/_sandbox/cards/{}/{what}", self.card);
        let told = self.asking.send(Method::POST, &path, &[], &order.to_string()).await.unwrap();
        assert_eq!(told.status, 200, "{told:?}");
        told.body
    }

    async fn enter(&self, pin: &str) -> Value {
        self.order("enter_pin", json!({"pin": pin, "where": "terminal"})).await
    }

    /// What came of an entry, in a word.
    async fn enters(&self, pin: &str) -> String {
        self.enter(pin).await["result"].as_str().unwrap().to_owned()
    }

    async fn at_atm(&self, order: Value) -> String {
        self.order("atm", order).await["result"].as_str().unwrap().to_owned()
    }

    async fn update(&self, body: &str) -> Answer {
        self.asking.send(Method::POST, &format!("/v1/issuing/cards/{}", self.card), &[], body).await.unwrap()
    }

    async fn set_pin(&self, pin: &str) -> Answer {
        let jwe = self.asking.jwe(pin).await;
        self.update(&format!("pin[encrypted_number]={jwe}")).await
    }

    async fn status(&self) -> String {
        let card = self.asking.get(&format!("/v1/issuing/cards/{}", self.card)).await.body;
        card["status"].as_str().unwrap().to_owned()
    }

    async fn block(&self) {
        assert_eq!([self.enters("9999").await, self.enters("9998").await], ["wrong", "wrong"]);
        assert_eq!(self.enters("9997").await, "blocked");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn three_wrong_entries_in_a_row_make_an_online_card_inactive_and_status_active_unblocks_it() {
    for country in ["US", "DE", "JP"] {
        let held = Held::of(country, Some("4711")).await;
        let wrong =
            json!({"result": "wrong", "tries_left": 2, "verification": "online", "card_status": "active"});
        assert_eq!(held.enter("0000").await, wrong, "{country}");
        assert_eq!(held.enters("0001").await, "wrong");
        assert_eq!(held.enters("4711").await, "accepted", "the right one in between");
        held.block().await;
        assert_eq!((held.enters("4711").await, held.status().await), ("blocked".into(), "inactive".into()));
        assert_eq!(held.set_pin("1234").await.status, 200);
        assert_eq!(held.enters("1234").await, "blocked", "a new PIN unblocks none that the issuer verifies");
        assert_eq!(held.update("status=active").await.body["status"], "active");
        assert_eq!(held.enter("0000").await["tries_left"], 2, "the count begins anew");
        assert_eq!(held.enters("1234").await, "accepted");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn three_wrong_entries_block_an_offline_pin_in_the_chip_until_one_is_set() {
    for country in ["GB", "IE", "FR"] {
        let held = Held::of(country, Some("4711")).await;
        held.block().await;
        let blocked = held.enter("4711").await;
        assert_eq!(
            (&blocked["result"], &blocked["verification"], &blocked["card_status"]),
            (&json!("blocked"), &json!("offline"), &json!("active")),
            "{country}"
        );
        assert_eq!(held.update("status=active").await.status, 200);
        assert_eq!(held.enters("4711").await, "blocked", "the card's status has nothing to do with its chip");
        assert_eq!(held.set_pin("4711").await.status, 200);
        assert_eq!(held.enters("4711").await, "accepted", "the same PIN, set again");
        // A country in which the issuer verifies does not ask the chip.
        held.block().await;
        let abroad = held.order("enter_pin", json!({"pin": "4711", "country": "US"})).await;
        assert_eq!((&abroad["result"], &abroad["verification"]), (&json!("accepted"), &json!("online")));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pin_changed_by_the_api_works_offline_only_after_the_old_one_and_online_at_once() {
    for country in ["IE", "GB", "FR", "MX", "AE"] {
        let held = Held::of(country, Some("4711")).await;
        held.set_pin("1234").await;
        assert_eq!(held.asking.sandbox.account().cards[0].pin.as_deref(), Some("1234"), "{country}");
        assert_eq!([held.enters("1234").await, held.enters("4711").await], ["wrong", "accepted"]);
        assert_eq!([held.enters("4711").await, held.enters("1234").await], ["wrong", "accepted"]);
    }
    let held = Held::of("US", None).await;
    assert_eq!(held.enters("0000").await, "accepted", "in test mode, until one is set");
    held.set_pin("1234").await;
    assert_eq!([held.enters("0000").await, held.enters("1234").await], ["wrong", "accepted"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_atm_changes_and_unblocks_pins_at_once_except_in_france() {
    let held = Held::of("GB", Some("4711")).await;
    let change = |pin: &str, new: &str| json!({"action": "change", "pin": pin, "new_pin": new});
    assert_eq!(held.at_atm(change("0000", "1234")).await, "wrong");
    assert_eq!(held.at_atm(change("4711", "1234")).await, "accepted");
    assert_eq!(held.enters("1234").await, "accepted");
    assert_eq!(held.asking.sandbox.account().cards[0].pin.as_deref(), Some("1234"));
    held.block().await;
    assert_eq!(held.at_atm(change("1234", "5678")).await, "blocked");
    assert_eq!(held.at_atm(json!({"action": "unblock", "pin": "0000"})).await, "wrong");
    assert_eq!(held.at_atm(json!({"action": "unblock", "pin": "1234"})).await, "accepted");
    assert_eq!(held.enters("1234").await, "accepted");

    let held = Held::of("FR", Some("4711")).await;
    assert_eq!(held.at_atm(change("4711", "1234")).await, "not_offered");
    held.block().await;
    assert_eq!(held.at_atm(json!({"action": "unblock", "pin": "4711"})).await, "not_offered");
    let abroad = json!({"action": "unblock", "pin": "4711", "country": "GB"});
    assert_eq!(held.at_atm(abroad).await, "accepted");

    let held = Held::of("US", Some("4711")).await;
    held.block().await;
    assert_eq!(
        held.at_atm(json!({"action": "unblock", "pin": "4711"})).await,
        "blocked",
        "only by its status"
    );
    for (what, order) in [
        ("enter_pin", json!({"pin": "1", "new_pin": "2"})),
        ("atm", json!({"pin": "4711"})),
        ("atm", json!({"action": "change", "pin": "4711", "new_pin": "12345"})),
        ("atm", json!({"action": "eject", "pin": "4711"})),
        ("steal", json!({"pin": "4711"})),
    ] {
        let path = format!("/_sandbox/cards/{}/{what}", held.card);
        let told = held.asking.send(Method::POST, &path, &[], &order.to_string()).await.unwrap();
        assert_eq!(told.status, 400, "{what} {order}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_canceled_card_stays_so_and_takes_no_pin() {
    let held = Held::of("IE", Some("4711")).await;
    assert_eq!(held.update("status=inactive").await.status, 200);
    assert_eq!(held.enters("4711").await, "inactive");
    assert_eq!(held.update("status=canceled&cancellation_reason=lost").await.status, 200);
    assert_eq!(held.enters("4711").await, "canceled");
    for change in ["status=active", "status=inactive", "status=canceled"] {
        let refused = held.update(&format!("{change}&metadata[a]=b")).await;
        let error = &refused.body["error"];
        assert_eq!((refused.status, &error["param"]), (400, &json!("status")), "{change}");
        assert_eq!(error["type"], "invalid_request_error");
    }
    let refused = held.set_pin("1234").await;
    assert_eq!((refused.status, &refused.body["error"]["param"]), (400, &json!("pin[encrypted_number]")));
    let card = held.asking.get(&format!("/v1/issuing/cards/{}", held.card)).await.body;
    assert_eq!((&card["status"], &card["metadata"]), (&json!("canceled"), &json!({})), "nothing of it");
    assert_eq!(held.asking.sandbox.account().cards[0].pin.as_deref(), Some("4711"));
    assert_eq!(held.update("metadata[a]=b").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn replacements_follow_their_rules_and_have_a_pin_of_their_own() {
    let held = Held::of("US", Some("4711")).await;
    let replace = async |old: &str, reason: &str, kind: &str| {
        let body = format!("type={kind}&currency=usd&replacement_for={old}&replacement_reason={reason}");
        held.asking.send(Method::POST, "/v1/issuing/cards", &[], &body).await.unwrap()
    };
    let card = async |id: &str| held.asking.get(&format!("/v1/issuing/cards/{id}")).await.body;
    let old = card(&held.card).await;
    let refused = async |old: &str, reason: &str, kind: &str, param: &str| {
        let refused = replace(old, reason, kind).await;
        assert_eq!(refused.body["error"]["param"], param, "{refused:?}");
        refused.status
    };
    for reason in ["lost", "stolen"] {
        assert_eq!(refused(&held.card, reason, "physical", "replacement_for").await, 400, "not yet canceled");
    }
    assert_eq!(refused("ic_nobody", "expired", "physical", "replacement_for").await, 404);
    assert_eq!(refused(&held.card, "damaged", "virtual", "replacement_reason").await, 400);
    let half = format!("type=physical&currency=usd&replacement_for={}", held.card);
    assert_eq!(held.asking.create("half", &half).await.body["error"]["param"], "replacement_reason");
    let half = "type=physical&currency=usd&replacement_reason=lost";
    assert_eq!(held.asking.create("half", half).await.body["error"]["param"], "replacement_for");

    let new = replace(&held.card, "damaged", "physical").await.body;
    let id = new["id"].as_str().unwrap();
    assert_eq!((&new["last4"], &new["status"]), (&old["last4"], &json!("inactive")), "the number is kept");
    let replaced = card(&held.card).await;
    assert_eq!((&replaced["replaced_by"], &replaced["status"]), (&json!(id), &json!("active")));
    let path = format!("/v1/issuing/cards/{id}");
    held.asking.send(Method::POST, &path, &[], "status=active").await.unwrap();
    assert_eq!(card(&held.card).await["status"], "canceled", "once the new one is active");
    let held_new = |pin: &str| json!({"pin": pin}).to_string();
    let enter = async |pin: &str| {
        let path = format!("/_sandbox/cards/{id}/enter_pin");
        held.asking.send(Method::POST, &path, &[], &held_new(pin)).await.unwrap().body["result"].clone()
    };
    assert_eq!([enter("4711").await, enter("0000").await], ["wrong", "accepted"], "the PIN is not inherited");

    let cancel = held.asking.send(Method::POST, &path, &[], "status=canceled&cancellation_reason=stolen");
    assert_eq!(cancel.await.unwrap().status, 200);
    let after_theft = replace(id, "stolen", "physical").await.body;
    assert_ne!(after_theft["last4"], new["last4"], "another number");
    assert_eq!(card(id).await["replaced_by"], after_theft["id"]);
}

/// A nonce as Stripe.js gets it: what it hands to the page, and what it keeps.
async fn nonce(asking: &Asking, card: &str) -> (String, String) {
    let body = format!("key=pk_test_1&issuing_card={card}");
    let made = asking.send(Method::POST, "/v1/ephemeral_key_nonces", &[], &body).await.unwrap();
    let half = |name: &str| made.body[name].as_str().unwrap().to_owned();
    (half("public_nonce"), half("private_nonce"))
}

async fn ephemeral_key(asking: &Asking, version: &[(&str, &str)], card: &str, nonce: &str) -> Answer {
    let body = format!("issuing_card={card}&nonce={nonce}");
    asking.send(Method::POST, "/v1/ephemeral_keys", version, &body).await.unwrap()
}

/// The card as a frame of Stripe.js asks for it.
async fn shown(asking: &Asking, secret: &str, card: &str, private_nonce: &str) -> (StatusCode, Value) {
    let query = format!("expand[]=pin.number&ephemeral_key_private_nonce={private_nonce}");
    let url = format!("{}/v1/issuing/cards/{card}?{query}", asking.sandbox.api_url());
    let answer = asking.client.get(url).bearer_auth(secret).send().await.unwrap();
    (answer.status(), answer.json().await.unwrap())
}

const VERSION: &[(&str, &str)] = &[("stripe-version", "2026-07-29")];

#[tokio::test(flavor = "multi_thread")]
async fn an_ephemeral_key_is_of_one_card_and_one_nonce_for_a_quarter_of_an_hour() {
    let held = Held::of("US", Some("4711")).await;
    let (asking, card) = (&held.asking, held.card.as_str());
    let other =
        asking.create("o", "type=physical&currency=usd").await.body["id"].as_str().unwrap().to_owned();
    let (public, private) = nonce(asking, card).await;
    for (version, nonce_of, card, param) in [
        (&[][..], public.as_str(), card, Value::Null),
        (&[("stripe-version", "2019-12-03")][..], &public, card, Value::Null),
        (VERSION, "ephkn_pub_none", card, json!("nonce")),
        (VERSION, &private, card, json!("nonce")),
        (VERSION, &public, other.as_str(), json!("nonce")),
        (VERSION, &public, "ic_none", json!("issuing_card")),
    ] {
        let refused = ephemeral_key(asking, version, card, nonce_of).await;
        let status = if card == "ic_none" { 404 } else { 400 };
        assert_eq!(
            (refused.status, &refused.body["error"]["param"]),
            (status, &param),
            "{version:?} {nonce_of} {card}"
        );
    }
    let foreign = [VERSION[0], ("stripe-account", "acct_2")];
    assert_eq!(ephemeral_key(asking, &foreign, card, &public).await.status, 404);

    let made = ephemeral_key(asking, VERSION, card, &public).await;
    assert_eq!((made.status, &made.body["object"]), (200, &json!("ephemeral_key")), "{made:?}");
    let (created, expires) = (made.body["created"].as_u64().unwrap(), made.body["expires"].as_u64().unwrap());
    assert_eq!(expires - created, 15 * 60);
    let secret = made.body["secret"].as_str().unwrap();
    assert!(secret.starts_with("ek_test_"));
    let again = ephemeral_key(asking, VERSION, card, &public).await;
    assert_eq!(
        (again.status, &again.body["error"]["param"]),
        (400, &json!("nonce")),
        "a nonce makes one key"
    );
    assert_eq!(asking.sandbox.account().ephemeral_keys, 1);

    for _ in 0..2 {
        let (status, card) = shown(asking, secret, card, &private).await;
        assert_eq!((status, &card["pin"]), (StatusCode::OK, &json!({"number": "4711"})));
    }
    let (_, private_of_other) = nonce(asking, card).await;
    assert_eq!(shown(asking, secret, card, &private_of_other).await.0, StatusCode::BAD_REQUEST);
    assert_eq!(shown(asking, secret, card, &public).await.0, StatusCode::BAD_REQUEST);
    assert_eq!(shown(asking, secret, &other, &private).await.0, StatusCode::FORBIDDEN);
    assert_eq!(shown(asking, "ek_test_none", card, &private).await.0, StatusCode::UNAUTHORIZED);

    asking.sandbox.advance(Duration::from_secs(15 * 60 - 30));
    assert_eq!(shown(asking, secret, card, &private).await.0, StatusCode::OK);
    asking.sandbox.advance(Duration::from_secs(31));
    let (status, expired) = shown(asking, secret, card, &private).await;
    assert_eq!((status, &expired["error"]["code"]), (StatusCode::UNAUTHORIZED, &json!("api_key_expired")));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ephemeral_key_obeys_idempotency_faults_and_its_own_deletion() {
    let held = Held::of("US", None).await;
    let (asking, card) = (&held.asking, held.card.as_str());
    let (public, private) = nonce(asking, card).await;
    let headers = [VERSION[0], ("idempotency-key", "k")];
    asking.sandbox.set_faults(Faults { error_before: 1.0, ..Faults::default() });
    let (unlucky, _) = nonce(asking, card).await;
    assert_eq!(ephemeral_key(asking, VERSION, card, &unlucky).await.status, 500);
    asking.sandbox.set_faults(with(Faults::default()).faults);
    let first = ephemeral_key(asking, &headers, card, &public).await;
    let again = ephemeral_key(asking, &headers, card, &public).await;
    assert_eq!((again.replayed, &again.body["secret"]), (true, &first.body["secret"]));
    let secret = first.body["secret"].as_str().unwrap();
    assert_eq!(shown(asking, secret, card, &private).await.1["pin"]["number"], "0000");
    let path = format!("/v1/ephemeral_keys/{}", first.body["id"].as_str().unwrap());
    assert_eq!(asking.send(Method::DELETE, &path, &[], "").await.unwrap().status, 200);
    assert_eq!(shown(asking, secret, card, &private).await.0, StatusCode::UNAUTHORIZED);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_answer_to_a_secret_key_holds_a_pin_and_a_publishable_one_reads_nothing() {
    let mut held = Held::of("US", Some("4711")).await;
    let path = format!("/v1/issuing/cards/{}", held.card);
    let changed = held.set_pin("4715").await;
    let read = held.asking.get(&format!("{path}?expand[]=pin.number&expand[]=number")).await;
    let listed = held.asking.get("/v1/issuing/cards").await;
    for answer in [changed, read, listed] {
        let text = answer.body.to_string();
        assert!(answer.status == 200 && !text.contains("\"pin\"") && !text.contains("4715"), "{text}");
    }
    held.asking.api_key = "pk_test_1";
    assert_eq!(held.asking.get(&path).await.status, 401);
    held.asking.api_key = "sk_test_1";
    let nonce =
        held.asking.send(Method::POST, "/v1/ephemeral_key_nonces", &[], "key=sk_test_1").await.unwrap();
    assert_eq!(nonce.status, 401, "a secret key does not belong into a browser");
    // In live mode a PIN that nobody set is not 0000 for all.
    held.asking.api_key = "sk_live_1";
    let mut accepted = 0;
    for number in 0..20 {
        let card =
            held.asking.create(&format!("l{number}"), "type=virtual&currency=usd&status=active").await.body;
        let path = format!("/_sandbox/cards/{}/enter_pin", card["id"].as_str().unwrap());
        let told = held.asking.send(Method::POST, &path, &[], r#"{"pin": "0000"}"#).await.unwrap().body;
        accepted += usize::from(told["result"] == "accepted");
    }
    assert!(accepted < 5, "{accepted} of 20");
}
