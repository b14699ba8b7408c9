//! How the page looks and reads: at phones' widths and on a desk, in light and dark, and to an accessibility checker.

use std::path::Path;

use serde_json::json;

use super::support::browser::Browser;

/// Axe's rules of WCAG and its good practices; what it finds, whatever its impact.
const AXE: &str = "return axe.run(document).then(({ violations }) =>
    violations.map(({ id, impact, nodes }) => `${impact} ${id}: ${nodes.map((node) => node.html + ' ' + node.failureSummary)}`))";

/// Words of engineers', which stand in titles and in what is downloaded, and never on the page.
const FOREIGN: &str = "return document.body.innerText.match(/[^\\n]*(SHA-256|JWE|ciphertext|idempoten|parameter|HTTP)[^\\n]*/gi) ?? []";

/// Sentences that became columns of single words, because what stands beside them left no room.
const SQUEEZED: &str = "return [...document.body.querySelectorAll('*')].filter((one) => {
    const own = [...one.childNodes].filter(({ nodeType }) => nodeType === 3).map(({ textContent }) => textContent.trim()).join(' ');
    if (own.split(/\\s+/).length < 5 || !one.checkVisibility() || one.closest('script, option, select, .skip')) return false;
    const { width, height } = one.getBoundingClientRect();
    return width > 1 && width < 80 && height > 4 * parseFloat(getComputedStyle(one).fontSize);
}).map((one) => one.outerHTML.slice(0, 200))";

/// Where it looks: each takes a second.
const AXE_LOOKS: [(&str, u32); 2] = [("light", 390), ("dark", 1280)];

/// How docs/page.md shows every state: on a desk by day, and on a phone by night.
const SHOWN: [(&str, u32); 2] = [("light", 1280), ("dark", 390)];

async fn look(browser: &Browser, width: u32, scheme: &str) {
    let metrics = json!({"width": width, "height": 844, "deviceScaleFactor": 1, "mobile": width < 600});
    browser.command("Emulation.setDeviceMetricsOverride", metrics).await;
    let features = json!({"features": [
        {"name": "prefers-color-scheme", "value": scheme}, {"name": "prefers-reduced-motion", "value": "reduce"},
    ]});
    browser.command("Emulation.setEmulatedMedia", features).await;
}

/// Nothing sticks out, at the narrowest phone (or 200 % of 640 px) and on a desk, in light and dark; and the checker finds
/// nothing.
pub(crate) async fn is_sound(browser: &Browser, what: &str) {
    let axe = axe();
    // The page's policy takes no script but its own; the driver's it takes.
    if let Some(axe) = &axe
        && browser.run("return !window.axe").await == json!(true)
    {
        browser.run(&format!("{axe}; window.axe = axe")).await;
    }
    let foreign = browser.run(FOREIGN).await;
    assert_eq!(foreign, json!([]), "{what}: what whoever has a spreadsheet would not understand");
    let is_kept =
        ["EMBOSSER_LOOKS", "EMBOSSER_SCREENSHOTS"].iter().any(|into| std::env::var_os(into).is_some());
    for scheme in ["light", "dark"] {
        for width in [320, 390, 1280] {
            // Nothing is wider in the dark.
            if scheme == "dark" && !is_kept && !AXE_LOOKS.contains(&(scheme, width)) {
                continue;
            }
            look(browser, width, scheme).await;
            let wide = "return [document.documentElement.scrollWidth, document.documentElement.clientWidth]";
            let wide = browser.run(wide).await;
            assert!(wide[0].as_u64() <= wide[1].as_u64(), "{what}, {width} px: {wide}");
            assert_eq!(browser.run(SQUEEZED).await, json!([]), "{what}, {width} px");
            if AXE_LOOKS.contains(&(scheme, width)) && axe.is_some() {
                let found = browser.run(AXE).await;
                assert_eq!(found, json!([]), "{what}, {scheme}, {width} px");
            }
            picture(browser, what, scheme, width).await;
        }
    }
    browser.command("Emulation.clearDeviceMetricsOverride", json!({})).await;
}

/// The checker, installed by tests/run; without it, loudly, only widths are looked at, and CI fails.
fn axe() -> Option<String> {
    let file =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("target/clients/node/node_modules/axe-core/axe.min.js");
    let read = std::fs::read_to_string(&file);
    assert!(read.is_ok() || std::env::var_os("CI").is_none(), "{} is missing", file.display());
    if read.is_err() {
        eprintln!("!! the page is not checked for accessibility: ./tests/run installs axe-core");
    }
    read.ok()
}

/// Keeps a picture where the environment asks for it: every look in EMBOSSER_LOOKS, those that the docs show in
/// EMBOSSER_SCREENSHOTS.
async fn picture(browser: &Browser, what: &str, scheme: &str, width: u32) {
    let shown = SHOWN.contains(&(scheme, width)).then(|| format!("page-{what}-{width}.png"));
    let every =
        std::env::var("EMBOSSER_LOOKS").ok().map(|into| format!("{into}/{what} {scheme} {width}.png"));
    let docs =
        std::env::var("EMBOSSER_SCREENSHOTS").ok().zip(shown).map(|(into, name)| format!("{into}/{name}"));
    for path in every.into_iter().chain(docs) {
        let height =
            browser.run("return document.documentElement.scrollHeight").await.as_u64().unwrap().min(1000);
        let metrics =
            json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600});
        browser.command("Emulation.setDeviceMetricsOverride", metrics).await;
        std::fs::write(path, browser.page.screenshot().await.unwrap()).unwrap();
    }
}
