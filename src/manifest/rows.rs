//! Rows as jobs will need them, or all that keeps a row from being one.

use std::borrow::Borrow;
use std::io::{self, Read};

use crate::operation::{
    CANCEL_REPLACED, CARD_ID, FieldProblem, Operation, REPLACED_OF_NOBODY, Request, is_card_id,
};

use super::amounts::Amounts;
use super::columns::compared;
use super::header::{Column, Holds, Part};
use super::headings::column_called;
use super::likeness::Likeness;
use super::mixed_amounts::Written;
use super::own_address::tell_of_person;
use super::plan::{COLUMNS_MAX, Good};
use super::records::{Record, Records, trimmed};
use super::remembered::Remembered;
use super::{CELL_BYTES_MAX, InvalidRow, Manifest, Problem, ROW_ID_BYTES_MAX, Row, Severity, UNREADABLE};

/// Codes of what is wrong with a word that stands for no value of Stripe's.
const OF_WORDS: [&str; 4] = ["not_allowed", "not_a_boolean", "currency", "country"];

/// The rows of a manifest, each once; blocks on its source.
pub struct Rows<M, R> {
    manifest: M,
    records: Records<R>,
    number: u64,
    blank_rows: u64,
    /// How amounts were written so far.
    written: Written,
    ended: bool,
}

impl<M: Borrow<Manifest>, R> Rows<M, R> {
    /// Of records, the first of which is a row.
    pub(super) fn new(manifest: M, records: Records<R>) -> Self {
        Self { manifest, records, number: 0, blank_rows: 0, written: Written::default(), ended: false }
    }

    /// The manifest.
    pub fn manifest(&self) -> &Manifest {
        self.manifest.borrow()
    }

    /// Rows with mended cells that were not met so far.
    pub fn edits_left(&self) -> usize {
        self.records.edits_left()
    }

    /// How amounts were written so far.
    pub(super) fn written(&self) -> &Written {
        &self.written
    }

    /// Rows without anything in them that were left out so far.
    pub fn blank_rows(&self) -> u64 {
        self.blank_rows
    }
}

impl<M: Borrow<Manifest>, R: Read> Iterator for Rows<M, R> {
    type Item = Result<Row, InvalidRow>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        loop {
            let number = self.number + 1;
            match self.records.next() {
                Ok(Some(record)) if record.is_blank() => {
                    self.blank_rows += 1;
                    continue;
                }
                Ok(Some(record)) => {
                    self.number = number;
                    let manifest = self.manifest.borrow();
                    manifest.look_at_amounts(&record, &mut self.written);
                    return Some(manifest.row(&record, number));
                }
                Ok(None) => self.ended = true,
                // Nothing after it can be read: the rows before it stand.
                Err(error) => {
                    self.ended = true;
                    return Some(Err(unreadable(self.records.line(), number, &error)));
                }
            }
            return None;
        }
    }
}

/// What a row's cells give.
#[derive(Default)]
struct Given {
    first: Vec<(String, String)>,
    last: Vec<(String, String)>,
    card: Option<String>,
}

impl Manifest {
    /// A record as a row.
    ///
    /// # Errors
    /// All that is wrong with it.
    pub(super) fn row(&self, record: &Record<'_>, number: u64) -> Result<Row, InvalidRow> {
        let row = self.row_by_plan(record, number).map_or_else(|| self.row_by_rules(record, number), Ok);
        let row = row.map_err(|mut row| {
            row.problems.iter_mut().for_each(|problem| problem.found = self.found(record, &problem.column));
            row
        });
        // Where cells may stand in wrong columns, nothing can be said of them.
        let mut row = match record.texts().filter(|_| self.misshapen(record).is_none()) {
            Some(text) if self.lints.is_odd(text, 0) => self.with_findings(row, text),
            _ => row,
        };
        if let (Ok(row), Some(text)) = (&mut row, record.texts()) {
            row.to_own_address = record.is_to_own_address;
            row.likeness = self.likes.of_row(text, |at| self.likes.of_cell(at, text(at)));
        }
        if self.names_persons() && self.misshapen(record).is_none() {
            let person = self.person_of(record);
            match &mut row {
                Ok(row) => row.person = person,
                Err(row) => row.person = person,
            }
        }
        let (warnings, problems, row_id) = match &mut row {
            Ok(row) => (&mut row.warnings, &mut Vec::new(), &row.row_id),
            Err(row) => (&mut row.warnings, &mut row.problems, &row.row_id),
        };
        if record.is_to_own_address {
            tell_of_person(problems);
            tell_of_person(warnings);
        }
        warnings.iter_mut().chain(problems).for_each(|problem| {
            problem.row_id.clone_from(row_id);
            self.call_column(problem, record);
            if record.folded > 0 {
                // Who looks for it does so in a spreadsheet program.
                problem.reason += &format!(" (in a spreadsheet this is row {})", record.line - record.folded);
            }
        });
        row
    }

    /// Whose a record is, by the columns that were named for that; no PIN, wherever it stands.
    fn person_of(&self, record: &Record<'_>) -> Option<String> {
        let text = |at: &usize| std::str::from_utf8(record.iter().nth(*at)?).ok().map(trimmed);
        let is_name = |text: &&str| !text.is_empty() && !may_be_a_pin(text);
        let names: Vec<&str> = self.person.iter().filter_map(text).filter(is_name).collect();
        (!names.is_empty()).then(|| names.join(" "))
    }

    /// A row with what it should be looked at for: problems make it none.
    fn with_findings<'r>(
        &self,
        row: Result<Row, InvalidRow>,
        text: impl Fn(usize) -> &'r str + Copy,
    ) -> Result<Row, InvalidRow> {
        let (line, number) = match &row {
            Ok(row) => (row.line, row.number),
            Err(row) => (row.line, row.number),
        };
        let findings = self.lints.findings(text).into_iter().map(|finding| {
            let column = finding.at.map_or("", |at| self.columns[at].name.as_str());
            let problem = Problem::new(line, number, column, finding.code, finding.reason);
            let may_be_shown = |text: &&str| !text.is_empty() && !may_be_a_pin(text);
            let found = finding.at.map(text).filter(may_be_shown).map(shown);
            Problem { severity: finding.severity, suggestion: finding.suggestion, found, ..problem }
        });
        let (mut problems, warnings): (Vec<_>, Vec<_>) =
            findings.partition(|finding| finding.severity == Severity::Problem);
        match row {
            Ok(row) if problems.is_empty() => Ok(Row { warnings, ..row }),
            Ok(row) => Err(InvalidRow { number, line, row_id: row.row_id, person: None, problems, warnings }),
            Err(row) => {
                // Of one cell the schema's word is enough.
                problems.retain(|found| row.problems.iter().all(|problem| problem.column != found.column));
                let problems = row.problems.into_iter().chain(problems).collect();
                Err(InvalidRow { problems, warnings, ..row })
            }
        }
    }

    /// Calls a problem's column what the file calls it.
    fn call_column(&self, problem: &mut Problem, record: &Record<'_>) {
        let Some(at) = self.columns.iter().position(|column| column.name == problem.column) else { return };
        if let Some(heading) = &self.columns[at].heading {
            problem.column.clone_from(heading);
        }
        if record.is_default(at) {
            problem.reason += "; it is a default of the columns file";
        }
    }

    /// What stands in a row's column, unless it may be a PIN: that is nothing to be shown.
    fn found(&self, record: &Record<'_>, column: &str) -> Option<String> {
        let at = self.columns.iter().position(|known| known.name == column)?;
        let may_be_shown = match self.columns[at].holds {
            Holds::RowId | Holds::Card | Holds::Date => true,
            Holds::Parameter(_, kind) => kind.may_be_shown(),
            Holds::Nothing | Holds::Blank | Holds::LeftOut => false,
        };
        let text = std::str::from_utf8(record.iter().nth(at)?).ok().map(trimmed)?;
        (may_be_shown && !may_be_a_pin(text)).then(|| shown(text))
    }

    /// The name of a row that is right by the plan, what it counts as, and what it is like; nothing if it may not be right.
    /// Its amounts are added to others.
    pub(super) fn judge_by_plan<'r>(
        &self,
        record: &Record<'r>,
        remembered: &mut Remembered,
        amounts: &mut Amounts,
    ) -> Option<(Option<&'r str>, Good, Likeness)> {
        /// Most files have no more columns, and it costs something to make room for as many as there can be.
        const COLUMNS_FEW: usize = 32;
        if self.columns.len() <= COLUMNS_FEW {
            self.judge_cells::<COLUMNS_FEW>(record, remembered, amounts)
        } else {
            self.judge_cells::<COLUMNS_MAX>(record, remembered, amounts)
        }
    }

    /// As [`Self::judge_by_plan`], of so many columns at most.
    fn judge_cells<'r, const MAX: usize>(
        &self,
        record: &Record<'r>,
        remembered: &mut Remembered,
        amounts: &mut Amounts,
    ) -> Option<(Option<&'r str>, Good, Likeness)> {
        let plan = self.plan.as_ref().filter(|_| self.has_its_cells(record))?;
        // Each is looked at several times.
        let mut cells = [""; MAX];
        record.trimmed(&mut cells[..self.columns.len()])?;
        let cell = |at: usize| cells[at];
        let known = remembered.known(cell);
        let good = plan.judge(cell, known, record.is_to_own_address)?;
        if self.lints.is_odd(cell, known) {
            return None;
        }
        remembered.learn(known, cell, &self.likes);
        amounts.add_cells(&self.amounts, cell);
        let row_id = plan.row_id_column().map(cell);
        amounts.written.look(&self.amounts, (record.line, row_id), cell);
        Some((row_id, good, self.likes.of_row(cell, |at| remembered.hash(at))))
    }

    /// A row that is right, by the plan; nothing if it may not be.
    fn row_by_plan(&self, record: &Record<'_>, number: u64) -> Option<Row> {
        let plan = self.plan.as_ref().filter(|_| self.has_its_cells(record))?;
        let text = record.texts()?;
        let row_id = plan.row_id_column().map(|at| text(at).to_owned());
        Some(Row::new((record.line, number), row_id, plan.requests(text)?))
    }

    fn row_by_rules(&self, record: &Record<'_>, number: u64) -> Result<Row, InvalidRow> {
        let line = record.line;
        let problem = |column: &str, code, reason: String| Problem::new(line, number, column, code, reason);
        let invalid = |row_id, problems| {
            Err(InvalidRow { number, line, row_id, person: None, problems, warnings: Vec::new() })
        };
        if let Some((code, reason)) = self.misshapen(record) {
            return invalid(None, vec![problem("", code, reason)]);
        }
        let mut problems = Vec::new();
        let mut given = Given::default();
        let mut row_id = None;
        for (at, (column, cell)) in self.columns.iter().zip(record.iter()).enumerate() {
            let name = column.name.as_str();
            let text = match text_of(cell) {
                Ok(text) => text,
                Err((code, reason)) => {
                    problems.push(problem(name, code, reason));
                    continue;
                }
            };
            match column.holds {
                Holds::Nothing | Holds::LeftOut => {}
                Holds::Blank if text.is_empty() => {}
                Holds::Blank => problems.push(problem(
                    &format!("number {}", at + 1),
                    "unnamed_column",
                    "the column has no heading, and this cell is filled in; give it one, or clear the cell"
                        .into(),
                )),
                Holds::Date => {
                    let date = self.filling.as_ref().and_then(|filling| filling.date);
                    if let Some(date) = date.filter(|_| !text.is_empty())
                        && let Err(wrong) = date.date_of(text)
                    {
                        let (code, reason) = date.explain(wrong);
                        problems.push(problem(name, code, reason));
                    }
                }
                Holds::Parameter(..) if text.is_empty() => {}
                Holds::Parameter(part, _) => {
                    let pairs = if part == Part::First { &mut given.first } else { &mut given.last };
                    pairs.push((column.path.clone(), text.to_owned()));
                }
                Holds::Card if is_card_id(text) => given.card = Some(text.to_owned()),
                Holds::Card => problems.push(problem(name, "card_id", CARD_ID.to_owned())),
                Holds::RowId if row_id_is_good(text) => row_id = Some(text.to_owned()),
                Holds::RowId => problems.push(problem(
                    name,
                    "row_id",
                    format!("must have 1 to {ROW_ID_BYTES_MAX} bytes and no control characters"),
                )),
            }
        }
        match self.requests(given) {
            Ok(requests) if problems.is_empty() => Ok(Row::new((line, number), row_id, requests)),
            _ if self.names_columns(record, number) => {
                let reason = if self.moves_columns(record) {
                    "the row says what the columns are called, in another order than the first row: what stands below it is read under the \
                     wrong headings, whatever is said of it. Put the two tables into files of their own"
                } else {
                    "the row says what the columns are called, and is no card; delete it: a table has one row of headings"
                };
                invalid(None, vec![problem("", "second_header", reason.into())])
            }
            Ok(_) => invalid(row_id, problems),
            Err(fields) => {
                let unread: Vec<String> = problems.iter().map(|problem| problem.column.clone()).collect();
                let fields = fields.into_iter().filter(|field| !unread.contains(&field.path));
                problems.extend(fields.filter(|field| self.is_news(field)).map(|field| {
                    let FieldProblem { path, code, mut reason, suggestion } = field;
                    if OF_WORDS.contains(&code) && self.is_renamed(&path) {
                        reason += &format!(
                            "; what a word in this column stands for can be said in the columns file, under [values.\"{path}\"]"
                        );
                    }
                    Problem { suggestion, ..problem(&path, code, reason) }
                }));
                invalid(row_id, problems)
            }
        }
    }

    /// Whether a row that is wrong says what its columns are called: a second row of headings, or the first once more.
    fn names_columns(&self, record: &Record<'_>, number: u64) -> bool {
        let names = |(column, cell): &(&Column, &[u8])| {
            let Some(text) = std::str::from_utf8(cell).ok().map(trimmed).filter(|text| !text.is_empty())
            else {
                return false;
            };
            let own = column.heading.as_deref().unwrap_or(&column.name);
            compared(text) == compared(own) || (number == 1 && column_called(text).is_some())
        };
        self.columns.iter().zip(record.iter()).filter(names).count() > 1
    }

    /// Whether a row that says what its columns are called says so of others than those under which it stands.
    fn moves_columns(&self, record: &Record<'_>) -> bool {
        let own = |column: &Column| compared(column.heading.as_deref().unwrap_or(&column.name));
        self.columns.iter().zip(record.iter()).any(|(column, cell)| {
            std::str::from_utf8(cell).ok().map(|text| compared(trimmed(text))).is_some_and(|called| {
                called != own(column)
                    && self.columns.iter().any(|other| other.name != column.name && own(other) == called)
            })
        })
    }

    /// What a row asks for, the first request and the last, or all that is wrong with it, by columns.
    fn requests(&self, given: Given) -> Result<(Option<Request>, Request), Vec<FieldProblem>> {
        let contents = self.contents;
        let mut problems = Vec::new();
        let cardholder = contents.column_of(Part::Last, "cardholder");
        let exists = given.last.iter().any(|(path, _)| *path == cardholder);
        if contents.with_people {
            match (exists, given.first.is_empty()) {
                (true, false) => problems.push(FieldProblem::new(
                    &cardholder,
                    "exclusive",
                    "names a cardholder who exists, and the columns cardholder[…] one who is to be created; leave one of \
                     them empty",
                )),
                (false, true) => problems.push(FieldProblem::new(
                    &contents.column_of(Part::First, "name"),
                    "missing",
                    "is required, as is the rest of who gets the card; or give the id of a cardholder who exists in the \
                     column cardholder",
                )),
                _ => {}
            }
        }
        if contents.operation == Operation::UpdateCard && given.last.is_empty() {
            problems.push(FieldProblem::new(
                "",
                "no_change",
                "the row asks for no change; fill in a cell or delete it",
            ));
        }
        let mut made = |part, pairs: Vec<(String, String)>| {
            let to_column = |field: FieldProblem| FieldProblem {
                path: contents.column_of(part, &field.path),
                suggestion: field.suggestion,
                ..field
            };
            Request::from_pairs(contents.operation_of(part), pairs)
                .map_err(|fields| problems.extend(fields.into_iter().map(to_column)))
                .ok()
        };
        let cancels_too =
            given.last.iter().any(|(path, _)| path == CANCEL_REPLACED) && !given.first.is_empty();
        let last = made(Part::Last, given.last);
        let first = (!given.first.is_empty()).then(|| made(Part::First, given.first));
        if cancels_too && last.as_ref().is_some_and(Request::cancels_replaced) {
            problems.push(FieldProblem::new(CANCEL_REPLACED, "exclusive", REPLACED_OF_NOBODY));
        }
        match last {
            Some(last) if problems.is_empty() => {
                let last = match given.card {
                    Some(card) => last.with_target(card),
                    None => last,
                };
                Ok((first.flatten(), last))
            }
            _ => Err(problems),
        }
    }

    /// Whether the columns file says that a heading of another name is this column.
    fn is_renamed(&self, column: &str) -> bool {
        self.columns.iter().any(|other| other.name == column && other.heading.is_some())
    }

    /// A part that is missing from every row, because the header names its column wrongly, is told of the header.
    fn is_news(&self, field: &FieldProblem) -> bool {
        self.header_problems.is_empty()
            || field.code != "missing"
            || self.columns.iter().any(|column| column.name == field.path)
    }
}

/// A cell's text.
fn text_of(cell: &[u8]) -> Result<&str, (&'static str, String)> {
    if cell.len() > CELL_BYTES_MAX {
        return Err(("cell_too_long", format!("the cell has more than {CELL_BYTES_MAX} bytes")));
    }
    let text = std::str::from_utf8(cell);
    text.map(trimmed).map_err(|_| {
        (
            "not_utf8",
            "the cell is damaged: other cells are UTF-8, and this one is not; type it again".to_owned(),
        )
    })
}

/// Whether a text in a column of something else may be a PIN all the same, or its ciphertext: digits alone, or what begins so.
pub(super) fn may_be_a_pin(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit()) || text.starts_with("eyJ")
}

/// A cell's text as a message shows it.
pub(super) fn shown(text: &str) -> String {
    /// Enough to find it by.
    const SHOWN_MAX: usize = 40;
    let mut shown: String = text.chars().take(SHOWN_MAX).collect();
    if shown.len() < text.len() {
        shown.push('…');
    }
    shown
}

/// Whether a row can have this name.
pub(super) fn row_id_is_good(name: &str) -> bool {
    (1..=ROW_ID_BYTES_MAX).contains(&name.len())
        && !name.chars().any(char::is_control)
        && name.chars().any(|letter| !letter.is_whitespace())
}

/// The end of what could be read, as a row with this number.
pub(super) fn unreadable(line: u64, number: u64, error: &io::Error) -> InvalidRow {
    let reason = format!("the file cannot be read on from here: {error}");
    let problem = Problem::new(line, number, "", UNREADABLE, reason);
    InvalidRow { number, line, row_id: None, person: None, problems: vec![problem], warnings: Vec::new() }
}
