//! With the feature `otlp`: spans, and their export over OTLP as protobuf over HTTP.

use std::fmt;
use std::future::Future;
use std::pin::Pin;

use axum::Router;
use axum::extract::{MatchedPath, Request};
use axum::http::HeaderMap;
use axum::middleware::{Next, from_fn};
use axum::response::Response;
use lapin::types::{AMQPValue, FieldTable};
use opentelemetry::Context;
use opentelemetry::propagation::{Extractor, Injector, TextMapPropagator as _};
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_http::{Bytes, HttpClient, HttpError};
use opentelemetry_otlp::{SpanExporter, WithHttpConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing::field::Empty;
use tracing::{Instrument as _, Level, Span, Subscriber, info_span};
use tracing_opentelemetry::OpenTelemetrySpanExt as _;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::registry::LookupSpan;

use super::{PARENT_HEADER, Server};

/// The target of these spans: they are for the collector and not for the log.
pub const TARGET: &str = "embosser::trace";
/// Either of them names the collector; the exporter reads them itself, and `OTEL_EXPORTER_OTLP_HEADERS` and the like.
const ENDPOINT_VARIABLES: [&str; 2] = ["OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"];

/// The export, to be ended so that the last spans get out.
#[derive(Debug)]
pub struct Export(SdkTracerProvider);

impl Export {
    /// Begins to export if the environment names a collector.
    ///
    /// # Errors
    /// What is wrong with the variables.
    pub fn begin(runtime: &tokio::runtime::Handle) -> Result<Option<Self>, String> {
        let is_set = |name: &&str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        if !ENDPOINT_VARIABLES.iter().any(is_set) {
            return Ok(None);
        }
        // One provider for every TLS client of the process; a second call finds it installed.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let http = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(|error| error.to_string())?;
        let client = Collector { http, runtime: runtime.clone() };
        let exporter = SpanExporter::builder()
            .with_http()
            .with_http_client(client)
            .build()
            .map_err(|error| format!("OTEL_EXPORTER_OTLP_…: {error}"))?;
        let mut resource = Resource::builder();
        if std::env::var_os("OTEL_SERVICE_NAME").is_none() {
            resource = resource.with_service_name("embosser");
        }
        let provider = SdkTracerProvider::builder()
            .with_batch_exporter(exporter)
            .with_resource(resource.build())
            .build();
        Ok(Some(Self(provider)))
    }

    /// Takes embosser's own spans, whatever the log's level is; no other library's, and nothing that is logged.
    pub fn layer<S>(&self) -> impl Layer<S> + use<S>
    where
        S: Subscriber + for<'s> LookupSpan<'s>,
    {
        tracing_opentelemetry::layer()
            .with_tracer(self.0.tracer("embosser"))
            .with_location(false)
            .with_threads(false)
            .with_target(false)
            .with_level(false)
            .with_tracked_inactivity(false)
            .with_filter(filter_fn(|metadata| {
                metadata.is_span()
                    && *metadata.level() <= Level::INFO
                    && metadata.target().starts_with("embosser")
            }))
    }

    /// Sends what is left.
    pub fn end(self) {
        if let Err(error) = self.0.shutdown() {
            tracing::warn!(%error, "the last spans were not taken by the collector");
        }
    }
}

/// The way to the collector: our own HTTP client, on our own runtime, since spans are sent from a thread without one.
struct Collector {
    http: reqwest::Client,
    runtime: tokio::runtime::Handle,
}

impl fmt::Debug for Collector {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Collector")
    }
}

type Sent = Result<axum::http::Response<Bytes>, HttpError>;

impl HttpClient for Collector {
    fn send_bytes<'c, 'f>(
        &'c self,
        request: axum::http::Request<Bytes>,
    ) -> Pin<Box<dyn Future<Output = Sent> + Send + 'f>>
    where
        'c: 'f,
        Self: 'f,
    {
        let http = self.http.clone();
        let sending = self.runtime.spawn(async move {
            let (parts, body) = request.into_parts();
            let request = http.request(parts.method, parts.uri.to_string()).headers(parts.headers).body(body);
            let answer = request.send().await?;
            let (status, headers) = (answer.status(), answer.headers().clone());
            let mut response = axum::http::Response::new(answer.bytes().await?);
            (*response.status_mut(), *response.headers_mut()) = (status, headers);
            Ok::<_, reqwest::Error>(response)
        });
        Box::pin(async move {
            let sent: Sent = sending.await.map_err(HttpError::from)?.map_err(HttpError::from);
            match &sent {
                Err(_) => tracing::warn!("spans are lost: the collector cannot be reached"),
                Ok(answer) if !answer.status().is_success() => {
                    tracing::warn!(
                        status = answer.status().as_u16(),
                        "spans are lost: the collector refuses them"
                    );
                }
                Ok(_) => {}
            }
            sent
        })
    }
}

/// A message's headers, as far as the context of a trace is in them.
struct Headers<'h>(&'h FieldTable);

impl Extractor for Headers<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        match self.0.inner().get(key)? {
            AMQPValue::LongString(text) => std::str::from_utf8(text.as_bytes()).ok(),
            AMQPValue::ShortString(text) => Some(text.as_str()),
            _ => None,
        }
    }

    fn keys(&self) -> Vec<&str> {
        vec![PARENT_HEADER]
    }
}

struct HeadersMut<'h>(&'h mut FieldTable);

impl Injector for HeadersMut<'_> {
    fn set(&mut self, key: &str, value: String) {
        if key == PARENT_HEADER {
            self.0.insert(key.into(), AMQPValue::LongString(value.into()));
        }
    }
}

struct RequestHeaders<'h>(&'h HeaderMap);

impl Extractor for RequestHeaders<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key)?.to_str().ok()
    }

    fn keys(&self) -> Vec<&str> {
        vec![PARENT_HEADER]
    }
}

/// The span's trace goes on from where its sender was. Without a context, or with one that is none, it is a new one.
fn continue_from(span: &Span, headers: &impl Extractor) {
    // An error means that nobody takes the span.
    let _ = span.set_parent(TraceContextPropagator::new().extract_with_context(&Context::new(), headers));
}

/// A delivery's span: its parent is in the message's headers.
pub(crate) fn delivered(server: Server<'_>, queue: &str, headers: &FieldTable, bytes: usize) -> Span {
    let span = message_span("process", "consumer", server, queue, bytes);
    continue_from(&span, &Headers(headers));
    span
}

/// A publish's span; the message's headers get its context.
pub(crate) fn sending(server: Server<'_>, queue: &str, headers: &mut FieldTable, bytes: usize) -> Span {
    let span = message_span("send", "producer", server, queue, bytes);
    TraceContextPropagator::new().inject_context(&span.context(), &mut HeadersMut(headers));
    span
}

fn message_span(operation: &str, kind: &str, server: Server<'_>, queue: &str, bytes: usize) -> Span {
    info_span!(
        target: TARGET,
        "message",
        otel.name = format!("{operation} {queue}"),
        otel.kind = kind,
        messaging.system = "rabbitmq",
        messaging.operation.name = operation,
        messaging.operation.r#type = operation,
        messaging.destination.name = queue,
        messaging.message.body.size = bytes,
        server.address = server.address,
        server.port = server.port,
    )
}

/// The span of a request to Stripe. Stripe is not told of it.
pub(crate) fn requesting(method: &str, url: &url::Url) -> Span {
    info_span!(
        target: TARGET,
        "request",
        otel.name = format!("{method} {}", url.path()),
        otel.kind = "client",
        otel.status_code = Empty,
        http.request.method = method,
        http.response.status_code = Empty,
        error.r#type = Empty,
        url.template = url.path(),
        server.address = url.host_str().unwrap_or_default(),
        server.port = url.port_or_known_default().unwrap_or_default(),
    )
}

/// How the request ended; without a status there was no answer.
pub(crate) fn answered(span: &Span, status: Option<u16>) {
    if let Some(status) = status {
        span.record("http.response.status_code", status);
    }
    if status.is_none_or(|status| status >= 400) {
        span.record("otel.status_code", "ERROR");
        span.record("error.type", status.map_or("no_answer".to_owned(), |status| status.to_string()));
    }
}

/// Each request that is served gets a span: its parent is in the request's headers.
pub(crate) fn serving<S: Clone + Send + Sync + 'static>(router: Router<S>) -> Router<S> {
    router.layer(from_fn(served))
}

async fn served(request: Request, next: Next) -> Response {
    let method = request.method().as_str().to_owned();
    let route = request.extensions().get::<MatchedPath>().map_or("", MatchedPath::as_str).to_owned();
    let span = info_span!(
        target: TARGET,
        "serve",
        otel.name = format!("{method} {route}").trim_end(),
        otel.kind = "server",
        otel.status_code = Empty,
        http.request.method = method,
        http.route = route,
        http.response.status_code = Empty,
        url.scheme = "http",
    );
    continue_from(&span, &RequestHeaders(request.headers()));
    let response = next.run(request).instrument(span.clone()).await;
    span.record("http.response.status_code", response.status().as_u16());
    if response.status().is_server_error() {
        span.record("otel.status_code", "ERROR");
    }
    response
}
