//! Looking for what must be nowhere: any piece of a JWE, an API key, a password.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

/// Secrets are looked for in pieces of this length, so that any run of twice the length is found.
const PIECE: usize = 16;

/// What must not be found.
#[derive(Default)]
pub struct Secrets {
    pieces: HashSet<Vec<u8>>,
    /// Found only as words of their own: a PIN of four digits is a part of many numbers.
    words: Vec<String>,
}

impl Secrets {
    /// The header of a JWE is no secret; the other four segments are.
    pub fn add_jwe(&mut self, compact: &str) {
        compact.split('.').skip(1).for_each(|segment| self.add_pieces(segment));
    }

    /// A key or a password, of 16 bytes or more.
    pub fn add_text(&mut self, secret: &str) {
        assert!(secret.len() >= PIECE, "too short to be told from other text; add it as a word");
        self.add_pieces(secret);
    }

    /// Each of its pieces, and its beginning as `{:?}` prints bytes.
    fn add_pieces(&mut self, secret: &str) {
        self.pieces.extend(secret.as_bytes().chunks_exact(PIECE).map(<[u8]>::to_vec));
        let numbers: Vec<String> = secret.bytes().take(8).map(|byte| byte.to_string()).collect();
        self.pieces.extend(numbers.join(", ").as_bytes().chunks_exact(PIECE).map(<[u8]>::to_vec));
    }

    /// A secret that is short: found where it stands alone.
    pub fn add_word(&mut self, secret: &str) {
        self.words.push(secret.to_owned());
    }

    /// The first of them in these bytes.
    pub fn found_in(&self, bytes: &[u8]) -> Option<String> {
        if let Some(piece) = bytes.windows(PIECE).find(|piece| self.pieces.contains(*piece)) {
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
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                    continue;
                }
                searched += 1;
                if self.found_in(&std::fs::read(&path).unwrap()).is_some() {
                    found.push(path);
                }
            }
        }
        (found, searched)
    }
}
