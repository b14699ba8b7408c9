//! A batch's progress as server-sent events.
//!
//! Each event holds the whole view, so a client that reconnects has missed nothing that matters.

use std::convert::Infallible;
use std::time::Duration;

use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream::unfold;
use tokio::sync::{OwnedSemaphorePermit, watch};
use utoipa::ToSchema;

use super::Server;
use super::access::Caller;
use super::problem::Problem;
use super::view::BatchView;

/// Least time between two events of a stream: as fast as people read.
const EVENTS_EVERY: Duration = Duration::from_millis(500);
/// A comment where nothing else is said, so that proxies keep the stream open and a dead client is noticed.
const ALIVE_EVERY: Duration = Duration::from_secs(15);
/// How long a client is asked to wait before it reconnects.
const RETRY: Duration = Duration::from_secs(2);
/// Between two looks at jobs that are sent one by one: their batch has no end.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// One event of a stream.
#[derive(ToSchema)]
#[allow(dead_code, reason = "the schema of what is written by hand")]
pub(super) struct EventView {
    /// `progress`, or `ended` for the last one.
    event: String,
    /// Counts the stream's events, from 1.
    id: String,
    /// Milliseconds to wait before the stream is opened again, should it drop.
    retry: u32,
    /// A `BatchView` as JSON.
    #[schema(content_media_type = "application/json")]
    data: String,
}

struct Stream {
    server: Server,
    name: String,
    changes: Option<watch::Receiver<u64>>,
    sent: u64,
    last: bool,
    caller: Caller,
    _place: OwnedSemaphorePermit,
}

/// Streams the batch's views: one at once, and one after each change until it has ended, or the caller's token opens it no
/// more.
pub(super) async fn follow(
    server: &Server,
    name: String,
    (caller, place): (Caller, OwnedSemaphorePermit),
) -> Result<Response, Problem> {
    // A batch that does not exist is told before the stream begins.
    server.batches.view(server, &name).await?;
    let changes = server.batches.watch(&name);
    let stream =
        Stream { server: server.clone(), name, changes, sent: 0, last: false, caller, _place: place };
    let events = Sse::new(unfold(stream, next));
    Ok(events.keep_alive(KeepAlive::new().interval(ALIVE_EVERY)).into_response())
}

async fn next(mut stream: Stream) -> Option<(Result<Event, Infallible>, Stream)> {
    if stream.last {
        return None;
    }
    if stream.sent > 0 {
        let (server, caller) = (stream.server.clone(), stream.caller.clone());
        tokio::select! {
            () = stream.changed() => {}
            () = server.stopping.cancelled() => return None,
            () = server.turned_away(&caller) => return None,
        }
    }
    // A batch that waited has become one that is under way: changes from before this view are in it.
    stream.changes = stream.server.batches.watch(&stream.name);
    let Stream { server, name, .. } = &stream;
    let under_way = server.batches.get(name).is_some_and(|batch| batch.is_under_way());
    let view = server.batches.view(server, name).await.ok()?;
    stream.last = !under_way && !view.state.may_go_on();
    stream.sent += 1;
    let event = event_of(&view, stream.sent, stream.last)?;
    Some((Ok(event), stream))
}

impl Stream {
    async fn changed(&mut self) {
        match &mut self.changes {
            Some(changes) => {
                tokio::time::sleep(EVENTS_EVERY).await;
                let _ = changes.changed().await;
            }
            None => {
                tokio::time::sleep(LOOK_EVERY).await;
            }
        }
    }
}

fn event_of(view: &BatchView, number: u64, last: bool) -> Option<Event> {
    let data = serde_json::to_string(view).ok()?;
    let name = if last { "ended" } else { "progress" };
    Some(Event::default().event(name).id(number.to_string()).retry(RETRY).data(data))
}
