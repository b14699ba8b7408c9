//! The rows of a batch that waits, as whoever approves it reads them: whose each is, what it makes and where that goes, its
//! limits as money, and what may be wrong with it. Never: a PIN or its ciphertext.
//!
//! They are read anew from what is held for each page, from the first on, so that no row lies about in the clear.

use std::path::Path;

use serde::{Deserialize, Serialize};
use tokio::runtime::Handle;
use utoipa::{IntoParams, ToSchema};

use super::Pending;
use super::makers::{MadeView, makers};
use crate::job::{self, JobId};
use crate::ledger::{Kind, Ledger, Scope};
use crate::manifest::batch::RowNames;
use crate::manifest::file_names::name_headings;
use crate::manifest::{InvalidRow, Manifest, Reading, Row};
use crate::operation::currency::money;
use crate::operation::{Operation, PIN_CHOICE, Request};
use crate::serve::check::{Stopped, with_job_id};
use crate::serve::extract::int64;
use crate::serve::held::Held;
use crate::serve::problem::{Kind as ProblemKind, Problem, Wrong};

/// Rows of one answer, and how many if nothing is said.
const ROWS_MAX: usize = 500;
const ROWS_USUAL: usize = 50;
/// Longest text that rows are searched for, in bytes.
const SEARCHED_BYTES_MAX: usize = 255;
/// Longest text of a row that is shown, in characters.
const SHOWN_MAX: usize = 200;

/// Which of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(in crate::serve) enum HeldOnly {
    /// Rows of which something may be wrong.
    Warned,
    /// Rows with problems, which are left out.
    LeftOut,
}

/// Which rows.
#[derive(Debug, Clone, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(in crate::serve) struct HeldRowsQuery {
    /// Only these rows.
    #[param(inline)]
    pub(in crate::serve) only: Option<HeldOnly>,
    /// Only rows with this in their `row_id`, in whose they are, or in where their cards go.
    #[param(max_length = 255)]
    pub(in crate::serve) q: Option<String>,
    /// Most rows of this answer.
    #[param(minimum = 1, maximum = 500)]
    pub(in crate::serve) limit: Option<usize>,
    /// The `next` of the answer before this one.
    #[serde(default, deserialize_with = "int64")]
    pub(in crate::serve) after: Option<u64>,
}

/// What a row would do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum Makes {
    /// A virtual card.
    VirtualCard,
    /// A physical card.
    PhysicalCard,
    /// A cardholder without a card.
    Cardholder,
    /// A card is changed.
    Change,
    /// A card is cancelled, for ever.
    Cancel,
}

/// How a card gets its PIN.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum PinFrom {
    /// An encrypted PIN stands in the file.
    File,
    /// The cardholder chooses it.
    Cardholder,
}

/// A limit of what can be spent, or another amount.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
struct AmountView {
    /// As money: `500.00 EUR`; in the smallest unit where the row names no currency.
    #[schema(example = "500.00 EUR")]
    amount: String,
    /// Over what time it counts, as Stripe has it.
    interval: Option<String>,
}

/// A row that waits.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(in crate::serve) struct HeldRowView {
    /// The file's line, from 1.
    line: u64,
    /// The data row, from 1.
    row: u64,
    /// Its `row_id`, if it has one.
    row_id: Option<String>,
    /// Whether it has what it asks for in this batch already: nothing is called for it.
    done: bool,
    /// Whether it is left out, since there is something wrong with it.
    left_out: bool,
    /// Whose it is: the name that the file has, or else the cardholder's id at Stripe.
    person: Option<String>,
    /// What it makes; null for a row that is left out.
    makes: Option<Makes>,
    /// The card that is changed or replaced.
    card: Option<String>,
    /// The row that made that card; null where the ledger does not know it, or would have to look through too many rows.
    made_by: Option<MadeView>,
    /// Where the card is sent, as one line; null where nothing is sent.
    destination: Option<String>,
    /// Its amounts.
    amounts: Vec<AmountView>,
    /// How the card gets its PIN; null without one.
    pin: Option<PinFrom>,
    /// What a change changes, by Stripe's parameters.
    changes: Vec<String>,
    /// What is wrong with it: so it is left out.
    problems: Vec<Wrong>,
    /// What may be wrong with it.
    warnings: Vec<Wrong>,
}

/// Some of the rows that wait, in the file's order.
#[derive(Debug, Clone, Default, Serialize, ToSchema)]
pub(in crate::serve) struct HeldRowsView {
    /// The rows.
    rows: Vec<HeldRowView>,
    /// Give this as `after` for the rows that follow; null if these were the last.
    next: Option<u64>,
    /// What an approval of just these rows names.
    digest: String,
}

/// One page of the rows that wait under a name; blocks on reading them, and on the ledger.
pub(in crate::serve) fn page(
    pending: &Pending,
    (ledger, scope, runtime): (&Ledger, &Scope, &Handle),
    query: &HeldRowsQuery,
) -> Result<HeldRowsView, Problem> {
    let limit = query.limit.unwrap_or(ROWS_USUAL);
    if !(1..=ROWS_MAX).contains(&limit) {
        return Err(Problem::new(ProblemKind::BadRequest, format!("`limit` is from 1 to {ROWS_MAX}")));
    }
    let q = query.q.as_deref().unwrap_or_default().trim().to_lowercase();
    if q.len() > SEARCHED_BYTES_MAX {
        return Err(Problem::new(
            ProblemKind::BadRequest,
            format!("`q` has at most {SEARCHED_BYTES_MAX} bytes"),
        ));
    }
    let held = pending.now().held.as_ref().map(Held::shared);
    let Some(held) = held else {
        return Err(Problem::new(
            ProblemKind::Conflict,
            "its rows are not held any more, or are being looked at: look again",
        ));
    };
    let read = read(&held, &pending.name, &pending.warnings, (query, &q), limit);
    let (rows, next) =
        read.map_err(|_| Problem::new(ProblemKind::Internal, "the rows that are held cannot be read"))?;
    let ids: Vec<JobId> = rows.iter().filter_map(|(id, _)| id.clone()).collect();
    let mut known = runtime.block_on(ledger.look_up_jobs(scope, &ids))?.into_iter();
    let mut done = |id: Option<JobId>| {
        let known = id.and_then(|_| known.next().flatten());
        known.is_some_and(|known| known.state.kind() == Kind::Done)
    };
    let mut rows: Vec<_> = rows.into_iter().map(|(id, row)| HeldRowView { done: done(id), ..row }).collect();
    let cards = rows.iter().filter_map(|row| row.card.clone()).collect();
    let made = runtime.block_on(makers(ledger, (scope, &pending.name), cards))?;
    for row in &mut rows {
        row.made_by = row.card.as_ref().and_then(|card| made.get(card).cloned());
    }
    Ok(HeldRowsView { rows, next, digest: pending.upload.digest.clone() })
}

/// A row with the id of its job, if it makes one.
type Named = (Option<JobId>, HeldRowView);

fn read(
    held: &Held,
    batch: &job::Batch,
    beside: &[Wrong],
    (query, q): (&HeldRowsQuery, &str),
    limit: usize,
) -> Result<(Vec<Named>, Option<u64>), Stopped> {
    let manifest = Manifest::read(Path::new("upload"), held.look(), &with_names(held));
    let after = query.after.unwrap_or(0);
    let mut rows: Vec<Named> = Vec::new();
    let mut names = RowNames::new(batch.clone());
    for row in manifest.map_err(Stopped::NoManifest)?.rows() {
        let number = row.as_ref().map_or_else(|row| row.number, |row| row.number);
        // A row without a `row_id` is called by how many before it are like it.
        let named = row.as_ref().ok().filter(|row| number > after || row.row_id.is_none());
        let id = named.and_then(|row| names.id_of(row, || row.content()).ok());
        if number <= after {
            continue;
        }
        let mut view = match row.and_then(|row| with_job_id(row, batch)) {
            Ok(row) => HeldRowView::of(row),
            Err(row) => HeldRowView::left_out(row),
        };
        view.add(beside);
        if !view.is_wanted(query.only) || !view.has(q) {
            continue;
        }
        if rows.len() == limit {
            let next = rows.last().map(|(_, row)| row.row);
            return Ok((rows, next));
        }
        rows.push((id, view));
    }
    Ok((rows, None))
}

impl HeldRowView {
    fn of(row: Row) -> Self {
        let Row { number, line, row_id, first, request, pin, person, warnings, .. } = row;
        let name = |of: &Request| of.value("name").map(str::to_owned);
        let to = request.value("shipping[name]").map(str::to_owned);
        let named = person.or_else(|| first.as_ref().and_then(name)).or_else(|| name(&request)).or(to);
        let person = named.or_else(|| request.value("cardholder").map(str::to_owned));
        let makes = match (request.operation(), request.value("type"), request.value("status")) {
            (Operation::CreateCard, Some("physical"), _) => Makes::PhysicalCard,
            (Operation::CreateCard, ..) => Makes::VirtualCard,
            (Operation::CreateCardholder, ..) => Makes::Cardholder,
            (Operation::UpdateCard, _, Some("canceled")) => Makes::Cancel,
            (Operation::UpdateCard, ..) => Makes::Change,
        };
        let pin = match (&pin, request.chooses_pin()) {
            (Some(_), _) => Some(PinFrom::File),
            (None, true) => Some(PinFrom::Cardholder),
            (None, false) => None,
        };
        let changes = match request.operation() {
            Operation::UpdateCard => request.names().filter(|name| *name != PIN_CHOICE).map(shown).collect(),
            Operation::CreateCard | Operation::CreateCardholder => Vec::new(),
        };
        let card = request.target.clone().or_else(|| request.value("replacement_for").map(str::to_owned));
        let amounts = first.iter().chain([&request]).flat_map(amounts).collect();
        Self {
            line,
            row: number,
            row_id,
            done: false,
            left_out: false,
            person: person.as_deref().map(shown),
            makes: Some(makes),
            card,
            made_by: None,
            destination: destination(&request),
            amounts,
            pin,
            changes,
            problems: Vec::new(),
            warnings: warnings.into_iter().map(Wrong::from).collect(),
        }
    }

    fn left_out(row: InvalidRow) -> Self {
        let InvalidRow { number, line, row_id, person, problems, warnings } = row;
        Self {
            line,
            row: number,
            row_id,
            done: false,
            left_out: true,
            person: person.as_deref().map(shown),
            makes: None,
            card: None,
            made_by: None,
            destination: None,
            amounts: Vec::new(),
            pin: None,
            changes: Vec::new(),
            problems: problems.into_iter().map(Wrong::from).collect(),
            warnings: warnings.into_iter().map(Wrong::from).collect(),
        }
    }

    /// Adds what was found of it beside other rows, when the whole file was checked.
    fn add(&mut self, beside: &[Wrong]) {
        for wrong in beside.iter().filter(|wrong| wrong.row == Some(self.row)) {
            let is_told = |told: &Wrong| told.column == wrong.column && told.code == wrong.code;
            if !self.warnings.iter().any(is_told) {
                self.warnings.push(wrong.clone());
            }
        }
    }

    fn is_wanted(&self, only: Option<HeldOnly>) -> bool {
        match only {
            None => true,
            Some(HeldOnly::Warned) => !self.warnings.is_empty(),
            Some(HeldOnly::LeftOut) => self.left_out,
        }
    }

    fn has(&self, q: &str) -> bool {
        let texts = [&self.row_id, &self.person, &self.destination, &self.card];
        q.is_empty() || texts.into_iter().flatten().any(|text| text.to_lowercase().contains(q))
    }
}

/// How the file is read, with whose its rows are from a column of names too that no card gets.
fn with_names(held: &Held) -> Reading {
    let is_told = held.reading.columns.as_ref().is_some_and(|columns| columns.tells_persons());
    if is_told || !held.reading.person.is_empty() {
        return held.reading.clone();
    }
    Reading { person: name_headings(held.look(), &held.reading), ..held.reading.clone() }
}

/// A text as it is shown.
fn shown(text: &str) -> String {
    text.chars().take(SHOWN_MAX).collect()
}

/// Where a request's card is sent.
fn destination(request: &Request) -> Option<String> {
    let parts = [
        "business_name",
        "address][line1",
        "address][line2",
        "address][postal_code",
        "address][city",
        "address][state",
        "address][country",
    ];
    let parts = parts.map(|part| request.value(&format!("shipping[{part}]")));
    let parts: Vec<&str> = parts.into_iter().flatten().filter(|part| !part.is_empty()).collect();
    (!parts.is_empty()).then(|| shown(&parts.join(", ")))
}

/// A request's amounts, as money.
fn amounts(request: &Request) -> Vec<AmountView> {
    let currency = request.value("currency");
    let currency = currency.or_else(|| request.value("spending_controls[spending_limits_currency]"));
    let amount = |name: &str| {
        let of = name.strip_suffix("[amount]")?;
        let value = request.value(name)?;
        let amount = match (currency, value.parse()) {
            (Some(currency), Ok(smallest)) => money(smallest, currency),
            _ => format!("{} of the currency’s smallest unit", shown(value)),
        };
        Some(AmountView { amount, interval: request.value(&format!("{of}[interval]")).map(shown) })
    };
    request.names().filter_map(amount).collect()
}
