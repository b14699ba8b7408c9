//! What rows of a manifest would do, counted: of all that are right, and of those of which nothing is left to do.

use serde::Serialize;

use super::plan::{Good, Subject};
use super::{CheckReport, Row};

/// What rows would do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct Work {
    /// Rows.
    pub rows: u64,
    /// Those with a PIN.
    pub pins: u64,
    /// Physical cards.
    pub physical: u64,
    /// Virtual cards.
    pub r#virtual: u64,
    /// Changes of cards.
    pub changes: u64,
    /// Cards that are cancelled: by those changes, or before they are replaced.
    pub cancels: u64,
    /// Cardholders that are created, alone or before their cards.
    pub cardholders: u64,
}

impl Work {
    /// That of all rows that are right.
    #[must_use]
    pub fn of(report: &CheckReport) -> Self {
        Self {
            rows: report.rows.saturating_sub(report.invalid_rows),
            pins: report.pins,
            physical: report.physical,
            r#virtual: report.r#virtual,
            changes: report.changes,
            cancels: report.cancels,
            cardholders: report.cardholders,
        }
    }

    /// What is left of it without that.
    #[must_use]
    pub fn without(self, other: Self) -> Self {
        Self {
            rows: self.rows.saturating_sub(other.rows),
            pins: self.pins.saturating_sub(other.pins),
            physical: self.physical.saturating_sub(other.physical),
            r#virtual: self.r#virtual.saturating_sub(other.r#virtual),
            changes: self.changes.saturating_sub(other.changes),
            cancels: self.cancels.saturating_sub(other.cancels),
            cardholders: self.cardholders.saturating_sub(other.cardholders),
        }
    }

    fn add(&mut self, good: Good) {
        self.rows += 1;
        self.pins += u64::from(good.pin);
        self.cancels += u64::from(good.cancels);
        *match good.subject {
            Subject::Physical => &mut self.physical,
            Subject::Virtual => &mut self.r#virtual,
            Subject::Change => &mut self.changes,
            Subject::Cardholder => &mut self.cardholders,
        } += 1;
    }
}

/// What one row would do, and for whom.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asks {
    good: Good,
    /// What tells the person who is created first.
    person: Option<u64>,
}

impl Asks {
    pub(super) fn of(row: &Row) -> Self {
        Self { good: Good::of(row), person: row.likeness.person() }
    }
}

/// Rows of which nothing is left to do.
#[derive(Debug, Default)]
pub(super) struct Settled {
    work: Work,
    /// Those of them that would get second cards, if these are wanted.
    second: Work,
    /// Whose they are, each once when all were added. Two rows of one person are one cardholder.
    people: Vec<u64>,
}

impl Settled {
    /// A row that has what it asks for, or stays as it is.
    pub(super) fn add(&mut self, asks: Asks) {
        self.work.add(asks.good);
        self.add_person(asks);
    }

    /// A row that was issued under another name.
    pub(super) fn add_known(&mut self, asks: Asks) {
        self.add(asks);
        self.second.add(asks.good);
        // Who is known keeps the cardholder.
        self.second.cardholders += u64::from(asks.good.person && asks.person.is_none());
    }

    fn add_person(&mut self, Asks { good, person }: Asks) {
        match person {
            Some(person) if good.person => self.people.push(person),
            _ => self.work.cardholders += u64::from(good.person),
        }
    }

    /// Once all were added.
    pub(super) fn close(&mut self) {
        self.people.sort_unstable();
        self.people.dedup();
        self.work.cardholders += std::mem::take(&mut self.people).len() as u64;
    }

    pub(super) fn work(&self) -> Work {
        self.work
    }

    pub(super) fn second(&self) -> Work {
        self.second
    }
}
