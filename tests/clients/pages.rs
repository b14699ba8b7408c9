//! The parts of docs/pins.md that tests write: each stands between two HTML comments that name it.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use super::{LIBRARIES, Library, Made, SHAPES, source};

/// With this in the environment the parts are written, otherwise held against what is there.
const WRITE: &str = "EMBOSSER_WRITE_DOCS";

/// Two tests write the same file.
static PAGE: Mutex<()> = Mutex::new(());

fn page() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/pins.md")
}

pub(crate) fn writes() -> bool {
    std::env::var_os(WRITE).is_some()
}

/// Writes a part, or fails unless it is this text. `same` makes texts alike that may differ.
pub(crate) fn hold(part: &str, text: &str, same: impl Fn(&str) -> String) {
    let _guard = PAGE.lock().unwrap_or_else(PoisonError::into_inner);
    let page_text = std::fs::read_to_string(page()).unwrap();
    let (begin, end) = (format!("<!-- {part} begins -->\n"), format!("<!-- {part} ends -->"));
    let (before, rest) =
        page_text.split_once(&begin).unwrap_or_else(|| panic!("docs/pins.md has no {begin}"));
    let (there, after) = rest.split_once(&end).unwrap_or_else(|| panic!("docs/pins.md has no {end}"));
    if writes() {
        std::fs::write(page(), format!("{before}{begin}{text}{end}{after}")).unwrap();
    } else {
        assert_eq!(
            same(there),
            same(text),
            "{part} of docs/pins.md is out of date: {WRITE}=1 writes it anew"
        );
    }
}

/// The part of a client's program that docs/pins.md shows.
pub(crate) fn snippet(program: &str) -> String {
    let text = std::fs::read_to_string(source(program)).unwrap();
    let lines = text.lines().skip_while(|line| !line.ends_with("snippet begins")).skip(1);
    let lines: Vec<&str> = lines.take_while(|line| !line.ends_with("snippet ends")).collect();
    assert!(!lines.is_empty(), "{program} shows nothing");
    let language = match program.rsplit('.').next().unwrap() {
        "mjs" => "js",
        "py" => "python",
        "rb" => "ruby",
        "rs" => "rust",
        "cs" => "csharp",
        "escript" => "erlang",
        other => other,
    };
    format!("```{language}\n{}\n```\n", lines.join("\n").trim_end())
}

/// One library's row: its version, how it made each shape, and how many JWEs it made under both keys.
pub(crate) struct Row {
    pub(crate) library: &'static Library,
    version: String,
    cells: Vec<&'static str>,
    taken: Vec<(u32, usize)>,
}

impl Row {
    pub(crate) fn new(library: &'static Library, version: &str) -> Self {
        Self { library, version: version.to_owned(), cells: Vec::new(), taken: Vec::new() }
    }

    /// Notes what was taken under a key of so many bits.
    pub(crate) fn note(&mut self, bits: u32, made: &[Made], kid: &str) {
        let cells: Vec<_> = made.iter().map(|made| cell(made, kid, self.library)).collect();
        assert!(self.taken.is_empty() || self.cells == cells, "{} makes other shapes", self.library.name);
        self.cells = cells;
        self.taken.push((bits, made.iter().filter(|made| made.jwe.is_some()).count()));
    }

    fn line(&self) -> String {
        let taken = self.taken.iter().map(|(_, taken)| format!(" {taken} |")).collect::<String>();
        format!("| {} | {} | {} |{taken}\n", self.library.name, self.version, self.cells.join(" | "))
    }
}

/// Whether the header is the one that was asked for, to the order of its members.
fn cell(made: &Made, kid: &str, library: &Library) -> &'static str {
    use base64::Engine as _;
    let Some(jwe) = &made.jwe else { return "no" };
    let header = jwe.split('.').next().unwrap();
    let header = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(header).unwrap();
    let header = String::from_utf8(header).unwrap();
    let asked = SHAPES[made.shape].2.replace("KID", kid);
    let members = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();
    assert_eq!(members(&header), members(&asked), "{}, {}", library.name, SHAPES[made.shape].0);
    if header.replace(' ', "") == asked { "yes" } else { "own order" }
}

/// The matrix of the libraries that ran.
pub(crate) fn matrix(rows: &[Row]) -> String {
    let columns = SHAPES.map(|(column, ..)| column).join(" | ");
    let bits: String = rows[0].taken.iter().map(|(bits, _)| format!(" {bits} bits |")).collect();
    let ruler = "| --- ".repeat(2 + SHAPES.len() + rows[0].taken.len());
    let lines: String = rows.iter().map(Row::line).collect();
    format!("| Library | Version | {columns} |{bits}\n{ruler}|\n{lines}")
}

/// The matrix without what may differ: versions that nothing here pins, and libraries that are missing on this machine.
pub(crate) fn comparable(matrix: &str, missing: &[&str]) -> String {
    let is_missing = |line: &&str| {
        let name = line.trim_start_matches("| ").split(" | ").next().unwrap_or_default();
        LIBRARIES.iter().any(|library| library.name == name) && missing.contains(&name)
    };
    let line_of = |line: &str| {
        let cells = line.split(" | ").map(|cell| cell.split_once(" (").map_or(cell, |(_, whose)| whose));
        cells.collect::<Vec<_>>().join(" | ") + "\n"
    };
    matrix.lines().filter(|line| !is_missing(line)).map(line_of).collect()
}
