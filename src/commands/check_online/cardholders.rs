//! How the cardholders stand that rows name, and which people have one already.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::stream::{self, StreamExt as _};

use super::{AT_ONCE, Problems};
use crate::line::people::{Directory, Known, Match, doubtful, several};
use crate::line::{cardholder_of, list_cardholders};
use crate::manifest::{Row, counted};
use crate::operation::Person;
use crate::pace::Pace;
use crate::stripe::{Client, FoundAnswer, ListFailure};

/// More cardholders than this are looked up in a list of all rather than one by one: a read tells a hundred of a list.
const ONE_BY_ONE_MAX: usize = 100;

/// The cardholders that rows need.
#[derive(Default)]
pub(super) struct Cardholders {
    /// By their ids, the lines of the rows that name them.
    named: BTreeMap<String, Vec<u64>>,
    /// Who keeps a cardholder that there is.
    people: Vec<(u64, Person)>,
}

/// What was looked at.
#[derive(Default)]
pub(super) struct Looked {
    /// Rows of people.
    pub(super) people: u64,
    /// Rows of people who keep the cardholder that they have.
    keep: u64,
    /// Whether the account has more cardholders than were listed.
    has_more: bool,
    /// Why they could not be looked at.
    unreadable: Option<String>,
}

impl Looked {
    pub(super) fn said(&self) -> Vec<String> {
        let mut said = Vec::new();
        if self.keep > 0 {
            let rows = counted(self.keep, "row");
            let (verb, keep) = if self.keep == 1 { ("is", "keeps") } else { ("are", "keep") };
            said.push(format!("{rows} {verb} for people who have a cardholder already and {keep} it."));
        }
        if let Some(reason) = &self.unreadable {
            said.push(format!(
                "With this key cardholders cannot be looked at, and people who have one are not found: {reason}"
            ));
        }
        if self.has_more {
            said.push("The account has more cardholders than were listed: who is among the others is seen when the rows are issued.".to_owned());
        }
        said
    }
}

impl Cardholders {
    pub(super) fn add(&mut self, row: &Row) {
        if let Some(id) = &row.request.cardholder {
            self.named.entry(id.clone()).or_default().push(row.line);
        }
        // Before a card, whoever does not say otherwise keeps a cardholder; alone, whoever says so.
        let first = row.first.as_ref().filter(|person| !person.makes_another());
        if let Some(person) = first.or_else(|| Some(&row.request).filter(|request| request.reuses())) {
            self.people.push((row.line, person.person()));
        }
    }

    /// Whether all of the account's are listed.
    pub(super) fn lists(&self) -> bool {
        !self.people.is_empty() || self.named.len() > ONE_BY_ONE_MAX
    }

    /// How many rows name.
    pub(super) fn count(&self) -> u64 {
        self.named.len() as u64
    }

    /// How many are asked for one by one.
    pub(super) fn reads(&self) -> u64 {
        if self.named.len() > ONE_BY_ONE_MAX { 0 } else { self.named.len() as u64 }
    }

    /// Looks at each.
    pub(super) async fn look(
        self,
        pace: &Pace,
        client: &Client,
        problems: &mut Problems,
    ) -> Result<Looked, String> {
        let mut looked = Looked { people: self.people.len() as u64, ..Looked::default() };
        let mut directory = None;
        if self.lists() {
            match list_cardholders(pace, client).await {
                Ok((listed, is_whole)) => {
                    looked.has_more = !is_whole;
                    directory = Some(listed);
                }
                Err((ListFailure::Forbidden | ListFailure::Refused | ListFailure::Missing, reason)) => {
                    looked.unreadable = Some(reason);
                    return Ok(looked);
                }
                Err((_, reason)) => {
                    return Err(format!("the account's cardholders could not be listed: {reason}"));
                }
            }
        }
        if let Some(directory) = &directory {
            look_for_people(&self.people, directory, &mut looked, problems);
        }
        self.look_at_named(directory.unwrap_or_default(), pace, client, &mut looked, problems).await?;
        Ok(looked)
    }

    /// Those that rows name: as they were listed, and the others one by one.
    async fn look_at_named(
        &self,
        mut found: Directory,
        pace: &Pace,
        client: &Client,
        looked: &mut Looked,
        problems: &mut Problems,
    ) -> Result<(), String> {
        let by_one: BTreeSet<&String> = self.named.keys().filter(|id| found.by_id(id).is_none()).collect();
        let looks = stream::iter(by_one).map(async |id| (id, cardholder_of(pace, client, id).await));
        let looks: Vec<_> = looks.buffer_unordered(AT_ONCE).collect().await;
        for (id, answer) in looks {
            let reason = match answer {
                FoundAnswer::Found(cardholder) => {
                    found.add(&cardholder);
                    continue;
                }
                FoundAnswer::Missing => continue,
                FoundAnswer::Forbidden(reason) => {
                    looked.unreadable = Some(reason);
                    return Ok(());
                }
                FoundAnswer::Limited(reason) => reason.word().to_owned(),
                FoundAnswer::KeyRejected(reason) | FoundAnswer::Failed(reason) => reason,
            };
            return Err(format!("{id} could not be looked at: {reason}"));
        }
        for (id, lines) in &self.named {
            let wrong = match found.by_id(id) {
                Some(known) => wrong_with(known),
                None => Some(format!("{id} is no cardholder of this account")),
            };
            let Some(wrong) = wrong else { continue };
            problems.extend(lines.iter().map(|line| ((*line, "cardholder"), wrong.clone())));
        }
        Ok(())
    }
}

fn look_for_people(
    people: &[(u64, Person)],
    directory: &Directory,
    looked: &mut Looked,
    problems: &mut Problems,
) {
    for (line, person) in people {
        let wrong = match directory.find(person) {
            Match::None => None,
            Match::One(known, _) => {
                looked.keep += 1;
                wrong_with(&known)
            }
            Match::Doubtful(known, by) => Some(doubtful(&known, by).message),
            Match::Several(those, by) => Some(several(&those, by).message),
        };
        if let Some(wrong) = wrong {
            problems.insert((*line, "cardholder[name]"), wrong);
        }
    }
}

/// Why cards of a cardholder cannot be used.
fn wrong_with(known: &Known) -> Option<String> {
    match known.status.as_deref() {
        Some(status) if status != "active" => Some(format!(
            "the cardholder {} is {status}: its cards cannot be used; activate it at Stripe first",
            known.id
        )),
        _ => known.needs.clone(),
    }
}
