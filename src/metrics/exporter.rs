//! The metrics as Prometheus reads them, on `/metrics`.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::Router;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use axum::routing::get;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};

use super::{
    ACCOUNT_WAITS, BUILD, FROM_START, Kind, LEDGER_AWAY, METRICS, REFUSED_ALIKE, ROWS_BUCKETS,
    SECONDS_BUCKETS, WEBHOOK_OLDEST, WEBHOOKS_PENDING,
};

/// Between two moves of recorded durations into their buckets, so that they take no more memory than that.
const UPKEEP_EVERY: Duration = Duration::from_secs(5);
/// Prometheus's text format (prometheus.io/docs/instrumenting/exposition_formats).
const TEXT_FORMAT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What is recorded, ready to be read.
#[derive(Clone)]
pub struct Exporter {
    handle: PrometheusHandle,
    process: metrics_process::Collector,
    log_dropped: fn() -> u64,
}

impl Exporter {
    /// Begins to record, for the whole process. Before it, metrics cost nothing and go nowhere. `log_dropped` tells how many
    /// lines of the log were dropped so far.
    ///
    /// # Errors
    /// If metrics are recorded already.
    pub fn install(log_dropped: fn() -> u64) -> Result<Self, String> {
        let mut builder = PrometheusBuilder::new();
        for metric in METRICS {
            let buckets: &[f64] = match metric.kind {
                Kind::Seconds => &SECONDS_BUCKETS,
                Kind::Rows => &ROWS_BUCKETS,
                Kind::Counter | Kind::Gauge => continue,
            };
            let matcher = Matcher::Full(metric.name.into());
            builder = builder.set_buckets_for_metric(matcher, buckets).map_err(|error| error.to_string())?;
        }
        let handle = builder.install_recorder().map_err(|error| error.to_string())?;
        super::RECORDED.store(true, Ordering::Relaxed);
        describe();
        zero();
        metrics::gauge!(BUILD, "version" => env!("CARGO_PKG_VERSION")).set(1.0);
        let process = metrics_process::Collector::default();
        process.describe();
        Ok(Self { handle, process, log_dropped })
    }

    /// All of it, as text.
    #[must_use]
    pub fn render(&self) -> String {
        self.process.collect();
        super::log_dropped((self.log_dropped)());
        self.handle.render()
    }

    /// The answer of `/metrics`.
    pub fn answer(&self) -> impl IntoResponse + use<> {
        ([(CONTENT_TYPE, TEXT_FORMAT)], self.render())
    }

    /// `/metrics`. `refresh` sets the gauges that are read at the moment of asking.
    pub fn router(&self, refresh: impl Fn() + Clone + Send + Sync + 'static) -> Router {
        let exporter = self.clone();
        let answer = move || async move {
            refresh();
            exporter.answer()
        };
        Router::new().route("/metrics", get(answer))
    }

    /// Keeps memory flat for as long as the process runs.
    pub fn upkeep(&self) {
        let handle = self.handle.clone();
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(UPKEEP_EVERY).await;
                handle.run_upkeep();
            }
        });
    }

    /// Serves `/metrics` alone, as [`router`](Self::router) does, until the runtime ends; answers where.
    ///
    /// # Errors
    /// If it cannot listen there.
    pub async fn serve(
        &self,
        listen: SocketAddr,
        refresh: impl Fn() + Clone + Send + Sync + 'static,
    ) -> io::Result<SocketAddr> {
        let listener = tokio::net::TcpListener::bind(listen).await?;
        let address = listener.local_addr()?;
        let router = self.router(refresh);
        self.upkeep();
        tokio::spawn(async move { axum::serve(listener, router).await });
        Ok(address)
    }
}

fn describe() {
    for metric in METRICS {
        match metric.kind {
            Kind::Counter => metrics::describe_counter!(metric.name, metric.help),
            Kind::Gauge => metrics::describe_gauge!(metric.name, metric.help),
            Kind::Seconds | Kind::Rows => metrics::describe_histogram!(metric.name, metric.help),
        }
    }
}

/// A counter that never counted is 0, which is not the same as not being there; so is what is set only as it changes.
fn zero() {
    metrics::gauge!(REFUSED_ALIKE).set(0.0);
    metrics::gauge!(ACCOUNT_WAITS).set(0.0);
    metrics::gauge!(LEDGER_AWAY).set(0.0);
    super::broker_blocked(false);
    super::unsettled(0, std::time::Duration::ZERO, None);
    metrics::gauge!(WEBHOOKS_PENDING).set(0.0);
    metrics::gauge!(WEBHOOK_OLDEST).set(0.0);
    for metric in METRICS {
        if metric.kind == Kind::Counter && metric.labels.is_empty() {
            metrics::counter!(metric.name).increment(0);
        }
    }
    for (name, series) in FROM_START {
        for labels in *series {
            metrics::counter!(*name, *labels).increment(0);
        }
    }
    super::pins_awaited([0; 4]);
}
