//! One answer for everybody: an account that may not issue yet, a parameter that a version does not know, a server that
//! fails at all calls. Nothing is done meanwhile.

use serde_json::json;

use super::request::ApiRequest;
use super::response::ApiResponse;

/// What calls are answered, whatever they ask for.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Forced {
    /// The answer's status.
    pub status: u16,
    /// Which calls are answered so.
    #[serde(default)]
    pub calls: Calls,
    /// Of which account only; none: of all.
    #[serde(default)]
    pub account: Option<String>,
    /// `error[type]`; none: an answer in JSON without Stripe's error object.
    #[serde(rename = "type", default)]
    pub kind: Option<String>,
    /// `error[code]`.
    #[serde(default)]
    pub code: Option<String>,
    /// `error[param]`.
    #[serde(default)]
    pub param: Option<String>,
    /// `error[message]`; `{cardholder}`, `{job}` and `{request}` in it become those of each request.
    #[serde(default)]
    pub message: String,
    /// Whether the answer is saved under the idempotency key, as Stripe does once execution began.
    #[serde(default)]
    pub saved: bool,
}

/// Calls that are answered alike.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Calls {
    /// Those that create or change a card, after the memory of their idempotency keys.
    #[default]
    Changes,
    /// All of the API, lists included.
    All,
}

impl Forced {
    /// An error with Stripe's error object.
    #[must_use]
    pub fn error(status: u16, kind: &str, code: Option<&str>, message: &str) -> Self {
        Self {
            status,
            kind: Some(kind.to_owned()),
            code: code.map(str::to_owned),
            message: message.to_owned(),
            ..Self::default()
        }
    }

    /// The answer to this request, the sandbox's n-th.
    pub(super) fn response(&self, request: &ApiRequest, number: u64) -> ApiResponse {
        let Some(kind) = &self.kind else { return ApiResponse::new(self.status, &json!({})) };
        let pairs = request.pairs();
        let given = |name: &str| {
            let pair = pairs.iter().find(|(path, _)| path == name);
            pair.map_or("none", |(_, value)| value.as_str())
        };
        let message = self
            .message
            .replace("{cardholder}", given("cardholder"))
            .replace("{job}", given("metadata[embosser_job]"))
            .replace("{request}", &format!("req_sandbox{number:08}"));
        let mut error = json!({"type": kind, "message": message});
        for (name, value) in [("code", &self.code), ("param", &self.param)] {
            if let Some(value) = value {
                error[name] = value.as_str().into();
            }
        }
        ApiResponse::new(self.status, &json!({ "error": error }))
    }
}
