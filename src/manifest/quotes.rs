//! Quotes that stand where none belongs, in a record as it is written.
//!
//! A quote too many opens a cell that goes on to the next one, over lines that are rows. The csv crate takes what comes of it:
//! the rows in between would get no card, and nobody would be told. So such a record is flawed, with its lines.
//! A cell that is meant to have several lines is none: an address has fewer delimiters in it than a row.

use memchr::{memchr, memchr2};

use super::blocks::Flaw;

/// What is wrong with the quotes of a record that has so many lines' ends in it, of a file with so many columns (0: nobody knows yet).
pub(super) fn flaw(record: &[u8], delimiter: u8, (columns, lines): (usize, u64)) -> Option<Flaw> {
    let record = record.trim_ascii_end();
    let is_delimiter = |at: usize| record.get(at) == Some(&delimiter);
    let (mut at, mut column) = (0, 0);
    while at < record.len() {
        if record[at] == b'"' {
            let closes = closing(record, at + 1)?;
            let inside = &record[at + 1..closes];
            let blanks = record[closes + 1..].iter().take_while(|byte| **byte == b' ').count();
            at = closes + 1 + blanks;
            if at < record.len() && !is_delimiter(at) {
                return Some(Flaw::TextAfterQuote { lines });
            }
            if lines > 0 && holds_rows(inside, delimiter, (column, columns)) {
                return Some(Flaw::RowsInQuotes { lines });
            }
        } else {
            at += memchr(delimiter, &record[at..]).unwrap_or(record.len() - at);
        }
        (at, column) = (at + 1, column + 1);
    }
    None
}

/// The quote that closes a cell whose text begins here.
fn closing(record: &[u8], mut at: usize) -> Option<usize> {
    loop {
        let quote = at + memchr(b'"', &record[at..])?;
        if record.get(quote + 1) != Some(&b'"') {
            return Some(quote);
        }
        at = quote + 2;
    }
}

/// Whether a quoted cell has several lines, and as many delimiters in them as the rest of its row, the rows after it and the
/// beginning of the last one would have.
fn holds_rows(inside: &[u8], delimiter: u8, (column, columns): (usize, usize)) -> bool {
    /// Of a row of fewer columns, delimiters may be the commas of a sentence: after those stands a blank, or the line's end.
    const SURE_COLUMNS: usize = 5;
    if columns < 2 || memchr2(b'\r', b'\n', inside).is_none() {
        return false;
    }
    let is_of_sentence =
        |at: usize| columns < SURE_COLUMNS && matches!(inside.get(at + 1), Some(b' ' | b'\r' | b'\n'));
    let mut lines = vec![0];
    for (at, byte) in inside.iter().enumerate() {
        match (byte, lines.last_mut()) {
            (b'\r' | b'\n', _) => lines.push(0),
            (byte, Some(delimiters)) if *byte == delimiter && !is_of_sentence(at) => *delimiters += 1,
            _ => {}
        }
    }
    let [first, between @ .., last] = lines.as_slice() else { return false };
    let (before, after) = (column, columns.saturating_sub(column + 1));
    (*first >= after && *last >= before) || between.iter().any(|delimiters| *delimiters >= columns - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(record: &str, columns: usize) -> Option<Flaw> {
        let ends = record.trim_end().replace("\r\n", "\n").matches('\n').count();
        flaw(record.as_bytes(), b',', (columns, ends as u64))
    }

    #[test]
    fn rows_within_quotes_are_told_with_the_lines_that_they_take() {
        let rows = |lines| Some(Flaw::RowsInQuotes { lines });
        assert_eq!(found("E1,ich_1,eur,\"spare\nE2,ich_2,eur,\"\r\n", 4), rows(1));
        assert_eq!(found("E1,\"12 High\nE2,12\",eur,x", 4), None, "the rest of neither row");
        assert_eq!(found("E1,\"12 High,eur,x\r\nE2,12\",eur,x", 4), rows(1));
        assert_eq!(found("E1,ich_1,eur,\"spare\n\nE2,ich_2,eur,x\nE3,ich_3\",", 4), rows(3));
        assert_eq!(found("\"E1,ich_1,eur,x\nE2,ich_2,eur,x\"", 4), rows(1));
        // Before the headings are known nobody can tell.
        assert_eq!(found("E1,ich_1,eur,\"spare\nE2,ich_2,eur,\"", 0), None);
    }

    #[test]
    fn text_after_a_quote_that_closes_is_told() {
        let text = |lines| Some(Flaw::TextAfterQuote { lines });
        assert_eq!(found("E1,\"19\" rack,x", 3), text(0));
        assert_eq!(found("E1,\"Bobby;x\nE2;Jo \"Jay\" Roe,x", 3), text(1));
        assert_eq!(found(r#"E1,"Ada \"Countess\" Lovelace",x"#, 3), text(0));
    }

    #[test]
    fn cells_that_are_meant_to_have_several_lines_stay() {
        for record in [
            "E1,\"12 High Street,\nFlat 4, Dublin\",x\r\n",
            "E1,\"12 High Street\r\nDublin, Ireland\"",
            "\"a\",\"b \"\"c\"\" d\",\"\"",
            "\"\"\"\",\"a\" ,\"b\"  ",
            "12\" pipe,5\"\",\"\n\n\"",
            "\"one\ntwo\nthree, four\",b,c",
            "E1,\"12 High St,\nDublin,\nIreland\"",
        ] {
            let columns = record.matches("\",").count().max(2) + 1;
            assert_eq!(found(record, columns), None, "{record}");
        }
    }
}
