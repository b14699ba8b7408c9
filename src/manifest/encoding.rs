//! What a file's text was saved as: told by its bytes, and never by a guess where two readings make sense.
//!
//! Mac Roman, in which Excel for Mac saves "CSV (Macintosh)", is not among what chardetng tells. Its letters with marks are other
//! signs elsewhere: `Müller` saved so is `MŸller` in Windows-1252. So a file is Mac Roman if in its words stands what is a letter
//! there and makes no sense anywhere else, and nothing that makes sense elsewhere alone.
//!
//! The code pages 850 and 437, in which Excel saves "CSV (MS-DOS)", have letters where Mac Roman has others: `Köln` saved so is
//! `Kîln` there. A file whose letters are small ones in both may be either, which is told.

use super::{code_page, country_of_text};
use chardetng::{EncodingDetector, Iso2022JpDetection, Utf8Detection};
use encoding_rs::{
    Encoding, MACINTOSH, UTF_8, UTF_16BE, UTF_16LE, WINDOWS_1250, WINDOWS_1252, WINDOWS_1254, WINDOWS_1257,
};

/// What a text is saved as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SavedAs {
    pub(super) encoding: &'static Encoding,
    /// What it may as well be, if nothing in it tells.
    may_be: Option<Other>,
}

/// What a text may be saved as that is read as something else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Other {
    MacRoman,
    /// Code page 850 or 437.
    CodePage,
    /// What would be guessed if the country were not known, and a letter that differs: as it is read, and as it would be.
    Elsewhere(&'static Encoding, char, char),
}

impl SavedAs {
    pub(super) fn surely(encoding: &'static Encoding) -> Self {
        Self { encoding, may_be: None }
    }

    /// What is to be told of it, if it may be wrong.
    pub(super) fn doubt(self) -> Option<String> {
        let (read_as, name) = (called(self.encoding), self.encoding.name().to_ascii_lowercase());
        Some(match self.may_be? {
            Other::MacRoman => format!(
                "letters beyond the English alphabet are read as {read_as}, but may be Mac Roman, as \"CSV (Macintosh)\" of Excel is: \
                 then names and addresses come out wrong. Save the file as \"CSV UTF-8\", or say which it is with --encoding \
                 macintosh or --encoding {name} (over HTTP ?encoding=)"
            ),
            Other::CodePage => format!(
                "letters beyond the English alphabet are read as {read_as}, but may be of a code page (850, 437 or 852), as \"CSV (MS-DOS)\" \
                 of Excel is: then names and addresses come out wrong. Open the file where its names look right and save it as \"CSV \
                 UTF-8\"; or, if it certainly is {read_as}, say so with --encoding {name} (over HTTP ?encoding=)"
            ),
            Other::Elsewhere(other, here, there) => format!(
                "letters beyond the English alphabet are read as {read_as} (as in {here:?}), by the countries in the file, but may be {} \
                 ({there:?} in its place): look at the names. Save the file as \"CSV UTF-8\", or say which it is with --encoding {name} \
                 or --encoding {} (over HTTP ?encoding=)",
                called(other),
                other.name().to_ascii_lowercase()
            ),
        })
    }

    /// By its bytes, the first of which is no ASCII, and the one before them.
    pub(super) fn of(before: u8, bytes: &[u8], is_all: bool) -> Self {
        let is_utf_8 = match std::str::from_utf8(bytes) {
            Ok(_) => true,
            // A letter that the window cuts in two.
            Err(error) => error.error_len().is_none() && !is_all,
        };
        // One damaged letter among many good ones makes no other encoding of a whole file.
        if is_utf_8 || well_spelt(bytes) {
            return Self::surely(UTF_8);
        }
        let mut detector = EncodingDetector::new(Iso2022JpDetection::Deny);
        detector.feed(bytes, is_all);
        let guess =
            |domain: Option<&str>| match detector.guess(domain.map(str::as_bytes), Utf8Detection::Deny) {
                encoding if encoding == UTF_8 => WINDOWS_1252,
                encoding => encoding,
            };
        let domain = country_of_text::top_level_domain(bytes);
        let (encoding, elsewhere) = match (guess(domain), domain.and_then(native)) {
            // What is guessed where nothing tells.
            (encoding, Some(native)) if encoding == WINDOWS_1252 => (native, WINDOWS_1252),
            (encoding, _) => (encoding, guess(None)),
        };
        // Where two bytes are one letter, what stands between two ASCII letters is half of one.
        if !encoding.is_single_byte() {
            return Self::surely(encoding);
        }
        let of_code_page = |encoding| Self { encoding, may_be: Some(Other::CodePage) };
        match Words::of(before, bytes) {
            // No text has control characters there, and a code page has letters.
            Words { others: 1.., .. } if has_controls(encoding, bytes) => of_code_page(encoding),
            Words { others: 1.., .. } => Self { encoding, may_be: differing(encoding, elsewhere, bytes) },
            Words { code_page: 1.., no_code_page: 0, .. } | Words { sharp: 1.., .. } => {
                of_code_page(encoding)
            }
            Words { mac: 1.., no_code_page: 0, .. } | Words { mac: 1.., no_mac: 1.., .. } => {
                of_code_page(MACINTOSH)
            }
            Words { mac: 1.., .. } => Self::surely(MACINTOSH),
            _ if has_controls(encoding, bytes) => of_code_page(encoding),
            Words { either: 1.., .. } => Self { encoding, may_be: Some(Other::MacRoman) },
            _ => Self { encoding, may_be: differing(encoding, elsewhere, bytes) },
        }
    }
}

/// An encoding by any name that the web or people have for it.
pub(super) fn named(name: &str) -> Option<&'static Encoding> {
    let plain: String = name.to_ascii_lowercase().chars().filter(char::is_ascii_alphanumeric).collect();
    match plain.as_str() {
        "macroman" => Some(MACINTOSH),
        "ansi" => Some(WINDOWS_1252),
        _ => Encoding::for_label_no_replacement(name.as_bytes()),
    }
}

/// What people call an encoding.
pub(super) fn called(encoding: &'static Encoding) -> &'static str {
    match encoding {
        encoding if encoding == WINDOWS_1252 => "Windows-1252",
        encoding if encoding == MACINTOSH => "Mac Roman",
        encoding => encoding.name(),
    }
}

/// How many bytes that are no ASCII, each after an ASCII letter and within a word, are a small letter in one reading.
#[derive(Debug, Default, PartialEq, Eq)]
struct Words {
    /// In Mac Roman alone.
    mac: usize,
    /// In what is usual elsewhere, and not in Mac Roman.
    others: usize,
    /// In both.
    either: usize,
    /// In the code pages 850 and 437, and not elsewhere.
    code_page: usize,
    /// Of those in Mac Roman: none in the code pages, but a capital or no letter at all.
    no_code_page: usize,
    /// What is á elsewhere and ß in the code pages, after a vowel: only there can a ß stand.
    sharp: usize,
    /// No letter at all in Mac Roman.
    no_mac: usize,
}

impl Words {
    fn of(mut before: u8, bytes: &[u8]) -> Self {
        let mut words = Self::default();
        for (at, byte) in bytes.iter().copied().enumerate() {
            let after = bytes.get(at + 1).copied().unwrap_or(b'\n');
            let is_within = before.is_ascii_alphabetic() && (after.is_ascii_lowercase() || !after.is_ascii());
            // At a word's end stand other signs as well: only what is a letter either way tells something there.
            let ends_it = before.is_ascii_lowercase() && !after.is_ascii_alphanumeric();
            let is_letter = || {
                let is_it = |encoding| char_of(encoding, byte).is_some_and(char::is_alphabetic);
                is_it(WINDOWS_1252) || is_it(WINDOWS_1250)
            };
            if byte == SHARP_S && is_vowel(before) && (ends_it || before_part(&bytes[at + 1..])) {
                words.sharp += 1;
            } else if !byte.is_ascii() && (is_within || ends_it && is_letter()) {
                words.count(byte);
            }
            if !byte.is_ascii() && before.is_ascii_alphabetic() && after.is_ascii_lowercase() {
                let in_mac = char_of(MACINTOSH, byte);
                words.no_mac +=
                    usize::from(in_mac.is_some_and(|sign| !sign.is_alphabetic() && !"’‘–—…·".contains(sign)));
            }
            before = byte;
        }
        words
    }

    fn count(&mut self, byte: u8) {
        let is_small = |encoding: &'static Encoding| char_of(encoding, byte).is_some_and(char::is_lowercase);
        let (is_mac, elsewhere) = (is_small(MACINTOSH), char_of(WINDOWS_1252, byte));
        let counted = match (is_mac, is_small(WINDOWS_1252) || is_small(WINDOWS_1250)) {
            // As in `O’Brien`.
            (true, false) if matches!(elsewhere, Some('’' | '‘')) => return,
            (true, false) if !matches!(elsewhere, Some('–' | '—')) => &mut self.mac,
            (true, _) => &mut self.either,
            (false, true) => &mut self.others,
            // ü, é, â, ä and å, which are Å, Ç, É, Ñ and Ü in Mac Roman, and nothing that stands in a word elsewhere.
            (false, false) if matches!(byte, 0x81..=0x84 | 0x86) => &mut self.code_page,
            (false, false) => return,
        };
        *counted += 1;
        // Not what Unicode counts as small letters, too, and no word has.
        let is_of_word = |letter: char| letter.is_lowercase() && !['ª', 'º', 'µ', 'ƒ'].contains(&letter);
        let is_small_in_code_page = code_page::char_of(byte).is_some_and(is_of_word);
        self.no_code_page += usize::from(is_mac && !is_small_in_code_page);
    }
}

/// ß in the code pages 850 and 437.
const SHARP_S: u8 = 0xe1;

/// Whether a word goes on so after a ß: with a vowel or a t, or with another letter and a vowel (`Meißner`, not `Seán`).
fn before_part(rest: &[u8]) -> bool {
    match rest {
        [next, ..] if is_vowel(*next) || *next == b't' => true,
        [next, after, ..] => next.is_ascii_lowercase() && is_vowel(*after),
        _ => false,
    }
}

/// Whether a byte is a vowel, in ASCII or, with two dots, in the code pages.
fn is_vowel(letter: u8) -> bool {
    matches!(letter.to_ascii_lowercase(), b'a' | b'e' | b'i' | b'o' | b'u' | 0x81 | 0x84 | 0x94)
}

/// Whether bytes beyond ASCII are control characters in an encoding, or nothing.
fn has_controls(encoding: &'static Encoding, bytes: &[u8]) -> bool {
    bytes.iter().any(|byte| !byte.is_ascii() && char_of(encoding, *byte).is_none())
}

/// What Excel saves a CSV as in countries that write with other letters than the west of Europe.
fn native(domain: &str) -> Option<&'static Encoding> {
    Some(match domain {
        "ba" | "cz" | "hr" | "hu" | "pl" | "ro" | "rs" | "sk" => WINDOWS_1250,
        "ee" | "lt" | "lv" => WINDOWS_1257,
        "tr" => WINDOWS_1254,
        _ => return None,
    })
}

/// The other encoding, if a letter is another one in it.
fn differing(encoding: &'static Encoding, other: &'static Encoding, bytes: &[u8]) -> Option<Other> {
    let letters = |byte: &u8| {
        let (here, there) = (char_of(encoding, *byte)?, char_of(other, *byte)?);
        (here != there && here.is_alphabetic() && there.is_alphabetic())
            .then_some(Other::Elsewhere(other, here, there))
    };
    bytes.iter().filter(|byte| !byte.is_ascii()).find_map(letters)
}

/// The letter that a byte is.
fn char_of(encoding: &'static Encoding, byte: u8) -> Option<char> {
    let byte = [byte];
    let text = encoding.decode_without_bom_handling_and_without_replacement(&byte)?;
    text.chars().next().filter(|letter| !letter.is_control())
}

/// Whether most of what is no ASCII is UTF-8.
fn well_spelt(bytes: &[u8]) -> bool {
    let (mut good, mut bad) = (0_usize, 0_usize);
    for chunk in bytes.utf8_chunks() {
        good += chunk.valid().chars().filter(|letter| !letter.is_ascii()).count();
        bad += usize::from(!chunk.invalid().is_empty());
    }
    good > 2 * bad
}

/// UTF-16 by its zeros: every second byte of a header is one.
pub(super) fn utf_16_without_mark(start: &[u8]) -> Option<&'static Encoding> {
    let zeros = |parity: usize| {
        let looked_at = start.len().min(200) / 2;
        let zeros = start.iter().skip(parity).step_by(2).take(looked_at).filter(|byte| **byte == 0).count();
        looked_at > 0 && zeros * 10 >= looked_at * 9
    };
    match (zeros(0), zeros(1)) {
        (true, false) => Some(UTF_16BE),
        (false, true) => Some(UTF_16LE),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a text is read as, whole and within a longer one.
    fn read(text: &[u8]) -> (&'static str, Option<Other>) {
        let longer = [b"row_id;name\nx;Ada\nx;", text, b"\n"].concat();
        let [of_whole, of_longer] = [text, &longer].map(|text| {
            let at = text.iter().position(|byte| !byte.is_ascii()).unwrap();
            let SavedAs { encoding, may_be } = SavedAs::of(text[at - 1], &text[at..], true);
            (called(encoding), may_be)
        });
        assert_eq!(of_whole, of_longer);
        of_whole
    }

    #[test]
    fn mac_roman_is_told_where_nothing_else_makes_sense() {
        for text in [
            &b"Andr\x8e"[..],
            b"Gro\xa7mann",
            b"J\x8ager;Berlin\rM\x9fller;K\x9aln\rWei\xa7;M\x9fnchen\r",
            b"Jos\x8e Mu\x96oz;M\x87laga\rGarc\x92a\r",
        ] {
            assert_eq!(read(text), ("Mac Roman", None), "{}", text.escape_ascii());
        }
    }

    /// Each is a name in Mac Roman, or one in the code pages that "CSV (MS-DOS)" is saved in, or could be either.
    #[test]
    fn what_may_be_of_a_code_page_is_told_as_a_doubt() {
        for text in [
            &b"J\x8ager"[..],
            b"Fran\x8dois",
            b"M\x8cns",
            b"Jo\x8bo;S\x8bo Paulo\rConcei\x8d\x8bo\r",
            b"K\x94ln",
            b"S\x94der;G\x94ttingen",
            b"Fran\x87ois, K\x94ln",
        ] {
            assert_eq!(read(text), ("Mac Roman", Some(Other::CodePage)), "{}", text.escape_ascii());
        }
        // What is written for a ß there is a letter elsewhere, too; and Polish has a code page of its own.
        for text in [
            &b"Jens Gro\xe1"[..],
            b"Bj\x94rn Vo\xe1;Rote Stra\xe1e 5;G\x94ttingen",
            b"J\x81rgen Wei\xe1;K\x84the B\x94hm;\x8enne \x99ttinger",
            b"Gra\xbeyna Wo\xabniak;ul. D\x88uga 4",
            b"M\xfcller;J\x81rgen",
        ] {
            let (encoding, may_be) = read(text);
            assert_eq!(may_be, Some(Other::CodePage), "{} {encoding}", text.escape_ascii());
        }
        for text in [&b"Th\x82r\x8ase"[..], b"M\x81ller;J\x84ger;K\x94ln", b"Andr\x82s;P\x82rez;M\xa0laga"] {
            let (encoding, may_be) = read(text);
            assert_eq!(may_be, Some(Other::CodePage), "{} {encoding}", text.escape_ascii());
            assert_ne!(encoding, "Mac Roman", "{}", text.escape_ascii());
        }
    }

    #[test]
    fn what_makes_sense_elsewhere_is_read_as_before() {
        for (text, encoding) in [
            (&b"M\xfcller, J\xe4ger"[..], "Windows-1252"),
            (b"O\x92Brien, d\x92alba", "Windows-1252"),
            (b"the \x93big\x94 one \x96 more\x85 Firma\x99 \xa7 5", "Windows-1252"),
            (b"Ka\x9fmierczak;\xa3\xf3d\x9f;Wi\x9cniewski;Pawe\xb3", "windows-1250"),
            (b"N\x8akoda;Ji\xf8\xed;Bo\x9eena", "windows-1250"),
            (b"Tom\x9ai\xe6", "windows-1250"),
            (b"A \xc8\xe2\xe0\xed \xcf\xe5\xf2\xf0\xee\xe2\xe8\xf7", "windows-1251"),
            (b"A\x8e\x52\x93\x63\x91\xbe\x98\x59,\x93\x8c\x8b\x9e", "Shift_JIS"),
        ] {
            assert_eq!(read(text), (encoding, None), "{}", text.escape_ascii());
        }
    }

    /// A sharp s stands after a vowel, and not where these have their letter.
    #[test]
    fn an_a_with_an_accent_is_no_sharp_s() {
        for text in [&b"M\xe1rquez, S\xe1nchez"[..], b"Se\xe1n", b"Se\xe1n, Siobh\xe1n", b"Nov\xe1"] {
            assert_eq!(read(text).1, None, "{}", text.escape_ascii());
        }
    }

    #[test]
    fn where_both_make_sense_there_is_a_doubt() {
        for text in [&b"M\x9fller"[..], b"K\x9anig", b"S\xbfren", b"Ko\x9air;Bo\x9eo"] {
            let (encoding, may_be) = read(text);
            assert_eq!(may_be, Some(Other::MacRoman), "{} {encoding}", text.escape_ascii());
            assert_ne!(encoding, "Mac Roman", "{}", text.escape_ascii());
        }
    }

    /// A letter that is another one elsewhere is what it is in the country that the file is about, and that is told.
    #[test]
    fn the_country_decides_where_letters_alone_do_not() {
        for (text, name, is_doubted) in [
            (&b"Nagy Gerg\xf5;Gy\xf5r;HU;huf"[..], "Nagy Gergő", true),
            (b"Kov\xe1cs L\xe1szl\xf3;Pet\xf5fi;HU;huf", "Kovács László", false),
            (b"R\xfbta;Klaip\xebda;LT;eur", "Rūta", true),
            (b"\xd0arlotta K\xf5iv;EE;eur", "Šarlotta Kõiv", true),
            (b"Ren\xe9e Mu\xf1oz;GB;\xa3;gbp", "Renée Muñoz", false),
        ] {
            let longer = [b"row_id;name;country;currency\nx;Ada;", text, b"\nx;Bob;", text].concat();
            let at = longer.iter().position(|byte| !byte.is_ascii()).unwrap();
            let saved_as = SavedAs::of(longer[at - 1], &longer[at..], true);
            let (read, _) = saved_as.encoding.decode_without_bom_handling(text);
            assert!(read.starts_with(name), "{read} by {}", called(saved_as.encoding));
            assert_eq!(saved_as.doubt().is_some(), is_doubted, "{read}: {saved_as:?}");
        }
    }

    #[test]
    fn an_encoding_has_many_names() {
        for name in ["macintosh", "Mac Roman", "MacRoman", "x-mac-roman"] {
            assert_eq!(named(name), Some(MACINTOSH), "{name}");
        }
        assert_eq!(named("Windows-1252"), Some(WINDOWS_1252));
        assert_eq!(named("windows"), None);
    }
}
