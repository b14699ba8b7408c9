//! What a row should be looked at for before it is a card: what spreadsheets do to cells, and what Stripe's schema allows and
//! nobody wants.
//!
//! [`Odd`] is told fast, for the many cells in which there is nothing odd, and worded only for the few in which there is.
//! Never: a value of a column that may hold a PIN.

use super::Severity;
use super::header::{Column, Holds};
use super::records::is_blank;
use crate::operation::PIN;
use crate::operation::kind::Kind;

mod places;
mod words;

/// What a column's cells are looked at for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    /// Not at all: PINs, and columns that are wrong anyway.
    Unread,
    /// Names of rows and of things.
    Id,
    /// A person's or a street's name, or a town's: words.
    Words,
    /// A postal code, and the column of its country.
    PostalCode { country: Option<usize> },
    /// A telephone number.
    Phone,
    /// A country, and whether something is sent to it.
    Country { shipped_to: bool },
    /// Metadata: whatever its writer likes.
    Free,
    /// What has a form of its own, which is checked elsewhere.
    Formed,
}

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
    /// Two letters that are no country.
    NoCountry,
    /// A country that Stripe ships no cards to.
    NotShippedTo,
}

/// Something to tell of a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Finding {
    /// The column's place; none for the whole row.
    pub(super) at: Option<usize>,
    pub(super) severity: Severity,
    pub(super) code: &'static str,
    pub(super) reason: String,
    pub(super) suggestion: Option<String>,
}

/// What the rows under one header are looked at for.
#[derive(Debug)]
pub(super) struct Lints {
    roles: Vec<Role>,
    whole: Whole,
    today: Month,
}

/// Columns that are looked at together.
#[derive(Debug, Default)]
struct Whole {
    kind: Option<usize>,
    shipping: Vec<usize>,
    service: Option<usize>,
    shipping_type: Option<usize>,
    shipping_phone: Option<usize>,
    shipping_line1: Option<usize>,
    shipping_country: Option<usize>,
    eori: Option<usize>,
    exp_month: Option<usize>,
    exp_year: Option<usize>,
    lifecycle: Option<usize>,
    second_line: Option<usize>,
    design: Option<usize>,
    business_name: Option<usize>,
    /// The name of a person who is to be created.
    person: Option<usize>,
}

/// Longest line on a card, and most letters of a name on it.
const PRINTED_MAX: usize = 24;

impl Lints {
    /// For these columns.
    pub(super) fn of(columns: &[Column], today: Month) -> Self {
        let place = |path: &str| columns.iter().position(|column| column.name == path);
        let role = |column: &Column| match column.holds {
            Holds::RowId | Holds::Card => Role::Id,
            Holds::Nothing | Holds::Blank => Role::Unread,
            Holds::Parameter(..) if column.path == PIN => Role::Unread,
            Holds::Parameter(_, kind) => role_of(&column.name, kind, &place),
        };
        let whole = Whole {
            kind: place("type"),
            shipping: (0..columns.len())
                .filter(|at| columns[*at].name.starts_with("shipping["))
                .filter(|at| matches!(columns[*at].holds, Holds::Parameter(..)))
                .collect(),
            service: place("shipping[service]"),
            shipping_type: place("shipping[type]"),
            shipping_phone: place("shipping[phone_number]"),
            shipping_line1: place("shipping[address][line1]"),
            shipping_country: place("shipping[address][country]"),
            eori: place("shipping[customs][eori_number]"),
            exp_month: place("exp_month"),
            exp_year: place("exp_year"),
            lifecycle: place("lifecycle_controls[cancel_after][payment_count]"),
            second_line: place("second_line"),
            design: place("personalization_design"),
            business_name: place("shipping[business_name]"),
            person: place("cardholder[name]"),
        };
        Self { roles: columns.iter().map(role).collect(), whole, today }
    }

    /// Whether there is anything to tell of a row. `cell` gives the n-th cell; there are as many as columns.
    pub(super) fn is_odd<'c>(&self, cell: impl Fn(usize) -> &'c str + Copy) -> bool {
        self.roles.iter().enumerate().any(|(at, role)| odd(*role, cell(at), cell).is_some())
            || self.whole.tell(cell, self.today, &mut Any).is_none()
    }

    /// All that is to be told of a row.
    pub(super) fn tell<'c>(&self, cell: impl Fn(usize) -> &'c str + Copy) -> Vec<Finding> {
        let of_cells = self.roles.iter().enumerate().filter_map(|(at, role)| {
            let text = cell(at);
            odd(*role, text, cell).map(|odd| odd.finding(at, text))
        });
        let mut findings: Vec<Finding> = of_cells.collect();
        let _ = self.whole.tell(cell, self.today, &mut All(&mut findings));
        findings
    }
}

/// A month of a year, by which what has expired is told.
pub(super) type Month = (i64, i64);

fn role_of(name: &str, kind: Kind, place: &impl Fn(&str) -> Option<usize>) -> Role {
    let last = name.rsplit('[').next().unwrap_or(name).trim_end_matches(']');
    match (kind, last) {
        (Kind::Country, "country") => Role::Country { shipped_to: name.starts_with("shipping[") },
        (Kind::Metadata { of_pin: true }, _) => Role::Unread,
        (Kind::Metadata { .. }, _) => Role::Free,
        (Kind::Text(_), "postal_code") => {
            Role::PostalCode { country: place(&name.replace("[postal_code]", "[country]")) }
        }
        (Kind::Text(_), "phone_number") => Role::Phone,
        (
            Kind::Text(_),
            "cardholder"
            | "financial_account"
            | "personalization_design"
            | "replacement_for"
            | "eori_number"
            | "email"
            | "tax_id",
        ) => Role::Id,
        (Kind::Text(_), _) => Role::Words,
        _ => Role::Formed,
    }
}

/// What is odd about a cell, if anything is.
fn odd<'c>(role: Role, text: &str, cell: impl Fn(usize) -> &'c str) -> Option<Odd> {
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
    if bytes[bytes.len() - 1].is_ascii_digit() && has_exponent(bytes) {
        return Some(Odd::Exponent);
    }
    if !text.is_ascii() {
        if text.contains('\u{fffd}') {
            return Some(Odd::LetterLost);
        }
        if is_mixed_up(text) {
            return Some(Odd::Encoding);
        }
        if role == Role::Id {
            if text.chars().any(|letter| !letter.is_ascii() && is_blank(letter)) {
                return Some(Odd::UnseenInside);
            }
            if text.contains(['\u{2018}', '\u{2019}', '\u{201a}', '\u{201c}', '\u{201d}', '\u{201e}']) {
                return Some(Odd::CurlyQuote);
            }
        }
    }
    if bytes.len() <= 9 && is_nothing(text) {
        return Some(Odd::Nothing);
    }
    match role {
        Role::Words | Role::Id if is_date(bytes) => Some(Odd::Date),
        Role::PostalCode { country } => places::postal_code(text, country.map(cell).unwrap_or_default()),
        Role::Phone if !is_international(bytes) => Some(Odd::Phone),
        Role::Country { shipped_to } => places::country(text, shipped_to),
        _ => None,
    }
}

/// Spreadsheets' words for a formula that failed, in the languages that have their own.
fn formula_failed(text: &str) -> bool {
    const WITHOUT_A_MARK: [&str; 9] =
        ["#N/A", "#N/A N/A", "#NV", "#N/D", "#N/B", "#N/V", "#NA", "#GETTING_DATA", "#I/T"];
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

fn is_nothing(text: &str) -> bool {
    ["null", "nan", "undefined", "none", "n/a", "n.a.", "nil", "(null)", "<null>"]
        .iter()
        .any(|word| text.eq_ignore_ascii_case(word))
}

/// UTF-8 that was read as Windows-1252: a letter that begins such a pair, and one that ends it.
fn is_mixed_up(text: &str) -> bool {
    // What bytes 0x80 to 0xBF are in Windows-1252.
    let ends = |letter: char| {
        matches!(letter, '\u{a0}'..='\u{bf}' | '\u{80}'..='\u{9f}')
            || "€‚ƒ„…†‡ˆ‰Š‹ŒŽ‘’“”•–—˜™š›œžŸ".contains(letter)
    };
    let mut letters = text.chars().peekable();
    while let Some(letter) = letters.next() {
        let next = letters.peek().copied();
        let pair = match letter {
            'Ã' | 'Â' | 'Ä' | 'Å' => next.is_some_and(ends),
            'â' => next == Some('€'),
            _ => false,
        };
        if pair {
            return true;
        }
    }
    false
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

/// A telephone number with its country: `+49 30 1234`.
fn is_international(bytes: &[u8]) -> bool {
    let digits = bytes.iter().filter(|byte| byte.is_ascii_digit()).count();
    bytes[0] == b'+'
        && (7..=15).contains(&digits)
        && bytes[1..]
            .iter()
            .all(|byte| byte.is_ascii_digit() || matches!(byte, b' ' | b'-' | b'(' | b')' | b'.' | b'/'))
}

/// Who is told what is found.
trait Told {
    /// Nothing, if nothing more is to be found.
    fn tell(&mut self, finding: impl FnOnce() -> Finding) -> Option<()>;
}

/// That there is anything at all.
struct Any;

impl Told for Any {
    fn tell(&mut self, _: impl FnOnce() -> Finding) -> Option<()> {
        None
    }
}

/// All there is.
struct All<'f>(&'f mut Vec<Finding>);

impl Told for All<'_> {
    fn tell(&mut self, finding: impl FnOnce() -> Finding) -> Option<()> {
        self.0.push(finding());
        Some(())
    }
}

impl Whole {
    /// Tells what is odd about a row as a whole; `None` once nobody wants to hear more.
    fn tell<'c>(
        &self,
        cell: impl Fn(usize) -> &'c str + Copy,
        today: Month,
        told: &mut impl Told,
    ) -> Option<()> {
        let value = |at: Option<usize>| at.map(cell).unwrap_or_default();
        let is_given = |at: Option<usize>| !value(at).is_empty();
        let (is_physical, is_virtual) = (value(self.kind) == "physical", value(self.kind) == "virtual");
        let shipped = self.shipping.iter().any(|at| !cell(*at).is_empty());
        if is_physical && !shipped {
            told.tell(|| words::not_shipped(self.kind))?;
        }
        if is_virtual && shipped {
            told.tell(|| {
                words::shipped_nowhere(self.shipping.iter().copied().find(|at| !cell(*at).is_empty()))
            })?;
        }
        if is_physical && is_given(self.lifecycle) {
            told.tell(|| words::lifecycle(self.lifecycle))?;
        }
        if is_given(self.exp_month) != is_given(self.exp_year) {
            let missing = if is_given(self.exp_month) { self.exp_year } else { self.exp_month };
            told.tell(|| words::half_an_expiry(missing.or(self.exp_month).or(self.exp_year)))?;
        } else if is_given(self.exp_month) {
            let number = |at| value(at).parse::<i64>().ok();
            let expiry = number(self.exp_year).zip(number(self.exp_month));
            if expiry.is_some_and(|expiry| expiry < today) {
                told.tell(|| words::expired(self.exp_year))?;
            } else if is_physical {
                told.tell(|| words::expiry_of_physical(self.exp_year))?;
            }
        }
        if is_given(self.second_line) && !is_given(self.design) {
            told.tell(|| words::second_line(self.second_line))?;
        }
        let business = value(self.business_name);
        if !business.bytes().all(is_printed_of_a_business) {
            told.tell(|| words::business_name(self.business_name, business))?;
        }
        let person = value(self.person);
        if person.chars().count() > PRINTED_MAX || !person.chars().all(is_printed_of_a_person) {
            told.tell(|| words::person(self.person, person))?;
        }
        let service = value(self.service);
        if matches!(service, "express" | "priority") {
            if is_po_box(value(self.shipping_line1)) {
                told.tell(|| words::po_box(self.shipping_line1, service))?;
            }
            if !is_given(self.shipping_phone) {
                told.tell(|| words::no_phone(self.service, service))?;
            }
        }
        let country = value(self.shipping_country);
        if value(self.shipping_type) == "bulk" && places::wants_eori(country) && !is_given(self.eori) {
            told.tell(|| words::no_eori(self.shipping_type, country))?;
        }
        Some(())
    }
}

/// What Stripe keeps of `shipping[business_name]`.
fn is_printed_of_a_business(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b' ' | b'.' | b'-')
}

/// What can stand on a card of a person's name.
fn is_printed_of_a_person(letter: char) -> bool {
    letter.is_alphabetic() || matches!(letter, ' ' | '/' | '-' | '&' | ':' | '(' | ')' | '.' | '\'')
}

/// An address of a post office box.
fn is_po_box(line: &str) -> bool {
    let letters: String = line.to_lowercase().chars().filter(|letter| letter.is_alphanumeric()).collect();
    ["pobox", "postfach", "boitepostale", "casellapostale", "apartadodecorreos", "postbus"]
        .iter()
        .any(|words| letters.starts_with(words))
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
        for text in ["0301234567", "491711234567", "+49", "+49 30 1234567 ext. 5"] {
            assert_eq!(found(Role::Phone, text), Some(Odd::Phone), "{text}");
        }
        assert_eq!(found(Role::Id, "E\u{200b}1"), Some(Odd::UnseenInside));
        assert_eq!(found(Role::Id, "“E1”"), Some(Odd::CurlyQuote));
        assert_eq!(found(Role::Words, "Ana\u{a0}López"), None);
    }
}
