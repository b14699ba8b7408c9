//! The manifest that a command is given: a file, or standard input, held to what it is now.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use encoding_rs::Encoding;

use crate::job::Batch;
use crate::manifest::columns::ColumnMap;
use crate::manifest::snapshot::Snapshot;
use crate::manifest::{CheckOptions, CheckReport, Manifest, NO_ENCODING, Reading, counted};

/// Options of how a manifest's file is read.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct FileArgs {
    /// What separates a CSV's cells: comma, semicolon, tab or pipe [default: what its header shows].
    #[arg(long, value_name = "WHAT", value_parser = delimiter)]
    pub delimiter: Option<u8>,
    /// What a CSV was saved as, as windows-1252 or macintosh [default: what its bytes show]. A byte order mark comes before it.
    #[arg(long, value_name = "NAME", value_parser = encoding)]
    pub encoding: Option<&'static Encoding>,
    /// The sheet to read of a spreadsheet [default: the first].
    #[arg(long, value_name = "NAME")]
    pub sheet: Option<String>,
}

/// Options of how a manifest is read.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct ReadingArgs {
    /// Of its file.
    #[command(flatten)]
    pub file: FileArgs,
    /// A columns file: which heading is which column, defaults, and which words are which values; `embosser columns` writes one.
    #[arg(long, value_name = "FILE", value_parser = columns)]
    pub columns: Option<Arc<ColumnMap>>,
    /// The heading under which a person's name stands: results then say whose each row is. Given twice, as for a first and a
    /// last name, both stand there [default: what the columns file says, or nobody].
    #[arg(long, value_name = "HEADING")]
    pub person: Vec<String>,
}

impl FileArgs {
    /// The same for whoever reads.
    #[must_use]
    pub fn reading(&self) -> Reading {
        let Self { delimiter, encoding, sheet } = self.clone();
        Reading { delimiter, encoding, sheet, ..Reading::default() }
    }
}

impl ReadingArgs {
    /// The same for whoever reads.
    #[must_use]
    pub fn reading(&self) -> Reading {
        Reading { columns: self.columns.clone(), person: self.person.clone(), ..self.file.reading() }
    }
}

fn columns(path: &str) -> Result<Arc<ColumnMap>, String> {
    ColumnMap::load(Path::new(path)).map(Arc::new)
}

fn delimiter(text: &str) -> Result<u8, String> {
    Reading::delimiter_named(text).ok_or_else(|| "is none of comma, semicolon, tab and pipe".to_owned())
}

fn encoding(text: &str) -> Result<&'static Encoding, String> {
    Reading::encoding_named(text).ok_or_else(|| NO_ENCODING.to_owned())
}

/// What stands for standard input.
const STANDARD_INPUT: &str = "-";

/// Opens it; whatever is read of it later is what it holds now.
///
/// # Errors
/// A sentence for the operator.
pub async fn open(path: &Path, reading: Reading) -> Result<Arc<Manifest>, String> {
    let path = path.to_owned();
    let opening = move || {
        let snapshot = if path == Path::new(STANDARD_INPUT) {
            Snapshot::held(Path::new("standard input"), std::io::stdin().lock(), &reading)?
        } else {
            Snapshot::of(&path, &reading)?
        };
        Manifest::open_held(snapshot, &reading)
    };
    let opened = tokio::task::spawn_blocking(opening).await.map_err(|error| error.to_string())?;
    opened.map(Arc::new).map_err(|error| error.to_string())
}

/// Its batch: the name that was given, or the file's.
///
/// # Errors
/// If there is neither, or it can be no batch's.
pub fn batch_of(path: &Path, named: Option<&str>) -> Result<Batch, String> {
    let name = match named {
        Some(name) => name.to_owned(),
        None if path == Path::new(STANDARD_INPUT) => {
            return Err("standard input has no name: pass --batch NAME, the same each time".into());
        }
        None => path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default(),
    };
    Batch::new(name).map_err(|error| format!("the batch's name {error}; pass --batch NAME"))
}

/// Where its results go if nothing else is said: beside the file, or in the current folder under the batch's name.
#[must_use]
pub fn results_of(path: &Path, batch: &Batch, ending: &str) -> PathBuf {
    if path == Path::new(STANDARD_INPUT) {
        // A name is not to lead into another folder.
        return format!("{}.{ending}", batch.as_str().replace('/', "_")).into();
    }
    path.with_extension(ending)
}

/// What is done with a manifest's rows, for sentences about it.
#[derive(Debug, Clone, Copy)]
pub struct Verb {
    /// As in "to issue the others".
    pub infinitive: &'static str,
    /// As in "nothing was issued".
    pub participle: &'static str,
}

/// What is let through.
#[derive(Debug, Clone, Copy)]
pub struct Leniency {
    /// The valid rows of a manifest that has invalid ones.
    pub skip_invalid: bool,
    /// No rows with warnings.
    pub strict: bool,
}

/// Checks all of its rows. Invalid ones are an error, unless they are to be skipped.
///
/// # Errors
/// A sentence for the operator; the problems stand on standard error then.
pub async fn check(
    manifest: &Arc<Manifest>,
    options: CheckOptions,
    but: Leniency,
    verb: Verb,
) -> Result<CheckReport, String> {
    let manifest = manifest.clone();
    let checking = tokio::task::spawn_blocking(move || manifest.check(&options, &|_| {}));
    let checked = checking.await.map_err(|error| error.to_string())?;
    let report = checked.map_err(|error| error.to_string())?;
    if report.warning_count > 0 {
        super::check::say_warnings(&report);
        if but.strict {
            return Err(format!(
                "{}, which --strict takes for problems; nothing was {}",
                counted(report.warning_count, "warning"),
                verb.participle
            ));
        }
    }
    if report.invalid_rows > 0 && !but.skip_invalid {
        super::check::print_problems(&report, &mut std::io::stderr()).map_err(|error| error.to_string())?;
        let Verb { infinitive, participle } = verb;
        return Err(format!(
            "{} of {} rows are invalid; nothing was {participle}. Mend them, or pass --skip-invalid to {infinitive} the \
             others",
            report.invalid_rows, report.rows
        ));
    }
    Ok(report)
}
