//! Connections: each with its bounds, and all of them ended in good order.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt as _;

use super::door::{Door, Place};
use super::limits::{CONNECTIONS_MAX, HEADERS_MAX, Limits, READ_BUFFER_BYTES};

/// After a failed accept (no more file descriptors): time for connections to end.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How long requests under way may take to end when the server stops.
const STOP_MAX: Duration = Duration::from_secs(10);

/// The other end of a request's connection.
#[derive(Debug, Clone, Copy)]
pub(super) struct Peer(pub(super) SocketAddr);

/// Serves connections until it is told to stop, and then until they have ended.
pub(super) async fn serve(
    listener: TcpListener,
    router: Router,
    limits: Limits,
    stopping: CancellationToken,
) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let door = Arc::new(Door::default());
    let connections = TaskTracker::new();
    loop {
        let accepted = async {
            if places.available_permits() == 0 {
                door.make_room();
            }
            let permit = places.clone().acquire_owned().await.expect("the semaphore is never closed");
            (permit, listener.accept().await)
        };
        let (permit, accepted) = tokio::select! {
            accepted = accepted => accepted,
            () = stopping.cancelled() => break,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let (router, stopping, place) = (router.clone(), stopping.clone(), door.enter(peer.ip()));
        connections.spawn(async move {
            connection(stream, (peer, place), router, limits, stopping).await;
            drop(permit);
        });
    }
    drop(listener);
    connections.close();
    let _ = tokio::time::timeout(STOP_MAX, connections.wait()).await;
}

async fn connection(
    stream: TcpStream,
    (peer, place): (SocketAddr, Place),
    router: Router,
    limits: Limits,
    stopping: CancellationToken,
) {
    let _ = stream.set_nodelay(true);
    let of_request = place.clone();
    let service = service_fn(move |request: Request<Incoming>| {
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(Peer(peer));
        request.extensions_mut().insert(of_request.clone());
        let asking = of_request.ask();
        let answer = router.clone().oneshot(request);
        async move {
            let answer = answer.await;
            drop(asking);
            answer
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header_max)
        .max_buf_size(READ_BUFFER_BYTES)
        .max_headers(HEADERS_MAX)
        .serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    // A client that hangs up or breaks the protocol ends here with an error, which concerns nobody else.
    let cut = tokio::select! {
        _ = connection.as_mut() => return,
        () = place.closed() => return,
        () = stopping.cancelled() => {
            connection.as_mut().graceful_shutdown();
            tokio::time::timeout(STOP_MAX, connection).await.is_err()
        }
    };
    if cut {
        tracing::warn!(%peer, "a request was cut off to stop");
    }
}
