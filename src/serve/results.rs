//! A batch's rows from the ledger: page by page as JSON, or all of them as CSV.

use std::collections::HashMap;

use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use tokio::sync::OwnedSemaphorePermit;
use utoipa::{IntoParams, ToSchema};

use super::Server;
use super::download::{self, Pages};
use super::problem::{Kind as Wrong, Problem};
use crate::job::{self, JobId};
use crate::ledger::{Kind, Only, Row};
use crate::manifest::cancelled::cancelled;
use crate::outcome::{Ended, Outcome, Output};
use crate::results::{self, Line};
use crate::shipping::Shipping;

/// Rows of one answer, and how many if nothing is said.
const ROWS_MAX: u32 = 1000;
const ROWS_USUAL: u32 = 100;
/// Longest text that rows are searched for.
pub(super) const SEARCHED_BYTES_MAX: usize = 255;

/// How a row ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum OutcomeWord {
    /// It has a card.
    Issued,
    /// The card was changed.
    Updated,
    /// There is exactly one cardholder.
    Created,
    /// It has none.
    Refused,
    /// Its end is not known yet.
    Unresolved,
    /// Its cardholder is to choose the PIN.
    AwaitingPin,
}

/// Which ends are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum Ends {
    /// What was done: issued, updated or created.
    Issued,
    /// What has no effect.
    Refused,
    /// What is not known yet.
    Unresolved,
    /// What waits for its cardholder's PIN.
    AwaitingPin,
}

impl Ends {
    /// What a file of these, or of all, is called after its batch.
    pub(super) fn file_word(ends: Option<Self>) -> &'static str {
        match ends {
            None => "results",
            Some(Self::Issued) => "issued",
            Some(Self::Refused) => "refused",
            Some(Self::Unresolved) => "unresolved",
            Some(Self::AwaitingPin) => "awaiting-pin",
        }
    }
}

impl From<Ends> for Kind {
    fn from(ends: Ends) -> Self {
        match ends {
            Ends::Issued => Self::Done,
            Ends::Refused => Self::Refused,
            Ends::Unresolved => Self::Begun,
            Ends::AwaitingPin => Self::AwaitingPin,
        }
    }
}

/// Which rows.
#[derive(Debug, Clone, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct RowsQuery {
    /// Only rows that ended so.
    #[param(inline)]
    pub(super) outcome: Option<Ends>,
    /// Only rows with a note.
    #[serde(default)]
    pub(super) noted: bool,
    /// Only rows with this in their `row_id` or job id, or in the id, cardholder or last digits of their card.
    #[param(max_length = 255)]
    pub(super) q: Option<String>,
    /// Most rows of this answer.
    #[param(minimum = 1, maximum = 1000)]
    pub(super) limit: Option<u32>,
    /// The `next` of the answer before this one.
    pub(super) after: Option<String>,
}

/// Which rows of the results.
#[derive(Debug, Clone, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ResultsQuery {
    /// Only rows that ended so.
    #[param(inline)]
    pub(super) outcome: Option<Ends>,
}

/// What came of a job: its card, or why there is none.
#[derive(Debug, Clone, Default, Serialize, ToSchema)]
pub(super) struct EndView {
    /// Stripe's id of its card.
    pub(super) card_id: Option<String>,
    /// Stripe's id of the cardholder that was created, or whose card it is.
    pub(super) cardholder_id: Option<String>,
    /// What a change asked for, by its parameters' names.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) changed: Vec<String>,
    /// The last four digits of the card's number.
    pub last4: Option<String>,
    /// The card's expiry, `MM/YYYY`.
    pub(super) expiry: Option<String>,
    /// Why there is no card: a code to switch on.
    pub(super) code: Option<String>,
    /// Why, for people.
    pub(super) message: Option<String>,
    /// Calls made for it.
    pub(super) attempts: u32,
    /// Stripe's id of the request that decided it.
    pub(super) request_id: Option<String>,
    /// What a reader must know beside it: what a later upload wanted differently, for instance.
    pub(super) note: Option<String>,
}

/// One job's end.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(super) struct RowView {
    /// The data row, from 1; null for a job that was sent alone.
    pub(super) row: Option<u64>,
    /// Its `row_id`.
    pub(super) row_id: Option<String>,
    /// The job's id.
    pub(super) job: String,
    /// How it ended.
    pub(super) outcome: OutcomeWord,
    /// What came of it.
    #[serde(flatten)]
    pub(super) end: EndView,
    /// Where its card is.
    #[serde(flatten)]
    shipping: ShippingView,
    /// The job that cancelled its card since; absent while none did.
    #[serde(skip_serializing_if = "Option::is_none")]
    cancelled_by: Option<String>,
}

/// Where a physical card is, as far as that is known: what is not is absent.
#[derive(Debug, Clone, Default, Serialize, ToSchema)]
struct ShippingView {
    /// `pending`, `submitted`, `shipped`, `delivered`, `returned`, `failure` or `canceled`.
    #[serde(skip_serializing_if = "Option::is_none")]
    shipping_status: Option<String>,
    /// The carrier's number for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    tracking_number: Option<String>,
    /// The carrier's page about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    tracking_url: Option<String>,
    /// When it is likely to arrive, in UTC.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(format = DateTime)]
    eta: Option<String>,
}

impl From<&Shipping> for ShippingView {
    fn from(shipping: &Shipping) -> Self {
        Self {
            shipping_status: shipping.status.clone(),
            tracking_number: shipping.tracking_number.clone(),
            tracking_url: shipping.tracking_url.clone(),
            eta: shipping.eta_in_utc(),
        }
    }
}

impl RowView {
    fn with_shipping(mut self, shipping: &HashMap<String, Shipping>) -> Self {
        let of_card = self.end.card_id.as_ref().and_then(|card| shipping.get(card));
        self.shipping = of_card.map(ShippingView::from).unwrap_or_default();
        self
    }

    fn with_cancelled(mut self, cancelled: &HashMap<String, JobId>) -> Self {
        let of_card = self.end.card_id.as_ref().filter(|_| self.outcome == OutcomeWord::Issued);
        self.cancelled_by = of_card.and_then(|card| cancelled.get(card)).map(ToString::to_string);
        self
    }

    pub(super) fn of_row(row: &Row) -> Self {
        let Ended { outcome, attempts, request_id, note, .. } = row.ended();
        let word = match &outcome {
            Outcome::Done(Output::Issued(_)) => OutcomeWord::Issued,
            Outcome::Done(Output::Updated(_)) => OutcomeWord::Updated,
            Outcome::Done(Output::Created(_)) => OutcomeWord::Created,
            Outcome::Refused(_) => OutcomeWord::Refused,
            Outcome::Unresolved(_) => OutcomeWord::Unresolved,
            Outcome::AwaitingPin(_) => OutcomeWord::AwaitingPin,
        };
        let cardholder_id = match &outcome {
            Outcome::Done(output) => output.cardholder().map(str::to_owned),
            Outcome::Refused(_) | Outcome::Unresolved(_) | Outcome::AwaitingPin(_) => None,
        };
        let (card, refusal) = match outcome {
            Outcome::Done(Output::Issued(card) | Output::Updated(card)) => (Some(card), None),
            Outcome::Done(Output::Created(_)) | Outcome::AwaitingPin(_) => (None, None),
            Outcome::Refused(refusal) | Outcome::Unresolved(refusal) => (None, Some(refusal)),
        };
        let (code, message) =
            refusal.map_or((None, None), |refusal| (Some(refusal.code.into_owned()), Some(refusal.message)));
        let end = EndView {
            changed: card.as_ref().map(|card| card.changed.clone()).unwrap_or_default(),
            expiry: card.as_ref().map(|card| format!("{:02}/{}", card.exp_month, card.exp_year)),
            last4: card.as_ref().map(|card| card.last4.clone()),
            card_id: card.map(|card| card.id),
            cardholder_id,
            code,
            message,
            attempts,
            request_id,
            note,
        };
        Self {
            row: row.row,
            row_id: row.row_id.clone(),
            job: row.id.to_string(),
            outcome: word,
            end,
            shipping: ShippingView::default(),
            cancelled_by: None,
        }
    }
}

/// Some of a batch's rows, in the manifest's order.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(super) struct RowsView {
    /// The rows.
    pub(super) rows: Vec<RowView>,
    /// Give this as `after` for the rows that follow; null if these were the last.
    pub(super) next: Option<String>,
}

type Place = (u64, JobId);

fn cursor(row: &Row) -> String {
    URL_SAFE_NO_PAD.encode(format!("{}:{}", row.row.unwrap_or(0), row.id))
}

fn place_of(cursor: &str) -> Result<Place, Problem> {
    let place = || {
        let text = String::from_utf8(URL_SAFE_NO_PAD.decode(cursor).ok()?).ok()?;
        let (row, id) = text.split_once(':')?;
        // What the ledgers' integers hold.
        let row = row.parse::<u64>().ok().filter(|row| i64::try_from(*row).is_ok())?;
        Some((row, JobId::new(id).ok()?))
    };
    place().ok_or_else(|| Problem::new(Wrong::BadRequest, "`after` is not the `next` of an earlier answer"))
}

/// One page of rows.
pub(super) async fn page(server: &Server, batch: &job::Batch, query: RowsQuery) -> Result<RowsView, Problem> {
    let limit = query.limit.unwrap_or(ROWS_USUAL);
    if !(1..=ROWS_MAX).contains(&limit) {
        return Err(Problem::new(Wrong::BadRequest, format!("`limit` is from 1 to {ROWS_MAX}")));
    }
    let after = query.after.as_deref().map(place_of).transpose()?;
    let with = query.q.map(|text| text.trim().to_owned()).filter(|text| !text.is_empty());
    if with.as_ref().is_some_and(|text| text.len() > SEARCHED_BYTES_MAX || text.contains('\0')) {
        return Err(Problem::new(Wrong::BadRequest, format!("`q` has at most {SEARCHED_BYTES_MAX} bytes")));
    }
    // One more than asked for tells whether there are more.
    let mut found = server
        .parts
        .views
        .batch_page(
            server.scope(),
            batch,
            after,
            Only { kind: query.outcome.map(Kind::from), noted: query.noted, with },
            limit + 1,
        )
        .await?;
    let more = found.len() > limit as usize;
    found.truncate(limit as usize);
    let next = found.last().filter(|_| more).map(cursor);
    let shipping = server.parts.views.shipping_of_rows(server.scope(), &found).await?;
    let cancelled = cancelled(&server.parts.views, server.scope(), &found).await?;
    let view = |row| RowView::of_row(row).with_shipping(&shipping).with_cancelled(&cancelled);
    let rows = found.iter().map(view).collect();
    Ok(RowsView { rows, next })
}

/// All rows as CSV, read while they are sent.
pub(super) fn csv(
    server: &Server,
    batch: &job::Batch,
    outcome: Option<Ends>,
    place: OwnedSemaphorePermit,
) -> Response {
    let batch = batch.clone();
    let name = format!("{batch}.{}.csv", Ends::file_word(outcome));
    download::csv(server, &name, place, async move |server, pages| {
        send_pages(&server, &batch, outcome, &pages).await.map(|()| pages)
    })
}

async fn send_pages(
    server: &Server,
    batch: &job::Batch,
    outcome: Option<Ends>,
    to: &Pages,
) -> Result<(), String> {
    to.send(results::head()).await?;
    let only = Only { kind: outcome.map(Kind::from), ..Only::default() };
    let mut pages = server.parts.views.pages(server.scope(), batch, only);
    while let Some(rows) = pages.next().await.map_err(|error| error.to_string())? {
        let shipping = server.parts.views.shipping_of_rows(server.scope(), &rows).await;
        let shipping = shipping.map_err(|error| error.to_string())?;
        let cancelled = cancelled(&server.parts.views, server.scope(), &rows).await;
        let cancelled = cancelled.map_err(|error| error.to_string())?;
        let mut lines = Vec::new();
        for row in &rows {
            let ended = row.ended();
            let line = Line::of_row(row, &ended).with_shipping(&shipping).with_cancelled(&cancelled);
            lines.extend(line.csv());
        }
        to.send(lines).await?;
    }
    Ok(())
}
