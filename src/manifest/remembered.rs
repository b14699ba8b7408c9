//! What was found of the cells before, column by column: in most columns of most files the same few texts stand again and again.
//!
//! Guarantees: what is remembered of a cell is a function of its column and its text alone, so that nothing depends on the order in
//! which rows are judged. Never remembered: a cell of a column that may hold a PIN. What is held is wiped on drop.

use zeroize::Zeroizing;

use super::header::{Column, Holds};
use super::likeness::Likes;
use super::plan::{Columns, places};

/// Longest text that is remembered, in bytes: longer ones are mostly a row's own.
const REMEMBERED_MAX: usize = 32;
/// No text's length.
const UNKNOWN: usize = usize::MAX;

/// What is remembered of the rows that one thread has judged.
pub(super) struct Remembered(Vec<Cell>);

/// A column's last cell.
struct Cell {
    /// Whether it may be remembered.
    may_be: bool,
    /// Whether rows are told from each other by it.
    is_hashed: bool,
    /// Its length; [`UNKNOWN`]: it is not remembered.
    length: usize,
    text: Zeroizing<[u8; REMEMBERED_MAX]>,
    hash: u64,
}

impl Remembered {
    /// Of these columns; nothing yet.
    pub(super) fn of(columns: &[Column], likes: &Likes) -> Self {
        let may_be = |column: &Column| match column.holds {
            Holds::Parameter(_, kind) => kind.may_be_shown(),
            // Each row has another.
            Holds::RowId | Holds::Card | Holds::Date => false,
            Holds::Nothing | Holds::Blank | Holds::LeftOut => false,
        };
        let cell = |(at, column)| Cell {
            may_be: may_be(column),
            is_hashed: likes.hashes(at),
            length: UNKNOWN,
            text: Zeroizing::new([0; REMEMBERED_MAX]),
            hash: 0,
        };
        Self(columns.iter().enumerate().map(cell).collect())
    }

    /// The columns in which a row has what is remembered. `cell` gives the n-th cell; there are as many as columns.
    pub(super) fn known<'c>(&self, cell: impl Fn(usize) -> &'c str) -> Columns {
        let (mut known, mut bit) = (0, 1);
        for (at, last) in self.0.iter().enumerate() {
            let text = cell(at).as_bytes();
            if last.length == text.len() && *text == last.text[..text.len()] {
                known |= bit;
            }
            bit <<= 1;
        }
        known
    }

    /// Remembers a row that is right and has nothing odd, but for what is known of it.
    pub(super) fn learn<'c>(&mut self, known: Columns, cell: impl Fn(usize) -> &'c str, likes: &Likes) {
        let count = self.0.len();
        for at in places(!known).take_while(|at| *at < count) {
            let (column, text) = (&mut self.0[at], cell(at));
            if column.is_hashed {
                column.hash = likes.of_cell(at, text);
            }
            column.length = UNKNOWN;
            if column.may_be && text.len() <= REMEMBERED_MAX {
                column.text[..text.len()].copy_from_slice(text.as_bytes());
                column.length = text.len();
            }
        }
    }

    /// The hash of the n-th cell of the row that was learnt last.
    pub(super) fn hash(&self, at: usize) -> u64 {
        self.0[at].hash
    }
}
