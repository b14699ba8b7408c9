//! Cardholders, by what tells a person, and what is said of those who are found.

use std::collections::HashMap;

use crate::operation::{By, Found, Key, Person, Request};
use crate::outcome::{Cardholder, Refusal};

/// Most cardholders that are named to who has to choose.
const NAMED_MAX: usize = 5;
/// What can be done where somebody has to choose.
const WAYS_OUT: &str = "give the right one's id in the column cardholder and leave the person's columns of this row empty, or set \
                        cardholder[reuse] to false for a new one";

/// A cardholder, as far as it is needed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known {
    /// Its id, `ich_…`.
    pub id: String,
    /// `active`, `inactive` or `blocked`, if it was told.
    pub status: Option<String>,
    /// What Stripe still needs to know, in words.
    pub needs: Option<String>,
    person: Person,
}

/// What was found of a person.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Match {
    /// No cardholder.
    None,
    /// One, and by what.
    One(Known, By),
    /// One against whom something speaks: somebody has to say whether it is the person. An e-mail address may be shared, and mother
    /// and daughter have one name and live at one address.
    Doubtful(Known, By),
    /// Several: somebody has to say which.
    Several(Vec<Known>, By),
}

impl Match {
    /// Those among whom somebody has to choose.
    pub(in crate::line) fn candidates(self) -> Vec<Known> {
        match self {
            Self::None | Self::One(..) => Vec::new(),
            Self::Doubtful(one, _) => vec![one],
            Self::Several(several, _) => several,
        }
    }
}

/// Cardholders, by what tells a person.
#[derive(Debug, Default)]
pub struct Directory {
    cardholders: Vec<Known>,
    by_id: HashMap<String, usize>,
    by_key: HashMap<(By, Key), Vec<usize>>,
}

impl Known {
    /// One that is at Stripe.
    pub(super) fn of(found: &Found) -> Self {
        Self {
            id: found.id.clone(),
            status: found.status.clone(),
            needs: found.needs(),
            person: found.person(),
        }
    }

    /// One that was created as it was asked for.
    pub(super) fn created(cardholder: &Cardholder, request: &Request) -> Self {
        let Cardholder { id, status, needs } = cardholder.clone();
        Self { id, status, needs, person: request.person() }
    }

    pub(super) fn has(&self, by: By, key: Option<&Key>) -> bool {
        self.person.key(by) == key
    }
}

impl Directory {
    /// One more, of Stripe's.
    pub fn add(&mut self, found: &Found) {
        self.add_known(Known::of(found));
    }

    /// A list that is read while cardholders are created may show one twice.
    pub(super) fn add_known(&mut self, known: Known) {
        let at = self.by_id.get(&known.id).copied().unwrap_or(self.cardholders.len());
        for key in known.person.keys() {
            // One whose person is known by another sign since is found by that as well.
            let those = self.by_key.entry(*key).or_default();
            if !those.contains(&at) {
                those.push(at);
            }
        }
        if at == self.cardholders.len() {
            self.by_id.insert(known.id.clone(), at);
            self.cardholders.push(known);
        }
    }

    /// The one of that id.
    #[must_use]
    pub fn by_id(&self, id: &str) -> Option<&Known> {
        self.by_id.get(id).map(|at| &self.cardholders[*at])
    }

    /// Who of them a person is.
    #[must_use]
    pub fn find(&self, person: &Person) -> Match {
        for (by, key) in person.keys() {
            let those = self.by_key.get(&(*by, *key)).into_iter().flatten();
            match matched(those.map(|at| &self.cardholders[*at]), *by, person) {
                Match::None => {}
                found => return found,
            }
        }
        Match::None
    }
}

/// Who of those that share this with a person is the person.
pub(super) fn matched<'k>(those: impl Iterator<Item = &'k Known>, by: By, person: &Person) -> Match {
    let mut those: Vec<Known> = those.cloned().collect();
    match those.len() {
        0 => Match::None,
        1 => {
            let one = those.remove(0);
            let is_doubtful = match by {
                By::Email => !one.person.may_have_name_of(person),
                By::Phone => false,
                By::NameAndAddress => one.person.has_other_email(person),
            };
            if is_doubtful { Match::Doubtful(one, by) } else { Match::One(one, by) }
        }
        _ => Match::Several(those, by),
    }
}

/// One that the ledger knows to have been created for somebody with that sign. Of an e-mail address it was for another name.
pub(in crate::line) fn created(cardholder: &Cardholder, by: By, request: &Request) -> Match {
    let known = Known::created(cardholder, request);
    if by == By::Email { Match::Doubtful(known, by) } else { Match::One(known, by) }
}

/// What is told beside the end of a job for a person who had a cardholder.
pub(in crate::line) fn note(known: &Known, by: By, person: &Person) -> String {
    let mut note = format!("no cardholder was created: one has this {} at Stripe", by.word());
    if known.person.has_other_email(person) {
        note += ", and another e-mail address";
    }
    if let Some(status) = known.status.as_deref().filter(|status| *status != "active") {
        note += &format!(", and is {status}");
    }
    note
}

/// Why the one that was found is not taken.
#[must_use]
pub fn doubtful(known: &Known, by: By) -> Refusal {
    let (code, other) = match by {
        By::Email => ("cardholder_has_other_name", "name"),
        By::Phone | By::NameAndAddress => ("cardholder_has_other_email", "e-mail address"),
    };
    let message = format!(
        "the cardholder who has this {} at Stripe, {}, has another {other}; {WAYS_OUT}",
        by.word(),
        known.id
    );
    Refusal::own(code, message)
}

/// Why none of several is taken.
#[must_use]
pub fn several(several: &[Known], by: By) -> Refusal {
    let mut names: Vec<_> = several.iter().take(NAMED_MAX).map(|known| known.id.as_str()).collect();
    if several.len() > NAMED_MAX {
        names.push("and others");
    }
    let message = format!(
        "{} cardholders at Stripe have this {}: {}; {WAYS_OUT}",
        several.len(),
        by.word(),
        names.join(", ")
    );
    Refusal::own("several_cardholders", message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(id: &str, name: &str, email: Option<&str>, phone: Option<&str>, street: &str) -> Found {
        let object = serde_json::json!({
            "id": id, "name": name, "email": email, "phone_number": phone, "status": "active",
            "billing": {"address": {"line1": street, "city": "Cork", "postal_code": "T12", "country": "IE"}},
        });
        serde_json::from_value(object).unwrap()
    }

    fn directory(of: &[Found]) -> Directory {
        let mut directory = Directory::default();
        of.iter().for_each(|found| directory.add(found));
        directory
    }

    fn one(found: Match) -> (String, By) {
        let Match::One(known, by) = found else { panic!("{found:?}") };
        (known.id, by)
    }

    #[test]
    fn the_surest_sign_decides_and_of_several_none_is_taken() {
        let (ana, phone) = (Some("ana@example.com"), Some("+35312345"));
        let there = directory(&[
            found("ich_1", "Ana Berg", ana, None, "1 High Street"),
            found("ich_2", "Max Berg", None, phone, "1 High Street"),
            found("ich_3", "Eva Hall", None, None, "2 Low Street"),
            found("ich_4", "Eva Hall", None, None, "2 Low Street"),
        ]);
        let find = |found: &Found| there.find(&found.person());
        let both = found("", "Ana Maria Berg", ana, phone, "5 New Street");
        assert_eq!(one(find(&both)), ("ich_1".into(), By::Email), "the e-mail address goes first");
        let moved = found("", "Max Berg", Some("max@example.com"), phone, "9 New Street");
        assert_eq!(one(find(&moved)), ("ich_2".into(), By::Phone));
        let plain = found("", "ANA  Berg", None, None, "1 high street");
        assert_eq!(one(find(&plain)), ("ich_1".into(), By::NameAndAddress));
        let shares_mailbox = found("", "Tom Hill", ana, None, "1 High Street");
        assert!(matches!(find(&shares_mailbox), Match::Doubtful(known, By::Email) if known.id == "ich_1"));
        let shares_phone = found("", "Max Berg Hill", None, phone, "7 High Street");
        assert_eq!(find(&shares_phone), Match::None, "an office's number");
        let namesake = found("", "Ana Berg", Some("ana@new.example"), None, "1 High Street");
        let Match::Doubtful(known, By::NameAndAddress) = find(&namesake) else {
            panic!("mother and daughter")
        };
        assert!(doubtful(&known, By::NameAndAddress).message.contains("ich_1, has another e-mail address"));
        let Match::Several(those, By::NameAndAddress) =
            find(&found("", "Eva Hall", None, None, "2 Low Street"))
        else {
            panic!("either")
        };
        let message = several(&those, By::NameAndAddress).message;
        assert!(message.starts_with("2 cardholders") && message.contains("ich_3, ich_4"), "{message}");
        assert_eq!(find(&found("", "Eva Hall", None, None, "3 Low Street")), Match::None);
    }

    #[test]
    fn one_that_a_list_shows_twice_is_one() {
        let ana = found("ich_1", "Ana Berg", Some("ana@example.com"), None, "1 High Street");
        let there = directory(&[ana.clone(), ana.clone()]);
        assert_eq!(one(there.find(&ana.person())), ("ich_1".into(), By::Email));
    }

    #[test]
    fn one_that_is_known_by_another_sign_since_is_found_by_that_as_well() {
        let mut there = directory(&[found("ich_1", "Ana Berg", None, Some("+35312345"), "1 High Street")]);
        let moved = found("ich_1", "Ana Berg", None, Some("+35312345"), "2 Low Street");
        there.add(&moved);
        let by_address = found("", "Ana Berg", None, None, "2 Low Street");
        assert_eq!(one(there.find(&by_address.person())), ("ich_1".into(), By::NameAndAddress));
    }
}
