//! Looking for what must be nowhere: any piece of a JWE, an API key, a password, as text or in any form that programs
//! print bytes in: decimal, hexadecimal, base64, escaped.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};

/// Secrets are looked for in pieces of this length, so that any run of twice the length is found.
const PIECE: usize = 16;
/// The same for forms that spell each byte out, in which so much is eight bytes or so.
const SPELLED_PIECE: usize = 32;
/// Bits of a piece's beginning by which most places are passed over without a closer look.
const BEGINNING_BITS: u32 = 24;

/// Pieces of one length.
struct Pieces {
    length: usize,
    whole: HashSet<Vec<u8>>,
    /// One bit for each beginning that a piece has.
    beginnings: Vec<u64>,
}

impl Pieces {
    fn of_length(length: usize) -> Self {
        Self { length, whole: HashSet::new(), beginnings: vec![0; 1 << (BEGINNING_BITS - 6)] }
    }

    fn add(&mut self, form: &[u8]) {
        for piece in form.chunks_exact(self.length) {
            let beginning = beginning(piece);
            self.beginnings[beginning >> 6] |= 1 << (beginning & 63);
            self.whole.insert(piece.to_vec());
        }
    }

    fn found_in<'b>(&self, bytes: &'b [u8]) -> Option<&'b [u8]> {
        if self.whole.is_empty() {
            return None;
        }
        bytes.windows(self.length).find(|piece| {
            let beginning = beginning(piece);
            self.beginnings[beginning >> 6] >> (beginning & 63) & 1 == 1 && self.whole.contains(*piece)
        })
    }
}

fn beginning(piece: &[u8]) -> usize {
    let first = u32::from_le_bytes([piece[0], piece[1], piece[2], piece[3]]);
    (first.wrapping_mul(0x9e37_79b1) >> (32 - BEGINNING_BITS)) as usize
}

/// What must not be found.
pub struct Secrets {
    dense: Pieces,
    spelled: Pieces,
    /// Found only as words of their own: a PIN of four digits is a part of many numbers.
    words: Vec<String>,
}

impl Default for Secrets {
    fn default() -> Self {
        Self { dense: Pieces::of_length(PIECE), spelled: Pieces::of_length(SPELLED_PIECE), words: Vec::new() }
    }
}

impl Secrets {
    /// The header of a JWE is no secret; the other four segments are, and the bytes that they stand for.
    pub fn add_jwe(&mut self, compact: &str) {
        for segment in compact.split('.').skip(1) {
            self.add_forms(segment.as_bytes());
            if let Ok(bytes) = URL_SAFE_NO_PAD.decode(segment) {
                self.add_forms(&bytes);
            }
        }
    }

    /// A key or a password, of 16 bytes or more.
    pub fn add_text(&mut self, secret: &str) {
        assert!(secret.len() >= PIECE, "too short to be told from other text; add it as a word");
        self.add_forms(secret.as_bytes());
    }

    fn add_forms(&mut self, secret: &[u8]) {
        self.dense.add(secret);
        dense_forms(secret).iter().for_each(|form| self.dense.add(form.as_bytes()));
        spelled_forms(secret).iter().for_each(|form| self.spelled.add(form.as_bytes()));
    }

    /// A secret that is short: found where it stands alone.
    pub fn add_word(&mut self, secret: &str) {
        self.words.push(secret.to_owned());
    }

    /// The first of them in these bytes.
    pub fn found_in(&self, bytes: &[u8]) -> Option<String> {
        if let Some(piece) = self.dense.found_in(bytes).or_else(|| self.spelled.found_in(bytes)) {
            return Some(String::from_utf8_lossy(piece).into_owned());
        }
        if self.words.is_empty() {
            return None;
        }
        let text = String::from_utf8_lossy(bytes);
        let mut words = text.split(|letter: char| !letter.is_alphanumeric());
        words.find(|word| self.words.iter().any(|secret| secret == word)).map(str::to_owned)
    }

    /// The first line that holds a secret, shortened.
    pub fn excerpt(&self, bytes: &[u8]) -> String {
        let line = bytes.split(|byte| *byte == b'\n').find(|line| self.found_in(line).is_some());
        line.map_or_else(String::new, |line| String::from_utf8_lossy(line).chars().take(600).collect())
    }

    /// Fails if a file of the folder holds any, but for `sent`, which is the sender's own; answers what was searched.
    pub fn hold(&self, directory: &Path, sent: &str) -> Vec<String> {
        let mut searched = Vec::new();
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if name == sent || path.is_dir() {
                continue;
            }
            let bytes = std::fs::read(&path).unwrap();
            assert_eq!(self.found_in(&bytes), None, "in {name}: {}", self.excerpt(&bytes));
            searched.push(name);
        }
        searched
    }

    /// Every file below a folder that holds any, and how many were searched.
    pub fn files_with_any(&self, folder: &Path) -> (Vec<PathBuf>, usize) {
        let (mut found, mut folders, mut searched) = (Vec::new(), vec![folder.to_owned()], 0);
        while let Some(folder) = folders.pop() {
            // What a program that still runs has removed meanwhile holds nothing any more.
            let Some(entries) = there(std::fs::read_dir(folder)) else { continue };
            for entry in entries {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                    continue;
                }
                let Some(bytes) = there(std::fs::read(&path)) else { continue };
                searched += 1;
                if self.found_in(&bytes).is_some() {
                    found.push(path);
                }
            }
        }
        (found, searched)
    }
}

/// What was found; none if it is not there any more.
fn there<T>(found: std::io::Result<T>) -> Option<T> {
    match found {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        found => Some(found.unwrap()),
    }
}

/// Base64 in both alphabets, wherever among other bytes the secret begins.
pub fn dense_forms(secret: &[u8]) -> Vec<String> {
    let aligned = (0..3).filter_map(|skipped| secret.get(skipped..));
    // Only whole groups: the last characters depend on what follows.
    aligned
        .map(|bytes| &bytes[..bytes.len() / 3 * 3])
        .flat_map(|bytes| [STANDARD_NO_PAD.encode(bytes), URL_SAFE_NO_PAD.encode(bytes)])
        .collect()
}

/// Each byte spelled out: as `{:?}` and JSON print bytes, in hexadecimal, and escaped.
pub fn spelled_forms(secret: &[u8]) -> Vec<String> {
    let spell = |separator: &str, byte: fn(&u8) -> String| {
        secret.iter().map(byte).collect::<Vec<_>>().join(separator)
    };
    vec![
        spell(", ", |byte| format!("{byte}")),
        spell(",", |byte| format!("{byte}")),
        spell(" ", |byte| format!("{byte}")),
        spell("", |byte| format!("{byte:02x}")),
        spell("", |byte| format!("{byte:02X}")),
        spell(" ", |byte| format!("{byte:02x}")),
        spell(" ", |byte| format!("{byte:02X}")),
        spell(":", |byte| format!("{byte:02x}")),
        spell(", ", |byte| format!("0x{byte:02x}")),
        spell(", ", |byte| format!("{byte:x}")),
        spell("", |byte| format!("\\x{byte:02x}")),
        spell("", |byte| format!("\\\\x{byte:02x}")),
        spell("", |byte| format!("\\u{byte:04x}")),
        spell("", |byte| format!("\\u{{{byte:x}}}")),
        spell("", |byte| format!("\\{byte:03o}")),
        spell("", |byte| format!("%{byte:02X}")),
        spell("", |byte| format!("&#{byte};")),
    ]
}
