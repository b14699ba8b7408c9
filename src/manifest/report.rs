//! What a check found, and how that is told.

use serde::Serialize;

use super::Problem;
use super::checked::Excluded;
use super::sheet::Sheet;

/// What to find out besides problems.
#[derive(Debug, Clone, Copy, Default)]
pub struct CheckOptions {
    /// Whether to digest the rows, PINs left out.
    pub digest: bool,
}

/// What a check found.
#[derive(Debug, Clone, Default, Serialize)]
pub struct CheckReport {
    /// Data rows.
    pub rows: u64,
    /// Those with problems.
    pub invalid_rows: u64,
    /// Cards with a PIN, of the valid rows.
    pub pins: u64,
    /// Physical cards among the valid rows.
    pub physical: u64,
    /// Virtual cards among the valid rows.
    pub r#virtual: u64,
    /// Changes of cards among them.
    pub changes: u64,
    /// Cards that are cancelled: by those changes, or before they are replaced.
    pub cancels: u64,
    /// Rows whose cardholders are to choose the PIN.
    pub pins_to_choose: u64,
    /// Cards that replace others.
    pub replacements: u64,
    /// Those of them that come without a PIN.
    pub replacements_without_pin: u64,
    /// Cards that are sent to their person's own address because the columns file says so.
    pub to_own_addresses: u64,
    /// Cardholders to be created among them, alone or before their cards.
    pub cardholders: u64,
    /// The sheet that the rows are from, if the file is a spreadsheet.
    #[serde(skip)]
    pub sheet: Option<Sheet>,
    /// The line of the headings, if something stands above them.
    pub headings_line: Option<u64>,
    /// The boxes in which cards are sent that are sent together, in words.
    pub boxes: Option<String>,
    /// What is printed for one of the rows with a physical card, in words.
    pub printed: Option<String>,
    /// When physical cards that are created now are sent to be printed at the earliest.
    #[serde(skip)]
    pub cut_off: Option<jiff::Timestamp>,
    /// How many rows are for people of other rows, in words.
    pub people: Option<String>,
    /// Whether there is a column of amounts.
    pub has_amounts: bool,
    /// The amounts of the valid rows as money, in words, if there are any.
    #[serde(skip)]
    pub amounts: Option<String>,
    /// Columns without a heading and anything in them, which were left out.
    pub blank_columns: u64,
    /// Rows without anything in them, which were left out.
    pub blank_rows: u64,
    /// What the file's text was saved as, if not as UTF-8.
    pub read_as: Option<&'static str>,
    /// What separates its cells, if no commas do.
    pub separated_by: Option<&'static str>,
    /// All problems.
    pub problem_count: u64,
    /// The first of them.
    pub problems: Vec<Problem>,
    /// All warnings.
    pub warning_count: u64,
    /// The first of them.
    pub warnings: Vec<Problem>,
    /// Rows that are wrong only beside others, in their order.
    #[serde(skip)]
    pub excluded: Vec<Excluded>,
    /// SHA-256 over the valid rows without their PINs.
    #[serde(skip)]
    pub digest: Option<[u8; 32]>,
}

impl CheckReport {
    /// Calls that the valid rows need: one for each card, change and cardholder.
    #[must_use]
    pub fn calls(&self) -> u64 {
        let cancelled_first = if self.changes == 0 { self.cancels } else { 0 };
        self.physical + self.r#virtual + self.changes + self.cardholders + cancelled_first
    }

    /// What whoever sends these rows should know, beside problems.
    #[must_use]
    pub fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        let text = [
            self.sheet.as_ref().map(|sheet| format!("sheet {:?}", sheet.name)),
            self.read_as.map(|encoding| format!("read as {encoding}")),
            self.separated_by.map(|delimiter| format!("separated by {delimiter}")),
            self.headings_line
                .map(|line| format!("headings on line {line}, and what stands above them left out")),
            (self.blank_columns > 0)
                .then(|| format!("{} without a heading left out", counted(self.blank_columns, "column"))),
            (self.blank_rows > 0).then(|| format!("{} left out", counted(self.blank_rows, "blank row"))),
        ];
        let of_sheet = self.sheet.iter().flat_map(|sheet| sheet.notes.iter().cloned());
        let text: Vec<_> = text.into_iter().flatten().chain(of_sheet).collect();
        if !text.is_empty() {
            notes.push(format!("The file: {}.", text.join(", ")));
        }
        if self.has_amounts {
            notes.push(
                "Amounts are in the currency's smallest unit: 50000 is 500.00 EUR, and 50000 JPY.".to_owned(),
            );
        }
        notes.extend(self.amounts.clone());
        notes.extend(self.people.clone());
        notes.extend(self.printed.clone());
        match self.to_own_addresses {
            0 => {}
            1 => notes.push(
                "1 card is sent to its person's own address: the row does not say where it is sent.".to_owned(),
            ),
            cards => notes.push(format!(
                "{cards} cards are sent to {cards} people's own addresses: these rows do not say where they are sent."
            )),
        }
        notes.extend(self.boxes.clone());
        notes.extend(self.cut_off.map(|next| {
            format!(
                "Stripe sends physical cards to be printed once a day, next at {}: those that exist by then. A card that is cancelled \
                 later is billed and shipped all the same.",
                next.strftime("%Y-%m-%d %H:%M UTC")
            )
        }));
        if self.pins_to_choose > 0 {
            notes.push(format!(
                "{} for a PIN that the cardholder chooses: nothing is made for them before that.",
                waits(self.pins_to_choose)
            ));
        }
        if self.replacements_without_pin > 0 {
            notes.push(format!(
                "{} without a PIN: a replacement does not inherit the PIN of the card that it replaces.",
                counted(self.replacements_without_pin, "replacement")
            ));
        }
        if self.changes > 0 && self.pins + self.pins_to_choose > 0 {
            notes.push(
                "A card of a program in IE, GB, FR, MX or AE takes its new PIN only after one transaction with the old one."
                    .to_owned(),
            );
        }
        notes
    }

    /// What the valid rows come to, in words.
    #[must_use]
    pub fn contents(&self) -> String {
        let cards = self.physical + self.r#virtual;
        let made =
            format!("{} ({} virtual, {} physical)", counted(cards, "card"), self.r#virtual, self.physical);
        match self {
            Self { changes: 1.., cancels: 1.., .. } => {
                format!("{} ({} cancelled)", counted(self.changes, "card change"), self.cancels)
            }
            Self { changes: 1.., .. } => counted(self.changes, "card change"),
            Self { cancels: 1.., .. } => format!("{made}, {} replaced and cancelled first", self.cancels),
            Self { cardholders: 1.., .. } if cards == 0 => counted(self.cardholders, "new cardholder"),
            Self { cardholders: 1.., .. } => {
                format!("{made}, {}", counted(self.cardholders, "new cardholder"))
            }
            _ => made,
        }
    }

    /// Cancelling cannot be undone: it must have been said how many cards are to be cancelled.
    ///
    /// # Errors
    /// What is wrong, if something else was said, or nothing.
    pub fn cancels_are_wanted(&self, wanted: Option<u64>) -> Result<(), String> {
        let cards = counted(self.cancels, "card");
        match wanted {
            None if self.cancels == 0 => Ok(()),
            Some(wanted) if wanted == self.cancels => Ok(()),
            None => Err(format!("{cards} would be cancelled, for ever")),
            Some(wanted) => {
                Err(format!("{cards} would be cancelled, for ever, and not the {wanted} that were said"))
            }
        }
    }

    /// What a run does with the valid rows: what is about to be done, and as a question.
    #[must_use]
    pub fn intent(&self) -> (String, &'static str) {
        let cards = self.physical + self.r#virtual;
        let first = match self.cardholders {
            0 => String::new(),
            count => format!(" and {count} new cardholders"),
        };
        match self {
            Self { changes: 1.., .. } => {
                (format!("{} LIVE cards are about to be changed", self.changes), "Change them?")
            }
            Self { cardholders: 1.., .. } if cards == 0 => {
                (format!("{} LIVE cardholders are about to be created", self.cardholders), "Create them?")
            }
            _ => (format!("{cards} LIVE cards{first} are about to be issued"), "Issue them?"),
        }
    }
}

/// So many rows wait.
#[must_use]
pub fn waits(rows: u64) -> String {
    if rows == 1 { "1 row waits".to_owned() } else { format!("{rows} rows wait") }
}

/// So many of a thing.
#[must_use]
pub fn counted(count: u64, thing: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {thing}{plural}")
}
