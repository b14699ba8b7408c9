//! Promise: the sandbox is a stand-in that can be trusted to judge by: it does what Stripe documents, not what is handy.
//! Idempotency keys, limits, errors, pages of a list and PINs are asked for over HTTP, as any client would.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::time::Duration;

use embosser::encrypt::encrypt_pin;
use embosser::sandbox::{Calls, Faults, Forced, KeyEndpoint, Options, Sandbox};
use reqwest::{Client, Method, StatusCode};
use serde_json::{Value, json};

/// A client of a sandbox.
struct Asking {
    sandbox: Sandbox,
    client: Client,
    api_key: &'static str,
}

/// An answer, as far as it is judged.
#[derive(Debug, Clone, PartialEq)]
struct Answer {
    status: u16,
    replayed: bool,
    reason: Option<String>,
    body: Value,
}

const CARD: &str = "cardholder=ich_1&type=virtual&currency=eur";

impl Asking {
    async fn of(options: Options) -> Self {
        let client = support::http_client();
        Self { sandbox: Sandbox::start(options).await.unwrap(), client, api_key: "sk_test_1" }
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> reqwest::Result<Answer> {
        let url = format!("{}{path}", self.sandbox.api_url());
        let mut request = self.client.request(method, url).bearer_auth(self.api_key);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if !body.is_empty() {
            request =
                request.header("content-type", "application/x-www-form-urlencoded").body(body.to_owned());
        }
        let answer = request.send().await?;
        let header = |name: &str| Some(answer.headers().get(name)?.to_str().unwrap().to_owned());
        let (replayed, reason) =
            (header("idempotent-replayed").as_deref() == Some("true"), header("stripe-rate-limited-reason"));
        assert!(header("request-id").is_none_or(|id| id.starts_with("req_")));
        let status = answer.status().as_u16();
        let bytes = answer.bytes().await?;
        Ok(Answer { status, replayed, reason, body: serde_json::from_slice(&bytes).unwrap_or(Value::Null) })
    }

    async fn post(&self, path: &str, key: &str, body: &str) -> Answer {
        self.send(Method::POST, path, &[("idempotency-key", key)], body).await.unwrap()
    }

    async fn create(&self, key: &str, body: &str) -> Answer {
        self.post("/v1/issuing/cards", key, body).await
    }

    async fn get(&self, path: &str) -> Answer {
        self.send(Method::GET, path, &[], "").await.unwrap()
    }

    async fn jwe(&self, pin: &str) -> String {
        let key = self.client.get(self.sandbox.key_url()).send().await.unwrap().bytes().await.unwrap();
        encrypt_pin(pin, &key).unwrap()
    }

    fn cards(&self) -> usize {
        self.sandbox.counts().cards
    }
}

fn with(faults: Faults) -> Options {
    Options { faults, ..Options::default() }
}

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
    let broken = format!("{}A{}", &jwe[..400], &jwe[401..]);
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
async fn lists_may_be_behind_while_a_card_is_found_by_its_id() {
    let asking = Asking::of(Options { list_lag: Duration::from_secs(60), ..Options::default() }).await;
    let listed = async || {
        let page = asking.get("/v1/issuing/cards?cardholder=ich_1").await.body;
        page["data"].as_array().unwrap().len()
    };
    let card = asking.create("k", CARD).await.body;
    assert_eq!(asking.get(&format!("/v1/issuing/cards/{}", card["id"].as_str().unwrap())).await.body, card);
    assert_eq!(listed().await, 0);
    asking.sandbox.advance(Duration::from_secs(61));
    asking.create("l", CARD).await;
    assert_eq!(listed().await, 1, "the first, and the second not yet");
    asking.sandbox.set_list_lag(Duration::ZERO);
    assert_eq!(listed().await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_fail_on_request_and_other_calls_do_not() {
    let asking = Asking::of(with(Faults { list_error: 1.0, ..Faults::default() })).await;
    assert_eq!(asking.create("k", CARD).await.status, 200);
    assert_eq!(asking.get("/v1/issuing/cards").await.status, 500);
    asking.sandbox.set_faults(Faults { empty_page: 1.0, ..Faults::default() });
    let page = asking.get("/v1/issuing/cards").await;
    assert_eq!((page.status, &page.body["has_more"], &page.body["data"]), (200, &json!(true), &json!([])));
    asking.sandbox.set_faults(Faults { list_error: 0.5, ..Faults::default() });
    let mut statuses = Vec::new();
    for _ in 0..30 {
        statuses.push(asking.get("/v1/issuing/cards").await.status);
    }
    assert!(statuses.contains(&200) && statuses.contains(&500), "{statuses:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn everybody_is_answered_alike_on_request_and_nothing_is_done() {
    let asking = Asking::of(Options::default()).await;
    let not_enabled = "Your account is not set up to use Issuing ({cardholder}, {request}).";
    asking.sandbox.force(Some(Forced::error(400, "invalid_request_error", None, not_enabled)));
    let refused = [asking.create("a", CARD).await, asking.create("a", CARD).await];
    let messages = refused.map(|answer| {
        assert_eq!((answer.status, answer.replayed, answer.reason), (400, false, None));
        answer.body["error"]["message"].as_str().unwrap().to_owned()
    });
    assert!(messages[0].contains("(ich_1, req_sandbox") && messages[0] != messages[1], "{messages:?}");
    assert_eq!(asking.get("/v1/issuing/cards").await.status, 200, "lists go on");
    let all = Forced { status: 500, calls: Calls::All, ..Forced::default() };
    asking.sandbox.force(Some(all));
    for answer in [asking.create("a", CARD).await, asking.get("/v1/issuing/cards").await] {
        assert_eq!((answer.status, answer.body), (500, json!({})), "no error object");
    }
    let saved = Forced { saved: true, ..Forced::error(500, "api_error", None, "An unknown error occurred") };
    asking.sandbox.force(Some(saved));
    asking.create("s", CARD).await;
    assert_eq!((asking.cards(), asking.sandbox.counts().creates), (0, 4));
    let ended = asking.send(Method::POST, "/_sandbox/force", &[], "null").await.unwrap();
    assert_eq!(ended.status, 200);
    assert_eq!(asking.create("a", CARD).await.status, 200);
    let replayed = asking.create("s", CARD).await;
    assert_eq!((replayed.status, replayed.replayed, asking.cards()), (500, true, 1));
    let body = r#"{"status": 402, "type": "card_error", "code": "x"}"#;
    assert_eq!(asking.send(Method::POST, "/_sandbox/force", &[], body).await.unwrap().status, 200);
    assert_eq!(asking.create("b", CARD).await.body["error"]["code"], "x");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_key_endpoint_can_be_down_or_silent_while_the_api_works() {
    let asking = Asking::of(Options { key_endpoint: KeyEndpoint::Unavailable, ..Options::default() }).await;
    let key = || asking.client.get(asking.sandbox.key_url()).send();
    assert_eq!(key().await.unwrap().status(), StatusCode::SERVICE_UNAVAILABLE);
    let silent = asking.send(Method::POST, "/_sandbox/key_endpoint", &[], "\"silent\"").await.unwrap();
    assert_eq!(silent.status, 200);
    assert!(tokio::time::timeout(Duration::from_millis(300), key()).await.is_err());
    assert_eq!(asking.create("k", CARD).await.status, 200);
    asking.sandbox.set_key_endpoint(KeyEndpoint::Up);
    assert_eq!(key().await.unwrap().status(), StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_seed_brings_the_same_faults() {
    let faults = Faults { error_before: 0.3, conflict: 0.3, ..Faults::default() };
    let mut runs = Vec::new();
    for seed in [7, 7, 8] {
        let asking = Asking::of(Options { seed, ..with(faults) }).await;
        let mut statuses = Vec::new();
        for number in 0..40 {
            statuses.push(asking.create(&number.to_string(), CARD).await.status);
        }
        runs.push(statuses);
    }
    assert_eq!(runs[0], runs[1]);
    assert_ne!(runs[0], runs[2]);
    assert!([200, 409, 500].iter().all(|status| runs[0].contains(status)), "{:?}", runs[0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn it_can_be_asked_and_steered_from_outside() {
    let asking = Asking::of(Options::default()).await;
    asking.create("k", &format!("{CARD}&metadata[embosser_job]=b/1")).await;
    let account = asking.get("/_sandbox/account").await.body;
    assert_eq!((account["cards"][0]["job"].as_str(), account["creates"].as_u64()), (Some("b/1"), Some(1)));
    let requests = asking.get("/_sandbox/requests").await.body;
    assert_eq!(
        (requests[0]["path"].as_str(), requests[0]["status"].as_u64()),
        (Some("/v1/issuing/cards"), Some(200))
    );
    let before = asking.client.get(asking.sandbox.key_url()).send().await.unwrap().text().await.unwrap();
    asking.send(Method::POST, "/_sandbox/rotate", &[], "{}").await.unwrap();
    let after = asking.client.get(asking.sandbox.key_url()).send().await.unwrap().text().await.unwrap();
    assert_ne!(before, after);
    asking.send(Method::POST, "/_sandbox/faults", &[], r#"{"html": 1}"#).await.unwrap();
    assert_eq!(asking.create("h", CARD).await.status, 502);
    let unknown = asking.send(Method::POST, "/_sandbox/faults", &[], r#"{"htm": 1}"#).await.unwrap();
    assert_eq!(unknown.status, 400);
    asking.send(Method::POST, "/_sandbox/rate", &[], r#"{"endpoint": 1}"#).await.unwrap();
    let statuses = [asking.create("x", CARD).await.status, asking.create("y", CARD).await.status];
    assert_eq!(statuses, [502, 429]);
}
