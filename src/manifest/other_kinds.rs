//! What a file is that is no table of text, whatever its name says: told by its beginning, with the way out.

/// So much of a beginning is looked at.
const START_BYTES: usize = 2048;

/// What is said of a file that begins so; none if it may be a table.
pub(super) fn said_of(start: &[u8]) -> Option<&'static str> {
    const ARCHIVES: [&[u8]; 5] = [b"\x1f\x8b", b"7z\xbc\xaf\x27\x1c", b"Rar!", b"BZh", b"\xfd7zXZ"];
    if start.starts_with(b"PK\x03\x04") {
        return Some("the file is an archive, and no spreadsheet that can be read");
    }
    if ARCHIVES.iter().any(|begin| start.starts_with(begin)) {
        return Some("the file is packed; unpack it, and use the spreadsheet or CSV that is in it");
    }
    if start.starts_with(b"%PDF-") {
        return Some(
            "the file is a PDF and no spreadsheet, whatever its name says; copy its table into a spreadsheet and save that",
        );
    }
    let start = start.strip_prefix("\u{feff}".as_bytes()).unwrap_or(start);
    let text = String::from_utf8_lossy(&start[..start.len().min(START_BYTES)]).to_lowercase();
    let text = text.trim_start();
    let begins = |words: &[&str]| words.iter().any(|word| text.starts_with(word));
    if begins(&["<html", "<!doctype html", "<table", "<head", "<style", "<meta"]) {
        return Some(
            "the file is a web page (HTML) that is called a spreadsheet, as some programs export them; open it in Excel or LibreOffice \
             and save it as .xlsx",
        );
    }
    if text.starts_with('<') && text.contains("urn:schemas-microsoft-com:office:spreadsheet") {
        return Some(
            "the file is an \"XML Spreadsheet 2003\", which is not read; open it in Excel or LibreOffice and save it as .xlsx",
        );
    }
    if begins(&["<?xml", "<!--"]) {
        return Some("the file is XML and no table; save the table as .xlsx, .ods or CSV, and use that");
    }
    if begins(&["{\\rtf"]) {
        return Some(
            "the file is a text document (RTF) and no spreadsheet, whatever its name says; copy its table into a spreadsheet and save that",
        );
    }
    if begins(&["[{", "{\"", "[\n", "[\r", "{\n", "{\r", "[ {", "{ \""]) {
        return Some(
            "the file is JSON and no table; save the table as .xlsx, .ods or CSV, and use that. Jobs as JSON come one by one, over \
             HTTP (POST /v1/jobs) or RabbitMQ",
        );
    }
    if begins(&["id;p"]) && text.lines().nth(1).is_some_and(|line| line.get(1..2) == Some(";")) {
        return Some(
            "the file is SYLK (.slk), which is not read; open it in Excel or LibreOffice and save it as .xlsx",
        );
    }
    let mut lines = text.lines();
    if lines.next() == Some("table") && lines.next() == Some("0,1") {
        return Some(
            "the file is DIF (.dif), which is not read; open it in Excel or LibreOffice and save it as .xlsx",
        );
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_file_is_is_told_by_its_beginning() {
        for (start, said) in [
            (&b"\xef\xbb\xbf<html>\n<head>"[..], "web page"),
            (b"\r\n<!DOCTYPE HTML PUBLIC", "web page"),
            (
                b"<?xml version=\"1.0\"?>\n<Workbook xmlns=\"urn:schemas-microsoft-com:office:spreadsheet\">",
                "XML Spreadsheet 2003",
            ),
            (b"<?xml version=\"1.0\"?><staff>", "is XML"),
            (b"{\\rtf1\\ansi row_id,type}", "RTF"),
            (b"[{\"row_id\": 1}]", "is JSON"),
            (b"{\n  \"rows\": []}", "is JSON"),
            (b"ID;PWXL;N;E\nP;PGeneral\n", "SYLK"),
            (b"TABLE\r\n0,1\r\n\"EXCEL\"", "DIF"),
            (b"\x1f\x8b\x08", "packed"),
            (b"%PDF-1.7", "PDF"),
        ] {
            let found = said_of(start).unwrap_or_default();
            assert!(found.contains(said), "{}: {found}", start.escape_ascii());
        }
        for start in
            ["ID;Name;Ort\n1;Ada;Berlin\n", "Table,type\n0,1\n", "row_id,type\n", "<row_id>,type\n", ""]
        {
            assert_eq!(said_of(start.as_bytes()), None, "{start}");
        }
    }
}
