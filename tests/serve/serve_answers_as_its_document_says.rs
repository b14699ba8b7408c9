//! Promise: the OpenAPI document at /openapi.json is true: a property-based tester, schemathesis, that makes thousands
//! of requests from it gets no server error and no answer that is not in it.
//!
//! tests/run installs schemathesis under target/; without it this test says so and judges nothing but the document.

use crate::support;

use std::path::Path;
use std::process::Stdio;

use embosser::sandbox::{Options, Sandbox};
use support::serve::Served;
use support::{Program, expect_exit};

/// Seconds of requests: thousands of them.
const SECONDS: &str = "25";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_property_based_tester_finds_no_answer_that_is_not_in_the_document() {
    let directory = tempfile::tempdir().unwrap();
    let sandbox = Sandbox::start(Options::default()).await.unwrap();
    let program = Program::new(directory.path(), &sandbox);
    let token = program
        .run(
            &[
                &["token", "tester"],
                ["read", "submit", "operate", "approve"].map(|role| ["--role", role]).as_flattened(),
            ]
            .concat(),
        )
        .await;
    expect_exit(&token, 0);
    std::fs::write(directory.path().join("tokens"), &token.stderr).unwrap();
    let token = String::from_utf8(token.stdout).unwrap().trim().to_owned();
    let tokens = directory.path().join("tokens");
    let program = program.with("EMBOSSER__HTTP__TOKENS_FILE", tokens.to_str().unwrap());
    let served = Served::start(&program, &["--rate", "200"]).with_token(&token);
    let document = served.get("/openapi.json").await.expect(200).json();
    assert!(document["openapi"].as_str().unwrap().starts_with("3.1."));
    assert!(document["components"]["schemas"]["Card"]["properties"]["shipping"].is_object());

    let tester = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/schemathesis/bin/schemathesis");
    if !tester.exists() {
        eprintln!("!! NOT RUN: {} is missing; ./tests/run installs it", tester.display());
        return;
    }
    // Batches and jobs for it to find.
    served
        .upload("/v1/batches?name=example", b"row_id,type,currency\n1,virtual,eur\n".to_vec())
        .await
        .expect(202);
    // One that waits.
    let start = jiff::Timestamp::now() + std::time::Duration::from_secs(3600);
    let path = format!("/v1/batches?name=waits&start={start}");
    served.upload(&path, b"row_id,type,currency\n2,virtual,usd\n".to_vec()).await.expect(202);
    // What violates the schema may be too large as well, and is then refused for that.
    let config = "[checks.negative_data_rejection]\n\
        expected-statuses = [400, 401, 403, 404, 405, 406, 409, 413, 415, 422, 428, 429, \"5xx\"]\n";
    std::fs::write(directory.path().join("schemathesis.toml"), config).unwrap();
    let mut command = std::process::Command::new(tester);
    command.args([
        "run",
        &format!("{}/openapi.json", served.url),
        "--max-time",
        SECONDS,
        "--seed",
        "1",
        "--no-color",
    ]);
    // An upload's rows and a job's whole are judged by more than a schema can say: a valid request may be a 422.
    command.args(["--checks", "all", "--exclude-checks", "positive_data_acceptance"]);
    // The tester can write no TOML.
    command.args(["--exclude-operation-id", "keep_columns"]);
    command.args(["--request-timeout", "5", "-H", &format!("Authorization: Bearer {token}")]);
    command.current_dir(&directory).stdin(Stdio::null());
    let output = tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    eprintln!(
        "{}",
        said.lines().rev().take(12).collect::<Vec<_>>().into_iter().rev().collect::<Vec<_>>().join("\n")
    );
    assert!(output.status.success(), "{said}\n{}", String::from_utf8_lossy(&output.stderr));
    // It is still well.
    served.get("/readyz").await.expect(200);
    assert!(!sandbox.account().cards.is_empty());
    let (_, log) = served.stopped().await;
    assert!(!log.contains("failed by a bug"), "{log}");
}
