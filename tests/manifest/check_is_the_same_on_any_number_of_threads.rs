//! Promise: rows judged in blocks, on any number of threads, come to the verdict, problems, lines and order of rows that
//! are read one by one and judged by the rules of requests, for every kind of quoting, line end and mistake.
//!
//! That the records are those of the csv crate is held in src/manifest/records.rs.

use crate::support;

use std::path::Path;

use embosser::manifest::{CheckOptions, CheckReport, Checker, Manifest, Problem, Reading, Severity};
use proptest::prelude::*;

/// Problems, warnings, and what was counted.
type Verdict = ([Vec<Problem>; 2], [u64; 10]);

/// Row by row; `with_plan`: each is judged by the plan of the header's columns first.
fn row_by_row(path: &Path, with_plan: bool) -> (Verdict, Option<[u8; 32]>) {
    let checked = Manifest::open(path).and_then(|manifest| {
        let manifest = if with_plan { manifest } else { manifest.without_plan() };
        let mut checker = Checker::new(&CheckOptions { digest: true });
        for row in manifest.rows()? {
            checker.add(&row);
        }
        checker.finish(path)
    });
    match checked {
        Ok(report) => (counts(&report, [report.problems.clone(), report.warnings.clone()]), report.digest),
        Err(error) => (([error.into_problems(), Vec::new()], [0; 10]), None),
    }
}

/// In blocks, on so many threads.
fn in_blocks(path: &Path, digest: bool, with_plan: bool, threads: usize) -> (Verdict, Option<[u8; 32]>) {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
    pool.install(|| {
        let mut problems = Vec::new();
        let checked = Manifest::inspect(path, &Reading::default()).and_then(|manifest| {
            let manifest = if with_plan { manifest } else { manifest.without_plan() };
            manifest.check_each(&CheckOptions { digest }, &|_| {}, &mut |problem| problems.push(problem))
        });
        match checked {
            Ok(report) => {
                let is_problem = |found: &Problem| found.severity == Severity::Problem;
                let (problems, warnings) = problems.into_iter().partition(is_problem);
                (counts(&report, [problems, warnings]), report.digest)
            }
            Err(error) => (([error.into_problems(), Vec::new()], [0; 10]), None),
        }
    })
}

fn counts(report: &CheckReport, problems: [Vec<Problem>; 2]) -> Verdict {
    let CheckReport { rows, invalid_rows, pins, physical, r#virtual, problem_count, .. } = *report;
    let CheckReport { changes, cancels, cardholders, warning_count, .. } = *report;
    let counts = [
        rows,
        invalid_rows,
        pins,
        physical,
        r#virtual,
        changes,
        cancels,
        cardholders,
        problem_count,
        warning_count,
    ];
    (problems, counts)
}

fn same(text: &[u8]) {
    /// A checker keeps the first.
    const KEPT: usize = 1000;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("manifest.csv");
    std::fs::write(&path, text).unwrap();
    let (by_rules, digest) = in_blocks(&path, true, false, 1);
    // A header with problems is told, and no rows.
    if Manifest::open(&path).is_ok() {
        for with_plan in [false, true] {
            let (one_by_one, digest_one_by_one) = row_by_row(&path, with_plan);
            for (one_by_one, by_rules) in one_by_one.0.iter().zip(&by_rules.0) {
                let kept = &by_rules[..by_rules.len().min(KEPT)];
                assert!(one_by_one.iter().eq(kept), "{with_plan}: {one_by_one:?} is not {by_rules:?}");
            }
            assert_eq!((one_by_one.1, digest_one_by_one), (by_rules.1, digest), "{with_plan}");
        }
    }
    for (threads, with_digest) in [(1, false), (1, true), (3, false), (3, true)] {
        let (verdict, digest_in_blocks) = in_blocks(&path, with_digest, true, threads);
        assert_eq!(verdict.1, by_rules.1, "{threads} threads");
        let (first, expected) = (verdict.0.first(), by_rules.0.first());
        assert!(verdict.0 == by_rules.0, "{threads} threads: {first:?} is not {expected:?}");
        assert_eq!(digest_in_blocks, digest.filter(|_| with_digest), "{threads} threads: the same requests");
    }
}

const COLUMNS: &[&str] = &[
    "row_id",
    "type",
    "currency",
    "cardholder",
    "pin[encrypted_number]",
    "exp_month",
    "metadata[note]",
    "metadata[pin]",
    "second_line",
    "shipping[name]",
    "shipping[address][city]",
    "shipping[address][line1]",
    "shipping[address][postal_code]",
    "shipping[address][country]",
    "shipping[require_signature]",
    "spending_controls[spending_limits][0][amount]",
    "spending_controls[spending_limits][0][interval]",
    "spending_controls[spending_limits][1][amount]",
    "spending_controls[spending_limits][1][categories][0]",
    "spending_controls[allowed_categories][2]",
    "spending_controls[blocked_categories][0]",
];

/// Of people and their cards.
const OF_PEOPLE: &[&str] = &[
    "cardholder",
    "row_id",
    "type",
    "cardholder[name]",
    "cardholder[billing][address][line1]",
    "cardholder[billing][address][city]",
    "currency",
    "cardholder[billing][address][postal_code]",
    "cardholder[billing][address][country]",
    "cardholder[email]",
    "cardholder[individual][dob][day]",
    "cardholder[metadata][note]",
    "metadata[note]",
    "cardholder[preferred_locales][1]",
    "cardholder[spending_controls][allowed_categories][0]",
    "cardholder[spending_controls][blocked_categories][0]",
    "pin[encrypted_number]",
];

/// Of changes of cards.
const OF_CHANGES: &[&str] = &[
    "row_id",
    "card",
    "status",
    "pin[encrypted_number]",
    "metadata[note]",
    "cancellation_reason",
    "shipping[name]",
];

/// A cell as it stands in the file: mostly right for its column, sometimes not, in any quoting.
fn cell(column: &'static str) -> BoxedStrategy<String> {
    let right = match column {
        "row_id" => "[a-z0-9]{1,3}".boxed(),
        "type" => Just("virtual".to_owned()).boxed(),
        "currency" => Just("eur".to_owned()).boxed(),
        "pin[encrypted_number]" => prop_oneof![Just(support::verdict::jwe()), Just(String::new())].boxed(),
        name if name.ends_with("[country]") => Just("IE".to_owned()).boxed(),
        name if name.ends_with("[amount]") => {
            prop_oneof![Just("500".to_owned()), Just(String::new())].boxed()
        }
        name if name.ends_with("[interval]") => {
            prop_oneof![Just("daily".to_owned()), Just(String::new())].boxed()
        }
        name if name.contains("categories") => {
            prop_oneof![4 => Just(String::new()), 1 => Just("airlines_air_carriers".to_owned())].boxed()
        }
        "card" => Just("ic_1".to_owned()).boxed(),
        "status" => prop::sample::select(vec!["active", "canceled", ""]).prop_map(str::to_owned).boxed(),
        // Who exists, or who is to be created; seldom both or neither.
        "cardholder" => prop_oneof![1 => Just("ich_1".to_owned()), 4 => Just(String::new())].boxed(),
        "cardholder[name]" => Just("Zoë".to_owned()).boxed(),
        "cancellation_reason"
        | "exp_month"
        | "shipping[require_signature]"
        | "cardholder[individual][dob][day]" => Just(String::new()).boxed(),
        "cardholder[preferred_locales][1]" => prop_oneof![Just("de".to_owned()), Just(String::new())].boxed(),
        name if name.starts_with("shipping[") || name.contains("[address]") => Just("Zoë".to_owned()).boxed(),
        _ => prop_oneof![Just("Zoë".to_owned()), Just("a".to_owned()), Just(String::new())].boxed(),
    };
    let any = prop::sample::select(vec!["", "4711", "07", "TRUE", "physical", "x", " ", "\u{0}", "é", "a;b"]);
    let quoted = |text: String| format!("\"{}\"", text.replace('"', "\"\""));
    prop_oneof![
        240 => right.clone(),
        12 => right.prop_map(quoted),
        6 => any.prop_map(str::to_owned),
        2 => "[a,\"\r\n]{0,6}".prop_map(quoted),
    ]
    .boxed()
}

/// What no well-formed file has, and the csv crate reads all the same.
fn oddity() -> impl Strategy<Value = String> {
    prop_oneof![
        30 => Just(String::new()),
        1 => prop::sample::select(vec!["\"", "\"a\"b", "a\"b", "\r", "\r\r", "\"\"\"", "a\rb", "\"a\"\"", " \"a\"", "\"a\" "]).prop_map(str::to_owned),
    ]
}

fn row(columns: &'static [&'static str]) -> impl Strategy<Value = String> {
    let cells: Vec<_> = columns.iter().map(|column| cell(column)).collect();
    let end = prop::sample::select(vec!["\n", "\n", "\n", "\r\n", "\n\n", "\r\n\r\n"]);
    let shape = prop_oneof![20 => Just(0), 1 => Just(1), 1 => Just(2)];
    (cells, end, oddity(), shape).prop_map(|(mut cells, end, odd, shape)| {
        match shape {
            1 => {
                cells.pop();
            }
            2 => cells.push("more".into()),
            _ => {}
        }
        cells[4] += &odd;
        cells.join(",") + end
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn a_few_rows_of_any_kind(
        (columns, rows) in prop::sample::select(vec![COLUMNS, OF_PEOPLE, OF_CHANGES]).prop_flat_map(|columns| {
            (Just(columns), prop::collection::vec(row(columns), 0..12))
        }),
        cut in 0_usize..3,
    ) {
        let mut text = columns.join(",") + "\n" + &rows.concat();
        // Some files end without a line's end, or in the middle of a row.
        (0..cut).for_each(|_| { text.pop(); });
        same(text.as_bytes());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(10))]

    /// Rows of any kind among so many good ones that there are several blocks, cut at any place.
    #[test]
    fn blocks_are_cut_at_any_place(
        rows in prop::collection::vec((row(COLUMNS), 0_usize..900), 1..10),
        broken in prop::option::weighted(0.2, Just(b"\xff".to_vec())),
    ) {
        let mut text = (COLUMNS.join(",") + "\n").into_bytes();
        let mut number = 0;
        for (odd, before) in rows {
            for _ in 0..before {
                number += 1;
                let note = ["plain", "\"quo\"\"ted\"", "\"two\nlines, one cell\"", ""][number % 4];
                text.extend(format!(
                    "good {number},virtual,eur,ich_1,{},,{note},,{}\n",
                    support::verdict::jwe(), ",".repeat(COLUMNS.len() - 9)
                ).bytes());
            }
            text.extend(odd.bytes());
        }
        text.extend(broken.into_iter().flatten());
        same(&text);
    }
}

#[test]
fn many_bad_rows_are_all_told() {
    let mut text = "row_id,type,currency\n".to_owned();
    for row in 0..40_000 {
        text += &format!("{},{},eur\n", row % 30_000, if row % 3 == 0 { "virtuel" } else { "virtual" });
    }
    same(text.as_bytes());
}

#[test]
fn a_header_with_more_columns_than_bits_is_checked_all_the_same() {
    let columns: Vec<String> =
        (0..150).map(|entry| format!("spending_controls[allowed_categories][{entry}]")).collect();
    let cells = "airlines_air_carriers,".repeat(150);
    let text = format!("{},type,currency\n{cells}virtual,eur\n{cells}virtuel,eur\n", columns.join(","));
    same(text.as_bytes());
}

#[test]
fn a_cell_that_stood_before_is_judged_with_its_own_row() {
    let long = "x".repeat(40);
    let mut text = "row_id,type,currency,cardholder,metadata[note],shipping[name],shipping[address][line1],shipping[address][city],\
        shipping[address][postal_code],shipping[address][country],shipping[service]\n"
        .to_owned();
    let postal = [
        "10115,DE",
        "10115,AT",
        "10115,DE",
        "1011,DE",
        "1011,AT",
        "1011,DE",
        "D02 X285,IE",
        "D02 X285,DE",
        ",",
        "10115,",
    ];
    let notes = [
        "",
        "plain",
        &long,
        "plain",
        "NULL",
        "plain",
        "\"quo\"\"ted\"",
        "Zo\u{eb}",
        "4.91E+11",
        "500",
        "0500",
    ];
    for row in 0..110 {
        let (postal, note) = (postal[row % postal.len()], notes[row % notes.len()]);
        let currency = ["eur", "EUR", "eur", "eru"][row % 4];
        text += &format!(
            "{row},physical,{currency},ich_{},{note},Ada,1 High Street,Dublin,{postal},standard\n",
            row / 3
        );
    }
    same(text.as_bytes());
}
