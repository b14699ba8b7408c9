//! Somebody who is told by webhooks: a real HTTP server, which can be down.

use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::http::{HeaderMap, StatusCode};
use serde_json::Value;
use tokio::sync::watch;

/// Longer than anything here may take: also until a process that was killed is taken for gone, which is 20 s.
const WAIT_MAX: Duration = Duration::from_secs(90);

/// A signing secret of the tests.
pub const SECRET: &str = "whsec_of_the_tests_0123456789abcdef";

/// One delivery, as it came.
#[derive(Debug, Clone)]
pub struct Delivery {
    pub signature: String,
    pub body: String,
    /// What it was answered.
    pub answered: u16,
}

impl Delivery {
    pub fn event(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }

    pub fn id(&self) -> String {
        self.event()["id"].as_str().unwrap().to_owned()
    }

    pub fn kind(&self) -> String {
        self.event()["type"].as_str().unwrap().to_owned()
    }

    /// What it says of the batch.
    pub fn batch(&self) -> Value {
        self.event()["data"]["object"].clone()
    }
}

/// A receiver; it ends with the test.
pub struct Receiver {
    pub url: String,
    status: Arc<AtomicU16>,
    received: Arc<Mutex<Vec<Delivery>>>,
    count: watch::Receiver<usize>,
}

impl Receiver {
    /// One that has each event.
    pub async fn start() -> Self {
        let status = Arc::new(AtomicU16::new(204));
        let received = Arc::new(Mutex::new(Vec::new()));
        let (counted, count) = watch::channel(0);
        let (of_status, of_received) = (status.clone(), received.clone());
        let take = async move |headers: HeaderMap, body: Bytes| {
            let answered = of_status.load(Ordering::SeqCst);
            assert_eq!(headers["content-type"], "application/json");
            let signature = headers["embosser-signature"].to_str().unwrap().to_owned();
            let body = String::from_utf8(body.to_vec()).unwrap();
            of_received.lock().unwrap().push(Delivery { signature, body, answered });
            counted.send_modify(|count| *count += 1);
            let location = [("location", "https://example.invalid/")];
            (StatusCode::from_u16(answered).unwrap(), location)
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/in?token=of_the_address", listener.local_addr().unwrap());
        let router = Router::new().fallback(take);
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { url, status, received, count }
    }

    /// Every delivery from now on is answered so.
    pub fn answers(&self, status: u16) {
        self.status.store(status, Ordering::SeqCst);
    }

    /// Every delivery, whatever it was answered.
    pub fn tries(&self) -> Vec<Delivery> {
        self.received.lock().unwrap().clone()
    }

    /// Those that it said it has.
    pub fn told(&self) -> Vec<Delivery> {
        self.tries().into_iter().filter(|delivery| delivery.answered < 300).collect()
    }

    /// Waits until what it was told is as wanted.
    pub async fn until(&self, wanted: impl Fn(&[Delivery]) -> bool) -> Vec<Delivery> {
        self.until_tries(|tries| {
            let told: Vec<_> = tries.iter().filter(|delivery| delivery.answered < 300).cloned().collect();
            wanted(&told)
        })
        .await;
        self.told()
    }

    /// Waits until its deliveries are as wanted.
    pub async fn until_tries(&self, wanted: impl Fn(&[Delivery]) -> bool) {
        let mut count = self.count.clone();
        let waiting = async {
            while !wanted(&self.tries()) {
                count.changed().await.unwrap();
            }
        };
        let waited = tokio::time::timeout(WAIT_MAX, waiting).await;
        assert!(waited.is_ok(), "never came: {:#?}", self.tries());
    }

    /// Waits until it has an event of this type.
    pub async fn has(&self, kind: &str) -> Delivery {
        let told = self.until(|told| told.iter().any(|delivery| delivery.kind() == kind)).await;
        told.into_iter().find(|delivery| delivery.kind() == kind).unwrap()
    }
}

/// Writes a configuration that tells these, each of what it wants (all, if that is empty), with short waits. Answers its path.
pub fn configuration(folder: &std::path::Path, receivers: &[(&Receiver, &[&str])], more: &str) -> String {
    let secret = folder.join("webhook-secret");
    std::fs::write(&secret, format!("{SECRET}\n")).unwrap();
    let mut text = format!(
        "[webhooks]\ntimeout_seconds = 1.0\nretry_seconds_min = 0.05\nretry_seconds_max = 0.2\n\
         page_url = \"https://cards.example.com\"\n{more}\n"
    );
    for (receiver, events) in receivers {
        text += &format!(
            "[[webhooks.endpoints]]\nurl = {:?}\nsecret_file = {secret:?}\nevents = {events:?}\n",
            receiver.url
        );
    }
    let path = folder.join("embosser.toml");
    std::fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}
