//! Promise: a run whose ledger goes away, fills up or cannot be used stops and says why; what it issued is told, and when its
//! ledger is there again it goes on, with one card for each row.

use crate::support;

use std::path::Path;
use std::process::Command;

use embosser::ledger::Ledger;
use embosser::sandbox::{Options, Sandbox};
use support::postgres::Postgres;
use support::{Program, expect_exit, sqlite, write_manifest};

/// A run on 300 rows whose ledger goes while it issues; what is left of the directory then.
async fn taken_away_in_the_middle(take: impl Fn(&Path)) {
    let (directory, sandbox) =
        (tempfile::tempdir().unwrap(), Sandbox::start(Options::default()).await.unwrap());
    let expected = write_manifest(&directory.path().join("cards.csv"), &sandbox, 300).await;
    let file = directory.path().join("ledger.db");
    let program = Program::new(directory.path(), &sandbox)
        .with("EMBOSSER__LEDGER__URL", &sqlite(&file))
        .with("EMBOSSER__RETRY__BACKOFF_SECONDS_MAX", "0.5");
    let running = program.spawn(&["issue", "cards.csv", "--rate", "50"]);
    let began = std::time::Instant::now();
    // Its first card is made once it has opened its ledger, and so made the file.
    while sandbox.counts().cards == 0 {
        assert!(began.elapsed() < std::time::Duration::from_secs(45), "{:?}", sandbox.counts());
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    let ledger = Ledger::open_existing(&sqlite(&file)).await.unwrap();
    while ledger.counts().await.unwrap().iter().map(|batch| batch.issued).sum::<u64>() < 10 {
        assert!(began.elapsed() < std::time::Duration::from_secs(45), "{:?}", sandbox.counts());
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    ledger.close().await;
    let kept = directory.path().join("kept.db");
    let with = |file: &Path, ending: &str| std::path::PathBuf::from(format!("{}{ending}", file.display()));
    for ending in ["", "-wal", "-shm"] {
        std::fs::hard_link(with(&file, ending), with(&kept, ending)).unwrap();
    }
    take(&file);
    let creates = sandbox.counts().creates;
    let output = running.ended().await;
    expect_exit(&output, 3);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("stopped: ") && said.contains("ledger.db") && said.contains("replaced"), "{said}");
    let more = sandbox.counts().creates - creates;
    // What was recorded before leaves; that is less than a second's calls.
    assert!(more < 50, "{more} calls were made without a record");
    // What it knew to be issued is told, though the ledger cannot be asked any more.
    let results = std::fs::read_to_string(directory.path().join("cards.results.csv")).unwrap();
    assert!(results.matches(",issued,").count() >= 10, "{results}");
    // With its ledger again it goes on.
    for ending in ["", "-wal", "-shm"] {
        let _ = std::fs::remove_file(with(&file, ending));
        let _ = std::fs::rename(with(&kept, ending), with(&file, ending));
    }
    expect_exit(&program.run(&["issue", "cards.csv", "--rate", "600"]).await, 0);
    support::one_card_each(&sandbox.account(), &expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_whose_ledger_is_deleted_makes_no_further_call() {
    taken_away_in_the_middle(|file| std::fs::remove_file(file).unwrap()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_whose_ledger_is_replaced_makes_no_further_call() {
    taken_away_in_the_middle(|file| {
        let other = file.with_extension("other");
        std::fs::copy(file, &other).unwrap();
        std::fs::rename(other, file).unwrap();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_whose_database_goes_away_still_tells_what_it_issued() {
    let mut postgres = Postgres::start();
    let (directory, sandbox) =
        (tempfile::tempdir().unwrap(), Sandbox::start(Options::default()).await.unwrap());
    let expected = write_manifest(&directory.path().join("cards.csv"), &sandbox, 300).await;
    let program = Program::new(directory.path(), &sandbox)
        .with("EMBOSSER__LEDGER__URL", &postgres.url())
        .with("EMBOSSER__LEDGER__PATIENCE_SECONDS", "2");
    let running = program.spawn(&["issue", "cards.csv", "--rate", "50"]);
    let began = std::time::Instant::now();
    while sandbox.counts().cards < 20 {
        assert!(began.elapsed() < std::time::Duration::from_secs(45), "{:?}", sandbox.counts());
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    postgres.stop();
    expect_exit(&running.ended().await, 3);
    let results = std::fs::read_to_string(directory.path().join("cards.results.csv")).unwrap();
    // Those whose end was on its way to the database at that moment are not known to be issued.
    assert!(results.matches(",issued,").count() >= 10, "{results}");
    postgres.start_again();
    expect_exit(&program.run(&["issue", "cards.csv", "--rate", "600"]).await, 0);
    support::one_card_each(&sandbox.account(), &expected);
}

/// As a backup takes it.
#[tokio::test(flavor = "multi_thread")]
async fn after_a_run_a_copy_of_the_database_file_alone_is_the_whole_ledger() {
    let (directory, sandbox) =
        (tempfile::tempdir().unwrap(), Sandbox::start(Options::default()).await.unwrap());
    write_manifest(&directory.path().join("cards.csv"), &sandbox, 50).await;
    let file = directory.path().join("ledger.db");
    let program = Program::new(directory.path(), &sandbox);
    let run = ["issue", "cards.csv", "--rate", "500", "--ledger", &sqlite(&file)];
    expect_exit(&program.run(&run).await, 0);
    let elsewhere = tempfile::tempdir().unwrap();
    let copy = elsewhere.path().join("backup.db");
    std::fs::copy(&file, &copy).unwrap();
    let status = program.run(&["status", "--ledger", &sqlite(&copy)]).await;
    expect_exit(&status, 0);
    let said = String::from_utf8_lossy(&status.stdout);
    assert!(said.contains("cards") && said.contains("50 issued, 0 refused, 0 unresolved"), "{said}");
    let results = program.run(&["results", "cards", "--ledger", &sqlite(&copy)]).await;
    assert_eq!(results.stdout, std::fs::read(directory.path().join("cards.results.csv")).unwrap());
}

/// What `issue` says of a ledger; nothing may have been asked of Stripe.
async fn refused_ledger(directory: &Path, url: &str) -> String {
    let sandbox = Sandbox::start(Options::default()).await.unwrap();
    write_manifest(&directory.join("cards.csv"), &sandbox, 3).await;
    let program = Program::new(directory, &sandbox);
    let output = program.run(&["issue", "cards.csv", "--ledger", url]).await;
    assert_eq!(sandbox.account().creates, 0);
    let code = output.status.code();
    assert!(code == Some(2) || code == Some(3), "{output:?}");
    String::from_utf8(output.stderr).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_locked_or_read_only_ledger_says_so_before_anything_is_issued() {
    let directory = tempfile::tempdir().unwrap();
    let url = sqlite(&directory.path().join("ledger.db"));
    Ledger::open(&url).await.unwrap().close().await;
    let read_only = refused_ledger(directory.path(), &format!("{url}?mode=ro")).await;
    assert!(read_only.contains("is read-only"), "{read_only}");
    let holder = rusqlite::Connection::open(directory.path().join("ledger.db")).unwrap();
    holder.execute_batch("BEGIN EXCLUSIVE").unwrap();
    let locked = refused_ledger(directory.path(), &url).await;
    assert!(locked.contains("is locked by another process"), "{locked}");
    drop(holder);
    let nowhere = refused_ledger(directory.path(), "sqlite:///no/such/directory/ledger.db").await;
    assert!(nowhere.contains("/no/such/directory"), "{nowhere}");
    let server = refused_ledger(directory.path(), "postgres://u:secret@127.0.0.1:1/db").await;
    assert!(server.contains("127.0.0.1:1/db") && !server.contains("secret"), "{server}");
}

/// On a file system of eight megabytes, which the ledger shares with something that fills it.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_stops_the_run_and_loses_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let small = directory.path().join("small");
    std::fs::create_dir(&small).unwrap();
    let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=8m", "tmpfs"]).arg(&small).output();
    if !mounted.is_ok_and(|mounted| mounted.status.success()) {
        println!("skipped: only root can mount a small file system");
        return;
    }
    let sandbox = Sandbox::start(Options::default()).await.unwrap();
    let expected = write_manifest(&directory.path().join("cards.csv"), &sandbox, 200).await;
    let program = Program::new(directory.path(), &sandbox);
    let ledger = sqlite(&small.join("ledger.db"));
    let arguments = ["issue", "cards.csv", "--rate", "200", "--ledger", &ledger];
    let running = program.spawn(&arguments);
    while sandbox.account().cards.len() < 30 {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    let _ = std::fs::write(small.join("filler"), vec![0; 8 << 20]);
    let output = running.ended().await;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    expect_exit(&output, 3);
    assert!(said.contains("the disk is full"), "{said}");
    std::fs::remove_file(small.join("filler")).unwrap();
    let again = program.run(&arguments).await;
    let unmounted = Command::new("umount").arg("-l").arg(&small).status().unwrap();
    assert!(unmounted.success());
    expect_exit(&again, 0);
    support::one_card_each(&sandbox.account(), &expected);
}
