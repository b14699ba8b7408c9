//! What there is for cardholders at this server: the pages, the links to them, or where else they are.
//!
//! The pages are where the line is: what is chosen there goes down it at once. A server that publishes to RabbitMQ gives out links to
//! the pages of another one on the same ledger.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::routing::get;

use super::Server;
use super::following::OTHER_LEDGER;
use super::intake::Intake;
use super::pin_page::{self, PinPage};
use super::problem::{Kind, Problem};
use crate::config::PinPageConfig;
use crate::line::Line;
use crate::pin_links::{LinksWhen, PinLinks};

/// What is said of a row or a job whose cardholder is to choose the PIN, where that cannot be.
const NO_PIN_PAGE: &str = "the cardholder is to choose the PIN, and there is no page for that here: set pin_page.url to where \
                                      cardholders reach `embosser serve`, or give the PIN another way";

/// What there is for cardholders.
pub(super) struct ForCardholders<'s> {
    pub(super) line: &'s Arc<Line>,
    pub(super) links: &'s PinLinks,
    pub(super) config: &'s PinPageConfig,
}

impl Server {
    /// What there is for cardholders here.
    pub(super) fn for_cardholders(&self) -> Result<ForCardholders<'_>, Problem> {
        let there = match &self.parts.intake {
            Intake::Line(line) => line.parts().pin_links.as_ref().map(|links| (line, links)),
            Intake::Queue(_) => None,
        };
        let (line, links) = there.ok_or_else(|| self.no_pages())?;
        Ok(ForCardholders { line, links, config: &self.parts.pin_page })
    }

    fn no_pages(&self) -> Problem {
        let detail = match (&self.parts.pin_page.url, &self.parts.intake) {
            (Some(url), Intake::Queue(_)) => format!(
                "there are no pages for cardholders here, as this server publishes to RabbitMQ (http.jobs_to); they are those of \
                 the `embosser serve` with http.jobs_to = \"line\" on the same ledger, at {url}"
            ),
            _ => "there are no pages for cardholders here: pin_page.url is not set".to_owned(),
        };
        Problem::new(Kind::NotFound, detail)
    }

    /// The links, which are given out here also where the pages are another server's on the same ledger.
    pub(super) fn links(&self) -> Result<PinLinks, Problem> {
        let links = match &self.parts.intake {
            Intake::Line(line) => line.parts().pin_links.clone(),
            Intake::Queue(_) => {
                let ledger = (&self.parts.views, self.scope(), self.clock());
                PinLinks::of(&self.parts.pin_page, LinksWhen::Asked, ledger)
            }
        };
        links.ok_or_else(|| self.no_pages())
    }

    /// Whether cardholders can choose a PIN, so that jobs may wait for that. The inner `Err` is why not, for who sends such jobs.
    pub(super) fn takes_choices(&self) -> Result<(), String> {
        if self.parts.pin_page.url.is_none() {
            return Err(NO_PIN_PAGE.to_owned());
        }
        match &self.parts.intake {
            Intake::Queue(queue) if queue.following.is_elsewhere() => Err(format!(
                "the cardholder is to choose the PIN, and no links for that can be given out here: {OTHER_LEDGER}"
            )),
            Intake::Queue(_) | Intake::Line(_) => Ok(()),
        }
    }
}

/// The pages themselves, where there is anything for them.
pub(super) fn pages(server: &Server) -> Router<Server> {
    let Ok(there) = server.for_cardholders() else {
        // Who comes with a link, or sets up the pages, is told where they are.
        let none = async |State(server): State<Server>| server.no_pages();
        return Router::new().route("/pin", get(none)).route("/pin/view", get(none));
    };
    let client = &there.line.parts().client;
    // Without the publishable key no PIN is shown, and no script from elsewhere is let in.
    let script = there.config.publishable_key.is_some().then_some(&*there.config.stripe_js);
    let page = PinPage::of(client.key_address(), script, client.api_address());
    pin_page::router(&page.expect("the configuration takes addresses only"))
}
