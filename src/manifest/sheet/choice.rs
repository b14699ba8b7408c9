//! Which sheet of a spreadsheet is read: the one that was asked for, or the first that has a table.
//!
//! Guarantees: where the first sheet that is shown has a table, or none has one, it is that sheet; and a table that is not read
//! is told.

use calamine::{SheetType, SheetVisible};

use super::super::columns::compared;

/// Rows of a sheet that are looked at for headings.
pub(super) const ROWS_LOOKED_AT: usize = 12;

/// Tells whether cells are a row of headings.
pub(super) type AreHeadings<'a> = &'a dyn Fn(&[String]) -> bool;

/// The sheet that is read.
#[derive(Debug, Default)]
pub(super) struct Choice {
    pub(super) name: String,
    /// What is to be told of the choice.
    pub(super) note: Option<String>,
    /// Sheets with a table that is not read.
    pub(super) tables: Vec<String>,
    /// All others that are shown and have something in them.
    pub(super) others: Vec<String>,
}

/// What the first rows of a sheet are.
struct Head {
    name: String,
    is_blank: bool,
    has_headings: bool,
    /// Whether there is a row below the headings.
    has_rows: bool,
}

/// Chooses among sheets; `rows_of` gives the first rows of one that have something in them.
///
/// # Errors
/// A sentence that names the sheets there are.
pub(super) fn choose(
    sheets: &[calamine::Sheet],
    wanted: Option<&str>,
    are_headings: AreHeadings<'_>,
    rows_of: &mut dyn FnMut(&str) -> Vec<Vec<String>>,
) -> Result<Choice, String> {
    let tables = || sheets.iter().filter(|sheet| sheet.typ == SheetType::WorkSheet);
    if let Some(wanted) = wanted {
        let like = || tables().filter(|sheet| compared(&sheet.name) == compared(wanted));
        let exact = tables().find(|sheet| sheet.name == wanted);
        let found = exact.or_else(|| like().next().filter(|_| like().count() == 1));
        let chosen = found.map(|sheet| Choice { name: sheet.name.clone(), ..Choice::default() });
        return chosen.ok_or_else(|| {
            let names: Vec<_> = tables().map(|sheet| format!("{:?}", sheet.name)).collect();
            format!("the spreadsheet has no sheet {wanted:?}, but {}", names.join(", "))
        });
    }
    let shown: Vec<_> = tables().filter(|sheet| sheet.visible == SheetVisible::Visible).collect();
    let Some(first) = shown.first().copied().or_else(|| tables().next()) else {
        return Err("the spreadsheet has no sheet with cells".to_owned());
    };
    if shown.len() < 2 {
        return Ok(Choice { name: first.name.clone(), ..Choice::default() });
    }
    let heads: Vec<Head> =
        shown.iter().map(|sheet| Head::of(&sheet.name, rows_of(&sheet.name), are_headings)).collect();
    let is_table = |head: &&Head| head.has_headings && head.has_rows;
    let better = heads.iter().skip(1).find(is_table).filter(|_| !heads[0].has_headings);
    let chosen = better.unwrap_or(&heads[0]);
    let name = |head: &Head| head.name.clone();
    let is_other = |head: &&Head| head.name != chosen.name;
    Ok(Choice {
        name: chosen.name.clone(),
        note: better.map(|_| format!("not the first one, {:?}, in which no headings stand", first.name)),
        tables: heads.iter().filter(is_other).filter(is_table).map(name).collect(),
        others: heads.iter().filter(is_other).filter(|head| !head.is_blank).map(name).collect(),
    })
}

impl Head {
    fn of(name: &str, rows: Vec<Vec<String>>, are_headings: AreHeadings<'_>) -> Self {
        let headings = rows.iter().position(|row| are_headings(row));
        Self {
            name: name.to_owned(),
            is_blank: rows.is_empty(),
            has_headings: headings.is_some(),
            has_rows: headings.is_some_and(|at| at + 1 < rows.len()),
        }
    }
}
