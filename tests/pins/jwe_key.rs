//! The key endpoint's document is understood in every form that Stripe may send, and what is no key says why.

use crate::forge;

use embosser::encrypt::encrypt_pin;
use embosser::jwe::{self, KeyError, KeyReader, PinKey};
use forge::{KID, base64url, modulus};
use openssl::pkey::PKey;
use openssl::rsa::Rsa;
use proptest::prelude::*;
use serde_json::{Value, json};

fn parse(document: &Value) -> Result<PinKey, KeyError> {
    PinKey::parse(document.to_string().as_bytes())
}

fn jwk() -> Value {
    json!({"kty": "RSA", "use": "enc", "alg": "RSA-OAEP", "kid": KID, "n": base64url(&modulus(256)), "e": "AQAB"})
}

#[test]
fn a_jwk_is_read_as_an_object_and_as_a_text_that_holds_one() {
    let expected = forge::key(256);
    assert_eq!((expected.kid(), expected.modulus()), (KID, modulus(256)));
    for jwk in [jwk(), Value::String(jwk().to_string()), Value::String(format!("{:#}\n", jwk()))] {
        assert_eq!(parse(&json!({"key_id": KID, "jwk": jwk})), Ok(expected.clone()));
        let among_others =
            json!({"object": "key", "key_id": KID, "jwk": jwk, "pkcs8": "", "created": 1, "x": {}});
        assert_eq!(parse(&among_others), Ok(expected.clone()));
    }
}

#[test]
fn a_key_without_jwk_is_read_from_its_pkcs8_in_every_usual_form() {
    let rsa = Rsa::generate(2048).unwrap();
    let (pem, der) = (rsa.public_key_to_pem().unwrap(), rsa.public_key_to_der().unwrap());
    let pem = String::from_utf8(pem).unwrap();
    let inside: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
    let pkcs1 = String::from_utf8(rsa.public_key_to_pem_pkcs1().unwrap()).unwrap();
    for pkcs8 in
        [pem.clone(), pem.replace('\n', "\r\n"), pem.replace('\n', "\\n"), inside, base64url(&der), pkcs1]
    {
        for jwk in [Value::Null, json!({}), json!({"kty": "RSA", "kid": KID})] {
            let key = parse(&json!({"key_id": KID, "jwk": jwk, "pkcs8": pkcs8})).unwrap();
            assert_eq!((key.kid(), key.modulus()), (KID, rsa.n().to_vec()), "{pkcs8}");
        }
        assert!(parse(&json!({"key_id": KID, "pkcs8": pkcs8})).is_ok());
    }
}

#[test]
fn a_modulus_may_be_padded_or_have_zeros_in_front() {
    let n = modulus(256);
    let padded = base64::Engine::encode(&base64::engine::general_purpose::URL_SAFE, &n);
    let plain = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, &n);
    let zeros = base64url(&[&[0, 0], &n[..]].concat());
    for n in [padded, plain, zeros] {
        let key = parse(&json!({"key_id": KID, "jwk": {"kty": "RSA", "n": n}})).unwrap();
        assert_eq!(key, forge::key(256));
    }
}

#[test]
fn the_key_id_decides_and_the_jwks_own_kid_only_stands_in_for_it() {
    let mut other = jwk();
    other["kid"] = "another".into();
    assert_eq!(parse(&json!({"key_id": KID, "jwk": other})).unwrap().kid(), KID);
    assert_eq!(parse(&json!({"jwk": other})).unwrap().kid(), "another");
    assert_eq!(parse(&json!({"key_id": "", "jwk": other})).unwrap().kid(), "another");
    other["kid"] = Value::Null;
    assert_eq!(parse(&json!({"jwk": other})), Err(KeyError::NoKeyId));
}

#[test]
fn keys_from_2048_to_4096_bits_are_taken_and_no_others() {
    let of_bits = |bits: usize| {
        let mut n = modulus(bits.div_ceil(8));
        // The highest byte's highest bit is the key's.
        n[0] = (n[0] | 0x80) >> (n.len() * 8 - bits);
        parse(&json!({"key_id": KID, "jwk": {"kty": "RSA", "n": base64url(&n)}}))
    };
    for bits in [2048, 2049, 3072, 4095, 4096] {
        assert!(of_bits(bits).is_ok(), "{bits}");
    }
    for bits in [512, 1024, 2040, 2047, 4097, 8192] {
        assert_eq!(of_bits(bits), Err(KeyError::Bits(bits)));
    }
}

#[test]
fn what_is_no_key_says_what_it_lacks() {
    let elliptic = {
        let group = openssl::ec::EcGroup::from_curve_name(openssl::nid::Nid::X9_62_PRIME256V1).unwrap();
        let key = PKey::from_ec_key(openssl::ec::EcKey::generate(&group).unwrap()).unwrap();
        String::from_utf8(key.public_key_to_pem().unwrap()).unwrap()
    };
    let n = base64url(&modulus(256));
    let cases = [
        (json!({"jwk": {"kty": "RSA", "n": n}}), KeyError::NoKeyId),
        (json!({"key_id": KID}), KeyError::NoKey),
        (json!({"key_id": KID, "jwk": null, "pkcs8": null}), KeyError::NoKey),
        (json!({"key_id": KID, "jwk": {"kty": "RSA", "e": "AQAB"}}), KeyError::NoKey),
        (json!({"key_id": KID, "jwk": {"kty": "EC", "x": "AA", "y": "AA"}}), KeyError::NotRsa),
        (json!({"key_id": KID, "pkcs8": elliptic}), KeyError::NotRsa),
        (json!({"key_id": KID, "jwk": {"kty": "RSA", "n": "not base64!"}}), KeyError::ModulusEncoding),
        (json!({"key_id": KID, "jwk": {"kty": "RSA", "n": ""}}), KeyError::Bits(0)),
        (json!({"key_id": KID, "pkcs8": "???"}), KeyError::Pkcs8),
        (
            json!({"key_id": KID, "pkcs8": "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----"}),
            KeyError::Pkcs8,
        ),
    ];
    for (document, expected) in cases {
        assert_eq!(parse(&document), Err(expected), "{document}");
    }
}

#[test]
fn what_is_not_the_document_is_told_with_its_place_and_without_its_text() {
    let cases: [(&[u8], &str); 8] = [
        (b"", "it ends early at line 1, column 0"),
        (b"<html>Bad gateway</html>", "not JSON at line 1, column 1"),
        (b"{\"key_id\": \"k\",\n \"jwk\": {", "it ends early at line 2"),
        (b"{\"key_id\": 7}", "another type"),
        (b"{\"key_id\": \"k\", \"key_id\": \"l\"}", "there twice"),
        (b"{\"key_id\": \"k\", \"jwk\": \"secret\"}", "another type"),
        (b"{\"key_id\": \"k\", \"jwk\": [1]}", "another type"),
        (b"{\"key_id\": \"k\"} trailing", "not JSON"),
    ];
    for (document, expected) in cases {
        let error = PinKey::parse(document).unwrap_err();
        assert!(matches!(error, KeyError::Shape { .. }), "{error}");
        assert!(error.to_string().contains(expected), "{error}");
        assert!(!error.to_string().contains("html>") && !error.to_string().contains("secret"), "{error}");
    }
}

#[test]
fn each_document_is_read_for_what_it_says_whatever_came_before_it() {
    let reader = KeyReader::default();
    let read = |document: &Value| reader.read(document.to_string().into());
    let one = json!({"key_id": "one", "jwk": jwk()});
    let other = json!({"key_id": "two", "jwk": jwk()});
    for document in [&one, &one, &other, &one, &other, &other] {
        assert_eq!(*read(document).unwrap(), parse(document).unwrap());
    }
    // What is no key is refused every time, and is not taken for the one before.
    for _ in 0..2 {
        assert_eq!(read(&json!({"key_id": "three"})), Err(KeyError::NoKey));
    }
    assert_eq!(read(&one).unwrap().kid(), "one");
}

#[test]
fn pins_are_encrypted_under_every_form_of_the_document() {
    let rsa = Rsa::generate(2048).unwrap();
    let jwk = json!({"kty": "RSA", "use": "enc", "alg": "RSA-OAEP-256", "n": base64url(&rsa.n().to_vec()), "e": "AQAB"});
    let pem = String::from_utf8(rsa.public_key_to_pem().unwrap()).unwrap();
    let decrypter = josekit::jwe::RSA_OAEP.decrypter_from_der(rsa.private_key_to_der().unwrap()).unwrap();
    for document in [
        json!({"key_id": KID, "jwk": jwk}),
        json!({"key_id": KID, "jwk": jwk.to_string()}),
        json!({"key_id": KID, "pkcs8": pem}),
    ] {
        let compact = encrypt_pin("2580", document.to_string().as_bytes()).unwrap();
        assert_eq!(jwe::verify(&compact, &parse(&document).unwrap()), Ok(()), "{document}");
        assert_eq!(josekit::jwe::deserialize_compact(&compact, &decrypter).unwrap().0, b"2580");
    }
}

proptest! {
    #[test]
    fn garbage_never_panics(garbage in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = PinKey::parse(&garbage);
    }

    #[test]
    fn a_document_with_garbage_inside_never_panics(
        cut in 0..400_usize, at in 0..400_usize, byte: u8, pkcs8 in ".{0,80}", kty in "(RSA|EC|)", n in "[A-Za-z0-9_=+/-]{0,20}",
    ) {
        let mut document = json!({"key_id": KID, "jwk": {"kty": kty, "n": n}, "pkcs8": pkcs8}).to_string().into_bytes();
        let _ = PinKey::parse(&document);
        if let Some(there) = document.get_mut(at) {
            *there = byte;
        }
        let _ = PinKey::parse(&document);
        document.truncate(cut);
        let _ = PinKey::parse(&document);
        let mut whole = forge::document(KID, &modulus(256));
        whole.truncate(cut);
        prop_assert!(PinKey::parse(&whole).is_err());
    }
}
