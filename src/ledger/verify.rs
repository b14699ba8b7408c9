//! Whether a ledger is sound: its file, what its rows say, and, held against an export, that nobody altered or lost any of them.
//!
//! What a row says is looked at by what embosser itself can write: a row that it cannot have written is told of. Against an export of
//! before a row may have gone on since (its version is higher) and new ones may have come; none may be missing or put back, and none
//! that was done may say something else. Never: anything changed.

use std::io::BufRead;

use sha2::{Digest as _, Sha256};

use super::export::{FORMAT, Head, Sum};
use super::tables::{Reading, TABLES, Table, Value, Values};
use super::whole::{Access, Whole};
use super::{LedgerError, State, prune, store};
use crate::content::hex;
use crate::job::Step;

/// Findings that are told one by one.
const TOLD_MAX: usize = 100;

/// Why a ledger could not be verified.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// It could not be read.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// What it is held against.
    #[error("the export, line {line}: {reason}")]
    Export {
        /// Counted from 1.
        line: u64,
        /// What is wrong with it.
        reason: String,
    },
}

/// Against what a ledger is held.
pub enum Verify<'e> {
    /// Nothing.
    Alone,
    /// An export, since which it may have gone on.
    Since(&'e mut dyn BufRead),
    /// An export, which it must be the same as.
    SameAs(&'e mut dyn BufRead),
}

/// Something that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Where: a table and a row's key, or the database.
    pub place: String,
    /// What.
    pub reason: String,
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Verified {
    /// Of each table: its name, its rows, and SHA-256 of them as an export has it.
    pub tables: Vec<(&'static str, u64, String)>,
    /// What is wrong, the first ones.
    pub findings: Vec<Finding>,
    /// How much else is.
    pub more: u64,
    /// Rows that have gone on since the export.
    pub went_on: u64,
    /// Rows that have come since.
    pub came: u64,
    /// Where the ledger is now, or that it is being moved, if it does not serve.
    pub standing: Option<String>,
}

impl Verified {
    /// Whether nothing is wrong.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.findings.is_empty()
    }

    fn find(&mut self, place: impl Into<String>, reason: impl Into<String>) {
        if self.findings.len() < TOLD_MAX {
            self.findings.push(Finding { place: place.into(), reason: reason.into() });
        } else {
            self.more += 1;
        }
    }
}

/// Looks at the ledger at this address, whatever its standing. `tell` is told how many rows were looked at, and how many there are.
///
/// # Errors
/// If it or the export cannot be read; what is wrong with it is no error.
pub async fn verify(
    url: &str,
    against: Verify<'_>,
    tell: impl Fn(u64, u64),
) -> Result<Verified, VerifyError> {
    let mut ledger = Whole::open(url, Access::Reading).await?;
    let verified = run(&mut ledger, against, &tell).await;
    ledger.close().await;
    verified
}

async fn run(
    ledger: &mut Whole,
    against: Verify<'_>,
    tell: &impl Fn(u64, u64),
) -> Result<Verified, VerifyError> {
    let mut verified = Verified {
        standing: ledger.standing().await?.map(|standing| standing.error(ledger.name()).to_string()),
        ..Verified::default()
    };
    for fault in ledger.faults().await? {
        verified.find("the database", fault);
    }
    let (mut lines, is_same) = match against {
        Verify::Alone => (None, false),
        Verify::Since(lines) => (Some(Export::begin(lines)?), false),
        Verify::SameAs(lines) => (Some(Export::begin(lines)?), true),
    };
    let mut of = 0;
    for table in &TABLES {
        of += ledger.count(table).await?;
    }
    let name = ledger.name().to_owned();
    ledger.begin_view().await?;
    let mut seen = 0;
    for table in &TABLES {
        let (mut hash, mut total, mut jobs) = (Sha256::new(), 0, Jobs::default());
        let mut rows = ledger.rows(table, None).await?;
        loop {
            let piece = rows.next().await?;
            if piece.is_empty() {
                break;
            }
            total += piece.len() as u64;
            for row in &piece {
                hash.update(super::export::line(table, row));
                let reason = match table.name {
                    "steps" => impossible(row, &name).or_else(|| jobs.impossible(row)),
                    "batches" => is_negative(&row[table.at("manifest_rows")])
                        .then(|| "it has less than no rows".into()),
                    "audit" => is_negative(&row[0]).then(|| "its number is negative".into()),
                    _ => None,
                };
                if let Some(reason) = reason {
                    verified.find(table.words(row), reason);
                }
                if let Some(lines) = &mut lines {
                    lines.pass(table, row, is_same, &mut verified)?;
                }
            }
            seen += piece.len() as u64;
            tell(seen, of);
        }
        if let Some(lines) = &mut lines {
            lines.pass_rest(table, is_same, &mut verified)?;
        }
        verified.tables.push((table.name, total, hex(&hash.finalize())));
    }
    ledger.end_view().await?;
    if let Some(lines) = lines {
        lines.end()?;
    }
    Ok(verified)
}

fn is_negative(value: &Value) -> bool {
    matches!(value, Value::Number(..0))
}

/// Why embosser cannot have written a step's row, if it cannot.
fn impossible(values: &[Value], ledger: &str) -> Option<String> {
    let row = match store::row_from(Reading(values.iter()), ledger) {
        Ok(row) => row,
        Err(LedgerError::Damaged { reason, .. } | LedgerError::Database { reason, .. }) => {
            return Some(reason);
        }
        Err(other) => return Some(other.to_string()),
    };
    let [steps, ..] = &TABLES;
    let is_null = |column| values[steps.at(column)] == Value::Null;
    let reason = match &row.state {
        _ if row.version.0 == 0 => "it says that it was never written",
        State::Begun if row.attempts == 0 => "a call was begun, and none was made",
        State::Begun if !is_null("output") => "its call has not ended, and yielded something",
        State::Done(_) if !is_null("error_code") => "it is done, and was refused",
        State::Done(output) if output.id().is_empty() => "it is done, and what it yielded has no id",
        State::Refused(_) | State::AwaitingPin if !is_null("output") => {
            "it was refused, and yielded something"
        }
        State::Refused(_) if is_null("error_code") => "it was refused, and has no code that says why",
        _ => return None,
    };
    Some(reason.to_owned())
}

/// The rows of one job, which come one after the other.
#[derive(Default)]
struct Jobs {
    /// The job whose last step was seen.
    last: Option<[Value; 2]>,
}

impl Jobs {
    /// A job has one last step: two of them would be two effects.
    fn impossible(&mut self, values: &[Value]) -> Option<String> {
        let is_first =
            matches!(&values[2], Value::Text(step) if matches!(Step::of_word(step), Some(Step::First(_))));
        if is_first {
            return None;
        }
        let job = [values[0].clone(), values[1].clone()];
        let is_second = self.last.as_ref() == Some(&job);
        self.last = Some(job);
        is_second.then(|| "the job has two last steps: it may have had two effects".to_owned())
    }
}

/// An export, read row by row beside a ledger.
struct Export<'e> {
    lines: &'e mut dyn BufRead,
    line: u64,
    next: Option<(&'static Table, Values)>,
    hash: Sha256,
    sum: u64,
    sums: Vec<(&'static str, Sum)>,
    stated: Option<serde_json::Value>,
}

impl<'e> Export<'e> {
    fn begin(lines: &'e mut dyn BufRead) -> Result<Self, VerifyError> {
        let mut export =
            Self { lines, line: 0, next: None, hash: Sha256::new(), sum: 0, sums: Vec::new(), stated: None };
        let head = export.read()?;
        let about = serde_json::from_str::<Head>(&head).map(|head| head.embosser_ledger);
        match about {
            Ok(about) if about.format == FORMAT => {}
            Ok(about) => {
                return Err(
                    export.bad(format!("its format is {}; this embosser knows {FORMAT}", about.format))
                );
            }
            Err(_) => {
                return Err(export.bad("this is no export of a ledger (`embosser ledger export`)".into()));
            }
        }
        export.advance()?;
        Ok(export)
    }

    fn bad(&self, reason: String) -> VerifyError {
        VerifyError::Export { line: self.line, reason }
    }

    fn read(&mut self) -> Result<String, VerifyError> {
        let mut text = String::new();
        self.line += 1;
        match self.lines.read_line(&mut text) {
            Ok(0) => Err(self.bad("it ends before its end: it was not written whole".into())),
            Ok(_) => Ok(text),
            Err(error) => Err(self.bad(error.to_string())),
        }
    }

    /// Reads the next row, or the end.
    fn advance(&mut self) -> Result<(), VerifyError> {
        let text = self.read()?;
        let value: serde_json::Value =
            serde_json::from_str(&text).map_err(|error| self.bad(error.to_string()))?;
        let before = self.next.take();
        if let Some(end) = value.get("end") {
            self.stated = Some(end.clone());
            self.close(before.as_ref().map(|(table, _)| *table));
            return Ok(());
        }
        let table = value.get("table").and_then(|table| table.as_str()).and_then(Table::of_name);
        let (Some(table), Some(row)) = (table, value.get("row")) else {
            return Err(self.bad("it is neither a row of a table that is known nor the end".into()));
        };
        let cell = |(name, _): &(&str, _)| {
            row.get(name).and_then(|cell| serde_json::from_value::<Value>(cell.clone()).ok())
        };
        let row: Option<Values> = table.columns.iter().map(cell).collect();
        let row = row.ok_or_else(|| self.bad(format!("it is no row of {}", table.name)))?;
        if let Some((of, last)) = &before {
            let is_later = (position(of), of.key_of(last)) < (position(table), table.key_of(&row));
            if !is_later {
                return Err(self.bad("its rows are not in their order".into()));
            }
            if *of != table {
                self.close(Some(*of));
            }
        }
        self.hash.update(&text);
        self.sum += 1;
        self.next = Some((table, row));
        Ok(())
    }

    /// A table's rows are all read.
    fn close(&mut self, table: Option<&'static Table>) {
        let hash = std::mem::take(&mut self.hash);
        let rows = std::mem::take(&mut self.sum);
        if let Some(table) = table {
            self.sums.push((table.name, Sum { rows, sha256: hex(&hash.finalize()) }));
        }
    }

    /// A row of the ledger: those of the export before it are missing there.
    fn pass(
        &mut self,
        table: &'static Table,
        row: &[Value],
        is_same: bool,
        verified: &mut Verified,
    ) -> Result<(), VerifyError> {
        loop {
            let (of, exported) = match &self.next {
                Some((of, exported)) if *of == table => (*of, exported),
                _ => break,
            };
            if of.key_of(exported) > table.key_of(row) {
                break;
            }
            if of.key_of(exported) < table.key_of(row) {
                missing(table, exported, is_same, verified);
                self.advance()?;
                continue;
            }
            match difference(table, exported, row, is_same) {
                Difference::None => {}
                Difference::WentOn => verified.went_on += 1,
                Difference::Altered(reason) => verified.find(table.words(row), reason),
            }
            return self.advance();
        }
        match is_same {
            true => verified.find(table.words(row), "it is not in the export"),
            false => verified.came += 1,
        }
        Ok(())
    }

    /// What is left of a table's rows in the export is missing.
    fn pass_rest(
        &mut self,
        table: &'static Table,
        is_same: bool,
        verified: &mut Verified,
    ) -> Result<(), VerifyError> {
        while let Some((of, exported)) = &self.next
            && *of == table
        {
            missing(table, exported, is_same, verified);
            self.advance()?;
        }
        Ok(())
    }

    /// Whether the export itself is whole.
    fn end(self) -> Result<(), VerifyError> {
        let stated = self.stated.clone().unwrap_or_default();
        for table in &TABLES {
            let none = || Sum { rows: 0, sha256: hex(&Sha256::digest(b"")) };
            let found = self.sums.iter().find(|(name, _)| *name == table.name);
            let found = found.map_or_else(none, |(_, sum)| sum.clone());
            let stated =
                stated.get(table.name).and_then(|sum| serde_json::from_value::<Sum>(sum.clone()).ok());
            if stated.as_ref() != Some(&found) {
                return Err(self.bad(format!(
                    "the lines of {} are not those that were written: the export was altered",
                    table.name
                )));
            }
        }
        Ok(())
    }
}

fn position(table: &Table) -> Option<usize> {
    TABLES.iter().position(|other| other == table)
}

/// A row of the export that the ledger has not.
fn missing(table: &Table, exported: &[Value], is_same: bool, verified: &mut Verified) {
    // What the metadata says comes and goes.
    if table.name == "metadata" && !is_same {
        verified.went_on += 1;
    } else {
        verified.find(table.words(exported), "the export has it, and the ledger has not");
    }
}

enum Difference {
    None,
    /// As embosser itself changes rows.
    WentOn,
    Altered(String),
}

fn difference(table: &Table, exported: &[Value], row: &[Value], is_same: bool) -> Difference {
    let differ: Vec<&str> = (0..table.columns.len())
        .filter(|at| exported[*at] != row[*at])
        .map(|at| table.columns[at].0)
        .collect();
    let words = |columns: &[&str]| {
        let word = |column: &&str| {
            let at = table.at(column);
            format!("{column} is {}, and was {} in the export", row[at].json(), exported[at].json())
        };
        Difference::Altered(columns.iter().map(word).collect::<Vec<_>>().join("; "))
    };
    if differ.is_empty() {
        return Difference::None;
    }
    if is_same {
        return words(&differ);
    }
    match table.name {
        "steps" => {
            let version = table.at("version");
            let was_done = exported[table.at("state")] == Value::Text("done".into());
            if row[version] > exported[version] && !was_done {
                return Difference::WentOn;
            }
            // A note is put beside any row, and what was said of it may have been taken out.
            let is_altered =
                |column: &&str| *column != "note" && !prune::may_have_changed(column, &row[table.at(column)]);
            let altered: Vec<&str> = differ.iter().copied().filter(is_altered).collect();
            if altered.is_empty() { Difference::WentOn } else { words(&altered) }
        }
        "batches" if !differ.contains(&"began_ms") => Difference::WentOn,
        "metadata" => Difference::WentOn,
        _ => words(&differ),
    }
}
