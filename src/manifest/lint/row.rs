//! A row as a whole: cells that are right each and do not go together.

use super::super::header::{Column, Holds};
use super::super::template::EXAMPLES;
use super::{Finding, Month, places, words};
use crate::operation::PIN;
use crate::operation::kind::Kind;

/// Columns that are looked at together.
#[derive(Debug, Default)]
pub(super) struct Whole {
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
    /// Where that person lives.
    line1: Option<usize>,
    /// The day, month and year of that person's birth.
    born: [Option<usize>; 3],
    /// Columns in which a row says that it is a total: names, and the first of all.
    named: Vec<usize>,
    /// By what somebody is told, or reached.
    reached: [Option<usize>; 4],
    /// Columns in which a template's example row is known, and what stands there.
    examples: Vec<(usize, &'static str)>,
}

/// Longest line on a card, and most letters of a name on it.
pub(in crate::manifest) const PRINTED_MAX: usize = 24;

/// Where findings go.
pub(super) trait Collect {
    /// Adds one; nothing, if no more are wanted.
    fn add(&mut self, finding: impl FnOnce() -> Finding) -> Option<()>;
}

/// That there is one is all that is wanted.
pub(super) struct First;

impl Collect for First {
    fn add(&mut self, _: impl FnOnce() -> Finding) -> Option<()> {
        None
    }
}

impl Collect for Vec<Finding> {
    fn add(&mut self, finding: impl FnOnce() -> Finding) -> Option<()> {
        self.push(finding());
        Some(())
    }
}

impl Whole {
    /// Of these columns.
    pub(super) fn of(columns: &[Column]) -> Self {
        let place = |path: &str| columns.iter().position(|column| column.name == path);
        Self {
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
            line1: place("cardholder[billing][address][line1]"),
            named: [Some(0), place("row_id"), place("cardholder[name]")]
                .into_iter()
                .flatten()
                .filter(|at| columns.get(*at).is_some_and(may_say_total))
                .collect(),
            reached: ["cardholder", "card", "cardholder[email]", "cardholder[phone_number]"].map(place),
            born: ["day", "month", "year"].map(|part| place(&format!("cardholder[individual][dob][{part}]"))),
            examples: EXAMPLES.iter().filter_map(|(column, text)| Some((place(column)?, *text))).collect(),
        }
    }

    /// Looks for what is odd about a row as a whole; `None` once no more is wanted.
    pub(super) fn look<'c>(
        &self,
        cell: impl Fn(usize) -> &'c str + Copy,
        today: Month,
        findings: &mut impl Collect,
    ) -> Option<()> {
        for (at, _) in self.examples.iter().filter(|(at, text)| cell(*at) == *text) {
            findings.add(|| words::example(Some(*at)))?;
        }
        let value = |at: Option<usize>| at.map(cell).unwrap_or_default();
        let is_given = |at: Option<usize>| !value(at).is_empty();
        if let Some(at) = self.named.iter().find(|at| is_total(cell(**at))) {
            let is_somebody = self.reached.iter().any(|at| is_given(*at));
            findings.add(|| words::total(*at, is_somebody))?;
        }
        let (is_physical, is_virtual) = (value(self.kind) == "physical", value(self.kind) == "virtual");
        let shipped = self.shipping.iter().any(|at| !cell(*at).is_empty());
        if is_physical && !shipped {
            findings.add(|| words::not_shipped(self.kind, is_given(self.line1)))?;
        }
        if is_virtual && shipped {
            findings.add(|| {
                words::shipped_nowhere(self.shipping.iter().copied().find(|at| !cell(*at).is_empty()))
            })?;
        }
        if is_physical && is_given(self.lifecycle) {
            findings.add(|| words::lifecycle(self.lifecycle))?;
        }
        if is_given(self.exp_month) != is_given(self.exp_year) {
            let missing = if is_given(self.exp_month) { self.exp_year } else { self.exp_month };
            findings.add(|| words::half_an_expiry(missing.or(self.exp_month).or(self.exp_year)))?;
        } else if is_given(self.exp_month) {
            let number = |at| value(at).parse::<i64>().ok();
            let expiry = number(self.exp_year).zip(number(self.exp_month));
            if expiry.is_some_and(|expiry| expiry < today) {
                findings.add(|| words::expired(self.exp_year))?;
            } else if is_physical {
                findings.add(|| words::expiry_of_physical(self.exp_year))?;
            }
        }
        if is_given(self.second_line) && !is_given(self.design) {
            findings.add(|| words::second_line(self.second_line))?;
        }
        let business = value(self.business_name);
        if !business.bytes().all(is_printed_of_a_business) {
            findings.add(|| words::business_name(self.business_name, business))?;
        }
        let person = value(self.person);
        if person.chars().count() > PRINTED_MAX || !person.chars().all(is_printed_of_a_person) {
            findings.add(|| words::person(self.person, person))?;
        }
        if let [Some(day), Some(month), Some(year)] = self.born.map(|at| value(at).parse::<i16>().ok())
            && let (Ok(month), Ok(day)) = (i8::try_from(month), i8::try_from(day))
        {
            let [at, .., of_year] = self.born;
            if jiff::civil::Date::new(year, month, day).is_err() {
                findings.add(|| words::no_such_day(at))?;
            } else if (i64::from(year), i64::from(month)) > today {
                findings.add(|| words::not_born_yet(of_year))?;
            }
        }
        let service = value(self.service);
        if matches!(service, "express" | "priority") {
            if is_po_box(value(self.shipping_line1)) {
                findings.add(|| words::po_box(self.shipping_line1, service))?;
            }
            if !is_given(self.shipping_phone) {
                findings.add(|| words::no_phone(self.service, service))?;
            }
        }
        let country = value(self.shipping_country);
        if value(self.shipping_type) == "bulk" && places::wants_eori(country) && !is_given(self.eori) {
            findings.add(|| words::no_eori(self.shipping_type, country))?;
        }
        Some(())
    }
}

/// Whether a column can name a row.
fn may_say_total(column: &Column) -> bool {
    match column.holds {
        Holds::RowId => true,
        Holds::Parameter(_, Kind::Text(_) | Kind::Metadata { of_pin: false }) => column.path != PIN,
        _ => false,
    }
}

/// Whether a text is what people write beside the sum of a column.
fn is_total(text: &str) -> bool {
    const LONGEST: usize = 24;
    const WORDS: [&str; 34] = [
        "total",
        "totals",
        "totale",
        "totali",
        "totaal",
        "totales",
        "totaux",
        "grand total",
        "total general",
        "subtotal",
        "sub-total",
        "subtotals",
        "sous-total",
        "subtotale",
        "subtotaal",
        "sum",
        "summe",
        "summa",
        "gesamt",
        "gesamtsumme",
        "zwischensumme",
        "insgesamt",
        "somme",
        "somma",
        "soma",
        "suma",
        "razem",
        "celkem",
        "összesen",
        "toplam",
        "yhteensä",
        "итого",
        "σύνολο",
        "Σ",
    ];
    // Most names are longer, or begin otherwise.
    let begins =
        text.as_bytes().first().is_some_and(|byte| b"tgszircyTGSZIRCY".contains(byte) || !byte.is_ascii());
    begins && text.len() <= LONGEST && {
        let word = text.trim_end_matches([':', '.', ' ']);
        WORDS.contains(&word) || WORDS.contains(&word.to_lowercase().as_str())
    }
}

/// What Stripe keeps of `shipping[business_name]`.
pub(in crate::manifest) fn is_printed_of_a_business(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b' ' | b'.' | b'-')
}

/// What can stand on a card of a person's name.
pub(in crate::manifest) fn is_printed_of_a_person(letter: char) -> bool {
    letter.is_alphabetic() || matches!(letter, ' ' | '/' | '-' | '&' | ':' | '(' | ')' | '.' | '\'')
}

/// An address of a post office box.
fn is_po_box(line: &str) -> bool {
    let letters: String = line.to_lowercase().chars().filter(|letter| letter.is_alphanumeric()).collect();
    ["pobox", "postfach", "boitepostale", "casellapostale", "apartadodecorreos", "postbus"]
        .iter()
        .any(|words| letters.starts_with(words))
}
