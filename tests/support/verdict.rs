//! What `embosser check` says of a file, for tests that judge it.

use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use embosser::manifest::{CheckOptions, CheckReport, Manifest, Problem, Reading, Severity};
use serde_json::Value;

/// A PIN's JWE as far as it can be told without the key; no key fits it.
pub fn jwe() -> String {
    use base64::Engine as _;
    let encode = |bytes: &[u8]| base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes);
    let header = encode(br#"{"alg":"RSA-OAEP","enc":"A128CBC-HS256","kid":"key_of_the_tests"}"#);
    let (key, block) = (encode(&[0x5a; 256]), encode(&[0xa5; 16]));
    format!("{header}.{key}.{block}.{block}.{block}")
}

/// The report on a manifest's bytes, and every problem; without warnings.
pub fn verdict(bytes: &[u8]) -> (CheckReport, Vec<Problem>) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("manifest.csv");
    std::fs::write(&path, bytes).unwrap();
    let mut problems = Vec::new();
    let checked = Manifest::inspect(&path, &Reading::default()).and_then(|manifest| {
        manifest.check_each(&CheckOptions::default(), &|_| {}, &mut |found| {
            if found.severity == Severity::Problem {
                problems.push(found);
            }
        })
    });
    match checked {
        Ok(report) => (report, problems),
        Err(error) => (CheckReport::default(), error.into_problems()),
    }
}

/// Line, column and code of every problem.
pub fn problems(text: impl AsRef<[u8]>) -> Vec<(u64, String, &'static str)> {
    verdict(text.as_ref()).1.into_iter().map(|problem| (problem.line, problem.column, problem.code)).collect()
}

/// Runs the program on a file.
pub fn run(path: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_embosser"))
        .arg("check")
        .arg(path)
        .args(arguments)
        .env_remove("STRIPE_API_KEY")
        // Whoever runs the tests may have a ledger.
        .env("XDG_STATE_HOME", "/nonexistent")
        .output()
        .unwrap()
}

/// The verdict as the program writes it for programs, and its exit code.
pub fn run_json(path: &Path) -> (Value, i32) {
    run_json_with(path, &[])
}

/// The same, with more options.
pub fn run_json_with(path: &Path, options: &[&str]) -> (Value, i32) {
    let output = run(path, &[options, &["--format", "json"]].concat());
    let verdict = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| {
        panic!("not JSON: {error}\n{}", String::from_utf8_lossy(&output.stdout));
    });
    (verdict, output.status.code().unwrap())
}

/// The most memory that `embosser check` took, in bytes, and what it said.
pub fn peak_of(path: &Path) -> (u64, String) {
    /// The peak is read this often; it only grows, and grows last with the names, long before the end.
    const LOOK_EVERY: Duration = Duration::from_millis(2);
    let mut child = Command::new(env!("CARGO_BIN_EXE_embosser"))
        .arg("check")
        .arg(path)
        .env("XDG_STATE_HOME", "/nonexistent")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let status = format!("/proc/{}/status", child.id());
    let mut peak = 0;
    while child.try_wait().unwrap().is_none() {
        let text = std::fs::read_to_string(&status).unwrap_or_default();
        let kilobytes = text
            .lines()
            .find_map(|line| line.strip_prefix("VmHWM:")?.strip_suffix("kB")?.trim().parse().ok());
        peak = peak.max(kilobytes.unwrap_or(0_u64) << 10);
        std::thread::sleep(LOOK_EVERY);
    }
    let output = child.wait_with_output().unwrap();
    (peak, String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap())
}

/// Severity, line, column and code of all that a verdict tells.
pub fn told(verdict: &Value) -> Vec<String> {
    let lists = ["problems", "warnings"].map(|list| verdict[list].as_array().unwrap().iter());
    let shown = |problem: &Value| {
        let [severity, column, code] =
            ["severity", "column", "code"].map(|part| problem[part].as_str().unwrap());
        format!("{severity} {} {column} {code}", problem["line"])
    };
    lists.into_iter().flatten().map(shown).collect()
}
