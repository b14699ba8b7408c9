//! Names and addresses that stand in several columns, as most lists of people have them: `Vorname` and `Name`, `Straat` and
//! `Huisnummer`.
//!
//! Beside `Vorname`, `Name` is no whole name but the other half of one; and a card's name is both.

use super::headings::{column_called, letters_of};

const ROW: &str = "row_id";
const NAME: &str = "cardholder[name]";
const FIRST: &str = "cardholder[individual][first_name]";
const LAST: &str = "cardholder[individual][last_name]";
const STREET: &str = "cardholder[billing][address][line1]";

/// Headings of a whole name, or of the other half beside one half.
const WHOLE_OR_HALF: [&str; 5] = ["name", "nom", "nombre", "nome", "naam"];
/// What stands between a first and a last name.
const BETWEEN: [&str; 6] =
    ["tussenvoegsel", "voorvoegsel", "middlename", "zweitername", "deuxièmeprénom", "segundonombre"];
/// What comes after the last name.
const SECOND_LAST: [&str; 4] = ["segundoapellido", "apellido2", "2ºapellido", "secondsurname"];
/// A house's number, where it comes after the street.
const HOUSE: [&str; 8] =
    ["hausnummer", "hausnr", "houseno", "huisnummer", "huisnr", "numerocivico", "nrdomu", "númerodecalle"];
/// What says whose row it is where both halves of the name stand beside it: the number of the person.
const WHOSE_ROW: [&str; 4] = ["employee", "mitarbeiter", "person", "staff"];
/// Words for any number: a house's only right behind the street.
const BEHIND_THE_STREET: [&str; 8] =
    ["número", "numero", "num", "núm", "nummer", "numer", "civico", "housenumber"];

/// What headings beside each other mean.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Parts {
    /// The columns that the headings mostly are, in their order.
    pub(super) called: Vec<Option<&'static str>>,
    /// Columns that are filled from several headings, and the places of these in the order in which they are read.
    pub(super) joined: Vec<(&'static str, Vec<usize>)>,
}

impl Parts {
    /// Of a table's headings.
    pub(super) fn of(headings: &[&str]) -> Self {
        let mut called: Vec<Option<&'static str>> =
            headings.iter().map(|heading| column_called(heading)).collect();
        let letters: Vec<String> = headings.iter().map(|heading| letters_of(heading)).collect();
        let place = |words: &[&str]| letters.iter().position(|letters| words.contains(&letters.as_str()));
        let half = |called: &[Option<&str>], column| called.iter().position(|known| *known == Some(column));
        let mut named = letters.iter().enumerate().filter(|(_, name)| WHOLE_OR_HALF.contains(&name.as_str()));
        if let (Some((at, _)), None) = (named.next(), named.next()) {
            match (half(&called, FIRST), half(&called, LAST)) {
                (Some(_), None) => called[at] = Some(LAST),
                (None, Some(_)) => called[at] = Some(FIRST),
                _ => {}
            }
        }
        // Then it is no name.
        let whose = place(&WHOSE_ROW).filter(|_| {
            half(&called, FIRST).is_some() && half(&called, LAST).is_some() && half(&called, ROW).is_none()
        });
        if let Some(at) = whose {
            called[at] = Some(ROW);
        }
        let mut joined = Vec::new();
        if let (Some(first), Some(last), None) =
            (half(&called, FIRST), half(&called, LAST), half(&called, NAME))
        {
            let places = [Some(first), place(&BETWEEN), Some(last), place(&SECOND_LAST)];
            joined.push((NAME, places.into_iter().flatten().collect()));
        }
        if let Some(street) = half(&called, STREET) {
            let is_number = |letters: &String| BEHIND_THE_STREET.contains(&letters.as_str());
            let behind = Some(street + 1).filter(|at| letters.get(*at).is_some_and(is_number));
            joined.extend(place(&HOUSE).or(behind).map(|house| (STREET, vec![street, house])));
        }
        Self { called, joined }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The columns that the headings mostly are.
    fn called(headings: &[&str]) -> Vec<Option<&'static str>> {
        Parts::of(headings).called
    }

    fn joined(headings: &[&str]) -> Vec<(&'static str, Vec<usize>)> {
        Parts::of(headings).joined
    }

    #[test]
    fn beside_one_half_of_a_name_stands_the_other() {
        let name = |places: &[usize]| vec![(NAME, places.to_vec())];
        for (headings, first, last) in [
            (["Name", "Vorname"], 1, 0),
            (["Nom", "Prénom"], 1, 0),
            (["Cognome", "Nome"], 1, 0),
            (["Nombre", "Primer apellido"], 0, 1),
            (["Imię", "Nazwisko"], 0, 1),
            (["First name", "Last name"], 0, 1),
            (["Forename", "Surname"], 0, 1),
        ] {
            let called = called(&headings);
            assert_eq!((called[first], called[last]), (Some(FIRST), Some(LAST)), "{headings:?}");
            assert_eq!(joined(&headings), name(&[first, last]), "{headings:?}");
        }
        // All parts that a name has there, in their order.
        assert_eq!(joined(&["Nombre", "Segundo apellido", "Primer apellido"]), name(&[0, 2, 1]));
        assert_eq!(joined(&["Voornaam", "Tussenvoegsel", "Achternaam"]), name(&[0, 1, 2]));
    }

    #[test]
    fn a_whole_name_stays_one() {
        assert_eq!(called(&["Name", "E-Mail"])[0], Some(NAME));
        let all = ["Name", "First name", "Last name"];
        assert_eq!((called(&all), joined(&all)), (vec![Some(NAME), Some(FIRST), Some(LAST)], vec![]));
        assert!(joined(&["Surname", "E-Mail"]).is_empty());
    }

    #[test]
    fn whose_row_it_is_is_no_name_beside_both_halves_of_one() {
        for whose in ["Employee", "Employee #", "Mitarbeiter"] {
            let headings = [whose, "First Name", "Last Name", "House no"];
            assert_eq!(called(&headings)[0], Some(ROW), "{whose}");
            assert_eq!(joined(&headings)[0], (NAME, vec![1, 2]), "{whose}");
        }
        assert_eq!(called(&["Employee", "E-Mail"])[0], Some(NAME));
    }

    #[test]
    fn a_street_has_its_houses_number() {
        assert_eq!(joined(&["Straat", "Huisnummer"]), [(STREET, vec![0, 1])]);
        assert_eq!(joined(&["Straße", "PLZ"]), []);
        assert_eq!(joined(&["Nombre", "Calle", "Número"]), [(STREET, vec![1, 2])]);
        // It may be anything's number elsewhere.
        assert_eq!(joined(&["Número", "Calle", "Ciudad"]), []);
    }
}
