//! Files that are read while they are sent: CSV, and what was made whole before.

use axum::body::Body;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use futures_util::stream;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use tokio::sync::{OwnedSemaphorePermit, mpsc};

use super::Server;

/// What of a file's name is escaped in a header.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'.').remove(b'-');

/// A piece of a download.
enum Page {
    Lines(Bytes),
    /// It is whole: a download that ends without this was cut off.
    End,
}

/// Where a download's lines go.
pub(super) struct Pages {
    to: mpsc::Sender<Page>,
    idle_max: std::time::Duration,
}

impl Pages {
    /// Sends some lines, once there is room for them.
    pub(super) async fn send(&self, lines: Vec<u8>) -> Result<(), String> {
        self.send_page(Page::Lines(lines.into())).await
    }

    async fn send_page(&self, page: Page) -> Result<(), String> {
        let sent = self.to.send_timeout(page, self.idle_max).await;
        sent.map_err(|_| "the client takes nothing any more".to_owned())
    }
}

/// An answer whose lines are written while it is sent.
pub(super) fn csv<F>(
    server: &Server,
    file_name: &str,
    place: OwnedSemaphorePermit,
    write: impl FnOnce(Server, Pages) -> F,
) -> Response
where
    F: Future<Output = Result<Pages, String>> + Send + 'static,
{
    file(server, (file_name, HeaderValue::from_static("text/csv; charset=utf-8")), place, write)
}

/// An answer with a file of this name and type, written while it is sent.
pub(super) fn file<F>(
    server: &Server,
    (file_name, file_type): (&str, HeaderValue),
    place: OwnedSemaphorePermit,
    write: impl FnOnce(Server, Pages) -> F,
) -> Response
where
    F: Future<Output = Result<Pages, String>> + Send + 'static,
{
    let (to, incoming) = mpsc::channel(1);
    let writing = write(server.clone(), Pages { to, idle_max: server.limits.idle_max });
    let name = file_name.to_owned();
    tokio::spawn(async move {
        let _place = place;
        let ended = match writing.await {
            Ok(pages) => pages.send_page(Page::End).await,
            Err(reason) => Err(reason),
        };
        if let Err(reason) = ended {
            // Without the end the client is not to take what it has for the whole: its connection is cut.
            tracing::warn!(name, reason, "a download was cut off");
        }
    });
    let pages = stream::unfold(Some(incoming), |incoming| async move {
        let mut incoming: mpsc::Receiver<Page> = incoming?;
        match incoming.recv().await {
            Some(Page::Lines(lines)) => Some((Ok(lines), Some(incoming))),
            Some(Page::End) => None,
            None => Some((Err(std::io::Error::other("cut off")), None)),
        }
    });
    let mut response = Body::from_stream(pages).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, file_type);
    let name = utf8_percent_encode(file_name, ESCAPED);
    if let Ok(value) = HeaderValue::from_str(&format!("attachment; filename*=UTF-8''{name}")) {
        headers.insert(header::CONTENT_DISPOSITION, value);
    }
    response
}
