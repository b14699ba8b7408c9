//! An upload's text: as it comes, or out of the spreadsheet that it is.

use std::io::{self, Cursor, Read, Write};
use std::sync::Arc;

use zeroize::Zeroizing;

use super::check::Stopped;
use super::held::Share;
use crate::manifest::Reading;
use crate::manifest::sheet::{self, Sheet};

/// Bytes of a spreadsheet that are charged at once.
const CHARGED_AT_ONCE: usize = 1 << 20;

/// The text of an upload.
pub(super) enum Unpacked<R> {
    /// It is text: what was looked at, and then the rest.
    Text(io::Chain<Cursor<Vec<u8>>, R>),
    /// It is a spreadsheet, and this is the text of its sheet.
    Sheet(Cursor<Zeroizing<Vec<u8>>>),
}

impl<R: Read> Unpacked<R> {
    /// Looks at the beginning; takes in all of a spreadsheet, whose memory is charged to `share`. Answers the sheet, too.
    pub(super) fn begin(
        mut source: R,
        share: &mut Share,
        reading: &mut Reading,
    ) -> Result<(Self, Option<Sheet>), Stopped> {
        let mut start = Vec::new();
        let read = |error: io::Error| Stopped::NoTable(error.to_string());
        source.by_ref().take(sheet::START_BYTES as u64).read_to_end(&mut start).map_err(read)?;
        if !sheet::is_spreadsheet(&start) {
            return Ok((Self::Text(Cursor::new(start).chain(source)), None));
        }
        let mut packed = Growing { bytes: Zeroizing::new(Vec::new()), share, full: false };
        packed.write_all(&start).map_err(|_| Stopped::Full)?;
        if let Err(error) = io::copy(&mut source, &mut packed) {
            return Err(if packed.full { Stopped::Full } else { read(error) });
        }
        let packed = packed.bytes;
        let mut text = Growing { bytes: Zeroizing::new(Vec::new()), share, full: false };
        let named = sheet::write_csv(&packed, reading, &mut text);
        if text.full {
            return Err(Stopped::Full);
        }
        let sheet = named.map_err(Stopped::NoTable)?;
        *reading = std::mem::take(reading).of_sheet(Arc::new(sheet.clone()));
        Ok((Self::Sheet(Cursor::new(text.bytes)), Some(sheet)))
    }
}

impl<R: Read> Read for Unpacked<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Text(text) => text.read(buffer),
            Self::Sheet(text) => {
                let at = usize::try_from(text.position()).unwrap_or(usize::MAX);
                let rest = text.get_ref().get(at..).unwrap_or_default();
                let length = rest.len().min(buffer.len());
                buffer[..length].copy_from_slice(&rest[..length]);
                text.set_position((at + length) as u64);
                Ok(length)
            }
        }
    }
}

/// Bytes that are charged before they are held. Where they move to more room, what they leave is wiped.
struct Growing<'s> {
    bytes: Zeroizing<Vec<u8>>,
    share: &'s mut Share,
    /// Whether there was no room for more.
    full: bool,
}

impl Write for Growing<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let wanted = self.bytes.len() + bytes.len();
        if wanted > self.bytes.capacity() {
            let room = wanted.max(2 * self.bytes.capacity()).next_multiple_of(CHARGED_AT_ONCE);
            if self.share.grow(room - self.bytes.capacity()).is_err() {
                self.full = true;
                return Err(io::Error::other("full"));
            }
            let mut larger = Zeroizing::new(Vec::with_capacity(room));
            larger.extend_from_slice(&self.bytes);
            self.bytes = larger;
        }
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
