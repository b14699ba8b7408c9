//! A header as a plan: whether a row's cells are a request, told without building one.
//!
//! [`Plan::judge`] says yes or nothing. A row it says nothing of goes by the rules of requests (`Manifest::row`), which
//! alone decide what is wrong, so the two can disagree only about a row that is right; a property test holds them
//! together. Judging never allocates. Without it the check of a file would take about three times as long.

use crate::operation::kind::Kind;
use crate::operation::params::metadata_key;
use crate::operation::{CANCEL_REPLACED, Operation, PIN, PIN_CHOICE, Request, is_card_id, may_leave_gaps};

use super::contents::Contents;
use super::dates::{DATE_OF_BIRTH, PARTS};
use super::header::{Column, Holds, Part};
use super::rows::row_id_is_good;
use super::{CELL_BYTES_MAX, Row};

/// The status of a card that is cancelled, for ever.
const CANCELED: &str = "canceled";

/// Columns as bits.
pub(super) type Columns = u128;

/// The places of these columns, in order.
pub(super) fn places(mut columns: Columns) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let at = (columns != 0).then(|| columns.trailing_zeros() as usize)?;
        columns &= columns - 1;
        Some(at)
    })
}

/// Most columns that there is a plan for.
pub(super) const COLUMNS_MAX: usize = Columns::BITS as usize;

/// If any of these is given, all of those must be.
#[derive(Debug)]
struct Demand {
    any: Columns,
    /// None if the header has no column for one of them.
    all: Option<Columns>,
}

/// What makes a row right under one header.
#[derive(Debug)]
pub(super) struct Plan {
    contents: Contents,
    /// What each column holds, and its bit.
    columns: Vec<(Holds, Columns)>,
    last: Requested,
    /// The person who is created first, where there may be one.
    first: Option<Requested>,
    pin: Columns,
    /// The column that says that a PIN is to be chosen.
    choice: Columns,
    /// The column of a cardholder who exists.
    cardholder: Columns,
    /// Columns of cards that replace others: what they need as a whole is told by their values.
    replacement: Columns,
    kind_column: Option<usize>,
    status_column: Option<usize>,
    choice_column: Option<usize>,
    row_id_column: Option<usize>,
    card_column: Option<usize>,
    /// The column of dates of birth, and that of their days, which is empty where the date cannot be read.
    date_columns: Option<(usize, usize)>,
}

/// What makes one of a row's requests right.
#[derive(Debug)]
struct Requested {
    operation: Operation,
    /// Its parameters' columns.
    own: Columns,
    demands: Vec<Demand>,
    exclusive: Vec<(Columns, Columns)>,
    metadata: Columns,
    /// Its columns in the order of their paths, as a request has them.
    ordered: Vec<(usize, String, Kind)>,
    /// Columns that may leave a gap in a list if they are empty.
    gaps: Columns,
}

/// What a row counts as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Subject {
    Physical,
    Virtual,
    Change,
    Cardholder,
}

/// A row that is right, as far as it can be told from the row alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Good {
    pub(super) subject: Subject,
    /// Whether its cardholder is created first.
    pub(super) person: bool,
    pub(super) pin: bool,
    /// Whether it cancels its card, or the one that it replaces.
    pub(super) cancels: bool,
    /// Whether its card replaces another.
    pub(super) replaces: bool,
    /// Whether its cardholder is to choose the PIN.
    pub(super) chooses: bool,
    /// Whether its card is sent to its person's own address because the columns file says so.
    pub(super) to_own_address: bool,
}

impl Subject {
    fn of(operation: Operation, is_physical: bool) -> Self {
        match operation {
            Operation::CreateCard if is_physical => Self::Physical,
            Operation::CreateCard => Self::Virtual,
            Operation::UpdateCard => Self::Change,
            Operation::CreateCardholder => Self::Cardholder,
        }
    }
}

impl Good {
    /// What a row counts as.
    pub(super) fn of(row: &Row) -> Self {
        let subject = Subject::of(row.request.operation(), row.request.kind() == "physical");
        let cancels = subject == Subject::Change && row.request.value("status") == Some(CANCELED);
        Self {
            subject,
            person: row.first.is_some(),
            pin: row.pin.is_some(),
            cancels: cancels || row.request.cancels_replaced(),
            replaces: row.request.is_replacement(),
            chooses: row.request.chooses_pin(),
            to_own_address: row.to_own_address,
        }
    }
}

impl Plan {
    /// The plan for these columns; none if there are more than it has bits for.
    pub(super) fn of(contents: Contents, columns: &[Column]) -> Option<Self> {
        if columns.len() > COLUMNS_MAX {
            return None;
        }
        let of_last = |path: &str| {
            let is = |column: &&Column| {
                column.path == path && matches!(column.holds, Holds::Parameter(Part::Last, _))
            };
            columns.iter().position(|column| is(&column))
        };
        let bit = |at: Option<usize>| at.map_or(0, |at| 1 << at);
        let place_of = |holds| columns.iter().position(|column| column.holds == holds);
        Some(Self {
            contents,
            columns: columns.iter().enumerate().map(|(at, column)| (column.holds, 1 << at)).collect(),
            last: Requested::of(contents, Part::Last, columns),
            first: contents.with_people.then(|| Requested::of(contents, Part::First, columns)),
            pin: bit(of_last(PIN)),
            choice: bit(of_last(PIN_CHOICE)),
            cardholder: bit(of_last("cardholder")),
            replacement: ["replacement_for", "replacement_reason", CANCEL_REPLACED]
                .into_iter()
                .map(|path| bit(of_last(path)))
                .sum(),
            kind_column: of_last("type"),
            status_column: of_last("status"),
            choice_column: of_last(PIN_CHOICE),
            row_id_column: place_of(Holds::RowId),
            card_column: place_of(Holds::Card),
            date_columns: place_of(Holds::Date)
                .zip(columns.iter().position(|column| column.name == format!("{DATE_OF_BIRTH}{}", PARTS[0]))),
        })
    }

    /// Where the rows' names stand.
    pub(super) fn row_id_column(&self) -> Option<usize> {
        self.row_id_column
    }

    /// Whether the row is right. `cell` gives the n-th cell; there are as many as columns. Of those in `known` is known that each is
    /// right by itself. `to_own_address`: what the columns file made of where its card is sent.
    pub(super) fn judge<'c>(
        &self,
        cell: impl Fn(usize) -> &'c str,
        known: Columns,
        to_own_address: bool,
    ) -> Option<Good> {
        let given = self.given(&cell, known)?;
        let is = |at: Option<usize>, word: &str| at.is_some_and(|at| cell(at) == word);
        let subject = Subject::of(self.contents.operation, is(self.kind_column, "physical"));
        Some(Good {
            subject,
            cancels: subject == Subject::Change && is(self.status_column, CANCELED),
            person: self.first.as_ref().is_some_and(|first| given & first.own != 0),
            pin: given & self.pin != 0,
            replaces: false,
            chooses: self.choice_column.is_some_and(|at| cell(at).eq_ignore_ascii_case("true")),
            to_own_address,
        })
    }

    /// The requests of a row that is right, the first and the last; nothing if it is not, or has a gap in a list.
    pub(super) fn requests<'c>(
        &self,
        cell: impl Fn(usize) -> &'c str + Copy,
    ) -> Option<(Option<Request>, Request)> {
        let given = self.given(&cell, 0)?;
        let mut last = self.last.request(given, cell)?;
        if let Some(at) = self.card_column {
            last = last.with_target(cell(at).to_owned());
        }
        match self.first.as_ref().filter(|first| given & first.own != 0) {
            Some(first) => Some((Some(first.request(given, cell)?), last)),
            None => Some((None, last)),
        }
    }

    /// The columns that are given in a row that is right.
    fn given<'c>(&self, cell: &impl Fn(usize) -> &'c str, known: Columns) -> Option<Columns> {
        let mut empty: Columns = 0;
        for (at, (holds, bit)) in self.columns.iter().enumerate() {
            let text = cell(at);
            if known & bit != 0 {
                empty |= if text.is_empty() { *bit } else { 0 };
                continue;
            }
            let right = match holds {
                Holds::Parameter(..) | Holds::Nothing if text.is_empty() => {
                    empty |= bit;
                    continue;
                }
                Holds::Parameter(_, kind) => text.len() <= CELL_BYTES_MAX && kind.accepts(text),
                Holds::RowId => row_id_is_good(text),
                Holds::Card => is_card_id(text),
                Holds::Blank if text.is_empty() => true,
                Holds::LeftOut | Holds::Date => true,
                Holds::Nothing | Holds::Blank => false,
            };
            if !right {
                return None;
            }
        }
        if self.date_columns.is_some_and(|(date, day)| !cell(date).is_empty() && cell(day).is_empty()) {
            return None;
        }
        // Bits beyond the last column are in no demand.
        let given = !empty;
        if given & self.replacement != 0 || (given & self.pin != 0 && given & self.choice != 0) {
            return None;
        }
        let is_right = self.last.is_right(given)
            && self.first.as_ref().is_none_or(|first| {
                // Somebody, and not two.
                (given & first.own != 0) != (given & self.cardholder != 0)
                    && (given & first.own == 0 || first.is_right(given))
            })
            && (self.contents.operation != Operation::UpdateCard || given & self.last.own != 0);
        is_right.then_some(given)
    }
}

impl Requested {
    fn of(contents: Contents, part: Part, columns: &[Column]) -> Self {
        let is_own = |column: &Column| matches!(column.holds, Holds::Parameter(of, _) if of == part);
        let bits = |wanted: &dyn Fn(&str) -> bool| -> Columns {
            let wanted =
                columns.iter().enumerate().filter(|(_, column)| is_own(column) && wanted(&column.path));
            wanted.map(|(at, _)| 1 << at).sum()
        };
        let below = |parent: &str| {
            bits(&|path| {
                parent.is_empty() || path.strip_prefix(parent).is_some_and(|rest| rest.starts_with('['))
            })
        };
        let one = |path: String| Some(bits(&|other| other == path)).filter(|bits| *bits != 0);
        let all = |parent: &str, parts: &[&str]| {
            parts.iter().try_fold(0, |all, part| Some(all | one(format!("{parent}{part}"))?))
        };
        let operation = contents.operation_of(part);
        let mut demands = Vec::new();
        for (parent, parts) in operation.declaration().required {
            match parent.strip_suffix("[0]") {
                // What every row must have is demanded of an empty one, too.
                None if parent.is_empty() => {
                    demands.push(Demand { any: Columns::MAX, all: all(parent, parts) })
                }
                None => demands.push(Demand { any: below(parent), all: all(parent, parts) }),
                Some(list) => demands.extend(
                    indices(columns.iter().filter(|column| is_own(column)), list).into_iter().map(|index| {
                        let parent = format!("{list}[{index}]");
                        Demand { any: below(&parent), all: all(&parent, parts) }
                    }),
                ),
            }
        }
        demands.retain(|demand| demand.any != 0);
        let exclusive = operation.declaration().exclusive.iter();
        let mut exclusive: Vec<_> = exclusive.map(|(one, other)| (below(one), below(other))).collect();
        exclusive.retain(|(one, other)| *one != 0 && *other != 0);
        let mut ordered: Vec<_> = columns
            .iter()
            .enumerate()
            .filter_map(|(at, column)| match column.holds {
                Holds::Parameter(of, kind) if of == part => Some((at, column.path.clone(), kind)),
                _ => None,
            })
            .collect();
        ordered.sort_unstable_by(|(_, one, _), (_, other, _)| one.cmp(other));
        let gaps = may_leave_gaps(ordered.iter().map(|(_, path, _)| path.as_str()))
            .zip(&ordered)
            .filter(|(gap, _)| *gap)
            .map(|(_, (at, ..))| 1 << at)
            .sum();
        let metadata = bits(&|path| metadata_key(path).is_some());
        Self { operation, own: below(""), demands, exclusive, metadata, ordered, gaps }
    }

    /// Whether a row that gives these columns gives enough, and not too much.
    fn is_right(&self, given: Columns) -> bool {
        let met = |demand: &Demand| {
            (demand.any != Columns::MAX && given & demand.any == 0)
                || demand.all.is_some_and(|all| given & all == all)
        };
        self.demands.iter().all(met)
            && self.exclusive.iter().all(|(one, other)| given & one == 0 || given & other == 0)
            && (given & self.metadata).count_ones() as usize
                <= self.operation.declaration().metadata_entries_max()
    }

    /// The request of a row that is right; nothing if there is a gap in a list.
    fn request<'c>(&self, given: Columns, cell: impl Fn(usize) -> &'c str + Copy) -> Option<Request> {
        if !given & self.gaps != 0 {
            return None;
        }
        let pairs = self.ordered.iter().map(|(at, path, kind)| (path.as_str(), *kind, cell(*at)));
        Some(Request::of_right_pairs(self.operation, pairs.filter(|(.., value)| !value.is_empty())))
    }
}

/// The indices that a list has columns for, as they are written.
fn indices<'c>(columns: impl Iterator<Item = &'c Column>, list: &str) -> Vec<&'c str> {
    let mut indices: Vec<&str> = columns
        .filter_map(|column| column.path.strip_prefix(list)?.strip_prefix('[')?.split(']').next())
        .collect();
    indices.sort_unstable();
    indices.dedup();
    indices
}
