//! Promise: what embosser sends, and what the sandbox answers, holds against Stripe's own OpenAPI document, where that
//! lies beside the repository (`../shared/stripe`); elsewhere these tests say so and do nothing.

use crate::support;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use embosser::sandbox::{Faults, Options, Sandbox};
use serde_json::{Map, Value, json};
use support::{Program, expect_exit};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

/// Stripe's document, if it is there.
fn document() -> Option<Value> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/stripe/openapi-issuing.json");
    let Ok(text) = std::fs::read_to_string(path) else {
        eprintln!("Stripe's OpenAPI document is not here: nothing was compared");
        return None;
    };
    Some(nullable(serde_json::from_str(&text).unwrap()))
}

/// OpenAPI 3.0 says `nullable` where JSON Schema lists `null` among the types.
fn nullable(schema: Value) -> Value {
    match schema {
        Value::Array(items) => items.into_iter().map(nullable).collect(),
        Value::Object(members) => {
            let is_nullable = members.get("nullable") == Some(&json!(true));
            let members: Map<String, Value> =
                members.into_iter().map(|(name, value)| (name, nullable(value))).collect();
            let schema = Value::Object(members);
            if is_nullable { json!({"anyOf": [schema, {"type": "null"}]}) } else { schema }
        }
        other => other,
    }
}

/// The validator of a schema inside the document.
fn validator(document: &Value, schema: &Value) -> jsonschema::Validator {
    let root = json!({"allOf": [schema], "components": document["components"]});
    jsonschema::options().with_draft(jsonschema::Draft::Draft4).build(&root).unwrap()
}

fn of_answer(document: &Value, method: &str, path: &str, status: &str) -> jsonschema::Validator {
    let schema =
        &document["paths"][path][method]["responses"][status]["content"]["application/json"]["schema"];
    assert!(!schema.is_null(), "{method} {path} {status}");
    validator(document, schema)
}

fn holds(validator: &jsonschema::Validator, value: &Value) {
    let wrong: Vec<String> =
        validator.iter_errors(value).map(|error| format!("{}: {error}", error.instance_path())).collect();
    assert!(wrong.is_empty(), "{wrong:#?}\n{value:#}");
}

async fn ask(sandbox: &Sandbox, method: reqwest::Method, path: &str, body: &str) -> (u16, Value) {
    let client = support::http_client();
    let request = client.request(method, format!("{}{path}", sandbox.api_url())).bearer_auth("sk_test_1");
    let answer = request.body(body.to_owned()).send().await.unwrap();
    (answer.status().as_u16(), answer.json().await.unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_of_the_sandbox_holds_against_stripes_schema() {
    use reqwest::Method;
    let Some(document) = document() else { return };
    let sandbox = Sandbox::start(Options::default()).await.unwrap();
    let (cards, card) = ("/v1/issuing/cards", "/v1/issuing/cards/{card}");
    let whole = "cardholder=ich_1&type=physical&currency=usd&status=active&second_line=ACME&\
        shipping[name]=A&shipping[address][line1]=1 Street&shipping[address][city]=C&\
        shipping[address][postal_code]=94111&shipping[address][country]=US&shipping[service]=express&\
        spending_controls[spending_limits][0][amount]=5000&spending_controls[spending_limits][0][interval]=daily&\
        spending_controls[spending_limits][0][categories][0]=ac_refrigeration_repair&\
        spending_controls[allowed_merchant_countries][0]=US&lifecycle_controls[cancel_after][payment_count]=3&\
        metadata[a]=b";
    for body in [whole, "cardholder=ich_1&type=virtual&currency=eur", "type=virtual&currency=gbp"] {
        let (status, made) = ask(&sandbox, Method::POST, cards, body).await;
        assert_eq!(status, 200, "{made}");
        holds(&of_answer(&document, "post", cards, "200"), &made);
        let path = format!("{cards}/{}", made["id"].as_str().unwrap());
        let (_, found) = ask(&sandbox, Method::GET, &path, "").await;
        holds(&of_answer(&document, "get", card, "200"), &found);
        let (status, changed) = ask(&sandbox, Method::POST, &path, "status=active&metadata[x]=y").await;
        assert_eq!(status, 200);
        holds(&of_answer(&document, "post", card, "200"), &changed);
    }
    let (_, list) = ask(&sandbox, Method::GET, "/v1/issuing/cards?limit=2", "").await;
    assert_eq!(list["data"].as_array().unwrap().len(), 2);
    holds(&of_answer(&document, "get", cards, "200"), &list);
    let holders = "/v1/issuing/cardholders";
    let whole = "name=Jenny Rosen&type=individual&email=jenny@example.com&phone_number=%2B353123&\
        individual[first_name]=Jenny&individual[last_name]=Rosen&individual[dob][day]=1&\
        individual[dob][month]=11&individual[dob][year]=1981&preferred_locales[0]=de&metadata[a]=b&";
    let address = "billing[address][line1]=1 Street&billing[address][city]=C&billing[address][country]=IE&\
        billing[address][postal_code]=D02";
    let (status, holder) = ask(&sandbox, Method::POST, holders, &format!("{whole}{address}")).await;
    assert_eq!(status, 200, "{holder}");
    holds(&of_answer(&document, "post", holders, "200"), &holder);
    let (_, list) = ask(&sandbox, Method::GET, &format!("{holders}?email=jenny@example.com"), "").await;
    assert_eq!(list["data"].as_array().unwrap().len(), 1);
    holds(&of_answer(&document, "get", holders, "200"), &list);
    let path = format!("{holders}/{}", holder["id"].as_str().unwrap());
    let (status, found) = ask(&sandbox, Method::GET, &path, "").await;
    assert_eq!(status, 200);
    holds(&of_answer(&document, "get", "/v1/issuing/cardholders/{cardholder}", "200"), &found);
    let (_, of_card) = ask(&sandbox, Method::POST, cards, "type=physical&currency=usd").await;
    let (_, nonce) = ask(&sandbox, Method::POST, "/v1/ephemeral_key_nonces", "key=pk_test_1").await;
    let keys = "/v1/ephemeral_keys";
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let body = format!("issuing_card={}&nonce={}", text(&of_card["id"]), text(&nonce["public_nonce"]));
    let request =
        support::http_client().post(format!("{}{keys}", sandbox.api_url())).bearer_auth("sk_test_1");
    let key = request.header("stripe-version", "2026-07-29").body(body.clone()).send().await.unwrap();
    assert_eq!(key.status().as_u16(), 200);
    holds(&of_answer(&document, "post", keys, "200"), &key.json().await.unwrap());
    let (status, without_version) = ask(&sandbox, Method::POST, keys, &body).await;
    assert_eq!(status, 400);
    holds(&of_answer(&document, "post", keys, "default"), &without_version);
    let expired = format!(
        "type=physical&currency=usd&replacement_reason=expired&replacement_for={}",
        text(&of_card["id"])
    );
    let (status, replacement) = ask(&sandbox, Method::POST, cards, &expired).await;
    assert_eq!(status, 200, "{replacement}");
    let (_, replaced) = ask(&sandbox, Method::GET, &format!("{cards}/{}", text(&of_card["id"])), "").await;
    for each in [&replacement, &replaced] {
        holds(&of_answer(&document, "get", card, "200"), each);
    }
    let failing = of_answer(&document, "post", cards, "default");
    let mut errors = vec![
        ask(&sandbox, Method::POST, cards, "type=virtual").await,
        ask(&sandbox, Method::POST, cards, "type=virtual&currency=eur&cardholder=nobody").await,
        ask(&sandbox, Method::GET, "/v1/issuing/cards/ic_none", "").await,
    ];
    for faults in [
        Faults { error_before: 1.0, ..Faults::default() },
        Faults { conflict: 1.0, ..Faults::default() },
        Faults { lock_timeout: 1.0, ..Faults::default() },
    ] {
        sandbox.set_faults(faults);
        errors.push(ask(&sandbox, Method::POST, cards, "type=virtual&currency=eur").await);
    }
    for (status, error) in &errors {
        assert!(*status >= 400);
        holds(&failing, error);
    }
}

/// A design as it is told, and its bundle as it is expanded.
#[tokio::test(flavor = "multi_thread")]
async fn every_design_and_bundle_of_the_sandbox_holds_against_stripes_schema() {
    use reqwest::Method;
    let Some(document) = document() else { return };
    let sandbox = Sandbox::start(Options::default()).await.unwrap();
    let designs = "/v1/issuing/personalization_designs";
    let design = of_answer(&document, "get", &format!("{designs}/{{personalization_design}}"), "200");
    let bundle = validator(&document, &document["components"]["schemas"]["issuing.physical_bundle"]);
    let mut seen = BTreeSet::new();
    for id in ["pd_1", "pd_inactive", "pd_rejected", "pd_review", "pd_plain", "pd_required"] {
        let (status, told) = ask(&sandbox, Method::GET, &format!("{designs}/{id}"), "").await;
        assert_eq!((status, &told["id"]), (200, &json!(id)));
        holds(&design, &told);
        let expanded = format!("{designs}/{id}?expand[]=physical_bundle");
        let (_, mut whole) = ask(&sandbox, Method::GET, &expanded, "").await;
        let within = whole["physical_bundle"].take();
        holds(&bundle, &within);
        // But for the bundle it is the same.
        assert_eq!(within["id"], told["physical_bundle"]);
        whole["physical_bundle"] = within["id"].clone();
        assert_eq!(whole, told);
        seen.insert((told["status"].to_string(), within["features"]["second_line"].to_string()));
    }
    assert_eq!(seen.len(), 6, "each stands otherwise: {seen:?}");
    let (status, missing) = ask(&sandbox, Method::GET, &format!("{designs}/pd_none"), "").await;
    assert_eq!(status, 404);
    holds(&of_answer(&document, "post", "/v1/issuing/cards", "default"), &missing);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_card_on_its_way_holds_against_stripes_schema() {
    use reqwest::Method;
    let Some(document) = document() else { return };
    let sandbox = Sandbox::start(Options::default()).await.unwrap();
    let helpers = "/v1/test_helpers/issuing/cards";
    for ways in [["ship", "deliver", "return"].as_slice(), &["ship", "fail"]] {
        let (_, card) =
            ask(&sandbox, Method::POST, "/v1/issuing/cards", "type=physical&currency=usd&cardholder=ich_1")
                .await;
        let id = card["id"].as_str().unwrap();
        for way in ways {
            let (status, moved) =
                ask(&sandbox, Method::POST, &format!("{helpers}/{id}/shipping/{way}"), "").await;
            assert_eq!(status, 200, "{way}: {moved}");
            holds(
                &of_answer(&document, "post", &format!("{helpers}/{{card}}/shipping/{way}"), "200"),
                &moved,
            );
        }
    }
}

/// A server that takes down every create call's body and answers it with a card.
async fn recorder() -> (String, UnboundedReceiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (tell, told) = unbounded_channel();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(record(stream, tell.clone()));
        }
    });
    (url, told)
}

async fn record(mut stream: TcpStream, tell: UnboundedSender<String>) {
    let mut read = Vec::new();
    loop {
        let Some(head) = memchr::memmem::find(&read, b"\r\n\r\n").map(|at| at + 4) else {
            if !matches!(stream.read_buf(&mut read).await, Ok(1..)) {
                return;
            }
            continue;
        };
        let text = String::from_utf8_lossy(&read[..head]).to_lowercase();
        let length = text
            .split("content-length: ")
            .nth(1)
            .map_or(0, |rest| rest.lines().next().unwrap().trim().parse::<usize>().unwrap());
        while read.len() < head + length {
            if !matches!(stream.read_buf(&mut read).await, Ok(1..)) {
                return;
            }
        }
        tell.send(String::from_utf8(read[head..head + length].to_vec()).unwrap()).unwrap();
        read.drain(..head + length);
        let body = r#"{"id":"ic_1","object":"issuing.card","last4":"4242","exp_month":8,"exp_year":2030,"metadata":{}}"#;
        let answer = format!(
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        if stream.write_all(answer.as_bytes()).await.is_err() {
            return;
        }
    }
}

/// A form body as the JSON that its schema describes: numbers and truth values where the schema has them.
fn nested(body: &str, schema: &Value) -> Value {
    let mut root = Value::Null;
    for (path, text) in url::form_urlencoded::parse(body.as_bytes()) {
        let (mut at, mut kind) = (&mut root, schema);
        let path = path.replace(']', "");
        for part in path.split('[') {
            let member = alternatives(kind).into_iter().find_map(|kind| {
                let listed = kind["items"].is_object() && part.parse::<usize>().is_ok();
                let named = if listed { &kind["items"] } else { &kind["properties"][part] };
                let any = &kind["additionalProperties"];
                if named.is_object() { Some(named) } else { any.is_object().then_some(any) }
            });
            kind = member.unwrap_or_else(|| panic!("Stripe's schema has no {path}"));
            if let Ok(index) = part.parse::<usize>() {
                if at.is_null() {
                    *at = json!([]);
                }
                let list = at.as_array_mut().unwrap();
                assert!(index <= list.len(), "{path}: a list without gaps");
                if index == list.len() {
                    list.push(Value::Null);
                }
                at = &mut list[index];
            } else {
                if at.is_null() {
                    *at = json!({});
                }
                at = at.as_object_mut().unwrap().entry(part).or_insert(Value::Null);
            }
        }
        assert!(at.is_null(), "{path} stands there twice");
        let types: Vec<&str> = alternatives(kind).iter().filter_map(|kind| kind["type"].as_str()).collect();
        *at = if types.contains(&"integer") {
            text.parse::<i64>().unwrap().into()
        } else if types.contains(&"boolean") {
            text.parse::<bool>().unwrap().into()
        } else {
            text.as_ref().into()
        };
    }
    root
}

fn alternatives(schema: &Value) -> Vec<&Value> {
    match schema["anyOf"].as_array() {
        Some(any) => any.iter().flat_map(alternatives).collect(),
        None => vec![schema],
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_request_that_embosser_sends_holds_against_stripes_schema() {
    let Some(document) = document() else { return };
    let schema = &document["paths"]["/v1/issuing/cards"]["post"]["requestBody"]["content"]["application/x-www-form-urlencoded"]
        ["schema"];
    let asked = validator(&document, schema);
    let sandbox = Sandbox::start(Options::default()).await.unwrap();
    let (url, mut told) = recorder().await;
    let directory = tempfile::tempdir().unwrap();
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/examples/rollout.csv");
    std::fs::copy(example, directory.path().join("rollout.csv")).unwrap();
    let program = Program::new(directory.path(), &sandbox).with("EMBOSSER__STRIPE__API_URL", &url);
    expect_exit(&program.run(&["issue", "rollout.csv", "--rate", "400"]).await, 0);
    let mut used: BTreeMap<String, usize> = BTreeMap::new();
    let mut requests = 0;
    while let Ok(body) = told.try_recv() {
        // A question (whose key it is, which cards there are) has no body.
        if body.is_empty() {
            continue;
        }
        let request = nested(&body, schema);
        holds(&asked, &request);
        requests += 1;
        for name in request.as_object().unwrap().keys() {
            *used.entry(name.clone()).or_default() += 1;
        }
    }
    assert_eq!(requests, 200);
    assert_eq!(used["metadata"], 200);
    assert!(used["pin"] > 100 && used["shipping"] > 10 && used["spending_controls"] > 10, "{used:?}");
}
