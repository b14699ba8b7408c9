//! Promise: config/embosser.toml names every option with its default, and wrong options say where they are wrong.

use std::path::Path;
use std::process::Command;

use embosser::config::Config;

const REFERENCE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/config/embosser.toml");

#[test]
fn the_reference_holds_the_defaults() {
    assert_eq!(Config::load(Some(Path::new(REFERENCE))).unwrap(), Config::default());
}

/// Every key of the defaults stands in the file, at least as a comment where it has no default.
#[test]
fn the_reference_names_every_option() {
    let text = std::fs::read_to_string(REFERENCE).unwrap();
    let uncommented: String = text
        .lines()
        .map(|line| match line.strip_prefix("# ") {
            // An option without a default: `# name = value`.
            Some(rest) if rest.split_once(" = ").is_some_and(|(name, _)| is_name(name)) => rest,
            _ => line,
        })
        .collect::<Vec<_>>()
        .join("\n");
    let named: toml::Table = toml::from_str(&uncommented).unwrap();
    let every = serde_json::to_value(Config::default()).unwrap();
    for (section, options) in every.as_object().unwrap() {
        for option in options.as_object().unwrap().keys() {
            let found = named.get(section).and_then(|section| section.get(option));
            assert!(found.is_some(), "[{section}] {option} is not in config/embosser.toml");
        }
    }
}

fn is_name(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte == b'_' || byte.is_ascii_lowercase())
}

fn complaint(toml: &str, variables: &[(&str, &str)]) -> String {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("embosser.toml");
    std::fs::write(&file, toml).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_embosser"));
    command.current_dir(&directory).env("XDG_STATE_HOME", directory.path());
    command.arg("--config").arg(&file).arg("status").envs(variables.iter().copied());
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn a_wrong_option_is_named_with_its_line() {
    let unknown = complaint("[pace]\nendpoint_per_second = 5.0\nendpoint_per_minute = 5.0\n", &[]);
    assert!(unknown.contains("line 3") && unknown.contains("endpoint_per_minute"), "{unknown}");
    let kind = complaint("[retry]\nattempts_max = \"many\"\n", &[]);
    assert!(kind.contains("line 2"), "{kind}");
    // Also where it stands in the environment, whose values are all texts.
    for (toml, variables) in
        [("[http]\njobs_to = \"queue\"\n", &[][..]), ("", &[("EMBOSSER__HTTP__JOBS_TO", "queue")])]
    {
        let word = complaint(toml, variables);
        let choice = "unknown variant `queue`, expected one of `line`, `rabbitmq_test`, `rabbitmq_live`";
        assert!(word.contains(choice), "{word}");
    }
    let range = complaint("[pace]\naccount_per_second = 0.0\n", &[]);
    assert!(range.contains("pace.account_per_second = 0: must be above 0 and up to 100,000"), "{range}");
    let variable = complaint("", &[("EMBOSSER__PACE__ENDPOINT_PER_MINUTE", "5")]);
    assert!(variable.contains("endpoint_per_minute"), "{variable}");
    let text = complaint("", &[("EMBOSSER__PACE__ENDPOINT_PER_SECOND", "fast")]);
    assert!(text.contains("endpoint_per_second") || text.contains("fast"), "{text}");
}

/// The bounds that keep a second card from being made are neither switched off nor mistyped, and a key that is put in the
/// place of an account's id is not shown.
#[test]
fn what_keeps_a_second_card_away_has_its_range() {
    let wrong = |option: &str| complaint(&format!("[stripe]\n{option}\n"), &[]);
    for (option, range) in [
        ("call_seconds_max = 0.0", "from 0.1 to 3,600"),
        ("call_seconds_max = nan", "from 0.1 to 3,600"),
        ("list_lag_seconds = 3600.5", "from 0.1 to 3,600"),
        ("same_refusals_max = 0", "from 1 to 10,000"),
        ("same_refusals_max = 10001", "from 1 to 10,000"),
        ("account_id = \"sk_test_a_key\"", "acct_1Abc"),
    ] {
        let told = wrong(option);
        let name = option.split(' ').next().unwrap();
        assert!(told.contains(&format!("stripe.{name}")) && told.contains(range), "{told}");
        assert!(!told.contains("sk_test_a_key"), "{told}");
    }
}

#[test]
fn the_environment_wins_over_the_file() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("embosser.toml");
    std::fs::write(&file, "[ledger]\nurl = \"sqlite://of_the_file.db\"\n").unwrap();
    let said = |variables: &[(&str, &str)]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_embosser"));
        command.current_dir(&directory).arg("--config").arg(&file).arg("status");
        let output = command.envs(variables.iter().copied()).output().unwrap();
        String::from_utf8(output.stderr).unwrap()
    };
    // There is neither: the one that was looked for is named.
    assert!(said(&[]).contains("of_the_file.db"));
    let both = said(&[("EMBOSSER__LEDGER__URL", "sqlite://of_the_environment.db")]);
    assert!(both.contains("of_the_environment.db") && !both.contains("of_the_file.db"), "{both}");
    let looked = complaint("", &[("EMBOSSER__LEDGER__URL", "mysql://x")]);
    assert!(looked.contains("mysql://x") && looked.contains("sqlite://FILE"), "{looked}");
}
