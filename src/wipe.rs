//! Bytes that are wiped when they are dropped, eight at a time.
//!
//! The `zeroize` crate writes every element on its own, so that no compiler leaves one out. Where each job wipes
//! kilobytes, as bytes they were a fortieth of what it costs.

use std::ops::{Deref, DerefMut};

use zeroize::Zeroize as _;

/// Bytes that nobody finds in memory afterwards. As with any vector, one that grows leaves what it held behind: give it
/// room before anything secret goes in.
#[derive(Default)]
pub struct Wiped(Vec<u8>);

impl Wiped {
    /// Empty, with room for so many.
    #[must_use]
    pub fn with_capacity(bytes: usize) -> Self {
        Self(Vec::with_capacity(bytes))
    }

    /// So many zeros.
    #[must_use]
    pub fn zeroed(bytes: usize) -> Self {
        Self(vec![0; bytes])
    }
}

impl std::fmt::Debug for Wiped {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "Wiped({} bytes)", self.0.len())
    }
}

impl From<String> for Wiped {
    fn from(text: String) -> Self {
        Self(text.into_bytes())
    }
}

impl AsRef<[u8]> for Wiped {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Deref for Wiped {
    type Target = Vec<u8>;

    fn deref(&self) -> &Vec<u8> {
        &self.0
    }
}

impl DerefMut for Wiped {
    fn deref_mut(&mut self) -> &mut Vec<u8> {
        &mut self.0
    }
}

impl Drop for Wiped {
    fn drop(&mut self) {
        wipe(&mut self.0);
    }
}

/// All that the vector has room for: bytes that were cut off it are still there.
fn wipe(bytes: &mut Vec<u8>) {
    bytes.resize(bytes.capacity(), 0);
    let (before, words, after) = bytemuck::pod_align_to_mut::<u8, u64>(bytes);
    before.zeroize();
    words.zeroize();
    after.zeroize();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_is_wiped_wherever_it_stands() {
        for length in 0..70 {
            for kept in [0, length / 2, length] {
                let mut bytes = vec![0xAA; length];
                bytes.truncate(kept);
                wipe(&mut bytes);
                assert_eq!(bytes.len(), bytes.capacity(), "what was cut off, too");
                assert!(bytes.iter().all(|byte| *byte == 0), "{length} {kept}");
            }
        }
    }
}
