//! Signatures of events, as Stripe makes them: HMAC-SHA-256 over the time of signing, a dot, and the body as it is sent
//! (docs.stripe.com/webhooks/signature). Stripe's events are verified by it, and our own are signed by it.

use std::fmt;

use openssl::error::ErrorStack;
use openssl::hash::MessageDigest;
use openssl::pkey::{PKey, Private};
use openssl::sign::Signer;
use secrecy::{ExposeSecret as _, SecretString};

/// What events are signed with.
pub struct SigningKey(PKey<Private>);

impl fmt::Debug for SigningKey {
    /// Without what it holds.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("SigningKey(…)")
    }
}

impl SigningKey {
    /// The key that is this secret's text.
    ///
    /// # Errors
    /// If OpenSSL cannot use it.
    pub fn of(secret: &SecretString) -> Result<Self, ErrorStack> {
        PKey::hmac(secret.expose_secret().as_bytes()).map(Self)
    }

    /// The signature of a body at that time (seconds since 1970, in digits), in hexadecimal.
    ///
    /// # Errors
    /// If OpenSSL fails.
    pub fn signature(&self, time: &str, body: &[u8]) -> Result<String, ErrorStack> {
        let mut signer = Signer::new(MessageDigest::sha256(), &self.0)?;
        signer.update(time.as_bytes())?;
        signer.update(b".")?;
        signer.update(body)?;
        Ok(signer.sign_to_vec()?.iter().map(|byte| format!("{byte:02x}")).collect())
    }
}
