//! Promise: with the feature `otlp` a job's trace goes from its publisher through RabbitMQ to each call to Stripe, by the
//! names of OpenTelemetry's conventions, and holds no secret.
#![cfg(feature = "otlp")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::routing::post;
use embosser::sandbox::{Faults, Options};
use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldTable};
use reqwest::Method;
use serde_json::json;
use support::rabbit::PASSWORD;
use support::scene::Scene;
use support::secrets::Secrets;
use support::serve::Served;

const API_KEY: &str = "sk_test_TellingKeyThatNobodyMayRead4711";
/// Traces of a service of somebody's own: a message's, and a request's.
const PARENTS: [(&str, &str); 2] = [
    ("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"),
    ("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"),
];

fn traceparent((trace, span): (&str, &str)) -> String {
    format!("00-{trace}-{span}-01")
}

/// What a collector was sent.
#[derive(Clone, Default)]
struct Collector(Arc<Mutex<Vec<Bytes>>>);

impl Collector {
    /// One that listens, and its address.
    async fn start() -> (Self, String) {
        let collector = Self::default();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let take = async |State(collector): State<Self>, body: Bytes| collector.0.lock().unwrap().push(body);
        let router = Router::new().route("/v1/traces", post(take)).with_state(collector.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        (collector, address)
    }

    fn sent(&self) -> Vec<u8> {
        self.0.lock().unwrap().iter().flat_map(|body| body.to_vec()).collect()
    }

    fn spans(&self) -> Vec<Span> {
        let bodies = self.0.lock().unwrap().clone();
        let mut spans = Vec::new();
        for body in &bodies {
            for resource in Fields(body).all(1) {
                for scope in Fields(resource).all(2) {
                    spans.extend(Fields(scope).all(2).into_iter().map(Span::read));
                }
            }
        }
        spans
    }
}

/// A protobuf message (protobuf.dev/programming-guides/encoding), read by its fields' numbers.
struct Fields<'b>(&'b [u8]);

enum Value<'b> {
    Number(u64),
    Bytes(&'b [u8]),
}

impl<'b> Iterator for Fields<'b> {
    type Item = (u64, Value<'b>);

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let tag = self.number();
        let value = match tag & 7 {
            0 => Value::Number(self.number()),
            1 => Value::Bytes(self.bytes(8)),
            2 => {
                let length = usize::try_from(self.number()).unwrap();
                Value::Bytes(self.bytes(length))
            }
            5 => Value::Bytes(self.bytes(4)),
            other => panic!("wire type {other}"),
        };
        Some((tag >> 3, value))
    }
}

impl<'b> Fields<'b> {
    fn number(&mut self) -> u64 {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.bytes(1)[0];
            number |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                break;
            }
        }
        number
    }

    fn bytes(&mut self, length: usize) -> &'b [u8] {
        let (bytes, rest) = self.0.split_at(length);
        self.0 = rest;
        bytes
    }

    fn all(self, field: u64) -> Vec<&'b [u8]> {
        self.filter_map(|(number, value)| match value {
            Value::Bytes(bytes) if number == field => Some(bytes),
            _ => None,
        })
        .collect()
    }
}

/// A span, as opentelemetry/proto/trace/v1/trace.proto numbers its fields.
#[derive(Debug)]
struct Span {
    trace: String,
    id: String,
    parent: String,
    name: String,
    kind: u64,
    attributes: BTreeMap<String, String>,
}

const SERVER: u64 = 2;
const CLIENT: u64 = 3;
const PRODUCER: u64 = 4;
const CONSUMER: u64 = 5;

impl Span {
    fn read(bytes: &[u8]) -> Self {
        let hex = |field| {
            let all = Fields(bytes).all(field);
            all.first().map(|id| id.iter().map(|byte| format!("{byte:02x}")).collect()).unwrap_or_default()
        };
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        let attributes = Fields(bytes).all(9).into_iter().map(|attribute| {
            let value = match Fields(Fields(attribute).all(2)[0]).next() {
                Some((1, Value::Bytes(value))) => text(value),
                Some((_, Value::Number(value))) => value.to_string(),
                _ => String::new(),
            };
            (text(Fields(attribute).all(1)[0]), value)
        });
        let kind = Fields(bytes).find_map(|(number, value)| match value {
            Value::Number(kind) if number == 6 => Some(kind),
            _ => None,
        });
        Self {
            trace: hex(1),
            id: hex(2),
            parent: hex(4),
            name: text(Fields(bytes).all(5)[0]),
            kind: kind.unwrap_or_default(),
            attributes: attributes.collect(),
        }
    }

    /// Fails unless it has these attributes.
    fn expect(&self, attributes: &[(&str, &str)]) {
        for (name, value) in attributes {
            assert_eq!(self.attributes.get(*name).map(String::as_str), Some(*value), "{name} of {self:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_jobs_trace_goes_from_its_publisher_to_stripe_without_a_secret() {
    let faults = Faults { error_after: 0.3, drop_after: 0.3, ..Faults::default() };
    let scene = Scene::with(Options { faults, ..Options::default() }).await;
    let (collector, address) = Collector::start().await;
    let program = || {
        scene
            .program()
            .with("STRIPE_API_KEY", API_KEY)
            .with("OTEL_EXPORTER_OTLP_ENDPOINT", &address)
            .with("OTEL_BSP_SCHEDULE_DELAY", "200")
            .with("EMBOSSER__RETRY__BACKOFF_SECONDS_MIN", "0.02")
    };
    scene.manifest(20).await;
    let manifest = std::fs::read_to_string(scene.directory.path().join("cards.csv")).unwrap();
    let mut secrets = Secrets::default();
    let cells = manifest.lines().filter_map(|line| line.rsplit(',').next());
    let jwes: Vec<&str> = cells.filter(|cell| cell.matches('.').count() == 4).collect();
    jwes.iter().for_each(|jwe| secrets.add_jwe(jwe));
    secrets.add_text(API_KEY.rsplit('_').next().unwrap());
    secrets.add_text(PASSWORD);

    let worker = program().spawn(&["worker", "--rate", "50"]);
    support::expect_exit(&program().run(&["submit", "cards.csv", "--wait"]).await, 0);
    let job = |id: &str| {
        json!({"id": id, "card": {"type": "virtual", "currency": "eur", "cardholder": "ich_1",
            "pin": {"encrypted_number": jwes[0]}}})
        .to_string()
        .into_bytes()
    };
    // A message, and a request, of somebody who traces.
    let mut headers = FieldTable::default();
    headers.insert("traceparent".into(), AMQPValue::LongString(traceparent(PARENTS[0]).into()));
    scene.publish(&job("own/message"), BasicProperties::default().with_headers(headers)).await;
    let served = Served::start(&program().with("EMBOSSER__HTTP__JOBS_TO", "rabbitmq_test"), &[]);
    let parent = traceparent(PARENTS[1]);
    let headers = [("traceparent", parent.as_str()), ("content-type", "application/json")];
    served.ask(Method::POST, "/v1/jobs", &headers, job("own/request")).await.expect(202);
    scene.cards(22).await;
    worker.signal(rustix::process::Signal::TERM);
    let stopped = worker.ended().await;
    support::expect_exit(&stopped, 0);
    served.stopped().await;

    let spans = collector.spans();
    let by_id: BTreeMap<&str, &Span> = spans.iter().map(|span| (span.id.as_str(), span)).collect();
    let above = |span: &Span| by_id.get(span.parent.as_str()).copied();
    let of = |kind: u64, name: &str| -> Vec<&Span> {
        spans.iter().filter(|span| span.kind == kind && span.name == name).collect()
    };
    let broker = [
        ("messaging.system", "rabbitmq"),
        ("messaging.destination.name", "embosser.jobs"),
        ("server.address", "127.0.0.1"),
        ("server.port", &scene.rabbit.port().to_string()),
    ];
    let (sent, processed) = (of(PRODUCER, "send embosser.jobs"), of(CONSUMER, "process embosser.jobs"));
    assert_eq!(sent.len(), 21, "20 rows, and one by way of serve");
    assert!(processed.len() >= 22, "{}", processed.len());
    for span in &sent {
        span.expect(&broker);
        span.expect(&[("messaging.operation.type", "send")]);
        let next = processed.iter().find(|next| next.parent == span.id).unwrap();
        assert_eq!(next.trace, span.trace);
    }
    for span in &processed {
        span.expect(&broker);
        span.expect(&[("messaging.operation.type", "process")]);
        assert!(!span.parent.is_empty(), "{span:?}");
    }
    // Where somebody's own trace went on.
    let from = |spans: &[&Span], (trace, id): (&str, &str)| {
        spans.iter().filter(|span| span.trace == trace && span.parent == id).count()
    };
    assert!(from(&processed, PARENTS[0]) >= 1);
    let requests = of(SERVER, "POST /v1/jobs");
    assert_eq!((requests.len(), from(&requests, PARENTS[1])), (1, 1));
    requests[0].expect(&[
        ("http.request.method", "POST"),
        ("http.route", "/v1/jobs"),
        ("http.response.status_code", "202"),
    ]);
    assert_eq!(sent.iter().filter(|span| span.parent == requests[0].id).count(), 1);
    // Each call stands below its job, and that below its message.
    let (creates, keys) = (of(CLIENT, "POST /v1/issuing/cards"), of(CLIENT, "GET /v1/keys"));
    let account = scene.sandbox.account();
    assert_eq!(u64::try_from(creates.len()).unwrap(), account.creates + account.limited);
    assert!(keys.len() >= 18, "{}", keys.len());
    for span in creates.iter().chain(&keys) {
        span.expect(&[("server.address", "127.0.0.1")]);
        assert!(["POST", "GET"].contains(&span.attributes["http.request.method"].as_str()));
        let attempt = above(span).unwrap();
        assert_eq!(attempt.name, "attempt");
        assert!(attempt.attributes["attempt"].parse::<u32>().unwrap() >= 1);
        let job = above(attempt).unwrap();
        assert_eq!(job.name, "job");
        assert!(!job.attributes["job"].is_empty() && !job.attributes["batch"].is_empty());
        assert_eq!(above(job).unwrap().name, "process embosser.jobs");
    }
    let with = |name: &str, value: &str| {
        let told = |span: &&&Span| span.attributes.get(name).is_some_and(|told| told == value);
        creates.iter().filter(told).count()
    };
    let (answered, failed, limited, lost) = (
        with("http.response.status_code", "200"),
        with("http.response.status_code", "500"),
        with("http.response.status_code", "429"),
        with("error.type", "no_answer"),
    );
    assert!(answered > 0 && failed > 0 && lost > 0, "{answered}, {failed} and {lost}");
    assert_eq!(answered + failed + limited + lost, creates.len());
    let bytes = collector.sent();
    assert!(!bytes.is_empty());
    assert_eq!(secrets.found_in(&bytes), None);
    // The spans are for the collector; the log says what it says without them.
    let log = String::from_utf8_lossy(&stopped.stderr);
    assert!(log.contains("job ended") && !log.contains("messaging.system"), "{log}");
}
