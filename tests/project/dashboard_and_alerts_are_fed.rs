//! Promise: every query of the dashboard and every rule finds something in a real Prometheus that watched a run, the
//! counts are the sandbox's own, and each alert leads to its place in the runbook.

use crate::support;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use embosser::metrics::METRICS;
use embosser::sandbox::{Faults, Options};
use reqwest::StatusCode;
use serde_json::Value;
use support::free_port;
use support::scene::Scene;

const DEPLOY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy");

fn deploy(path: &str) -> PathBuf {
    Path::new(DEPLOY).join(path)
}

fn read(path: &str) -> String {
    std::fs::read_to_string(deploy(path)).unwrap()
}

/// Every query of the dashboard's panels, with its panel's title.
fn queries() -> Vec<(String, String)> {
    let dashboard: Value = serde_json::from_str(&read("grafana/dashboards/embosser.json")).unwrap();
    let mut queries = Vec::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        for target in panel["targets"].as_array().into_iter().flatten() {
            queries.push((
                panel["title"].as_str().unwrap().to_owned(),
                // Of all processes, as the variable says at first.
                target["expr"].as_str().unwrap().replace("$instance", ".*").replace("$account", ".*"),
            ));
        }
    }
    assert!(queries.len() > 20, "the dashboard's shape changed");
    queries
}

#[test]
fn every_metric_that_is_named_exists() {
    let known: BTreeSet<&str> = METRICS.iter().map(|metric| metric.name).collect();
    let files = [
        "grafana/dashboards/embosser.json",
        "prometheus/rules.yml",
        "prometheus/alerts.yml",
        "../RUNBOOK.md",
    ];
    for file in files {
        let text = read(file);
        for name in text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == ':')) {
            if !name.starts_with("embosser_") {
                continue;
            }
            let base =
                ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name);
            assert!(
                known.contains(name) || known.contains(base),
                "{file} names {name}, which is not measured"
            );
        }
    }
}

#[test]
fn every_metric_is_watched_by_a_panel_or_an_alert() {
    let watching = read("grafana/dashboards/embosser.json")
        + &read("prometheus/rules.yml")
        + &read("prometheus/alerts.yml");
    let names: BTreeSet<&str> =
        watching.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == ':')).collect();
    for metric in METRICS {
        let ends = ["", "_bucket", "_sum", "_count"].map(|end| format!("{}{end}", metric.name));
        assert!(ends.iter().any(|name| names.contains(name.as_str())), "nobody watches {}", metric.name);
    }
}

#[test]
fn every_alert_has_its_place_in_the_runbook() {
    let runbook = read("../RUNBOOK.md");
    let anchors: BTreeSet<String> = runbook
        .lines()
        .filter_map(|line| line.strip_prefix("## "))
        .map(|heading| heading.to_lowercase().replace(' ', "-"))
        .collect();
    let alerts = read("prometheus/alerts.yml");
    let (names, links): (Vec<_>, Vec<_>) = (
        alerts.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect(),
        alerts
            .lines()
            .filter_map(|line| line.trim().strip_prefix("runbook_url: \"{{ $externalLabels.runbook }}#"))
            .map(|rest| rest.trim_end_matches('"'))
            .collect(),
    );
    assert_eq!(names.len(), links.len());
    for (name, link) in names.iter().zip(links) {
        assert!(anchors.contains(link), "{name} leads to #{link}");
        assert!(runbook.contains(&format!("`{name}`")), "the runbook does not name {name}");
    }
    let tests = read("prometheus/alerts_test.yml");
    let lifecycles = read("prometheus/alerts_lifecycle_test.yml");
    for name in names {
        assert!(
            tests.contains(&format!("alertname: {name}\n"))
                || lifecycles.contains(&format!("\"{name} in its time\"")),
            "no rule test fires {name}"
        );
        assert!(
            lifecycles.contains(&format!("\"{name} in its time\"")),
            "{name} is not run through quiet, outage, recovery and quiet"
        );
    }
}

/// What a worker for several accounts tells of each of them (docs/metrics.md).
const OF_ACCOUNTS: [&str; 15] = [
    "embosser_account_waits",
    "embosser_amqp_consuming",
    "embosser_concurrency",
    "embosser_deliveries_unsettled",
    "embosser_delivery_unsettled_oldest_seconds",
    "embosser_jobs_total",
    "embosser_pace_configured_per_second",
    "embosser_pace_current_per_second",
    "embosser_pace_paused",
    "embosser_pin_key_endpoint_down",
    "embosser_queue_messages",
    "embosser_queue_oldest_seconds",
    "embosser_parked_messages",
    "embosser_refused_alike",
    "embosser_stripe_down",
];

/// Whoever looks sees whose it is, what fires and where to read on, and of each number whether it is good.
#[test]
fn the_dashboard_tells_processes_and_accounts_apart_and_leads_on() {
    let dashboard: Value = serde_json::from_str(&read("grafana/dashboards/embosser.json")).unwrap();
    let variables: Vec<_> = dashboard["templating"]["list"].as_array().unwrap().iter().collect();
    for name in ["account", "instance", "runbook"] {
        assert!(variables.iter().any(|variable| variable["name"] == name), "{name}");
    }
    let panels = dashboard["panels"].as_array().unwrap();
    assert!(panels.iter().any(|panel| panel["type"] == "alertlist"));
    let runbook = read("../RUNBOOK.md").to_lowercase().replace(' ', "-");
    for panel in panels {
        let title = panel["title"].as_str().unwrap();
        if panel["type"] == "stat" {
            let steps = panel["fieldConfig"]["defaults"]["thresholds"]["steps"].as_array().unwrap();
            assert!(steps.len() > 1, "{title} is as good at any value");
            assert!(
                panel["links"].as_array().is_some_and(|links| !links.is_empty()),
                "{title} leads nowhere"
            );
        }
        for link in panel["links"].as_array().into_iter().flatten() {
            if let Some((_, place)) = link["url"].as_str().unwrap().split_once('#') {
                assert!(runbook.contains(&format!("##-{place}\n")), "{title} leads to #{place}");
            }
        }
        for target in panel["targets"].as_array().into_iter().flatten() {
            let expression = target["expr"].as_str().unwrap();
            let metrics = expression.matches("embosser_").count() + expression.matches("process_").count();
            assert_eq!(expression.matches("$instance").count(), metrics, "{title}: {expression}");
            // One process may call for several accounts, and with one account no number names it.
            let of_accounts: usize =
                OF_ACCOUNTS.iter().map(|name| expression.matches(&format!("{name}{{")).count()).sum();
            let told_apart = expression.matches("account=~\"$account|\"").count();
            assert_eq!(told_apart, of_accounts, "{title}: {expression}");
        }
    }
}

#[test]
fn promtool_accepts_the_rules_and_their_tests_pass() {
    // The token that serve wants is where Prometheus runs, not here: of the configuration only the form is checked.
    let config = ["check", "config", "--syntax-only", "prometheus.yml"].as_slice();
    let rules = ["check", "rules", "rules.yml", "alerts.yml"].as_slice();
    let lifecycles = ["test", "rules", "alerts_lifecycle_test.yml"].as_slice();
    for arguments in [config, rules, &["test", "rules", "alerts_test.yml"], lifecycles] {
        let output =
            Command::new("promtool").args(arguments).current_dir(deploy("prometheus")).output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}");
    }
}

/// An alert's expression with each comparison answering 0 or 1 instead of dropping what does not meet it: so it is
/// empty only if something that it watches is not there.
fn unfiltered(expression: &str) -> String {
    // What silences it may well be there.
    let expression = expression.split(" unless ").next().unwrap();
    ["==", "!=", ">=", "<=", ">", "<"].iter().fold(expression.to_owned(), |text, comparison| {
        text.replace(&format!(" {comparison} "), &format!(" {comparison} bool "))
    })
}

/// Whether a sample is a number: a quantile of nothing is none.
fn is_number(sample: &Value) -> bool {
    sample["value"][1].as_str().unwrap().parse::<f64>().is_ok_and(f64::is_finite)
}

/// A private Prometheus that scrapes one address every half second, with our rules.
struct Prometheus {
    process: Child,
    address: String,
    _directory: tempfile::TempDir,
}

impl Prometheus {
    fn start(target: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let config = format!(
            "global: {{scrape_interval: 500ms, evaluation_interval: 500ms}}\n\
             rule_files: ['{}', '{}']\n\
             scrape_configs: [{{job_name: embosser, static_configs: [{{targets: ['{target}']}}]}}]\n",
            deploy("prometheus/rules.yml").display(),
            deploy("prometheus/alerts.yml").display(),
        );
        std::fs::write(directory.path().join("prometheus.yml"), config).unwrap();
        let address = format!("127.0.0.1:{}", free_port());
        let process = Command::new("prometheus")
            .arg(format!("--config.file={}", directory.path().join("prometheus.yml").display()))
            .arg(format!("--storage.tsdb.path={}", directory.path().join("data").display()))
            .arg(format!("--web.listen-address={address}"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Self { process, address, _directory: directory }
    }

    async fn get(&self, path: &str, query: &[(&str, &str)]) -> Value {
        let client = support::http_client();
        let mut url = url::Url::parse(&format!("http://{}/api/v1/{path}", self.address)).unwrap();
        url.query_pairs_mut().extend_pairs(query);
        for _ in 0..100 {
            // While it starts it refuses connections, and then says 503 in words of its own.
            match client.get(url.clone()).send().await {
                Ok(answer) if answer.status() != StatusCode::SERVICE_UNAVAILABLE => {
                    return answer.json().await.unwrap();
                }
                _ => tokio::time::sleep(Duration::from_millis(100)).await,
            }
        }
        panic!("Prometheus does not answer");
    }

    async fn query(&self, expression: &str) -> Vec<Value> {
        let answer = self.get("query", &[("query", expression)]).await;
        assert_eq!(answer["status"], "success", "{expression}: {answer}");
        answer["data"]["result"].as_array().unwrap().clone()
    }

    async fn number(&self, expression: &str) -> f64 {
        let result = self.query(expression).await;
        result.first().map_or(0.0, |sample| sample["value"][1].as_str().unwrap().parse().unwrap())
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// 500 jobs through RabbitMQ with faults, a limit below the configured pace, and a key that rotates on the way.
#[tokio::test(flavor = "multi_thread")]
async fn every_query_and_rule_finds_what_the_sandbox_did() {
    // All of them make the card: a job without one whose PIN turned stale would rightly wait for a minute, lest its
    // first call be still running.
    let faults = Faults { error_after: 0.1, drop_after: 0.1, ..Faults::default() };
    let options = Options {
        faults,
        latency: Duration::from_millis(20),
        endpoint_per_second: Some(40),
        ..Options::default()
    };
    let scene = Scene::with(options).await;
    let expected = scene.manifest(500).await;
    let address = format!("127.0.0.1:{}", free_port());
    let prometheus = Prometheus::start(&address);
    prometheus.query("up").await;
    let worker =
        scene.program().with("EMBOSSER__WORKER__LISTEN", &address).spawn(&["worker", "--rate", "50"]);
    let following = scene.program().spawn(&["submit", "cards.csv", "--wait"]);
    // The last few rows' PINs turn stale.
    scene.cards(440).await;
    scene.sandbox.rotate_key();
    let output = following.ended().await;
    assert!(matches!(output.status.code(), Some(0 | 1)), "{}", String::from_utf8_lossy(&output.stderr));
    // Until Prometheus has seen the end.
    let seen = async |expression: &str| prometheus.number(expression).await;
    let began = std::time::Instant::now();
    while seen("sum(embosser_jobs_total{outcome!=\"unresolved\"})").await < 500.0 {
        assert!(began.elapsed() < Duration::from_secs(30), "not every job's end was measured");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    tokio::time::sleep(Duration::from_millis(1200)).await;
    for (panel, expression) in queries() {
        let result = prometheus.query(&expression).await;
        assert!(result.iter().any(is_number), "panel {panel:?} shows nothing: {expression}: {result:?}");
    }
    let rules = prometheus.get("rules", &[]).await;
    let (mut recorded, mut watched) = (0, 0);
    for group in rules["data"]["groups"].as_array().unwrap() {
        for rule in group["rules"].as_array().unwrap() {
            assert_eq!(rule["health"], "ok", "{rule}");
            let (name, expression) = (rule["name"].as_str().unwrap(), rule["query"].as_str().unwrap());
            let asked = if rule["type"] == "recording" {
                recorded += 1;
                name.to_owned()
            } else {
                watched += 1;
                let asked = unfiltered(expression);
                assert_ne!(asked, expression, "{name} compares nothing");
                asked
            };
            let result = prometheus.query(&asked).await;
            assert!(result.iter().any(is_number), "{name} is empty: {asked}: {result:?}");
        }
    }
    let alerts = read("prometheus/alerts.yml").matches("- alert: ").count();
    let rules = read("prometheus/rules.yml").matches("- record: ").count();
    assert_eq!((recorded, watched), (rules, alerts), "all of them are evaluated");
    // What Prometheus counted is what the sandbox did.
    let account = scene.sandbox.account();
    #[expect(clippy::cast_precision_loss, reason = "hundreds")]
    let (cards, limited) = (account.cards.len() as f64, account.limited_by["endpoint-rate"] as f64);
    assert_eq!(seen("sum(embosser_jobs_total{outcome=\"issued\"})").await, cards);
    let stale = seen("sum(embosser_jobs_total{outcome=\"refused\"})").await;
    assert_eq!(cards + stale, 500.0, "{cards} cards, {stale} refused: every job was answered");
    // A PIN may be found stale twice: by a job that another delivery brings again.
    assert!(stale > 0.0 && seen("sum(embosser_stale_keys_total)").await >= stale);
    assert_eq!(seen("sum(embosser_stripe_rate_limited_total)").await, limited);
    // Each call that went out is one that the sandbox was asked for, whatever became of its answer.
    // One key was fetched to write the manifest.
    #[expect(clippy::cast_precision_loss, reason = "hundreds")]
    let (calls, keys) = ((account.creates + account.limited) as f64, (account.key_fetches - 1) as f64);
    let requests = "embosser_stripe_request_duration_seconds_count";
    assert_eq!(seen(&format!("sum({requests}{{operation=\"create_card\"}})")).await, calls);
    assert_eq!(seen(&format!("sum({requests}{{operation=\"pin_key\"}})")).await, keys);
    assert_eq!(seen("embosser_permits_total").await, calls, "and had its permit");
    assert!(seen("sum(embosser_retries_total{reason=\"no_answer\"})").await > 0.0, "faults were met");
    assert_eq!(seen("embosser_amqp_consuming").await, 1.0);
    assert_eq!(seen("sum(embosser_settlements_total{settlement=\"answered\"})").await, 500.0);
    assert_eq!(seen("sum(embosser_queue_messages)").await, 0.0);
    for card in &account.cards {
        assert_eq!(card.pin, expected[card.job.as_ref().unwrap()]);
    }
    worker.signal(rustix::process::Signal::TERM);
    support::expect_exit(&worker.ended().await, 0);
}
