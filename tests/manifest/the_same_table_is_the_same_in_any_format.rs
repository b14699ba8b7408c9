//! Promise: a table that was issued as a CSV gets no second cards as a spreadsheet, though it has no row ids and the programs write its
//! lines' ends and dates otherwise.

use crate::support;

use embosser::sandbox::{Options, Sandbox};
use rust_xlsxwriter::{ExcelDateTime, Format, Workbook};
use support::{Program, expect_exit};

const HEADER: [&str; 9] = [
    "cardholder[name]",
    "cardholder[email]",
    "cardholder[billing][address][line1]",
    "cardholder[billing][address][city]",
    "cardholder[billing][address][postal_code]",
    "cardholder[billing][address][country]",
    "type",
    "currency",
    "metadata[start]",
];

fn csv(line_end: &str, date: &str) -> String {
    let row = |name: &str, date: &str| {
        format!(
            "{name},{name}@example.com,\"1 Quay{line_end}Flat 2\",Cork,T12 X70A,IE,virtual,eur,{date}\r\n"
        )
    };
    format!("{}\r\n{}{}", HEADER.join(","), row("Ada", date), row("Bob", ""))
}

#[tokio::test(flavor = "multi_thread")]
async fn however_a_program_writes_the_table_nobody_gets_a_second_card() {
    let directory = tempfile::tempdir().unwrap();
    let sandbox = Sandbox::start(Options::default()).await.unwrap();
    let program = Program::new(directory.path(), &sandbox);
    let mut workbook = Workbook::new();
    let sheet = workbook.add_worksheet();
    let day = Format::new().set_num_format("dd/mm/yyyy");
    for (row, cells) in (0_u32..).zip([None, Some("Ada"), Some("Bob")]) {
        for (column, heading) in (0_u16..).zip(HEADER) {
            let Some(name) = cells else {
                sheet.write_string(row, column, heading).unwrap();
                continue;
            };
            let email = format!("{name}@example.com");
            let texts = [name, &email, "1 Quay\nFlat 2", "Cork", "T12 X70A", "IE", "virtual", "eur", ""];
            sheet.write_string(row, column, texts[usize::from(column)]).unwrap();
        }
    }
    let date = ExcelDateTime::from_ymd(2026, 3, 1).unwrap();
    sheet.write_datetime_with_format(1, 8, &date, &day).unwrap();
    workbook.save(directory.path().join("staff.xlsx")).unwrap();
    for (name, text) in [
        ("staff.csv", csv("\n", "01/03/2026")),
        ("crlf.csv", csv("\r\n", "01/03/2026")),
        ("american.csv", csv("\n", "3/1/2026")),
    ] {
        std::fs::write(directory.path().join(name), text).unwrap();
    }
    for file in ["staff.csv", "crlf.csv", "staff.xlsx", "american.csv"] {
        expect_exit(&program.run(&["issue", file, "--batch", "staff"]).await, 0);
        assert_eq!((sandbox.account().cards.len(), sandbox.account().cardholders.len()), (2, 2), "{file}");
    }
}
