//! How a file is to be read, where it is not to tell so itself.

use std::sync::Arc;

use encoding_rs::Encoding;

use super::columns::ColumnMap;
use super::dates::Shown;
use super::edits::Edits;
use super::sheet::Sheet;
use super::snapshot::Snapshot;
use super::{encoding, sheet};

/// What is wrong with a name that is none of an encoding.
pub const NO_ENCODING: &str = "is no name of an encoding that is known here: windows-1252, macintosh, utf-8 and utf-16le are, and others of the web's";

/// How a file is to be read.
#[derive(Debug, Clone, Default)]
pub struct Reading {
    /// What separates its cells: a comma, a semicolon, a tab or a vertical bar.
    pub delimiter: Option<u8>,
    /// What its text was saved as. What a byte order mark says comes before it.
    pub encoding: Option<&'static Encoding>,
    /// Which sheet of a spreadsheet; otherwise the first that is shown.
    pub sheet: Option<String>,
    /// What its headings are, where they are no names of columns.
    pub columns: Option<Arc<ColumnMap>>,
    /// Cells that were mended since the file was made.
    pub edits: Option<Arc<Edits>>,
    /// The sheet that the text was made of by embosser itself, if it was.
    pub made_of: Option<Arc<Sheet>>,
    /// Whether headings of which none is known are problems, as one unknown heading is: a person says then what they are. Otherwise
    /// the file is none that can be read.
    pub asks_headings: bool,
    /// What the file's dates show of their order, where somebody has looked.
    pub dates: Shown,
    /// The headings under which a person's name stands, if not those of the columns file: for results.
    pub person: Vec<String>,
}

impl Reading {
    /// The same for a snapshot's text, which is embosser's own if it was a spreadsheet.
    pub(super) fn of_text(&self, snapshot: &Snapshot) -> Self {
        match snapshot.sheet() {
            Some(sheet) => self.clone().of_sheet(sheet.clone()),
            None => self.clone(),
        }
    }

    /// The same for the text that embosser itself makes of a spreadsheet.
    pub(crate) fn of_sheet(self, sheet: Arc<Sheet>) -> Self {
        Self { delimiter: Some(sheet::DELIMITER), encoding: None, made_of: Some(sheet), ..self }
    }

    /// What a text was saved as, by a name of it: `windows-1252`, `macintosh` or `Mac Roman`, or another that the web has
    /// (encoding.spec.whatwg.org).
    #[must_use]
    pub fn encoding_named(name: &str) -> Option<&'static Encoding> {
        encoding::named(name)
    }

    /// What separates cells, by its name or as it is.
    #[must_use]
    pub fn delimiter_named(name: &str) -> Option<u8> {
        match name.to_ascii_lowercase().as_str() {
            "comma" | "," => Some(b','),
            "semicolon" | ";" => Some(b';'),
            "tab" | "\t" | "\\t" => Some(b'\t'),
            "pipe" | "|" => Some(b'|'),
            _ => None,
        }
    }
}
