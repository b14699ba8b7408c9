//! Promise: whatever a file holds, `embosser check` says what is wrong with it and where, as text or as JSON.

use crate::support;

use std::path::Path;

use support::verdict::{problems, run, run_json, run_json_with, verdict};

const GOOD: &str = "row_id,type,currency\n1,virtual,eur\n2,physical,usd\n";

fn utf16(text: &str, mark: &[u8], unit: fn(u16) -> [u8; 2]) -> Vec<u8> {
    mark.iter().copied().chain(text.encode_utf16().flat_map(unit)).collect()
}

fn codes(bytes: impl AsRef<[u8]>) -> Vec<&'static str> {
    problems(bytes).into_iter().map(|(_, _, code)| code).collect()
}

fn reason(bytes: impl AsRef<[u8]>) -> String {
    let (_, problems) = verdict(bytes.as_ref());
    problems.into_iter().next().map(|problem| problem.reason).unwrap_or_default()
}

#[test]
fn one_manifest_is_the_same_however_it_was_saved() {
    let marked = format!("\u{feff}{GOOD}");
    let crlf = GOOD.replace('\n', "\r\n");
    let cr = GOOD.replace('\n', "\r");
    let quoted =
        "\"row_id\",\"type\",\"currency\"\r\n\"1\",\"virtual\",\"eur\"\r\n\"2\",\"physical\",\"usd\"";
    let blank = GOOD.replace('\n', "\n\n");
    let spaced =
        GOOD.replace("type,currency", " type , currency").replace("virtual", "\u{a0}virtual\u{200b} ");
    let separated = [";", "\t", "|"].map(|by| GOOD.replace(',', by));
    let told = format!("sep=;\r\n{}", separated[0].replace("\"", ""));
    let wide = GOOD.replace('\n', ",,\n").replace("1,virtual", ",,,,\n \u{a0},,\n1,virtual");
    // Many programs write no cells for columns that have no heading.
    let narrow = GOOD.replacen("currency", "currency,,", 1);
    let texts = [
        &narrow,
        GOOD,
        &marked,
        &crlf,
        &cr,
        quoted,
        &blank,
        &spaced,
        &separated[0],
        &separated[1],
        &separated[2],
        &told,
        &wide,
    ];
    let utf8 = texts.map(|text| text.as_bytes().to_vec());
    let utf16 = [
        utf16(GOOD, &[0xff, 0xfe], u16::to_le_bytes),
        utf16(GOOD, &[0xfe, 0xff], u16::to_be_bytes),
        utf16(GOOD, &[], u16::to_le_bytes),
        utf16(GOOD, &[], u16::to_be_bytes),
    ];
    for bytes in utf8.into_iter().chain(utf16) {
        let text = String::from_utf8_lossy(&bytes);
        let (report, problems) = verdict(&bytes);
        assert_eq!(problems, [], "{text:?}");
        assert_eq!((report.rows, report.r#virtual, report.physical), (2, 1, 1), "{text:?}");
    }
}

/// The texts of what was saved in older encodings, and what they are told to be.
#[test]
fn a_file_in_an_older_encoding_is_read_as_it_was_meant() {
    let header = "row_id;type;currency;metadata[name]\n";
    let file = |name: &[u8], ascii_rows: usize| {
        let before: String = (0..ascii_rows).map(|row| format!("a{row};virtual;eur;plain\n")).collect();
        [header.as_bytes(), before.as_bytes(), b"x;virtual;eur;", name, b"\n"].concat()
    };
    // However far into the file its first letter is that is no ASCII.
    for rows in [0, 10_000] {
        for (name, encoding) in [
            (&b"J\xfcrgen M\xfcller, Stra\xdfe"[..], "Windows-1252"),
            (b"\x93Andr\xe9 Gon\xe7alves\x94", "Windows-1252"),
            ("Zażółć gęślą jaźń".as_bytes(), ""),
            (b"\xc8\xe2\xe0\xed \xcf\xe5\xf2\xf0\xee\xe2\xe8\xf7", "windows-1251"),
            (b"\x83\x84\x83\x62\x83\x49 \x93\xfa\x96\x7b\x8c\xea", "Shift_JIS"),
        ] {
            let (report, problems) = verdict(&file(name, rows));
            assert_eq!(problems, [], "{encoding}");
            assert_eq!(report.read_as.unwrap_or_default(), encoding);
            assert_eq!((report.rows, report.separated_by), (rows as u64 + 1, Some("semicolons")));
            assert!(report.notes()[0].contains("separated by semicolons"), "{:?}", report.notes());
        }
    }
}

/// As Excel for Mac saves "CSV (Macintosh)".
#[test]
fn a_file_in_mac_roman_is_read_so_or_whoever_has_it_is_asked() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("manifest.csv");
    let read = |name: &[u8], options: &[&str]| {
        let text =
            [b"row_id;type;currency;metadata[name]\rx;virtual;eur;", name, b"\ry;virtual;eur;Ada\r"].concat();
        std::fs::write(&path, text).unwrap();
        let (report, code) = run_json_with(&path, options);
        assert_eq!((code, &report["rows"]), (0, &2.into()), "{report}");
        let doubts =
            report["warnings"].as_array().unwrap().iter().filter(|found| found["code"] == "encoding").count();
        let notes = report["notes"][0].as_str().unwrap();
        let read_as = notes.trim_start_matches("The file: read as ").split(',').next().unwrap();
        (read_as.to_owned(), doubts)
    };
    let mac = |doubts| ("Mac Roman".to_owned(), doubts);
    for name in [
        &b"J\x8ager, K\x9aln"[..],
        b"Andr\x8e Lef\x8fvre",
        b"Gro\xa7mann, K\x9aln",
        b"Bj\xbfrn \x8ckesson M\x8cns",
    ] {
        assert_eq!(read(name, &[]), mac(0), "{}", name.escape_ascii());
    }
    for name in [&b"J\xe4ger"[..], b"O\x92Brien", b"Ji\xf8\xed \x8akoda"] {
        let (read_as, doubts) = read(name, &[]);
        assert!(read_as.to_lowercase().starts_with("windows-125") && doubts == 0, "{read_as} {doubts}");
    }
    // Ÿ and ź are letters as well as ü.
    let (read_as, doubts) = read(b"M\x9fller", &[]);
    assert_eq!((read_as != "Mac Roman", doubts), (true, 1));
    assert_eq!(read(b"M\x9fller", &["--encoding", "macintosh"]), mac(0));
    assert_eq!(read(b"M\x9fller", &["--encoding", "mac roman"]), mac(0));
    assert_eq!(read(b"M\x9fller", &["--encoding", "windows-1252"]), ("Windows-1252".to_owned(), 0));
    // As "CSV (MS-DOS)" has Köln, Söder and François: names in Mac Roman as well.
    for name in [&b"K\x94ln"[..], b"S\x94der", b"Fran\x87ois, K\x94ln"] {
        assert_eq!(read(name, &[]), mac(1), "{}", name.escape_ascii());
        let strict = run(&path, &["--strict"]);
        assert_eq!(strict.status.code(), Some(2));
        let told = String::from_utf8_lossy(&strict.stdout);
        assert!(told.contains("CSV (MS-DOS)") && told.contains("CSV UTF-8"), "{told}");
        assert_eq!(read(name, &["--encoding", "macintosh"]), mac(0));
    }
    // And Thérèse, of whom Mac Roman makes no name.
    let (read_as, doubts) = read(b"Th\x82r\x8ase", &[]);
    assert_eq!((read_as != "Mac Roman", doubts), (true, 1));
    let refused = run(&path, &["--encoding", "mac9"]);
    assert_eq!(refused.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("macintosh"));
}

#[test]
fn what_is_no_manifest_is_told_with_what_to_do() {
    for (bytes, said) in [
        (b"".to_vec(), "empty"),
        (b"\n\r\n\n".to_vec(), "blank lines"),
        ("\u{feff}".as_bytes().to_vec(), "blank lines"),
        (b",,\n1,2,3\n".to_vec(), "row of headings missing"),
        (b"row_id,type,currency\n".to_vec(), "no row"),
        (b"E1,ich_1,virtual,eur\nE2,ich_2,virtual,eur\n".to_vec(), "row of headings missing"),
        (b"%PDF-1.7\x00\x01\x02\x03".to_vec(), "a PDF"),
        (b"a,b\n\x00\x01\x02\x03\n".to_vec(), "not text"),
        (b"PK\x03\x04\x14\0\x06\0".to_vec(), "damaged"),
        (b"row_id,\"type,currency\n1,virtual,eur\n".to_vec(), "never closed"),
    ] {
        let (report, problems) = verdict(&bytes);
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert!(problems[0].reason.contains(said), "{said}: {}", problems[0]);
        assert_eq!(report.rows, 0);
    }
}

#[test]
fn a_file_without_a_header_does_not_have_its_first_row_quoted() {
    let jwe = support::verdict::jwe();
    for text in [format!("4711,type,{jwe},currency\n1,virtual,x,eur\n"), format!("1,4711,{jwe}\n")] {
        let (_, problems) = verdict(text.as_bytes());
        let said = format!("{problems:?}");
        assert!(!problems.is_empty() && !said.contains("4711") && !said.contains("eyJ"), "{said}");
    }
}

#[test]
fn a_header_is_told_all_that_is_wrong_with_it() {
    let text = "row_id,type,type,,currency,colour\n1,virtual,virtual,,eur,red\n2,virtual,virtual,x,eur,red\n";
    assert_eq!(
        problems(text),
        [
            (1, "type".to_owned(), "duplicate_column"),
            (1, "colour".to_owned(), "unknown_parameter"),
            (3, "number 4".to_owned(), "unnamed_column"),
        ]
    );
}

#[test]
fn a_row_with_another_number_of_cells_is_told_on_its_line() {
    let text = "type,currency\nvirtual,eur\nvirtual\nvirtual,eur,\n\"virt\nual\",eur\nvirtual,eur,x\n,\n";
    assert_eq!(
        problems(text),
        [
            (3, String::new(), "cell_count"),
            (5, "type".to_owned(), "not_allowed"),
            (7, String::new(), "cell_count"),
        ]
    );
}

#[test]
fn a_cell_that_is_not_utf8_is_told_and_the_next_row_is_read() {
    let good = "Maße,virtual,eur\n".repeat(3);
    let text = [b"cardholder,type,currency\nMa\xdfe,virtual,eur\n", good.as_bytes(), b"ich_2,plastic,eur\n"]
        .concat();
    assert_eq!(
        problems(text),
        [(2, "cardholder".to_owned(), "not_utf8"), (6, "type".to_owned(), "not_allowed")]
    );
}

#[test]
fn a_quote_that_is_never_closed_is_told_on_the_line_it_opens() {
    let mut text = "cardholder,type,currency\nich_1,virtual,eur\n\"ich_2,virtual,eur\n".to_owned();
    for _ in 0..100_000 {
        text += "ich_3,virtual,eur\n";
    }
    assert_eq!(problems(&text), [(3, String::new(), "quote_open")]);
}

/// A spreadsheet program counts rows, and does not show the line that says what separates cells.
#[test]
fn a_message_names_the_row_that_a_spreadsheet_program_shows() {
    let reasons = |text: &str| -> Vec<(u64, String)> {
        let problems = verdict(text.as_bytes()).1.into_iter();
        problems.map(|problem| (problem.line, problem.reason)).collect()
    };
    let text = "sep=;\nrow_id;type;currency;metadata[a]\n1;virtual;eur;\"x\ny\"\n\"\n\"\n2;virtuel;eur;\"\n\"\n3;virtuel;eur;\n";
    let [(7, first), (9, second)] = &reasons(text)[..] else { panic!("{:?}", reasons(text)) };
    assert!(first.ends_with("(in a spreadsheet this is row 4)"), "{first}");
    assert!(second.ends_with("(in a spreadsheet this is row 5)"), "{second}");
    let plain = reasons("row_id,type,currency\n1,virtuel,eur\n");
    assert!(!plain[0].1.contains("in a spreadsheet"), "{plain:?}");
}

#[test]
fn a_cell_of_ten_megabytes_is_told_and_the_next_row_is_read() {
    let long = "x".repeat(10 << 20);
    let text = format!(
        "cardholder,type,currency\n{long},virtual,eur\n\"{long}\n\",virtual,eur\nich_3,plastic,eur\n"
    );
    assert_eq!(
        problems(&text),
        [
            (2, String::new(), "row_too_long"),
            (3, String::new(), "row_too_long"),
            (5, "type".to_owned(), "not_allowed"),
        ]
    );
    assert_eq!(codes(format!("{long}\n")), ["not_a_manifest"]);
    let row = format!("cardholder,type,currency\n{},virtual,eur\n", "x".repeat(30_000));
    assert_eq!(problems(row), [(2, "cardholder".to_owned(), "cell_too_long")]);
}

#[test]
fn what_is_not_a_file_is_refused_without_waiting() {
    let directory = tempfile::tempdir().unwrap();
    let fifo = directory.path().join("fifo.csv");
    let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
    rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, mode, 0).unwrap();
    for (path, said) in [
        (directory.path(), "is a folder"),
        (&fifo, "not a regular file"),
        (&directory.path().join("none.csv"), "No such file"),
    ] {
        let output = run(path, &[]);
        assert_eq!(output.status.code(), Some(2));
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(error.contains(said) && error.contains(&*path.to_string_lossy()), "{error}");
        let (json, code) = run_json(path);
        assert_eq!((code, &json["valid"]), (2, &false.into()));
        assert!(json["problems"][0]["reason"].as_str().unwrap().contains(said), "{json}");
    }
}

/// What the user sees: text and JSON, on a good file and a bad one.
#[test]
fn the_verdict_is_text_or_valid_json_and_an_exit_code() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("cards \"1\".csv");
    let said = |path: &Path, arguments: &[&str]| {
        let output = run(path, arguments);
        (String::from_utf8(output.stdout).unwrap(), output.status.code().unwrap())
    };

    std::fs::write(&path, GOOD).unwrap();
    let (text, code) = said(&path, &[]);
    assert!(
        text.starts_with("warning: line 3 (2), column type: ") && text.ends_with("1 warning.\n"),
        "{text}"
    );
    assert_eq!((code, said(&path, &["--strict"]).1), (0, 2));

    std::fs::write(&path, GOOD.replace("physical", "virtual")).unwrap();
    let (text, code) = said(&path, &["--rate", "0.5"]);
    assert_eq!(text, "2 rows: 2 cards (2 virtual, 0 physical), 0 with a PIN; 4 s at 0.5 calls a second.\n");
    assert_eq!(code, 0);
    let (json, code) = run_json(&path);
    assert_eq!(code, 0);
    assert_eq!((&json["valid"], &json["cards"], &json["rows"]), (&true.into(), &2.into(), &2.into()));
    assert_eq!((&json["problems"], &json["problem_count"]), (&serde_json::json!([]), &0.into()));
    assert_eq!((&json["calls_per_second"], &json["seconds"]), (&25.0.into(), &0.08.into()));

    std::fs::write(&path, "row_id,type,currency\n1,virtuel,eur\n1,physical,eur\n").unwrap();
    let (text, code) = said(&path, &[]);
    assert_eq!(code, 2);
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(
        lines[0],
        "line 2 (1), column type: \"virtuel\" is not one of Stripe's values: physical, virtual (did you mean virtual?)"
    );
    assert!(lines.last().unwrap().starts_with("2 problems, 2 of 2 rows invalid"), "{text}");
    let (json, code) = run_json(&path);
    assert_eq!((code, &json["valid"], &json["invalid_rows"]), (2, &false.into(), &2.into()));
    let problem = &json["problems"][0];
    assert_eq!((&problem["line"], &problem["row"]), (&2.into(), &1.into()));
    assert_eq!((&problem["column"], &problem["suggestion"]), (&"type".into(), &"virtual".into()));
    assert_eq!(json["problems"].as_array().unwrap().last().unwrap()["code"], "duplicate_row_id");

    for bad in ["pin,type,currency\n4711,virtual,eur\n", "colour,type\nred,virtual\n", ""] {
        std::fs::write(&path, bad).unwrap();
        let (json, code) = run_json(&path);
        assert_eq!((code, &json["valid"]), (2, &false.into()));
        assert!(!json["problems"].as_array().unwrap().is_empty() && !json.to_string().contains("4711"));
    }
    assert!(reason("pin,type,currency\n4711,virtual,eur\n").contains("encrypt"));
}

#[test]
fn the_examples_are_what_their_readme_says() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/examples");
    let readme = std::fs::read_to_string(folder.join("README.md")).unwrap();
    let output = run(&folder.join("invalid.csv"), &[]);
    assert_eq!(output.status.code(), Some(2));
    let text = String::from_utf8(output.stdout).unwrap();
    let shown = readme.split("$ embosser check config/examples/invalid.csv\n").nth(1).unwrap();
    assert_eq!(shown.trim_end().trim_end_matches('`'), text);

    let (json, code) = run_json(&folder.join("rollout.csv"));
    assert_eq!((code, &json["rows"], &json["problem_count"]), (0, &200.into(), &0.into()), "{json}");
    for kind in ["virtual", "physical", "pins"] {
        assert!(json[kind].as_u64().unwrap() > 50, "{json}");
    }
    // Every parameter stands in the table of columns.
    let schema = embosser::operation::Operation::CreateCard.declaration().json_schema();
    for (name, part) in schema["properties"].as_object().unwrap() {
        let parts = part["properties"]
            .as_object()
            .map(|parts| parts.keys().cloned().collect())
            .unwrap_or(vec![name.clone()]);
        for part in parts {
            assert!(readme.contains(&part), "{name} {part}");
        }
    }
}

/// What stands on cards, when they are printed, and what their boxes cost.
#[test]
fn what_is_printed_and_shipped_is_told_before_it_is() {
    let header = "row_id,type,currency,cardholder[name],cardholder[type],cardholder[billing][address][line1],\
                  cardholder[billing][address][city],cardholder[billing][address][postal_code],cardholder[billing][address][country],\
                  second_line,personalization_design,shipping[name],shipping[business_name],shipping[address][line1],\
                  shipping[address][city],shipping[address][postal_code],shipping[address][country],shipping[type],\
                  shipping[customs][eori_number]\n";
    let row = |id: &str, kind: &str, shipping: &str| {
        format!(
            "{id},{kind},eur,Maximiliane von Hohenlohe-Öhringen,individual,1 High Street,Cork,T12,IE,{shipping}\n"
        )
    };
    let address = "Müller & Söhne GmbH,Hauptstr. 1,Berlin,10115,DE,bulk,DE123";
    let text = [
        header.to_owned(),
        row("V", "virtual", ",,,,,,,,,"),
        row("A", "physical", &format!("ACME,ipd_1,Ana,{address}")),
        row("B", "physical", &format!("ACME,ipd_1,Eva,{address}")),
    ]
    .concat();
    let (report, problems) = verdict(text.as_bytes());
    assert_eq!(problems, []);
    let notes = report.notes().join("\n");
    for part in [
        "On the card of line 3: \"Maximiliane von Hohenloh\" and \"ACME\"; it is sent to: Ana, Mller  Shne GmbH, Hauptstr. 1, 10115, Berlin, DE.",
        "2 cards are sent in 2 boxes (one for each address and recipient's name, 2000 cards at most), for about 54 to 120 USD.",
        "Stripe sends physical cards to be printed once a day, next at ",
        " 06:00 UTC: those that exist by then.",
    ] {
        assert!(notes.contains(part), "{part}: {notes}");
    }
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.csv");
    std::fs::write(&path, text).unwrap();
    let (json, _) = run_json(&path);
    let warnings = json["warnings"].to_string();
    assert!(
        warnings.contains("2 boxes are sent where 1 would do, for about 27 to 60 USD less"),
        "{warnings}"
    );
    let (report, _) = verdict(GOOD.replace("physical", "virtual").as_bytes());
    assert!(!report.notes().join("").contains("print"), "nothing is printed of virtual cards");
}
