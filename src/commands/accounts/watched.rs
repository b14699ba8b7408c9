//! Notices that the files which say what accounts there are have changed, so that nobody has to tell it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::{Interval, MissedTickBehavior, interval};

use crate::config::{Config, Sources};
use crate::files::Stamp;

/// Between two looks. A change is taken once two looks show the same, so that what is being written is not read half-way.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// What stands at each path; nothing where no file is.
type Look = BTreeMap<PathBuf, Option<Stamp>>;

/// The files, as they were when they were read.
pub struct Watched {
    sources: Sources,
    read: Look,
    latest: Look,
    ticks: Interval,
}

impl Watched {
    /// Those of a configuration, and its own `file`, as they are now: to be made before the accounts are read.
    pub fn of(file: Option<&Path>, config: &Config) -> Self {
        let sources = config.sources_of_accounts(file);
        let mut ticks = interval(LOOK_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let read = look(&sources);
        Self { latest: read.clone(), read, sources, ticks }
    }

    /// They are about to be read: a change meanwhile is seen by the next look.
    pub fn about_to_be_read(&mut self) {
        self.read = look(&self.sources);
    }

    /// The configuration that was read names these. One that it did not name before was not looked at before it was read, and so
    /// is read once more.
    pub fn named_by(&mut self, file: Option<&Path>, config: &Config) {
        self.sources = config.sources_of_accounts(file);
    }

    /// Resolves once one of them is another than the one that was read, and all have been as they are for a while. Whoever stops
    /// waiting for it misses nothing.
    pub async fn have_changed(&mut self) {
        loop {
            self.ticks.tick().await;
            let sources = self.sources.clone();
            // A disk that is slow holds up no account.
            let Ok(now) = tokio::task::spawn_blocking(move || look(&sources)).await else { continue };
            let has_settled = now == self.latest;
            self.latest = now;
            if has_settled && self.latest != self.read {
                return;
            }
        }
    }
}

fn look(sources: &Sources) -> Look {
    sources.files().into_iter().map(|path| (path.clone(), Stamp::of(&path))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn has_changed(watched: &mut Watched) -> bool {
        tokio::time::timeout(LOOK_EVERY * 4, watched.have_changed()).await.is_ok()
    }

    #[tokio::test(start_paused = true)]
    async fn a_change_is_noticed_once_and_so_is_one_while_the_files_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str| folder.path().join(name);
        let config: Config =
            toml::from_str(&format!("[accounts]\ndirectory = {:?}\n", folder.path().to_str().unwrap()))
                .unwrap();
        let reread = |watched: &mut Watched, meanwhile: &dyn Fn()| {
            watched.about_to_be_read();
            meanwhile();
            watched.named_by(None, &config);
        };
        std::fs::write(file("a.toml"), "id = \"acct_1\"").unwrap();
        let mut watched = Watched::of(None, &config);
        assert!(!has_changed(&mut watched).await);
        std::fs::write(file("a.toml"), "id = \"acct_12\"").unwrap();
        assert!(has_changed(&mut watched).await);
        reread(&mut watched, &|| std::fs::write(file("a.toml"), "id = \"acct_123\"").unwrap());
        assert!(has_changed(&mut watched).await);
        reread(&mut watched, &|| ());
        assert!(!has_changed(&mut watched).await);
        // Another one, which names a key's file: that was not looked at before it was read.
        let key = file("key");
        let other = format!("id = \"acct_2\"\napi_key_file = {:?}", key.to_str().unwrap());
        std::fs::write(file("b.toml"), other).unwrap();
        assert!(has_changed(&mut watched).await);
        reread(&mut watched, &|| std::fs::write(&key, "sk_test_1").unwrap());
        assert!(has_changed(&mut watched).await);
        reread(&mut watched, &|| ());
        assert!(!has_changed(&mut watched).await);
        std::fs::write(&key, "sk_test_12").unwrap();
        assert!(has_changed(&mut watched).await);
        reread(&mut watched, &|| ());
        std::fs::remove_file(file("a.toml")).unwrap();
        assert!(has_changed(&mut watched).await);
    }
}
