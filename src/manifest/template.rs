//! An empty manifest with its headings, an example row, and, in a spreadsheet, notes and drop-downs.

use rust_xlsxwriter::{DataValidation, Format, Note, Workbook, XlsxError};

use crate::operation::Operation;
use crate::operation::kind::Kind;
use crate::results::headings;

/// Rows that have drop-downs.
const ROWS: u32 = 10_000;
/// Excel takes no longer list in a drop-down, in characters.
const LIST_MAX: usize = 255;

/// What the rows of a template are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, serde::Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum What {
    /// Cards for cardholders who exist.
    Cards,
    /// People who get a card each: cardholders and their cards.
    People,
    /// Changes of cards.
    Updates,
    /// New PINs for cards.
    Pins,
}

/// By which a template's example row is known, if it was left in: no row of anybody's has these.
pub(super) const EXAMPLES: [(&str, &str); 3] =
    [("card", "ic_example"), ("cardholder", "ich_example"), ("cardholder[email]", "ada@example.com")];

/// A column, an example of what stands in it, and what a person should know of it.
type Column = (&'static str, &'static str, &'static str);

const ROW_ID: Column = (
    "row_id",
    "E0001",
    "Your own name of the row, another one in each: a staff number, for instance. It names the card for ever.",
);
const CARD: Column = ("card", "ic_example", "The card's id at Stripe: ic_…");
const CHOOSE: Column = (
    "pin[choose]",
    "true",
    "true: the cardholder gets a link and chooses the PIN there. Leave it empty for a card without one.",
);
const CURRENCY: Column = ("currency", "eur", "Three letters, as the card's program has it.");
const INTERVAL: Column =
    ("spending_controls[spending_limits][0][interval]", "monthly", "Over what time the limit counts.");
const CARDS: [Column; 15] = [
    ROW_ID,
    ("cardholder", "ich_example", "The cardholder's id at Stripe: ich_…"),
    ("type", "physical", "physical or virtual."),
    CURRENCY,
    (
        "status",
        "inactive",
        "active: it can be used at once. A card that is sent is usually inactive until it is there.",
    ),
    CHOOSE,
    ("shipping[name]", "Ada Lovelace", "Who gets the parcel. For physical cards only, as all of shipping."),
    ("shipping[address][line1]", "12 High Street", "Street and number."),
    ("shipping[address][line2]", "", "Floor, suite and the like."),
    ("shipping[address][city]", "Dublin", "Town."),
    ("shipping[address][postal_code]", "D02 X285", "As a text, so that no zero is lost."),
    ("shipping[address][country]", "IE", "Two letters, such as DE."),
    ("shipping[service]", "standard", "express and priority want a telephone number."),
    (
        "spending_controls[spending_limits][0][amount]",
        "50000",
        "In the currency's smallest unit: 50000 is 500.00 EUR. Empty for no limit.",
    ),
    INTERVAL,
];
const PEOPLE: [Column; 17] = [
    ROW_ID,
    ("cardholder[name]", "Ada Lovelace", "As it is to stand on the card: at most 24 letters."),
    ("cardholder[email]", "ada@example.com", "Where the cardholder is reached."),
    ("cardholder[phone_number]", "+353871234567", "With + and the country; wanted for 3D Secure."),
    ("cardholder[individual][first_name]", "Ada", "In Latin letters, as Stripe checks it."),
    ("cardholder[individual][last_name]", "Lovelace", "In Latin letters, as Stripe checks it."),
    ("cardholder[individual][dob][day]", "10", "Day of birth."),
    ("cardholder[individual][dob][month]", "12", "Month of birth."),
    ("cardholder[individual][dob][year]", "1985", "Year of birth."),
    (
        "cardholder[billing][address][line1]",
        "12 High Street",
        "Where the cardholder or the company is registered.",
    ),
    ("cardholder[billing][address][city]", "Dublin", "Town."),
    ("cardholder[billing][address][postal_code]", "D02 X285", "As a text, so that no zero is lost."),
    ("cardholder[billing][address][country]", "IE", "Two letters, such as DE."),
    (
        "type",
        "virtual",
        "physical or virtual; a physical card wants columns shipping[…], too (see the template for cards).",
    ),
    CURRENCY,
    ("status", "active", "active: it can be used at once."),
    CHOOSE,
];
const UPDATES: [Column; 6] = [
    ROW_ID,
    CARD,
    ("status", "inactive", "inactive blocks the card, active unblocks it, canceled ends it for ever."),
    ("cancellation_reason", "", "lost or stolen, with canceled."),
    (
        "spending_controls[spending_limits][0][amount]",
        "50000",
        "In the currency's smallest unit: 50000 is 500.00 EUR. It takes the place of all limits that the card has.",
    ),
    INTERVAL,
];
const PINS: [Column; 3] = [ROW_ID, CARD, CHOOSE];

impl What {
    /// Its columns; where cardholders cannot choose PINs, without the one that says that they do.
    fn columns(self, chooses: bool) -> impl Iterator<Item = &'static Column> {
        let columns: &[Column] = match self {
            Self::Cards => &CARDS,
            Self::People => &PEOPLE,
            Self::Updates => &UPDATES,
            Self::Pins => &PINS,
        };
        columns.iter().filter(move |column| chooses || **column != CHOOSE)
    }

    /// What a column may hold, where that is one of a few words.
    fn words_of(self, column: &str) -> Option<Vec<&'static str>> {
        let of_person = column.strip_prefix("cardholder[").and_then(|rest| rest.split_once(']'));
        let (operation, path) = match (of_person, self) {
            (Some((first, rest)), _) => (Operation::CreateCardholder, format!("{first}{rest}")),
            (None, Self::Cards | Self::People) => (Operation::CreateCard, column.to_owned()),
            (None, Self::Updates | Self::Pins) => (Operation::UpdateCard, column.to_owned()),
        };
        match operation.declaration().kind_of(&path) {
            Ok(Kind::OneOf(words)) => Some(words.to_vec()),
            Ok(Kind::Boolean) => Some(vec!["true", "false"]),
            _ => None,
        }
    }
}

/// A template as CSV; `chooses`: whether cardholders can choose PINs.
///
/// # Errors
/// None that can be expected: it is written to memory.
pub fn csv(what: What, chooses: bool) -> Result<Vec<u8>, csv::Error> {
    // With it Excel reads letters beyond ASCII right.
    let mut writer = csv::Writer::from_writer("\u{feff}".as_bytes().to_vec());
    writer.write_record(what.columns(chooses).map(|(name, ..)| name))?;
    writer.write_record(what.columns(chooses).map(|(_, example, _)| example))?;
    writer.into_inner().map_err(|error| csv::Error::from(error.into_error()))
}

/// A template as XLSX of the same, with a note on each heading and drop-downs where a cell holds one of a few words.
///
/// # Errors
/// None that can be expected: it is written to memory.
pub fn workbook(what: What, chooses: bool) -> Result<Vec<u8>, XlsxError> {
    let mut workbook = Workbook::new();
    let sheet = workbook.add_worksheet();
    let names: Vec<&str> = what.columns(chooses).map(|(name, ..)| *name).collect();
    headings(sheet, &names)?;
    // So a spreadsheet program makes no number and no date of what is typed.
    let text = Format::new().set_num_format("@");
    for (column, (name, example, note)) in (0..).zip(what.columns(chooses)) {
        let width = u16::try_from(name.len().max(example.len()) + 2).unwrap_or(40).min(40);
        sheet.set_column_width(column, width)?;
        sheet.set_column_format(column, &text)?;
        sheet.write_string_with_format(1, column, *example, &text)?;
        sheet.insert_note(0, column, &Note::new(*note).add_author_prefix(false))?;
        if let Some(words) = what.words_of(name).filter(|words| words.join(",").len() <= LIST_MAX) {
            let list = DataValidation::new().allow_list_strings(&words)?;
            let list = list.set_error_title("Not one of the words")?.set_error_message(words.join(", "))?;
            sheet.add_data_validation(1, column, ROWS, column, &list)?;
        }
    }
    workbook.save_to_buffer()
}
