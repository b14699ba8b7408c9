//! Promise: a job whose cardholder chooses the PIN waits without any PIN; its link is used once, whoever tries, and its card
//! has the PIN that was chosen.

use crate::support;

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::json;
use support::choosing::{ask, choose, encrypted, links_of, look, pins, stage, token_of};
use support::expect_exit;
use support::serve::Served;

/// A card of each kind of job: one cardholder who is known, one who is made first, and so on by rows.
const CHOOSING: &str = "row_id,cardholder,type,currency,pin[choose]\na,ich_1,virtual,eur,true\nb,ich_2,virtual,eur,TRUE\nc,ich_3,virtual,eur,\n";

fn column(results: &Path, name: &str) -> BTreeMap<String, String> {
    let mut reader = csv::Reader::from_path(results).unwrap();
    let at = reader.headers().unwrap().iter().position(|column| column == name).unwrap();
    reader.records().map(|row| row.unwrap()).map(|row| (row[1].to_owned(), row[at].to_owned())).collect()
}

/// No file of the test's directory has this text.
fn is_nowhere(directory: &Path, text: &str) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            is_nowhere(&path, text);
        } else {
            let bytes = std::fs::read(&path).unwrap();
            assert!(
                memchr::memmem::find(&bytes, text.as_bytes()).is_none(),
                "{} holds {text}",
                path.display()
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_waits_for_its_cardholders_and_each_gets_the_chosen_pin_once() {
    let stage = stage().await;
    let traced = stage.program.clone().with("RUST_LOG", "trace");
    let served = Served::start(&traced, &["--rate", "100"]);
    served.upload("/v1/batches?name=staff", CHOOSING.into()).await.expect(202);
    let view = served.until_ended("staff").await;
    assert_eq!((&view["issued"], &view["awaiting_pin"]), (&json!(1), &json!(2)), "{view}");
    assert_eq!(stage.sandbox.account().cards.len(), 1, "nothing is made before a PIN is chosen");
    let rows = served.get("/v1/batches/staff/rows?outcome=awaiting_pin").await.expect(200).json();
    assert_eq!(rows["rows"].as_array().unwrap().len(), 2);
    let waiting = served.get("/v1/pin-links?batch=staff").await.expect(200).json();
    assert_eq!(waiting["waiting"][0]["link"], json!(null), "no link before somebody asks for one: {waiting}");

    let links = links_of(&served, "staff").await;
    assert_eq!(links.keys().collect::<Vec<_>>(), ["a", "b"]);
    let seen = look(&served, &links["a"]).await.expect(200).json();
    assert_eq!((&seen["kind"], &seen["changes_card"]), (&json!("choose"), &json!(false)));
    look(&served, &links["a"]).await.expect(200);
    // The upload comes again: nothing changes, the links stay good.
    served.upload("/v1/batches?name=staff", CHOOSING.into()).await.expect(202);
    served.until_ended("staff").await;
    assert!(links_of(&served, "staff").await.is_empty(), "they have theirs");

    let jwe = encrypted(&stage.sandbox, "4711").await;
    assert_eq!(choose(&served, &links["a"], &jwe).await.expect(200).json(), json!({"state": "taken"}));
    // The very same request, as a browser sends it again whose connection broke: it was taken, and changes nothing.
    choose(&served, &links["a"], &jwe).await.expect(200);
    let other = encrypted(&stage.sandbox, "1379").await;
    for used in [choose(&served, &links["a"], &other).await, look(&served, &links["a"]).await] {
        assert_eq!(used.expect(404).json()["code"], "link_unusable");
    }
    let view = served.get("/v1/batches/staff").await.expect(200).json();
    assert_eq!((&view["issued"], &view["awaiting_pin"]), (&json!(2), &json!(1)), "{view}");
    let pins = pins(&stage.sandbox);
    assert_eq!(pins.len(), 2);
    assert_eq!(pins["staff/a"].as_deref(), Some("4711"));
    let secrets = [&jwe[jwe.len() - 60..], &jwe[100..160], token_of(&links["a"]), token_of(&links["b"])];
    let metrics = served.get("/metrics").await.expect(200).text;
    for secret in secrets {
        is_nowhere(stage.directory.path(), secret);
        assert!(!metrics.contains(secret));
    }
    assert!(metrics.contains("embosser_pin_links_total{event=\"used\"} 1"), "{metrics}");
    // And once more: it has its card now.
    served.upload("/v1/batches?name=staff", CHOOSING.into()).await.expect(202);
    served.until_ended("staff").await;
    assert_eq!(stage.sandbox.account().cards.len(), 2);
    let (_, log) = served.stopped().await;
    assert!(log.contains("job ended"), "{log}");
    secrets.iter().for_each(|secret| assert!(!log.contains(secret), "the log holds {secret}"));
}

#[tokio::test(flavor = "multi_thread")]
async fn links_in_the_results_of_issue_are_used_at_a_server_and_stay_in_the_results_meanwhile() {
    let stage = stage().await;
    let (manifest, results) =
        (stage.directory.path().join("staff.csv"), stage.directory.path().join("staff.results.csv"));
    std::fs::write(&manifest, CHOOSING).unwrap();
    let issue = ["issue", "staff.csv", "--rate", "100"];
    let ended = stage.program.run(&issue).await;
    expect_exit(&ended, 0);
    assert!(
        String::from_utf8_lossy(&ended.stdout).contains("2 of them wait for their cardholders"),
        "{ended:?}"
    );
    let outcomes = column(&results, "outcome");
    assert_eq!(outcomes.values().collect::<Vec<_>>(), ["awaiting_pin", "awaiting_pin", "issued"]);
    let links = column(&results, "pin_link");
    expect_exit(&stage.program.run(&issue).await, 0);
    assert_eq!(column(&results, "pin_link"), links, "a second run gives out no others, and loses none");
    assert_eq!(stage.sandbox.account().cards.len(), 1);
    // Under another name they would be second cards.
    std::fs::copy(&manifest, stage.directory.path().join("other.csv")).unwrap();
    expect_exit(&stage.program.run(&["issue", "other.csv", "--rate", "100"]).await, 0);
    assert_eq!(stage.sandbox.account().cards.len(), 1);

    let served = Served::start(&stage.program, &["--rate", "100"]);
    let jwe = encrypted(&stage.sandbox, "4711").await;
    choose(&served, &links["b"], &jwe).await.expect(200);
    assert_eq!(pins(&stage.sandbox)["staff/b"].as_deref(), Some("4711"));
    drop(served);
    expect_exit(&stage.program.run(&issue).await, 0);
    assert_eq!(column(&results, "outcome")["b"], "issued");
    assert_eq!(column(&results, "pin_link")["b"], "");
    assert_eq!(column(&results, "pin_link")["a"], links["a"]);
}

/// Where no page is set up, nothing of the file is issued, and whoever has it learns why and what to do.
#[tokio::test(flavor = "multi_thread")]
async fn without_a_page_such_rows_are_refused_before_anything_is_issued() {
    let stage = stage().await;
    std::fs::write(stage.directory.path().join("staff.csv"), CHOOSING).unwrap();
    let program = support::Program::new(stage.directory.path(), &stage.sandbox);
    let says_why = |said: &str| {
        assert!(said.contains("2 rows wait for a PIN that the cardholder chooses"), "{said}");
        assert!(said.contains("pin_page.url") && said.contains("pin[choose]"), "{said}");
    };
    let check = program.run(&["check", "staff.csv"]).await;
    expect_exit(&check, 0);
    says_why(&String::from_utf8_lossy(&check.stdout));
    let with_page = stage.program.run(&["check", "staff.csv"]).await;
    assert!(!String::from_utf8_lossy(&with_page.stdout).contains("pin_page.url"), "{with_page:?}");
    let issue = program.run(&["issue", "staff.csv"]).await;
    expect_exit(&issue, 2);
    says_why(&String::from_utf8_lossy(&issue.stderr));

    let served = Served::start(&program, &["--rate", "100"]);
    for path in ["/v1/checks", "/v1/batches?name=staff"] {
        let refused = served.upload(path, CHOOSING.into()).await.expect(422);
        says_why(&refused.text);
        let problem = &refused.json()["problems"][0];
        assert_eq!((&problem["column"], &problem["code"]), (&json!("pin[choose]"), &json!("no_pin_page")));
    }
    served.get("/v1/batches/staff").await.expect(404);
    let job = json!({"id": "alone", "card": {"type": "virtual", "currency": "eur", "pin": {"choose": true}}});
    let refused = ask(&served, "/v1/jobs", &job).await.expect(422);
    assert_eq!(refused.json()["problems"][0]["code"], "no_pin_page", "{}", refused.text);
    assert!(served.get("/pin").await.expect(404).text.contains("pin_page.url is not set"));
    assert_eq!(stage.sandbox.account().creates, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn people_are_made_with_their_cards_and_a_card_that_exists_gets_a_new_pin() {
    let stage = stage().await;
    stage.sandbox.stock("ich_1", 1);
    let served = Served::start(&stage.program, &["--rate", "100"]);
    let people = "row_id,cardholder[name],cardholder[type],cardholder[individual][dob][day],cardholder[individual][dob][month],\
        cardholder[individual][dob][year],cardholder[billing][address][line1],cardholder[billing][address][city],\
        cardholder[billing][address][country],cardholder[billing][address][postal_code],type,currency,pin[choose]\n\
        p,Jenny Rosen,individual,1,2,1984,1 Street,Cork,IE,T12,virtual,eur,true\n";
    served.upload("/v1/batches?name=people", people.into()).await.expect(202);
    served.until_ended("people").await;
    assert!(stage.sandbox.account().cardholders.is_empty(), "nothing is made before");
    let link = links_of(&served, "people").await.remove("p").unwrap();
    let seen = look(&served, &link).await.expect(200).json();
    assert_eq!(
        seen["policy"]["refused"],
        json!(["1234", "2000", "1984"]),
        "nobody is to choose the year of birth"
    );
    choose(&served, &link, &encrypted(&stage.sandbox, "2580").await).await.expect(200);
    let account = stage.sandbox.account();
    assert_eq!((account.cardholders.len(), account.cards.len()), (1, 1));
    assert_eq!(account.cards[0].cardholder.as_ref(), Some(&account.cardholders[0].id));
    assert_eq!(account.cards[0].pin.as_deref(), Some("2580"));

    let change = "row_id,card,pin[choose]\nx,ic_sandbox00000001,true\n";
    served.upload("/v1/batches?name=change", change.into()).await.expect(202);
    served.until_ended("change").await;
    let link = links_of(&served, "change").await.remove("x").unwrap();
    let seen = look(&served, &link).await.expect(200).json();
    assert_eq!((&seen["changes_card"], &seen["last4"]), (&json!(true), &json!("0001")));
    choose(&served, &link, &encrypted(&stage.sandbox, "1379").await).await.expect(200);
    let changes = stage.sandbox.account().changes;
    assert_eq!((changes.len(), changes[0].pin.as_deref()), (1, Some("1379")));
}

/// As far as Stripe knows it, for a card that is to be made and for one that exists; unless the company allows it.
#[tokio::test(flavor = "multi_thread")]
async fn the_year_of_birth_is_refused_whoever_made_the_cardholder() {
    let stage = stage().await;
    let person = "type=individual&name=Jenny+Rosen&billing[address][line1]=1&billing[address][city]=B&billing[address][country]=IE\
        &billing[address][postal_code]=D02&individual[first_name]=Jenny&individual[last_name]=Rosen&individual[dob][day]=1\
        &individual[dob][month]=2&individual[dob][year]=1985";
    let post = support::http_client().post(format!("{}/v1/issuing/cardholders", stage.sandbox.api_url()));
    let post =
        post.bearer_auth("sk_test_of_the_tests").header("content-type", "application/x-www-form-urlencoded");
    let made = post.body(person).send().await.unwrap().text().await.unwrap();
    let made: serde_json::Value = serde_json::from_str(&made).unwrap();
    let cardholder = made["id"].as_str().unwrap_or_else(|| panic!("{made}"));
    let served = Served::start(&stage.program, &["--rate", "100"]);
    let csv = format!("row_id,cardholder,type,currency,pin[choose]\na,{cardholder},virtual,eur,true\n");
    served.upload("/v1/batches?name=staff", csv.into()).await.expect(202);
    served.until_ended("staff").await;
    let link = links_of(&served, "staff").await.remove("a").unwrap();
    let refused = json!(["1234", "2000", "1985"]);
    assert_eq!(look(&served, &link).await.expect(200).json()["policy"]["refused"], refused);
    choose(&served, &link, &encrypted(&stage.sandbox, "4711").await).await.expect(200);
    let card = stage.sandbox.account().cards[0].id.clone();
    let csv = format!("row_id,card,pin[choose]\na,{card},true\n");
    served.upload("/v1/batches?name=change", csv.into()).await.expect(202);
    served.until_ended("change").await;
    let link = links_of(&served, "change").await.remove("a").unwrap();
    let seen = look(&served, &link).await.expect(200).json();
    assert_eq!(seen["policy"]["refused"], refused, "{seen}");
    assert!(seen["last4"].is_string(), "{seen}");
    assert_eq!(served.stopped().await.0, Some(0));
    let served = Served::start(&stage.program.clone().with("EMBOSSER__PIN_PAGE__BIRTH_YEAR", "true"), &[]);
    assert_eq!(look(&served, &link).await.expect(200).json()["policy"]["refused"], json!(["1234", "2000"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stale_key_or_a_wrong_jwe_costs_no_link() {
    let stage = stage().await;
    let served = Served::start(&stage.program, &["--rate", "100"]);
    served.upload("/v1/batches?name=staff", CHOOSING.into()).await.expect(202);
    served.until_ended("staff").await;
    let link = links_of(&served, "staff").await.remove("a").unwrap();
    let stale = encrypted(&stage.sandbox, "4711").await;
    stage.sandbox.rotate_key();
    assert_eq!(choose(&served, &link, &stale).await.expect(409).json()["code"], "stale_key");
    assert_eq!(served.get("/v1/batches/staff").await.expect(200).json()["awaiting_pin"], json!(2));
    for wrong in ["4711", "", "a.b.c.d.e"] {
        let refused = choose(&served, &link, wrong).await.expect(422);
        assert_eq!(refused.json()["code"], "pin_unusable");
        assert!(wrong.is_empty() || !refused.text.contains(wrong), "{}", refused.text);
    }
    choose(&served, &link, &encrypted(&stage.sandbox, "4711").await).await.expect(200);
    assert_eq!(pins(&stage.sandbox)["staff/a"].as_deref(), Some("4711"));
    let key = served.get("/v1/pin-key").await.expect(200);
    assert_eq!(key.headers["cache-control"], "no-store");
    assert!(key.json()["key_id"].is_string());
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_who_use_a_link_at_once_one_has_used_it() {
    let stage = stage().await;
    let served = Served::start(&stage.program, &["--rate", "100"]);
    for round in 0..8 {
        let name = format!("staff{round}");
        let csv = format!(
            "row_id,cardholder,type,currency,metadata[n],pin[choose]\na,ich_1,virtual,eur,{round},true\n"
        );
        served.upload(&format!("/v1/batches?name={name}"), csv.into()).await.expect(202);
        served.until_ended(&name).await;
        let link = links_of(&served, &name).await.remove("a").unwrap();
        let (one, other) = (encrypted(&stage.sandbox, "1379").await, encrypted(&stage.sandbox, "2580").await);
        let (one, other) = tokio::join!(choose(&served, &link, &one), choose(&served, &link, &other));
        let mut statuses = [one.status.as_u16(), other.status.as_u16()];
        statuses.sort_unstable();
        assert_eq!(statuses, [200, 404], "{one:?} {other:?}");
        let pin = if one.status.as_u16() == 200 { "1379" } else { "2580" };
        assert_eq!(pins(&stage.sandbox)[&format!("{name}/a")].as_deref(), Some(pin));
    }
    assert_eq!(stage.sandbox.account().cards.len(), 8);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_that_was_revoked_or_replaced_is_as_good_as_none_and_guesses_are_slowed() {
    let stage = stage().await;
    let served = Served::start(&stage.program, &["--rate", "100"]);
    served.upload("/v1/batches?name=staff", CHOOSING.into()).await.expect(202);
    served.until_ended("staff").await;
    let mut links = links_of(&served, "staff").await;
    let (a, b) = (links.remove("a").unwrap(), links.remove("b").unwrap());
    ask(&served, "/v1/pin-links/revoke", &json!({"job": "staff/a"})).await.expect(204);
    ask(&served, "/v1/pin-links/revoke", &json!({"job": "staff/a"})).await.expect(404);
    let waiting = served.get("/v1/pin-links?batch=staff").await.expect(200).json();
    assert_eq!(waiting["waiting"][0]["standing"], "revoked");
    let renewed = ask(&served, "/v1/pin-links", &json!({"job": "staff/b"})).await.expect(200).json();
    let renewed = renewed["links"][0]["pin_link"].as_str().unwrap().to_owned();
    let unusable = [look(&served, &a).await.expect(404).json(), look(&served, &b).await.expect(404).json()];
    assert_eq!(unusable[0], unusable[1], "nobody is told why");
    let guess = format!("https://pins.example.com/pin#{}", "A".repeat(43));
    assert_eq!(look(&served, &guess).await.expect(404).json(), unusable[0]);
    look(&served, &renewed).await.expect(200);

    let (mut unknown, mut slowed) = (0, 0);
    for number in 0..10_000 {
        let guess = format!("https://pins.example.com/pin#{number:043}");
        let answer = look(&served, &guess).await;
        match answer.status.as_u16() {
            404 => unknown += 1,
            429 => {
                assert!(answer.headers["retry-after"].to_str().unwrap().parse::<u64>().unwrap() > 0);
                slowed += 1;
            }
            status => panic!("{status}: a guess found something"),
        }
    }
    assert_eq!(unknown + slowed, 10_000);
    assert!(unknown < 60, "{unknown} guesses were let through");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_killed_with_a_pin_in_hand_makes_one_card_or_asks_again() {
    for (place, is_made) in [("begun", false), ("answered", true)] {
        let stage = stage().await;
        let killer = stage.program.clone().with("EMBOSSER_KILL_AT", &format!("{place}:1"));
        let served = Served::start(&stage.program, &["--rate", "100"]);
        let csv = "row_id,cardholder,type,currency,pin[choose]\na,ich_1,virtual,eur,true\n";
        served.upload("/v1/batches?name=staff", csv.into()).await.expect(202);
        served.until_ended("staff").await;
        let link = links_of(&served, "staff").await.remove("a").unwrap();
        drop(served);
        let served = Served::start(&killer, &["--rate", "100"]);
        let jwe = encrypted(&stage.sandbox, "4711").await;
        let body = json!({"link": token_of(&link), "pin": jwe}).to_string().into_bytes();
        let json = [("content-type", "application/json")];
        let cut = served.try_ask(reqwest::Method::POST, "/v1/pin-links/choose", &json, body).await;
        assert!(cut.is_err(), "{place}: {cut:?}");
        drop(served);
        let served = Served::start(&stage.program, &["--rate", "100"]);
        look(&served, &link).await.expect(404);
        served.upload("/v1/batches?name=staff", csv.into()).await.expect(202);
        let view = served.until_ended("staff").await;
        assert_eq!(stage.sandbox.account().cards.len(), usize::from(is_made), "{place}");
        if is_made {
            assert_eq!(view["issued"], json!(1), "{place}: {view}");
        } else {
            assert_eq!(view["awaiting_pin"], json!(1), "{place}: {view}");
            let link = links_of(&served, "staff").await.remove("a").unwrap();
            choose(&served, &link, &encrypted(&stage.sandbox, "4711").await).await.expect(200);
        }
        assert_eq!(pins(&stage.sandbox)["staff/a"].as_deref(), Some("4711"), "{place}");
        assert_eq!(stage.sandbox.account().cards.len(), 1, "{place}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_viewing_link_makes_one_key_for_its_own_card() {
    let stage = stage().await;
    stage.sandbox.stock("ich_1", 2);
    let served = Served::start(&stage.program, &["--rate", "100"]);
    let made = json!({"card": "ic_sandbox00000001", "shows": ["pin", "number"]});
    let made = ask(&served, "/v1/pin-links", &made).await.expect(200).json();
    let link = made["links"][0]["pin_link"].as_str().unwrap();
    let (page, token) = link.split_once('#').unwrap();
    assert_eq!(page, "https://pins.example.com/pin/view");
    let seen = ask(&served, "/v1/pin-links/look", &json!({"link": token})).await.expect(200).json();
    assert_eq!(seen["view"]["card"], "ic_sandbox00000001");
    assert_eq!(seen["view"]["shows"], json!(["pin", "number"]));
    let nonce = "a nonce that no page made";
    let of = |card: &str, link: Option<&str>| {
        (format!("/v1/cards/{card}/ephemeral-keys"), json!({"nonce": nonce, "link": link}))
    };
    let (path, body) = of("ic_sandbox00000002", Some(token));
    assert_eq!(ask(&served, &path, &body).await.expect(404).json()["code"], "link_unusable", "another card");
    // The sandbox knows no such nonce, as Stripe would not: the link is used up by that, by one of two who come at once.
    let (path, body) = of("ic_sandbox00000001", Some(token));
    let (one, other) = tokio::join!(ask(&served, &path, &body), ask(&served, &path, &body));
    let mut codes = [one.json()["code"].to_string(), other.json()["code"].to_string()];
    codes.sort();
    assert_eq!(codes, ["\"card_refused\"", "\"link_unusable\""]);
    ask(&served, &path, &body).await.expect(404);
    ask(&served, "/v1/pin-links/choose", &json!({"link": token, "pin": "x"})).await.expect(404);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_card_that_was_cancelled_meanwhile_is_told_and_a_job_over_http_waits_like_a_row() {
    let stage = stage().await;
    stage.sandbox.stock("ich_1", 1);
    let served = Served::start(&stage.program, &["--rate", "100"]);
    let job = json!({"id": "new-pin", "batch": "b", "operation": "update_card", "card_id": "ic_sandbox00000001",
        "card": {"pin": {"choose": true}}});
    ask(&served, "/v1/jobs", &job).await.expect(202);
    assert_eq!(served.until_job("new-pin").await["state"], "awaiting_pin");
    ask(&served, "/v1/jobs", &job).await.expect(202);
    assert_eq!(served.until_job("new-pin").await["state"], "awaiting_pin");
    let made = ask(&served, "/v1/pin-links", &json!({"job": "new-pin"})).await.expect(200).json();
    let link = made["links"][0]["pin_link"].as_str().unwrap().to_owned();
    look(&served, &link).await.expect(200);
    let cancel = json!({"id": "cancel", "batch": "b", "operation": "update_card", "card_id": "ic_sandbox00000001",
        "card": {"status": "canceled"}});
    ask(&served, "/v1/jobs", &cancel).await.expect(202);
    assert_eq!(served.until_job("cancel").await["state"], "updated");
    let jwe = encrypted(&stage.sandbox, "4711").await;
    assert_eq!(choose(&served, &link, &jwe).await.expect(409).json()["code"], "card_refused");
    choose(&served, &link, &encrypted(&stage.sandbox, "4711").await).await.expect(404);
    let ended = served.get("/v1/jobs/new-pin").await.expect(200).json();
    assert_eq!(ended["state"], "refused", "{ended}");
    assert!(served.get("/v1/pin-links").await.expect(200).json()["waiting"].as_array().unwrap().is_empty());
}

/// The ledger is gone, and Stripe has forgotten the idempotency keys.
#[tokio::test(flavor = "multi_thread")]
async fn a_card_that_another_ledger_made_gets_no_second_one() {
    let stage = stage().await;
    let served = Served::start(&stage.program, &["--rate", "100"]);
    let csv =
        "row_id,cardholder,type,currency,pin[choose]\na,ich_1,virtual,eur,true\nb,ich_2,virtual,eur,true\n";
    for ledger in 0..2 {
        let program = stage.program.clone().with(
            "EMBOSSER__LEDGER__URL",
            &support::sqlite(&stage.directory.path().join(format!("{ledger}.db"))),
        );
        let served = Served::start(&program, &["--rate", "100"]);
        served.upload("/v1/batches?name=staff", csv.into()).await.expect(202);
        served.until_ended("staff").await;
        let links = links_of(&served, "staff").await;
        let jwe = encrypted(&stage.sandbox, "4711").await;
        let chosen = choose(&served, &links["a"], &jwe).await;
        if ledger == 0 {
            chosen.expect(200);
            stage.sandbox.advance(std::time::Duration::from_secs(25 * 3600));
        } else {
            assert_eq!(chosen.expect(409).json()["code"], "card_refused", "the card keeps its PIN");
        }
        assert_eq!(stage.sandbox.account().cards.len(), 1, "ledger {ledger}");
    }
    drop(served);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_is_dead_once_its_job_has_ended_elsewhere_and_a_lost_card_does_not_wait_for_a_pin() {
    let stage = stage().await;
    stage.sandbox.stock("ich_1", 1);
    let served = Served::start(&stage.program, &["--rate", "100"]);
    served.upload("/v1/batches?name=staff", CHOOSING.into()).await.expect(202);
    served.until_ended("staff").await;
    let links = links_of(&served, "staff").await;
    // Somebody found a ciphertext for the row.
    let jwe = encrypted(&stage.sandbox, "4711").await;
    let csv = format!("row_id,cardholder,type,currency,pin[encrypted_number]\na,ich_1,virtual,eur,{jwe}\n");
    served.upload("/v1/batches?name=staff", csv.into()).await.expect(202);
    served.until_ended("staff").await;
    assert_eq!(pins(&stage.sandbox)["staff/a"].as_deref(), Some("4711"));
    look(&served, &links["a"]).await.expect(404);
    choose(&served, &links["a"], &encrypted(&stage.sandbox, "1379").await).await.expect(404);
    let waiting = served.get("/v1/pin-links").await.expect(200).json();
    assert_eq!(waiting["waiting"].as_array().unwrap().len(), 1, "{waiting}");
    choose(&served, &links["b"], &encrypted(&stage.sandbox, "1379").await).await.expect(200);
    let view = served.get("/v1/batches/staff").await.expect(200).json();
    assert_eq!(
        (&view["issued"], &view["awaiting_pin"]),
        (&json!(2), &json!(1)),
        "of another upload: the ledger's count"
    );

    let lost = "row_id,cardholder,type,currency,replacement_for,replacement_reason,cancel_replaced,pin[choose]\n\
        l,ich_1,virtual,eur,ic_sandbox00000001,lost,true,true\n";
    served.upload("/v1/batches?name=lost&yes_cancel=1", lost.into()).await.expect(202);
    let view = served.until_ended("lost").await;
    assert_eq!(view["awaiting_pin"], json!(1), "{view}");
    assert_eq!(stage.sandbox.account().changes.len(), 1, "the lost card is cancelled at once");
    let link = links_of(&served, "lost").await.remove("l").unwrap();
    choose(&served, &link, &encrypted(&stage.sandbox, "2580").await).await.expect(200);
    assert_eq!(pins(&stage.sandbox)["lost/l"].as_deref(), Some("2580"));
    assert_eq!(stage.sandbox.account().changes.len(), 1);
}
