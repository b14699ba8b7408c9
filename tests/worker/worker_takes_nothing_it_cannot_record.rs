//! Promise: a worker whose ledger cannot be written to takes no job, says so, and goes on by itself once it can; how it ends
//! tells whoever starts it whether to start it again.

use crate::support;

use std::time::{Duration, Instant};

use embosser::sandbox::Options;
use lapin::BasicProperties;
use serde_json::{Value, json};
use support::proxy::Proxy;
use support::scene::Scene;
use support::{expect_exit, free_port, http_client, one_card_each};

async fn until_ready(listen: u16, wanted: bool) -> Value {
    let began = Instant::now();
    loop {
        if let Ok(answer) = http_client().get(format!("http://127.0.0.1:{listen}/readyz")).send().await {
            let ready = answer.status().is_success();
            let parts: Value = answer.json().await.unwrap();
            // The reason comes with the first try.
            if ready == wanted
                && (ready || parts["reason"].as_str().is_some_and(|why| why.contains("ledger")))
            {
                return parts;
            }
            assert!(began.elapsed() < Duration::from_secs(60), "{parts}");
        }
        assert!(began.elapsed() < Duration::from_secs(60), "no answer");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_ledger_can_only_be_read_jobs_stay_in_their_queue_and_none_becomes_poison() {
    let scene = Scene::with(Options::default()).await;
    let mut listener = scene.listen().await;
    let proxy = Proxy::before(scene.rabbit.port()).await;
    let (listen, ledger) = (free_port(), scene.directory.path().join("jobs.db"));
    let program = scene
        .program()
        .with("EMBOSSER__RABBITMQ__URL", &scene.rabbit.url_by(proxy.port()))
        .with("EMBOSSER__LEDGER__URL", &format!("sqlite://{}", ledger.display()))
        .with("EMBOSSER__WORKER__LISTEN", &format!("127.0.0.1:{listen}"));
    let worker = program.spawn(&["worker"]);
    until_ready(listen, true).await;
    // Somebody else writes, and does not come to an end.
    let other = rusqlite::Connection::open(&ledger).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    proxy.cut();
    let parts = until_ready(listen, false).await;
    assert_eq!(parts["consumer"], json!(false), "{parts}");
    for number in 0..10 {
        let card = json!({"cardholder": "ich_1", "type": "virtual", "currency": "eur"});
        let job = json!({"id": format!("job{number}"), "card": card});
        scene.publish(job.to_string().as_bytes(), BasicProperties::default()).await;
    }
    // Longer than between two tries.
    tokio::time::sleep(Duration::from_secs(12)).await;
    assert_eq!(scene.messages(&scene.broker().topology.jobs).await, Some(10), "none is taken");
    other.execute_batch("ROLLBACK").unwrap();
    drop(other);
    for _ in 0..10 {
        let event = listener.event().await;
        assert!(event.card.is_some(), "{event:?}");
    }
    worker.signal(rustix::process::Signal::TERM);
    expect_exit(&worker.ended().await, 0);
}

/// Of a database, one table alone may be closed to it: grants that were forgotten, for instance.
#[tokio::test(flavor = "multi_thread")]
async fn however_often_it_is_started_with_a_ledger_that_takes_no_attempt_no_job_becomes_poison() {
    /// More than the deliveries after which the broker gives a job up.
    const STARTS: usize = 25;
    let scene = Scene::with(Options::default()).await;
    let mut listener = scene.listen().await;
    let (listen, ledger) = (free_port(), scene.directory.path().join("jobs.db"));
    let program = scene
        .program()
        .with("EMBOSSER__LEDGER__URL", &format!("sqlite://{}", ledger.display()))
        .with("EMBOSSER__WORKER__LISTEN", &format!("127.0.0.1:{listen}"));
    let worker = program.spawn(&["worker"]);
    until_ready(listen, true).await;
    worker.killed().await;
    let other = rusqlite::Connection::open(&ledger).unwrap();
    other
        .execute_batch(
            "CREATE TRIGGER closed BEFORE INSERT ON steps BEGIN SELECT RAISE(ABORT, 'permission denied'); END",
        )
        .unwrap();
    let expected = scene.manifest(5).await;
    expect_exit(&scene.program().run(&["submit", "cards.csv"]).await, 0);
    for start in 1..=STARTS {
        let worker = program.spawn(&["worker"]);
        let pid = rustix::process::Pid::from_raw(i32::try_from(worker.pid()).unwrap()).unwrap();
        let ended = tokio::spawn(worker.ended());
        let began = Instant::now();
        // Until it says that it cannot work, or ends by itself, to be started again.
        while !ended.is_finished() {
            let answer = http_client().get(format!("http://127.0.0.1:{listen}/readyz")).send().await;
            if let Ok(answer) = answer
                && answer.text().await.unwrap().contains("permission denied")
            {
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
                break;
            }
            assert!(began.elapsed() < Duration::from_secs(20), "start {start}: it does not say so");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        ended.await.unwrap();
    }
    assert_eq!(scene.messages(&scene.broker().topology.jobs).await, Some(5));
    assert_eq!(scene.sandbox.counts().creates, 0);
    other.execute_batch("DROP TRIGGER closed").unwrap();
    let worker = program.spawn(&["worker"]);
    for _ in 0..5 {
        let event = listener.event().await;
        assert!(event.card.is_some(), "{event:?}");
    }
    one_card_each(&scene.sandbox.account(), &expected);
    worker.signal(rustix::process::Signal::TERM);
    expect_exit(&worker.ended().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn how_it_ends_says_whether_to_start_it_again() {
    let scene = Scene::with(Options::default()).await;
    let with = |ledger: &str| scene.program().with("EMBOSSER__LEDGER__URL", ledger);
    // A database that is not there yet may come: 3, as the unit of deploy/systemd restarts.
    let away = format!("postgres://nobody@127.0.0.1:{}/embosser", free_port());
    expect_exit(&with(&away).run(&["worker"]).await, 3);
    // An address that is none stays so: 2, which it does not restart.
    expect_exit(&with("mysql://db/embosser").run(&["worker"]).await, 2);
    let unit = include_str!("../../deploy/systemd/embosser-worker.service");
    assert!(unit.contains("Restart=on-failure\n") && unit.contains("RestartPreventExitStatus=2\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_whose_ledger_is_deleted_ends_for_good_and_names_it() {
    let scene = Scene::with(Options::default()).await;
    let mut listener = scene.listen().await;
    let (listen, ledger) = (free_port(), scene.directory.path().join("jobs.db"));
    let program = scene
        .program()
        .with("EMBOSSER__LEDGER__URL", &format!("sqlite://{}", ledger.display()))
        .with("EMBOSSER__WORKER__LISTEN", &format!("127.0.0.1:{listen}"));
    let job = |id: &str| {
        let card = json!({"cardholder": "ich_1", "type": "virtual", "currency": "eur"});
        json!({"id": id, "card": card}).to_string().into_bytes()
    };
    let worker = program.spawn(&["worker"]);
    scene.publish(&job("first"), BasicProperties::default()).await;
    assert!(listener.event().await.card.is_some());
    let kept = scene.directory.path().join("kept");
    std::fs::create_dir(&kept).unwrap();
    for file in ["jobs.db", "jobs.db-wal", "jobs.db-shm"] {
        std::fs::rename(scene.directory.path().join(file), kept.join(file)).unwrap();
    }
    // Whoever watches it learns that, and which file, before a job comes.
    let parts = until_ready(listen, false).await;
    assert!(parts["reason"].as_str().unwrap().contains("jobs.db"), "{parts}");
    scene.publish(&job("second"), BasicProperties::default()).await;
    let output = worker.ended().await;
    expect_exit(&output, 2);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("stopped: ") && said.contains("jobs.db"), "{said}");
    assert_eq!(scene.sandbox.counts().creates, 1, "no call without a record of it");
    // The job is not lost: a worker with the ledger answers it.
    for file in ["jobs.db", "jobs.db-wal", "jobs.db-shm"] {
        let _ = std::fs::rename(kept.join(file), scene.directory.path().join(file));
    }
    let worker = program.spawn(&["worker"]);
    let event = listener.event().await;
    assert!(event.id.as_deref() == Some("second") && event.card.is_some(), "{event:?}");
    worker.signal(rustix::process::Signal::TERM);
    expect_exit(&worker.ended().await, 0);
    assert_eq!(scene.sandbox.counts().cards, 2);
}
