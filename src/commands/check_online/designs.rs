//! Whether the cards that rows create can be made: the account may issue, the designs that rows name are in use, and a second line
//! is one that the design's physical bundle has.

use std::collections::BTreeMap;

use futures_util::stream::{self, StreamExt as _};

use super::{AT_ONCE, Problems};
use crate::line::{account_standing, design_of};
use crate::manifest::Row;
use crate::operation::Operation;
use crate::pace::Pace;
use crate::stripe::{Client, Design, SecondLine, StandingAnswer};

const DESIGN: &str = "personalization_design";
const SECOND_LINE: &str = "second_line";

/// A row that names a design.
struct Use {
    line: u64,
    has_second_line: bool,
}

/// What rows' new cards need.
#[derive(Default)]
pub(super) struct Designs {
    uses: BTreeMap<String, Vec<Use>>,
    creates_cards: bool,
}

impl Designs {
    pub(super) fn add(&mut self, row: &Row) {
        let request = &row.request;
        self.creates_cards |= request.operation() == Operation::CreateCard;
        if let Some(design) = request.value(DESIGN) {
            let has_second_line = request.value(SECOND_LINE).is_some();
            self.uses.entry(design.to_owned()).or_default().push(Use { line: row.line, has_second_line });
        }
    }

    /// How many designs there are.
    pub(super) fn count(&self) -> u64 {
        self.uses.len() as u64
    }

    /// How many questions that takes: one for each design, and one for the account.
    pub(super) fn reads(&self) -> u64 {
        self.count() + u64::from(self.creates_cards)
    }

    /// Looks at the account and at each design. Answers what is to be said of the account, and whether that is a problem.
    pub(super) async fn look(
        self,
        pace: &Pace,
        client: &Client,
        problems: &mut Problems,
    ) -> Result<Option<(String, bool)>, String> {
        let said = if self.creates_cards { of_account(account_standing(pace, client).await) } else { None };
        let looks = stream::iter(self.uses).map(|(design, uses)| {
            let (pace, client) = (pace.clone(), client.clone());
            async move {
                let standing = design_of(&pace, &client, &design).await;
                (design, uses, standing)
            }
        });
        let looked: Vec<_> = looks.buffer_unordered(AT_ONCE).collect().await;
        for (design, uses, standing) in looked {
            let (wrong, second_line) = match &standing {
                StandingAnswer::Found(found) => (wrong_with(found), found.second_line()),
                StandingAnswer::Missing => (Some("is no design of this account".to_owned()), None),
                StandingAnswer::Failed(reason) => {
                    return Err(format!("{design} could not be looked at: {reason}"));
                }
            };
            for Use { line, has_second_line } in uses {
                if let Some(wrong) = &wrong {
                    problems.insert((line, DESIGN), format!("{design} {wrong}"));
                    continue;
                }
                let wrong = match (second_line, has_second_line) {
                    (Some(SecondLine::Unsupported), true) => {
                        "is not printed: its design's physical bundle has no second line. Clear it, or name another design"
                    }
                    (Some(SecondLine::Required), false) => {
                        "is missing, and the design's physical bundle requires one: fill it in"
                    }
                    _ => continue,
                };
                problems.insert((line, SECOND_LINE), wrong.to_owned());
            }
        }
        Ok(said)
    }
}

/// What is to be said of the account, and whether that is a problem.
fn of_account(answer: StandingAnswer<crate::stripe::AccountStanding>) -> Option<(String, bool)> {
    match answer {
        StandingAnswer::Found(account) => match account.card_issuing()? {
            "active" => None,
            standing => Some((
                format!(
                    "The account may not issue cards yet: its capability card_issuing is {standing}. The Dashboard says what is missing."
                ),
                true,
            )),
        },
        StandingAnswer::Missing => None,
        StandingAnswer::Failed(reason) => Some((
            format!("Whether the account may issue cards cannot be told with this key: {reason}"),
            false,
        )),
    }
}

/// Why Stripe would refuse a card of a design that stands so.
fn wrong_with(design: &Design) -> Option<String> {
    match design.status.as_str() {
        "active" => None,
        "review" => {
            Some("is still being reviewed by Stripe: cards can be ordered once it is active".to_owned())
        }
        "rejected" => Some("was rejected by Stripe; name one that is active".to_owned()),
        status => Some(format!("is {status}; name one that is active")),
    }
}
