//! A results file that is there already: whether it is one of ours, and what it says.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufReader, Read as _, Seek as _, SeekFrom};
use std::path::Path;

use super::{BYTE_ORDER_MARK, COLUMNS, FORMER_COLUMNS, as_it_was, heading, is_live};
use crate::outcome::PinLink;

/// One row of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EarlierRow {
    /// Its job; empty where its row made no id.
    pub job_id: String,
    /// `issued`, `updated`, `created`, `refused`, `unresolved` or `awaiting_pin`.
    pub outcome: String,
    /// Its card, if it has one.
    pub card_id: Option<String>,
    /// Its cardholder, if that is told.
    pub cardholder_id: Option<String>,
    /// Whose cards; empty in a file of the first form.
    pub scope: String,
    /// The link by which its cardholder chooses the PIN, if it waits for that.
    pub pin_link: Option<PinLink>,
}

/// The rows of a results file, in its order.
pub struct Earlier {
    rows: csv::StringRecordsIntoIter<BufReader<File>>,
}

/// The results file at this place; nothing if there is none, or an empty one.
///
/// # Errors
/// If it cannot be read, or something else is there.
pub fn read_back(path: &Path) -> io::Result<Option<Earlier>> {
    let mut file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file?,
    };
    let header = heading(&COLUMNS);
    let mut start = Vec::new();
    file.by_ref().take((BYTE_ORDER_MARK.len() + header.len()) as u64).read_to_end(&mut start)?;
    if start.is_empty() {
        return Ok(None);
    }
    // Files of earlier versions have no mark, and programs that saved one again may have left it out.
    let start = start.strip_prefix(BYTE_ORDER_MARK.as_bytes()).unwrap_or(&start);
    let mut is_ours = start.starts_with(&header);
    for columns in FORMER_COLUMNS {
        is_ours |= start.starts_with(&heading(&COLUMNS[..columns]));
    }
    if !is_ours {
        return Err(io::Error::other(
            "a file is there that is not an embosser results file; move it or pass --results FILE",
        ));
    }
    file.seek(SeekFrom::Start(0))?;
    Ok(Some(Earlier { rows: csv::Reader::from_reader(BufReader::new(file)).into_records() }))
}

/// Whether a run of this scope may put its results there; nobody is to lose the only list of real cards to a rehearsal.
///
/// # Errors
/// If not: why.
pub(super) fn may_be_replaced(path: &Path, scope: &str) -> io::Result<()> {
    let Some(rows) = read_back(path)? else { return Ok(()) };
    if is_live(scope) {
        return Ok(());
    }
    for row in rows {
        if is_live(&row?.scope) {
            return Err(io::Error::other(
                "the file there holds results of LIVE cards, and this run is not known to be live; move it or pass \
                 --results FILE",
            ));
        }
    }
    Ok(())
}

/// The links of rows that wait for a PIN, by their jobs.
///
/// # Errors
/// If the file cannot be read.
pub(super) fn links_of(path: &Path) -> io::Result<HashMap<String, PinLink>> {
    let mut links = HashMap::new();
    for row in read_back(path)?.into_iter().flatten() {
        let EarlierRow { job_id, pin_link, .. } = row?;
        links.extend(pin_link.map(|link| (job_id, link)));
    }
    Ok(links)
}

impl Iterator for Earlier {
    type Item = io::Result<EarlierRow>;

    fn next(&mut self) -> Option<Self::Item> {
        let record = match self.rows.next()? {
            Ok(record) => record,
            Err(error) => {
                return Some(Err(io::Error::other(format!("the results file cannot be read: {error}"))));
            }
        };
        let cell = |name: &str| {
            let at = COLUMNS.iter().position(|column| *column == name);
            at.and_then(|at| record.get(at)).map(as_it_was).unwrap_or_default().to_owned()
        };
        Some(Ok(EarlierRow {
            job_id: cell("job_id"),
            outcome: cell("outcome"),
            card_id: Some(cell("card_id")).filter(|card| !card.is_empty()),
            cardholder_id: Some(cell("cardholder_id")).filter(|cardholder| !cardholder.is_empty()),
            scope: cell("scope"),
            pin_link: Some(cell("pin_link")).filter(|link| !link.is_empty()).map(PinLink::new),
        }))
    }
}
