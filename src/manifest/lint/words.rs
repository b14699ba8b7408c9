//! What is said of what is odd, in the words of who has the spreadsheet before them.

use super::Finding;
use super::cell::Odd;
use super::row::PRINTED_MAX;
use super::written::{email_meant, phone_meant, text_meant, without_zero};
use crate::manifest::Severity;
use crate::manifest::printing::{of_business, of_person};

/// As a text for whoever mends the file; none of these values can be a PIN's.
const SHOWN_MAX: usize = 40;

impl Odd {
    /// What is said of a cell.
    pub(super) fn finding(self, at: usize, text: &str) -> Finding {
        use Severity::{Problem, Warning};
        let (severity, code, reason) = match self {
            Self::FormulaFailed => {
                (Problem, "formula_failed", "is what a spreadsheet shows when a formula fails; type what belongs there".into())
            }
            Self::TooNarrow => (
                Problem,
                "too_narrow",
                "is what a spreadsheet shows when a column is too narrow; widen it and save the file again".into(),
            ),
            Self::Exponent => (
                Problem,
                "exponent",
                "is a number that a spreadsheet has shortened, so that digits are lost; format the column as text and type it again".into(),
            ),
            Self::Nothing => (Warning, "says_nothing", "stands for nothing: write what belongs there, or clear the cell".into()),
            Self::Encoding => (
                Problem,
                "encoding",
                "has letters that were read in the wrong encoding before (such as \u{c3}\u{bc} for \u{fc}); save the file again \
                 from where the names are right, as \"CSV UTF-8\" or as a spreadsheet".into(),
            ),
            Self::LetterLost => (
                Problem,
                "letter_lost",
                "has a letter (\u{fffd}) that was lost when the file was saved; type it again".into(),
            ),
            Self::LetterAsked => (
                Problem,
                "letter_lost",
                "has a question mark within a word: a letter stood there that was lost when the file was saved; type it again".into(),
            ),
            Self::Control => {
                let letters = text.chars().map(|letter| if letter.is_control() { ' ' } else { letter });
                let plain = letters.collect::<String>().split_whitespace().collect::<Vec<_>>().join(" ");
                let reason = "has a control character in it, which nobody sees and no letter or card can show; type it again".into();
                let suggestion = (!plain.is_empty()).then_some(plain);
                return Finding { at: Some(at), severity: Problem, code: "control_character", reason, suggestion };
            }
            Self::TextMark => {
                let reason = "has signs around it that tell a spreadsheet that it is a text, and would be kept with them".into();
                let suggestion = text_meant(text).map(str::to_owned);
                return Finding { at: Some(at), severity: Problem, code: "text_mark", reason, suggestion };
            }
            Self::UnseenInside => {
                (Warning, "unseen_letter", "has a blank in it that is not seen or not a usual one; type it again".into())
            }
            Self::CurlyQuote => (
                Warning,
                "curly_quote",
                "has curly quotes, which word processors put in; type it again if it should have none".into(),
            ),
            Self::Date => (
                Warning,
                "date",
                "is a date where words belong; spreadsheets make dates of what looks like one, so format the column as text".into(),
            ),
            Self::ZerosLost { digits } => {
                let whole = format!("{text:0>digits$}");
                let reason = format!("has {} digits, and postal codes there have {digits}: a spreadsheet has taken away the zeros before it; format the column as text", text.len());
                return Finding { at: Some(at), severity: Problem, code: "zeros_lost", reason, suggestion: Some(whole) };
            }
            Self::PostalCode => (Warning, "postal_code", "has not the form of that country's postal codes".into()),
            Self::PostalCodeBlank => {
                let suggestion = Some(text.replace(' ', ""));
                let reason = "has a blank: Stripe takes Canadian postal codes without".into();
                return Finding { at: Some(at), severity: Problem, code: "postal_code", reason, suggestion };
            }
            Self::Phone | Self::PhoneWords | Self::PhoneZero => {
                let (severity, reason, suggestion) = match self {
                    Self::Phone => (
                        Warning,
                        "is no telephone number with its country: + and 7 to 15 digits, as in +49301234567",
                        phone_meant(text),
                    ),
                    Self::PhoneWords => (
                        Problem,
                        "has words in it; a telephone number has + and 7 to 15 digits, as in +49301234567. Leave it empty if there is none",
                        phone_meant(text),
                    ),
                    _ => (
                        Problem,
                        "has a zero after its country's code, which is dialled only without that code",
                        without_zero(text),
                    ),
                };
                return Finding { at: Some(at), severity, code: "phone_number", reason: reason.into(), suggestion };
            }
            Self::Email => {
                let reason = "is no e-mail address: it has one @ and a name after it, as in ada@example.com".into();
                return Finding { at: Some(at), severity: Problem, code: "email", reason, suggestion: email_meant(text) };
            }
            Self::NoCurrency => (
                Problem,
                "currency",
                "is the code of no currency (ISO 4217: three letters, such as eur)".into(),
            ),
            Self::NoCountry => {
                let suggestion = text.eq_ignore_ascii_case("uk").then(|| "GB".to_owned());
                let reason = "is the code of no country (ISO 3166: two letters, such as DE)".into();
                return Finding { at: Some(at), severity: Problem, code: "country", reason, suggestion };
            }
            Self::NotShippedTo => (Problem, "not_shipped_to", "is a country that Stripe ships no cards to".into()),
        };
        Finding { at: Some(at), severity, code, reason, suggestion: None }
    }
}

fn problem(at: Option<usize>, code: &'static str, reason: impl Into<String>) -> Finding {
    Finding { at, severity: Severity::Problem, code, reason: reason.into(), suggestion: None }
}

fn warning(at: Option<usize>, code: &'static str, reason: impl Into<String>) -> Finding {
    Finding { severity: Severity::Warning, ..problem(at, code, reason) }
}

fn shown(text: &str) -> String {
    let mut shown: String = text.chars().take(SHOWN_MAX).collect();
    if shown.len() < text.len() {
        shown.push('…');
    }
    format!("\"{shown}\"")
}

pub(super) fn not_shipped(at: Option<usize>, has_own_address: bool) -> Finding {
    const REASON: &str = "needs an address: the row does not say where its card is sent (shipping[…])";
    const WAY_OUT: &str = "; to send such cards to each person's own address, write [shipping] with to = \"own address\" into the \
                           columns file";
    warning(at, "no_shipping", format!("{REASON}{}", if has_own_address { WAY_OUT } else { "" }))
}

pub(super) fn shipped_nowhere(at: Option<usize>) -> Finding {
    warning(
        at,
        "shipping_of_virtual",
        "says where a card is sent that is virtual, so that nothing is; clear it, or make the card physical",
    )
}

pub(super) fn lifecycle(at: Option<usize>) -> Finding {
    problem(at, "not_allowed", "is for virtual cards only, and this one is physical; clear it")
}

pub(super) fn half_an_expiry(at: Option<usize>) -> Finding {
    problem(at, "half_an_expiry", "is half of an expiry: give the month and the year, or neither")
}

pub(super) fn expired(at: Option<usize>) -> Finding {
    problem(at, "expired", "is an expiry that has passed")
}

pub(super) fn expiry_of_physical(at: Option<usize>) -> Finding {
    warning(
        at,
        "expiry_of_physical",
        "is an expiry of a physical card, and Stripe takes one for virtual cards only; clear it",
    )
}

pub(super) fn second_line(at: Option<usize>) -> Finding {
    warning(
        at,
        "second_line",
        "is printed only on cards whose design has a second line, and the row names no personalization_design",
    )
}

pub(super) fn business_name(at: Option<usize>, name: &str) -> Finding {
    let kept = shown(&of_business(name));
    let reason = format!("has letters that are left out when it is printed; what stands there is {kept}");
    warning(at, "stripped", reason)
}

pub(super) fn person(at: Option<usize>, name: &str) -> Finding {
    let reason = format!(
        "is not printed on a card as it is (at most {PRINTED_MAX} letters, and / - & : ( ) . \u{27}); what fits is {}",
        shown(&of_person(name))
    );
    warning(at, "printed_name", reason)
}

pub(super) fn example(at: Option<usize>) -> Finding {
    problem(
        at,
        "example",
        "is the template's example: the row is nobody's, and is not to be issued. Delete it, or write somebody's data into it",
    )
}

pub(super) fn total(at: usize, is_somebody: bool) -> Finding {
    const REASON: &str =
        "is what stands beside a sum: is the row a total? It is nobody's; delete it, or write whose it is";
    if is_somebody { warning(Some(at), "total_row", REASON) } else { problem(Some(at), "total_row", REASON) }
}

pub(super) fn no_such_day(at: Option<usize>) -> Finding {
    problem(at, "no_such_day", "is part of a date of birth that no calendar has")
}

pub(super) fn not_born_yet(at: Option<usize>) -> Finding {
    problem(at, "not_born_yet", "is part of a date of birth that is still to come")
}

pub(super) fn po_box(at: Option<usize>, service: &str) -> Finding {
    problem(
        at,
        "po_box",
        format!("is a post office box, to which nothing is sent by {service}; use standard, or a street"),
    )
}

pub(super) fn no_phone(at: Option<usize>, service: &str) -> Finding {
    warning(
        at,
        "no_phone",
        format!("is {service}, for which carriers want a telephone number; fill in shipping[phone_number]"),
    )
}

pub(super) fn no_eori(at: Option<usize>, country: &str) -> Finding {
    problem(
        at,
        "no_eori",
        format!(
            "is bulk to {}, where customs want an EORI number; fill in shipping[customs][eori_number]",
            country.to_uppercase()
        ),
    )
}
