//! What a columns file makes of a file's columns: what is done to each row, and columns that the file has not itself.

use super::CELL_BYTES_MAX;
use super::columns::{ColumnMap, compared};
use super::dates::{DATE_OF_BIRTH, DateColumn, Order, PARTS, Shown};
use super::filling::{Filler, Filling, PartOfDate};
use super::header::{Column, Holds, Naming};
use super::own_address::{COPIED, OwnAddress};
use super::rows::{may_be_a_pin, shown};
use crate::operation::kind::nearest;
use crate::operation::pin_words::speaks_of_pin;
use crate::operation::{FieldProblem, Operation};

impl Naming<'_> {
    /// What the columns file does to each row; adds the columns that are defaults' alone.
    pub(super) fn filling(
        &mut self,
        map: &ColumnMap,
        headings: &[&str],
        person: &[usize],
        shown: Shown,
    ) -> Filling {
        for heading in map.missing_from(headings) {
            let reason = "is a heading by the columns file, and the manifest has no such column";
            let suggestion = nearest(heading, headings.iter().copied());
            self.tell(
                heading,
                FieldProblem { suggestion, ..FieldProblem::new("", "missing_heading", reason) },
            );
        }
        let own = self.columns.len();
        // Of a person's column that is left out only the person is read.
        let filler = |(at, column): (usize, &Column)| Filler {
            leaves_out: column.holds == Holds::LeftOut && !person.contains(&at),
            ..Filler::default()
        };
        let mut fillers: Vec<Filler> = self.columns.iter().enumerate().map(filler).collect();
        for (name, parts) in map.joined() {
            let joins = self.join(name, parts, headings);
            fillers.extend(joins.map(|joins| Filler { joins, ..Filler::default() }));
        }
        for (name, value) in map.defaults() {
            let is_it = |column: &Column| column.name == name && column.holds != Holds::LeftOut;
            let at = self.columns.iter().position(is_it).unwrap_or_else(|| {
                self.seen.insert(name.to_owned());
                let holds = self.holds_of(name).unwrap_or_else(|problem| {
                    let reason = match map.column_of(name) {
                        Some(column) if !column.is_empty() => {
                            format!(
                                "is a heading, and a default of the columns file is for a column: {column}"
                            )
                        }
                        _ => format!("is a default of the columns file, and {}", problem.reason),
                    };
                    self.tell(name, FieldProblem { reason, ..problem });
                    Holds::Nothing
                });
                self.push(name, name, holds);
                fillers.push(Filler::default());
                self.columns.len() - 1
            });
            self.look_at_value(at, "default", value);
            fillers[at].default = Some(value.to_owned());
        }
        for (name, words) in map.values() {
            let Some(at) = self.columns.iter().position(|column| column.name == name) else {
                let reason = "is no column of the manifest, and the columns file has values for it";
                self.tell(name, FieldProblem::new("", "unknown_column", reason));
                continue;
            };
            let mut values: Vec<&str> = words.values().map(String::as_str).collect();
            values.sort_unstable();
            values.into_iter().for_each(|value| self.look_at_value(at, "value", value));
            fillers[at].words = Some(words.clone());
        }
        let date = self.date_of_birth(map.date_order(), shown);
        if let Some(DateColumn { day, .. }) = date {
            fillers.resize(day, Filler::default());
            let parts = [PartOfDate::Day, PartOfDate::Month, PartOfDate::Year];
            fillers.extend(parts.map(|part| Filler { part_of_date: Some(part), ..Filler::default() }));
        }
        let own_address = if map.ships_to_own_address() { self.own_address() } else { None };
        fillers.resize(self.columns.len(), Filler::default());
        let mut filling = Filling::new(own, fillers);
        (filling.own_address, filling.date) = (own_address, date);
        filling
    }

    /// Adds the columns that are filled from a date of birth, if there is one.
    fn date_of_birth(&mut self, said: Option<Order>, shown: Shown) -> Option<DateColumn> {
        let at = self.columns.iter().position(|column| column.holds == Holds::Date)?;
        let heading = self.columns[at].heading.clone().unwrap_or_else(|| DATE_OF_BIRTH.to_owned());
        let parts = PARTS.map(|part| format!("{DATE_OF_BIRTH}{part}"));
        if let Some(part) = parts.iter().find(|part| self.seen.contains(*part)) {
            let reason =
                format!("is filled from {heading}, and is a column of its own, too; leave one of them out");
            self.tell(part, FieldProblem::new("", "duplicate_column", reason));
            return None;
        }
        let day = self.columns.len();
        for part in parts {
            // Where there is a person's date, there are its parts.
            let holds = self.holds_of(&part).unwrap_or(Holds::Nothing);
            self.push(&part, &heading, holds);
            self.seen.insert(part);
        }
        Some(DateColumn { at, day, said, shown })
    }

    /// Adds the columns of the parcel that the file has not, for cards that are sent to their person's own address.
    fn own_address(&mut self) -> Option<OwnAddress> {
        if self.contents.operation != Operation::CreateCard || !self.contents.with_people {
            let reason = "the columns file sends physical cards to each person's own address ([shipping]), and this file has no columns of \
                          people who get a card (cardholder[name], cardholder[billing][address][line1], …); take [shipping] out";
            self.tell("", FieldProblem::new("", "no_own_address", reason));
            return None;
        }
        let place = |columns: &[Column], name: &str| {
            let is_it = |column: &Column| column.name == name && matches!(column.holds, Holds::Parameter(..));
            columns.iter().position(is_it)
        };
        let mut copied = Vec::new();
        for (of_person, of_parcel) in COPIED {
            let Some(from) = place(&self.columns, of_person) else { continue };
            let to = place(&self.columns, of_parcel).or_else(|| {
                // One that is wrong already is told of.
                let holds =
                    self.holds_of(of_parcel).ok().filter(|_| self.seen.insert(of_parcel.to_owned()))?;
                let heading = self.columns[from].heading.clone().unwrap_or_else(|| of_person.to_owned());
                self.push(of_parcel, &heading, holds);
                Some(self.columns.len() - 1)
            });
            copied.extend(to.map(|to| (from, to)));
        }
        place(&self.columns, "type").map(|kind| OwnAddress { kind, copied })
    }

    /// Adds a column that is filled from several headings; answers their places.
    fn join(&mut self, name: &str, parts: &[String], headings: &[&str]) -> Option<Vec<usize>> {
        let called = parts.join(" + ");
        let mut places = Vec::new();
        for part in parts {
            let problem = match headings.iter().position(|heading| compared(heading) == compared(part)) {
                Some(_) if speaks_of_pin(part) => {
                    let reason = "is part of another column by the columns file, and speaks of PINs";
                    FieldProblem::new("", "pin_in_clear", reason)
                }
                Some(at) => {
                    places.push(at);
                    continue;
                }
                None => {
                    let suggestion = nearest(part, headings.iter().copied());
                    let reason = "is a heading by the columns file, and the manifest has no such column";
                    FieldProblem { suggestion, ..FieldProblem::new("", "missing_heading", reason) }
                }
            };
            self.tell(part, problem);
        }
        if !self.seen.insert(name.to_owned()) {
            let reason =
                format!("is filled from {called} by the columns file, and is a column of the file, too");
            self.tell(name, FieldProblem::new("", "duplicate_column", reason));
            return None;
        }
        let holds = self.holds_of(name).unwrap_or_else(|problem| {
            let reason = format!("is filled from {called} by the columns file, and {}", problem.reason);
            self.tell(name, FieldProblem { reason, ..problem });
            Holds::Nothing
        });
        self.push(name, &called, holds);
        Some(places)
    }

    /// Tells of a value of the columns file that no row can have.
    fn look_at_value(&mut self, at: usize, what: &str, value: &str) {
        let Column { name, heading, holds: Holds::Parameter(_, kind), .. } = &self.columns[at] else {
            return;
        };
        if value.is_empty() || (value.len() <= CELL_BYTES_MAX && kind.accepts(value)) {
            return;
        }
        let problem = FieldProblem::of(name, kind.explain(value));
        let may_be_shown = kind.may_be_shown() && !may_be_a_pin(value);
        let value = if may_be_shown { format!(" {:?}", shown(value)) } else { String::new() };
        let reason = format!("has the {what}{value} in the columns file, which {}", problem.reason);
        let column = heading.as_ref().unwrap_or(name).clone();
        self.tell(&column, FieldProblem { reason, ..problem });
    }
}
