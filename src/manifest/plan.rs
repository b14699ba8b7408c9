//! A header as a plan: whether a row's cells are a request, told without building one.
//!
//! [`Plan::judge`] says yes or nothing. A row it says nothing of goes by the rules of requests (`Manifest::row`), which
//! alone decide what is wrong, so the two can disagree only about a row that is right; a property test holds them
//! together. Judging never allocates. Without it the check of a file would take about three times as long.

use crate::operation::kind::Kind;
use crate::operation::params::metadata_key;
use crate::operation::{Operation, Request, may_leave_gaps};

use super::header::{Column, Holds};
use super::rows::row_id_is_good;
use super::{CELL_BYTES_MAX, ROW_ID, Row};

/// Columns as bits.
type Columns = u128;

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
    /// What each column holds, and its bit.
    columns: Vec<(Holds, Columns)>,
    demands: Vec<Demand>,
    exclusive: Vec<(Columns, Columns)>,
    metadata: Columns,
    pin: Columns,
    kind_column: Option<usize>,
    row_id_column: Option<usize>,
    /// The parameters' columns in the order of their paths, as a request has them.
    ordered: Vec<(usize, String, Kind)>,
    /// Columns that may leave a gap in a list if they are empty.
    gaps: Columns,
}

/// A row that is right, as far as it can be told from the row alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Good {
    pub(super) physical: bool,
    pub(super) pin: bool,
}

impl Good {
    /// What a row counts as.
    pub(super) fn of(row: &Row) -> Self {
        Self { physical: row.card.kind() == "physical", pin: row.pin.is_some() }
    }
}

impl Plan {
    /// The plan for these columns; none if there are more than it has bits for.
    pub(super) fn of(columns: &[Column]) -> Option<Self> {
        if columns.len() > Columns::BITS as usize {
            return None;
        }
        let bits = |wanted: &dyn Fn(&str) -> bool| -> Columns {
            columns.iter().enumerate().filter(|(_, column)| wanted(&column.name)).map(|(at, _)| 1 << at).sum()
        };
        let below = |parent: &str| {
            bits(&|name| {
                name != ROW_ID
                    && (parent.is_empty()
                        || name.strip_prefix(parent).is_some_and(|rest| rest.starts_with('[')))
            })
        };
        let one = |path: String| Some(bits(&|name| name == path)).filter(|bits| *bits != 0);
        let all = |parent: &str, parts: &[&str]| {
            parts.iter().try_fold(0, |all, part| Some(all | one(format!("{parent}{part}"))?))
        };
        let mut demands = Vec::new();
        for (parent, parts) in Operation::CreateCard.declaration().required {
            match parent.strip_suffix("[0]") {
                // What every row must have is demanded of an empty one, too.
                None if parent.is_empty() => {
                    demands.push(Demand { any: Columns::MAX, all: all(parent, parts) })
                }
                None => demands.push(Demand { any: below(parent), all: all(parent, parts) }),
                Some(list) => demands.extend(indices(columns, list).into_iter().map(|index| {
                    let parent = format!("{list}[{index}]");
                    Demand { any: below(&parent), all: all(&parent, parts) }
                })),
            }
        }
        demands.retain(|demand| demand.any != 0);
        let mut exclusive: Vec<_> = Operation::CreateCard
            .declaration()
            .exclusive
            .iter()
            .map(|(one, other)| (below(one), below(other)))
            .collect();
        exclusive.retain(|(one, other)| *one != 0 && *other != 0);
        let mut ordered: Vec<_> = columns
            .iter()
            .enumerate()
            .filter_map(|(at, column)| match column.holds {
                Holds::Parameter(kind) => Some((at, column.name.clone(), kind)),
                Holds::RowId | Holds::Nothing => None,
            })
            .collect();
        ordered.sort_unstable_by(|(_, one, _), (_, other, _)| one.cmp(other));
        let gaps = may_leave_gaps(ordered.iter().map(|(_, name, _)| name.as_str()))
            .zip(&ordered)
            .filter(|(gap, _)| *gap)
            .map(|(_, (at, ..))| 1 << at)
            .sum();
        Some(Self {
            columns: columns.iter().enumerate().map(|(at, column)| (column.holds, 1 << at)).collect(),
            demands,
            exclusive,
            metadata: bits(&|name| metadata_key(name).is_some()),
            pin: bits(&|name| name == crate::operation::PIN),
            kind_column: columns.iter().position(|column| column.name == "type"),
            row_id_column: columns.iter().position(|column| column.holds == Holds::RowId),
            ordered,
            gaps,
        })
    }

    /// Where the rows' names stand.
    pub(super) fn row_id_column(&self) -> Option<usize> {
        self.row_id_column
    }

    /// Whether the row is right. `cell` gives the n-th cell; there are as many as columns.
    pub(super) fn judge<'c>(&self, cell: impl Fn(usize) -> &'c str) -> Option<Good> {
        let given = self.given(&cell)?;
        Some(Good {
            physical: self.kind_column.is_some_and(|at| cell(at) == "physical"),
            pin: given & self.pin != 0,
        })
    }

    /// The request of a row that is right; nothing if it is not, or has a gap in a list.
    pub(super) fn request<'c>(&self, cell: impl Fn(usize) -> &'c str) -> Option<Request> {
        let given = self.given(&cell)?;
        if !given & self.gaps != 0 {
            return None;
        }
        let pairs = self.ordered.iter().map(|(at, path, kind)| (path.as_str(), *kind, cell(*at)));
        Some(Request::of_right_pairs(Operation::CreateCard, pairs.filter(|(.., value)| !value.is_empty())))
    }

    /// The columns that are given in a row that is right.
    fn given<'c>(&self, cell: &impl Fn(usize) -> &'c str) -> Option<Columns> {
        let mut empty: Columns = 0;
        for (at, (holds, bit)) in self.columns.iter().enumerate() {
            let text = cell(at);
            let right = match holds {
                Holds::Parameter(_) | Holds::Nothing if text.is_empty() => {
                    empty |= bit;
                    continue;
                }
                Holds::Parameter(kind) => text.len() <= CELL_BYTES_MAX && kind.accepts(text),
                Holds::RowId => row_id_is_good(text),
                Holds::Nothing => false,
            };
            if !right {
                return None;
            }
        }
        // Bits beyond the last column are in no demand.
        let given = !empty;
        let met = |demand: &Demand| {
            (demand.any != Columns::MAX && given & demand.any == 0)
                || demand.all.is_some_and(|all| given & all == all)
        };
        let whole = self.demands.iter().all(met)
            && self.exclusive.iter().all(|(one, other)| given & one == 0 || given & other == 0)
            && (given & self.metadata).count_ones() as usize
                <= Operation::CreateCard.declaration().metadata_entries_max();
        whole.then_some(given)
    }
}

/// The indices that a list has columns for, as they are written.
fn indices<'c>(columns: &'c [Column], list: &str) -> Vec<&'c str> {
    let mut indices: Vec<&str> = columns
        .iter()
        .filter_map(|column| column.name.strip_prefix(list)?.strip_prefix('[')?.split(']').next())
        .collect();
    indices.sort_unstable();
    indices.dedup();
    indices
}
