//! Promise: docs/metrics.md is what embosser measures, and a run shows in its metrics what happened.

use crate::support;

use std::fmt::Write as _;
use std::time::Duration;

use embosser::metrics::{Kind, METRICS};
use embosser::sandbox::{Options, Sandbox};
use support::serve::Served;
use support::{Program, expect_exit, write_manifest};

const DOCUMENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/metrics.md");

fn table() -> String {
    let mut table = "| metric | kind | labels | meaning |\n| --- | --- | --- | --- |\n".to_owned();
    for metric in METRICS {
        let kind = match metric.kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Seconds => "histogram, seconds",
            Kind::Rows => "histogram, rows",
        };
        let labels = metric.labels.iter().map(|label| format!("`{label}`")).collect::<Vec<_>>().join(", ");
        writeln!(table, "| `{}` | {kind} | {labels} | {} |", metric.name, metric.help).unwrap();
    }
    table
}

/// With `UPDATE_DOCS=1` the table is written anew instead.
#[test]
fn the_document_names_every_metric_as_it_is() {
    let text = std::fs::read_to_string(DOCUMENT).unwrap();
    let begin = text.find("| metric |").unwrap();
    let end = begin + text[begin..].find("\n\n").map_or(text.len() - begin, |end| end + 1);
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(DOCUMENT, format!("{}{}{}", &text[..begin], table(), &text[end..])).unwrap();
        return;
    }
    assert_eq!(text[begin..end], table(), "run this test with UPDATE_DOCS=1 to write the table anew");
}

#[test]
fn names_follow_prometheus_conventions() {
    for metric in METRICS {
        let name = metric.name;
        assert!(
            name.starts_with("embosser_")
                && name.bytes().all(|byte| byte == b'_' || byte.is_ascii_lowercase())
        );
        assert_eq!(metric.kind == Kind::Counter, name.ends_with("_total"), "{name}");
        let may_be_seconds = matches!(metric.kind, Kind::Seconds | Kind::Gauge);
        assert!(may_be_seconds || !name.ends_with("_seconds"), "{name}");
        assert!(metric.kind != Kind::Seconds || name.ends_with("_seconds"), "{name}");
        assert!(metric.help.ends_with('.'), "{name}");
    }
}

async fn scrape(address: &str) -> Option<String> {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let mut stream = tokio::net::TcpStream::connect(address).await.ok()?;
    let request = format!("GET /metrics HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).await.ok()?;
    Some(text)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_shows_in_its_metrics() {
    let options = Options { latency: Duration::from_millis(20), ..Options::default() };
    let sandbox = Sandbox::start(options).await.unwrap();
    let directory = tempfile::tempdir().unwrap();
    write_manifest(&directory.path().join("cards.csv"), &sandbox, 100).await;
    let address = format!("127.0.0.1:{}", support::free_port());
    let program = Program::new(directory.path(), &sandbox);
    let running = program.spawn(&["issue", "cards.csv", "--rate", "40", "--metrics", &address]);
    let mut latest = String::new();
    while sandbox.account().cards.len() < 60 {
        latest = scrape(&address).await.unwrap_or(latest);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    latest = scrape(&address).await.unwrap_or(latest);
    expect_exit(&running.ended().await, 0);
    for expected in [
        "embosser_jobs_total{outcome=\"issued\",code=\"\"}",
        "embosser_pace_configured_per_second 40",
        "embosser_pace_current_per_second 40",
        "embosser_stripe_request_duration_seconds_bucket{operation=\"create_card\",status=\"2xx\",le=\"0.1\"}",
        "embosser_stripe_request_duration_seconds_bucket{operation=\"pin_key\"",
        "embosser_job_duration_seconds_count{stage=\"total\"}",
        "embosser_job_duration_seconds_count{stage=\"verify\"}",
        "embosser_ledger_commit_rows_count",
        "embosser_pin_age_seconds_count",
        "embosser_build_info{version=",
        "process_resident_memory_bytes",
        "# HELP embosser_jobs_total",
    ] {
        assert!(latest.contains(expected), "no {expected} in:\n{latest}");
    }
    // A counter is there before its first event, or an alert would miss that one.
    for expected in [
        "embosser_dead_letters_total 0",
        "embosser_jobs_total{outcome=\"unresolved\",code=\"no_answer\"} 0",
        "embosser_reconciliations_total{verdict=\"failed\"} 0",
        "embosser_settlements_total{settlement=\"given_up\"} 0",
    ] {
        assert!(latest.contains(expected), "no {expected} in:\n{latest}");
    }
    // No label may name a job, a batch or a card.
    assert!(
        !latest.contains("cards/") && !latest.contains("ic_") && !latest.contains("\"cards\""),
        "{latest}"
    );
}

/// Without tokens `serve` is this machine's alone, and so are its metrics; with tokens, see
/// serve_lets_nobody_in_without_the_role.rs.
#[tokio::test(flavor = "multi_thread")]
async fn serve_shows_its_metrics_too() {
    let sandbox = Sandbox::start(Options::default()).await.unwrap();
    let directory = tempfile::tempdir().unwrap();
    let manifest = directory.path().join("cards.csv");
    write_manifest(&manifest, &sandbox, 20).await;
    let served = Served::start(&Program::new(directory.path(), &sandbox), &["--rate", "40"]);
    served.upload_file(&manifest).await.expect(202);
    served.until_ended("cards").await;
    let answer = served.get("/metrics").await.expect(200);
    assert_eq!(answer.headers["content-type"], "text/plain; version=0.0.4; charset=utf-8");
    for expected in [
        "embosser_jobs_total{outcome=\"issued\",code=\"\"} 20",
        "embosser_pin_age_seconds_count 16",
        "embosser_pace_configured_per_second 40",
        "embosser_jobs_in_flight 0",
        "process_open_fds",
    ] {
        assert!(answer.text.contains(expected), "no {expected} in:\n{}", answer.text);
    }
    assert!(!answer.text.contains("\"cards\"") && !answer.text.contains("ic_"), "{}", answer.text);
}
