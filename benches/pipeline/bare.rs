//! The references: the same two calls for each job with reqwest, so many at a time, and no record of anything.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::stream::{self, StreamExt as _};
use tokio::task::JoinSet;

use crate::AT_A_TIME;
use crate::loopback::{Server, serve};

/// A client as in any script.
fn client() -> reqwest::Client {
    reqwest::Client::builder()
        .tcp_nodelay(true)
        .pool_max_idle_per_host(1024)
        .timeout(Duration::from_secs(30))
        .no_proxy()
        .build()
        .expect("a client")
}

/// The two calls of a job.
async fn two_calls(client: &reqwest::Client, url: &str, body: &[u8]) {
    let key = client.get(format!("{url}/v1/keys")).send().await.expect("a key");
    assert!(!key.bytes().await.expect("a body").is_empty());
    let create = client
        .post(format!("{url}/v1/issuing/cards"))
        .header("authorization", "Bearer sk_test_bench")
        .header("content-type", "application/x-www-form-urlencoded")
        .header("idempotency-key", "bench")
        .body(body.to_vec());
    let card = create.send().await.expect("a card");
    assert!(card.status().is_success());
    assert!(!card.bytes().await.expect("a body").is_empty());
}

/// In one loop, as a program's main function would have it.
pub(crate) async fn in_one_loop(server: &Server, jobs: usize, body: Arc<[u8]>) {
    let client = client();
    let before = server.creates.load(Ordering::Relaxed);
    let calls = stream::iter(0..jobs).map(|_| two_calls(&client, &server.url, &body));
    calls.buffer_unordered(AT_A_TIME).collect::<()>().await;
    assert_eq!(server.creates.load(Ordering::Relaxed) - before, jobs, "one call for each job");
}

/// As tasks on all of the runtime's threads: the most that these two calls allow with this client.
pub(crate) async fn as_tasks(server: &Server, jobs: usize, body: Arc<[u8]>) {
    let client = client();
    let next = Arc::new(AtomicUsize::new(0));
    let before = server.creates.load(Ordering::Relaxed);
    let mut loops = JoinSet::new();
    for _ in 0..AT_A_TIME {
        let (client, next, body, url) = (client.clone(), next.clone(), body.clone(), server.url.clone());
        loops.spawn(async move {
            while next.fetch_add(1, Ordering::Relaxed) < jobs {
                two_calls(&client, &url, &body).await;
            }
        });
    }
    loops.join_all().await;
    assert_eq!(server.creates.load(Ordering::Relaxed) - before, jobs, "one call for each job");
}

/// The loop and its server on one thread.
pub(crate) async fn on_one_thread(document: Arc<str>, jobs: usize, body: Arc<[u8]>) {
    let alone = move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime starts").block_on(async {
            let server = serve(document).await;
            in_one_loop(&server, jobs, body).await;
        });
    };
    tokio::task::spawn_blocking(alone).await.expect("it does not panic");
}
