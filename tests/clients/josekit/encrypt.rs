//! Rust, `josekit` (with reqwest).
// snippet begins
use josekit::jwe::{JweHeader, RSA_OAEP, serialize_compact};
use josekit::jwk::Jwk;
use serde_json::Value;

/// `url` is https://issuing-key.stripe.com/v1/keys.
pub async fn encrypt_pin(pin: &str, url: &str) -> Result<String, Box<dyn std::error::Error>> {
    if pin.len() != 4 || !pin.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err("a PIN is four digits".into());
    }
    let key: Value = serde_json::from_slice(&reqwest::get(url).await?.bytes().await?)?;
    let [n, e] = ["n", "e"].map(|member| key["jwk"].get(member).cloned());
    let mut jwk = Jwk::new("RSA");
    jwk.set_parameter("n", n)?;
    jwk.set_parameter("e", e)?;
    let mut header = JweHeader::new();
    header.set_content_encryption("A128CBC-HS256");
    header.set_key_id(key["key_id"].as_str().ok_or("no key_id")?);
    Ok(serialize_compact(pin.as_bytes(), &header, &RSA_OAEP.encrypter_from_jwk(&jwk)?)?)
}
// snippet ends

/// A JWE with the header that is asked for, as far as josekit lets its order be chosen.
pub async fn encrypt_as_asked(pin: &str, form: &str, header: &str, url: &str) -> String {
    let key: Value =
        serde_json::from_slice(&reqwest::get(url).await.unwrap().bytes().await.unwrap()).unwrap();
    let encrypter = if form == "pem" {
        RSA_OAEP.encrypter_from_pem(key["pkcs8"].as_str().unwrap())
    } else {
        let mut jwk = Jwk::new("RSA");
        for member in ["n", "e"] {
            jwk.set_parameter(member, key["jwk"].get(member).cloned()).unwrap();
        }
        RSA_OAEP.encrypter_from_jwk(&jwk)
    };
    let mut header = JweHeader::from_bytes(header.as_bytes()).unwrap();
    header.set_key_id(key["key_id"].as_str().unwrap());
    serialize_compact(pin.as_bytes(), &header, &encrypter.unwrap()).unwrap()
}
