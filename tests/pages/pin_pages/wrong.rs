//! What is wrong is said before it costs anything, beside the field that it is about, or on a page with the way out.

use std::time::Duration;

use serde_json::json;

use super::Stage;
use super::company::{Company, Link, Ordered};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn weak_and_impossible_pins_are_refused_with_the_reason() {
    let stage = Stage::new().await;
    let Stage { company, browser, .. } = &stage;
    stage.choosing(Link { refused: vec!["1984"], ..Link::default() }).await;
    let rules = "4 digits\nnot one digit repeated, like 1111\nnot a sequence, like 1234 or 4321\n\
        nothing easily guessed, like your birth year";
    assert_eq!(browser.text("#pin-rules").await, rules);
    for (pin, repeat, reason) in [
        ("", "", "Enter a PIN."),
        ("12a4", "12a4", "Use digits only"),
        ("４７１５", "４７１５", "Use digits only"),
        ("47 5", "47 5", "Use digits only"),
        ("471", "471", "The PIN must have 4 digits; this one has 3."),
        ("4715471547154", "4715471547154", "The PIN must have 4 digits; this one has 13."),
        ("0000", "0000", "is one digit repeated"),
        ("1234", "1234", "a sequence"),
        ("4321", "4321", "a sequence"),
        ("7890", "7890", "a sequence"),
        ("1984", "1984", "is easily guessed and is not accepted"),
    ] {
        stage.enter(pin, repeat).await;
        browser.until_text("#pin-error", reason).await;
        assert_eq!(stage.focus().await, "pin");
        // A screen reader reads the reason with the field, and then the rules.
        let tied = "const e = document.querySelector('#pin'); return [e.getAttribute('aria-invalid'),
            e.getAttribute('aria-describedby').split(' ')[0], document.querySelector('#repeat-error').hidden]";
        assert_eq!(browser.run(tied).await, json!(["true", "pin-error", true]), "{pin}");
    }
    for (repeat, reason) in [("", "Enter the PIN a second time."), ("4716", "The two PINs are not the same.")]
    {
        stage.enter("4715", repeat).await;
        browser.until_text("#repeat-error", reason).await;
        assert_eq!(stage.focus().await, "repeat");
        assert_eq!(browser.run("return document.querySelector('#pin-error').hidden").await, true);
    }
    assert_eq!((company.heard("choose").len(), company.heard("keys").len()), (0, 0));
    // What is not excluded is taken, zeros in front too.
    stage.enter("0135", "0135").await;
    stage.shows("taken").await;
    assert_eq!(company.pins(), ["0135"]);

    stage.choosing(Link { digits: Some((4, 12)), ..Link::default() }).await;
    assert!(browser.text("#pin-rules").await.starts_with("4 to 12 digits"));
    stage.enter("4715471547154", "4715471547154").await;
    browser.until_text("#pin-error", "must have 4 to 12 digits; this one has 13").await;
}

/// Used, unknown, mistyped, none at all: one page, which says what to do.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn links_that_cannot_be_used_get_one_page_and_no_field() {
    let stage = Stage::new().await;
    let Stage { company, browser, .. } = &stage;
    let used = company.send(Link { used: true, ..Link::default() });
    let (unknown, cut) = ("B".repeat(43), used[..20].to_owned());
    for page in ["pin", "pin/view"] {
        let mut seen = Vec::new();
        for token in [&used, &unknown, &cut, ""] {
            stage.open(&format!("{}/{page}#{token}", company.url)).await;
            stage.shows("unusable").await;
            seen.push(browser.text("main").await);
            assert_eq!(browser.run("return document.querySelector('input') === null").await, true);
        }
        seen.dedup();
        let [words] = &*seen else { panic!("{seen:?}") };
        assert!(words.contains("Ask the person or company that sent it to you for a new one."), "{words}");
    }
    // Two tabs with one link: the second learns of it when it sends.
    let token = stage.choosing(Link::default()).await;
    let first = browser.page.window().await.unwrap();
    let second = browser.page.new_window(true).await.unwrap().handle;
    browser.page.switch_to_window(second).await.unwrap();
    stage.open(&company.choose_url(&token)).await;
    stage.enter("4715", "4715").await;
    stage.shows("taken").await;
    browser.page.switch_to_window(first).await.unwrap();
    stage.enter("9283", "9283").await;
    stage.shows("unusable").await;
    assert!(browser.text("#unusable").await.contains("or you chose a PIN in another window"));
    assert_eq!(company.pins(), ["4715"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_that_came_over_plain_http_says_so_before_a_pin_is_typed() {
    let stage = Stage::set(
        embosser::sandbox::Options::default(),
        &["--host-resolver-rules=MAP pin.example 127.0.0.1"],
    )
    .await;
    let Stage { company, browser, .. } = &stage;
    let (_, port) = company.url.rsplit_once(':').unwrap();
    for page in ["pin", "pin/view"] {
        let token = company.send(Link::default());
        stage.open(&format!("http://pin.example:{port}/{page}#{token}")).await;
        stage.shows("insecure").await;
        assert!(browser.text("#insecure").await.contains("https://"));
        let fields =
            "return [...document.querySelectorAll('input')].filter((each) => each.checkVisibility()).length";
        assert_eq!(browser.run(fields).await, 0);
    }
    assert_eq!(company.heard("look").len(), 0);
}

/// What passes keeps the PIN in its fields, and the same button sends it again; what does not takes the fields away.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refusal_of_the_moment_keeps_the_pin_and_a_final_one_takes_it_away() {
    let stage = Stage::new().await;
    let Stage { company, browser, .. } = &stage;
    stage.choosing(Link::default()).await;
    company.order(
        "choose",
        [
            Ordered::Problem(503, "not_now"),
            Ordered::TooMany(30),
            Ordered::Problem(422, "pin_unusable"),
            Ordered::Problem(500, "internal"),
        ],
    );
    stage.enter("4715", "4715").await;
    browser.until_text("#problem", "your PIN was not set. Try again in a few minutes").await;
    assert_eq!(browser.text("#submit").await, "Try again");
    for words in
        ["too many tries. Try again in 30 seconds", "Reload this page", "This does not work right now"]
    {
        browser.click("#submit").await;
        browser.until_text("#problem", words).await;
    }
    browser.click("#submit").await;
    stage.shows("taken").await;
    assert_eq!((company.pins(), company.heard("choose").len()), (vec!["4715".to_owned()], 5));

    stage.choosing(Link::default()).await;
    company.order("choose", [Ordered::Problem(409, "card_refused")]);
    stage.enter("4716", "4716").await;
    stage.shows("refused").await;
    assert!(browser.text("#refused").await.contains("they can see the reason"));
    assert_eq!(
        browser.run("return [document.querySelector('input') === null, location.hash]").await,
        json!([true, ""])
    );

    // The answer is lost: whoever tries again is told what most likely came of it.
    stage.choosing(Link::default()).await;
    company.order("choose", [Ordered::Lost]);
    stage.enter("4717", "4717").await;
    browser.until_text("#problem", "The connection broke before an answer came").await;
    browser.click("#submit").await;
    stage.shows("unusable").await;
    assert!(browser.text("#unusable").await.contains("that PIN has probably been accepted"));
    assert_eq!(company.pins(), ["4715", "4717"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_that_cannot_be_looked_up_is_tried_again_by_a_button() {
    let stage = Stage::new().await;
    let Stage { company, browser, .. } = &stage;
    for (url, shown) in [
        (company.choose_url(&company.send(Link::default())), "form"),
        (company.view_url(&viewing(company).await), "ready"),
    ] {
        company.order("look", [Ordered::Problem(503, "not_now"), Ordered::TooMany(120), Ordered::Lost]);
        stage.open(&url).await;
        for words in [
            "Your link still works. Try again in a few minutes",
            "Try again in 2 minutes",
            "The connection broke",
        ] {
            stage.shows("trouble").await;
            browser.until_text("#trouble-text", words).await;
            browser.click("#look-again").await;
        }
        stage.shows(shown).await;
    }
}

async fn viewing(company: &Company) -> String {
    let card = company.card("2580").await;
    company.send(Link { card: Some(card), shows: Some(vec!["pin"]), ..Link::default() })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_sent_twice_however_often_the_button_is_pressed() {
    let stage = Stage::new().await;
    let Stage { company, browser, .. } = &stage;
    stage.choosing(Link::default()).await;
    *company.takes.lock().unwrap() = Duration::from_millis(700);
    stage.enter("4715", "4715").await;
    browser
        .run("const b = document.querySelector('#submit'); b.click(); b.click(); b.form.requestSubmit()")
        .await;
    browser.until_text("#progress", "is being encrypted and sent").await;
    assert_eq!(
        browser.run("return document.querySelector('#submit').getAttribute('aria-disabled')").await,
        "true"
    );
    assert_eq!(browser.run("return document.querySelector('#pin').readOnly").await, true);
    stage.shows("taken").await;
    assert_eq!((company.heard("choose").len(), company.pins().len()), (1, 1));

    stage.open(&company.view_url(&viewing(company).await)).await;
    stage.shows("ready").await;
    browser.run("const b = document.querySelector('#show'); b.click(); b.click()").await;
    stage.shows("shown").await;
    assert_eq!(company.heard("ephemeral-keys").len(), 1);
}
