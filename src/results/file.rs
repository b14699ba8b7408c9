//! Writes the results file: beside its place, under a name of this run's own, and renamed to it at the end.
//!
//! Lines are appended as rows end, so that a look at that file shows how far a run has come; at the end they are put into
//! the manifest's order. So whoever opens the results finds one run's, whole, however many runs there were and however
//! they ended. What a killed run left beside them is told from a living run's by its lock, and removed by the next one.

use std::collections::{HashMap, HashSet};
use std::fs::{File, TryLockError};
use std::io::{self, BufReader, BufWriter, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::{COLUMNS, Line, NUMBERS, earlier, head, line_into};
use crate::files::{self, folder_of};
use crate::outcome::{Outcome, PinLink};

/// How stale the file on disk may be while a run goes on.
const FLUSH_EVERY: Duration = Duration::from_millis(500);
/// Read at once when the lines are put into order.
const READ_BYTES: usize = 256 << 10;
/// How much of the results' name a partial file's name repeats, so that it is never longer than a name may be.
const NAME_BYTES_MAX: usize = 180;
/// The end of a partial file's name.
const ENDING: &str = ".partial";

/// Writes the file.
pub struct Results {
    place: Place,
    /// Whose cards; says whether a file that is there may be replaced.
    scope: String,
    file: BufWriter<File>,
    /// Links of the file that was there, by their jobs: the ledger does not know them, and whoever waits still has them.
    links: HashMap<String, PinLink>,
    /// Jobs whose links were made for this very file.
    linked: Vec<String>,
    /// Row, offset and length of each line written, to put them in order without keeping them.
    lines: Vec<(u64, u64, u32)>,
    offset: u64,
    /// The latest line; its memory is used again.
    bytes: Vec<u8>,
    flushed: Instant,
}

/// Where the lines go meanwhile.
enum Place {
    /// Beside the place that they are for.
    Beside(Partial),
    /// Straight to it: it is a device or a pipe, which nothing can be renamed to, and whose lines have no order.
    Straight,
}

impl Results {
    /// Begins the results of a run for this scope's cards. Whatever is at the place stays there until the end.
    ///
    /// # Errors
    /// If they cannot be written, another run writes them at this moment, or what is at the place is not to be replaced.
    pub fn create(path: &Path, scope: &str) -> io::Result<Self> {
        let (place, file) = match std::fs::metadata(path) {
            Ok(there) if there.is_dir() => return Err(io::Error::other("is a folder; pass --results FILE")),
            Ok(there) if !there.is_file() => (Place::Straight, File::options().write(true).open(path)?),
            there => {
                earlier::may_be_replaced(path, scope)?;
                // A link stays one: what it leads to is replaced.
                let target = if there.is_ok() { std::fs::canonicalize(path)? } else { path.to_owned() };
                remove_leftovers(&target)?;
                let (partial, file) = Partial::begin(&target)?;
                // A second look, since another run may have begun since the first; both may give way then.
                remove_leftovers_but(&target, Some(&partial.path))?;
                if let Ok(there) = there {
                    file.set_permissions(there.permissions())?;
                }
                (Place::Beside(partial), file)
            }
        };
        let links = match &place {
            Place::Beside(_) => earlier::links_of(path)?,
            Place::Straight => HashMap::new(),
        };
        let header = head();
        let mut file = BufWriter::new(file);
        file.write_all(&header)?;
        let offset = header.len() as u64;
        let (lines, bytes) = (Vec::new(), Vec::new());
        let scope = scope.to_owned();
        Ok(Self {
            place,
            scope,
            file,
            links,
            linked: Vec::new(),
            lines,
            offset,
            bytes,
            flushed: Instant::now(),
        })
    }

    /// Appends a row's line.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn append(&mut self, line: &Line<'_>) -> io::Result<()> {
        self.bytes.clear();
        let mut cells = line.cells();
        if line.ended.outcome == Outcome::AwaitingPin(None)
            && let Some(link) = self.links.get(line.job_id)
            && let Some(at) = COLUMNS.iter().position(|column| *column == "pin_link")
        {
            cells[at] = link.expose().into();
        }
        if let Outcome::AwaitingPin(Some(_)) = line.ended.outcome {
            self.linked.push(line.job_id.to_owned());
        }
        line_into(&mut self.bytes, (&COLUMNS, &NUMBERS), &cells);
        self.file.write_all(&self.bytes)?;
        self.lines.push((line.row, self.offset, u32::try_from(self.bytes.len()).map_err(io::Error::other)?));
        self.offset += self.bytes.len() as u64;
        if self.flushed.elapsed() > FLUSH_EVERY {
            self.file.flush()?;
            self.flushed = Instant::now();
        }
        Ok(())
    }

    /// The jobs that have a line; none if the file cannot be read again.
    ///
    /// # Errors
    /// If it cannot be written or read.
    pub fn job_ids(&mut self) -> io::Result<Option<HashSet<String>>> {
        self.file.flush()?;
        let Place::Beside(partial) = &self.place else { return Ok(None) };
        let lines = earlier::read_back(&partial.path)?;
        lines
            .into_iter()
            .flatten()
            .map(|line| line.map(|line| line.job_id))
            .collect::<Result<_, _>>()
            .map(Some)
    }

    /// Puts the lines into the manifest's order, and the file to its place. Answers the jobs whose links were made for it.
    ///
    /// # Errors
    /// If that cannot be done; then what was at the place stays there.
    pub fn finish(mut self) -> io::Result<Vec<String>> {
        self.file.flush()?;
        let linked = std::mem::take(&mut self.linked);
        let Place::Beside(partial) = &self.place else { return Ok(linked) };
        // Somebody may have put a file there meanwhile.
        earlier::may_be_replaced(&partial.target, &self.scope)?;
        if self.lines.is_sorted_by_key(|(row, ..)| *row) {
            return partial.put(self.file.get_ref()).map(|()| linked);
        }
        self.lines.sort_unstable();
        let (ordered_partial, ordered) = Partial::begin(&partial.target)?;
        ordered.set_permissions(self.file.get_ref().metadata()?.permissions())?;
        let mut ordered = BufWriter::new(ordered);
        ordered.write_all(&head())?;
        let mut written = File::open(&partial.path)?;
        written.seek(SeekFrom::Start(0))?;
        let mut reader = BufReader::with_capacity(READ_BYTES, written);
        let mut line = Vec::new();
        let mut at = 0;
        for (_, offset, length) in &self.lines {
            // Rows end about in their order, so the next line is mostly in what was read already.
            reader.seek_relative(offset.cast_signed() - at)?;
            line.resize(*length as usize, 0);
            reader.read_exact(&mut line)?;
            ordered.write_all(&line)?;
            at = offset.cast_signed() + i64::from(*length);
        }
        ordered.flush()?;
        ordered_partial.put(ordered.get_ref()).map(|()| linked)
    }
}

/// A file beside the results' place, locked by whoever writes it, and removed when this is dropped before it was put.
struct Partial {
    path: PathBuf,
    target: PathBuf,
}

impl Partial {
    fn begin(target: &Path) -> io::Result<(Self, File)> {
        /// More often no name is taken, and no lock lost to somebody who took the file for a leftover.
        const TRIES: u32 = 8;
        /// Tells the files of one process apart.
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let began = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        for _ in 0..TRIES {
            let number = NUMBER.fetch_add(1, Ordering::Relaxed);
            let own = format!("{}{began}-{}-{number}{ENDING}", prefix_of(target), std::process::id());
            let path = folder_of(target).join(own);
            let beside =
                |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
            let file = files::create_new(&path).map_err(beside)?;
            let partial = Self { path: path.clone(), target: target.to_owned() };
            match file.try_lock() {
                Ok(()) if path.exists() => return Ok((partial, file)),
                // Between its making and its lock another run took it for a leftover.
                Ok(()) | Err(TryLockError::WouldBlock) => {}
                // Some network file systems have no locks; without them a leftover stays for people to remove.
                Err(TryLockError::Error(error)) if error.kind() == io::ErrorKind::Unsupported => {
                    return Ok((partial, file));
                }
                Err(TryLockError::Error(error)) => return Err(beside(error)),
            }
        }
        Err(io::Error::other("its partial file is removed again and again by another run; wait for that run"))
    }

    /// Makes it the results.
    fn put(&self, file: &File) -> io::Result<()> {
        file.sync_all()?;
        std::fs::rename(&self.path, &self.target)?;
        files::sync_folder_of(&self.target);
        Ok(())
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        // Gone already if it was put.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// What the names of a place's partial files begin with.
fn prefix_of(target: &Path) -> String {
    let name = target.file_name().unwrap_or_default().to_string_lossy();
    let end = (0..=NAME_BYTES_MAX.min(name.len())).rev().find(|at| name.is_char_boundary(*at)).unwrap_or(0);
    format!(".{}.", &name[..end])
}

fn remove_leftovers(target: &Path) -> io::Result<()> {
    remove_leftovers_but(target, None)
}

/// Removes what dead runs left beside the place.
///
/// # Errors
/// If a living run writes there.
fn remove_leftovers_but(target: &Path, own: Option<&Path>) -> io::Result<()> {
    let prefix = prefix_of(target);
    for entry in std::fs::read_dir(folder_of(target))? {
        let entry = entry?;
        let name = entry.file_name();
        let middle = name.to_str().and_then(|name| name.strip_prefix(&prefix)?.strip_suffix(ENDING));
        let ours =
            middle.is_some_and(|middle| middle.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-'));
        let path = entry.path();
        if !ours || own == Some(&*path) {
            continue;
        }
        // One that vanishes at this moment was just put, or removed.
        let Ok(file) = File::options().write(true).open(&path) else { continue };
        match file.try_lock() {
            Ok(()) => std::fs::remove_file(&path)?,
            Err(TryLockError::WouldBlock) => {
                return Err(io::Error::other(format!(
                    "another run is writing these results ({}); wait for its end or pass --results FILE",
                    path.display()
                )));
            }
            Err(TryLockError::Error(_)) => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::{Card, Ended, Output, Refusal};
    use crate::results::read_back;

    const TEST: &str = "test:api.stripe.com";
    const LIVE: &str = "live:api.stripe.com";

    fn ended(outcome: Outcome) -> Ended {
        let request_id = Some("req_1".into());
        Ended { outcome, attempts: 1, request_id, recorded_before: false, note: None }
    }

    fn issued() -> Ended {
        let (id, last4) = ("ic_1".into(), "4242".into());
        let card = Card {
            id,
            last4,
            exp_month: 8,
            exp_year: 2030,
            cardholder: Some("ich_1".into()),
            changed: vec!["status".into(), "metadata[a]".into()],
        };
        ended(Outcome::Done(Output::Issued(card)))
    }

    fn line<'a>(row: u64, ended: &'a Ended, scope: &'a str) -> Line<'a> {
        Line {
            row,
            row_id: None,
            job_id: "n/1",
            ended,
            scope,
            person: Some("Zoë, \"Z\""),
            shipping: None,
            cancelled_by: None,
        }
    }

    fn hidden_files(folder: &Path) -> Vec<String> {
        let names = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name());
        names.map(|name| name.into_string().unwrap()).filter(|name| name.starts_with('.')).collect()
    }

    #[test]
    fn rows_come_in_the_manifests_order_and_no_cell_is_a_formula() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.results.csv");
        let mut noted = issued();
        noted.note = Some("=wanted otherwise".into());
        let refused = ended(Outcome::Refused(Refusal::own("x", "=HYPERLINK(\"http://a\")")));
        let mut results = Results::create(&path, TEST).unwrap();
        let odd = Line {
            row: 2,
            row_id: Some("@b"),
            job_id: "@n/@b",
            ended: &refused,
            scope: TEST,
            person: Some("=1+1"),
            shipping: None,
            cancelled_by: None,
        };
        results.append(&odd).unwrap();
        results.append(&line(1, &noted, TEST)).unwrap();
        assert!(!path.exists(), "nobody takes half a file for the whole");
        results.finish().unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(
            lines[1],
            "1,,n/1,issued,ic_1,\"4242\",\"08/2030\",1,,,req_1,'=wanted otherwise,test:api.stripe.com,ich_1,status; metadata[a],,\
             \"Zoë, \"\"Z\"\"\",,,,,"
        );
        assert!(text.starts_with("\u{feff}row,"), "as Excel knows a file by");
        assert!(lines[2].ends_with(",'=1+1,,,,,"), "{}", lines[2]);
        assert!(lines[2].starts_with("2,'@b,'@n/@b,refused,,,,1,x,\"'=HYPERLINK"), "{}", lines[2]);
        let back: Vec<_> = read_back(&path).unwrap().unwrap().map(Result::unwrap).collect();
        assert_eq!((back[1].job_id.as_str(), back[1].outcome.as_str()), ("@n/@b", "refused"));
        assert_eq!((back[0].card_id.as_deref(), back[0].scope.as_str()), (Some("ic_1"), TEST));
        assert_eq!(hidden_files(directory.path()), [""; 0], "nothing is left beside it");
    }

    #[test]
    fn a_link_that_was_given_out_stays_until_its_row_ends() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.results.csv");
        let write = |ended: &Ended| {
            let mut results = Results::create(&path, TEST).unwrap();
            results.append(&line(1, ended, TEST)).unwrap();
            results.finish().unwrap();
            read_back(&path).unwrap().unwrap().next().unwrap().unwrap().pin_link
        };
        let link = || Some(PinLink::new("https://pins.example.com/pin#x".to_owned()));
        let made = link();
        assert_eq!(write(&ended(Outcome::AwaitingPin(made))), link());
        assert_eq!(
            write(&ended(Outcome::AwaitingPin(None))),
            link(),
            "another run knows it from the file alone"
        );
        assert_eq!(write(&issued()), None);
    }

    #[test]
    fn what_is_not_ours_is_left_alone_and_files_of_the_first_form_are_ours() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.results.csv");
        let notes =
            "my own notes, which are longer than the header would have been, so to say: yes they are, really";
        for foreign in [notes, "notes", "row,row_id,job_id"] {
            std::fs::write(&path, foreign).unwrap();
            let error = Results::create(&path, TEST).err().unwrap().to_string();
            assert!(error.contains("not an embosser results file"), "{error}");
            assert_eq!(std::fs::read_to_string(&path).unwrap(), foreign);
        }
        for (columns, scope) in [(11, ""), (13, TEST), (15, TEST), (16, TEST)] {
            let line = format!("\n1,,n/1,issued,ic_1,4242,08/2030,1,,,req_1,,{scope},,,");
            let cells: Vec<_> = line.split(',').take(columns).collect();
            std::fs::write(&path, COLUMNS[..columns].join(",") + &cells.join(",") + "\n").unwrap();
            let back: Vec<_> = read_back(&path).unwrap().unwrap().map(Result::unwrap).collect();
            assert_eq!((back[0].card_id.as_deref(), back[0].scope.as_str()), (Some("ic_1"), scope));
        }
        Results::create(&path, TEST).unwrap().finish().unwrap();
        // A file that comes to the place meanwhile is not ours either.
        let begun = Results::create(&path, TEST).unwrap();
        std::fs::write(&path, notes).unwrap();
        assert!(begun.finish().is_err());
        assert_eq!(std::fs::read_to_string(&path).unwrap(), notes);
    }

    #[test]
    fn a_rehearsal_never_replaces_the_results_of_live_cards() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.results.csv");
        let mut results = Results::create(&path, LIVE).unwrap();
        results.append(&line(1, &issued(), LIVE)).unwrap();
        results.finish().unwrap();
        let before = std::fs::read(&path).unwrap();
        for scope in [TEST, "test:sandbox", ""] {
            let error = Results::create(&path, scope).err().unwrap().to_string();
            assert!(error.contains("LIVE") && error.contains("--results"), "{error}");
        }
        assert_eq!(std::fs::read(&path).unwrap(), before);
        assert!(Results::create(&path, LIVE).is_ok());
    }

    #[test]
    fn a_living_run_is_told_from_what_a_dead_one_left() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.results.csv");
        let left = directory.path().join(".a.results.csv.1700000000000-7-0.partial");
        let of_others = directory.path().join(".a.results.csv.old.1700000000000-7-0.partial");
        std::fs::write(&left, "half").unwrap();
        std::fs::write(&of_others, "half").unwrap();
        let living = Results::create(&path, TEST).unwrap();
        assert!(!left.exists() && of_others.exists());
        let second = Results::create(&path, TEST).err().unwrap().to_string();
        assert!(second.contains("another run is writing these results"), "{second}");
        assert!(Results::create(&directory.path().join("b.results.csv"), TEST).is_ok());
        drop(living);
        Results::create(&path, TEST).unwrap().finish().unwrap();
        assert_eq!(hidden_files(directory.path()), [of_others.file_name().unwrap().to_str().unwrap()]);
    }

    #[test]
    fn a_link_and_the_files_permissions_stay_as_they_were() {
        use std::os::unix::fs::PermissionsExt as _;
        let directory = tempfile::tempdir().unwrap();
        let (file, link) = (directory.path().join("kept.csv"), directory.path().join("a.results.csv"));
        std::fs::write(&file, "").unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
        std::os::unix::fs::symlink(&file, &link).unwrap();
        let mut results = Results::create(&link, TEST).unwrap();
        results.append(&line(2, &issued(), TEST)).unwrap();
        results.append(&line(1, &issued(), TEST)).unwrap();
        results.finish().unwrap();
        assert!(link.is_symlink());
        assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(std::fs::read_to_string(&file).unwrap().lines().count(), 3);
    }
}
