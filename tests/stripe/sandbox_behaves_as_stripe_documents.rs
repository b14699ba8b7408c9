//! Promise: the sandbox is a stand-in that can be trusted to judge by: it does what Stripe documents, not what is handy.
//! Idempotency keys, limits, errors, pages of a list and PINs are asked for over HTTP, as any client would.

use crate::support;

use std::time::Duration;

use embosser::sandbox::{Faults, Options};
use reqwest::{Method, StatusCode};
use serde_json::json;
use support::asking::{Answer, Asking, CARD, with};

#[tokio::test(flavor = "multi_thread")]
async fn a_key_used_again_with_the_same_parameters_answers_the_same_and_makes_nothing() {
    let asking = Asking::of(Options::default()).await;
    let first = asking.create("k", CARD).await;
    assert_eq!((first.status, first.replayed), (200, false));
    let other_order = "currency=eur&type=virtual&cardholder=ich_1";
    for body in [CARD, other_order] {
        let again = asking.create("k", body).await;
        assert_eq!(
            again,
            Answer { replayed: true, ..first.clone() },
            "the order of parameters does not matter"
        );
    }
    assert_eq!(asking.cards(), 1);
    let other = asking.create("k", "cardholder=ich_2&type=virtual&currency=eur").await;
    assert_eq!((other.status, other.replayed), (400, false));
    assert_eq!(other.body["error"]["type"], "idempotency_error");
    let none = asking.send(Method::POST, "/v1/issuing/cards", &[], CARD).await.unwrap();
    assert_eq!((none.status, asking.cards()), (200, 2), "without a key nothing is remembered");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_of_the_server_is_saved_and_told_again_whether_or_not_there_is_a_card() {
    for (faults, cards) in [
        (Faults { error_before: 1.0, ..Faults::default() }, 0),
        (Faults { error_after: 1.0, ..Faults::default() }, 1),
    ] {
        let asking = Asking::of(with(faults)).await;
        let first = asking.create("k", CARD).await;
        assert_eq!((first.status, asking.cards()), (500, cards));
        assert_eq!(first.body["error"]["type"], "api_error");
        asking.sandbox.set_faults(Faults::default());
        let again = asking.create("k", CARD).await;
        assert_eq!((again.status, again.replayed, asking.cards()), (500, true, cards));
        assert_eq!(asking.create("other", CARD).await.status, 200, "another key is another request");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_connection_does_everything_or_nothing_and_the_key_tells_which() {
    for (faults, cards) in [
        (Faults { drop_before: 1.0, ..Faults::default() }, 0),
        (Faults { drop_after: 1.0, ..Faults::default() }, 1),
        (Faults { half_body: 1.0, ..Faults::default() }, 1),
    ] {
        let asking = Asking::of(with(faults)).await;
        let cut = asking.send(Method::POST, "/v1/issuing/cards", &[("idempotency-key", "k")], CARD).await;
        assert!(cut.is_err(), "{cut:?}");
        assert_eq!(asking.cards(), cards, "{faults:?}");
        asking.sandbox.set_faults(Faults::default());
        let again = asking.create("k", CARD).await;
        assert_eq!((again.status, again.replayed, asking.cards()), (200, cards == 1, 1), "{faults:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_not_executed_is_not_saved() {
    for (faults, status, code) in [
        (Faults { conflict: 1.0, ..Faults::default() }, 409, "idempotency_key_in_use"),
        (Faults { lock_timeout: 1.0, ..Faults::default() }, 429, "lock_timeout"),
        (Faults { html: 1.0, ..Faults::default() }, 502, ""),
    ] {
        let asking = Asking::of(with(faults)).await;
        let first = asking.create("k", CARD).await;
        assert_eq!((first.status, first.reason.clone()), (status, None), "no limiter's");
        assert_eq!(first.body["error"]["code"].as_str().unwrap_or(""), code);
        asking.sandbox.set_faults(Faults::default());
        let again = asking.create("k", CARD).await;
        assert_eq!((again.status, again.replayed), (200, false));
    }
    let asking = Asking::of(Options::default()).await;
    assert_eq!(asking.create("k", "type=virtual").await.status, 400);
    assert_eq!(asking.create("k", CARD).await.status, 200, "validation is not saved");
    let stale = asking.jwe("4711").await;
    asking.sandbox.rotate_key();
    let body = |jwe: &str| format!("{CARD}&pin[encrypted_number]={jwe}");
    assert_eq!(asking.create("p", &body(&stale)).await.status, 400);
    let fresh = asking.jwe("4711").await;
    assert_eq!(asking.create("p", &body(&fresh)).await.status, 200, "nor is that of a PIN");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_whose_first_call_is_running_is_in_use() {
    let asking = Asking::of(Options { latency: Duration::from_millis(400), ..Options::default() }).await;
    let (first, second) = tokio::join!(asking.create("k", CARD), async {
        tokio::time::sleep(Duration::from_millis(150)).await;
        asking.create("k", CARD).await
    });
    assert_eq!((first.status, second.status), (200, 409));
    assert_eq!(second.body["error"]["code"], "idempotency_key_in_use");
    let third = asking.create("k", CARD).await;
    assert_eq!((third.status, third.replayed, asking.cards()), (200, true, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_goes_on_when_its_caller_hangs_up() {
    let asking = Asking::of(Options { latency: Duration::from_millis(300), ..Options::default() }).await;
    let hung_up = tokio::time::timeout(Duration::from_millis(100), asking.create("k", CARD)).await;
    assert!(hung_up.is_err());
    assert_eq!(asking.cards(), 0);
    tokio::time::sleep(Duration::from_millis(400)).await;
    let again = asking.create("k", CARD).await;
    assert_eq!((again.status, again.replayed, asking.cards()), (200, true, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_call_goes_on_when_its_caller_hangs_up_until_its_time_is_over() {
    let delay = Duration::from_secs(75);
    let asking = Asking::of(Options { delay, ..with(Faults { delay: 1.0, ..Faults::default() }) }).await;
    let hung_up = tokio::time::timeout(Duration::from_millis(300), asking.create("k", CARD)).await;
    assert!(hung_up.is_err());
    asking.sandbox.advance(Duration::from_secs(70));
    let meanwhile = asking.create("k", CARD).await;
    assert_eq!((meanwhile.status, asking.cards(), asking.sandbox.executing()), (409, 0, 1));
    assert_eq!(meanwhile.body["error"]["code"], "idempotency_key_in_use");
    asking.sandbox.advance(Duration::from_secs(5));
    while asking.sandbox.executing() > 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let again = asking.create("k", CARD).await;
    assert_eq!((again.status, again.replayed, asking.cards()), (200, true, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn after_the_window_a_key_is_new_again() {
    let asking = Asking::of(Options::default()).await;
    asking.create("k", CARD).await;
    asking.sandbox.advance(Duration::from_secs(24 * 3600 - 60));
    assert!(asking.create("k", CARD).await.replayed);
    asking.sandbox.advance(Duration::from_secs(61));
    let after = asking.create("k", CARD).await;
    assert_eq!((after.replayed, asking.cards()), (false, 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_limiter_is_strict_stands_before_the_memory_and_says_why() {
    let asking = Asking::of(Options {
        endpoint_per_second: Some(3),
        account_per_second: Some(5),
        ..Options::default()
    })
    .await;
    for _ in 0..3 {
        assert_eq!(asking.create("k", CARD).await.status, 200);
    }
    let fourth = asking.create("k", CARD).await;
    assert_eq!((fourth.status, fourth.reason.as_deref()), (429, Some("endpoint-rate")));
    assert_eq!(asking.get("/v1/issuing/cards").await.status, 200, "another endpoint has a limit of its own");
    assert_eq!(asking.get("/v1/issuing/cards").await.status, 200);
    let sixth = asking.get("/v1/issuing/cards").await;
    assert_eq!((sixth.status, sixth.reason.as_deref()), (429, Some("global-rate")));
    let account = [("stripe-account", "acct_2"), ("idempotency-key", "k")];
    let other = asking.send(Method::POST, "/v1/issuing/cards", &account, CARD).await.unwrap();
    assert_eq!((other.status, other.replayed), (200, false), "an account has limits and keys of its own");
    tokio::time::sleep(Duration::from_millis(1050)).await;
    assert!(asking.create("k", CARD).await.replayed);
    let account = asking.sandbox.account();
    assert_eq!(
        (account.limited, account.limited_by["endpoint-rate"], account.limited_by["global-rate"]),
        (2, 1, 1)
    );
    assert!(asking.client.get(asking.sandbox.key_url()).send().await.unwrap().status() == StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_at_once_are_limited_with_their_own_reason() {
    let asking = Asking::of(Options {
        endpoint_concurrency: Some(2),
        latency: Duration::from_millis(300),
        ..Options::default()
    })
    .await;
    let answers = futures_util::future::join_all(["a", "b", "c"].map(|key| asking.create(key, CARD))).await;
    let limited: Vec<_> = answers.iter().filter(|answer| answer.status == 429).collect();
    assert_eq!(limited.len(), 1, "{answers:?}");
    assert_eq!(limited[0].reason.as_deref(), Some("endpoint-concurrency"));
    assert_eq!(asking.sandbox.account().at_once_max, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pin_is_decrypted_and_checked_as_stripe_would() {
    let asking = Asking::of(Options::default()).await;
    let jwe = asking.jwe("4711").await;
    let body = |jwe: &str| format!("{CARD}&pin[encrypted_number]={jwe}");
    let made = asking.create("a", &body(&jwe)).await;
    assert_eq!(made.status, 200);
    assert!(!made.body.to_string().contains(&jwe) && made.body.get("pin").is_none(), "no answer holds a PIN");
    assert_eq!(asking.sandbox.account().cards[0].pin.as_deref(), Some("4711"));
    // Twelve digits are a PIN to whoever encrypts; to this issuer they are not.
    let long = asking.jwe("123456789012").await;
    let other = if jwe.as_bytes()[400] == b'A' { 'B' } else { 'A' };
    let broken = format!("{}{other}{}", &jwe[..400], &jwe[401..]);
    for (key, jwe) in [("b", long.as_str()), ("c", &broken), ("d", "4711")] {
        let refused = asking.create(key, &body(jwe)).await;
        assert_eq!(
            (refused.status, refused.body["error"]["param"].as_str()),
            (400, Some("pin[encrypted_number]"))
        );
    }
    let id = made.body["id"].as_str().unwrap();
    let other = asking.jwe("0815").await;
    let updated =
        asking.post(&format!("/v1/issuing/cards/{id}"), "u", &format!("pin[encrypted_number]={other}")).await;
    assert_eq!(updated.status, 200);
    assert_eq!(asking.sandbox.account().cards[0].pin.as_deref(), Some("0815"));
    asking.sandbox.rotate_key();
    let stale = asking.create("e", &body(&jwe)).await;
    assert_eq!((stale.status, asking.cards()), (400, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_have_stripes_shape_and_say_which_parameter() {
    let mut asking = Asking::of(Options::default()).await;
    for (body, code, param) in [
        ("type=virtual", Some("parameter_missing"), "currency"),
        ("type=virtual&currency=eur&colour=red", Some("parameter_unknown"), "colour"),
        ("type=plastic&currency=eur", None, "type"),
        (
            "type=virtual&currency=eur&spending_controls[spending_limits][0][amount]=many&\
             spending_controls[spending_limits][0][interval]=daily",
            Some("parameter_invalid_integer"),
            "spending_controls[spending_limits][0][amount]",
        ),
        ("type=virtual&currency=eur&cardholder=nobody", Some("resource_missing"), "cardholder"),
    ] {
        let refused = asking.create("k", body).await;
        let error = &refused.body["error"];
        assert_eq!((error["code"].as_str(), error["param"].as_str()), (code, Some(param)), "{body}: {error}");
        assert_eq!(error["type"], "invalid_request_error");
        assert_eq!(refused.status, if code == Some("resource_missing") { 404 } else { 400 });
    }
    assert_eq!(asking.get("/v1/issuing/cards/ic_none").await.status, 404);
    assert_eq!(asking.get("/v1/nothing").await.status, 404);
    asking.api_key = "no_key";
    assert_eq!(asking.create("k", CARD).await.status, 401);
    let mut reading = Asking::of(Options { may_write: false, ..Options::default() }).await;
    assert_eq!(reading.create("k", CARD).await.status, 403);
    assert_eq!(reading.get("/v1/issuing/cards").await.status, 200);
    reading = Asking::of(Options { api_key: Some("rk_test_only".into()), ..Options::default() }).await;
    assert_eq!(reading.create("k", CARD).await.status, 401);
    reading.api_key = "rk_test_only";
    assert_eq!(reading.create("k", CARD).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_come_newest_first_in_pages_and_filtered() {
    let asking = Asking::of(Options::default()).await;
    for number in 0..25 {
        let body = format!("cardholder=ich_{}&type=virtual&currency=eur&metadata[n]={number}", number % 2);
        asking.create(&number.to_string(), &body).await;
    }
    let (mut numbers, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = asking.get(&format!("/v1/issuing/cards?cardholder=ich_1&limit=5{cursor}")).await.body;
        assert_eq!(page["object"], "list");
        let data = page["data"].as_array().unwrap();
        numbers
            .extend(data.iter().map(|card| card["metadata"]["n"].as_str().unwrap().parse::<u32>().unwrap()));
        let last = data.last().unwrap()["id"].as_str().unwrap();
        cursor = format!("&starting_after={last}");
        if page["has_more"] == json!(false) {
            break;
        }
    }
    assert_eq!(numbers, (0..25).rev().filter(|number| number % 2 == 1).collect::<Vec<_>>());
    assert_eq!(asking.get("/v1/issuing/cards").await.body["data"].as_array().unwrap().len(), 10);
    for query in ["limit=0", "limit=101", "limit=x"] {
        assert_eq!(asking.get(&format!("/v1/issuing/cards?{query}")).await.status, 400, "{query}");
    }
    let physical = asking.get("/v1/issuing/cards?type=physical").await.body;
    assert_eq!(physical["data"], json!([]));
    let first = asking.get("/v1/issuing/cards?limit=1").await.body["data"][0].clone();
    let id = first["id"].as_str().unwrap();
    assert_eq!(asking.get(&format!("/v1/issuing/cards/{id}")).await.body, first);
    let changed =
        asking.post(&format!("/v1/issuing/cards/{id}"), "c", "status=active&metadata[n]=").await.body;
    assert_eq!((changed["status"].as_str(), &changed["metadata"]), (Some("active"), &json!({})));
    assert_eq!(asking.get("/v1/issuing/cards?status=active").await.body["data"].as_array().unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_has_cards_and_keys_of_its_own_and_a_name() {
    let mut asking = Asking::of(Options::default()).await;
    assert_eq!(asking.get("/v1/account").await.body["id"], "acct_sandbox");
    let card = asking.create("k", CARD).await.body;
    asking.api_key = "sk_test_acct_A_1";
    let account = asking.get("/v1/account").await.body;
    assert_eq!((account["id"].as_str(), account["object"].as_str()), (Some("acct_A"), Some("account")));
    let own = asking.create("k", CARD).await;
    assert_eq!(
        (own.status, own.replayed, asking.cards()),
        (200, false, 2),
        "the same key of another account"
    );
    let listed = asking.get("/v1/issuing/cards?cardholder=ich_1").await.body;
    assert_eq!(listed["data"].as_array().unwrap(), &[own.body]);
    let foreign = format!("/v1/issuing/cards/{}", card["id"].as_str().unwrap());
    assert_eq!(asking.get(&foreign).await.status, 404);
    let connected = [("stripe-account", "acct_sandbox")];
    let found = asking.send(Method::GET, &foreign, &connected, "").await.unwrap();
    assert_eq!((found.status, found.body), (200, card));
    let made = asking.sandbox.account().cards;
    assert_eq!(made.iter().map(|card| card.account.as_str()).collect::<Vec<_>>(), ["acct_sandbox", "acct_A"]);
    let nameless = Asking::of(Options { may_read_account: false, ..Options::default() }).await;
    let refused = nameless.get("/v1/account").await;
    assert_eq!(
        (refused.status, refused.body["error"]["code"].as_str()),
        (403, Some("more_permissions_required"))
    );
    assert_eq!(nameless.create("k", CARD).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cardholder_is_made_once_under_a_key_and_found_by_what_was_given() {
    let asking = Asking::of(Options::default()).await;
    let path = "/v1/issuing/cardholders";
    let address = "billing[address][line1]=1&billing[address][city]=C&billing[address][country]=IE&\
        billing[address][postal_code]=T";
    let whole =
        format!("name=A B&email=a@example.com&phone_number=353123&metadata[embosser_job]=j&{address}");
    let make = async |body: &str, key: &str| {
        asking.send(Method::POST, path, &[("idempotency-key", key)], body).await.unwrap()
    };
    let made = make(&whole, "k").await;
    assert_eq!((made.status, &made.body["email"]), (200, &json!("a@example.com")), "{made:?}");
    assert_eq!(made.body["billing"]["address"]["postal_code"], "T");
    assert_eq!(make(&whole, "k").await, Answer { replayed: true, ..made.clone() });
    let other = make(&format!("name=C D&{address}"), "l").await;
    assert_ne!(other.body["id"], made.body["id"]);
    assert_eq!(make("name=E F", "m").await.body["error"]["param"], "billing[address][city]");
    for (query, found) in [
        ("?email=a@example.com", vec![&made]),
        ("?phone_number=353123", vec![&made]),
        ("?email=nobody@example.com", vec![]),
        ("", vec![&other, &made]),
    ] {
        let listed = asking.send(Method::GET, &format!("{path}{query}"), &[], "").await.unwrap();
        let ids: Vec<_> = listed.body["data"].as_array().unwrap().iter().map(|each| &each["id"]).collect();
        assert_eq!(ids, found.iter().map(|each| &each.body["id"]).collect::<Vec<_>>(), "{query}");
    }
    let card = format!("{CARD}&").replace("ich_1", made.body["id"].as_str().unwrap());
    let card = asking.send(Method::POST, "/v1/issuing/cards", &[], &card).await.unwrap();
    assert_eq!(card.body["cardholder"]["email"], "a@example.com");
}
