//! One cell: what spreadsheets and people do to it.

use super::super::records::is_blank;
use super::{Role, mixed_up, places, written};
use crate::operation::currency::is_currency;

/// What is odd about one cell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Odd {
    /// `#N/A` and its kin: a formula failed.
    FormulaFailed,
    /// `#####`: the column was too narrow to show what is in it.
    TooNarrow,
    /// `4.91E+11`: digits are lost.
    Exponent,
    /// `NULL`, `nan`: a program's word for nothing.
    Nothing,
    /// `Ã¼` for `ü`.
    Encoding,
    /// `M?ller`: a letter that no encoding had where the file was saved.
    LetterAsked,
    /// A character that controls a printer or a terminal.
    Control,
    /// `="0001"` or `'0001`: how a spreadsheet is told that something is a text.
    TextMark,
    /// A letter that no encoding has: it was lost before.
    LetterLost,
    /// A blank without a width, or a no-break one, inside.
    UnseenInside,
    /// Curly quotes in the name of a thing.
    CurlyQuote,
    /// A date where words belong.
    Date,
    /// A postal code with fewer digits than its country's have.
    ZerosLost { digits: usize },
    /// A postal code that is none of its country's.
    PostalCode,
    /// A Canadian one with a blank in it.
    PostalCodeBlank,
    /// A telephone number without its country.
    Phone,
    /// A telephone number with words in it.
    PhoneWords,
    /// A telephone number with its country and the zero that is dialled without it.
    PhoneZero,
    /// What is no e-mail address.
    Email,
    /// Three letters that are no currency.
    NoCurrency,
    /// Two letters that are no country.
    NoCountry,
    /// A country that Stripe ships no cards to.
    NotShippedTo,
}

/// What is odd about a cell, if anything is.
pub(super) fn odd<'c>(role: Role, text: &str, cell: impl Fn(usize) -> &'c str) -> Option<Odd> {
    let bytes = text.as_bytes();
    if role == Role::Unread || bytes.is_empty() {
        return None;
    }
    if bytes[0] == b'#' && bytes.len() > 1 {
        if bytes.iter().all(|byte| *byte == b'#') {
            return Some(Odd::TooNarrow);
        }
        if formula_failed(text) {
            return Some(Odd::FormulaFailed);
        }
    }
    // Google Sheets shows the one, LibreOffice the other.
    if matches!(bytes[0], b'E' | b'L') && (text == "Loading..." || is_office_error(bytes)) {
        return Some(Odd::FormulaFailed);
    }
    if bytes.iter().fold(false, |any, byte| any | (*byte < b' ') | (*byte == 0x7f)) {
        return Some(Odd::Control);
    }
    if matches!(bytes[0], b'=' | b'\'') && written::text_meant(text).is_some() {
        return Some(Odd::TextMark);
    }
    if bytes[bytes.len() - 1].is_ascii_digit() && has_exponent(bytes) {
        return Some(Odd::Exponent);
    }
    if !text.is_ascii() {
        if text.contains('\u{fffd}') {
            return Some(Odd::LetterLost);
        }
        // Control characters beyond ASCII are letters of another encoding.
        if mixed_up::is_mixed_up(text) || text.chars().any(char::is_control) {
            return Some(Odd::Encoding);
        }
        if matches!(role, Role::Id | Role::Email) {
            if text.chars().any(|letter| !letter.is_ascii() && is_blank(letter)) {
                return Some(Odd::UnseenInside);
            }
            if text.contains(['\u{2018}', '\u{2019}', '\u{201a}', '\u{201c}', '\u{201d}', '\u{201e}']) {
                return Some(Odd::CurlyQuote);
            }
        }
    }
    if bytes.len() <= 9 && (is_nothing(text) || role.is_of_people() && is_placeholder(text)) {
        return Some(Odd::Nothing);
    }
    match role {
        Role::Words | Role::Id if is_date(bytes) => Some(Odd::Date),
        Role::Words if mixed_up::has_lost_letter(bytes) => Some(Odd::LetterAsked),
        Role::Email if !written::is_email(text) => Some(Odd::Email),
        Role::Currency if !is_currency(text) && bytes.len() == 3 => Some(Odd::NoCurrency),
        Role::Phone if bytes.iter().filter(|byte| byte.is_ascii_alphabetic()).count() > 1 => {
            Some(Odd::PhoneWords)
        }
        Role::PostalCode { country } => places::postal_code(text, country.map(cell).unwrap_or_default()),
        Role::Phone if !written::is_international(bytes) => Some(Odd::Phone),
        Role::Phone if written::without_zero(text).is_some() => Some(Odd::PhoneZero),
        Role::Country { shipped_to } => places::country(text, shipped_to),
        _ => None,
    }
}

/// Spreadsheets' words for a formula that failed, in the languages that have their own.
fn formula_failed(text: &str) -> bool {
    const WITHOUT_A_MARK: [&str; 12] = [
        "#N/A",
        "#N/A N/A",
        "#NV",
        "#N/D",
        "#N/B",
        "#N/V",
        "#NA",
        "#GETTING_DATA",
        "#I/T",
        "#YOK",
        "#Н/Д",
        "#HIÁNYZIK",
    ];
    let word = text.trim_end_matches(['!', '?']);
    let is_word = |word: &str| {
        word.len() > 2
            && word[1..]
                .chars()
                .all(|letter| letter.is_uppercase() || matches!(letter, '/' | '0' | '_' | '¡' | '¿'))
    };
    WITHOUT_A_MARK.contains(&text) || (word.len() < text.len() && text.len() <= 16 && is_word(word))
}

/// A number that is written with an exponent: `4.91E+11`, `1,2E+15`, `5E+05`.
fn has_exponent(bytes: &[u8]) -> bool {
    if !matches!(bytes[0], b'-' | b'0'..=b'9') {
        return false;
    }
    let Some(at) = bytes.iter().position(|byte| matches!(byte, b'E' | b'e')) else { return false };
    let (number, exponent) = (&bytes[..at], &bytes[at + 1..]);
    let digits = |bytes: &[u8]| !bytes.is_empty() && bytes.iter().all(u8::is_ascii_digit);
    let number = number.strip_prefix(b"-").unwrap_or(number);
    let whole = number.split(|byte| matches!(byte, b'.' | b','));
    exponent.first() == Some(&b'+')
        && digits(&exponent[1..])
        && number.first().is_some_and(u8::is_ascii_digit)
        && whole.clone().count() <= 2
        && whole.into_iter().all(digits)
}

/// `Err:502`, as LibreOffice shows it.
fn is_office_error(bytes: &[u8]) -> bool {
    bytes.strip_prefix(b"Err:").is_some_and(|code| code.len() == 3 && code.iter().all(u8::is_ascii_digit))
}

/// What people write where they do not know.
fn is_placeholder(text: &str) -> bool {
    // A name or a street is longer, or begins with none of these.
    const BEGIN: &[u8] = b"-?tTkKuUnNxX.";
    text.as_bytes().first().is_some_and(|byte| BEGIN.contains(byte))
        && (text.bytes().all(|byte| matches!(byte, b'-' | b'?' | b'.' | b' '))
            || ["tbd", "tba", "tbc", "k.a.", "k. a.", "k.a", "unbekannt", "unknown", "n.n.", "n. n.", "xxx"]
                .iter()
                .any(|word| text.eq_ignore_ascii_case(word)))
}

fn is_nothing(text: &str) -> bool {
    // Most cells begin with none of these letters.
    if !matches!(text.as_bytes().first().map(u8::to_ascii_lowercase), Some(b'n' | b'u' | b'(' | b'<')) {
        return false;
    }
    ["null", "nan", "undefined", "none", "n/a", "n.a.", "nil", "(null)", "<null>"]
        .iter()
        .any(|word| text.eq_ignore_ascii_case(word))
}

/// `2026-03-01`, `01.03.2026`, `3/1/26`, `1. Mrz`, `3-Apr`: what a spreadsheet makes of `3-4` or `1.3`.
fn is_date(bytes: &[u8]) -> bool {
    if bytes.len() < 5 || bytes.len() > 19 || !bytes[0].is_ascii_digit() {
        return false;
    }
    let parts: Vec<&[u8]> = bytes
        .split(|byte| matches!(byte, b'-' | b'.' | b'/' | b' '))
        .filter(|part| !part.is_empty())
        .collect();
    let number = |part: &[u8]| -> Option<u32> {
        let digits = part.len() <= 4 && part.iter().all(u8::is_ascii_digit);
        digits.then(|| std::str::from_utf8(part).ok()?.parse().ok()).flatten()
    };
    let day = |part: &[u8]| part.len() <= 2 && number(part).is_some_and(|day| (1..=31).contains(&day));
    let year = |part: &[u8]| matches!(part.len(), 2 | 4) && number(part).is_some();
    const MONTHS: [&str; 24] = [
        "jan", "feb", "mar", "mär", "mrz", "apr", "may", "mai", "jun", "jul", "aug", "sep", "oct", "okt",
        "nov", "dec", "dez", "ene", "abr", "ago", "dic", "févr", "avr", "août",
    ];
    let month = |part: &[u8]| {
        let word = std::str::from_utf8(part).unwrap_or_default().to_lowercase();
        MONTHS.contains(&word.as_str())
    };
    match parts.as_slice() {
        [one, two] => day(one) && month(two) && !bytes.contains(&b' ') | bytes.contains(&b'.'),
        [one, two, three] => {
            let separators = bytes.iter().filter(|byte| matches!(byte, b'-' | b'.' | b'/')).count();
            separators >= 2
                && ((one.len() == 4 && year(one) && day(two) && day(three))
                    || (day(one) && (day(two) || month(two)) && year(three)))
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(role: Role, text: &str) -> Option<Odd> {
        odd(role, text, |_| "DE")
    }

    #[test]
    fn what_spreadsheets_do_to_cells_is_told_and_what_people_write_is_not() {
        for (text, expected) in [
            ("#N/A", Odd::FormulaFailed),
            ("#NV", Odd::FormulaFailed),
            ("#REF!", Odd::FormulaFailed),
            ("#DIV/0!", Odd::FormulaFailed),
            ("#BEZUG!", Odd::FormulaFailed),
            ("#NAME?", Odd::FormulaFailed),
            ("#¡REF!", Odd::FormulaFailed),
            ("####", Odd::TooNarrow),
            ("4.91E+11", Odd::Exponent),
            ("4,91E+11", Odd::Exponent),
            ("-1.23457E+15", Odd::Exponent),
            ("5E+05", Odd::Exponent),
            ("MÃ¼ller", Odd::Encoding),
            ("CafÃ©", Odd::Encoding),
            ("Oâ€™Neill", Odd::Encoding),
            ("Å\u{81}ukasz", Odd::Encoding),
            ("M\u{fffd}ller", Odd::LetterLost),
            ("NULL", Odd::Nothing),
            ("NaN", Odd::Nothing),
            ("undefined", Odd::Nothing),
            ("Err:502", Odd::FormulaFailed),
            ("#YOK", Odd::FormulaFailed),
            ("#Н/Д", Odd::FormulaFailed),
            ("#HIÁNYZIK", Odd::FormulaFailed),
            ("Loading...", Odd::FormulaFailed),
            ("Ada\u{b}Lovelace", Odd::Control),
            ("a\tb", Odd::Control),
            ("J\u{81}rgen", Odd::Encoding),
            ("=\"0001\"", Odd::TextMark),
            ("'0001", Odd::TextMark),
        ] {
            assert_eq!(found(Role::Free, text), Some(expected), "{text}");
            assert_eq!(found(Role::Unread, text), None);
        }
        for text in [
            "#1",
            "#42 Main St",
            "Apt #N",
            "E+",
            "1E5",
            "E1",
            "E+11",
            "a.1E+1",
            "Ünal",
            "Åse",
            "SÃO PAULO",
            "Âge",
            "Müller",
            "O’Neill",
            "Null-Müller",
            "Nanette",
            "500",
            "2 €",
            "10–12",
            "C#",
            "I!",
            "TBD",
            "-",
            "'t Hooft",
            "'s-Hertogenbosch",
            "Err: 502",
            "M?ller",
        ] {
            assert_eq!(found(Role::Free, text), None, "{text}");
        }
    }

    #[test]
    fn a_date_is_told_where_words_belong() {
        for text in
            ["2026-03-01", "01.03.2026", "3/1/26", "3-Apr", "1. Mrz", "12-Dez-24", "2026-03-01T12:00:00"]
        {
            let expected = if text.contains('T') { None } else { Some(Odd::Date) };
            assert_eq!(found(Role::Words, text), expected, "{text}");
            assert_eq!(found(Role::Free, text), None, "{text}");
        }
        for text in [
            "12 Main St",
            "1-2-3 Street",
            "10115",
            "5 May St",
            "Apt 3-4",
            "1/2",
            "3 Mai",
            "24.12",
            "2026",
            "1-2",
        ] {
            assert_eq!(found(Role::Words, text), None, "{text}");
        }
    }

    #[test]
    fn phones_and_ids_have_their_own_ways_to_be_odd() {
        assert_eq!(found(Role::Phone, "+49 (30) 123-4567"), None);
        for text in ["0301234567", "491711234567", "+49", "+49 30 1234567 x5"] {
            assert_eq!(found(Role::Phone, text), Some(Odd::Phone), "{text}");
        }
        for text in ["+49 30 1234567 ext. 5", "none yet", "call HR"] {
            assert_eq!(found(Role::Phone, text), Some(Odd::PhoneWords), "{text}");
        }
        for text in [
            "ada",
            "ada@",
            "@example.com",
            "ada@example",
            "ada@@example.com",
            "ada@example..com",
            "a b@example.com",
            "ada@example.com, bob@example.com",
        ] {
            assert_eq!(found(Role::Email, text), Some(Odd::Email), "{text}");
        }
        assert_eq!(found(Role::Email, "Ada.Lovelace+card@mail.example.co.uk"), None);
        assert_eq!(found(Role::Phone, "+49 (0)171 1234567"), Some(Odd::PhoneZero));
        assert_eq!(
            (found(Role::Currency, "eru"), found(Role::Currency, "EUR")),
            (Some(Odd::NoCurrency), None)
        );
        assert_eq!(found(Role::Id, "E\u{200b}1"), Some(Odd::UnseenInside));
        assert_eq!(found(Role::Id, "“E1”"), Some(Odd::CurlyQuote));
        assert_eq!(found(Role::Words, "Ana\u{a0}López"), None);
        for text in ["-", "?", "TBD", "k.A.", "unbekannt", "--"] {
            assert_eq!(found(Role::Words, text), Some(Odd::Nothing), "{text}");
        }
        for (text, expected) in [
            ("M?ller", Some(Odd::LetterAsked)),
            ("Who? Me", None),
            ("Tony", None),
            ("Nina", None),
            ("Who?", None),
        ] {
            assert_eq!(found(Role::Words, text), expected, "{text}");
        }
    }
}
