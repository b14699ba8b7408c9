//! Promise: a batch that is paused, or large, holds up no other.

use crate::support;

use embosser::sandbox::Options;
use serde_json::json;
use support::one_card_each;
use support::serve::Served;

use super::serve_issues_an_upload_once::stage;

#[tokio::test]
async fn a_paused_batch_holds_up_no_other() {
    let stage = stage(Options::default()).await;
    let (held, held_cards) = stage.manifest("held", 80).await;
    let (free, free_cards) = stage.manifest("free", 40).await;
    // Other people than those of the first.
    let free = std::fs::read_to_string(free).unwrap().replace("a, b", "c, d").into_bytes();
    let served = Served::start(&stage.program, &["--rate", "40"]);
    served.upload_file(&held).await.expect(202);
    served.until("held", |view| view["issued"].as_u64() > Some(5)).await;
    served.post("/v1/batches/held/pause").await.expect(200);
    served.upload("/v1/batches?name=free", free).await.expect(202);
    let view = served.until_ended("free").await;
    assert_eq!((&view["state"], &view["issued"]), (&json!("finished"), &json!(40)), "{view}");
    let view = served.get("/v1/batches/held").await.expect(200).json();
    assert_eq!(view["state"], "paused");
    assert!(view["issued"].as_u64() < Some(80), "{view}");
    served.post("/v1/batches/held/resume").await.expect(200);
    served.until_ended("held").await;
    let expected = held_cards.into_iter().chain(free_cards).collect();
    one_card_each(&stage.sandbox.account(), &expected);
}

/// Ten rows do not wait behind the thousand of an upload before them: of each batch few jobs wait for their turn at once.
#[tokio::test]
async fn a_small_batch_does_not_wait_behind_a_large_one() {
    let stage = stage(Options::default()).await;
    let (large, of_large) = stage.manifest("large", 1000).await;
    let (small, of_small) = stage.manifest("small", 10).await;
    let served = Served::start(&stage.program, &["--rate", "50"]);
    served.upload_file(&large).await.expect(202);
    served.until("large", |view| view["issued"].as_u64() > Some(20)).await;
    served
        .upload("/v1/batches?name=small&second_cards=true", std::fs::read(&small).unwrap())
        .await
        .expect(202);
    let before = stage.sandbox.account().cards.len();
    served.until_ended("small").await;
    let cards = stage.sandbox.account().cards;
    let is_of_small = |job: &Option<String>| job.as_ref().is_some_and(|job| of_small.contains_key(job));
    let last = cards.iter().rposition(|card| is_of_small(&card.job)).unwrap();
    // Half a second's jobs of the large one wait, and its next ones come after those.
    assert!(last - before < 100, "{} cards were made before the last of the small batch", last - before);
    served.until_ended("large").await;
    one_card_each(&stage.sandbox.account(), &of_large.into_iter().chain(of_small).collect());
}
