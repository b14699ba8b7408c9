//! JWEs made by hand: every part can be made wrong, alone.
#![allow(dead_code, reason = "each test file uses some of it")]

pub(crate) mod broken;
pub(crate) mod plain;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use embosser::jwe::PinKey;
use openssl::pkey::Private;
use openssl::rsa::{Padding, Rsa};

/// The current key's id in these tests.
pub(crate) const KID: &str = "key_2026_11";

pub(crate) fn base64url(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// The five parts before they are encoded. The default is in order, structurally: nothing decrypts it.
#[derive(Debug, Clone)]
pub(crate) struct Jwe {
    pub(crate) header: String,
    pub(crate) encrypted_key: Vec<u8>,
    pub(crate) iv: Vec<u8>,
    pub(crate) ciphertext: Vec<u8>,
    pub(crate) tag: Vec<u8>,
}

/// Bytes that look random and are the same each time.
pub(crate) fn noise(length: usize, seed: u8) -> Vec<u8> {
    (0..length).map(|at| (at as u8).wrapping_mul(167).wrapping_add(seed) ^ (at >> 3) as u8).collect()
}

impl Jwe {
    /// For a modulus as [`modulus`] makes it: the encrypted key's first byte is below its first byte.
    pub(crate) fn of_bytes(modulus_bytes: usize) -> Self {
        let mut encrypted_key = noise(modulus_bytes, 7);
        encrypted_key[0] = 0x7A;
        Self {
            header: header(KID),
            encrypted_key,
            iv: noise(16, 1),
            ciphertext: noise(16, 2),
            tag: noise(16, 3),
        }
    }

    pub(crate) fn with_header(header: &str) -> Self {
        Self { header: header.to_owned(), ..Self::default() }
    }

    pub(crate) fn segments(&self) -> [String; 5] {
        [self.header.as_bytes(), &self.encrypted_key, &self.iv, &self.ciphertext, &self.tag].map(base64url)
    }

    pub(crate) fn compact(&self) -> String {
        self.segments().join(".")
    }
}

impl Default for Jwe {
    fn default() -> Self {
        Self::of_bytes(256)
    }
}

pub(crate) fn header(kid: &str) -> String {
    format!(r#"{{"alg":"RSA-OAEP","enc":"A128CBC-HS256","kid":"{kid}"}}"#)
}

/// A number of so many bytes that could be a modulus: highest and lowest bit set.
pub(crate) fn modulus(bytes: usize) -> Vec<u8> {
    let mut modulus = noise(bytes, 99);
    modulus[0] = 0xC3;
    modulus[bytes - 1] |= 1;
    modulus
}

pub(crate) fn document(kid: &str, modulus: &[u8]) -> Vec<u8> {
    let n = base64url(modulus);
    format!(r#"{{"key_id":"{kid}","jwk":{{"kty":"RSA","n":"{n}","e":"AQAB"}}}}"#).into_bytes()
}

/// A key of so many bytes under [`KID`].
pub(crate) fn key(bytes: usize) -> PinKey {
    PinKey::parse(&document(KID, &modulus(bytes))).unwrap()
}

/// Encrypts as RFC 7516 and RFC 7518 say, with OpenSSL's primitives alone: no JOSE library has a hand in it.
pub(crate) fn encrypt_by_hand(pin: &str, header: &str, key: &Rsa<Private>) -> String {
    let mut content_key = [0; 32];
    openssl::rand::rand_bytes(&mut content_key).unwrap();
    let mut iv = [0; 16];
    openssl::rand::rand_bytes(&mut iv).unwrap();
    let mut encrypted_key = vec![0; key.size() as usize];
    key.public_encrypt(&content_key, &mut encrypted_key, Padding::PKCS1_OAEP).unwrap();
    let (mac_key, cipher_key) = content_key.split_at(16);
    let cipher = openssl::symm::Cipher::aes_128_cbc();
    let ciphertext = openssl::symm::encrypt(cipher, cipher_key, Some(&iv), pin.as_bytes()).unwrap();
    let protected = base64url(header.as_bytes());
    let mac_key = openssl::pkey::PKey::hmac(mac_key).unwrap();
    let digest = openssl::hash::MessageDigest::sha256();
    let mut signer = openssl::sign::Signer::new(digest, &mac_key).unwrap();
    signer.update(protected.as_bytes()).unwrap();
    signer.update(&iv).unwrap();
    signer.update(&ciphertext).unwrap();
    signer.update(&(protected.len() as u64 * 8).to_be_bytes()).unwrap();
    let tag = signer.sign_to_vec().unwrap();
    let others = [&encrypted_key[..], &iv, &ciphertext, &tag[..16]].map(base64url);
    format!("{protected}.{}", others.join("."))
}
