//! Promise: whatever folder a command is run in, it finds the user's one ledger or says which one it did not find; a look
//! makes nothing; a rehearsal is never taken for the real run; and a wrong argument is answered with a right one.

use crate::support;

use std::io::Read as _;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use embosser::sandbox::{Options, Sandbox};
use support::{Program, expect_exit, write_manifest};

struct Office {
    sandbox: Sandbox,
    directory: tempfile::TempDir,
}

impl Office {
    async fn open() -> Self {
        let sandbox = Sandbox::start(Options::default()).await.unwrap();
        Self { sandbox, directory: tempfile::tempdir().unwrap() }
    }

    fn program(&self) -> Program {
        Program::new(self.directory.path(), &self.sandbox)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    async fn run(&self, arguments: &[&str]) -> Output {
        self.program().run(arguments).await
    }
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[tokio::test(flavor = "multi_thread")]
async fn every_folder_has_the_same_ledger_and_it_is_named_at_start() {
    use std::os::unix::fs::PermissionsExt as _;
    let office = Office::open().await;
    std::fs::create_dir(office.path("elsewhere")).unwrap();
    write_manifest(&office.path("cards.csv"), &office.sandbox, 4).await;
    std::fs::copy(office.path("cards.csv"), office.path("elsewhere/cards.csv")).unwrap();
    let ledger = office.path("embosser/embosser.db");
    let first = office.run(&["issue", "cards.csv", "--rate", "300"]).await;
    expect_exit(&first, 0);
    assert!(said(&first).contains(&format!("ledger: sqlite://{}", ledger.display())), "{}", said(&first));
    let folder = std::fs::metadata(office.path("embosser")).unwrap();
    assert_eq!(folder.permissions().mode() & 0o777, 0o700, "its user's alone");
    let mut elsewhere = office.program();
    elsewhere.directory = office.path("elsewhere");
    expect_exit(&elsewhere.run(&["issue", "cards.csv", "--rate", "300"]).await, 0);
    assert_eq!(office.sandbox.account().cards.len(), 4, "one ledger, one card each");
    assert!(said(&elsewhere.run(&["status"]).await).contains("4 issued"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ledger_of_the_former_place_stops_the_command_and_can_be_gone_on_with() {
    let office = Office::open().await;
    write_manifest(&office.path("cards.csv"), &office.sandbox, 2).await;
    let here = ["--ledger", "sqlite://embosser.db"];
    expect_exit(&office.run(&[&["issue", "cards.csv", "--rate", "300"], &here[..]].concat()).await, 0);
    for command in [&["issue", "cards.csv"][..], &["status"], &["results", "cards"], &["serve"], &["worker"]]
    {
        let stopped = office.run(command).await;
        expect_exit(&stopped, 2);
        let told = said(&stopped);
        assert!(told.contains("--ledger sqlite://embosser.db") && told.contains("second cards"), "{told}");
    }
    assert!(!office.path("embosser").exists(), "no other was made beside it");
    expect_exit(&office.run(&[&["status"], &here[..]].concat()).await, 0);
    assert_eq!(office.sandbox.account().cards.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn to_look_makes_no_ledger() {
    let office = Office::open().await;
    for command in [&["status"][..], &["results", "cards"], &["status", "--ledger", "sqlite://other.db"]] {
        let looked = office.run(command).await;
        expect_exit(&looked, 2);
        let file = if command.len() > 2 { "other.db" } else { "embosser/embosser.db" };
        let place = office.path(file);
        assert!(said(&looked).contains(place.to_str().unwrap()), "{}", said(&looked));
    }
    expect_exit(&office.run(&["status", "--if-any"]).await, 0);
    assert_eq!(std::fs::read_dir(office.directory.path()).unwrap().count(), 0, "nothing was made");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rehearsal_and_the_real_run_are_told_apart() {
    let office = Office::open().await;
    write_manifest(&office.path("cards.csv"), &office.sandbox, 10).await;
    expect_exit(&office.run(&["issue", "cards.csv", "--rate", "300"]).await, 0);
    let rehearsal = office.program().with("STRIPE_API_KEY", "");
    let rehearsed = rehearsal.run(&["issue", "cards.csv", "--rate", "300", "--sandbox"]).await;
    expect_exit(&rehearsed, 0);
    let real = std::fs::read_to_string(office.path("cards.results.csv")).unwrap();
    let trial = std::fs::read_to_string(office.path("cards.sandbox.results.csv")).unwrap();
    assert!(real.lines().next().unwrap().ends_with(
        ",note,scope,cardholder_id,changed,pin_link,person,shipping_status,tracking_number,tracking_url,eta,cancelled_by"
    ));
    assert!(trial.lines().skip(1).all(|line| line.contains(",test:sandbox,")), "{trial}");

    let mixed = office.run(&["results", "cards"]).await;
    expect_exit(&mixed, 2);
    let told = said(&mixed);
    assert!(
        told.contains("test:sandbox") && told.contains("test:127.0.0.1:") && told.contains("--scope"),
        "{told}"
    );
    assert!(mixed.stdout.is_empty(), "nothing is mixed");
    for (scope, file) in [("test:127", &real), ("test:sandbox", &trial)] {
        let chosen = office.run(&["results", "cards", "--scope", scope]).await;
        expect_exit(&chosen, 0);
        assert_eq!(&String::from_utf8(chosen.stdout).unwrap(), file, "the same lines as the file");
    }
    let none = office.run(&["results", "cards", "--scope", "live"]).await;
    expect_exit(&none, 2);
    assert!(said(&none).contains("test:sandbox"), "{}", said(&none));
}

#[tokio::test(flavor = "multi_thread")]
async fn programs_read_the_same_as_people() {
    let office = Office::open().await;
    write_manifest(&office.path("cards.csv"), &office.sandbox, 5).await;
    office.sandbox.rotate_key();
    expect_exit(&office.run(&["issue", "cards.csv", "--rate", "300"]).await, 1);
    let status = office.run(&["status", "--format", "json"]).await;
    let status: serde_json::Value = serde_json::from_slice(&status.stdout).unwrap();
    assert_eq!((&status[0]["batch"], &status[0]["rows"]), (&"cards".into(), &5.into()));
    assert_eq!((&status[0]["issued"], &status[0]["refused"]), (&1.into(), &4.into()));
    let scope = status[0]["scope"].as_str().unwrap();
    let output = office.run(&["results", "cards", "--format", "json"]).await;
    let rows: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let rows = rows.as_array().unwrap();
    assert_eq!(rows.len(), 5);
    assert!(rows.iter().all(|row| row["scope"] == scope));
    assert_eq!((&rows[0]["outcome"], &rows[0]["error_code"]), (&"refused".into(), &"stale_key".into()));
    assert!(rows[4]["card_id"].as_str().unwrap().starts_with("ic_") && rows[4]["note"].is_null());
}

/// As `embosser results cards | head -1` does.
#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_has_enough_is_no_error() {
    let office = Office::open().await;
    // More than a pipe holds.
    write_manifest(&office.path("cards.csv"), &office.sandbox, 1500).await;
    expect_exit(&office.run(&["issue", "cards.csv", "--rate", "2000"]).await, 0);
    for arguments in [&["results", "cards"][..], &["results", "cards", "--format", "json"]] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_embosser"));
        command.args(arguments).current_dir(office.directory.path());
        command.envs(office.program().environment).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut stdout = child.stdout.take().unwrap();
        stdout.read_exact(&mut [0; 100]).unwrap();
        drop(stdout);
        let output = child.wait_with_output().unwrap();
        expect_exit(&output, 0);
        assert!(output.stderr.is_empty(), "{}", said(&output));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_argument_is_answered_with_a_right_one() {
    let office = Office::open().await;
    for rate in ["0", "nan", "100001"] {
        for command in [&["issue", "cards.csv"][..], &["check", "cards.csv"], &["serve"], &["worker"]] {
            let told = office.run(&[command, &["--rate", rate]].concat()).await;
            expect_exit(&told, 2);
            assert!(said(&told).contains("above 0 and up to 100,000"), "{}", said(&told));
        }
    }
    let told = office.run(&["serve", "--listen", "8099"]).await;
    expect_exit(&told, 2);
    assert!(said(&told).contains("127.0.0.1:8099"), "{}", said(&told));
}

/// Both on one machine, as they come.
#[test]
fn server_and_worker_share_no_port() {
    let config = embosser::config::Config::default();
    assert_ne!(config.http.listen.port(), config.worker.listen.port());
}
