//! From starting the program to its first request.

use std::process::{Command, Stdio};
use std::time::Instant;

use crate::loopback::Server;
use crate::{Rollout, UNLIMITED};

/// Prints the time of `issue` on a manifest of one row, with a new ledger: the program as it is installed.
pub(crate) async fn until_first_request(server: &Server, runs: usize, jwe: &str) {
    let mut took = Vec::new();
    for run in 0..runs {
        let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let rollout = Rollout::write(server, directory.path(), &format!("start{run}"), (1, None), jwe);
        let asked = server.asked.notified();
        let began = Instant::now();
        let mut program = Command::new(env!("CARGO_BIN_EXE_embosser"))
            .args(["issue", "--rate", &UNLIMITED.to_string()])
            .arg(&rollout.args.manifest)
            .env("STRIPE_API_KEY", "sk_test_bench")
            .env("EMBOSSER__STRIPE__API_URL", &rollout.config.stripe.api_url)
            .env("EMBOSSER__STRIPE__KEY_URL", &rollout.config.stripe.key_url)
            .env("EMBOSSER__LEDGER__URL", &rollout.config.ledger.url)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        asked.await;
        took.push(began.elapsed());
        assert!(tokio::task::block_in_place(|| program.wait()).unwrap().success());
    }
    took.sort_unstable();
    let milliseconds = |at: usize| took[at].as_secs_f64() * 1e3;
    println!(
        "from starting the program to its first request: median {:.1} ms, slowest {:.1} ms of {runs}",
        milliseconds(runs / 2),
        milliseconds(runs - 1)
    );
}
