//! Promise: no encrypted PIN, no plaintext PIN and no API key is in any log, ledger or result, at any log level,
//! however a row ends.

use crate::forge;
use crate::support;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Output;
use std::time::Duration;

use embosser::encrypt::encrypt_pin;
use embosser::sandbox::{Faults, Options, Sandbox};
use support::secrets::Secrets;
use support::{Program, client_of};

const API_KEY: &str = "sk_test_TellingKeyThatNobodyMayRead4711";
/// Cells that hold a PIN in the clear, as careless senders have them. None is a year, a port or a usual size.
const IN_CLEAR: [&str; 3] = ["907150264831", "8342", "63907"];
/// A PIN of six digits: encrypted as it should be, and refused by Stripe once it is decrypted there.
const TOO_LONG_FOR_STRIPE: &str = "719364";
/// Fails if a text or a file holds any; the manifest is the sender's own. Answers which files were searched.
fn hold(secrets: &Secrets, directory: &Path, outputs: &[(&str, &[u8])]) -> Vec<String> {
    for (name, bytes) in outputs {
        assert_eq!(secrets.found_in(bytes), None, "in {name}: {}", secrets.excerpt(bytes));
    }
    secrets.hold(directory, "manifest.csv")
}

/// Rows of every kind: in order, stale, broken each in its way, in the clear, refused by Stripe.
async fn write_manifest(path: &Path, sandbox: &Sandbox) -> Secrets {
    let mut secrets = Secrets::default();
    let mut cells: Vec<String> = Vec::new();
    let key = client_of(sandbox).pin_key().await.unwrap();
    cells.extend((0..10).map(|row| encrypt_pin(&format!("{:04}", 7000 + row), &key).unwrap()));
    // Those were encrypted under the key before.
    sandbox.rotate_key();
    let key = client_of(sandbox).pin_key().await.unwrap();
    cells.extend((0..60).map(|row| encrypt_pin(&format!("{:04}", 3001 + row * 7), &key).unwrap()));
    cells.extend((0..3).map(|_| encrypt_pin(TOO_LONG_FOR_STRIPE, &key).unwrap()));
    let modulus = embosser::jwe::PinKey::parse(&key).unwrap();
    let broken = forge::broken::broken(modulus.kid(), &modulus.modulus());
    cells.extend(
        broken.into_iter().map(|(_, compact)| compact).filter(|compact| compact.matches('.').count() == 4),
    );
    cells.iter().for_each(|compact| secrets.add_jwe(compact));
    IN_CLEAR.iter().for_each(|pin| secrets.add_word(pin));
    secrets.add_word(TOO_LONG_FOR_STRIPE);
    secrets.add_text(API_KEY.rsplit('_').next().unwrap());
    cells.extend(IN_CLEAR.map(str::to_owned));
    let mut text = "row_id,cardholder,type,currency,pin[encrypted_number]\n".to_owned();
    for (row, cell) in cells.iter().enumerate() {
        text += &format!("r{row},ich_{},virtual,eur,\"{cell}\"\n", row % 7);
    }
    std::fs::write(path, &text).unwrap();
    assert!(secrets.found_in(text.as_bytes()).is_some(), "the search finds what is there");
    let debug = format!("{:?}", cells[0].as_bytes());
    assert!(secrets.found_in(debug.as_bytes()).is_some(), "and in bytes printed as numbers");
    secrets
}

/// How many rows ended with which code; "" is issued.
fn endings(results: &Path) -> BTreeMap<String, usize> {
    let mut reader = csv::Reader::from_path(results).unwrap();
    let code = reader.headers().unwrap().iter().position(|name| name == "error_code").unwrap();
    let mut endings = BTreeMap::new();
    for row in reader.records() {
        *endings.entry(row.unwrap()[code].to_owned()).or_default() += 1;
    }
    endings
}

fn said(output: &Output) -> [(&'static str, &[u8]); 2] {
    [("stdout", &output.stdout), ("stderr", &output.stderr)]
}

#[tokio::test(flavor = "multi_thread")]
async fn at_trace_level_with_faults_refusals_and_stale_keys_no_secret_is_written_anywhere() {
    let fault = 0.08;
    let faults = Faults {
        error_before: fault,
        error_after: fault,
        drop_before: fault,
        drop_after: fault,
        conflict: fault,
        html: fault,
        ..Faults::default()
    };
    let latency = Duration::from_millis(30);
    let sandbox = Sandbox::start(Options { faults, latency, ..Options::default() }).await.unwrap();
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    let secrets = write_manifest(&directory.join("manifest.csv"), &sandbox).await;
    let program = Program::new(directory, &sandbox).with("STRIPE_API_KEY", API_KEY).with("RUST_LOG", "trace");
    let program = program.with("EMBOSSER__RETRY__BACKOFF_SECONDS_MIN", "0.02").with("RUST_BACKTRACE", "1");
    // Beside all else that is searched.
    let program = program.with("EMBOSSER__LEDGER__URL", "sqlite://embosser.db");

    let checked = program.run(&["check", "manifest.csv", "--format", "json"]).await;
    assert_eq!(checked.status.code(), Some(2), "{}", String::from_utf8_lossy(&checked.stderr));
    hold(&secrets, directory, &said(&checked));

    // Cut in the middle, its write-ahead log as it was at that moment. It says so much that a pipe would fill.
    let arguments = ["issue", "manifest.csv", "--skip-invalid", "--rate", "40"];
    let log = std::fs::File::create(directory.join("first.log")).unwrap();
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_embosser"));
    command.args(arguments).current_dir(directory).stdin(std::process::Stdio::null());
    command.envs(program.environment.iter().map(|(name, value)| (name, value)));
    let mut running = command.stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap();
    let begun = std::time::Instant::now();
    while sandbox.account().cards.len() < 15 && begun.elapsed() < Duration::from_secs(60) {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    running.kill().unwrap();
    running.wait().unwrap();
    assert!((15..60).contains(&sandbox.account().cards.len()), "it was to be cut in the middle");
    let files = hold(&secrets, directory, &[]);
    assert!(files.iter().any(|name| name.ends_with("-wal")), "no write-ahead log among {files:?}");

    let ended = program.run(&arguments).await;
    let files = hold(&secrets, directory, &said(&ended));
    for expected in ["manifest.results.csv", "embosser.db"] {
        assert!(files.iter().any(|name| name == expected), "{expected} is not among {files:?}");
    }
    for command in [&["status"][..], &["results", "manifest"]] {
        hold(&secrets, directory, &said(&program.run(command).await));
    }
    // That there was something to be seen: every kind of ending, and logs at the level asked for.
    let endings = endings(&directory.join("manifest.results.csv"));
    for code in ["", "stale_key", "pin_in_clear", "jwe_iv_length", "jwe_encrypted_key_range"] {
        assert!(endings.contains_key(code), "{code:?} is not among {endings:?}");
    }
    let log = String::from_utf8_lossy(&ended.stderr);
    assert!(log.contains("job ended"), "the log is there");
    assert!(!log.contains("TRACE") && !log.contains("hyper::"), "and the libraries' tracing is not");
    assert!(sandbox.account().cards.len() >= 30);
}
