//! A client that asks a sandbox over HTTP, as any would.

use embosser::encrypt::encrypt_pin;
use embosser::sandbox::{Faults, Options, Sandbox};
use reqwest::{Client, Method};
use serde_json::Value;

/// A client of a sandbox.
pub struct Asking {
    pub sandbox: Sandbox,
    pub client: Client,
    pub api_key: &'static str,
}

/// An answer, as far as it is judged.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    pub status: u16,
    pub replayed: bool,
    pub reason: Option<String>,
    pub body: Value,
}

pub const CARD: &str = "cardholder=ich_1&type=virtual&currency=eur";

impl Asking {
    pub async fn of(options: Options) -> Self {
        let client = super::http_client();
        Self { sandbox: Sandbox::start(options).await.unwrap(), client, api_key: "sk_test_1" }
    }

    pub async fn send(
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

    pub async fn post(&self, path: &str, key: &str, body: &str) -> Answer {
        self.send(Method::POST, path, &[("idempotency-key", key)], body).await.unwrap()
    }

    pub async fn create(&self, key: &str, body: &str) -> Answer {
        self.post("/v1/issuing/cards", key, body).await
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.send(Method::GET, path, &[], "").await.unwrap()
    }

    pub async fn jwe(&self, pin: &str) -> String {
        let key = self.client.get(self.sandbox.key_url()).send().await.unwrap().bytes().await.unwrap();
        encrypt_pin(pin, &key).unwrap()
    }

    pub fn cards(&self) -> usize {
        self.sandbox.counts().cards
    }
}

pub fn with(faults: Faults) -> Options {
    Options { faults, ..Options::default() }
}
