//! Whether an event is Stripe's: the header `Stripe-Signature` over the body as it came (docs.stripe.com/webhooks/signature).
//!
//! The header has the time of signing and signatures, of which one must be right: while a secret is being replaced there are
//! two. Never: the secret, or a signature that would have been right, in an error.

use secrecy::{ExposeSecret as _, SecretString};

use crate::signature::SigningKey;

/// How far the time of signing may lie in the past or in the future, in seconds: Stripe's libraries have the same bound.
const TOLERANCE_SECONDS: u64 = 300;
/// Signatures of one header that are looked at.
const SIGNATURES_MAX: usize = 8;

/// What an endpoint's events are signed with.
#[derive(Debug)]
pub struct EventSecret(SigningKey);

impl EventSecret {
    /// As Stripe shows it: `whsec_…`.
    ///
    /// # Errors
    /// If it is none.
    pub fn of(secret: &SecretString) -> Result<Self, String> {
        let text = secret.expose_secret().trim();
        let is_secret = text.strip_prefix("whsec_").is_some_and(|rest| !rest.is_empty());
        if !is_secret || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err("holds no signing secret of a webhook endpoint: one begins with whsec_".into());
        }
        SigningKey::of(&text.to_owned().into()).map(Self).map_err(|error| error.to_string())
    }

    /// Whether the body is signed so.
    ///
    /// # Errors
    /// Why it is not taken for Stripe's.
    pub fn verify(&self, header: &str, body: &[u8], now_seconds: i64) -> Result<(), Unsigned> {
        let parts = || header.split(',').filter_map(|part| part.trim().split_once('='));
        let time = parts().find_map(|(name, value)| (name == "t").then_some(value));
        let time = time.filter(|time| !time.is_empty() && time.bytes().all(|byte| byte.is_ascii_digit()));
        let signed: (&str, i64) =
            time.and_then(|text| Some((text, text.parse().ok()?))).ok_or(Unsigned::Malformed)?;
        let wanted = self.0.signature(signed.0, body).map_err(|_| Unsigned::NotSigned)?;
        let given = parts().filter(|(name, _)| *name == "v1").map(|(_, value)| value).take(SIGNATURES_MAX);
        let is_right = |given: &str| {
            given.len() == wanted.len() && openssl::memcmp::eq(given.as_bytes(), wanted.as_bytes())
        };
        if !given.fold(false, |found, given| found | is_right(given)) {
            return Err(Unsigned::NotSigned);
        }
        if signed.1.abs_diff(now_seconds) > TOLERANCE_SECONDS {
            return Err(Unsigned::OutOfTime);
        }
        Ok(())
    }
}

/// Why an event is not taken for Stripe's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unsigned {
    /// There is no signature that could be looked at.
    #[error("the header Stripe-Signature is missing, or has no time")]
    Malformed,
    /// It is somebody else's, or of another body.
    #[error("no signature in the header Stripe-Signature is that of this body under this endpoint's secret")]
    NotSigned,
    /// It may be an event that was sent before, sent again by somebody else.
    #[error(
        "it was signed more than {TOLERANCE_SECONDS} seconds ago, or ahead: look at this machine's clock"
    )]
    OutOfTime,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    /// Made by Stripe's own library for Python, version 16.1.0, and accepted by its `WebhookSignature.verify_header`.
    const SECRET: &str = "whsec_test_of_the_tests";
    const BODY: &[u8] = br#"{"id": "evt_1", "type": "issuing_card.updated"}"#;
    const TIME: i64 = 1_796_000_000;
    const RIGHT: &str = "c14465ddcb84269fa13ad50517ce07c82aa8732d76b968c9b5209aa84191d5f1";

    fn verify(header: &str, body: &[u8], now: i64) -> Result<(), Unsigned> {
        EventSecret::of(&SECRET.into()).unwrap().verify(header, body, now)
    }

    #[test]
    fn what_stripes_library_signs_is_stripes() {
        let header = format!("t={TIME},v1={RIGHT}");
        for now in [TIME, TIME - 300, TIME + 300] {
            assert_eq!(verify(&header, BODY, now), Ok(()));
        }
        let wrong = "0".repeat(64);
        for two in
            [format!("t={TIME},v1={wrong},v1={RIGHT}"), format!("t={TIME}, v0=x, v1={RIGHT},v1={wrong}")]
        {
            assert_eq!(verify(&two, BODY, TIME), Ok(()), "{two}");
        }
    }

    #[test]
    fn nothing_else_is() {
        let header = format!("t={TIME},v1={RIGHT}");
        assert_eq!(verify(&header, BODY, TIME + 301), Err(Unsigned::OutOfTime));
        assert_eq!(verify(&header, BODY, TIME - 301), Err(Unsigned::OutOfTime));
        assert_eq!(verify(&header, b"{}", TIME), Err(Unsigned::NotSigned));
        // Another time than the one that was signed; the signature under another name; a part of it.
        for wrong in [
            format!("t={},v1={RIGHT}", TIME + 1),
            format!("t={TIME},v0={RIGHT}"),
            format!("t={TIME},v1={}", &RIGHT[..63]),
            format!("t={TIME},v1={RIGHT}0"),
            format!("t={TIME},v1="),
            format!("t={TIME}"),
        ] {
            assert_eq!(verify(&wrong, BODY, TIME), Err(Unsigned::NotSigned), "{wrong}");
        }
        for malformed in
            ["", "t", "v1=", &format!("v1={RIGHT}"), &format!("t=-1,v1={RIGHT}"), "t=99999999999999999999"]
        {
            assert_eq!(verify(malformed, BODY, TIME), Err(Unsigned::Malformed), "{malformed}");
        }
        for secret in ["", "whsec_", "sk_test_1", "whsec_a b"] {
            assert!(EventSecret::of(&secret.into()).is_err(), "{secret}");
        }
    }
}
