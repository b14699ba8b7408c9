//! How the pages look and read: to an accessibility checker, at a phone's width and at twice the size, in light and dark, and in
//! six languages; and what their headers allow.

use std::path::Path;

use serde_json::{Value, json};

use super::Stage;
use super::company::{Link, Ordered};

const LANGUAGES: [&str; 6] = ["en", "de", "fr", "es", "it", "nl"];

/// Axe's rules of WCAG and its good practices; what it finds, whatever its impact.
const AXE: &str = "return axe.run(document, {iframes: false}).then(({ violations }) =>
    violations.map(({ id, impact, nodes }) => `${impact} ${id}: ${nodes.map((node) => node.html + ' ' + node.failureSummary)}`))";

/// Where it looks: each takes a second.
const AXE_LOOKS: [(&str, u32); 2] = [("light", 390), ("dark", 1280)];

async fn look(stage: &Stage, width: u32, scheme: &str) {
    let metrics = json!({"width": width, "height": 844, "deviceScaleFactor": 1, "mobile": width < 600});
    stage.browser.command("Emulation.setDeviceMetricsOverride", metrics).await;
    let features = json!({"features": [
        {"name": "prefers-color-scheme", "value": scheme}, {"name": "prefers-reduced-motion", "value": "reduce"},
    ]});
    stage.browser.command("Emulation.setEmulatedMedia", features).await;
}

/// Nothing sticks out, at the narrowest phone (or 200 % of 640 px) and at the sizes of docs/pins.md, in light and dark; and the
/// checker finds nothing.
async fn is_sound(stage: &Stage, what: &str) {
    let Some(axe) = axe() else { return };
    // The page's policy takes no script but its own; the driver's it takes.
    stage.browser.run(&format!("{axe}; window.axe = axe")).await;
    for scheme in ["light", "dark"] {
        for width in [320, 390, 1280] {
            look(stage, width, scheme).await;
            let wide = "return [document.documentElement.scrollWidth, document.documentElement.clientWidth]";
            let wide = stage.browser.run(wide).await;
            assert!(wide[0].as_u64() <= wide[1].as_u64(), "{what}, {width} px: {wide}");
            if AXE_LOOKS.contains(&(scheme, width)) {
                let found = stage.browser.run(AXE).await;
                assert_eq!(found, json!([]), "{what}, {scheme}, {width} px");
            }
            picture(stage, what, scheme, width).await;
        }
    }
}

/// The checker, installed by tests/run; without it, loudly, only widths are looked at, and CI fails.
fn axe() -> Option<String> {
    let file =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("target/clients/node/node_modules/axe-core/axe.min.js");
    let read = std::fs::read_to_string(&file);
    assert!(read.is_ok() || std::env::var_os("CI").is_none(), "{} is missing", file.display());
    if read.is_err() {
        eprintln!("!! the pages are not checked for accessibility: ./tests/run installs axe-core");
    }
    read.ok()
}

/// Keeps a picture where the environment asks for it: of every state in EMBOSSER_LOOKS, of those that the docs show in
/// EMBOSSER_SCREENSHOTS.
async fn picture(stage: &Stage, what: &str, scheme: &str, width: u32) {
    let shown = match (what, scheme, width) {
        ("choose form", "light", 390) | ("choose form", "light", 1280) => {
            Some(format!("pin-choose-{width}.png"))
        }
        ("view shown", "light", 390) | ("view shown", "light", 1280) => Some(format!("pin-view-{width}.png")),
        _ => None,
    };
    let every =
        std::env::var("EMBOSSER_LOOKS").ok().map(|into| format!("{into}/{what} {scheme} {width}.png"));
    let docs =
        std::env::var("EMBOSSER_SCREENSHOTS").ok().zip(shown).map(|(into, name)| format!("{into}/{name}"));
    for path in every.into_iter().chain(docs) {
        // The whole page, and no more.
        let height = stage
            .browser
            .run("return document.querySelector('footer').getBoundingClientRect().bottom + 24")
            .await;
        let metrics = json!({"width": width, "height": height.as_f64().unwrap().ceil(), "deviceScaleFactor": 1, "mobile": width < 600});
        stage.browser.command("Emulation.setDeviceMetricsOverride", metrics).await;
        std::fs::write(path, stage.browser.page.screenshot().await.unwrap()).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn choosing_is_accessible_in_every_state() {
    let stage = Stage::new().await;
    let Stage { company, browser, .. } = &stage;
    let card = company.card("2580").await;
    let change = Link { card: Some(card), refused: vec!["1984"], ..Link::default() };
    stage.choosing(change.clone()).await;
    is_sound(&stage, "choose form").await;
    stage.enter("1111", "").await;
    is_sound(&stage, "choose error").await;
    stage.enter("4715", "4716").await;
    is_sound(&stage, "choose differs").await;
    company.order("choose", [Ordered::Problem(503, "not_now")]);
    stage.enter("4715", "4715").await;
    browser.until_text("#problem", "right now").await;
    is_sound(&stage, "choose not now").await;
    browser.click("#submit").await;
    stage.shows("taken").await;
    is_sound(&stage, "choose taken").await;

    stage.open(&company.choose_url("none")).await;
    stage.shows("unusable").await;
    is_sound(&stage, "choose unusable").await;
    company.order("look", [Ordered::Problem(503, "not_now")]);
    stage.open(&company.choose_url(&company.send(change.clone()))).await;
    stage.shows("trouble").await;
    is_sound(&stage, "choose trouble").await;
    stage.choosing(change).await;
    company.order("choose", [Ordered::Problem(409, "card_refused")]);
    stage.enter("4715", "4715").await;
    stage.shows("refused").await;
    is_sound(&stage, "choose refused").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn viewing_is_accessible_in_every_state() {
    let stage = Stage::new().await;
    let Stage { company, browser, .. } = &stage;
    let card = company.card("4715").await;
    let link = |shows: &[&'static str]| {
        company.send(Link { card: Some(card.clone()), shows: Some(shows.to_vec()), ..Link::default() })
    };
    let token = link(&["pin"]);
    company.order("ephemeral-keys", [Ordered::Problem(503, "not_now")]);
    stage.open(&company.view_url(&token)).await;
    stage.shows("ready").await;
    is_sound(&stage, "view ready").await;
    browser.click("#show").await;
    browser.until_text("#problem", "still works").await;
    is_sound(&stage, "view error").await;
    let shown = "return document.querySelector('#shown-status').textContent === ''";
    browser.click("#show").await;
    stage.shows("shown").await;
    browser.until(shown).await;
    is_sound(&stage, "view shown").await;
    browser.click("#hide").await;
    stage.shows("hidden").await;
    is_sound(&stage, "view hidden").await;
    stage.open(&company.view_url(&token)).await;
    stage.shows("unusable").await;
    is_sound(&stage, "view unusable").await;
    stage.open(&company.view_url(&link(&["pin", "number", "expiry", "cvc"]))).await;
    browser.click("#show").await;
    stage.shows("shown").await;
    browser.until(shown).await;
    is_sound(&stage, "view shown whole").await;
}

/// A text for every key and place, and the same values in it; the page takes the browser's language, and any other at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_text_is_there_in_six_languages() {
    let stage = Stage::new().await;
    let Stage { company, browser, .. } = &stage;
    let agent = json!({"userAgent": "a browser", "acceptLanguage": "sv-SE,nl-BE,en"});
    browser.command("Emulation.setUserAgentOverride", agent).await;
    stage.choosing(Link { card: Some("ic_1".into()), ..Link::default() }).await;
    assert_eq!(browser.text("#form-title").await, "Wijzig de pincode van uw kaart");

    let texts = browser
        .run("return import('/pin/assets/texts.js').then(({ TEXTS, LANGUAGES }) => ({ TEXTS, LANGUAGES }))")
        .await;
    let of = |language: &str| texts["TEXTS"][language].as_object().unwrap().clone();
    assert_eq!(texts["LANGUAGES"].as_object().unwrap().len(), LANGUAGES.len());
    let values = |text: &Value| -> Vec<String> {
        let mut found: Vec<String> = text
            .as_str()
            .unwrap()
            .split('{')
            .skip(1)
            .map(|rest| rest.split('}').next().unwrap().to_owned())
            .collect();
        found.sort();
        found
    };
    let english = of("en");
    for language in LANGUAGES {
        let here = of(language);
        let keys = |texts: &serde_json::Map<String, Value>| texts.keys().cloned().collect::<Vec<_>>();
        assert_eq!(keys(&here), keys(&english), "{language}");
        for (key, text) in &here {
            assert_eq!(values(text), values(&english[key]), "{language} {key}");
            assert!(
                language == "en" || text != &english[key] || key == "pinLabel" || key == "labelPin",
                "{language} {key}"
            );
        }
    }
    // Each key is used by a page, and no page uses another.
    let pages = [
        include_str!("../../../src/serve/pin_page/choose.html"),
        include_str!("../../../src/serve/pin_page/view.html"),
        include_str!("../../../src/serve/pin_page/choose.js"),
        include_str!("../../../src/serve/pin_page/view.js"),
        include_str!("../../../src/serve/pin_page/page.js"),
        include_str!("../../../src/serve/pin_page/policy.js"),
    ]
    .concat();
    for key in english.keys() {
        assert!(pages.contains(&format!("\"{key}\"")), "{key} is not used");
    }
    for used in pages.split("data-text=\"").skip(1).map(|rest| rest.split('"').next().unwrap()) {
        assert!(english.contains_key(used), "{used} has no text");
    }
    assert_eq!(company.heard("choose").len(), 0);

    look(&stage, 320, "light").await;
    for language in LANGUAGES {
        browser.run(&format!("const e = document.querySelector('#language'); e.value = {language:?}; e.dispatchEvent(new Event('change'))")).await;
        assert_eq!(browser.run("return document.documentElement.lang").await, language);
        browser.click("#submit").await;
        let error = of(language)["pinMissing"].as_str().unwrap().to_owned();
        browser.until_text("#pin-error", &error).await;
        assert_eq!(json!(browser.page.title().await.unwrap()), of(language)["changeTitle"]);
        let words = browser.text("body").await;
        assert!(!words.contains('{') && !words.contains("undefined"), "{words}");
        assert!(words.contains("4242") && words.contains("2026"), "{words}");
        let wide = "return document.documentElement.scrollWidth <= document.documentElement.clientWidth";
        assert_eq!(browser.run(wide).await, true, "{language}");
        picture(&stage, &format!("language {language}"), "light", 320).await;
    }
}

#[tokio::test]
async fn headers_allow_what_the_pages_need_and_nothing_else() {
    let company = super::Company::start(embosser::sandbox::Options::default()).await;
    let sandbox = &company.asking.sandbox;
    let (key, api, elements) =
        (sandbox.key_url().replace("/v1/keys", ""), sandbox.api_url(), sandbox.elements_url());
    for (path, script, connect) in [
        ("/pin", "script-src 'self';".to_owned(), format!("connect-src 'self' {key};")),
        (
            "/pin/view",
            format!("script-src 'self' {elements}; frame-src {elements};"),
            format!("connect-src 'self' {elements} {api};"),
        ),
    ] {
        let answer = company.asking.client.get(format!("{}{path}", company.url)).send().await.unwrap();
        let header = |name: &str| answer.headers()[name].to_str().unwrap().to_owned();
        assert_eq!(
            (&*header("cache-control"), &*header("referrer-policy"), &*header("x-content-type-options")),
            ("no-store", "no-referrer", "nosniff")
        );
        let policy = header("content-security-policy") + ";";
        for part in [
            "default-src 'none';",
            "style-src 'self';",
            "img-src 'self';",
            "form-action 'none';",
            "base-uri 'none';",
            "frame-ancestors 'none';",
            &script,
            &connect,
        ] {
            assert!(policy.contains(part), "{path}: {part} is not in {policy}");
        }
        assert!(!policy.contains("unsafe"), "{policy}");
        let html = answer.text().await.unwrap();
        assert!(
            !html.contains("style=") && !html.contains("<script>") && !html.contains(" onclick"),
            "{path}"
        );
    }
}

/// With Stripe itself: its key endpoint, its script, its frames, its API; and nothing of these where no PIN is shown.
#[tokio::test]
async fn headers_allow_stripes_own_origins() {
    use embosser::serve::pin_page::{PinPage, router};
    use tower::ServiceExt as _;
    let (key, script, api) = (
        "https://issuing-key.stripe.com/v1/keys",
        "https://js.stripe.com/dahlia/stripe.js",
        "https://api.stripe.com",
    );
    for (script, path, policy) in [
        (Some(script), "/pin", "script-src 'self'; connect-src 'self' https://issuing-key.stripe.com;"),
        (
            Some(script),
            "/pin/view",
            "script-src 'self' https://js.stripe.com; frame-src https://js.stripe.com https://*.js.stripe.com https://hooks.stripe.com; \
             connect-src 'self' https://js.stripe.com https://api.stripe.com",
        ),
        (None, "/pin/view", "frame-ancestors 'none'; script-src 'self'; connect-src 'self'"),
    ] {
        let request = axum::extract::Request::get(path).body(axum::body::Body::empty()).unwrap();
        let routes = router::<()>(&PinPage::of(key, script, api).unwrap());
        let answer = routes.oneshot(request).await.unwrap();
        let answered = answer.headers()["content-security-policy"].to_str().unwrap();
        assert!(
            answered.contains(policy) && (script.is_some() || answered.ends_with(policy)),
            "{path}: {answered}"
        );
    }
    assert!(PinPage::of("not an address", None, api).is_err());
}
