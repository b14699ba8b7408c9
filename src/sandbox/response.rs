//! Answers, in Stripe's shapes.

use serde_json::{Value, json};

/// An answer.
#[derive(Debug, Clone)]
pub(super) struct ApiResponse {
    pub(super) status: u16,
    pub(super) headers: Vec<(&'static str, String)>,
    pub(super) body: String,
    pub(super) cut: Cut,
}

/// Whether an answer arrives whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cut {
    Whole,
    /// The connection ends in the middle of the body.
    HalfWay,
}

impl ApiResponse {
    pub(super) fn new(status: u16, body: &Value) -> Self {
        let headers = vec![("content-type", "application/json".to_owned())];
        Self { status, headers, body: body.to_string(), cut: Cut::Whole }
    }

    /// Something else than Stripe's API answers, on the way to it.
    pub(super) fn page(status: u16) -> Self {
        let headers = vec![("content-type", "text/html".to_owned())];
        let body = "<html><body>Bad gateway</body></html>".to_owned();
        Self { status, headers, body, cut: Cut::Whole }
    }

    /// A 200 without a body.
    pub(super) fn nothing() -> Self {
        Self { status: 200, headers: Vec::new(), body: String::new(), cut: Cut::Whole }
    }
}

/// An error as Stripe words it (docs.stripe.com/api/errors).
#[derive(Debug, Clone)]
pub(super) struct Fault {
    pub(super) status: u16,
    pub(super) kind: &'static str,
    pub(super) code: Option<&'static str>,
    pub(super) param: Option<String>,
    pub(super) message: String,
    /// A limiter's, for the header `Stripe-Rate-Limited-Reason`.
    pub(super) reason: Option<&'static str>,
}

impl Fault {
    pub(super) fn invalid(code: Option<&'static str>, param: &str, message: impl Into<String>) -> Self {
        let param = Some(param.to_owned());
        Self {
            status: 400,
            kind: "invalid_request_error",
            code,
            param,
            message: message.into(),
            reason: None,
        }
    }

    pub(super) fn missing(what: &str, param: &str, id: &str) -> Self {
        let message = format!("No such {what}: '{id}'");
        Self { status: 404, ..Self::invalid(Some("resource_missing"), param, message) }
    }

    pub(super) fn of(status: u16, kind: &'static str, code: Option<&'static str>, message: &str) -> Self {
        Self { status, kind, code, param: None, message: message.into(), reason: None }
    }

    /// Stripe's own failure: what was asked for may have been done.
    pub(super) fn backend() -> Self {
        Self::of(500, "api_error", None, "Sorry! There was an error while talking to one of our backends.")
    }

    /// A key whose first call is still running.
    pub(super) fn in_use() -> Self {
        let message = "There is currently another in-progress request using this Idempotent Key.";
        Self::of(409, "invalid_request_error", Some("idempotency_key_in_use"), message)
    }

    pub(super) fn response(&self) -> ApiResponse {
        let mut error = json!({"type": self.kind, "message": self.message});
        if let Some(code) = self.code {
            error["code"] = code.into();
            error["doc_url"] =
                format!("https://stripe.com/docs/error-codes/{}", code.replace('_', "-")).into();
        }
        if let Some(param) = &self.param {
            error["param"] = param.as_str().into();
        }
        let mut response = ApiResponse::new(self.status, &json!({ "error": error }));
        response.headers.extend(self.reason.map(|reason| ("stripe-rate-limited-reason", reason.to_owned())));
        response
    }
}
