//! The addresses that calls go to: what they may be, and whose they are.

use super::ClientError;

/// An option's address, for plain or secure HTTP; without a name and password, which would take the API key's header.
pub(super) fn address(option: &'static str, value: &str) -> Result<url::Url, ClientError> {
    let wrong = |reason: String| ClientError::Address { option, value: value.to_owned(), reason };
    let mut url = url::Url::parse(value).map_err(|error| wrong(error.to_string()))?;
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
        return Err(wrong("it needs http:// or https:// and a host".into()));
    }
    // Only an address without a host refuses these.
    let _ = url.set_username("").and_then(|()| url.set_password(None));
    Ok(url)
}

/// The host and port that calls to this address go to.
///
/// # Errors
/// If it is no address.
pub fn host_of(api_url: &str) -> Result<String, String> {
    url::Url::parse(api_url)
        .map(|url| host_and_port(&url))
        .map_err(|error| format!("stripe.api_url: {error}"))
}

pub(super) fn host_and_port(url: &url::Url) -> String {
    let host = url.host_str().unwrap_or("");
    url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

/// Whether it is Stripe's own, where a live key may go.
pub(super) fn is_stripes(url: &url::Url) -> bool {
    let host = url.host_str().unwrap_or("");
    url.scheme() == "https" && (host == "stripe.com" || host.ends_with(".stripe.com"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_and_a_password_in_an_address_are_left_out() {
        let url = address("api_url", "https://who:secret@stripe.test:8443/v1?a=b").unwrap();
        assert_eq!(url.as_str(), "https://stripe.test:8443/v1?a=b");
        assert_eq!(host_and_port(&url), "stripe.test:8443");
    }
}
