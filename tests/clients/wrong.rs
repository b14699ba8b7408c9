//! What client libraries and their users get wrong, each made by josekit or from what it made.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use josekit::jwe::{JweEncrypter, JweHeader, RSA_OAEP, RSA_OAEP_256};
use josekit::jwk::Jwk;
use serde_json::Value;

/// A mistake, as docs/pins.md tells it, and what then stands in the place of the PIN's JWE.
pub(crate) struct Mistake {
    pub(crate) what: &'static str,
    pub(crate) pin: String,
}

/// A key as the endpoint serves it, and the header that goes with it.
struct Key {
    jwk: Jwk,
    kid: String,
}

impl Key {
    fn of(document: &[u8]) -> Self {
        let document: Value = serde_json::from_slice(document).unwrap();
        let mut jwk = Jwk::new("RSA");
        for member in ["n", "e"] {
            jwk.set_parameter(member, document["jwk"].get(member).cloned()).unwrap();
        }
        Self { jwk, kid: document["key_id"].as_str().unwrap().to_owned() }
    }

    fn header(&self) -> JweHeader {
        let mut header = JweHeader::new();
        header.set_content_encryption("A128CBC-HS256");
        header.set_key_id(&self.kid);
        header
    }

    fn encrypt(&self, plain: &str) -> String {
        self.encrypt_with(plain, &self.header(), &RSA_OAEP.encrypter_from_jwk(&self.jwk).unwrap())
    }

    fn encrypt_with(&self, plain: &str, header: &JweHeader, encrypter: &dyn JweEncrypter) -> String {
        josekit::jwe::serialize_compact(plain.as_bytes(), header, encrypter).unwrap()
    }
}

/// The same JWE in its flattened JSON serialization (RFC 7516, section 7.2.2).
fn as_json(jwe: &str) -> String {
    let names = ["protected", "encrypted_key", "iv", "ciphertext", "tag"];
    let members: serde_json::Map<String, Value> =
        names.map(str::to_owned).into_iter().zip(jwe.split('.').map(Value::from)).collect();
    Value::from(members).to_string()
}

/// With another header, which makes the tag wrong too: as a library would that calls its RSA-OAEP-256 RSA-OAEP.
fn relabelled(jwe: &str, from: &str, to: &str) -> String {
    let (header, rest) = jwe.split_once('.').unwrap();
    let header = String::from_utf8(URL_SAFE_NO_PAD.decode(header).unwrap()).unwrap();
    format!("{}.{rest}", URL_SAFE_NO_PAD.encode(header.replace(from, to)))
}

/// Whether the encrypted key is a number below the key's modulus.
fn is_below_modulus(jwe: &str, key: &Key) -> bool {
    let bytes = |text: &str| URL_SAFE_NO_PAD.decode(text).unwrap();
    bytes(jwe.split('.').nth(1).unwrap()) < bytes(key.jwk.parameter("n").unwrap().as_str().unwrap())
}

/// Each segment with its padding.
fn padded(jwe: &str) -> String {
    let pad = |segment: &str| format!("{segment}{}", "=".repeat((4 - segment.len() % 4) % 4));
    jwe.split('.').map(pad).collect::<Vec<_>>().join(".")
}

#[allow(deprecated, reason = "RSA1_5 is one of the mistakes")]
/// Every mistake, with the current key's document and that of the key before it.
pub(crate) fn mistakes(current: &[u8], before: &[u8]) -> Vec<Mistake> {
    let (key, old) = (Key::of(current), Key::of(before));
    let oaep = RSA_OAEP.encrypter_from_jwk(&key.jwk).unwrap();
    let oaep_256 = RSA_OAEP_256.encrypter_from_jwk(&key.jwk).unwrap();
    let with = |change: &dyn Fn(&mut JweHeader)| {
        let mut header = key.header();
        change(&mut header);
        key.encrypt_with("0123", &header, &oaep)
    };
    let good = key.encrypt("0123");
    let mut without_kid = JweHeader::new();
    without_kid.set_content_encryption("A128CBC-HS256");
    let mut named_anew = old.header();
    named_anew.set_key_id(&key.kid);
    let old_oaep = RSA_OAEP.encrypter_from_jwk(&old.jwk).unwrap();
    let mistake = |what, pin| Mistake { what, pin };
    vec![
        mistake("The PIN is not encrypted", "0123".to_owned()),
        mistake("`RSA-OAEP-256`", key.encrypt_with("0123", &key.header(), &oaep_256)),
        mistake(
            "`RSA1_5`",
            key.encrypt_with(
                "0123",
                &key.header(),
                &josekit::jwe::RSA1_5.encrypter_from_jwk(&key.jwk).unwrap(),
            ),
        ),
        mistake("`A256GCM`", with(&|header| header.set_content_encryption("A256GCM"))),
        mistake("`A256CBC-HS512`", with(&|header| header.set_content_encryption("A256CBC-HS512"))),
        mistake("Compressed (`zip`)", with(&|header| header.set_compression("DEF"))),
        mistake("No `kid`", key.encrypt_with("0123", &without_kid, &oaep)),
        mistake("Under a key that was kept, and is no longer the current one", old.encrypt("0123")),
        mistake("The same, with the current key's `kid`", {
            // One that is not below the current key's modulus is seen by embosser already.
            let encrypt = || old.encrypt_with("0123", &named_anew, &old_oaep);
            std::iter::repeat_with(encrypt).find(|jwe| is_below_modulus(jwe, &key)).unwrap()
        }),
        mistake("JSON serialization instead of compact", as_json(&good)),
        mistake("The compact JWE in base64 once more", URL_SAFE_NO_PAD.encode(&good)),
        mistake("base64url with padding", padded(&good)),
        mistake("base64 instead of base64url", {
            // Nearly every JWE has one of the two characters that differ; this one has one for certain.
            let bytes = |segment: &str| STANDARD.encode(URL_SAFE_NO_PAD.decode(segment).unwrap());
            let text = good.split('.').map(bytes).collect::<Vec<_>>().join(".").replace('=', "");
            if text.contains(['+', '/']) { text } else { text.replacen('A', "+", 1) }
        }),
        mistake("The JWE as a JSON string, with its quotes", format!("\"{good}\"")),
        mistake("Broken into lines", format!("{}\n{}", &good[..76], &good[76..])),
        mistake("A JSON document around the PIN", key.encrypt(r#"{"pin":"0123","iat":1785542400}"#)),
        mistake("The PIN as a JSON string, with its quotes", key.encrypt("\"0123\"")),
        mistake("A line break after the PIN", key.encrypt("0123\n")),
        mistake("The PIN as a number, its leading zero lost", key.encrypt("123")),
        mistake(
            "OAEP with SHA-256, called `RSA-OAEP`",
            relabelled(&key.encrypt_with("0123", &key.header(), &oaep_256), "RSA-OAEP-256", "RSA-OAEP"),
        ),
    ]
}
