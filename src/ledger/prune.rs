//! What a ledger holds for long, and need not, is taken out of it.
//!
//! No row ever goes: a row's id is what keeps its card from being made a second time, however late its manifest comes again. Nor goes
//! anything that a decision is made by: a row's state, what it yielded, the digests of what was asked for and of its PIN's ciphertext,
//! its generation and times, its refusal's code. What goes is what was said beside that, of rows that ended long ago: Stripe's id of
//! the deciding request and the sentence of a refusal; and of cards that have come to the end of their way how they were sent.
//! The audit log stays: its own triggers refuse to let an entry go.
//!
//! A row is looked at again by the very statement that changes it, so that a worker may go on meanwhile.

use std::time::Duration;

use super::tables::{TABLES, Table, Value, Values};
use super::whole::{Access, Whole};
use super::{LedgerError, store};
use crate::clock::Time;
use crate::shipping::{KnownShipping, Shipping};

/// What stands for a refusal's sentence that was taken out.
pub const PRUNED: &str = "the reason is no longer kept (embosser ledger prune)";

/// Least age. Stripe forgets an idempotency key after a day, or after thirty in its newer API; whoever asks Stripe about a call names its
/// request's id, which stays for longer than both.
pub const AGE_MIN: Duration = Duration::from_secs(35 * 24 * 3600);

/// Refusals whose sentence names what a person must look at, or is told again to whoever sends the job again.
const SENTENCES_KEPT: [&str; 5] = [
    "job_conflict",
    "superseded",
    "several_cardholders",
    "cardholder_has_other_name",
    "cardholder_has_other_email",
];

/// With what the names of the metadata begin that say where a card is.
const SHIPPING: &str = "shipping:";

/// What was, or would be, taken out, and what stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Prunable {
    /// Rows that lose their request's id or their refusal's sentence.
    pub rows: u64,
    /// Cards that lose how they were sent.
    pub shipments: u64,
    /// Rows that stay, with what keeps their effect from being had twice.
    pub kept: u64,
    /// Those of them that have not ended, or wait for a PIN.
    pub not_ended: u64,
    /// Entries of the audit log.
    pub audit: u64,
}

/// Which rows may lose what: a condition on `steps`, in both databases. Its parameter is the time before which they were written.
pub(super) fn condition(parameter: &str) -> String {
    let kept = SENTENCES_KEPT.map(|code| format!("'{code}'")).join(", ");
    format!(
        "written_ms < {parameter} AND (state = 'done' OR state = 'refused' AND error_code NOT IN ('{}', {kept}))
         AND (request_id IS NOT NULL OR error_message IS NOT NULL AND error_message <> '{PRUNED}')",
        store::AWAITING_PIN
    )
}

/// What of a row's columns is changed.
pub(super) fn assignments() -> String {
    format!(
        "request_id = NULL, error_message = CASE WHEN error_message IS NULL THEN NULL ELSE '{PRUNED}' END"
    )
}

/// Whether a column of a row may have been changed by this since it was exported.
pub(super) fn may_have_changed(column: &str, now: &Value) -> bool {
    match column {
        "request_id" => *now == Value::Null,
        "error_message" => *now == Value::Text(PRUNED.to_owned()),
        _ => false,
    }
}

/// What would be taken out of what was written before that time; nothing is changed.
///
/// # Errors
/// If the ledger does not serve, or cannot be read.
pub async fn prunable(url: &str, before: Time) -> Result<Prunable, LedgerError> {
    let mut ledger = serving(url, Access::Reading).await?;
    let found = count(&mut ledger, before).await;
    ledger.close().await;
    found
}

async fn serving(url: &str, access: Access) -> Result<Whole, LedgerError> {
    let mut ledger = Whole::open(url, access).await?;
    match ledger.standing().await? {
        None => Ok(ledger),
        Some(standing) => Err(standing.error(ledger.name())),
    }
}

async fn count(ledger: &mut Whole, before: Time) -> Result<Prunable, LedgerError> {
    let [steps, _, audit, metadata] = &TABLES;
    let parameter = if ledger.is_on_server() { "$1" } else { "?1" };
    let mut number = async |condition: &str| {
        ledger.number(format!("SELECT count(*) FROM steps WHERE {condition}"), before.unix_ms()).await
    };
    let rows = number(&condition(parameter)).await?;
    // The parameter stands in each, as the number must be used.
    let not_ended = number(&format!(
        "(state = 'begun' OR error_code = '{}') AND {parameter} IS NOT NULL",
        store::AWAITING_PIN
    ))
    .await?;
    let (kept, audit) = (ledger.count(steps).await?, ledger.count(audit).await?);
    ledger.begin_view().await?;
    let (mut shipments, mut names) = (0, ledger.rows(metadata, Some(vec![SHIPPING.into()])).await?);
    while let Some(piece) = shipping(names.next().await?) {
        shipments += piece.iter().filter_map(|row| thin(row, before)).count() as u64;
    }
    ledger.end_view().await?;
    Ok(Prunable { rows, shipments, kept, not_ended, audit })
}

/// Takes it out; `tell` is told of each row that was looked at, and of all that there are.
///
/// # Errors
/// If the ledger does not serve, or fails: what was taken out until then is, and the same again goes on.
pub async fn prune(url: &str, before: Time, tell: impl Fn(u64, u64)) -> Result<Prunable, LedgerError> {
    let mut reading = serving(url, Access::Writing).await?;
    let mut writing = serving(url, Access::Writing).await?;
    let pruned = run(&mut reading, &mut writing, before, &tell).await;
    reading.close().await;
    writing.close().await;
    pruned
}

async fn run(
    reading: &mut Whole,
    writing: &mut Whole,
    before: Time,
    tell: &impl Fn(u64, u64),
) -> Result<Prunable, LedgerError> {
    let [steps, _, _, metadata] = &TABLES;
    let mut pruned = count(reading, before).await?;
    (pruned.rows, pruned.shipments) = (0, 0);
    let mut seen = 0;
    reading.begin_view().await?;
    let mut rows = reading.rows(steps, None).await?;
    loop {
        let piece = rows.next().await?;
        if piece.is_empty() {
            break;
        }
        seen += piece.len() as u64;
        let old = |row: &&Values| row[steps.at("written_ms")] < Value::Number(before.unix_ms());
        let keys: Vec<Values> = piece.iter().filter(old).map(|row| steps.key_of(row).to_vec()).collect();
        if !keys.is_empty() {
            pruned.rows += writing.thin(steps, keys, before).await?;
        }
        tell(seen, pruned.kept);
    }
    let mut names = reading.rows(metadata, Some(vec![SHIPPING.into()])).await?;
    while let Some(piece) = shipping(names.next().await?) {
        let changes: Vec<(Values, String)> =
            piece.into_iter().filter_map(|row| thin(&row, before).map(|thinned| (row, thinned))).collect();
        pruned.shipments += writing.replace_metadata(changes).await?;
    }
    reading.end_view().await?;
    Ok(pruned)
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

/// The rows of a piece that say where a card is; none if there are no more.
fn shipping(piece: Vec<Values>) -> Option<Vec<Values>> {
    let is_of_shipping =
        |row: &Values| matches!(row.first(), Some(Value::Text(name)) if name.starts_with(SHIPPING));
    let of_shipping: Vec<Values> = piece.into_iter().filter(is_of_shipping).collect();
    (!of_shipping.is_empty()).then_some(of_shipping)
}

/// What is kept of where a card is, if it has come to its end, long ago, and there is more to it than that.
fn thin(row: &[Value], before: Time) -> Option<String> {
    let Some(Value::Text(text)) = row.get(1) else { return None };
    let known: KnownShipping = serde_json::from_str(text).ok()?;
    if !known.is_final() || known.at.saturating_mul(1000) >= before.unix_ms() {
        return None;
    }
    let shipping = known.shipping.as_ref()?;
    let thinned = Shipping { status: shipping.status.clone(), ..Shipping::default() };
    let is_more = *shipping != thinned;
    let thinned = KnownShipping { shipping: Some(thinned), ..known };
    is_more.then(|| serde_json::to_string(&thinned).expect("texts and numbers always serialise"))
}

/// The statement that thins one row by its key; SQLite's.
pub(super) fn of_one(table: &Table) -> String {
    let key = table.columns[..table.key].iter().map(|(name, _)| format!("{name} = ?"));
    let key = key.collect::<Vec<_>>().join(" AND ");
    format!("UPDATE {} SET {} WHERE {key} AND {}", table.name, assignments(), condition("?"))
}
