//! What a row should be looked at for before it is a card: what spreadsheets do to cells, and what Stripe's schema allows and
//! nobody wants.
//!
//! [`cell::Odd`] is found fast, for the many cells in which there is nothing odd, and worded only for the few in which there is.
//! Never: a value of a column that may hold a PIN.

use super::Severity;
use super::header::{Column, Holds};
use super::plan::{COLUMNS_MAX, Columns, places};
use crate::operation::PIN;
use crate::operation::kind::Kind;
use cell::odd;
use row::{First, Whole};
pub(super) use row::{PRINTED_MAX, is_printed_of_a_business, is_printed_of_a_person};

mod cell;
mod mixed_up;
mod places;
mod row;
mod words;
mod written;

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
    /// An e-mail address.
    Email,
    /// A currency.
    Currency,
    /// A country, and whether something is sent to it.
    Country { shipped_to: bool },
    /// Metadata: whatever its writer likes.
    Free,
    /// What has a form of its own, which is checked elsewhere.
    Formed,
}

impl Role {
    /// Whether it is something that each person has, and nobody makes up.
    fn is_of_people(self) -> bool {
        matches!(self, Self::Words | Self::PostalCode { .. } | Self::Phone | Self::Email)
    }
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
    /// Columns that are looked at at all, among those that have bits.
    looked_at: Columns,
    /// Those of postal codes, each with that of its country.
    postal_codes: Vec<(Columns, Columns)>,
    whole: Whole,
    today: Month,
}

impl Lints {
    /// For these columns.
    pub(super) fn of(columns: &[Column], today: Month) -> Self {
        let place = |path: &str| columns.iter().position(|column| column.name == path);
        let role = |column: &Column| match column.holds {
            Holds::RowId | Holds::Card => Role::Id,
            Holds::Date => Role::Formed,
            Holds::Nothing | Holds::Blank | Holds::LeftOut => Role::Unread,
            Holds::Parameter(..) if column.path == PIN => Role::Unread,
            Holds::Parameter(_, kind) => role_of(&column.name, kind, &place),
        };
        let roles: Vec<Role> = columns.iter().map(role).collect();
        let bits = || roles.iter().take(COLUMNS_MAX).enumerate().map(|(at, role)| (*role, 1 << at));
        let looked_at = bits().filter(|(role, _)| *role != Role::Unread).map(|(_, bit)| bit).sum();
        let of_country = |(role, bit)| match role {
            Role::PostalCode { country: Some(country) } if country < COLUMNS_MAX => Some((bit, 1 << country)),
            _ => None,
        };
        let postal_codes = bits().filter_map(of_country).collect();
        Self { roles, looked_at, postal_codes, whole: Whole::of(columns), today }
    }

    /// Whether there is anything to tell of a row. `cell` gives the n-th cell; there are as many as columns. Of those in `known` is known
    /// that none is odd, in a row in which all of them stand.
    pub(super) fn is_odd<'c>(&self, cell: impl Fn(usize) -> &'c str + Copy, known: Columns) -> bool {
        let is_odd = |at: usize| odd(self.roles[at], cell(at), cell).is_some();
        // A postal code is judged by its country.
        let of_countries = self.postal_codes.iter().filter(|(_, country)| known & country == 0);
        let left = of_countries.fold(self.looked_at & !known, |left, (postal_code, _)| left | postal_code);
        places(left).any(is_odd)
            || (COLUMNS_MAX..self.roles.len()).any(is_odd)
            || self.whole.look(cell, self.today, &mut First).is_none()
    }

    /// All that is to be told of a row.
    pub(super) fn findings<'c>(&self, cell: impl Fn(usize) -> &'c str + Copy) -> Vec<Finding> {
        let of_cells = self.roles.iter().enumerate().filter_map(|(at, role)| {
            let text = cell(at);
            odd(*role, text, cell).map(|odd| odd.finding(at, text))
        });
        let mut findings: Vec<Finding> = of_cells.collect();
        let _ = self.whole.look(cell, self.today, &mut findings);
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
        (Kind::Text(_), "email") => Role::Email,
        (Kind::Currency, _) => Role::Currency,
        (
            Kind::Text(_),
            "cardholder"
            | "financial_account"
            | "personalization_design"
            | "replacement_for"
            | "eori_number"
            | "tax_id",
        ) => Role::Id,
        (Kind::Text(_), _) => Role::Words,
        _ => Role::Formed,
    }
}
