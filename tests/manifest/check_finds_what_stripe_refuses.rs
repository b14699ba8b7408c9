//! Promise: whatever Stripe's schema forbids is found before a call, with line, column and reason; whatever it allows
//! is allowed.

use crate::support;

use embosser::sandbox::{Options, Seen};
use support::expect_exit;
use support::issuing::{Issuing, said};
use support::verdict::{jwe, problems, verdict};

/// A manifest of one row: these columns, and the two that every card needs.
fn row(cells: &[(&str, &str)]) -> String {
    let always = [("type", "virtual"), ("currency", "eur")];
    let missing = always.iter().filter(|(name, _)| !cells.iter().any(|(given, _)| given == name));
    let all: Vec<_> = cells.iter().chain(missing).collect();
    let quoted = |cell: &str| format!("\"{}\"", cell.replace('"', "\"\""));
    let line = |cells: Vec<String>| cells.join(",");
    format!(
        "{}\n{}\n",
        line(all.iter().map(|(name, _)| quoted(name)).collect()),
        line(all.iter().map(|(_, cell)| quoted(cell)).collect())
    )
}

/// The codes for one cell.
fn codes(column: &str, cell: &str) -> Vec<&'static str> {
    problems(row(&[(column, cell)])).into_iter().map(|(_, _, code)| code).collect()
}

fn shipping(leave_out: &str) -> Vec<(&'static str, &'static str)> {
    let parts = [
        ("shipping[name]", "Siobhán O'Brien"),
        ("shipping[address][line1]", "1 High Street"),
        ("shipping[address][city]", "Dublin"),
        ("shipping[address][postal_code]", "D02 X285"),
        ("shipping[address][country]", "IE"),
    ];
    parts.into_iter().filter(|(name, _)| *name != leave_out).collect()
}

#[test]
fn everything_that_stripe_has_a_parameter_for_can_be_a_column() {
    let jwe = jwe();
    let mut cells = shipping("");
    cells.extend([
        ("row_id", "1"),
        ("cardholder", "ich_1"),
        ("exp_month", "07"),
        ("exp_year", "2031"),
        ("expand[0]", "cardholder"),
        ("expand[1]", "replacement_for"),
        ("financial_account", "fa_1"),
        ("metadata[Cost centre / Kostenstelle]", "042"),
        ("metadata[department]", "R&D, \"legal\""),
        ("personalization_design", "issp_1"),
        ("pin[encrypted_number]", jwe.as_str()),
        ("replacement_for", "ic_1"),
        ("replacement_reason", "damaged"),
        ("second_line", "ÉÉÉÉÉÉÉÉÉÉÉÉÉÉÉÉÉÉÉÉÉÉÉÉ"),
        ("shipping[address][line2]", "2nd floor"),
        ("shipping[address][state]", "D"),
        ("shipping[address_validation][mode]", "normalization_only"),
        ("shipping[business_name]", "Acme Ltd"),
        ("shipping[customs][eori_number]", "IE1234567"),
        ("shipping[phone_number]", "+353 1 234"),
        ("shipping[require_signature]", "TRUE"),
        ("shipping[service]", "express"),
        ("shipping[type]", "individual"),
        ("spending_controls[allowed_card_presences][0]", "present"),
        ("spending_controls[allowed_categories][0]", "airlines_air_carriers"),
        ("spending_controls[allowed_categories][294]", "womens_ready_to_wear_stores"),
        ("spending_controls[blocked_merchant_countries][0]", "FR"),
        ("spending_controls[spending_limits][0][amount]", "0"),
        ("spending_controls[spending_limits][0][interval]", "all_time"),
        ("spending_controls[spending_limits][1][amount]", "100000"),
        ("spending_controls[spending_limits][1][categories][0]", "fast_food_restaurants"),
        ("spending_controls[spending_limits][1][categories][1]", "grocery_stores_supermarkets"),
        ("spending_controls[spending_limits][1][interval]", "per_authorization"),
        ("status", "active"),
        ("type", "physical"),
        ("currency", "GBP"),
    ]);
    let (report, problems) = verdict(row(&cells).as_bytes());
    assert_eq!(problems, []);
    assert_eq!((report.rows, report.physical, report.pins), (1, 1, 1));
    // For virtual cards only.
    assert_eq!(codes("lifecycle_controls[cancel_after][payment_count]", "3"), [] as [&str; 0]);
}

#[test]
fn a_value_that_the_schema_forbids_is_told_by_its_kind() {
    let long = "é".repeat(501);
    let text = "x".repeat(5001);
    let limit = "spending_controls[spending_limits][0]";
    for (column, cell, code) in [
        ("type", "plastic", "not_allowed"),
        ("status", "canceled", "not_allowed"),
        ("currency", "euro", "currency"),
        ("currency", "e1r", "currency"),
        ("exp_month", "13", "out_of_range"),
        ("exp_month", "0", "out_of_range"),
        ("exp_month", "May", "not_an_integer"),
        ("exp_year", "31", "out_of_range"),
        ("cardholder", &text, "too_long"),
        ("second_line", "ABCDEFGHIJKLMNOPQRSTUVWXY", "too_long"),
        ("replacement_reason", "bored", "not_allowed"),
        ("lifecycle_controls[cancel_after][payment_count]", "1.5", "not_an_integer"),
        ("lifecycle_controls[cancel_after][payment_count]", "0", "out_of_range"),
        ("metadata[note]", &long, "too_long"),
        ("metadata[pin]", "4711", "pin_in_clear"),
        ("spending_controls[allowed_card_presences][0]", "absent", "not_allowed"),
        ("spending_controls[allowed_categories][0]", "airlines", "not_allowed"),
        ("spending_controls[blocked_merchant_countries][0]", "FRA", "country"),
        ("pin[encrypted_number]", "4711", "pin_in_clear"),
        ("pin[encrypted_number]", "a.b.c", "jwe_not_compact"),
        ("pin[encrypted_number]", "====", "jwe_not_compact"),
    ] {
        assert_eq!(codes(column, cell), [code], "{column}");
    }
    for amount in ["10.50", "1,000", "1e3", "+5", "5 5", "€5", "9223372036854775808", "0x10"] {
        let cells = [(format!("{limit}[amount]"), amount), (format!("{limit}[interval]"), "daily")];
        let cells: Vec<_> = cells.iter().map(|(name, cell)| (name.as_str(), *cell)).collect();
        assert_eq!(problems(row(&cells))[0].2, "not_an_integer", "{amount}");
    }
}

#[test]
fn each_required_part_of_an_address_is_asked_for() {
    for (left_out, _) in shipping("") {
        let found = problems(row(&shipping(left_out)));
        assert_eq!(found, [(2, left_out.to_owned(), "missing")]);
    }
    let mode = "shipping[address_validation][mode]";
    assert_eq!(problems(row(&[(mode, "disabled")])).len(), 5, "address_validation is a part of shipping");
}

#[test]
fn a_limit_needs_amount_and_interval_and_a_gap_between_limits_is_none() {
    let text = "type,currency,spending_controls[spending_limits][0][amount],spending_controls[spending_limits][0][interval],\
                spending_controls[spending_limits][1][amount],spending_controls[spending_limits][1][interval]\n\
                virtual,eur,5,daily,,\nvirtual,eur,,,6,weekly\nvirtual,eur,5,,,weekly\n";
    let missing =
        |index, part: &str| (4, format!("spending_controls[spending_limits][{index}][{part}]"), "missing");
    assert_eq!(problems(text), [missing(0, "interval"), missing(1, "amount")]);
}

#[test]
fn metadata_is_held_to_stripes_limits_less_embossers_own_two() {
    let names: Vec<String> = (0..49).map(|entry| format!("metadata[key {entry}]")).collect();
    let cells: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "v")).collect();
    assert_eq!(problems(row(&cells)), [(2, "metadata".to_owned(), "metadata_entries")]);
    assert_eq!(problems(row(&cells[..48])), []);
    // Only the entries that a row has count.
    let mut some: Vec<_> = cells.clone();
    some[7].1 = "";
    assert_eq!(problems(row(&some)), []);

    let key = format!("metadata[{}]", "é".repeat(40));
    assert_eq!(codes(&key, "v"), [] as [&str; 0]);
    let long = format!("metadata[{}]", "k".repeat(41));
    for (name, code) in [
        (long.as_str(), "metadata_key"),
        ("metadata[]", "metadata_key"),
        ("metadata[a[b]]", "metadata_key"),
        ("metadata", "unknown_parameter"),
        ("metadata[embosser_job]", "metadata_reserved"),
        ("metadata[embosser_batch]", "metadata_reserved"),
    ] {
        assert_eq!(codes(name, "v"), [code], "{name}");
    }
}

#[test]
fn lists_of_which_stripe_takes_one_are_not_both_given() {
    for list in ["card_presences", "categories", "merchant_countries"] {
        let value = match list {
            "card_presences" => "present",
            "categories" => "airlines_air_carriers",
            _ => "IE",
        };
        let (allowed, blocked) = (
            format!("spending_controls[allowed_{list}][0]"),
            format!("spending_controls[blocked_{list}][0]"),
        );
        let found = problems(row(&[(allowed.as_str(), value), (blocked.as_str(), value)]));
        assert_eq!(found, [(2, format!("spending_controls[blocked_{list}]"), "exclusive")]);
    }
}

#[test]
fn a_near_match_is_offered_for_a_column_and_a_value() {
    let suggestion = |column: &str, cell: &str| {
        let (_, problems) = verdict(row(&[(column, cell)]).as_bytes());
        problems.into_iter().find_map(|problem| problem.suggestion).unwrap_or_default()
    };
    for (column, cell, near) in [
        ("cardholdr", "ich_1", "cardholder"),
        ("Type", "virtual", "type"),
        ("rowid", "1", "row_id"),
        ("shipping[adress][line1]", "x", "shipping[address][line1]"),
        ("shipping.address.city", "x", "shipping[address][city]"),
        (
            "spending_controls[spending_limits][3][ammount]",
            "5",
            "spending_controls[spending_limits][3][amount]",
        ),
        ("encrypted_pin", "x", "pin[encrypted_number]"),
        ("type", "virtuel", "virtual"),
        ("type", "Physical ", "physical"),
        ("spending_controls[allowed_categories][0]", "airline_air_carrier", "airlines_air_carriers"),
        ("status", "Active", "active"),
    ] {
        assert_eq!(suggestion(column, cell), near, "{column}={cell}");
    }
}

#[test]
fn no_card_number_is_ever_asked_for() {
    for field in ["number", "cvc", "replacement_for.number", " number", "number.x"] {
        assert_eq!(codes("expand[0]", field), ["card_number"], "{field}");
    }
    for field in ["cardholder", "replacement_for", "number_of_cards", "phone_number"] {
        assert_eq!(codes("expand[0]", field), [] as [&str; 0], "{field}");
    }
}

#[test]
fn a_pin_in_the_clear_is_refused_at_the_door_and_quoted_nowhere() {
    for column in ["pin", "PIN", "Pin", "pin[number]", "PIN code", "card_pin", "pinCode", "new pin", "pin2"] {
        let text = row(&[(column, "4711")]);
        let (report, problems) = verdict(text.as_bytes());
        assert_eq!(
            problems.iter().map(|problem| problem.code).collect::<Vec<_>>(),
            ["pin_in_clear"],
            "{column}"
        );
        assert_eq!(report.rows, 0, "no row is read");
        assert!(!format!("{problems:?}").contains("4711"));
    }
    let (_, problems) = verdict(row(&[("pin[encrypted_number]", "47110815")]).as_bytes());
    assert!(!format!("{problems:?}").contains("4711"), "{problems:?}");
    // One in a column of something else is no value to show.
    for column in ["type", "status", "exp_year", "currency"] {
        let (_, problems) = verdict(row(&[(column, "4711")]).as_bytes());
        assert!(!problems.is_empty() && !format!("{problems:?}").contains("4711"), "{problems:?}");
    }
    // Words that only look like it.
    for column in ["metadata[shipping]", "metadata[spinner]", "metadata[pin set]"] {
        assert_eq!(codes(column, "yes"), [] as [&str; 0], "{column}");
    }
}

#[test]
fn a_row_id_stands_once() {
    let text = "row_id,type,currency\na,virtual,eur\n\"b\t\nc\",virtual,eur\nd,virtual,eur\na,virtual,eur\n,virtual,eur\na,virtuel,eur\n";
    let id = |line, code| (line, "row_id".to_owned(), code);
    assert_eq!(
        problems(text),
        [
            id(3, "row_id"),
            id(7, "row_id"),
            (8, "type".to_owned(), "not_allowed"),
            // Told once all rows were read.
            id(6, "duplicate_row_id"),
            id(8, "duplicate_row_id"),
        ]
    );
    let (_, problems) = verdict(text.as_bytes());
    assert!(problems[3].reason.contains("line 2"), "{}", problems[3]);
}

#[test]
fn all_problems_come_at_once_however_many() {
    let mut text = "row_id,type,currency,colour\n".to_owned();
    for row in 0..5000 {
        text += &format!("{row},plastic,euro,red\n");
    }
    let (report, problems) = verdict(text.as_bytes());
    assert_eq!((report.rows, report.invalid_rows, report.problem_count), (5000, 5000, 10_001));
    assert_eq!(problems.len(), 10_001, "the header's and two a row");
    assert_eq!((problems[0].line, problems[10_000].line), (1, 5001));
}

#[test]
fn a_column_that_the_header_misspells_is_told_once() {
    let text = "type,curency,shipping[name]\nvirtual,eur,\nvirtuel,eur,\n";
    assert_eq!(
        problems(text),
        [
            (1, "curency".to_owned(), "unknown_parameter"),
            (1, "currency".to_owned(), "missing_column"),
            (3, "type".to_owned(), "not_allowed"),
        ]
    );
}

#[test]
fn what_is_counted_is_what_would_be_issued() {
    let jwe = jwe();
    let text = format!(
        "row_id,type,currency,pin[encrypted_number]\n1,virtual,eur,{jwe}\n2,physical,eur,\n3,plastic,eur,{jwe}\n1,virtual,eur,{jwe}\n"
    );
    let (report, _) = verdict(text.as_bytes());
    assert_eq!((report.rows, report.invalid_rows), (4, 2));
    assert_eq!((report.r#virtual, report.physical, report.pins), (1, 1, 1));
}

/// What only Stripe knows of new cards: the account, their designs and what these print.
#[tokio::test(flavor = "multi_thread")]
async fn online_the_account_and_the_designs_of_new_cards_are_looked_at() {
    let issuing = Issuing::with(Options::default()).await;
    let program = issuing.program();
    let write = |designs: &[(&str, &str)]| {
        let mut text = "Nr,cardholder,type,currency,Design,Zeile,shipping[name],shipping[address][line1],shipping[address][city],\
                        shipping[address][postal_code],shipping[address][country]\n"
            .to_owned();
        for (row, (design, second_line)) in designs.iter().enumerate() {
            text +=
                &format!("E{row},ich_1,physical,eur,{design},{second_line},Ana,1 High Street,Cork,T12,IE\n");
        }
        std::fs::write(issuing.path("cards.csv"), text).unwrap();
    };
    let columns = "[columns]\nNr = 'row_id'\nDesign = 'personalization_design'\nZeile = 'second_line'\n";
    std::fs::write(issuing.path("columns.toml"), columns).unwrap();
    let check = ["check", "cards.csv", "--columns", "columns.toml", "--online"];
    write(&[("ipd_blue", "ACME"), ("ipd_blue", ""), ("ipd_plain", "")]);
    let good = program.run(&check).await;
    expect_exit(&good, 0);
    assert!(said(&good).contains("Looking at Stripe: 4 reads; "), "said first: {}", said(&good));
    assert!(
        said(&good).contains("1 cardholder and 2 designs looked at: all as the rows need them."),
        "{}",
        said(&good)
    );
    write(&[
        ("ipd_blue", "ACME"),
        ("ipd_none", ""),
        ("ipd_rejected", ""),
        ("ipd_review", ""),
        ("ipd_plain", "ACME"),
        ("ipd_required", ""),
        ("ipd_plain", "ACME"),
    ]);
    let bad = program.run(&check).await;
    expect_exit(&bad, 2);
    for part in [
        "line 3, column Design: ipd_none is no design of this account",
        "line 4, column Design: ipd_rejected was rejected by Stripe",
        "line 5, column Design: ipd_review is still being reviewed",
        "line 6, column Zeile: is not printed: its design's physical bundle has no second line",
        "line 7, column Zeile: is missing, and the design's physical bundle requires one",
        "line 8, column Zeile: is not printed",
        "1 cardholder and 6 designs looked at: 6 problems.",
    ] {
        assert!(said(&bad).contains(part), "{part}: {}", said(&bad));
    }
    let of_designs = |seen: &&Seen| seen.path.starts_with("/v1/issuing/personalization_designs/");
    assert_eq!(
        issuing.sandbox.requests().iter().filter(of_designs).count(),
        8,
        "each is asked for once a run"
    );

    write(&[("ipd_blue", "")]);
    let pending = program.clone().with("STRIPE_API_KEY", "sk_test_acct_pending_1").run(&check).await;
    expect_exit(&pending, 2);
    assert!(said(&pending).contains("its capability card_issuing is pending"), "{}", said(&pending));
    let without = Issuing::with(Options { may_read_account: false, ..Options::default() }).await;
    std::fs::copy(issuing.path("cards.csv"), without.path("cards.csv")).unwrap();
    std::fs::copy(issuing.path("columns.toml"), without.path("columns.toml")).unwrap();
    let unknown = without.program().run(&check).await;
    expect_exit(&unknown, 0);
    assert!(said(&unknown).contains("cannot be told with this key"), "{}", said(&unknown));
    assert!(issuing.sandbox.account().cards.is_empty());
}

/// The codes for one cell of somebody who is to be created.
fn codes_of_person(column: &str, cell: &str) -> Vec<&'static str> {
    let mut cells = vec![
        ("cardholder[name]", "Grace Hopper"),
        ("cardholder[email]", "grace@example.org"),
        ("cardholder[phone_number]", "+353871234567"),
        ("cardholder[individual][dob][day]", "9"),
        ("cardholder[individual][dob][month]", "12"),
        ("cardholder[individual][dob][year]", "1986"),
        ("cardholder[billing][address][line1]", "1 High Street"),
        ("cardholder[billing][address][city]", "Dublin"),
        ("cardholder[billing][address][postal_code]", "D02 X285"),
        ("cardholder[billing][address][country]", "IE"),
    ];
    cells.iter_mut().filter(|(name, _)| *name == column).for_each(|(_, text)| *text = cell);
    problems(row(&cells)).into_iter().map(|(_, _, code)| code).collect()
}

#[test]
fn what_no_person_has_is_found_before_anybody_is_created() {
    assert_eq!(codes_of_person("", ""), [""; 0]);
    for (column, cell, code) in [
        ("cardholder[email]", "grace", "email"),
        ("cardholder[email]", "grace@localhost", "email"),
        ("cardholder[email]", "grace@example.org; bob@example.org", "email"),
        ("cardholder[email]", "ada@example.com", "example"),
        ("cardholder[phone_number]", "ask her", "phone_number"),
        ("cardholder[individual][dob][year]", "9999", "not_born_yet"),
        ("cardholder[individual][dob][day]", "31", ""),
        ("cardholder[billing][address][country]", "XX", "country"),
    ] {
        let expected: &[&str] = if code.is_empty() { &[] } else { &[code] };
        assert_eq!(codes_of_person(column, cell), expected, "{column} {cell}");
    }
    let born = codes_of_person("cardholder[individual][dob][month]", "2");
    assert_eq!(born, [""; 0], "9 February is a day");
    let no_day = row(&[
        ("cardholder[individual][dob][day]", "30"),
        ("cardholder[individual][dob][month]", "2"),
        ("cardholder[individual][dob][year]", "1986"),
        ("cardholder[name]", "Grace Hopper"),
        ("cardholder[billing][address][line1]", "1 High Street"),
        ("cardholder[billing][address][city]", "Dublin"),
        ("cardholder[billing][address][postal_code]", "D02 X285"),
        ("cardholder[billing][address][country]", "IE"),
    ]);
    assert_eq!(problems(no_day)[0].2, "no_such_day");
    for (cell, code) in [("eru", &["currency"][..]), ("EUR", &[]), ("usd", &[])] {
        assert_eq!(codes("currency", cell), code, "{cell}");
    }
    assert_eq!(codes("cardholder", "ich_example"), ["example"]);
    assert_eq!(codes("cardholder", "ich_example00001"), [""; 0]);
}
