//! How the cards that rows change or replace stand, each looked at once.

use std::collections::BTreeMap;

use futures_util::stream::{self, StreamExt as _};

use super::{AT_ONCE, Problems};
use crate::line::standing_of;
use crate::manifest::Row;
use crate::operation::Operation;
use crate::pace::Pace;
use crate::stripe::{CardStanding, Client, StandingAnswer};

/// Programs whose cards take a new PIN only after one transaction with the old one.
const OLD_PIN_FIRST: [&str; 5] = ["IE", "GB", "FR", "MX", "AE"];

/// What a row does with a card that exists.
struct Use {
    line: u64,
    column: &'static str,
    status: Option<String>,
    is_only_metadata: bool,
    has_pin: bool,
    reason: Option<String>,
    cancels_first: bool,
}

/// What rows do with cards that exist, by card.
#[derive(Default)]
pub(super) struct Cards {
    uses: BTreeMap<String, Vec<Use>>,
}

impl Cards {
    pub(super) fn add(&mut self, row: &Row) {
        if let Some((card, of_row)) = use_of(row) {
            self.uses.entry(card).or_default().push(of_row);
        }
    }

    pub(super) fn count(&self) -> u64 {
        self.uses.len() as u64
    }

    /// Looks at each; answers of how many a new PIN works only after a transaction with the old one.
    pub(super) async fn look(
        self,
        pace: &Pace,
        client: &Client,
        problems: &mut Problems,
    ) -> Result<u64, String> {
        let looks = stream::iter(self.uses).map(|(card, uses)| {
            let (pace, client) = (pace.clone(), client.clone());
            async move {
                let standing = standing_of(&pace, &client, &card).await;
                (card, uses, standing)
            }
        });
        let looked: Vec<_> = looks.buffer_unordered(AT_ONCE).collect().await;
        let mut old_pin_first = 0;
        for (card, uses, standing) in looked {
            for of_row in uses {
                let wrong = match &standing {
                    StandingAnswer::Found(standing) => {
                        let is_late =
                            standing.country().is_some_and(|country| OLD_PIN_FIRST.contains(&country));
                        old_pin_first += u64::from(is_late && of_row.has_pin);
                        wrong_with(&of_row, standing)
                    }
                    StandingAnswer::Missing => Some("is no card of this account".to_owned()),
                    StandingAnswer::Failed(reason) => {
                        return Err(format!("{card} could not be looked at: {reason}"));
                    }
                };
                if let Some(wrong) = wrong {
                    problems.insert((of_row.line, of_row.column), format!("{card} {wrong}"));
                }
            }
        }
        Ok(old_pin_first)
    }
}

fn use_of(row: &Row) -> Option<(String, Use)> {
    let request = &row.request;
    let (column, card) = match request.operation() {
        Operation::UpdateCard => ("card", request.target.clone()?),
        Operation::CreateCard => ("replacement_for", request.value("replacement_for")?.to_owned()),
        Operation::CreateCardholder => return None,
    };
    let has_pin = row.pin.is_some() || request.chooses_pin();
    let of_row = Use {
        line: row.line,
        column,
        status: request.value("status").map(str::to_owned),
        is_only_metadata: !has_pin && request.names().all(|name| name.starts_with("metadata[")),
        has_pin: has_pin && column == "card",
        reason: request.value("replacement_reason").map(str::to_owned),
        cancels_first: request.cancels_replaced(),
    };
    Some((card, of_row))
}

/// Why Stripe would refuse what a row does with a card that stands so.
fn wrong_with(of_row: &Use, standing: &CardStanding) -> Option<String> {
    let is_canceled = standing.status == "canceled";
    let wrong = match (of_row.column, of_row.reason.as_deref()) {
        ("card", _) if is_canceled && of_row.status.as_deref() == Some("active") => {
            "is cancelled, for ever: it cannot be activated; order a new card"
        }
        ("card", _) if is_canceled && !of_row.is_only_metadata => {
            "is cancelled, for ever: only its metadata can be changed"
        }
        ("card", _) => return None,
        _ if standing.replaced_by.is_some() => "was replaced already",
        (_, Some("damaged")) if standing.kind == "virtual" => "is virtual, and cannot be damaged",
        (_, Some("lost" | "stolen")) if is_canceled && of_row.cancels_first => {
            "is cancelled already: leave cancel_replaced empty"
        }
        (_, Some("lost" | "stolen")) if !is_canceled && !of_row.cancels_first => {
            "must be cancelled before it can be replaced: set cancel_replaced to true"
        }
        _ => return None,
    };
    Some(wrong.to_owned())
}
