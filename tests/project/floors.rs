//! Promise: the rooms of `src/` stand on floors, and each one uses only rooms on floors below its own. So there is no circle, and
//! whoever changes a room knows which others may be touched by it.
//!
//! A room is a module of `src/lib.rs`. Read are all paths that begin with `crate::`, or that leave the room by `super::`; not
//! what stands in test modules.

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};

/// The floors, from the bottom to the top. Rooms of one floor do not use each other.
const FLOORS: [&[&str]; 15] = [
    // What a simulation decides in the machine's place, and what a model checker does.
    &["locks", "simulation"],
    // Facts and tools that know nothing of cards.
    &[
        "backoff",
        "clock",
        "config",
        "content",
        "files",
        "http_failure",
        "killpoint",
        "outcome",
        "signature",
        "trace",
    ],
    &["logging", "pin", "remedy", "shipping", "tally"],
    &["encrypt", "jwe", "metrics"],
    // What Stripe can be asked for, and a job that asks for it.
    &["operation"],
    &["job", "sandbox"],
    &["pace", "stripe"],
    &["ledger"],
    // What waits for a cardholder, and what is told of a batch.
    &["pin_links", "webhooks"],
    // One job's way.
    &["line", "results"],
    // Where jobs come from.
    &["account", "manifest"],
    &["intake"],
    &["queue"],
    &["serve", "worker"],
    &["commands"],
];

/// Arrows that do not point down and still stand: this list only ever gets shorter.
const KNOWN: [(&str, &str); 0] = [];

/// One use of a room by another.
struct Arrow {
    file: PathBuf,
    line: usize,
    from: String,
    to: String,
}

impl fmt::Display for Arrow {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, line, from, to } = self;
        write!(formatter, "{}:{line}: {from} -> {to}", file.display())
    }
}

fn floor_of(room: &str) -> Option<usize> {
    FLOORS.iter().position(|floor| floor.contains(&room))
}

/// Every source file, by its path below `src/`.
fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// The names of a file's module, from the crate down: `["line", "carry"]`.
fn module_of(file: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        file.with_extension("").iter().map(|name| name.to_string_lossy().into_owned()).collect();
    names.pop_if(|last| last == "mod");
    names
}

/// The text without comments and test modules, line for line; and the names of test modules that are files of their own.
fn without_tests(text: &str) -> (Vec<String>, Vec<String>) {
    let (mut kept, mut of_tests) = (Vec::new(), Vec::new());
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if line.trim() != "#[cfg(test)]" {
            kept.push(line.split("//").next().unwrap_or_default().to_owned());
            continue;
        }
        kept.push(String::new());
        let Some(item) = lines.next() else { break };
        kept.push(String::new());
        let name = item.trim().rsplit(' ').next().unwrap_or_default();
        if item.trim().starts_with("mod ") && name.ends_with(';') {
            of_tests.push(name.trim_end_matches(';').to_owned());
        } else if item.ends_with('{') {
            let indent = item.len() - item.trim_start().len();
            let end = format!("{}}}", " ".repeat(indent));
            for line in lines.by_ref() {
                kept.push(String::new());
                if line == end {
                    break;
                }
            }
        }
    }
    (kept, of_tests)
}

/// The first names of a path's rest: of `b::c` it is `b`, of `{b::c, d}` they are `b` and `d`.
fn first_names(rest: &str) -> Vec<String> {
    let name = |text: &str| -> String {
        text.trim_start().chars().take_while(|each| each.is_alphanumeric() || *each == '_').collect()
    };
    let Some(group) = rest.trim_start().strip_prefix('{') else { return vec![name(rest)] };
    let (mut names, mut depth, mut begins) = (Vec::new(), 0, 0);
    for (at, each) in group.char_indices() {
        match each {
            '{' => depth += 1,
            '}' if depth > 0 => depth -= 1,
            ',' | '}' if depth == 0 => {
                names.push(name(&group[begins..at]));
                begins = at + 1;
                if each == '}' {
                    break;
                }
            }
            _ => {}
        }
    }
    names.retain(|name| !name.is_empty());
    names
}

/// Which rooms a text of this module uses, and on which lines.
fn uses(module: &[String], lines: &[String]) -> Vec<(usize, String)> {
    let text = lines.join("\n");
    let mut found = Vec::new();
    let mut note = |at: usize, rest: &str| {
        let line = text[..at].matches('\n').count() + 1;
        found.extend(first_names(rest).into_iter().map(|name| (line, name)));
    };
    for begin in ["crate::", "super::"] {
        for (at, _) in text.match_indices(begin) {
            let before = text[..at].chars().next_back().unwrap_or(' ');
            if before.is_alphanumeric() || before == '_' || before == ':' {
                continue;
            }
            let mut rest = &text[at + begin.len()..];
            let mut steps = 1;
            while let Some(further) = rest.strip_prefix("super::") {
                (rest, steps) = (further, steps + 1);
            }
            if begin == "crate::" || steps >= module.len() {
                note(at, rest);
            }
        }
    }
    found
}

/// All arrows between rooms.
fn arrows() -> Vec<Arrow> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut paths = Vec::new();
    files(&root, &mut paths);
    paths.sort();
    let texts: Vec<_> = paths
        .iter()
        .map(|path| {
            let module = module_of(path.strip_prefix(&root).unwrap());
            let (lines, of_tests) = without_tests(&std::fs::read_to_string(path).unwrap());
            (path, module, lines, of_tests)
        })
        .collect();
    let is_of_tests = |module: &[String]| {
        let Some((name, parent)) = module.split_last() else { return false };
        texts.iter().any(|(_, other, _, of_tests)| other == parent && of_tests.contains(name))
    };
    let mut arrows = Vec::new();
    for (path, module, lines, _) in &texts {
        let from = module[0].clone();
        if matches!(from.as_str(), "lib" | "main") || is_of_tests(module) {
            continue;
        }
        for (line, to) in uses(module, lines) {
            if to != from {
                let file = Path::new("src").join(path.strip_prefix(&root).unwrap());
                arrows.push(Arrow { file, line, from: from.clone(), to });
            }
        }
    }
    arrows
}

/// What a line of src/lib.rs names, if that is a room.
fn room_in(line: &str) -> Option<&str> {
    line.strip_prefix("pub mod ").or_else(|| line.strip_prefix("mod "))
}

#[test]
fn every_room_stands_on_one_floor() {
    let library = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/lib.rs");
    let library = std::fs::read_to_string(library).unwrap();
    let rooms: BTreeSet<&str> = library.lines().filter_map(|line| room_in(line)?.strip_suffix(';')).collect();
    let on_floors: Vec<&str> = FLOORS.iter().flat_map(|floor| floor.iter().copied()).collect();
    assert_eq!(
        on_floors.len(),
        on_floors.iter().collect::<BTreeSet<_>>().len(),
        "a room stands on two floors"
    );
    assert_eq!(rooms, on_floors.into_iter().collect(), "src/lib.rs and FLOORS name the same rooms");
}

#[test]
fn each_arrow_points_down() {
    let arrows = arrows();
    let points_down = |arrow: &Arrow| match (floor_of(&arrow.from), floor_of(&arrow.to)) {
        (Some(from), Some(to)) => to < from,
        _ => false,
    };
    let is_known = |arrow: &Arrow| KNOWN.contains(&(arrow.from.as_str(), arrow.to.as_str()));
    let wrong: Vec<String> = arrows
        .iter()
        .filter(|arrow| !points_down(arrow) && !is_known(arrow))
        .map(|arrow| format!("{arrow} does not point to a floor below; move what is used to a lower room"))
        .collect();
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
    for (from, to) in KNOWN {
        let needed = arrows.iter().any(|arrow| arrow.from == from && arrow.to == to && !points_down(arrow));
        assert!(needed, "{from} -> {to} is gone: take it from KNOWN, so that it does not come back");
    }
}

#[test]
fn paths_are_found_however_they_are_written() {
    let text = "use crate::clock::Time;\nuse crate::{job, ledger::{Row, State}};\n// crate::comment\n\
                use super::super::wipe::Wiped;\nuse super::near;\nfn x() { crate::killpoint::pass(\"a\") }\n\
                pub(in crate::line) fn y() {}\n#[cfg(test)]\nmod tests {\n    use crate::serve;\n}\nuse crate::{\n    pace,\n};\n";
    let (lines, _) = without_tests(text);
    let module = ["line".to_owned(), "carry".to_owned()];
    let mut found = uses(&module, &lines);
    found.sort();
    let found: Vec<(usize, &str)> = found.iter().map(|(line, name)| (*line, name.as_str())).collect();
    assert_eq!(
        found,
        [(1, "clock"), (2, "job"), (2, "ledger"), (4, "wipe"), (6, "killpoint"), (7, "line"), (12, "pace")]
    );
    assert_eq!(module_of(Path::new("line/carry/mod.rs")), module);
}
