//! Columns files that uploads name: `staff` is `staff.toml` in the configured folder, read anew each time.

use std::io;
use std::path::Path;
use std::sync::Arc;

use super::problem::{Kind, Problem};
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

/// Whether it names a file of the folder, and no other.
fn is_name(name: &str) -> bool {
    (1..=NAME_MAX).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
        && !name.starts_with('.')
}
