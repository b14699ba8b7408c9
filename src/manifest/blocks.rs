//! A file as blocks of whole records, cut where a line ends outside quotes.
//!
//! Whether a place is inside quotes is told by counting them from the block's start: even is outside. That is true of
//! a file whose quotes stand only around cells and, doubled, within them. Whoever parses a block proves it of the
//! block, or the file is read record by record from that block on ([`super::parallel`]).

use std::io::{self, Read};

use memchr::{memchr_iter, memrchr};

use crate::wipe::Wiped;

/// Read at once: small enough to stay in a core's own cache from the read to the last look, by measurement.
pub(super) const BLOCK_BYTES: usize = 256 << 10;

/// Whole records.
#[derive(Default)]
pub(super) struct Block {
    bytes: Wiped,
    /// How much of the bytes is whole records; the rest is the next block's.
    length: usize,
    /// Where it stands in the source.
    pub(super) offset: u64,
    /// How many quotes are in it.
    pub(super) quotes: usize,
}

impl Block {
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

/// What the next block is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cut {
    /// Whole records.
    Whole,
    /// No record ends in it, or it cannot be read.
    Odd,
    /// Nothing: the source is at its end.
    End,
}

/// Cuts a source.
pub(super) struct Blocks<R> {
    source: R,
    /// Read, but after the last cut.
    rest: Wiped,
    offset: u64,
}

impl<R: Read> Blocks<R> {
    /// Of a source that stands at a record's start, at this offset.
    pub(super) fn new(source: R, offset: u64) -> Self {
        Self { source, rest: Wiped::with_capacity(BLOCK_BYTES), offset }
    }

    /// Reads the next block into `block`, whose memory is used again.
    pub(super) fn next(&mut self, block: &mut Block) -> Cut {
        if block.bytes.is_empty() {
            // Never grown after this, so that no copy of a PIN's JWE is left behind by a move.
            block.bytes = Wiped::zeroed(BLOCK_BYTES);
        }
        block.offset = self.offset;
        let mut filled = self.rest.len();
        block.bytes[..filled].copy_from_slice(&self.rest);
        let mut at_end = false;
        while filled < BLOCK_BYTES && !at_end {
            match self.source.read(&mut block.bytes[filled..]) {
                Ok(0) => at_end = true,
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return Cut::Odd,
            }
        }
        let bytes = &block.bytes[..filled];
        let quotes = memchr_iter(b'"', bytes).count();
        let cut =
            if at_end && quotes.is_multiple_of(2) { Some((filled, 0)) } else { last_end(bytes, quotes) };
        match cut {
            _ if filled == 0 => Cut::End,
            // The last record's quotes do not close.
            _ if at_end && !quotes.is_multiple_of(2) => Cut::Odd,
            None => Cut::Odd,
            Some((length, quotes_after)) => {
                (block.length, block.quotes) = (length, quotes - quotes_after);
                self.offset += length as u64;
                self.rest.clear();
                self.rest.extend_from_slice(&bytes[length..]);
                Cut::Whole
            }
        }
    }
}

/// Behind the last line that ends outside quotes; and how many quotes come after.
fn last_end(bytes: &[u8], quotes: usize) -> Option<(usize, usize)> {
    let (mut end, mut after) = (bytes.len(), 0);
    while let Some(at) = memrchr(b'\n', &bytes[..end]) {
        after += memchr_iter(b'"', &bytes[at + 1..end]).count();
        if (quotes - after).is_multiple_of(2) {
            return Some((at + 1, after));
        }
        end = at;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_ends_where_a_line_ends_outside_quotes() {
        let cut = |text: &str| last_end(text.as_bytes(), text.matches('"').count());
        assert_eq!(cut("a,b\nc,d\ne"), Some((8, 0)));
        assert_eq!(cut("a\n\"b\nc"), Some((2, 1)));
        assert_eq!(cut("a\n\"b\nc\"\nd\"\n"), Some((8, 1)));
        assert_eq!(cut("\"a\nb\nc"), None);
    }

    #[test]
    fn all_bytes_come_once() {
        let mut text = Vec::new();
        for row in 0..60_000 {
            text.extend(format!("{row},\"a\n\"\"{row}\"\"\",b\r\n").bytes());
        }
        let (mut blocks, mut block, mut back) =
            (Blocks::new(text.as_slice(), 7), Block::default(), Vec::new());
        while blocks.next(&mut block) == Cut::Whole {
            assert_eq!(block.offset, 7 + back.len() as u64);
            assert_eq!(block.quotes, memchr_iter(b'"', block.bytes()).count());
            assert!(block.bytes().ends_with(b"\r\n"));
            back.extend_from_slice(block.bytes());
        }
        assert!(back == text);
        assert_eq!(blocks.next(&mut block), Cut::End);
    }
}
