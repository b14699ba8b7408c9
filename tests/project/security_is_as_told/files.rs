//! What the program makes, under the most careless umask there is.

use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;

use embosser::sandbox::{Options, Sandbox};
use reqwest::Method;

use super::all_below;
use crate::support::serve::Served;
use crate::support::{Program, expect_exit, sqlite, write_manifest};

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

fn set_mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_the_umask_files_are_their_owners_alone() {
    // Commands inherit it.
    rustix::process::umask(rustix::fs::Mode::empty());
    let sandbox = Sandbox::start(Options::default()).await.unwrap();
    let directory = tempfile::tempdir().unwrap();
    let place = |name: &str| directory.path().join(name);
    let program = Program::new(directory.path(), &sandbox);
    write_manifest(&place("cards.csv"), &sandbox, 3).await;
    std::fs::create_dir(place("columns")).unwrap();
    // Rows that end in another order than the manifest's are put into it, in a file of their own.
    for command in [
        vec!["issue", "cards.csv", "--rate", "300"],
        vec!["results", "cards", "--output", "written.csv"],
        vec!["results", "cards", "--format", "xlsx", "--output", "written.xlsx"],
        vec!["results", "cards", "--format", "json", "--output", "written.json"],
        vec!["template", "--for", "cards", "--output", "template.xlsx"],
        vec!["template", "--for", "cards", "--output", "template.csv"],
        vec!["columns", "cards.csv", "--output", "columns.toml"],
        vec!["example", "--rows", "2", "--output", "example.csv"],
    ] {
        expect_exit(&program.run(&command).await, 0);
    }
    // While it runs, there are files beside the ledger's. What an upload keeps is made by another thread.
    let keeping =
        program.clone().with("EMBOSSER__HTTP__COLUMNS_DIRECTORY", &place("columns").display().to_string());
    let served = Served::start(&keeping, &["--ledger", &sqlite(&place("of_serve.db"))]);
    let columns = std::fs::read(place("columns.toml")).unwrap();
    served.ask(Method::PUT, "/v1/columns/staff", &[], columns).await.expect(200);
    served.upload_file(&place("cards.csv")).await.expect(202);
    served.until_ended("cards").await;

    let mut files = Vec::new();
    all_below(directory.path(), &mut files);
    let of_this_test = ["cards.csv"];
    let mut endings = std::collections::BTreeSet::new();
    for file in &files {
        let name = file.file_name().unwrap().to_str().unwrap();
        if !of_this_test.contains(&name) {
            assert_eq!(mode(file), 0o600, "{} is {:o}", file.display(), mode(file));
            endings.insert(name.rsplit(['.', '-']).next().unwrap().to_owned());
        }
    }
    for ending in ["csv", "xlsx", "json", "toml", "db", "wal", "shm", "lease"] {
        assert!(endings.contains(ending), "no file of this kind was made: {ending}; {files:?}");
    }
    assert_eq!(mode(&place("embosser")), 0o700, "the folder of the ledger's default place");
    served.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_every_user_can_read_is_told_at_the_start() {
    let sandbox = Sandbox::start(Options::default()).await.unwrap();
    let directory = tempfile::tempdir().unwrap();
    let place = |name: &str| directory.path().join(name);
    write_manifest(&place("cards.csv"), &sandbox, 1).await;
    std::fs::write(place("key"), "sk_test_of_a_file").unwrap();
    std::fs::write(place("with.toml"), "[rabbitmq]\nurl = \"amqps://worker:hidden@broker.example/%2f\"\n")
        .unwrap();
    std::fs::write(place("without.toml"), "[pace]\nendpoint_per_second = 300.0\n").unwrap();
    let program = Program::new(directory.path(), &sandbox)
        .with("STRIPE_API_KEY", "")
        .with("EMBOSSER__STRIPE__API_KEY_FILE", &place("key").display().to_string());
    // Nobody is told of a run that this does not end: only what the file says is looked at.
    let endpoint = "[[webhooks.endpoints]]\nurl = \"http://127.0.0.1:9/?token=hidden\"\nevents = [\"batch.awaiting_approval\"]\n";
    std::fs::write(place("webhooks.toml"), format!("{endpoint}secret_file = {:?}\n", place("webhook")))
        .unwrap();
    std::fs::write(place("webhook"), "hidden_0123456789_0123456789").unwrap();
    let told = async |config: &str| {
        let output = program.run(&["issue", "cards.csv", "--config", config]).await;
        expect_exit(&output, 0);
        let told = String::from_utf8(output.stderr).unwrap();
        assert!(!told.contains("hidden") && !told.contains("of_a_file"), "{told}");
        told.lines().filter(|line| line.contains("every user")).map(str::to_owned).collect::<Vec<_>>()
    };
    let only_ours = [place("key"), place("with.toml"), place("without.toml")];
    only_ours.iter().for_each(|file| set_mode(file, 0o600));
    // From here on the folder keeps nobody from what is in it.
    set_mode(directory.path(), 0o755);
    assert!(told("with.toml").await.is_empty());
    only_ours.iter().for_each(|file| set_mode(file, 0o644));
    set_mode(&place("embosser"), 0o755);
    set_mode(&place("embosser/embosser.db"), 0o646);
    let without = told("without.toml").await;
    assert_eq!(without.len(), 2, "a configuration without a password is nobody's secret: {without:?}");
    assert!(
        without[0].contains("can read stripe.api_key_file") && without[0].contains("chmod o= "),
        "{without:?}"
    );
    assert!(without[1].contains("can change the ledger"), "{without:?}");
    let with = told("with.toml").await;
    assert!(with.len() == 3 && with[0].contains("can read the configuration"), "{with:?}");
    for file in ["webhooks.toml", "webhook"] {
        set_mode(&place(file), 0o644);
    }
    let webhooks = told("webhooks.toml").await;
    assert!(
        webhooks.len() == 4 && webhooks[0].contains("a webhook's address with what may be a secret"),
        "{webhooks:?}"
    );
    assert!(webhooks[2].contains("can read a webhook's secret_file"), "{webhooks:?}");
    // What the folder keeps them from is none of that.
    set_mode(directory.path(), 0o700);
    assert!(told("with.toml").await.is_empty());
}

/// They are for every user to read.
#[tokio::test(flavor = "multi_thread")]
async fn manual_pages_are_made_as_the_umask_says() {
    // Commands inherit it.
    rustix::process::umask(rustix::fs::Mode::empty());
    let sandbox = Sandbox::start(Options::default()).await.unwrap();
    let directory = tempfile::tempdir().unwrap();
    let pages = directory.path().join("man");
    std::fs::create_dir(&pages).unwrap();
    let program = Program::new(directory.path(), &sandbox);
    expect_exit(&program.run(&["man", "--directory", "man"]).await, 0);
    let page = mode(&pages.join("embosser.1"));
    assert!(page & 0o044 == 0o044, "{page:o}");
}

/// Who may read the former file by its group can read what takes its place, and no other group can.
#[test]
fn what_takes_a_files_place_keeps_its_owner_and_group() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("results.csv");
    std::fs::write(&path, "one").unwrap();
    let own = std::fs::metadata(&path).unwrap();
    let is_root = rustix::process::geteuid().is_root();
    let groups = rustix::process::getgroups().unwrap();
    let another = groups.iter().map(|group| group.as_raw()).find(|group| *group != own.gid());
    let (owner, group) = match (is_root, another) {
        (true, _) => (4321, 1234),
        (false, Some(group)) => (own.uid(), group),
        (false, None) => {
            return eprintln!("!! whoever runs this is in one group alone, and can give it to no other");
        }
    };
    std::os::unix::fs::chown(&path, Some(owner), Some(group)).unwrap();
    set_mode(&path, 0o640);
    let mut draft = embosser::files::Draft::begin(&path).unwrap();
    draft.write_all(b"two").unwrap();
    draft.put().unwrap();
    let now = std::fs::metadata(&path).unwrap();
    assert_eq!((now.uid(), now.gid(), mode(&path)), (owner, group, 0o640));
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "two");
}
