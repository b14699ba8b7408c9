//! Rows that wait for their call, in memory: compressed, counted against one budget, wiped.
//!
//! An upload is all or nothing, so its rows must be somewhere between the check of the last one and the call for
//! the first; and that is never a disk. What is held is the upload's own bytes, in blocks that are compressed each
//! on its own, so that a batch gives its memory back block by block as it proceeds. A base64url JWE compresses to
//! three quarters and the rest of a row to less than a third: half of the upload, all in all.
//!
//! Guarantees: all that is held together never passes the budget; a block is wiped when it is read or dropped.

use std::collections::VecDeque;
use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};
use zeroize::Zeroizing;

use crate::manifest::Reading;

/// Bytes of an upload in one block: few enough that little is in the clear at once, enough to compress well. Half of it, to
/// which it mostly compresses, is somewhat less than 64 KiB: the allocator has room for that size, and for somewhat more it takes 80.
const BLOCK_BYTES: usize = 120 << 10;
/// How much trouble is taken: with less than this a block of JWEs is compressed to six tenths, and not to half.
const LEVEL: u32 = 3;
/// Room for a block that does not compress: deflate's stored blocks add 5 bytes each.
const SCRATCH_BYTES: usize = BLOCK_BYTES + (BLOCK_BYTES >> 4);

/// The budget is used up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no room to hold more rows")]
pub(super) struct Full;

/// Memory that all uploads and batches share.
#[derive(Debug)]
pub(super) struct Budget {
    bytes_max: usize,
    bytes: AtomicUsize,
}

/// A part of the budget, given back when it is dropped.
#[derive(Debug)]
pub(super) struct Share {
    budget: Arc<Budget>,
    bytes: usize,
}

impl Budget {
    /// A budget of so many bytes.
    #[must_use]
    pub(super) fn new(bytes_max: usize) -> Arc<Self> {
        Arc::new(Self { bytes_max, bytes: AtomicUsize::new(0) })
    }

    /// A share of nothing, to grow.
    #[must_use]
    pub(super) fn share(self: &Arc<Self>) -> Share {
        Share { budget: self.clone(), bytes: 0 }
    }

    /// Bytes in use.
    #[cfg(test)]
    pub(super) fn used(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }
}

impl Share {
    /// Takes more of the budget.
    ///
    /// # Errors
    /// If there is not so much left; the share stays as it was.
    pub(super) fn grow(&mut self, bytes: usize) -> Result<(), Full> {
        self.budget
            .bytes
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
                used.checked_add(bytes).filter(|used| *used <= self.budget.bytes_max)
            })
            .map_err(|_| Full)?;
        self.bytes += bytes;
        Ok(())
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.budget.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

struct Block {
    compressed: Zeroizing<Vec<u8>>,
    bytes: usize,
    _share: Share,
}

/// Takes an upload's bytes as they come.
pub(super) struct Holding {
    budget: Arc<Budget>,
    deflate: Compress,
    scratch: Zeroizing<Vec<u8>>,
    open: Zeroizing<Vec<u8>>,
    /// The share of the two buffers above.
    share: Share,
    blocks: VecDeque<Arc<Block>>,
}

impl Holding {
    /// Begins to hold.
    ///
    /// # Errors
    /// If there is no room even for the buffers.
    pub(super) fn begin(budget: &Arc<Budget>) -> Result<Self, Full> {
        let mut share = budget.share();
        share.grow(BLOCK_BYTES + SCRATCH_BYTES)?;
        Ok(Self {
            budget: budget.clone(),
            deflate: Compress::new(Compression::new(LEVEL), false),
            scratch: Zeroizing::new(vec![0; SCRATCH_BYTES]),
            open: Zeroizing::new(Vec::with_capacity(BLOCK_BYTES)),
            share,
            blocks: VecDeque::new(),
        })
    }

    /// Holds these bytes too.
    ///
    /// # Errors
    /// If the budget is used up.
    pub(super) fn add(&mut self, mut bytes: &[u8]) -> Result<(), Full> {
        while !bytes.is_empty() {
            // Never beyond its capacity: a vector that grows leaves an unwiped copy behind.
            let now = bytes.len().min(BLOCK_BYTES - self.open.len());
            self.open.extend_from_slice(&bytes[..now]);
            bytes = &bytes[now..];
            if self.open.len() == BLOCK_BYTES {
                self.close_block()?;
            }
        }
        Ok(())
    }

    /// All of it.
    ///
    /// # Errors
    /// If the budget is used up.
    pub(super) fn finish(mut self, reading: Reading) -> Result<Held, Full> {
        self.close_block()?;
        let Self { budget, blocks, share, .. } = self;
        drop(share);
        let mut share = budget.share();
        share.grow(reading.edits.as_ref().map_or(0, |edits| edits.bytes()))?;
        Ok(Held { blocks, reading, share: Arc::new(share) })
    }

    fn close_block(&mut self) -> Result<(), Full> {
        if self.open.is_empty() {
            return Ok(());
        }
        self.deflate.reset();
        let status = self.deflate.compress(&self.open, &mut self.scratch, FlushCompress::Finish);
        assert!(matches!(status, Ok(Status::StreamEnd)), "the scratch has room for any block");
        let length = usize::try_from(self.deflate.total_out()).expect("a block's length");
        let mut share = self.budget.share();
        share.grow(length)?;
        // Made with the exact capacity, so that it is never moved.
        let compressed = Zeroizing::new(self.scratch[..length].to_vec());
        self.blocks.push_back(Arc::new(Block { compressed, bytes: self.open.len(), _share: share }));
        zeroize::Zeroize::zeroize(&mut *self.open);
        Ok(())
    }
}

/// An upload's bytes, held.
pub(super) struct Held {
    blocks: VecDeque<Arc<Block>>,
    /// How they are read.
    pub(super) reading: Reading,
    /// What the cells take that were mended since.
    share: Arc<Share>,
}

impl Held {
    /// Bytes of memory that they take.
    pub(super) fn bytes(&self) -> usize {
        self.blocks.iter().map(|block| block.compressed.len()).sum()
    }

    /// The same bytes once more, without taking memory for them. A block is wiped when the last that has it drops it.
    #[must_use]
    pub(super) fn shared(&self) -> Self {
        Self { blocks: self.blocks.clone(), reading: self.reading.clone(), share: self.share.clone() }
    }

    /// Reads them, and keeps them.
    #[must_use]
    pub(super) fn look(&self) -> HeldLook<'_> {
        HeldLook { blocks: self.blocks.iter(), open: Zeroizing::new(Vec::with_capacity(BLOCK_BYTES)), at: 0 }
    }

    /// Reads them, giving back each block's memory as it is passed.
    #[must_use]
    pub(super) fn into_reader(self) -> HeldReader {
        HeldReader {
            _share: self.share,
            blocks: self.blocks,
            open: Zeroizing::new(Vec::with_capacity(BLOCK_BYTES)),
            at: 0,
        }
    }
}

impl Block {
    /// Its bytes, in the place of those of the block before.
    fn open(&self, open: &mut Zeroizing<Vec<u8>>) -> io::Result<()> {
        let status = Decompress::new(false)
            .decompress_vec(&self.compressed, open, FlushDecompress::Finish)
            .map_err(io::Error::other)?;
        if status != Status::StreamEnd || open.len() != self.bytes {
            return Err(io::Error::other("a held block is not whole"));
        }
        Ok(())
    }
}

/// Reads what is held, and keeps it.
pub(super) struct HeldLook<'h> {
    blocks: std::collections::vec_deque::Iter<'h, Arc<Block>>,
    open: Zeroizing<Vec<u8>>,
    at: usize,
}

impl Read for HeldLook<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.at == self.open.len() {
            zeroize::Zeroize::zeroize(&mut *self.open);
            self.at = 0;
            let Some(block) = self.blocks.next() else { return Ok(0) };
            block.open(&mut self.open)?;
        }
        Ok(copied(&self.open, &mut self.at, buffer))
    }
}

/// Copies what there is room for, from that place on.
fn copied(open: &[u8], at: &mut usize, buffer: &mut [u8]) -> usize {
    let length = buffer.len().min(open.len() - *at);
    buffer[..length].copy_from_slice(&open[*at..*at + length]);
    *at += length;
    length
}

/// Reads what was held, once.
pub(super) struct HeldReader {
    _share: Arc<Share>,
    blocks: VecDeque<Arc<Block>>,
    open: Zeroizing<Vec<u8>>,
    at: usize,
}

impl Read for HeldReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.at == self.open.len() {
            zeroize::Zeroize::zeroize(&mut *self.open);
            self.at = 0;
            let Some(block) = self.blocks.pop_front() else { return Ok(0) };
            block.open(&mut self.open)?;
        }
        Ok(copied(&self.open, &mut self.at, buffer))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{Rng as _, SeedableRng as _};

    fn noise(length: usize) -> Vec<u8> {
        let mut random = rand::rngs::StdRng::seed_from_u64(7);
        (0..length).map(|_| random.random()).collect()
    }

    #[test]
    fn what_is_held_is_read_back_and_its_memory_given_back() {
        let budget = Budget::new(64 << 20);
        // Noise does not compress at all; every length around a block's edge.
        for length in [0, 1, BLOCK_BYTES - 1, BLOCK_BYTES, BLOCK_BYTES + 1, 5 * BLOCK_BYTES + 17] {
            let bytes = noise(length);
            let mut holding = Holding::begin(&budget).unwrap();
            bytes.chunks(1000).for_each(|chunk| holding.add(chunk).unwrap());
            let held = holding.finish(Reading::default()).unwrap();
            assert!(budget.used() >= length && budget.used() <= length + length / 16 + 64);
            let mut looked_at = Vec::new();
            held.look().read_to_end(&mut looked_at).unwrap();
            assert!(looked_at == bytes && budget.used() >= held.bytes());
            let mut read = Vec::new();
            held.into_reader().read_to_end(&mut read).unwrap();
            assert!(read == bytes);
            assert_eq!(budget.used(), 0);
        }
    }

    #[test]
    fn the_budget_is_never_passed() {
        let budget = Budget::new(1 << 20);
        let mut holding = Holding::begin(&budget).unwrap();
        let bytes = noise(BLOCK_BYTES);
        let taken = (0..100).take_while(|_| holding.add(&bytes).is_ok()).count();
        // Beside the two buffers there is room for so many blocks of noise, which do not compress.
        let room = (1 << 20) - BLOCK_BYTES - SCRATCH_BYTES;
        assert_eq!((taken, room / (BLOCK_BYTES + 64)), (6, 6));
        assert!(budget.used() <= 1 << 20);
        drop(holding);
        assert_eq!(budget.used(), 0);
    }
}
