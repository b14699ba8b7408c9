//! PINs' ciphertext, links, signatures, and the file that has the operator's settings.

use std::cell::RefCell;
use std::io::{Seek as _, Write as _};
use std::sync::LazyLock;

use embosser::config::Config;
use embosser::jwe::{self, PinKey, Verifier};
use embosser::pin_links::{TOKEN_CHARACTERS, digest_of};
use embosser::serve::stripe_events::{EventSecret, Unsigned};

/// A key of 2048 bits; whose it is does not matter here.
static KEY: LazyLock<PinKey> = LazyLock::new(|| {
    let modulus = "v".repeat(342);
    let document = format!(r#"{{"key_id": "k", "jwk": {{"kty": "RSA", "n": "{modulus}", "e": "AQAB"}}}}"#);
    PinKey::parse(document.as_bytes()).unwrap()
});

/// A JWE, and after a line end a key document that Stripe may have answered.
pub(super) fn jwe(data: &[u8]) {
    let (compact, document) = split(data, b'\n');
    let _ = PinKey::parse(document);
    let Ok(compact) = std::str::from_utf8(compact) else { return };
    let verified = jwe::verify(compact, &KEY);
    let inspected = jwe::inspect(compact);
    // One that has seen no header yet comes to the same.
    assert_eq!(Verifier::new().verify(compact, &KEY), verified);
    assert_eq!(Verifier::new().inspect(compact), inspected);
    if verified.is_ok() {
        assert!(inspected.is_ok(), "it is only looked at less closely without the key");
    }
    if let Err(refusal) = verified {
        assert_not_told(&refusal.to_string(), compact);
    }
}

/// A link's text, and after a line end the header of one of Stripe's events, and its body.
pub(super) fn pin_link(data: &[u8]) {
    let (token, event) = split(data, b'\n');
    let (header, body) = split(event, b'\n');
    if let Ok(token) = std::str::from_utf8(token) {
        let is_link = token.len() == TOKEN_CHARACTERS
            && token.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
        let digest = digest_of(token);
        assert_eq!(digest.is_some(), is_link);
        assert!(digest.is_none_or(|digest| digest.len() == 64 && !digest.contains(token)));
    }
    if let Ok(header) = std::str::from_utf8(header) {
        static SECRET: LazyLock<EventSecret> =
            LazyLock::new(|| EventSecret::of(&"whsec_of_the_fuzzer".into()).unwrap());
        let verdict = SECRET.verify(header, body, 1_796_000_000);
        assert!(
            matches!(verdict, Err(Unsigned::Malformed | Unsigned::NotSigned)),
            "nobody signed it: {header}"
        );
    }
}

/// A configuration file.
pub(super) fn config_file(data: &[u8]) {
    thread_local! {
        static FILE: RefCell<tempfile::NamedTempFile> = RefCell::new(tempfile::NamedTempFile::new().unwrap());
    }
    FILE.with_borrow_mut(|file| {
        file.as_file().set_len(0).unwrap();
        file.rewind().unwrap();
        file.write_all(data).unwrap();
        match Config::load(Some(file.path())) {
            // What was checked is not wrong when it is checked again, with what the command line says.
            Ok(config) => assert!(config.clone().checked().is_ok_and(|again| again == config)),
            Err(error) => assert!(!error.to_string().is_empty()),
        }
    });
}

/// What stands before the separator, and what after it.
pub(super) fn split(data: &[u8], separator: u8) -> (&[u8], &[u8]) {
    match data.iter().position(|byte| *byte == separator) {
        Some(at) => (&data[..at], &data[at + 1..]),
        None => (data, &[]),
    }
}

/// That a sentence quotes no part of what may be a PIN or its ciphertext.
pub(super) fn assert_not_told(sentence: &str, secret: &str) {
    const LONG: usize = 24;
    let characters: Vec<char> = secret.chars().take(4096).collect();
    for part in characters.windows(LONG).step_by(LONG / 2) {
        let part: String = part.iter().collect();
        assert!(!sentence.contains(&part), "{sentence:?} quotes {part:?}");
    }
}
