//! Promise: what lies in deploy/ fits the program and each other: the compose file, the image, the units, Kubernetes'
//! objects, the demo's tokens and what Prometheus scrapes. Where Docker itself would be needed, deploy/README.md says so.

mod kubernetes;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use embosser::config::Config;
use embosser::queue::Broker;
use embosser::serve::tokens::Tokens;
use serde_json::{Value, json};

fn root() -> PathBuf {
    env!("CARGO_MANIFEST_DIR").into()
}

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// A linter that tests/run installs; none elsewhere, but in CI it must be there.
fn linter(name: &str) -> Option<PathBuf> {
    let path = root().join("target/lint/bin").join(name);
    if path.exists() {
        return Some(path);
    }
    assert!(std::env::var_os("CI").is_none(), "tests/run installs {name}");
    eprintln!("{name} is not installed (tests/run does it): nothing was checked");
    None
}

/// The compose file as JSON, its anchors resolved.
fn compose() -> Option<Value> {
    let read = "import json, sys; from ruamel.yaml import YAML\n\
                print(json.dumps(YAML(typ='safe').load(open(sys.argv[1]))))";
    let file = root().join("deploy/compose.yaml");
    let output = Command::new(linter("python")?).args(["-c", read]).arg(file).output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    Some(serde_json::from_slice(&output.stdout).unwrap())
}

#[test]
fn the_compose_file_holds_against_the_specification() {
    let Some(check) = linter("check-jsonschema") else { return };
    let file = root().join("deploy/compose.yaml");
    let output = Command::new(check).args(["--builtin-schema", "vendor.compose-spec"]).arg(file).output();
    let output = output.unwrap();
    assert!(output.status.success(), "{}", said(&output));
}

#[test]
fn the_dockerfile_passes_its_linter() {
    let Some(lint) = linter("hadolint") else { return };
    let output = Command::new(lint).arg(root().join("deploy/Dockerfile")).output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
}

#[test]
fn the_units_are_verified() {
    if Command::new("systemd-analyze").arg("--version").output().is_err() {
        assert!(std::env::var_os("CI").is_none(), "tests/run installs systemd");
        eprintln!("systemd-analyze is not installed: nothing was checked");
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    for unit in ["embosser-worker.service", "embosser-serve.service"] {
        let text = read(&format!("deploy/systemd/{unit}"));
        // The program need not be installed on the machine that verifies.
        assert!(text.contains("\nExecStart=/usr/local/bin/embosser "), "{unit}");
        let path = directory.path().join(unit);
        std::fs::write(&path, text.replace("/usr/local/bin/embosser", "/bin/true")).unwrap();
        let output =
            Command::new("systemd-analyze").args(["verify", "--man=no"]).arg(&path).output().unwrap();
        assert!(output.status.success() && said(&output).trim().is_empty(), "{unit}: {}", said(&output));
        // 0 is nothing exposed, 10 everything. Older versions cannot look at a file.
        let security = Command::new("systemd-analyze")
            .args(["security", "--offline=yes", "--threshold=20"])
            .arg(&path)
            .output()
            .unwrap();
        let told = said(&security);
        assert!(
            security.status.success() || told.contains("unrecognized option"),
            "{unit} is exposed: {told}"
        );
    }
}

/// A unit's setting; none if it is not there, or only in a comment.
fn setting<'a>(unit: &'a str, name: &str) -> Option<&'a str> {
    unit.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='))
}

#[test]
fn the_units_run_commands_that_exist_and_are_given_time_to_stop() {
    let drain = Config::default().worker.drain_seconds;
    for name in ["worker", "serve"] {
        let unit = read(&format!("deploy/systemd/embosser-{name}.service"));
        for line in unit.lines().filter(|line| line.starts_with("Exec")) {
            let (_, command) = line.split_once("embosser ").unwrap();
            let mut words = command.split(' ');
            let mut help = Command::new(env!("CARGO_BIN_EXE_embosser"));
            let help = help.args([words.next().unwrap(), "--help"]).output().unwrap();
            assert!(help.status.success(), "{name}: {line}: {}", said(&help));
            for flag in words {
                assert!(said(&help).contains(flag), "{name}: {line}: there is no {flag}");
            }
        }
        let stop: f64 = setting(&unit, "TimeoutStopSec").unwrap().parse().unwrap();
        assert!(stop > drain, "{name} has {stop} s to stop, and calls have {drain} s to end");
        // Each start of a worker without a valid key takes jobs and hands them back: in the end they are refused.
        let prevented = setting(&unit, "RestartPreventExitStatus");
        assert_eq!(prevented, (name == "worker").then_some("2"), "{name}");
        // /proc/stat tells process_start_time_seconds.
        assert_eq!(setting(&unit, "ProcSubset"), None, "{name}");
        assert_eq!(setting(&unit, "MemorySwapMax"), Some("0"), "{name}");
    }
}

/// Every option of the program, as `section.key`.
fn options() -> BTreeSet<String> {
    let mut section = String::new();
    let mut options = BTreeSet::new();
    for line in read("config/embosser.toml").lines() {
        let line = line.trim_start_matches("# ");
        if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            name.clone_into(&mut section);
        } else if let Some((key, _)) = line.split_once(" = ")
            && key.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')
        {
            options.insert(format!("{section}.{key}"));
        }
    }
    options
}

#[test]
fn every_variable_that_is_set_is_an_option() {
    let options = options();
    let mut found = 0;
    for path in [
        "deploy/compose.yaml",
        "deploy/Dockerfile",
        "deploy/systemd/embosser-worker.service",
        "deploy/systemd/embosser-serve.service",
        "deploy/kubernetes/settings.yaml",
        "deploy/kubernetes/worker.yaml",
        "deploy/kubernetes/serve.yaml",
        "deploy/README.md",
        "README.md",
    ] {
        let text = read(path);
        for (at, _) in text.match_indices("EMBOSSER__") {
            let name = |byte: &u8| byte.is_ascii_uppercase() || *byte == b'_';
            let variable: Vec<u8> =
                text.as_bytes()[at..].iter().copied().take_while(|byte| name(byte)).collect();
            let variable = String::from_utf8(variable).unwrap();
            let option = variable["EMBOSSER__".len()..].to_lowercase().replace("__", ".");
            assert!(options.contains(&option), "{path} sets {variable}, which is no option");
            found += 1;
        }
    }
    assert!(found > 15, "{found} variables");
}

#[test]
fn services_run_commands_that_exist_on_files_that_exist() {
    let Some(compose) = compose() else { return };
    let services = compose["services"].as_object().unwrap();
    for (name, service) in services {
        for volume in service["volumes"].as_array().into_iter().flatten() {
            let source = volume.as_str().unwrap().split(':').next().unwrap();
            if source.starts_with('.') {
                assert!(root().join("deploy").join(source).exists(), "{name} mounts {source}");
            } else {
                assert!(compose["volumes"].get(source).is_some(), "{name} mounts {source}");
            }
        }
        if service["image"] != "embosser" {
            continue;
        }
        assert!(service["read_only"] == true && service["user"] == "65532:65532", "{name} is not confined");
        // What it runs, and what asks after its health.
        let asks = service["healthcheck"]["test"].as_array().map(|test| &test[2..]).unwrap_or_default();
        for command in [service["command"].as_array().unwrap().as_slice(), asks] {
            let words: Vec<&str> = command.iter().map(|word| word.as_str().unwrap()).collect();
            let Some(first) = words.first() else { continue };
            let help =
                Command::new(env!("CARGO_BIN_EXE_embosser")).args([*first, "--help"]).output().unwrap();
            assert!(help.status.success(), "{name}: {}", said(&help));
            for flag in words.iter().filter(|word| word.starts_with("--")) {
                assert!(said(&help).contains(flag), "{name}: {first} has no {flag}");
            }
        }
    }
    for secret in compose["secrets"].as_object().unwrap().values() {
        let file = root().join("deploy").join(secret["file"].as_str().unwrap());
        assert!(file.exists(), "{}", file.display());
    }
}

/// Nothing is reached from another machine, gains a privilege, or takes all memory; ciphertext is not swapped.
#[test]
fn every_container_is_confined_and_bounded() {
    let Some(compose) = compose() else { return };
    for (name, service) in compose["services"].as_object().unwrap() {
        assert_eq!(service["cap_drop"], json!(["ALL"]), "{name}");
        assert!(service.get("cap_add").is_none() && service.get("privileged").is_none(), "{name}");
        assert_eq!(service["security_opt"], json!(["no-new-privileges:true"]), "{name}");
        assert!(service["mem_limit"].is_string(), "{name} may take all memory");
        assert!(service["networks"].is_array(), "{name} is on the default network");
        let (_, tag) = service["image"].as_str().unwrap().split_once(':').unwrap_or(("", ""));
        let pinned = tag.starts_with(|first: char| first.is_ascii_digit() || first == 'v');
        assert!(pinned || service["build"].is_object(), "{name} runs whatever is newest");
        for port in service["ports"].as_array().into_iter().flatten() {
            assert!(port.as_str().unwrap().starts_with("127.0.0.1:"), "{name} publishes {port}");
        }
        if service["image"] == "embosser" {
            assert_eq!(service["memswap_limit"], service["mem_limit"], "{name} may be swapped");
        } else {
            // RabbitMQ's image is not known to start on a read-only root.
            assert!(service["read_only"] == true || name == "rabbitmq", "{name}");
        }
    }
    let drain = Config::default().worker.drain_seconds;
    for name in ["worker", "serve"] {
        let grace = compose["services"][name]["stop_grace_period"].as_str().unwrap();
        let grace: f64 = grace.strip_suffix('s').unwrap().parse().unwrap();
        assert!(grace > drain, "{name} has {grace} s to stop, and calls have {drain} s to end");
    }
    assert_eq!(compose["services"]["worker"]["restart"], "on-failure:5", "see the unit's test");
    assert_eq!(compose["networks"]["jobs"]["internal"], true);
    assert_eq!(compose["services"]["sandbox"]["networks"], json!(["jobs"]), "its account shows PINs");
    assert_eq!(compose["services"]["grafana"]["networks"], json!(["watching"]));
}

#[test]
fn prometheus_scrapes_what_the_services_listen_on() {
    let Some(compose) = compose() else { return };
    let text = read("deploy/prometheus/prometheus.yml");
    let mut targets = 0;
    // Of a service that is scaled each process has an address of its own, behind the one name.
    let resolved = text.lines().filter_map(|line| {
        let target = line.trim_start().strip_prefix("- {names: [\"")?;
        Some((target.split('"').next()?, target.split("port: ").nth(1)?.trim_end_matches('}')))
    });
    let listed = text.lines().filter_map(|line| {
        line.trim_start().strip_prefix("- targets: [\"")?.split('"').next()?.split_once(':')
    });
    assert!(resolved.clone().any(|(service, _)| service == "worker"));
    for (service, port) in resolved.chain(listed) {
        let option = if service == "worker" { "EMBOSSER__WORKER__LISTEN" } else { "EMBOSSER__HTTP__LISTEN" };
        let listen = compose["services"][service]["environment"][option].as_str().unwrap();
        assert_eq!(listen, format!("0.0.0.0:{port}"), "{service}");
        targets += 1;
    }
    assert_eq!(targets, 2);
    let credentials = text.lines().find_map(|line| line.trim().strip_prefix("credentials_file: ")).unwrap();
    let secret = Path::new(credentials).file_name().unwrap().to_str().unwrap();
    assert!(compose["secrets"].get(secret).is_some(), "{credentials}");
}

#[test]
fn the_demos_tokens_are_tokens() {
    use base64::Engine as _;
    use sha2::Digest as _;
    assert!(Tokens::read(&root().join("deploy/demo/tokens")).is_ok());
    let told = read("deploy/compose.yaml");
    let token = told.split("(token: ").nth(1).unwrap().split(')').next().unwrap();
    for token in [token, &read("deploy/demo/prometheus_token")] {
        let hash = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(sha2::Sha256::digest(token));
        assert!(read("deploy/demo/tokens").contains(&hash), "{token}");
    }
}

/// A dependency whose default features bring a second one would build C code that nobody calls.
#[test]
fn there_is_one_crypto_provider_for_tls() {
    let lock = read("Cargo.lock");
    let has = |package: &str| lock.lines().any(|line| line == format!("name = \"{package}\""));
    assert!(has("ring") && has("rustls"));
    assert!(!has("aws-lc-rs") && !has("aws-lc-sys"), "see `cargo tree -i aws-lc-sys`");
}

/// The policy is for each queue of embosser's, and says nothing that embosser itself asks for.
#[test]
fn the_brokers_policy_fits_the_queues() {
    let definitions: Value = serde_json::from_str(&read("deploy/rabbitmq/policies.json")).unwrap();
    let policy = &definitions["policies"][0];
    let prefix = policy["pattern"].as_str().unwrap().strip_prefix('^').unwrap().replace("\\.", ".");
    let topology = Broker::new(&Config::default().rabbitmq).unwrap().topology;
    for queue in topology.queues().into_iter().chain([topology.following("a batch")]) {
        assert!(queue.starts_with(&prefix), "{queue} is not under {prefix}");
    }
    assert_eq!(policy["apply-to"], "queues");
    assert_eq!(policy["definition"], json!({"queue-leader-locator": "balanced"}));
}
