//! A receiver that is down for a day: nothing is lost meanwhile, and what it is told then is the same event.

use embosser::sandbox::{Options, Sandbox};
use serde_json::json;

use super::support::receiver::{Receiver, configuration};
use super::support::serve::Served;
use super::support::time::{A_DAY, WallClock};
use super::support::{Program, write_manifest};

#[tokio::test]
async fn a_receiver_that_is_down_for_a_day_is_told_once_it_is_back() {
    let directory = tempfile::tempdir().unwrap();
    let sandbox = Sandbox::start(Options::default()).await.unwrap();
    let receiver = Receiver::start().await;
    receiver.answers(503);
    let config = configuration(directory.path(), &[(&receiver, &["batch.finished"])], "");
    let file = directory.path().join("staff.csv");
    write_manifest(&file, &sandbox, 5).await;
    let clock = WallClock::in_directory(directory.path());
    let program = clock.of(Program::new(directory.path(), &sandbox));
    let served = Served::start(&program, &["--config", &config, "--rate", "100"]);
    served.upload_file(&file).await.expect(202);
    receiver.until_tries(|tries| tries.len() >= 3).await;
    // Its server is another process by then, and has only what the ledger has.
    let (code, log) = served.stopped().await;
    assert_eq!(code, Some(0), "{log}");
    clock.set(A_DAY.as_secs().cast_signed());
    let _served = Served::start(&program, &["--config", &config, "--rate", "100"]);
    let before = receiver.tries().len();
    receiver.until_tries(|tries| tries.len() > before + 1).await;
    assert_eq!(receiver.told().len(), 0);
    receiver.answers(204);
    let told = receiver.has("batch.finished").await;
    let first = &receiver.tries()[0];
    assert_eq!((told.id(), told.batch()), (first.id(), first.batch()));
    assert_eq!(told.batch()["issued"], json!(5));
    // Signed at the time of its sending, so that no receiver takes it for an old one that somebody sent again.
    let signed = |signature: &str| -> u64 {
        let time = signature.strip_prefix("t=").and_then(|rest| rest.split(',').next());
        time.and_then(|time| time.parse().ok()).unwrap_or_else(|| panic!("{signature}"))
    };
    assert!(signed(&told.signature) >= signed(&first.signature) + A_DAY.as_secs(), "{}", told.signature);
    let ids: std::collections::BTreeSet<String> = receiver.tries().iter().map(super::Delivery::id).collect();
    assert_eq!((ids.len(), receiver.told().len()), (1, 1));
}
