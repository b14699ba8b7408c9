//! Stripe's PIN key as its endpoint answers it: `{key_id, jwk, pkcs8}`.
//!
//! Liberal where that is harmless: the answer comes from Stripe over TLS, and a key that was misread can only make
//! embosser refuse PINs. The `jwk` may be an object or a text that holds one; without it the `pkcs8` is read.

use std::borrow::Cow;
use std::fmt;
use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex, PoisonError};

use base64::Engine as _;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use bytes::Bytes;
use openssl::pkey::{PKey, Public};
use openssl::rsa::Rsa;
use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, MapAccess, Visitor};

/// RFC 7518 (section 4.3) demands 2048 bits at least; beyond 4096 no PIN key goes.
const MODULUS_BITS: RangeInclusive<usize> = 2048..=4096;

/// As others write numbers: with or without padding, trailing bits ignored.
const LENIENT: GeneralPurposeConfig = GeneralPurposeConfig::new()
    .with_decode_padding_mode(DecodePaddingMode::Indifferent)
    .with_decode_allow_trailing_bits(true);
const BASE64URL: GeneralPurpose =
    GeneralPurpose::new(&base64::alphabet::URL_SAFE, LENIENT.with_encode_padding(false));
const BASE64: GeneralPurpose = GeneralPurpose::new(&base64::alphabet::STANDARD, LENIENT);

/// The public key of this moment. Fetched for every PIN operation; nothing keeps one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PinKey {
    kid: String,
    /// The modulus in base64url, without padding or leading zero bytes: as it is compared.
    modulus: String,
}

/// Why the key endpoint's answer is not a key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Not JSON, or a member of the wrong type.
    #[error(
        "the key endpoint's answer is not {{key_id, jwk or pkcs8}}: {problem} at line {line}, column {column}"
    )]
    Shape {
        /// What is wrong there.
        problem: &'static str,
        /// From 1.
        line: usize,
        /// From 1.
        column: usize,
    },
    /// Nothing for a PIN's `kid` to be compared with.
    #[error("the key endpoint's answer has no key_id")]
    NoKeyId,
    /// Neither form of the key.
    #[error("the key endpoint's answer has neither a jwk with a modulus nor a pkcs8")]
    NoKey,
    /// Another kind of key.
    #[error("the key endpoint's key is not an RSA key")]
    NotRsa,
    /// The jwk's `n` is not a number in base64url.
    #[error("the key endpoint's jwk has an n that is not base64url")]
    ModulusEncoding,
    /// The pkcs8 is neither PEM nor base64 of a public key.
    #[error("the key endpoint's pkcs8 is not a public key in PEM or base64")]
    Pkcs8,
    /// Too short to be safe, or too long to be meant.
    #[error("the key endpoint's key has {0} bits; a PIN key has 2048 to 4096")]
    Bits(usize),
}

impl PinKey {
    /// Reads the endpoint's document.
    ///
    /// # Errors
    /// If it holds no key that a PIN can be encrypted under, and what it lacks.
    pub fn parse(document: &[u8]) -> Result<Self, KeyError> {
        let document: Document = serde_json::from_slice(document).map_err(|error| shape(&error))?;
        let jwk = document.jwk.unwrap_or_default();
        // A PIN's kid is the key_id, whatever the jwk calls itself; only without a key_id the jwk's kid stands in.
        let kid = document.key_id.into_iter().chain(jwk.kid).map(|text| text.0).find(|kid| !kid.is_empty());
        let kid = kid.ok_or(KeyError::NoKeyId)?.into_owned();
        if jwk.kty.is_some_and(|kty| kty.0 != "RSA") {
            return Err(KeyError::NotRsa);
        }
        let modulus = match (jwk.n, document.pkcs8) {
            (Some(n), _) => decode(&n.0).ok_or(KeyError::ModulusEncoding)?,
            (None, Some(pkcs8)) => modulus_of_pkcs8(&pkcs8.0)?,
            (None, None) => return Err(KeyError::NoKey),
        };
        let zeros = modulus.iter().take_while(|byte| **byte == 0).count();
        let modulus = &modulus[zeros..];
        let bits = modulus.len() * 8 - modulus.first().map_or(0, |byte| byte.leading_zeros() as usize);
        if !MODULUS_BITS.contains(&bits) {
            return Err(KeyError::Bits(bits));
        }
        Ok(Self { kid, modulus: BASE64URL.encode(modulus) })
    }

    /// The key's id, which a JWE's `kid` must equal.
    #[must_use]
    pub fn kid(&self) -> &str {
        &self.kid
    }

    /// The modulus, big-endian, without leading zeros.
    #[must_use]
    pub fn modulus(&self) -> Vec<u8> {
        BASE64URL.decode(&self.modulus).expect("it was encoded by parse")
    }

    /// The modulus in canonical base64url.
    pub(super) fn modulus_text(&self) -> &str {
        &self.modulus
    }
}

/// Reads the endpoint's documents as they come. Each is fetched anew; one that is to the last byte the same as the one
/// before is the same key, and is not parsed again.
#[derive(Debug, Default)]
pub struct KeyReader {
    latest: Mutex<Option<(Bytes, Arc<PinKey>)>>,
}

impl KeyReader {
    /// Reads the document that the endpoint answers at this moment.
    ///
    /// # Errors
    /// As [`PinKey::parse`].
    pub fn read(&self, document: Bytes) -> Result<Arc<PinKey>, KeyError> {
        let mut latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        match &*latest {
            Some((before, key)) if *before == document => Ok(key.clone()),
            _ => {
                let key = Arc::new(PinKey::parse(&document)?);
                *latest = Some((document, key.clone()));
                Ok(key)
            }
        }
    }
}

fn shape(error: &serde_json::Error) -> KeyError {
    use serde_json::error::Category;
    let problem = match error.classify() {
        Category::Syntax => "not JSON",
        Category::Eof => "it ends early",
        Category::Data => "a member is of another type or there twice",
        Category::Io => "it cannot be read",
    };
    KeyError::Shape { problem, line: error.line(), column: error.column() }
}

/// Other members are nobody's business here.
#[derive(Deserialize)]
struct Document<'d> {
    #[serde(borrow)]
    key_id: Option<Text<'d>>,
    #[serde(borrow)]
    jwk: Option<Jwk<'d>>,
    #[serde(borrow)]
    pkcs8: Option<Text<'d>>,
}

/// A string, borrowed from the document unless it has escapes.
#[derive(Deserialize)]
struct Text<'d>(#[serde(borrow)] Cow<'d, str>);

/// The members of a JWK that matter; `alg`, `use`, `key_ops` and `e` are for who encrypts.
#[derive(Default, Deserialize)]
#[serde(remote = "Self")]
struct Jwk<'d> {
    #[serde(borrow)]
    kty: Option<Text<'d>>,
    #[serde(borrow)]
    n: Option<Text<'d>>,
    #[serde(borrow)]
    kid: Option<Text<'d>>,
}

impl<'d, 'de: 'd> Deserialize<'de> for Jwk<'d> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(JwkOrText)
    }
}

/// Stripe gives an object; a text that holds one is understood too.
struct JwkOrText;

impl<'d> Visitor<'d> for JwkOrText {
    type Value = Jwk<'d>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a JWK")
    }

    fn visit_map<A: MapAccess<'d>>(self, members: A) -> Result<Jwk<'d>, A::Error> {
        Jwk::deserialize(MapAccessDeserializer::new(members))
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Jwk<'d>, E> {
        let mut json = serde_json::Deserializer::from_str(text);
        let jwk = Jwk::deserialize(&mut json).map_err(|_| E::custom("not a JWK"))?;
        let own = |text: Option<Text>| text.map(|text| Text(Cow::Owned(text.0.into_owned())));
        Ok(Jwk { kty: own(jwk.kty), n: own(jwk.n), kid: own(jwk.kid) })
    }
}

/// base64url as the standard has it, or plain base64.
fn decode(text: &str) -> Option<Vec<u8>> {
    BASE64URL.decode(text).or_else(|_| BASE64.decode(text)).ok()
}

fn modulus_of_pkcs8(text: &str) -> Result<Vec<u8>, KeyError> {
    let key = if text.contains("-----BEGIN") {
        // Line breaks that were escaped twice on the way.
        let pem = text.replace("\\n", "\n");
        rsa_of(PKey::public_key_from_pem(pem.as_bytes()))
            .or_else(|| Rsa::public_key_from_pem_pkcs1(pem.as_bytes()).ok().map(Ok))
    } else {
        let packed: String = text.split_whitespace().collect();
        let der = decode(&packed).ok_or(KeyError::Pkcs8)?;
        rsa_of(PKey::public_key_from_der(&der)).or_else(|| Rsa::public_key_from_der_pkcs1(&der).ok().map(Ok))
    };
    Ok(key.ok_or(KeyError::Pkcs8)??.n().to_vec())
}

/// None if it is no key at all, an error if it is another kind of key.
fn rsa_of(key: Result<PKey<Public>, openssl::error::ErrorStack>) -> Option<Result<Rsa<Public>, KeyError>> {
    key.ok().map(|key| key.rsa().map_err(|_| KeyError::NotRsa))
}
