//! What tells rows that ask for the same, and cards that share a box: hashes of some of their cells.
//!
//! Two rows are alike if they ask the same for the same person, whatever their names and PINs are. Hashes are keyed anew for each
//! manifest.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, Hasher as _};

use super::header::{Column, Holds};
use super::names::{FastState, Positions, Repeat, Short, expected, fast_state, index, pairs, short};
use super::nobody::{Names, Nobody, OfNobody};
use super::people::{OfPeople, People, Somebody, WrongBeside};
use super::plan::Good;
use super::{Problem, ROW_ID, Severity, counted};
use crate::operation::kind::Kind;
use crate::operation::{ADDRESS, Details, PIN, Person, plain};

/// Cards that Stripe puts into one box at most.
const BOX_CARDS_MAX: u64 = 2000;
/// What Stripe takes for a box, about: United States dollars.
const BOX_DOLLARS: (u64, u64) = (27, 60);
/// Most pairs of rows that are told; others are counted.
const TOLD_MAX: usize = 1000;

/// What a row is like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Likeness {
    /// What it asks for, if that is for somebody.
    content: Option<u64>,
    /// Who is created for it, if somebody is.
    person: Option<Somebody>,
    /// The box that its card is sent in, and the address of that, if it is sent with others.
    in_box: Option<(u64, u64)>,
    /// Whether it names a cardholder, where the file has a column for that.
    names: Names,
}

impl Likeness {
    /// What tells the person who is created for it from others, if there is one who may have been created before.
    pub(super) fn person(&self) -> Option<u64> {
        self.person.as_ref().and_then(Somebody::sign)
    }
}

/// Which columns tell it.
#[derive(Debug)]
pub(super) struct Likes {
    hasher: FastState,
    /// What each column holds, where that may be spelt in several ways: `EUR` is `eur`.
    kinds: Vec<Option<Kind>>,
    /// All but rows' names and PINs.
    content: Vec<usize>,
    /// Who gets the card, or which card it is.
    somebody: Vec<usize>,
    /// The column of a cardholder who exists.
    cardholder: Option<usize>,
    /// Columns of words: what stands there is a row's own.
    telling: Vec<usize>,
    person: Vec<usize>,
    email: Option<usize>,
    phone: Option<usize>,
    name: Option<usize>,
    /// Where a person lives, in the order of [`ADDRESS`].
    home: [Option<usize>; ADDRESS.len()],
    /// Whether a person who has a cardholder keeps it.
    reuse: Option<usize>,
    shipping_type: Option<usize>,
    address: Vec<usize>,
    recipient: Option<usize>,
}

impl Likes {
    pub(super) fn of(columns: &[Column]) -> Self {
        let wanted = |wanted: &dyn Fn(&Column) -> bool| {
            (0..columns.len()).filter(|at| wanted(&columns[*at])).collect::<Vec<_>>()
        };
        let place = |name: &str| columns.iter().position(|column| column.name == name);
        let holds_something = |column: &Column| matches!(column.holds, Holds::Parameter(..) | Holds::Card);
        Self {
            hasher: fast_state(),
            kinds: columns
                .iter()
                .map(|column| match column.holds {
                    Holds::Parameter(_, kind) if column.path != PIN => Some(kind),
                    _ => None,
                })
                .collect(),
            content: wanted(&|column| holds_something(column) && column.path != PIN),
            somebody: wanted(&|column| {
                holds_something(column)
                    && (column.name.starts_with("cardholder") || column.holds == Holds::Card)
            }),
            cardholder: place("cardholder"),
            telling: wanted(&|column| {
                matches!(column.holds, Holds::Parameter(_, Kind::Text(_) | Kind::Metadata { .. } | Kind::Pin))
            }),
            person: wanted(&|column| column.name.starts_with("cardholder[")),
            email: place("cardholder[email]"),
            phone: place("cardholder[phone_number]"),
            name: place("cardholder[name]"),
            home: ADDRESS.map(|part| place(&part.replacen("billing", "cardholder[billing]", 1))),
            reuse: place("cardholder[reuse]"),
            shipping_type: place("shipping[type]"),
            address: wanted(&|column| {
                column.name.starts_with("shipping[address][") || column.name == "shipping[business_name]"
            }),
            recipient: place("shipping[name]"),
        }
    }

    /// Whether rows are told from each other by this column.
    pub(super) fn hashes(&self, at: usize) -> bool {
        self.content.contains(&at) || self.address.contains(&at)
    }

    /// What tells a cell from others in its column.
    pub(super) fn of_cell(&self, at: usize, text: &str) -> u64 {
        let mut hasher = self.hasher.build_hasher();
        match self.kinds[at] {
            Some(Kind::Currency | Kind::Country) => {
                text.bytes().for_each(|letter| hasher.write_u8(letter.to_ascii_lowercase()));
            }
            // "ANN ZEH" is Ann Zeh.
            Some(Kind::Text(_)) => in_small_letters(text, |text| hasher.write(text)),
            Some(kind) => hasher.write(kind.canonical(text).as_bytes()),
            None => hasher.write(text.as_bytes()),
        }
        hasher.finish()
    }

    /// What a row is like. `cell` gives the n-th cell, `of_cell` what [`Self::of_cell`] makes of it; there are as many as columns.
    pub(super) fn of_row<'c>(
        &self,
        cell: impl Fn(usize) -> &'c str + Copy,
        of_cell: impl Fn(usize) -> u64,
    ) -> Likeness {
        let hash = |columns: &[usize]| {
            let mut hasher = self.hasher.build_hasher();
            columns.iter().for_each(|at| hasher.write_u64(of_cell(*at)));
            hasher.finish()
        };
        let has_some = |columns: &[usize]| columns.iter().any(|at| !cell(*at).is_empty());
        let is_person = has_some(&self.person)
            && !self.reuse.is_some_and(|at| Kind::Boolean.canonical(cell(at)).eq_ignore_ascii_case("false"));
        let person = is_person.then(|| {
            let given = |at: Option<usize>| at.map(cell);
            let person = Person::of(&Details {
                name: given(self.name),
                email: given(self.email),
                phone: given(self.phone),
                address: self.home.map(given),
            });
            let details = self.person.iter().map(|at| plain(cell(*at))).collect::<Vec<_>>();
            Somebody::of(&person, self.hasher.hash_one(details))
        });
        let is_for_somebody = has_some(&self.somebody);
        let in_box = self.shipping_type.filter(|at| cell(*at) == "bulk").map(|_| {
            let address = hash(&self.address);
            let mut hasher = self.hasher.build_hasher();
            hasher.write_u64(address);
            hasher.write(self.recipient.map(cell).unwrap_or_default().as_bytes());
            (hasher.finish(), address)
        });
        let names = match self.cardholder {
            Some(_) if is_for_somebody => Names::Somebody,
            None => Names::Somebody,
            Some(_) if has_some(&self.telling) => Names::Nobody,
            Some(_) => Names::Nothing,
        };
        Likeness { content: is_for_somebody.then(|| hash(&self.content)), person, in_box, names }
    }
}

/// Most texts are short and of ASCII, for which no memory is taken.
fn in_small_letters(text: &str, with: impl FnOnce(&[u8])) {
    const SHORT: usize = 64;
    let mut short = [0; SHORT];
    match short.get_mut(..text.len()).filter(|_| text.is_ascii()) {
        Some(short) => {
            short.copy_from_slice(text.as_bytes());
            short.make_ascii_lowercase();
            with(short);
        }
        None => with(text.to_lowercase().as_bytes()),
    }
}

/// Something that rows have in common, by their hashes, and where they stand.
#[derive(Debug, Default)]
struct Seen {
    hashes: Vec<Short>,
    positions: Positions,
}

impl Seen {
    fn add(&mut self, hash: u64, position: (u64, u64)) {
        self.positions.add(index(self.hashes.len()), position);
        self.hashes.push(short(hash));
    }

    /// Those that are like one before them, in their order.
    fn repeats(self) -> Vec<Repeat> {
        let Self { hashes, positions } = self;
        pairs(&hashes).into_iter().map(|(place, first)| positions.repeat(place, first)).collect()
    }
}

/// What the rows so far are like.
#[derive(Debug, Default)]
pub(super) struct Alike {
    /// What each asks for.
    contents: Seen,
    people: People,
    boxes: HashMap<u64, u64>,
    addresses: HashMap<u64, u64>,
    /// Line and number of the first row whose card is sent with others.
    first_in_box: Option<(u64, u64)>,
    nobody: Nobody,
}

impl Alike {
    /// Makes room for about so many rows.
    pub(super) fn expect(&mut self, rows: u64) {
        self.contents.hashes.reserve(expected(rows));
    }

    pub(super) fn add(&mut self, likeness: Likeness, good: Good, (line, number): (u64, u64)) {
        let Likeness { content, person, in_box, names } = likeness;
        self.nobody.add(names, good, (line, number));
        if let Some(content) = content {
            self.contents.add(content, (line, number));
        }
        if let Some(person) = person {
            self.people.add(person, good, (line, number));
        }
        if let Some((in_box, address)) = in_box {
            *self.boxes.entry(in_box).or_default() += 1;
            *self.addresses.entry(address).or_default() += 1;
            self.first_in_box.get_or_insert((line, number));
        }
    }

    /// What is found once all were added. `near` are rows whose names are near, and `duplicates` the lines of those whose names
    /// stand twice: of them nothing more is said.
    pub(super) fn findings(&mut self, near: &[Repeat], duplicates: &[u64]) -> Findings {
        let mut contents = std::mem::take(&mut self.contents).repeats();
        contents.retain(|row| duplicates.binary_search(&row.line).is_err());
        let is_told = |row: &Repeat| contents.binary_search_by_key(&row.line, |content| content.line).is_ok();
        let OfPeople { mut problems, twice, differing, shared } =
            std::mem::take(&mut self.people).findings(duplicates, is_told);
        let OfNobody { wrong, odd } = std::mem::take(&mut self.nobody).findings(duplicates);
        if !wrong.is_empty() {
            problems.extend(wrong);
            problems.sort_by_key(|wrong| wrong.problem.line);
        }
        let mut count = (near.len() + contents.len() + twice.len() + differing.len() + odd.len()) as u64;
        let near = near.iter().take(TOLD_MAX).map(|Repeat { line, number, first }| {
            let reason =
                format!("differs from the row_id on line {first} in blanks, capitals or zeros alone; are they two rows?");
            warning((*line, *number), ROW_ID, "near_row_id", reason)
        });
        let contents = contents.into_iter().take(TOLD_MAX).map(|Repeat { line, number, first }| {
            let reason =
                format!("asks for the same as line {first}, for the same person; is one of them too many?");
            warning((line, number), "", "same_as_another", reason)
        });
        let twice = twice.into_iter().take(TOLD_MAX).map(|Repeat { line, number, first }| {
            let reason = format!(
                "is the person of line {first}, and each of these rows creates a cardholder; is one of them too many?"
            );
            warning((line, number), "", "same_person", reason)
        });
        let differing = differing.into_iter().take(TOLD_MAX).map(|Repeat { line, number, first }| {
            let reason = format!(
                "is the person of line {first}, of whom other details stand here; the person gets one cardholder, with the \
                 details of whichever row comes first"
            );
            warning((line, number), "", "person_differs", reason)
        });
        let mut warnings: Vec<Problem> = near
            .chain(contents)
            .chain(twice)
            .chain(differing)
            .chain(odd.into_iter().take(TOLD_MAX))
            .collect();
        let in_boxes = |counts: &HashMap<u64, u64>| -> u64 {
            counts.values().map(|cards| cards.div_ceil(BOX_CARDS_MAX)).sum()
        };
        let (boxes, at_least) = (in_boxes(&self.boxes), in_boxes(&self.addresses));
        let cards: u64 = self.boxes.values().sum();
        let note = (boxes > 0).then(|| {
            let (least, most) = (boxes * BOX_DOLLARS.0, boxes * BOX_DOLLARS.1);
            let are = if cards == 1 { "is" } else { "are" };
            let in_boxes = if boxes == 1 { "1 box".to_owned() } else { format!("{boxes} boxes") };
            format!(
                "{} {are} sent in {in_boxes} (one for each address and recipient's name, {BOX_CARDS_MAX} cards at most), for about \
                 {least} to {most} USD.",
                counted(cards, "card")
            )
        });
        if let Some(row) = self.first_in_box.filter(|_| boxes > at_least) {
            count += 1;
            let saved = boxes - at_least;
            let (least, most) = (saved * BOX_DOLLARS.0, saved * BOX_DOLLARS.1);
            let reason = format!(
                "differs from card to card, and so {boxes} boxes are sent where {at_least} would do, for about {least} to {most} USD \
                 less: give the cards of one address the same recipient"
            );
            warnings.push(warning(row, "shipping[name]", "box_for_each", reason));
        }
        (self.boxes, self.addresses, self.first_in_box) = Default::default();
        warnings.sort_by_key(|warning| warning.line);
        let people = (shared > 0).then(|| {
            let rows = counted(shared, "row");
            let verb = if shared == 1 { "is" } else { "are" };
            format!("{rows} {verb} for people of rows before them: each person gets one cardholder.")
        });
        Findings { problems, warnings, warning_count: count, boxes: note, people, shared }
    }
}

/// What is found of rows beside each other.
pub(super) struct Findings {
    pub(super) problems: Vec<WrongBeside>,
    /// Those that are told.
    pub(super) warnings: Vec<Problem>,
    pub(super) warning_count: u64,
    pub(super) boxes: Option<String>,
    pub(super) people: Option<String>,
    /// Rows for which no cardholder is created, as one is for a row before them.
    pub(super) shared: u64,
}

fn warning((line, number): (u64, u64), column: &str, code: &'static str, reason: String) -> Problem {
    Problem { severity: Severity::Warning, ..Problem::new(line, number, column, code, reason) }
}
