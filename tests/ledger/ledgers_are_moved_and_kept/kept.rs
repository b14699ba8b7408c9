//! Ledgers that are exported, verified and pruned.

use std::os::unix::fs::PermissionsExt as _;

use embosser::clock::Clock;
use embosser::job::JobId;
use embosser::ledger::{Begin, Conclude, Ledger, PRUNED, Row, Scope, State};
use embosser::outcome::Refusal;
use embosser::sandbox::Options;

use super::filled::{
    are_same, code, empty_database, exported, in_file, in_sqlite, ledger, on_server, path, program, said,
};
use super::support::issuing::{Issuing, ended, issue};
use super::support::one_card_each;
use super::support::postgres::Postgres;

#[tokio::test(flavor = "multi_thread")]
async fn what_was_altered_or_lost_is_found_and_what_went_on_is_not() {
    let directory = tempfile::tempdir().unwrap();
    let program = program(directory.path());
    let (file, export) = (path(&directory, "a.db"), path(&directory, "export.jsonl"));
    let url = in_sqlite(&file).await;
    let export = export.to_str().unwrap();
    ledger(&program, &["export", "--ledger", &url, "--output", export], 0).await;
    assert_eq!(std::fs::metadata(export).unwrap().permissions().mode() & 0o777, 0o600);
    let verify = ["verify", "--ledger", &url];
    let since = ["verify", "--ledger", &url, "--against", export];
    let exactly = ["verify", "--ledger", &url, "--against", export, "--exactly"];
    for arguments in [&verify[..], &since[..], &exactly[..]] {
        let told = ledger(&program, arguments, 0).await;
        assert!(told.contains("steps: 5,005 rows") && told.contains("is sound."), "{told}");
    }

    // A job goes on, and another comes.
    let open = Ledger::open(&url).await.unwrap();
    let scope = Scope::new("test", "h", Some("acct_1"));
    let known = open.look_up(&scope, &JobId::new("b/5").unwrap()).await.unwrap().unwrap();
    assert_eq!(known.state, State::Begun);
    let refused = State::Refused(Refusal::own("cut_off", "no card"));
    let ended = open.conclude(Row { state: refused, ..known.clone() }, Some(&known)).await.unwrap();
    assert!(matches!(ended, Conclude::Written(_)));
    open.add_audit_entry(super::filled::entry(3)).await.unwrap();
    open.close().await;
    let told = ledger(&program, &since, 0).await;
    assert!(told.contains("1 rows have gone on, 1 have come") && told.contains("is sound."), "{told}");
    let told = ledger(&program, &exactly, 1).await;
    assert!(told.contains("\"b/5\"") && told.contains("not in the export"), "{told}");

    // Each of these is nothing that embosser does.
    let where_b3 = "WHERE scope = 'test:h:acct_1' AND job_id = 'b/3'";
    for (altered, found, alone) in [
        (format!("UPDATE steps SET output = replace(output, 'ic_3', 'ic_4') {where_b3}"), "was \"{\\\"id\\\":\\\"ic_3", false),
        (format!("UPDATE steps SET version = version - 1 {where_b3}"), "version is 3, and was 4", false),
        (format!("UPDATE steps SET version = 9, state = 'begun', output = NULL {where_b3}"), "state is \"begun\"", false),
        (format!("DELETE FROM steps {where_b3}"), "the export has it, and the ledger has not", false),
        ("DELETE FROM batches WHERE batch = 'z'".into(), "the export has it", false),
        (format!("UPDATE steps SET output = NULL {where_b3}"), "done without an output", true),
        (format!("UPDATE steps SET error_code = 'x' {where_b3}"), "it is done, and was refused", true),
        (format!("UPDATE steps SET state = 'made' {where_b3}"), "unknown state", true),
        ("UPDATE steps SET attempts = 0 WHERE job_id = 'b/10'".into(), "a call was begun, and none was made", true),
        (
            format!("INSERT INTO steps SELECT scope, job_id, 'update_card', version, batch, row_number, row_id, content, pin, state,
                generation, key_began_ms, attempted_ms, attempts, output, error_code, error_message, request_id, note, written_ms
                FROM steps {where_b3}"),
            "two last steps",
            true,
        ),
        (
            "DROP TRIGGER audit_is_not_changed; UPDATE audit SET who = 'nobody' WHERE id = 1;
             CREATE TRIGGER audit_is_not_changed BEFORE UPDATE ON audit BEGIN SELECT RAISE(ABORT, 'it is not changed'); END"
                .into(),
            "who is \"nobody\"",
            false,
        ),
        ("DROP TRIGGER audit_is_not_deleted".into(), "keep the audit log from being changed", true),
    ] {
        let copy = path(&directory, "altered.db");
        std::fs::copy(&file, &copy).unwrap();
        in_file(&copy, &format!("PRAGMA ignore_check_constraints = 1; {altered}"));
        let copy = super::support::sqlite(&copy);
        let told = ledger(&program, &["verify", "--ledger", &copy, "--against", export], 1).await;
        assert!(told.contains(found) && told.contains("is not sound"), "{altered}: {told}");
        let told = ledger(&program, &["verify", "--ledger", &copy], i32::from(alone)).await;
        assert_eq!(told.contains(found), alone, "{altered}: {told}");
        std::fs::remove_file(path(&directory, "altered.db")).unwrap();
    }

    // A ledger of a newer version may be worked with, and what it has more would be left out of an export or a move.
    let newer = path(&directory, "newer.db");
    std::fs::copy(&file, &newer).unwrap();
    in_file(&newer, "PRAGMA user_version = 4");
    let newer = super::support::sqlite(&newer);
    Ledger::open(&newer).await.unwrap().close().await;
    let more = super::support::sqlite(&path(&directory, "more.db"));
    for arguments in
        [&["verify", "--ledger", &newer][..], &["export", "--ledger", &newer], &["move", &newer, &more]]
    {
        let told = ledger(&program, arguments, 2).await;
        assert!(told.contains("use the newer embosser"), "{told}");
    }

    // An export that is not as it was written proves nothing.
    let text = std::fs::read_to_string(export).unwrap();
    let cut = &text[..text.len() - 100];
    let altered = text.replace("\"ic_8\\\"", "\"ic_9\\\"");
    for (text, found) in
        [(cut, "export, line"), (&*altered, "was altered"), ("{}\n", "no export of a ledger")]
    {
        let broken = path(&directory, "broken.jsonl");
        std::fs::write(&broken, text).unwrap();
        let told =
            ledger(&program, &["verify", "--ledger", &url, "--against", broken.to_str().unwrap()], 2).await;
        assert!(told.contains(found), "{told}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_export_is_not_written_over_the_ledger() {
    let directory = tempfile::tempdir().unwrap();
    let program = program(directory.path());
    let file = path(&directory, "a.db");
    let url = in_sqlite(&file).await;
    let open = Ledger::open(&url).await.unwrap();
    std::os::unix::fs::symlink(&file, path(&directory, "link.db")).unwrap();
    std::os::unix::fs::symlink(directory.path(), path(&directory, "folder")).unwrap();
    for output in ["a.db", "a.db-wal", "a.db-shm", "link.db", "folder/a.db", "folder/a.db-wal"] {
        let output = path(&directory, output).display().to_string();
        let told = ledger(&program, &["export", "--ledger", &url, "--output", &output], 2).await;
        assert!(told.contains("the ledger's own file"), "{told}");
    }
    open.probe_write().await.unwrap();
    let begun = open.begin(super::moved::new_row().await, None).await.unwrap();
    assert!(matches!(begun, Begin::Recorded(_)), "{begun:?}");
    open.close().await;
    let output = path(&directory, "folder/a.db.jsonl").display().to_string();
    ledger(&program, &["export", "--ledger", &url, "--output", &output], 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_with_broken_pages_is_not_sound() {
    let directory = tempfile::tempdir().unwrap();
    let file = path(&directory, "a.db");
    let url = in_sqlite(&file).await;
    let mut bytes = std::fs::read(&file).unwrap();
    let page = bytes.len() / 2 / 4096 * 4096;
    bytes[page + 100..page + 600].fill(0xa5);
    std::fs::write(&file, bytes).unwrap();
    let output = program(directory.path()).run(&["ledger", "verify", "--ledger", &url]).await;
    assert!(matches!(code(&output), Some(1 | 2)), "{}", said(&output));
}

#[tokio::test(flavor = "multi_thread")]
async fn pruning_is_the_same_in_both_databases_and_keeps_every_row() {
    let (server, directory) = (Postgres::start(), tempfile::tempdir().unwrap());
    let program = program(directory.path());
    let (file, export) = (path(&directory, "a.db"), path(&directory, "export.jsonl"));
    let first = in_sqlite(&file).await;
    let second = empty_database(&server, "cards").await;
    // Half of the rows is young.
    let now = Clock::system().now().unix_ms();
    in_file(
        &file,
        &format!("UPDATE steps SET written_ms = {now} WHERE job_id LIKE 'b/%' AND row_number > 2500"),
    );
    // Their sentences name who must be looked at.
    for (row, kept) in
        [(11, "several_cardholders"), (21, "cardholder_has_other_name"), (31, "cardholder_has_other_email")]
    {
        in_file(&file, &format!("UPDATE steps SET error_code = '{kept}' WHERE job_id = 'b/{row}'"));
    }
    let copy = path(&directory, "copy.db");
    std::fs::copy(&file, &copy).unwrap();
    ledger(&program, &["move", &super::support::sqlite(&copy), &second], 0).await;
    let export = export.to_str().unwrap();
    ledger(&program, &["export", "--ledger", &first, "--output", export], 0).await;
    let before = exported(&program, &first).await;
    let mut after = Vec::new();
    for url in [&first, &second] {
        let prune = ["prune", "--ledger", url, "--older-than", "400d"];
        let told = ledger(&program, &[&prune[..], &["--dry-run"]].concat(), 0).await;
        assert!(told.contains("Nothing was changed") && told.contains("all 5,005 rows"), "{told}");
        let told = ledger(&program, &prune, 2).await;
        assert!(told.contains("--yes"), "{told}");
        are_same(&exported(&program, url).await, &before);
        let told = ledger(&program, &[&prune[..], &["--yes"]].concat(), 0).await;
        // Refused rows of the older half, and of the done ones those with a request; three by hand, of which one names a card. Less three that name cardholders.
        assert!(told.contains("Taken out beside 999 rows and 1 shipments"), "{told}");
        let told = ledger(&program, &[&prune[..], &["--yes"]].concat(), 0).await;
        assert!(told.contains("Nothing was changed"), "{told}");
        let told = ledger(&program, &["verify", "--ledger", url, "--against", export], 0).await;
        assert!(told.contains("is sound"), "{told}");
        after.push(exported(&program, url).await);
    }
    are_same(&after[0], &after[1]);
    assert_eq!(after[0].len(), before.len(), "a row is gone");
    for (before, after) in before.iter().zip(&after[0]) {
        let read = |line: &String| serde_json::from_str::<serde_json::Value>(line).unwrap();
        let (before, after) = (read(before), read(after));
        let Some(row) = before["row"].as_object().filter(|_| before["table"] == "steps") else { continue };
        for (column, value) in row {
            let is_old = row["written_ms"].as_i64().unwrap() < 1_800_000_000_000;
            let told = &after["row"][column];
            let may_go = is_old
                && row["state"] != "begun"
                && row["error_code"] != "awaiting_pin"
                && row["error_code"] != "job_conflict"
                && !row["error_code"].as_str().is_some_and(|code| code.contains("cardholder"))
                && (column == "request_id" && told.is_null() || column == "error_message" && told == PRUNED);
            assert!(told == value || may_go, "{column} of {before} is {told}");
        }
    }
    let shipping = after[0].iter().find(|line| line.contains("shipping:test:h|ic_3")).unwrap();
    assert!(shipping.contains("delivered") && !shipping.contains("T1"), "{shipping}");
    assert!(after[0].iter().any(|line| line.contains("shipping:test:h|ic_4") && line.contains("T2")));
    on_server(&second, "SELECT 1").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pruned_ledger_makes_no_second_card() {
    let issuing = Issuing::with(Options::default()).await;
    let expected = issuing.manifest(6).await;
    let (program, url) = (issuing.program(), issuing.ledger("ledger.db"));
    let issued = ended(issue(&program, "20", &[])).await;
    assert_eq!(code(&issued), Some(0), "{}", said(&issued));
    in_file(
        &issuing.path("ledger.db"),
        "UPDATE steps SET written_ms = 1, key_began_ms = 1, attempted_ms = 1",
    );
    let told = ledger(&program, &["prune", "--ledger", &url, "--older-than", "35d", "--yes"], 0).await;
    assert!(told.contains("Taken out beside 6 rows"), "{told}");
    // Stripe has forgotten every key by then.
    issuing.sandbox.advance(std::time::Duration::from_secs(400 * 24 * 3600));
    let again = ended(issue(&program, "20", &[])).await;
    assert_eq!(code(&again), Some(0), "{}", said(&again));
    // The same people under another name.
    std::fs::copy(issuing.path("cards.csv"), issuing.path("renamed.csv")).unwrap();
    let renamed = program.run(&["issue", "renamed.csv", "--rate", "20"]).await;
    assert!(said(&renamed).contains("cards"), "{}", said(&renamed));
    one_card_each(&issuing.sandbox.account(), &expected);
}
