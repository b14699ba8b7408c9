//! What is said of an HTTP call that failed: in one line, and never with its address, which may carry a secret.

/// What went wrong in one line, without the address (which may carry a query).
pub(crate) fn sentence_of(error: reqwest::Error) -> String {
    let error = error.without_url();
    match (error.is_connect(), error.is_timeout()) {
        (true, true) => "connecting timed out".into(),
        (true, false) => format!("cannot connect: {}", last_cause(&error)),
        (false, true) => "no answer in time".into(),
        (false, false) => format!("connection failed: {}", last_cause(&error)),
    }
}

/// The reason below all others.
pub(crate) fn last_cause(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}
