//! A file's bytes as UTF-8 text, whatever it was saved as, and what its cells are separated by.
//!
//! Guarantees: one pass in bounded memory, and the same text each time that the same bytes are read, from a file or as an
//! upload arrives. What a file is saved as is told by its byte order mark, by who reads it, or by its first letter that is no
//! ASCII and what follows it; before that letter all that is read here are alike. What was read is wiped on drop.

use std::io::{self, Read};
use std::path::Path;
use std::sync::{Arc, OnceLock};

use encoding_rs::{CoderResult, Decoder, Encoding, UTF_8};
use zeroize::Zeroizing;

use super::encoding::{self, SavedAs};
use super::{ManifestError, Reading};

/// So much is looked at to tell what a text is saved as.
const WINDOW_BYTES: usize = 64 << 10;
/// So much is looked at to tell text from what is not.
const START_BYTES: usize = 4096;
/// What may stand between two cells. The first that is as good as another is it.
pub(super) const DELIMITERS: [u8; 4] = [b',', b';', b'\t', b'|'];
/// Excel's own line about it, before the header.
const DECLARATION: &str = "sep=";
/// Excel writes it before the first byte of "CSV UTF-8".
const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();

/// What a file is read as, beside UTF-8: known once its first letter was met that is no ASCII.
pub(super) type ReadAs = Arc<OnceLock<SavedAs>>;

/// A source's bytes as UTF-8.
pub(super) struct Text<R> {
    source: R,
    /// Read from the source and not handed out.
    ahead: Zeroizing<Vec<u8>>,
    /// The first of them that is not handed out.
    at: usize,
    at_end: bool,
    decoding: Decoding,
    /// The byte before those that are ahead.
    before: u8,
    /// Decoded and not handed out.
    decoded: Zeroizing<Vec<u8>>,
    decoded_at: usize,
    delimiter: u8,
    /// Whether its first line says that.
    is_declared: bool,
    read_as: ReadAs,
}

impl<R: Read> Text<R> {
    /// A manifest's text.
    ///
    /// # Errors
    /// If it cannot be read, or is no text.
    pub(super) fn of(
        path: &Path,
        source: R,
        reading: &Reading,
        read_as: ReadAs,
    ) -> Result<Self, ManifestError> {
        let begun = Self::begin(source, reading, read_as)
            .map_err(|source| ManifestError::Read { path: path.into(), source })?;
        begun.map_err(|reason| ManifestError::Shape { path: path.into(), reason: reason.into() })
    }
}

/// How bytes are text.
enum Decoding {
    /// Nothing but ASCII so far.
    Ascii,
    Utf8,
    Other(Box<Decoder>),
}

impl<R: Read> Text<R> {
    /// Looks at its beginning.
    ///
    /// # Errors
    /// The source's own, or a sentence if it is no text.
    pub(super) fn begin(
        source: R,
        reading: &Reading,
        read_as: ReadAs,
    ) -> io::Result<Result<Self, &'static str>> {
        let mut text = Self {
            source,
            ahead: Zeroizing::new(Vec::new()),
            at: 0,
            at_end: false,
            decoding: Decoding::Ascii,
            before: b'\n',
            decoded: Zeroizing::new(Vec::new()),
            decoded_at: 0,
            delimiter: DELIMITERS[0],
            is_declared: false,
            read_as,
        };
        text.fill(WINDOW_BYTES)?;
        if let Some(said) = super::other_kinds::said_of(&text.ahead) {
            return Ok(Err(said));
        }
        let encoding = match Encoding::for_bom(&text.ahead) {
            Some((encoding, _)) => Some(encoding),
            None if text.ahead[..text.ahead.len().min(START_BYTES)].contains(&0) => {
                match encoding::utf_16_without_mark(&text.ahead) {
                    None => {
                        return Ok(Err(
                            "the file is not text, and no spreadsheet that is known (a picture, perhaps?); save the table as .xlsx, .ods or CSV, \
                             and use that",
                        ));
                    }
                    found => found,
                }
            }
            None => reading.encoding,
        };
        if let Some(encoding) = encoding {
            text.is_saved_as(SavedAs::surely(encoding));
        }
        let mut start = Zeroizing::new(vec![0; WINDOW_BYTES]);
        let mut filled = 0;
        while filled < start.len() {
            match text.read(&mut start[filled..])? {
                0 => break,
                read => filled += read,
            }
        }
        let decoded = std::mem::take(&mut text.decoded);
        let rest = &decoded[text.decoded_at..];
        let (declared, left_out) = declared_delimiter(&start[..filled]);
        let start = &start[..filled];
        text.is_declared = declared.is_some();
        text.delimiter =
            reading.delimiter.or(declared).unwrap_or_else(|| delimiter_of(&start[left_out.clone().end..]));
        // Its line stays as a blank one, so that the others have the numbers that they have in the file.
        let mut whole = Zeroizing::new(Vec::with_capacity(start.len() + rest.len()));
        whole.extend_from_slice(&start[..left_out.start]);
        whole.extend_from_slice(&start[left_out.end..]);
        whole.extend_from_slice(rest);
        (text.decoded, text.decoded_at) = (whole, 0);
        Ok(Ok(text))
    }

    /// What separates its cells.
    pub(super) fn delimiter(&self) -> u8 {
        self.delimiter
    }

    /// Whether its first line says so, which a spreadsheet program does not show.
    pub(super) fn is_declared(&self) -> bool {
        self.is_declared
    }

    /// Whether there is nothing in it.
    pub(super) fn is_empty(&self) -> bool {
        self.decoded.is_empty() && self.ahead.is_empty()
    }

    fn is_saved_as(&mut self, saved_as: SavedAs) {
        self.decoding = if saved_as.encoding == UTF_8 {
            Decoding::Utf8
        } else {
            let _ = self.read_as.set(saved_as);
            Decoding::Other(Box::new(saved_as.encoding.new_decoder_with_bom_removal()))
        };
    }

    /// Reads on until so many bytes are ahead, or the source is at its end.
    fn fill(&mut self, bytes: usize) -> io::Result<()> {
        if self.at > 0 {
            let left = self.ahead.len() - self.at;
            self.ahead.copy_within(self.at.., 0);
            self.ahead.truncate(left);
            self.at = 0;
        }
        // Grown once, so that nothing is left behind that is not wiped.
        if self.ahead.capacity() < WINDOW_BYTES {
            let mut ahead = Zeroizing::new(Vec::with_capacity(WINDOW_BYTES));
            ahead.extend_from_slice(&self.ahead);
            self.ahead = ahead;
        }
        while self.ahead.len() < bytes && !self.at_end {
            let filled = self.ahead.len();
            self.ahead.resize(WINDOW_BYTES, 0);
            let read = self.source.read(&mut self.ahead[filled..]);
            self.ahead.truncate(filled + read.as_ref().map_or(0, |read| *read));
            match read {
                Ok(0) => self.at_end = true,
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Hands out what is ahead and ASCII; decides at the first byte that is not.
    fn read_ascii(&mut self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        if self.at == self.ahead.len() {
            self.fill(1)?;
        }
        let ahead = &self.ahead[self.at..];
        let ahead = &ahead[..ahead.len().min(buffer.len())];
        let length = if ahead.is_ascii() {
            ahead.len()
        } else {
            ahead.iter().position(|byte| !byte.is_ascii()).unwrap_or(ahead.len())
        };
        if length > 0 || self.ahead.is_empty() {
            buffer[..length].copy_from_slice(&ahead[..length]);
            self.before = ahead.get(length.wrapping_sub(1)).copied().unwrap_or(self.before);
            self.at += length;
            return Ok(Some(length));
        }
        self.fill(WINDOW_BYTES)?;
        self.is_saved_as(SavedAs::of(self.before, &self.ahead, self.at_end));
        Ok(None)
    }

    /// Decodes more, unless there is some left; false at the end.
    fn decode(&mut self) -> io::Result<bool> {
        loop {
            if self.decoded_at < self.decoded.len() {
                return Ok(true);
            }
            if self.at == self.ahead.len() && !self.at_end {
                self.fill(1)?;
            }
            let Decoding::Other(decoder) = &mut self.decoding else { return Ok(false) };
            // Room for the longest that the bytes ahead can become.
            if self.decoded.capacity() < 3 * WINDOW_BYTES + 16 {
                self.decoded = Zeroizing::new(Vec::with_capacity(3 * WINDOW_BYTES + 16));
            }
            let room = self.decoded.capacity();
            self.decoded.resize(room, 0);
            let last = self.at_end;
            let (result, taken, written, _) =
                decoder.decode_to_utf8(&self.ahead[self.at..], &mut self.decoded, last);
            self.decoded.truncate(written);
            (self.decoded_at, self.at) = (0, self.at + taken);
            if last && result == CoderResult::InputEmpty {
                // A decoder must not be called again after its end: what follows an end is nothing.
                self.decoding = Decoding::Utf8;
                return Ok(written > 0);
            }
        }
    }
}

impl<R: Read> Read for Text<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        loop {
            if self.decoded_at < self.decoded.len() {
                let length = buffer.len().min(self.decoded.len() - self.decoded_at);
                buffer[..length].copy_from_slice(&self.decoded[self.decoded_at..self.decoded_at + length]);
                self.decoded_at += length;
                return Ok(length);
            }
            match self.decoding {
                Decoding::Ascii => {
                    if let Some(read) = self.read_ascii(buffer)? {
                        return Ok(read);
                    }
                }
                Decoding::Utf8 => {
                    let ahead = &self.ahead[self.at..];
                    if ahead.is_empty() {
                        return if self.at_end { Ok(0) } else { self.source.read(buffer) };
                    }
                    let length = buffer.len().min(ahead.len());
                    buffer[..length].copy_from_slice(&ahead[..length]);
                    self.at += length;
                    return Ok(length);
                }
                Decoding::Other(_) => {
                    if !self.decode()? {
                        return Ok(0);
                    }
                }
            }
        }
    }
}

/// The delimiter that the first line declares, and where it does.
fn declared_delimiter(start: &[u8]) -> (Option<u8>, std::ops::Range<usize>) {
    let begin = if start.starts_with(BYTE_ORDER_MARK) { BYTE_ORDER_MARK.len() } else { 0 };
    let line = &start[begin..];
    let end = line.iter().position(|byte| matches!(byte, b'\r' | b'\n')).unwrap_or(line.len());
    let line = std::str::from_utf8(&line[..end]).unwrap_or_default().trim_matches('"');
    let begins = line.get(..DECLARATION.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(DECLARATION));
    match line.as_bytes().get(DECLARATION.len()..).filter(|_| begins) {
        Some([delimiter]) if DELIMITERS.contains(delimiter) => (Some(*delimiter), begin..begin + end),
        _ => (None, begin..begin),
    }
}

/// What separates the cells of the first line that is not blank: what stands in it most often, outside quotes.
///
/// A line with one comma may be a title. Then it is what stands more than once in one of the next lines, if the comma does not
/// stand there.
fn delimiter_of(start: &[u8]) -> u8 {
    /// As many lines as may stand above the headings, and these.
    const LINES_MAX: usize = 6;
    let mut lines = Lines(start).take(LINES_MAX);
    let most = |counts: &Counts| (0..DELIMITERS.len()).rev().max_by_key(|at| counts[*at]).unwrap_or(0);
    let Some(first) = lines.next() else { return DELIMITERS[0] };
    let of_first = most(&first);
    let is_title = |counts: &Counts| first[of_first] == 0 || counts[of_first] == 0;
    let after = match first[of_first] {
        0 | 1 => lines.find(|counts| counts[most(counts)] > 1).filter(is_title),
        _ => None,
    };
    let separates = after.map_or(of_first, |counts| most(&counts));
    DELIMITERS[separates]
}

/// How often each delimiter stands in a line.
type Counts = [usize; DELIMITERS.len()];

/// Delimiters outside quotes, line by line; lines in which nothing stands are left out.
struct Lines<'t>(&'t [u8]);

impl Iterator for Lines<'_> {
    type Item = Counts;

    fn next(&mut self) -> Option<Counts> {
        let (mut counts, mut quoted, mut blank) = (Counts::default(), false, true);
        while let Some((byte, rest)) = self.0.split_first() {
            self.0 = rest;
            match byte {
                b'"' => quoted = !quoted,
                _ if quoted => {}
                b'\r' | b'\n' if blank => {}
                b'\r' | b'\n' => return Some(counts),
                byte => {
                    blank = false;
                    if let Some(at) = DELIMITERS.iter().position(|delimiter| delimiter == byte) {
                        counts[at] += 1;
                    }
                }
            }
        }
        (!blank).then_some(counts)
    }
}
