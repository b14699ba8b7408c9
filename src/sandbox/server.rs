//! The HTTP server around the world: requests are read, carried out on tasks of their own, and answered or cut.

use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

use super::request::ApiRequest;
use super::response::{ApiResponse, Cut};
use super::world::{self, World};
use super::{account, identity, keys};

/// Largest request body.
const BODY_BYTES_MAX: usize = 1 << 20;

pub(super) async fn serve(listener: TcpListener, world: Arc<Mutex<World>>) {
    let mut connections = tokio::task::JoinSet::new();
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        let _ = stream.set_nodelay(true);
        let world = world.clone();
        connections.spawn(async move {
            let service = service_fn(move |request| answer(world.clone(), request));
            // A cut connection ends here with an error, which is the point.
            let _ = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
        while connections.try_join_next().is_some() {}
    }
}

/// Ends the connection without an answer.
#[derive(Debug, thiserror::Error)]
#[error("the connection is cut")]
struct Gone;

async fn answer(
    world: Arc<Mutex<World>>,
    request: Request<Incoming>,
) -> Result<Response<axum::body::Body>, Gone> {
    let (head, body) = request.into_parts();
    let body = axum::body::to_bytes(axum::body::Body::new(body), BODY_BYTES_MAX).await.map_err(|_| Gone)?;
    let header = |name: &str| head.headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let request = ApiRequest {
        method: head.method.as_str().to_owned(),
        path: head.uri.path().to_owned(),
        query: head.uri.query().unwrap_or("").to_owned(),
        authorization: header("authorization"),
        idempotency_key: header("idempotency-key"),
        version: header("stripe-version"),
        account: identity::account_of(
            header("stripe-account").as_deref(),
            header("authorization").as_deref(),
        ),
        body,
    };
    // On a task of its own: a client that hangs up does not stop what was begun.
    let response = tokio::spawn(act(world, request)).await.map_err(|_| Gone)?;
    let Some(response) = response else { return Err(Gone) };
    Ok(http_response(response).unwrap_or_else(|never| match never {}))
}

async fn act(world: Arc<Mutex<World>>, request: ApiRequest) -> Option<ApiResponse> {
    let lock = || world.lock().unwrap_or_else(PoisonError::into_inner);
    if request.path.starts_with("/_sandbox/") {
        return Some(account::control(&mut lock(), &request));
    }
    let begun = lock().begin(&request);
    let mut execution = match begun {
        world::Begun::Answered(response) => return response,
        world::Begun::Execute(execution) => execution,
        world::Begun::Silent(changed) => {
            changed.notified().await;
            return None;
        }
    };
    pass(&world, execution.latency).await;
    let pin = match execution.jwe.take() {
        None => Ok(None),
        Some((jwe, kid, key)) => {
            tokio::task::spawn_blocking(move || keys::decrypt(&jwe, &kid, &key).map(Some))
                .await
                .unwrap_or_else(|_| Err("could not be decrypted".into()))
        }
    };
    lock().finish(&request, *execution, pin)
}

/// Waits for so long by the sandbox's clock: a test that moves it ahead makes a long call end at once.
async fn pass(world: &Mutex<World>, time: Duration) {
    let lock = || world.lock().unwrap_or_else(PoisonError::into_inner);
    let (until, changed) = {
        let world = lock();
        (world.now() + time, world.changed.clone())
    };
    loop {
        // Listening begins before the look at the clock, so that no change between the two is missed.
        let mut change = std::pin::pin!(changed.notified());
        change.as_mut().enable();
        let left = until.saturating_sub(lock().now());
        if left.is_zero() {
            return;
        }
        tokio::select! {
            () = tokio::time::sleep(left) => {}
            () = change => {}
        }
    }
}

fn http_response(answer: ApiResponse) -> Result<Response<axum::body::Body>, Infallible> {
    let body = match answer.cut {
        Cut::Whole => axum::body::Body::from(Bytes::from(answer.body)),
        Cut::HalfWay => half_of(&answer.body),
    };
    let mut response = Response::new(body);
    *response.status_mut() = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    for (name, value) in answer.headers {
        if let Ok(value) = value.parse() {
            response.headers_mut().insert(name, value);
        }
    }
    Ok(response)
}

/// Half a body, and then the connection ends.
fn half_of(body: &str) -> axum::body::Body {
    let half = Bytes::copy_from_slice(&body.as_bytes()[..body.len() / 2]);
    let pieces = futures_util::stream::iter([Ok(half), Err(Gone)]);
    axum::body::Body::from_stream(pieces)
}
