//! SECURITY.md names files and tests as proof. Each must be there.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::{all_below, read, root};

/// The texts between backticks.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.lines().flat_map(|line| line.split('`').skip(1).step_by(2))
}

/// The names of the tests in a text: functions with nothing but attributes, comments and blank lines after `#[test]` or `#[tokio::test]`.
fn tests_of(text: &str) -> BTreeSet<String> {
    let (mut names, mut is_test) = (BTreeSet::new(), false);
    for line in text.lines().map(str::trim_start) {
        if line.starts_with("#[test]") || line.starts_with("#[tokio::test") {
            is_test = true;
        } else if let Some((_, rest)) = line.split_once("fn ").filter(|_| is_test && !line.starts_with("//"))
        {
            names.extend(rest.split(['(', '<']).next().map(str::to_owned));
            is_test = false;
        }
    }
    names
}

/// The tests of each file in tests/ and src/, by its path from the root.
fn tests_of_files() -> BTreeMap<String, BTreeSet<String>> {
    let mut files = Vec::new();
    all_below(&root().join("tests"), &mut files);
    all_below(&root().join("src"), &mut files);
    let files = files.iter().filter(|file| file.extension().is_some_and(|ending| ending == "rs"));
    files
        .map(|file| {
            let path = file.strip_prefix(root()).unwrap().to_str().unwrap().to_owned();
            (path, tests_of(&std::fs::read_to_string(file).unwrap()))
        })
        .collect()
}

/// Whether a name is a test's: they are sentences. Options and metrics are shorter, or have a full stop.
fn is_test_name(name: &str) -> bool {
    is_snake_case(name) && name.matches('_').count() >= 4
}

fn is_snake_case(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
}

#[test]
fn every_file_that_it_names_is_there() {
    let text = read("SECURITY.md");
    let folders = ["src/", "tests/", "docs/", "deploy/", "config/", "fuzz/", "benches/"];
    let mut found = 0;
    for path in quoted(&text).filter(|quoted| folders.iter().any(|folder| quoted.starts_with(folder))) {
        assert!(root().join(path).exists(), "SECURITY.md names {path}, which is not there");
        found += 1;
    }
    assert!(found > 40, "{found} files");
    for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
        let path = link.split('#').next().unwrap();
        if !path.is_empty() && !path.contains("://") {
            assert!(root().join(Path::new(path)).exists(), "SECURITY.md links to {path}, which is not there");
        }
    }
}

#[test]
fn every_test_that_it_names_is_there() {
    let text = read("SECURITY.md");
    let tests = tests_of_files();
    let mut named = 0;
    // A cell of the table names a file, and then tests of it; a test without a file before it may stand in any.
    for cell in text.lines().flat_map(|line| line.split('|')) {
        let mut file = None;
        for quoted in quoted(cell) {
            if tests.contains_key(quoted) {
                file = Some(quoted);
            } else if is_test_name(quoted) {
                named += 1;
                let is_there = match file {
                    Some(file) => tests[file].contains(quoted),
                    None => tests.values().any(|tests| tests.contains(quoted)),
                };
                let file = file.unwrap_or("any file");
                assert!(is_there, "SECURITY.md names the test {quoted} of {file}, which is no test there");
            }
        }
    }
    assert!(named >= 10, "{named}");
}
