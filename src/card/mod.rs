//! What Stripe is asked for when a card is created: its own parameters under its own names.
//!
//! One flat list of (parameter, value) pairs in Stripe's bracket form carries a request from either intake: a
//! manifest's columns are pairs already, and a job's nested JSON is flattened into them. [`params`] is the one table
//! that says what each parameter may hold.

mod categories;
pub mod params;

use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::pin::PinJwe;

/// Parameters in the order of their paths; without the PIN, which travels apart.
#[derive(Debug, Default)]
pub struct CardRequest {
    pairs: Vec<(String, String)>,
    pin: Option<PinJwe>,
    /// The cardholder, by whom the card can be found again.
    pub cardholder: Option<String>,
}

/// The parameter that holds the encrypted PIN.
pub const PIN: &str = "pin[encrypted_number]";

/// What is wrong with one parameter.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct FieldProblem {
    /// The parameter in bracket form.
    pub path: String,
    /// A code to switch on.
    pub code: &'static str,
    /// What it must be.
    pub reason: String,
    /// A near match, if there is one.
    pub suggestion: Option<String>,
}

impl CardRequest {
    /// Checks the pairs against Stripe's schema and takes them over. Every problem is told, not only the first.
    ///
    /// # Errors
    /// The problems; none quotes a PIN.
    pub fn from_pairs(pairs: Vec<(String, String)>) -> Result<Self, Vec<FieldProblem>> {
        let problems = params::check(&pairs);
        if !problems.is_empty() {
            return Err(problems);
        }
        let mut request = Self::default();
        for (path, value) in pairs {
            if path == PIN {
                request.pin = Some(PinJwe::new(value));
                continue;
            }
            if path == "cardholder" {
                request.cardholder = Some(value.clone());
            }
            request.pairs.push((path, value));
        }
        request.pairs.sort_unstable();
        Ok(request)
    }

    /// Flattens Stripe's nested JSON.
    ///
    /// # Errors
    /// As [`Self::from_pairs`].
    pub fn from_json(card: &Value) -> Result<Self, Vec<FieldProblem>> {
        let mut pairs = Vec::new();
        flatten(String::new(), card, &mut pairs);
        Self::from_pairs(pairs)
    }

    /// Takes the PIN out.
    pub fn take_pin(&mut self) -> Option<PinJwe> {
        self.pin.take()
    }

    /// `physical` or `virtual`.
    #[must_use]
    pub fn kind(&self) -> &str {
        self.pairs.iter().find(|(path, _)| path == "type").map_or("", |(_, value)| value)
    }

    /// What was asked for, without the PIN; independent of the order of columns or members.
    #[must_use]
    pub fn fingerprint(&self) -> [u8; 32] {
        let mut digest = Sha256::new();
        for (path, value) in &self.pairs {
            for text in [path, value] {
                digest.update((text.len() as u64).to_be_bytes());
                digest.update(text.as_bytes());
            }
        }
        digest.finalize().into()
    }

    /// Appends the form body, with the metadata by which the card is found again.
    pub fn encode_into(&self, body: &mut Vec<u8>, pin: Option<&str>, job_id: &str, batch: &str) {
        for (path, value) in &self.pairs {
            pair(body, path, value);
        }
        if let Some(pin) = pin {
            // base64url and dots need no escaping; any other text is refused before it comes here.
            pair(body, PIN, pin);
        }
        pair(body, "metadata[embosser_batch]", batch);
        pair(body, "metadata[embosser_job]", job_id);
    }
}

fn pair(body: &mut Vec<u8>, path: &str, value: &str) {
    if !body.is_empty() {
        body.push(b'&');
    }
    escape(body, path);
    body.push(b'=');
    escape(body, value);
}

/// `application/x-www-form-urlencoded` (url.spec.whatwg.org), brackets kept as Stripe's own clients keep them.
fn escape(body: &mut Vec<u8>, text: &str) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'*' | b'[' | b']' => {
                body.push(byte)
            }
            b' ' => body.push(b'+'),
            _ => body.extend([b'%', DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]),
        }
    }
}

fn flatten(path: String, value: &Value, pairs: &mut Vec<(String, String)>) {
    let child = |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}[{name}]") };
    match value {
        Value::Null => {}
        Value::Object(members) => members.iter().for_each(|(name, value)| flatten(child(name), value, pairs)),
        Value::Array(items) => {
            items
                .iter()
                .enumerate()
                .for_each(|(index, value)| flatten(child(&index.to_string()), value, pairs));
        }
        Value::String(text) => pairs.push((path, text.clone())),
        Value::Bool(_) | Value::Number(_) => pairs.push((path, value.to_string())),
    }
}
