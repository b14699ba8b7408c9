//! Promise: once cards are printed, their batch tells where each is: by reads at a low pace that ask no card twice in vain, and
//! by Stripe's signed events, of which nothing older takes the place of what is newer.

use crate::support;

use std::collections::BTreeMap;

use embosser::ledger::{Ledger, Scope};
use embosser::sandbox::{Options, Sandbox};
use embosser::shipping::{KnownShipping, Shipping};
use reqwest::Method;
use serde_json::{Value, json};
use support::issuing::{Issuing, said};
use support::serve::Served;
use support::{Program, asking, expect_exit, http_client};

/// Physical and virtual cards by turns, each with an address.
fn csv(rows: usize) -> String {
    let address = "shipping[address][line1],shipping[address][city],shipping[address][postal_code],shipping[address][country]";
    let mut text = format!("row_id,cardholder,type,currency,shipping[name],{address}\n");
    for row in 0..rows {
        text += &match row % 2 {
            0 => format!("p{row},ich_1,physical,eur,Ann Example,1 High Street,Dublin,D02 X285,IE\n"),
            _ => format!("v{row},ich_1,virtual,eur,,,,,\n"),
        };
    }
    text
}

/// Moves a card's way on, as Stripe's test helpers do.
async fn ship(sandbox: &Sandbox, card: &str, word: &str) -> u16 {
    let url = format!("{}/v1/test_helpers/issuing/cards/{card}/shipping/{word}", sandbox.api_url());
    http_client().post(url).bearer_auth("sk_test_of_the_tests").send().await.unwrap().status().as_u16()
}

/// The card of each row.
fn cards(sandbox: &Sandbox, batch: &str) -> BTreeMap<String, String> {
    let cards = sandbox.account().cards.into_iter();
    let named = cards.filter_map(|card| {
        let row = card.job?.strip_prefix(&format!("{batch}/"))?.to_owned();
        Some((row, card.id))
    });
    named.collect()
}

/// Reads of single cards so far.
fn reads(sandbox: &Sandbox) -> usize {
    let requests = sandbox.requests();
    requests.iter().filter(|seen| seen.method == "GET" && seen.path.contains("/cards/ic_")).count()
}

/// What a batch's results say of each row's way: status, number, link and arrival.
async fn told(program: &Program, batch: &str) -> BTreeMap<String, [String; 4]> {
    let results = program.run(&["results", batch]).await;
    expect_exit(&results, 0);
    let mut reader = csv::Reader::from_reader(results.stdout.as_slice());
    let header = reader.headers().unwrap().clone();
    let last = ["shipping_status", "tracking_number", "tracking_url", "eta"];
    assert_eq!(header.iter().skip(header.len() - 5).take(4).collect::<Vec<_>>(), last);
    let at = |name: &str| header.iter().position(|column| column == name).unwrap();
    let rows = reader.records().map(|row| {
        let row = row.unwrap();
        (row[at("row_id")].to_owned(), last.map(|name| row[at(name)].to_owned()))
    });
    rows.collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn reads_tell_where_physical_cards_are_and_none_is_read_in_vain() {
    let issuing = Issuing::with(Options::default()).await;
    let program = issuing.program();
    std::fs::write(issuing.path("staff.csv"), csv(6)).unwrap();
    expect_exit(&program.run(&["issue", "staff.csv"]).await, 0);
    let cards = cards(&issuing.sandbox, "staff");
    assert!(told(&program, "staff").await.values().all(|told| told.iter().all(String::is_empty)));
    for word in ["submit", "ship", "deliver"] {
        assert_eq!(ship(&issuing.sandbox, &cards["p0"], word).await, 200);
    }
    assert_eq!(ship(&issuing.sandbox, &cards["p2"], "ship").await, 200);
    assert_eq!(ship(&issuing.sandbox, &cards["v1"], "ship").await, 400, "a virtual card is not shipped");

    let before = reads(&issuing.sandbox);
    let tracked = program.run(&["track", "staff"]).await;
    expect_exit(&tracked, 0);
    let words = said(&tracked);
    assert!(words.contains("6 reads, at most 5 in a second: about 2 s."), "{words}");
    assert!(words.contains("3 physical and 3 virtual cards were looked at"), "{words}");
    assert_eq!(reads(&issuing.sandbox) - before, 6);
    let seen = told(&program, "staff").await;
    assert_eq!(seen["p0"][0], "delivered");
    let [status, number, url, eta] = &seen["p2"];
    assert_eq!((status.as_str(), number.is_empty()), ("shipped", false));
    assert!(url.starts_with("https://") && eta.ends_with('Z'), "{url} {eta}");
    assert_eq!(seen["p4"], ["pending", "", "", ""]);
    assert_eq!(seen["v1"], ["", "", "", ""]);

    // What has arrived, and what is never sent, is not read again.
    assert_eq!(ship(&issuing.sandbox, &cards["p2"], "return").await, 200);
    let before = reads(&issuing.sandbox);
    let again = program.run(&["track", "staff"]).await;
    expect_exit(&again, 0);
    assert_eq!(reads(&issuing.sandbox) - before, 2, "{}", said(&again));
    assert_eq!(told(&program, "staff").await["p2"][0], "returned");
    let json = program.run(&["results", "staff", "--format", "json"]).await;
    let json: Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(json[2]["shipping_status"], "returned");
    assert_eq!(json[1].get("shipping_status"), None);
    // Another account's key reads nothing, and of a batch that is not there nothing is read.
    let before = reads(&issuing.sandbox);
    let other = program.clone().with("STRIPE_API_KEY", "sk_test_acct_B_1").run(&["track", "staff"]).await;
    expect_exit(&other, 2);
    expect_exit(&program.run(&["track", "stuff"]).await, 2);
    assert_eq!(reads(&issuing.sandbox), before);
}

/// The rows of a batch as the API tells them, by `row_id`.
async fn rows(served: &Served, batch: &str) -> BTreeMap<String, Value> {
    let page = served.get(&format!("/v1/batches/{batch}/rows")).await.expect(200).json();
    let rows = page["rows"].as_array().unwrap().iter();
    rows.map(|row| (row["row_id"].as_str().unwrap().to_owned(), row.clone())).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_http_it_is_asked_for_in_the_background() {
    let issuing = Issuing::with(Options::default()).await;
    let served = Served::start(&issuing.program(), &["--rate", "200"]);
    served.upload("/v1/batches?name=staff", csv(4).into_bytes()).await.expect(202);
    served.until_ended("staff").await;
    let cards = cards(&issuing.sandbox, "staff");
    assert_eq!(ship(&issuing.sandbox, &cards["p2"], "ship").await, 200);
    served.post("/v1/batches/nobody/track").await.expect(404);
    let plan = served.post("/v1/batches/staff/track").await.expect(202).json();
    assert_eq!(plan, json!({"reads": 4, "seconds": 0.8}));
    // One at a time.
    let busy = served.post("/v1/batches/staff/track").await;
    assert_eq!(busy.status.as_u16(), 409, "{}", busy.text);
    let began = std::time::Instant::now();
    let seen = loop {
        let rows = rows(&served, "staff").await;
        if rows["p2"]["shipping_status"] == "shipped" && rows["p0"]["shipping_status"] == "pending" {
            break rows;
        }
        assert!(began.elapsed() < support::issuing::RUN_MAX, "never came: {rows:?}");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    };
    assert!(seen["p2"]["tracking_url"].as_str().unwrap().starts_with("https://"));
    assert!(seen["p2"]["eta"].is_string() && seen["p0"].get("tracking_number").is_none());
    assert!(seen["v1"].get("shipping_status").is_none());
    let results = served.get("/v1/batches/staff/results.csv").await.expect(200).text;
    assert!(results.contains(",shipped,"), "{results}");
}

const SECRET: &str = "whsec_of_the_tests_and_nobody_else";

/// The header of a body that was signed at that time, as Stripe makes it.
pub(super) fn signed(secret: &str, body: &[u8], at: i64) -> String {
    let key = openssl::pkey::PKey::hmac(secret.as_bytes()).unwrap();
    let mut signer = openssl::sign::Signer::new(openssl::hash::MessageDigest::sha256(), &key).unwrap();
    signer.update(format!("{at}.").as_bytes()).unwrap();
    signer.update(body).unwrap();
    let signature: String = signer.sign_to_vec().unwrap().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("t={at},v1={signature}")
}

async fn post(served: &Served, header: &str, kind: &str, body: &[u8]) -> support::serve::Answer {
    let headers = [("content-type", kind), ("stripe-signature", header)];
    served.ask(Method::POST, "/v1/stripe-events", &headers, body.to_vec()).await
}

/// Sends an event of a card, well signed; answers whether it was kept.
async fn tell(served: &Served, created: i64, card: &Value, more: Value) -> bool {
    let mut event = json!({"id": "evt_1", "object": "event", "type": "issuing_card.updated", "created": created,
        "livemode": false, "data": {"object": card}});
    for (name, value) in more.as_object().into_iter().flatten() {
        event[name] = value.clone();
    }
    let body = event.to_string().into_bytes();
    let header = signed(SECRET, &body, jiff::Timestamp::now().as_second());
    let answer = post(served, &header, "application/json; charset=utf-8", &body).await.expect(200).json();
    answer["kept"].as_bool().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stripes_events_tell_it_if_they_are_stripes_and_news() {
    let issuing = Issuing::with(Options::default()).await;
    std::fs::write(issuing.path("staff.csv"), csv(4)).unwrap();
    expect_exit(&issuing.program().run(&["issue", "staff.csv"]).await, 0);
    let cards = cards(&issuing.sandbox, "staff");
    assert_eq!(ship(&issuing.sandbox, &cards["p0"], "ship").await, 200);
    let url = format!("{}/v1/issuing/cards/{}", issuing.sandbox.api_url(), cards["p0"]);
    let card = http_client().get(url).bearer_auth("sk_test_1").send().await.unwrap().text().await.unwrap();
    let card: Value = serde_json::from_str(&card).unwrap();

    // Without a secret no event is taken; with what is none, nothing is served.
    let served = Served::start(&issuing.program(), &[]);
    post(&served, "t=1,v1=00", "application/json", b"{}").await.expect(404);
    drop(served);
    let secret = issuing.path("secret");
    let program = issuing.program().with("EMBOSSER__STRIPE_EVENTS__SECRET_FILE", secret.to_str().unwrap());
    std::fs::write(&secret, "sk_test_no_such_secret\n").unwrap();
    let refused = program.run(&["serve", "--listen", "127.0.0.1:0"]).await;
    expect_exit(&refused, 2);
    let words = said(&refused);
    assert!(words.contains("stripe_events.secret_file") && !words.contains("no_such_secret"), "{words}");
    std::fs::write(&secret, format!("{SECRET}\n")).unwrap();
    let served = Served::start(&program, &[]);

    // Nobody else's.
    let body =
        json!({"type": "issuing_card.updated", "created": 1, "livemode": false, "data": {"object": card}});
    let body = body.to_string().into_bytes();
    let now = jiff::Timestamp::now().as_second();
    let other = signed("whsec_of_somebody_else", &body, now);
    let old = signed(SECRET, &body, now - 400);
    let good = signed(SECRET, &body, now);
    for (header, body) in [("", &body[..]), (&other, &body), (&old, &body), (&good, b"{}")] {
        let refused = post(&served, header, "application/json", body).await.expect(400);
        assert!(!refused.text.contains("whsec_"), "{}", refused.text);
    }
    post(&served, &good, "text/plain", &body).await.expect(415);
    post(&served, &good, "application/json", &vec![b' '; 200 << 10]).await.expect(413);
    let nothing = b"[1]";
    post(&served, &signed(SECRET, nothing, now), "application/json", nothing).await.expect(400);
    assert_eq!(rows(&served, "staff").await["p0"].get("shipping_status"), None);

    // News, told twice, and then what was before it.
    assert!(tell(&served, 1000, &card, Value::Null).await);
    let seen = rows(&served, "staff").await;
    assert_eq!(seen["p0"]["shipping_status"], "shipped");
    assert_eq!(seen["p0"]["tracking_number"], card["shipping"]["tracking_number"]);
    assert!(!tell(&served, 1000, &card, Value::Null).await);
    let moved = |status: &str| {
        let mut card = card.clone();
        card["shipping"]["status"] = status.into();
        card
    };
    assert!(!tell(&served, 999, &moved("pending"), Value::Null).await);
    assert_eq!(rows(&served, "staff").await["p0"]["shipping_status"], "shipped");
    assert!(tell(&served, 2000, &moved("delivered"), Value::Null).await);
    assert!(!tell(&served, 1500, &moved("shipped"), Value::Null).await);

    // What is about something else.
    let mut unknown = card.clone();
    unknown["id"] = "ic_of_nobody".into();
    assert!(!tell(&served, 3000, &unknown, Value::Null).await);
    unknown["metadata"] = json!({});
    assert!(!tell(&served, 3000, &unknown, Value::Null).await);
    let returned = moved("returned");
    for more in [
        json!({"type": "issuing_card.created"}),
        json!({"type": "charge.refunded"}),
        json!({"livemode": true}),
        json!({"account": "acct_of_somebody_else"}),
    ] {
        assert!(!tell(&served, 3000, &returned, more).await);
    }
    assert!(!tell(&served, 3000, &json!({"object": "another form"}), Value::Null).await);
    assert_eq!(rows(&served, "staff").await["p0"]["shipping_status"], "delivered");
    // Nothing of the secret stands in the log.
    let (_, log) = served.stopped().await;
    assert!(!log.contains(SECRET), "{log}");
    assert_eq!(told(&program, "staff").await["p0"][0], "delivered");
}

#[tokio::test]
async fn a_card_goes_its_way_as_stripes_test_helpers_move_it() {
    let asking = asking::Asking::of(Options::default()).await;
    let card = asking.create("k1", "cardholder=ich_1&type=physical&currency=eur").await.body;
    assert_eq!((&card["shipping"]["status"], &card["shipping"]["eta"]), (&json!("pending"), &Value::Null));
    let id = card["id"].as_str().unwrap();
    let helper = async |word: &str| {
        let path = format!("/v1/test_helpers/issuing/cards/{id}/shipping/{word}");
        asking.send(Method::POST, &path, &[], "").await.unwrap()
    };
    for (word, status, wanted) in [
        ("deliver", 400, "pending"),
        ("submit", 200, "submitted"),
        ("ship", 200, "shipped"),
        ("submit", 400, "shipped"),
        ("deliver", 200, "delivered"),
        ("fail", 400, "delivered"),
        ("return", 200, "returned"),
        ("lose", 404, "returned"),
    ] {
        assert_eq!(helper(word).await.status, status, "{word}");
        let card = asking.get(&format!("/v1/issuing/cards/{id}")).await.body;
        assert_eq!(card["shipping"]["status"], wanted, "{word}");
    }
}

#[tokio::test]
async fn what_is_known_of_a_card_is_kept_alike_by_both_databases() {
    let postgres = support::postgres::Postgres::start();
    let directory = tempfile::tempdir().unwrap();
    for url in [support::sqlite(&directory.path().join("l.db")), postgres.url()] {
        let ledger = Ledger::open(&url).await.unwrap();
        let (scope, other) = (Scope::new("test", "here", None), Scope::new("test", "here", Some("acct_1")));
        let told = |status: &str, at| KnownShipping {
            shipping: Some(Shipping { status: Some(status.into()), ..Shipping::default() }),
            at,
        };
        let keep =
            async |card: &str, told: KnownShipping| ledger.keep_shipping(&scope, card, &told).await.unwrap();
        assert!(keep("ic_1", told("shipped", 10)).await && keep("ic_2", told("pending", 10)).await);
        assert!(!keep("ic_1", told("pending", 9)).await && !keep("ic_1", told("shipped", 10)).await);
        // Of many at once the newest stays, whichever comes last.
        let all =
            futures_util::future::join_all((0..12).map(|at| keep("ic_3", told("shipped", at * 7 % 12))))
                .await;
        assert!(all.contains(&true));
        let known = ledger.shipping_of(&scope, ["ic_1", "ic_2", "ic_3", "ic_%"]).await.unwrap();
        assert_eq!(known.len(), 3, "{known:?}");
        assert_eq!((&known["ic_1"], &known["ic_3"]), (&told("shipped", 10), &told("shipped", 11)));
        assert!(ledger.shipping_of(&other, ["ic_1"]).await.unwrap().is_empty(), "another account's card");
        assert!(ledger.shipping_of(&scope, []).await.unwrap().is_empty());
        // Once it is known which account it is, it is that one's.
        ledger.rename_scope(&scope, &other).await.unwrap();
        assert_eq!(ledger.shipping_of(&other, ["ic_1", "ic_2"]).await.unwrap().len(), 2);
        ledger.close().await;
    }
}
