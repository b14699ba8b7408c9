//! Promise: a sandbox does what it is asked to do wrong, and nothing else: lists that lag or fail, one answer for everybody, a key
//! endpoint that is gone; and the same seed brings the same faults.

use crate::support;

use std::time::Duration;

use embosser::sandbox::{Calls, Faults, Forced, KeyEndpoint, Options};
use reqwest::{Method, StatusCode};
use serde_json::json;
use support::asking::{Asking, CARD, with};

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
