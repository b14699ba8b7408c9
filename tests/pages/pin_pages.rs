//! Promise: on a phone or a desk, with a keyboard or a screen reader, in six languages, a cardholder chooses a PIN that leaves
//! the page as a JWE and in no other way, or sees one that the page never has; and what is wrong is said, with the way out.
//!
//! `EMBOSSER_SCREENSHOTS=docs cargo test --features killpoints --test pages pin_pages` makes the pictures of docs/pins.md.

mod choosing;
mod company;
mod looks;
use crate::support;
mod viewing;
mod whole;
mod wrong;

use std::sync::Arc;

use company::{Company, Link};
use embosser::sandbox::Options;
use serde_json::Value;
use support::browser::Browser;

/// A company, and a cardholder's browser.
struct Stage {
    company: Arc<Company>,
    browser: Browser,
    _downloads: tempfile::TempDir,
}

impl Stage {
    async fn set(options: Options, arguments: &[&str]) -> Self {
        let downloads = tempfile::tempdir().unwrap();
        let company = Company::start(options).await;
        let browser = Browser::watched(downloads.path(), arguments).await;
        Self { company, browser, _downloads: downloads }
    }

    async fn new() -> Self {
        Self::set(Options::default(), &[]).await
    }

    /// Opens a new link for choosing a PIN; answers its token.
    async fn choosing(&self, link: Link) -> String {
        let token = self.company.send(link);
        self.open(&self.company.choose_url(&token)).await;
        self.shows("form").await;
        token
    }

    /// Opens a page. From one fragment to another a browser loads nothing, so it goes by way of an empty one.
    async fn open(&self, url: &str) {
        self.browser.open("about:blank").await;
        self.browser.open(url).await;
    }

    /// Waits until this state of the page shows, and no other.
    async fn shows(&self, state: &str) {
        let shown = "[...document.querySelectorAll('section')].filter((each) => !each.hidden).map((each) => each.id).join()";
        self.browser.until(&format!("return {shown} === {state:?}")).await;
    }

    /// Types both PINs anew and sends them.
    async fn enter(&self, pin: &str, repeat: &str) {
        for (field, text) in [("#pin", pin), ("#repeat", repeat)] {
            self.browser.run(&format!("document.querySelector({field:?}).value = ''")).await;
            self.browser.keys(field, text).await;
        }
        self.browser.click("#submit").await;
    }

    /// What stands at the page's focus: its id.
    async fn focus(&self) -> Value {
        self.browser.run("return document.activeElement.id || document.activeElement.tagName").await
    }
}
