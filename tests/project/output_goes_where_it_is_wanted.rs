//! Promise: what a command is asked for goes to standard output or into the file that was named, and a reader that has read enough,
//! as `head` does, is no error.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Output, Stdio};

const MANIFEST: &str = "row_id,cardholder,type,currency\nE1,ich_1,virtual,eur\n";

fn command(arguments: &[&str], directory: &tempfile::TempDir) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_embosser"));
    command.current_dir(directory).env("XDG_STATE_HOME", directory.path()).args(arguments);
    command
}

/// Runs it with a standard output that nobody reads.
fn unread(arguments: &[&str], directory: &tempfile::TempDir) -> Output {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut command = command(arguments, directory);
    command.stdout(writer).stderr(Stdio::piped()).spawn().unwrap().wait_with_output().unwrap()
}

#[test]
fn a_reader_that_has_read_enough_is_no_error() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("people.csv"), MANIFEST).unwrap();
    for arguments in [
        &["man"][..],
        &["completions", "bash"],
        &["schema", "job"],
        &["template", "--for", "people"],
        &["columns", "people.csv"],
        &["example", "--sandbox", "--rows", "5"],
        &["token", "ops", "--role", "read"],
        &["status", "--if-any", "--format", "json"],
    ] {
        let output = unread(arguments, &directory);
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success() && !said.contains("pipe"), "{arguments:?}: {} {said}", output.status);
    }
}

#[test]
fn a_dash_is_standard_output_and_no_file_of_that_name() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("people.csv"), MANIFEST).unwrap();
    for arguments in [
        &["template", "--for", "cards"][..],
        &["columns", "people.csv"],
        &["example", "--sandbox", "--rows", "1"],
    ] {
        let plain = command(arguments, &directory).output().unwrap();
        let dash = command(&[arguments, &["--output", "-"]].concat(), &directory).output().unwrap();
        assert!(dash.status.success(), "{dash:?}");
        let lines = |output: &Output| output.stdout.split(|byte| *byte == b'\n').count();
        assert!(lines(&plain) > 1 && lines(&plain) == lines(&dash), "{plain:?} {dash:?}");
    }
    assert!(!directory.path().join("-").exists());
}

/// A shell's `2>>` would make the file with the shell's own mode, and write what went wrong into it.
#[test]
fn a_tokens_line_goes_into_a_file_of_its_owner() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("tokens");
    let make = |name: &str, role: &str| {
        command(&["token", name, "--role", role, "--add-to", "tokens"], &directory).output().unwrap()
    };
    let made = make("ops", "read");
    assert!(made.status.success() && made.stderr.is_empty() && made.stdout.len() > 20, "{made:?}");
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(!make("payroll", "nonsense").status.success());
    // Somebody's editor ended it without an end of its last line.
    let first = fs::read_to_string(&file).unwrap();
    fs::write(&file, first.trim_end()).unwrap();
    assert!(make("payroll", "submit").status.success());
    let lines: Vec<String> = fs::read_to_string(&file).unwrap().lines().map(str::to_owned).collect();
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert!(
        lines[0] == first.trim_end() && lines[0].contains("ops") && lines[1].contains("payroll"),
        "{lines:?}"
    );
}
