//! Promise: blocks of rows judged side by side come to the verdict, problems, lines and order of rows read one by one
//! by the csv crate's parser, for every kind of quoting, line end and mistake, on any number of threads.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::path::Path;

use embosser::manifest::{CheckOptions, CheckReport, Checker, Manifest, ManifestError, Problem};
use proptest::prelude::*;

/// Problems, and what was counted.
type Verdict = (Vec<Problem>, [u64; 6]);

/// Ways through a manifest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// Each row from its pairs, by the rules of requests.
    Long,
    /// Each row by the plan of the header's columns, made into its request.
    ByPlan,
    /// Blocks of rows, side by side.
    InBlocks,
    /// The same, and what each row's request comes to.
    InBlocksWithDigest,
}

/// Row by row, each made into its request by the plan. Says nothing of a header that has problems.
fn checked_row_by_row(path: &Path) -> Result<CheckReport, ManifestError> {
    let manifest = Manifest::open(path)?;
    let mut checker = Checker::new(&CheckOptions { digest: true });
    for row in manifest.rows()? {
        checker.add(&row);
    }
    checker.finish(path)
}

/// Problems and counts; and the digest of the requests, where it is asked for.
fn verdict(path: &Path, way: Way) -> (Verdict, Option<[u8; 32]>) {
    let mut problems = Vec::new();
    let checked = Manifest::inspect(path).and_then(|manifest| {
        let manifest = if way == Way::Long { manifest.without_plan() } else { manifest };
        if way == Way::ByPlan && Manifest::open(path).is_ok() {
            let mut report = checked_row_by_row(path)?;
            problems.append(&mut report.problems);
            return Ok(report);
        }
        let options = CheckOptions { digest: way != Way::InBlocks };
        manifest.check_each(&options, &|_| {}, &mut |problem| problems.push(problem))
    });
    match checked {
        Ok(CheckReport { rows, invalid_rows, pins, physical, r#virtual, problem_count, digest, .. }) => {
            ((problems, [rows, invalid_rows, pins, physical, r#virtual, problem_count]), digest)
        }
        Err(error) => ((error.into_problems(), [0; 6]), None),
    }
}

fn same(text: &[u8]) {
    /// A checker keeps the first.
    const KEPT: usize = 1000;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("manifest.csv");
    std::fs::write(&path, text).unwrap();
    let (slow, digest) = verdict(&path, Way::Long);
    let (by_plan, digest_by_plan) = verdict(&path, Way::ByPlan);
    let kept = &slow.0[..slow.0.len().min(KEPT)];
    assert!(by_plan.0.iter().take(KEPT).eq(kept), "by plan: {:?} is not {:?}", by_plan.0, slow.0);
    assert_eq!((by_plan.1, digest_by_plan), (slow.1, digest), "the same requests");
    let pool = |threads| rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
    for (threads, way) in [(1, Way::InBlocks), (1, Way::InBlocksWithDigest), (3, Way::InBlocksWithDigest)] {
        let (fast, digest_in_blocks) = pool(threads).install(|| verdict(&path, way));
        assert_eq!(fast.1, slow.1, "{threads} threads");
        assert!(fast.0 == slow.0, "{threads} threads: {:?} is not {:?}", fast.0.first(), slow.0.first());
        if way == Way::InBlocksWithDigest {
            assert_eq!(digest_in_blocks, digest, "{threads} threads: the same requests");
        }
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
        "exp_month" | "shipping[require_signature]" => Just(String::new()).boxed(),
        name if name.starts_with("shipping[") => Just("Zoë".to_owned()).boxed(),
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
        1 => prop::sample::select(vec!["\"", "\"a\"b", "a\"b", "\r", "\r\r", "\"\"\"", "a\rb"]).prop_map(str::to_owned),
    ]
}

fn row() -> impl Strategy<Value = String> {
    let cells: Vec<_> = COLUMNS.iter().map(|column| cell(column)).collect();
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
        cells[6] += &odd;
        cells.join(",") + end
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn a_few_rows_of_any_kind(rows in prop::collection::vec(row(), 0..12), cut in 0_usize..3) {
        let mut text = COLUMNS.join(",") + "\n" + &rows.concat();
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
        rows in prop::collection::vec((row(), 0_usize..900), 1..10),
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
