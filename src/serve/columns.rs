//! Columns files that uploads name: `staff` is `staff.toml` in the configured folder, read anew each time.

use std::io::{self, Write as _};
use std::path::Path;
use std::sync::Arc;

use super::problem::{Kind, Problem};
use crate::files::Draft;
use crate::manifest::columns::ColumnMap;

/// What a columns file's name ends in.
const ENDING: &str = ".toml";
/// Longest name that can be asked for.
const NAME_MAX: usize = 64;

/// The names that can be asked for, in order.
pub(super) async fn names(folder: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    let mut files = tokio::fs::read_dir(folder).await?;
    while let Some(file) = files.next_entry().await? {
        let name = file.file_name();
        let name = name.to_str().and_then(|name| name.strip_suffix(ENDING)).filter(|name| is_name(name));
        let Some(name) = name else { continue };
        // What is no file, a pipe for instance, might be waited for without end. Links are followed.
        if tokio::fs::metadata(file.path()).await.is_ok_and(|file| file.is_file()) {
            names.push(name.to_owned());
        }
    }
    names.sort();
    Ok(names)
}

/// The one of this name.
pub(super) async fn named(folder: Option<&Path>, name: &str) -> Result<Arc<ColumnMap>, Problem> {
    let refused = |reason: String| Err(Problem::new(Kind::BadRequest, reason));
    let Some(folder) = folder else {
        return refused("this server has no columns files; http.columns_directory is not set".into());
    };
    let known = match names(folder).await {
        Ok(known) => known,
        Err(error) => {
            return refused(format!("the folder http.columns_directory cannot be read: {}", error.kind()));
        }
    };
    if !known.iter().any(|known| known == name) {
        let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
        return refused(format!("there is no columns file of that name; there are: {known}"));
    }
    let path = folder.join(format!("{name}{ENDING}"));
    match tokio::task::spawn_blocking(move || ColumnMap::load(&path)).await {
        Ok(Ok(map)) => Ok(Arc::new(map)),
        Ok(Err(reason)) => refused(format!("the columns file {name} is wrong: {reason}")),
        Err(_) => refused(format!("the columns file {name} cannot be read")),
    }
}

/// Keeps a columns file under a name, whole or not at all. One that is there already is replaced if `replace`.
pub(super) async fn keep(
    folder: Option<&Path>,
    name: &str,
    text: String,
    replace: bool,
) -> Result<ColumnMap, Problem> {
    let Some(folder) = folder.map(Path::to_owned) else {
        let reason = "this server keeps no columns files: its operator can set http.columns_directory";
        return Err(Problem::new(Kind::Conflict, reason));
    };
    if !is_name(name) {
        let reason = format!(
            "a columns file's name has 1 to {NAME_MAX} letters a to z, digits, hyphens, underscores and full stops, and does \
             not begin with a full stop"
        );
        return Err(Problem::new(Kind::BadRequest, reason));
    }
    let map = ColumnMap::parse(&text)
        .map_err(|reason| Problem::new(Kind::BadRequest, format!("the columns file is wrong: {reason}")))?;
    let path = folder.join(format!("{name}{ENDING}"));
    let kept = tokio::task::spawn_blocking(move || {
        let mut draft = Draft::begin(&path)?;
        draft.write_all(text.as_bytes())?;
        if replace { draft.put() } else { draft.put_new() }
    });
    match kept.await {
        Ok(Ok(())) => Ok(map),
        Ok(Err(error)) if error.kind() == io::ErrorKind::AlreadyExists => {
            let reason =
                format!("there is a columns file {name} already; replace it, or choose another name");
            Err(Problem::new(Kind::Conflict, reason))
        }
        Ok(Err(error)) => {
            let reason = format!("the folder http.columns_directory cannot be written: {}", error.kind());
            Err(Problem::new(Kind::Unavailable, reason))
        }
        Err(_) => Err(Problem::new(Kind::Internal, "the columns file was not kept")),
    }
}

/// Whether it names a file of the folder, and no other.
fn is_name(name: &str) -> bool {
    (1..=NAME_MAX).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
        && !name.starts_with('.')
}
