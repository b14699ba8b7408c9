//! What a row would ask for if its file had been read in another encoding than now.
//!
//! A row without a `row_id` is named by its content. The same file is read otherwise once somebody says what it is saved as, or saves
//! it as UTF-8, or a newer version tells better: then each name with a letter beyond ASCII is another one, and its row would get a
//! second card. So such a row is looked for under the contents, too, that a mistaken reading would have given it.

use std::cell::Cell;

use encoding_rs::{Encoding, MACINTOSH, WINDOWS_1250, WINDOWS_1252};
use zeroize::Zeroizing;

use super::{Row, code_page};
use crate::job::Content;

/// A text's bytes in some encoding, if it has all of its letters.
type Encode = fn(&str) -> Option<Vec<u8>>;

/// What a row's content would be by each mistaken reading; nothing for a row in ASCII, which is the same in all.
pub(super) fn contents(row: &Row) -> Vec<Content> {
    let mut requests = row.first.iter().chain([&row.request]);
    if requests.all(crate::operation::Request::is_ascii) {
        return Vec::new();
    }
    // What it is saved as, by the present reading, and what it was read as.
    let mistakes: [(Encode, &'static Encoding); 6] = [
        (mac_roman, WINDOWS_1252),
        (mac_roman, WINDOWS_1250),
        (windows_1252, MACINTOSH),
        (windows_1250, MACINTOSH),
        (code_page::encoded, WINDOWS_1252),
        (code_page::encoded, MACINTOSH),
    ];
    mistakes.into_iter().filter_map(|(encode, read_as)| content(row, encode, read_as)).collect()
}

fn content(row: &Row, encode: Encode, read_as: &'static Encoding) -> Option<Content> {
    // A file that has a letter which this encoding has not was not saved in it.
    let is_possible = Cell::new(true);
    let misread = |value: &str| {
        let bytes = encode(value).map(Zeroizing::new);
        let text = bytes.as_ref().and_then(|bytes| {
            read_as
                .decode_without_bom_handling_and_without_replacement(bytes)
                .map(std::borrow::Cow::into_owned)
        });
        is_possible.set(is_possible.get() && text.is_some());
        Zeroizing::new(text.unwrap_or_default())
    };
    let content = row.request.content_misread(row.first.as_ref(), &misread);
    is_possible.get().then_some(content)
}

fn encoded(encoding: &'static Encoding, text: &str) -> Option<Vec<u8>> {
    let (bytes, _, is_lossy) = encoding.encode(text);
    (!is_lossy).then(|| bytes.into_owned())
}

fn mac_roman(text: &str) -> Option<Vec<u8>> {
    encoded(MACINTOSH, text)
}

fn windows_1252(text: &str) -> Option<Vec<u8>> {
    encoded(WINDOWS_1252, text)
}

fn windows_1250(text: &str) -> Option<Vec<u8>> {
    encoded(WINDOWS_1250, text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::{Manifest, Reading};

    fn row(name: &[u8], encoding: Option<&'static Encoding>) -> Row {
        let text = [b"cardholder,type,currency,metadata[name]\nich_1,virtual,eur,", name, b"\n"].concat();
        let reading = Reading { encoding, ..Reading::default() };
        let manifest = Manifest::read("staff.csv".as_ref(), text.as_slice(), &reading).unwrap();
        manifest.rows().next().unwrap().unwrap()
    }

    #[test]
    fn a_row_is_known_by_what_its_file_was_taken_for_before() {
        let (mac, windows) = (Some(MACINTOSH), Some(WINDOWS_1252));
        for (was, is) in [
            // Told better by a newer version, or by whoever has the file.
            (row(b"J\x8ager", windows), row(b"J\x8ager", mac)),
            (row(b"M\x9fller", windows), row(b"M\x9fller", mac)),
            (row(b"Ko\x9air", mac), row(b"Ko\x9air", Some(WINDOWS_1250))),
            (row(b"J\xe4ger", mac), row(b"J\xe4ger", windows)),
            // Saved as UTF-8.
            (row(b"J\x8ager", windows), row("Jäger".as_bytes(), None)),
            (row(b"K\x94ln", mac), row("Köln".as_bytes(), None)),
            (row(b"J\x84ger", windows), row("Jäger".as_bytes(), None)),
        ] {
            assert_ne!(was.content(), is.content());
            assert!(contents(&is).contains(&was.content()));
        }
        assert!(contents(&row(b"Ada", None)).is_empty());
        let other = row("Jäger".as_bytes(), None);
        assert!(!contents(&row("Jöger".as_bytes(), None)).contains(&other.content()));
    }
}
