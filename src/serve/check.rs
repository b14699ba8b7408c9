//! An upload checked as it arrives: its rows one by one, on a thread of its own, and held if they are to be issued.
//!
//! Never: a byte of it on a disk. What the csv reader and the connection have in their buffers is written over by
//! what comes next, not wiped; what is held is wiped ([`super::held`]).

use std::cell::RefCell;
use std::io::{self, Read};
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;

use bytes::{Buf as _, Bytes};
use sha2::{Digest as _, Sha256};
use tokio::sync::mpsc;

use super::held::{Budget, Full, Held, Holding, Share};
use super::table::{TABLE_BYTES_MAX, TableView, table_of};
use super::unpacked::Unpacked;
use crate::job::{Batch, Fingerprint, JobId};
use crate::ledger::LedgerError;
use crate::manifest::amounts::Amounts;
use crate::manifest::batch::SecondCards;
use crate::manifest::recognise::{Recogniser, Recognition};
use crate::manifest::{
    CheckOptions, CheckReport, Checker, InvalidRow, Manifest, ManifestError, ManifestStream, Reading, Row,
    counted,
};
use crate::remedy::TryAgain;

/// What a row's name costs while an upload is checked: its entry in the table of names, with the table's spare room.
const NAME_BYTES: usize = 48;
/// What is known of a row costs beside that: its id's hash and its content, asked about and counted.
const KNOWN_BYTES: usize = 96;
/// Names that are charged at once.
const NAMES_AT_ONCE: u64 = 1024;

/// What messages call an upload.
const NAME: &str = "upload";

/// A piece of an upload on its way to the check.
pub(super) enum Piece {
    /// More of it.
    Bytes(Bytes),
    /// It is whole: without this it was cut off.
    End,
}

/// What an upload is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// To know what is wrong with it, and to see so many of its rows as a table if it is small.
    Check {
        /// Rows of the table; none is wanted if there are to be none.
        table: usize,
    },
    /// To have its rows as they are written, whatever is wrong with them.
    Look,
    /// To issue its rows: all of them, or those that are right.
    Issue {
        /// Whether rows with problems are left out.
        skips_invalid: bool,
    },
}

/// An upload whose rows were all read.
pub(super) struct Checked {
    pub(super) report: CheckReport,
    /// The rows, if there is nothing wrong with any and they are to be issued.
    pub(super) held: Option<Held>,
    /// SHA-256 of the file as it came, in hexadecimal.
    pub(super) file: String,
    /// Which rows are known under other names.
    pub(super) recognition: Arc<Recognition>,
    /// Rows that are no jobs, whatever stands in the others.
    pub(super) unusable: u64,
    /// Cells that were mended on the way.
    pub(super) mended: u64,
    /// Some of it as a table, if that was asked for and it is small.
    pub(super) table: Option<TableView>,
}

impl Checked {
    /// Rows that are jobs.
    pub(super) fn rows(&self) -> u64 {
        self.report.rows - self.unusable
    }

    /// How it is issued otherwise than its file has it, in words.
    pub(super) fn words(&self, second: SecondCards) -> Vec<String> {
        let words = [
            (self.mended > 0).then(|| format!("{} mended on the way", counted(self.mended, "cell"))),
            (self.unusable > 0).then(|| format!("{} with problems left out", counted(self.unusable, "row"))),
            (second == SecondCards::Wanted).then(|| "with second cards".to_owned()),
            (self.recognition.again() == TryAgain::Unchanged)
                .then(|| "of rows that were refused only those tried again that need no change".to_owned()),
        ];
        words.into_iter().flatten().collect()
    }

    /// Whether it can be issued: all of it, or what is right in it, if rows that are not may be left out.
    pub(super) fn can_be_issued(&self, skips_invalid: bool) -> bool {
        let Self { report, unusable, .. } = self;
        report.problem_count == 0
            || (skips_invalid && (1..report.rows).contains(unusable) && report.invalid_rows == *unusable)
    }
}

/// Why an upload could not be read to its end.
#[derive(Debug, thiserror::Error)]
pub(super) enum Stopped {
    #[error("the upload ended early")]
    CutOff,
    #[error("it has more than {0} rows; split it")]
    TooManyRows(u64),
    #[error(
        "its rows do not fit into the memory that is left for waiting rows; upload it when others are done, or split it"
    )]
    Full,
    #[error("{0}")]
    NoTable(String),
    #[error(transparent)]
    NoManifest(ManifestError),
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

impl From<Full> for Stopped {
    fn from(_: Full) -> Self {
        Self::Full
    }
}

/// What the check and its source share; both are on one thread.
#[derive(Default)]
struct Shared {
    holding: Option<Holding>,
    /// Bytes after which it is held no longer.
    held_left: usize,
    /// Whether a check goes on without what is held.
    may_let_go: bool,
    stopped: Option<Stopped>,
    file: Sha256,
}

impl Shared {
    /// All of it, once it was read to its end.
    fn all_held(&mut self, reading: Reading) -> Result<Held, Stopped> {
        if let Some(stopped) = self.stopped.take() {
            return Err(stopped);
        }
        Ok(self.holding.take().ok_or(Full)?.finish(reading)?)
    }

    /// Whether what came so far, with nothing let go, is held for this.
    fn is_kept_for(&self, purpose: Purpose) -> bool {
        match purpose {
            Purpose::Issue { .. } | Purpose::Look => true,
            Purpose::Check { table } => table > 0 && usize::MAX - self.held_left <= TABLE_BYTES_MAX,
        }
    }

    /// From now on it holds what this needs, and no more.
    fn hold_for(&mut self, purpose: Purpose) {
        if !self.is_kept_for(purpose) {
            self.holding = None;
        } else if let Purpose::Check { .. } = purpose {
            self.held_left -= usize::MAX - TABLE_BYTES_MAX;
        }
    }
}

/// The pieces as the csv reader's source.
struct Source {
    pieces: mpsc::Receiver<Piece>,
    piece: Bytes,
    ended: bool,
    shared: Rc<RefCell<Shared>>,
}

impl Source {
    fn stop(&self, why: Stopped) -> io::Error {
        self.shared.borrow_mut().stopped.get_or_insert(why);
        io::Error::other("stopped")
    }
}

impl Read for Source {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.piece.is_empty() && !self.ended {
            match self.pieces.blocking_recv() {
                Some(Piece::Bytes(bytes)) => {
                    self.shared.borrow_mut().file.update(&bytes);
                    self.piece = bytes;
                }
                Some(Piece::End) => self.ended = true,
                None => return Err(self.stop(Stopped::CutOff)),
            }
        }
        let length = buffer.len().min(self.piece.len());
        buffer[..length].copy_from_slice(&self.piece[..length]);
        self.piece.advance(length);
        Ok(length)
    }
}

/// A source of which all that is read is held, if anything is.
struct Kept<R> {
    source: R,
    shared: Rc<RefCell<Shared>>,
}

impl<R: Read> Read for Kept<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.source.read(buffer)?;
        let mut shared = self.shared.borrow_mut();
        match shared.held_left.checked_sub(length) {
            Some(left) => shared.held_left = left,
            None => shared.holding = None,
        }
        let held = shared.holding.as_mut().map_or(Ok(()), |holding| holding.add(&buffer[..length]));
        if held.is_err() && shared.may_let_go {
            shared.holding = None;
        } else if held.is_err() {
            shared.stopped.get_or_insert(Stopped::Full);
            return Err(io::Error::other("stopped"));
        }
        Ok(length)
    }
}

/// Reads all pieces; blocks until they have come.
pub(super) fn check(
    pieces: mpsc::Receiver<Piece>,
    batch: Option<&Batch>,
    purpose: Purpose,
    mut recogniser: Option<Recogniser>,
    budget: &Arc<Budget>,
    (rows_max, mut reading): (u64, Reading),
) -> Result<Checked, Stopped> {
    let holding = match purpose {
        // It is held until its headings are known: its dates may have to be looked through first.
        Purpose::Check { table: 0 } => Holding::begin(budget).ok(),
        Purpose::Check { .. } | Purpose::Issue { .. } | Purpose::Look => Some(Holding::begin(budget)?),
    };
    let may_let_go = purpose == Purpose::Check { table: 0 };
    let shared =
        Rc::new(RefCell::new(Shared { holding, held_left: usize::MAX, may_let_go, ..Shared::default() }));
    let source = Source { pieces, piece: Bytes::new(), ended: false, shared: shared.clone() };
    // Who sees the table says there what its headings are.
    reading.asks_headings = matches!(purpose, Purpose::Check { table: 1.. });
    let mut share = budget.share();
    let unpacked = Unpacked::begin(source, &mut share, &mut reading);
    if let Some(stopped) = shared.borrow_mut().stopped.take() {
        return Err(stopped);
    }
    let (source, sheet) = unpacked?;
    let kept = Kept { source, shared: shared.clone() };
    let limits = Limits { rows_max, is_whole: purpose == Purpose::Issue { skips_invalid: false } };
    let name = Path::new(NAME);
    let (verdict, looked_at) = match Manifest::read(name, kept, &reading) {
        Ok(stream) if stream.wants_dates() => {
            reading.dates = stream.look_at_dates();
            let held = shared.borrow_mut().all_held(reading.clone())?;
            let stream = Manifest::read(name, held.look(), &reading);
            let verdict = rows(stream, batch, recogniser.as_mut(), &shared, &mut share, limits);
            (verdict, Some((held, shared.borrow().is_kept_for(purpose))))
        }
        stream => {
            shared.borrow_mut().hold_for(purpose);
            (rows(stream, batch, recogniser.as_mut(), &shared, &mut share, limits), None)
        }
    };
    // What the names and the sheet took is free before the rest is held.
    drop(share);
    // A stopped source looks like an unreadable row to the csv reader: the reason comes first.
    if let Some(stopped) = shared.borrow_mut().stopped.take() {
        return Err(stopped);
    }
    let (report, unusable) = verdict?;
    let mut report = CheckReport { sheet, ..report };
    let holding = shared.borrow_mut().holding.take();
    let recognition = recogniser.map(Recogniser::finish).transpose()?.unwrap_or_default();
    add_near(&mut report, &recognition);
    let mended = mended_by(&reading);
    let mut held = match looked_at {
        Some((held, is_kept)) => Some(held).filter(|_| is_kept && (!limits.is_whole || unusable == 0)),
        None => holding.map(|holding| holding.finish(reading)).transpose()?,
    };
    let table = match purpose {
        Purpose::Check { table } => held.take().and_then(|held| table_of(held, &report, table)),
        Purpose::Issue { .. } | Purpose::Look => None,
    };
    let file = Fingerprint(shared.borrow().file.clone().finalize().into()).to_hex();
    Ok(Checked { report, held, file, recognition: Arc::new(recognition), unusable, mended, table })
}

/// Checks rows again that are held, as if they had just come.
pub(super) fn again(
    held: &Held,
    batch: &Batch,
    mut recogniser: Recogniser,
    budget: &Arc<Budget>,
    (rows_max, file): (u64, String),
) -> Result<Checked, Stopped> {
    let shared = RefCell::new(Shared::default());
    let mut share = budget.share();
    let limits = Limits { rows_max, is_whole: false };
    let stream = Manifest::read(Path::new(NAME), held.look(), &held.reading);
    let verdict = rows(stream, Some(batch), Some(&mut recogniser), &shared, &mut share, limits);
    let (mut report, unusable) = verdict?;
    let (recognition, mended) = (recogniser.finish()?, mended_by(&held.reading));
    add_near(&mut report, &recognition);
    Ok(Checked {
        report,
        held: None,
        file,
        recognition: Arc::new(recognition),
        unusable,
        mended,
        table: None,
    })
}

fn mended_by(reading: &Reading) -> u64 {
    reading.edits.as_ref().map_or(0, |edits| edits.cells())
}

/// Adds what may be wrong with rows beside those that the batch had before.
fn add_near(report: &mut CheckReport, recognition: &Recognition) {
    let near = recognition.near();
    report.warning_count += near.count;
    report.warnings.extend(near.problems.iter().cloned());
}

/// What keeps an upload's rows from being read on, or held.
#[derive(Clone, Copy)]
struct Limits {
    rows_max: u64,
    /// Whether its rows are held only while there is nothing wrong with any.
    is_whole: bool,
}

fn rows(
    stream: Result<ManifestStream<impl Read>, ManifestError>,
    batch: Option<&Batch>,
    mut recogniser: Option<&mut Recogniser>,
    shared: &RefCell<Shared>,
    names: &mut Share,
    Limits { rows_max, is_whole }: Limits,
) -> Result<(CheckReport, u64), Stopped> {
    let refused = |error| match error {
        // A bad header is told as problems, as rows' are.
        ManifestError::Header { problems, .. } => {
            let problem_count = problems.len() as u64;
            Ok((CheckReport { problem_count, problems, ..CheckReport::default() }, 0))
        }
        other => Err(Stopped::NoManifest(other)),
    };
    let stream = match stream {
        Ok(stream) => stream,
        Err(error) => return refused(error),
    };
    let row_bytes = NAME_BYTES + if recogniser.is_some() { KNOWN_BYTES } else { 0 };
    let mut checker = Checker::new(&CheckOptions { digest: true });
    let mut amounts = Amounts::default();
    let mut all_rows = stream.rows();
    for row in all_rows.by_ref() {
        let row = row.and_then(|row| match batch {
            Some(batch) => with_job_id(row, batch),
            None => Ok(row),
        });
        checker.add(&row);
        if let Ok(row) = &row {
            amounts.add(row);
        }
        if let Some(recogniser) = &mut recogniser {
            recogniser.add(&row)?;
        }
        if checker.rows() > rows_max {
            return Err(Stopped::TooManyRows(rows_max));
        }
        if checker.rows() % NAMES_AT_ONCE == 1 {
            names.grow(row_bytes * usize::try_from(NAMES_AT_ONCE).unwrap_or(usize::MAX))?;
        }
        if checker.invalid_rows() == 1 && is_whole {
            // Nothing of it will be issued: its ciphertext is wiped now, and the rest is only checked.
            shared.borrow_mut().holding = None;
        }
        if shared.borrow().stopped.is_some() {
            break;
        }
    }
    checker.add_rest(&all_rows);
    if all_rows.edits_left() > 0 {
        let reason = "cells were mended on lines on which no row of this file begins; is it another file?";
        return Err(Stopped::NoTable(reason.into()));
    }
    let unusable = checker.invalid_rows();
    let with_amounts = |report| CheckReport { amounts: amounts.words(), ..report };
    checker.finish(Path::new(NAME)).map(|report| (with_amounts(report), unusable)).or_else(refused)
}

/// A row whose batch and `row_id` make a job id.
pub(super) fn with_job_id(row: Row, batch: &Batch) -> Result<Row, InvalidRow> {
    /// As long as any that a row without one is given.
    const UNNAMED: &str = "#0123456789abcdef-1000000";
    match JobId::of_row(batch, row.row_id.as_deref().unwrap_or(UNNAMED)) {
        Ok(_) => Ok(row),
        Err(error) => Err(InvalidRow::without_id(row.number, row.line, row.row_id, &error)),
    }
}
