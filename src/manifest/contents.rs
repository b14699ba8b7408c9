//! What a manifest's rows ask for, as the names of its columns tell.
//!
//! A column `card` makes it one of changes; columns `cardholder[…]` hold people who are to be created, before their cards or,
//! where no column is a card's, alone; any other is one of cards.

use crate::operation::kind::Kind;
use crate::operation::{FieldProblem, Operation, PIN};

use super::ROW_ID;
use super::dates::{DATE_OF_BIRTH, PARTS};
use super::header::Part;

/// The column of the card that is changed.
pub(super) const CARD: &str = "card";
/// What a person's columns begin with.
const PERSON: &str = "cardholder[";

/// What each row asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Contents {
    /// What the row is about.
    pub(super) operation: Operation,
    /// Whether its cardholder may be created first.
    pub(super) with_people: bool,
}

impl Contents {
    /// By the header's names.
    pub(super) fn of_names(names: &[&str]) -> Self {
        let named = || names.iter().copied().filter(|name| !name.is_empty() && *name != ROW_ID);
        let is_person = |name: &str| name.starts_with(PERSON);
        let operation = if named().any(|name| name == CARD) {
            Operation::UpdateCard
        } else if named().any(is_person) && named().all(is_person) {
            Operation::CreateCardholder
        } else {
            Operation::CreateCard
        };
        Self { operation, with_people: operation == Operation::CreateCard && named().any(is_person) }
    }

    /// The operation of a row's request.
    pub(super) fn operation_of(self, part: Part) -> Operation {
        match part {
            Part::First => Operation::CreateCardholder,
            Part::Last => self.operation,
        }
    }

    /// Whether that request is a cardholder's.
    pub(super) fn is_person(self, part: Part) -> bool {
        self.operation_of(part) == Operation::CreateCardholder
    }

    /// The parts that every row, or every person in one, has.
    pub(super) fn always_required(self) -> impl Iterator<Item = (Part, &'static str)> {
        let of = move |part| {
            let parts = self.operation_of(part).declaration().always_required();
            parts.iter().map(move |name| (part, *name))
        };
        of(Part::Last).chain(self.with_people.then(|| of(Part::First)).into_iter().flatten())
    }

    /// Which request a column belongs to, and what it may hold.
    ///
    /// # Errors
    /// What is wrong with its name.
    pub(super) fn kind_of(self, name: &str) -> Result<(Part, Kind), FieldProblem> {
        let part = if self.with_people && inner(name).is_some() { Part::First } else { Part::Last };
        let kind = self.operation_of(part).declaration().kind_of(&self.path_of(part, name));
        kind.map(|kind| (part, kind)).map_err(|mut problem| {
            problem.suggestion = problem.suggestion.map(|path| self.column_of(part, &path));
            if self.operation == Operation::UpdateCard && problem.code == "unknown_parameter" {
                problem.reason =
                    "is nothing of a card that can be changed (the column card makes this a file of \
                                  changes)"
                        .into();
            }
            problem
        })
    }

    /// Whether its rows have people, and so their dates of birth.
    pub(super) fn has_date_of_birth(self) -> bool {
        PARTS.iter().all(|part| self.kind_of(&format!("{DATE_OF_BIRTH}{part}")).is_ok())
    }

    /// A column's parameter.
    pub(super) fn path_of(self, part: Part, name: &str) -> String {
        match inner(name).filter(|_| self.is_person(part)) {
            Some((first, rest)) => format!("{first}{rest}"),
            None => name.to_owned(),
        }
    }

    /// A parameter's column.
    pub(super) fn column_of(self, part: Part, path: &str) -> String {
        if !self.is_person(part) || path == PIN {
            return path.to_owned();
        }
        let (first, rest) = path.split_at(path.find('[').unwrap_or(path.len()));
        format!("{PERSON}{first}]{rest}")
    }
}

/// A person's column: `cardholder[first]rest`.
fn inner(name: &str) -> Option<(&str, &str)> {
    name.strip_prefix(PERSON)?.split_once(']')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_columns_tell_what_is_asked_for() {
        let contents = |names: &[&str]| {
            let contents = Contents::of_names(names);
            (contents.operation, contents.with_people)
        };
        assert_eq!(contents(&["row_id", "type", "currency"]), (Operation::CreateCard, false));
        assert_eq!(contents(&["type", "cardholder[name]"]), (Operation::CreateCard, true));
        assert_eq!(contents(&["row_id", "cardholder[name]", ""]), (Operation::CreateCardholder, false));
        assert_eq!(contents(&["status", "card"]), (Operation::UpdateCard, false));
        assert_eq!(contents(&["row_id"]), (Operation::CreateCard, false));
    }

    #[test]
    fn a_persons_columns_are_the_cardholders_parameters() {
        let contents = Contents::of_names(&["type", "cardholder[name]"]);
        for (column, path) in
            [("cardholder[name]", "name"), ("cardholder[billing][address][city]", "billing[address][city]")]
        {
            let (part, _) = contents.kind_of(column).unwrap();
            assert_eq!((part, contents.path_of(part, column).as_str()), (Part::First, path));
            assert_eq!(contents.column_of(part, path), column);
        }
        let near = |name: &str| contents.kind_of(name).unwrap_err().suggestion;
        assert_eq!(near("cardholder[nane]").as_deref(), Some("cardholder[name]"));
        assert_eq!(near("cardholder[encrypted_pin]").as_deref(), Some(PIN));
        assert_eq!(contents.kind_of("cardholder[pin]").unwrap_err().code, "pin_in_clear");
        assert_eq!(contents.kind_of("cardholder[name").unwrap_err().code, "unknown_parameter");
    }
}
