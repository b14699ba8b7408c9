//! Where the ledger is when nobody says: one place for each user, whatever folder a command is run in.
//!
//! A ledger that is missed is second cards, so none is ever made beside one that may be meant: the file that was the
//! default before, in the current folder, stops the command.

use std::ffi::OsString;
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

/// The file's name, in whatever folder.
const FILE: &str = "embosser.db";

/// Why no ledger is named.
#[derive(Debug, thiserror::Error)]
pub enum PlaceError {
    /// There is no home to have it in.
    #[error(
        "there is no place for the ledger: HOME is not set; name one with --ledger sqlite://FILE or in ledger.url"
    )]
    NoHome,
    /// The path cannot stand in an address.
    #[error(
        "the ledger's place {0:?} is not UTF-8; name another with --ledger sqlite://FILE or in ledger.url"
    )]
    NotText(PathBuf),
    /// A ledger of the former default place is here.
    #[error(
        "{here} lies in this folder, where the ledger was before; it is now {place}. To go on with it pass \
         --ledger sqlite://{FILE} each time, or, while no embosser runs, move it and its -wal file there; a command \
         that missed it would make second cards"
    )]
    Former {
        /// It.
        here: String,
        /// Where the ledger would be.
        place: String,
    },
    /// Its folder cannot be made.
    #[error("the ledger's folder {0}: {1}; name another place with --ledger sqlite://FILE or in ledger.url")]
    Folder(String, io::Error),
    /// No ledger was there to be read.
    #[error("there is no ledger at {0}; nothing was issued with it, or name another with --ledger URL")]
    Missing(String),
}

/// The ledger's address: the configured one, or the user's default place, whose folder is made if it is missing.
///
/// # Errors
/// If there is no default place, or a ledger in the current folder may be meant.
pub fn ledger_url(configured: &str) -> Result<String, PlaceError> {
    let url = Surroundings::of_process().url(configured)?;
    if configured.is_empty()
        && let Some(folder) = file_of(&url).as_deref().and_then(Path::parent)
    {
        // What it says of people and their cards is the user's alone.
        let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder);
        made.map_err(|error| PlaceError::Folder(folder.display().to_string(), error))?;
    }
    Ok(url)
}

/// As [`ledger_url`], but of a ledger that is there; nothing is made.
///
/// # Errors
/// As [`ledger_url`], and if there is none.
pub fn existing_ledger_url(configured: &str) -> Result<String, PlaceError> {
    let url = Surroundings::of_process().url(configured)?;
    match file_of(&url) {
        Some(file) if !file.exists() => Err(PlaceError::Missing(shown(&url))),
        _ => Ok(url),
    }
}

/// An address for messages: without a password, and a file's with its whole path.
#[must_use]
pub fn shown(url: &str) -> String {
    match file_of(url) {
        Some(file) => format!("sqlite://{}", std::path::absolute(&file).unwrap_or(file).display()),
        None => without_password(url),
    }
}

/// An address without its password, wherever in it that stands: PostgreSQL's clients take one in the query, too.
#[must_use]
pub fn without_password(url: &str) -> String {
    let parsed = url::Url::parse(url).ok().filter(|url| url.has_host() || url.scheme() == "sqlite");
    // What is no address of a database's may have its password anywhere before the last `@`.
    let Some(mut parsed) = parsed else {
        return url.rsplit('@').next().and_then(|rest| rest.split('?').next()).unwrap_or("").into();
    };
    if parsed.password().is_some() {
        let _ = parsed.set_password(None);
    }
    if parsed.scheme() != "sqlite" {
        parsed.set_query(None);
    }
    parsed.to_string()
}

/// The file of an SQLite address, without its query.
#[must_use]
pub fn file_of(url: &str) -> Option<PathBuf> {
    let path = url.strip_prefix("sqlite:")?;
    let path = path.strip_prefix("//").unwrap_or(path);
    let path = path.split('?').next().unwrap_or(path);
    Some(percent_encoding::percent_decode_str(path).decode_utf8_lossy().into_owned().into())
}

/// What the place is made out from.
struct Surroundings<'e> {
    variable: &'e dyn Fn(&str) -> Option<OsString>,
    /// The current folder, if it can be told.
    folder: Option<PathBuf>,
    macos: bool,
}

impl Surroundings<'_> {
    fn of_process() -> Self {
        let folder = std::env::current_dir().ok();
        Self { variable: &|name| std::env::var_os(name), folder, macos: cfg!(target_os = "macos") }
    }

    fn url(&self, configured: &str) -> Result<String, PlaceError> {
        if !configured.is_empty() {
            return Ok(configured.to_owned());
        }
        let place = self.place()?;
        let text = place.to_str().ok_or_else(|| PlaceError::NotText(place.clone()))?;
        let here = self.folder.as_ref().map(|folder| folder.join(FILE)).filter(|here| here.exists());
        if let Some(here) = here
            && !is_same_file(&here, &place)
        {
            return Err(PlaceError::Former { here: here.display().to_string(), place: text.to_owned() });
        }
        // An address has a query, and escapes.
        Ok(format!("sqlite://{}", text.replace('%', "%25").replace('?', "%3f")))
    }

    /// The default place.
    fn place(&self) -> Result<PathBuf, PlaceError> {
        let absolute = |name| (self.variable)(name).map(PathBuf::from).filter(|path| path.is_absolute());
        // systemd's, of a unit with StateDirectory=; of several it is the first.
        let of_unit = (self.variable)("STATE_DIRECTORY");
        let first = of_unit.as_deref().and_then(|all| std::env::split_paths(all).next());
        if let Some(folder) = first.filter(|path| path.is_absolute()) {
            return Ok(folder.join(FILE));
        }
        let home = || absolute("HOME").ok_or(PlaceError::NoHome);
        let state = match absolute("XDG_STATE_HOME") {
            Some(state) => state,
            None if self.macos => home()?.join("Library/Application Support"),
            None => home()?.join(".local/state"),
        };
        Ok(state.join("embosser").join(FILE))
    }
}

fn is_same_file(one: &Path, other: &Path) -> bool {
    matches!((one.canonicalize(), other.canonicalize()), (Ok(one), Ok(other)) if one == other)
}

/// Whether an address is this machine's own.
pub(crate) fn is_loopback(url: &url::Url) -> bool {
    match url.host() {
        Some(url::Host::Domain(name)) => name == "localhost",
        Some(url::Host::Ipv4(ip)) => ip.is_loopback(),
        Some(url::Host::Ipv6(ip)) => ip.is_loopback(),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url_in(folder: &Path, variables: &[(&str, &str)], macos: bool) -> Result<String, PlaceError> {
        let variable =
            |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| value.into());
        Surroundings { variable: &variable, folder: Some(folder.into()), macos }.url("")
    }

    #[test]
    fn no_password_is_shown() {
        for url in [
            "postgres://u:SECRET@h/d",
            "postgres://u@h/d?password=SECRET&sslmode=require",
            "postgres://h/d?user=u&password=SECRET",
            "postgres:/u:SECRET@@h/%",
        ] {
            assert!(!shown(url).contains("SECRET"), "{}", shown(url));
        }
    }

    #[test]
    fn each_user_has_one_place_and_the_service_manager_says_another() {
        let folder = tempfile::tempdir().unwrap();
        let url = |variables: &[(&str, &str)]| url_in(folder.path(), variables, false).unwrap();
        let home = ("HOME", "/users/a");
        assert_eq!(url(&[home]), "sqlite:///users/a/.local/state/embosser/embosser.db");
        assert_eq!(url(&[home, ("XDG_STATE_HOME", "/s")]), "sqlite:///s/embosser/embosser.db");
        assert_eq!(url(&[home, ("XDG_STATE_HOME", "s")]), url(&[home]), "a relative one is to be ignored");
        let unit = ("STATE_DIRECTORY", "/var/lib/embosser:/var/lib/other");
        assert_eq!(url(&[home, unit]), "sqlite:///var/lib/embosser/embosser.db");
        assert_eq!(url(&[("HOME", "/a?b%c")]), "sqlite:///a%3fb%25c/.local/state/embosser/embosser.db");
        let apple = url_in(folder.path(), &[home], true).unwrap();
        assert_eq!(apple, "sqlite:///users/a/Library/Application Support/embosser/embosser.db");
        assert!(matches!(url_in(folder.path(), &[], false), Err(PlaceError::NoHome)));
    }

    #[test]
    fn a_ledger_of_the_former_place_is_not_passed_over() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(FILE), "").unwrap();
        let state = folder.path().to_str().unwrap();
        let error = url_in(folder.path(), &[("HOME", "/users/a")], false).unwrap_err().to_string();
        assert!(
            error.contains("--ledger sqlite://embosser.db") && error.contains("/users/a/.local"),
            "{error}"
        );
        // Where the place is this very folder, as a unit's is, the file is the ledger.
        let unit = [("STATE_DIRECTORY", state)];
        assert!(url_in(folder.path(), &unit, false).is_ok());
    }

    #[test]
    fn an_address_is_shown_whole_and_without_its_password() {
        assert_eq!(shown("sqlite:///a%20b.db?mode=ro"), "sqlite:///a b.db");
        assert!(shown("sqlite://c.db").starts_with("sqlite:///"));
        assert!(!shown("postgres://user:secret@host/cards").contains("secret"));
    }
}
