//! Every metric: its name, its labels, its unit and what it means, in one place.
//!
//! Duty: the rest of embosser says what happened by calling a function here, in words and numbers; nobody else names a
//! metric, and nobody's types are known here. Never: a label whose values are without bound (no job, batch or card id). docs/metrics.md is the table of [`METRICS`], and a
//! test holds the two together.

mod accounts;
pub mod exporter;
mod table;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

pub use accounts::{account_is_gone, name_accounts};
use table::*;
pub use table::{Kind, METRICS, Metric, ROWS_BUCKETS, SECONDS_BUCKETS};
/// Whether anybody records: until then a job's many durations cost nothing, not even their labels.
static RECORDED: AtomicBool = AtomicBool::new(false);

fn recorded() -> bool {
    RECORDED.load(Ordering::Relaxed)
}

/// A job of an account ended.
fn count_job(account: Option<&str>, outcome: &'static str, code: &'static str) {
    let mut labels = vec![metrics::Label::new("outcome", outcome), metrics::Label::new("code", code)];
    labels.extend(accounts::of_counter(account));
    metrics::counter!(JOBS, labels).increment(1);
}

/// A job's time in this process, from taken to ended; dropped without an end, it was left.
pub(crate) struct InFlight {
    began: Instant,
    /// As `account` is in `accounts`.
    of: Option<String>,
}

impl InFlight {
    pub(crate) fn begin(account: Option<&str>) -> Self {
        metrics::gauge!(JOBS_IN_FLIGHT).increment(1.0);
        Self { began: Instant::now(), of: account.map(str::to_owned) }
    }

    /// How long it took so far.
    pub(crate) fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    pub(crate) fn ended(self, outcome: &'static str, code: &'static str, recorded_before: bool) {
        count_job(self.of.as_deref(), outcome, code);
        if recorded_before {
            metrics::counter!(JOBS_RECORDED).increment(1);
        }
        stage("total", self.elapsed());
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        metrics::gauge!(JOBS_IN_FLIGHT).decrement(1.0);
    }
}

/// A stage that a job is in. The clock is only looked at where somebody records.
#[must_use]
pub(crate) struct Stage {
    name: &'static str,
    began: Option<Instant>,
}

impl Stage {
    pub(crate) fn begin(name: &'static str) -> Self {
        Self { name, began: recorded().then(Instant::now) }
    }

    pub(crate) fn ended(self) {
        self.ended_for(1);
    }

    /// So many jobs were in it together.
    pub(crate) fn ended_for(self, jobs: usize) {
        if let Some(began) = self.began {
            let took = began.elapsed().as_secs_f64();
            metrics::histogram!(JOB_DURATION, "stage" => self.name).record_many(took, jobs);
        }
    }
}

/// A job spent so long in a stage.
pub(crate) fn stage(stage: &'static str, took: Duration) {
    if !recorded() {
        return;
    }
    metrics::histogram!(JOB_DURATION, "stage" => stage).record(took.as_secs_f64());
}

/// A call did not end its job.
pub(crate) fn retried(reason: &'static str) {
    metrics::counter!(RETRIES, "reason" => reason).increment(1);
}

/// A look for a job's card ended.
pub(crate) fn reconciled(verdict: &'static str) {
    metrics::counter!(RECONCILIATIONS, "verdict" => verdict).increment(1);
}

/// A request to Stripe ended; without a status there was no answer.
pub(crate) fn stripe_request(operation: &'static str, status: Option<u16>, took: Duration) {
    if !recorded() {
        return;
    }
    let status = match status.map(|status| status / 100) {
        None => "none",
        Some(2) => "2xx",
        Some(3) => "3xx",
        Some(4) => "4xx",
        Some(5) => "5xx",
        Some(_) => "other",
    };
    metrics::histogram!(STRIPE_REQUEST, "operation" => operation, "status" => status)
        .record(took.as_secs_f64());
}

/// A limiter turned a call away.
pub(crate) fn rate_limited(reason: &'static str) {
    metrics::counter!(RATE_LIMITED, "reason" => reason).increment(1);
}

/// The PIN's key could not be had.
pub(crate) fn key_failed() {
    metrics::counter!(KEY_FAILURES).increment(1);
}

/// A PIN was encrypted under another key than the current one.
pub(crate) fn stale_key() {
    metrics::counter!(STALE_KEYS).increment(1);
}

/// A PIN goes out that came so long ago.
pub(crate) fn pin_used(age: Duration) {
    if !recorded() {
        return;
    }
    metrics::histogram!(PIN_AGE).record(age.as_secs_f64());
}

/// What became of a cardholder's link.
pub(crate) fn pin_link(event: &'static str) {
    metrics::counter!(PIN_LINKS, "event" => event).increment(1);
}

/// So many jobs wait for a PIN since less than an hour, a day, a week, or for longer.
pub(crate) fn pins_awaited(by_age: [u64; 4]) {
    for (age, count) in ["hour", "day", "week", "older"].into_iter().zip(by_age) {
        #[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
        metrics::gauge!(PINS_AWAITED, "age" => age).set(count as f64);
    }
}

/// A permit came after so long a wait.
pub(crate) fn permit(waited: Duration) {
    if !recorded() {
        return;
    }
    metrics::counter!(PERMITS).increment(1);
    metrics::histogram!(PERMIT_WAIT).record(waited.as_secs_f64());
}

/// Rows became durable together.
#[expect(clippy::cast_precision_loss, reason = "a group's rows are few")]
pub(crate) fn committed(rows: usize, took: Duration) {
    if !recorded() {
        return;
    }
    metrics::histogram!(LEDGER_COMMIT).record(took.as_secs_f64());
    metrics::histogram!(LEDGER_ROWS).record(rows as f64);
}

/// The pace at a moment.
pub(crate) struct Pace {
    pub(crate) configured_per_second: f64,
    pub(crate) current_per_second: f64,
    pub(crate) concurrency: usize,
    pub(crate) is_paused: bool,
    pub(crate) is_stripe_down: bool,
    pub(crate) is_key_endpoint_down: bool,
}

/// An account's pace at this moment.
#[expect(clippy::cast_precision_loss, reason = "a bound on calls in flight")]
pub(crate) fn pace(pace: &Pace, account: Option<&str>) {
    set(PACE_CONFIGURED, account, pace.configured_per_second);
    set(PACE_CURRENT, account, pace.current_per_second);
    set(CONCURRENCY, account, pace.concurrency as f64);
    set(PACE_PAUSED, account, flag(pace.is_paused));
    set(STRIPE_DOWN, account, flag(pace.is_stripe_down));
    set(KEY_ENDPOINT_DOWN, account, flag(pace.is_key_endpoint_down));
}

/// Sets an account's gauge, if it has any.
fn set(gauge: &'static str, account: Option<&str>, value: f64) {
    if let Some(labels) = accounts::of_gauge(account) {
        metrics::gauge!(gauge, labels).set(value);
    }
}

fn flag(is_so: bool) -> f64 {
    f64::from(u8::from(is_so))
}

/// Whether Stripe refuses every job of an account for the same reason.
pub(crate) fn refused_alike(refused: bool, account: Option<&str>) {
    set(REFUSED_ALIKE, account, flag(refused));
}

/// Whether jobs wait for another process that calls for the same account.
pub(crate) fn account_waits(waits: bool, account: Option<&str>) {
    set(ACCOUNT_WAITS, account, flag(waits));
}

/// What a try to tell an endpoint of an event came to.
pub(crate) fn webhook_delivery(result: &'static str) {
    metrics::counter!(WEBHOOK_DELIVERIES, "result" => result).increment(1);
}

/// So many events are still to be delivered, the oldest of them so old.
pub(crate) fn webhooks_pending(pending: usize, oldest: Duration) {
    #[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
    metrics::gauge!(WEBHOOKS_PENDING).set(pending as f64);
    metrics::gauge!(WEBHOOK_OLDEST).set(oldest.as_secs_f64());
}

/// One more of the ledger's connections waits for its database, or one less.
pub(crate) fn ledger_away(is_away: bool) {
    metrics::gauge!(LEDGER_AWAY).increment(if is_away { 1.0 } else { -1.0 });
}

/// So many lines of the log were dropped, ever.
pub(crate) fn log_dropped(lines: u64) {
    metrics::counter!(LOG_DROPPED).absolute(lines);
}

/// So many messages wait in an account's queue.
pub(crate) fn queue(queue: &'static str, messages: u32, account: Option<&str>) {
    if let Some(mut labels) = accounts::of_gauge(account) {
        labels.insert(0, metrics::Label::new("queue", queue));
        metrics::gauge!(QUEUE, labels).set(f64::from(messages));
    }
}

/// So many of an account's messages are parked.
pub(crate) fn parked(messages: u32, account: Option<&str>) {
    set(PARKED, account, f64::from(messages));
}

/// The oldest job of an account's queue is so old.
pub(crate) fn queue_age(age: Duration, account: Option<&str>) {
    set(QUEUE_AGE, account, age.as_secs_f64());
}

/// A delivery was settled.
pub(crate) fn settled(settlement: &'static str) {
    metrics::counter!(SETTLEMENTS, "settlement" => settlement).increment(1);
}

/// A result event found no queue.
pub(crate) fn result_unheard() {
    metrics::counter!(UNHEARD).increment(1);
}

/// The broker gave up on a job.
pub(crate) fn dead_letter() {
    metrics::counter!(DEAD_LETTERS).increment(1);
}

/// The worker is subscribed to the jobs queue, or is not any more.
pub(crate) fn consuming(consuming: bool, account: Option<&str>) {
    set(CONSUMING, account, flag(consuming));
}

/// Consuming begins anew.
pub(crate) fn reconnected() {
    metrics::counter!(RECONNECTS).increment(1);
}

/// An acknowledgement came too late.
pub(crate) fn ack_lost() {
    metrics::counter!(ACKS_LOST).increment(1);
}

/// RabbitMQ has an alarm and takes no messages, or has none any more.
pub(crate) fn broker_blocked(blocked: bool) {
    metrics::gauge!(BLOCKED).set(f64::from(u8::from(blocked)));
}

/// So many deliveries are to be settled, the oldest of them for so long.
#[expect(clippy::cast_precision_loss, reason = "a few hundred")]
pub(crate) fn unsettled(count: usize, oldest: Duration, account: Option<&str>) {
    set(UNSETTLED, account, count as f64);
    set(UNSETTLED_OLDEST, account, oldest.as_secs_f64());
}

/// Whom this process calls for.
pub(crate) fn account(account: &str, mode: &str) {
    if accounts::of_gauge(Some(account)).is_some() {
        metrics::gauge!(ACCOUNT_INFO, "account" => account.to_owned(), "mode" => mode.to_owned()).set(1.0);
    }
}

/// A publish was not confirmed.
pub(crate) fn publish_unconfirmed() {
    metrics::counter!(UNCONFIRMED).increment(1);
}

/// A message was refused that is no job.
pub(crate) fn refused_message(code: &'static str, account: Option<&str>) {
    count_job(account, "refused", code);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The values of a counter's label that are there from the start.
    fn from_start(counter: &str, label: &str) -> Vec<&'static str> {
        let (_, series) = FROM_START.iter().find(|(name, _)| *name == counter).unwrap();
        let labels = series.iter().flat_map(|labels| labels.iter());
        labels.filter(|(name, _)| *name == label).map(|(_, value)| *value).collect()
    }

    #[test]
    fn every_counter_is_there_from_the_start_with_its_own_labels() {
        for metric in METRICS.iter().filter(|metric| metric.kind == Kind::Counter) {
            let series = FROM_START.iter().find(|(name, _)| *name == metric.name);
            assert_eq!(series.is_none(), metric.labels.is_empty(), "{}", metric.name);
            for labels in series.iter().flat_map(|(_, series)| series.iter()) {
                assert!(labels.iter().map(|(name, _)| name).eq(metric.labels), "{}: {labels:?}", metric.name);
            }
        }
    }

    /// Whatever a job may be left with is a series that an alert watches from the start.
    #[test]
    fn every_code_of_an_unresolved_job_is_there_from_the_start() {
        let there = from_start(JOBS, "code");
        let line = [
            include_str!("../line/mod.rs"),
            include_str!("../line/carry/mod.rs"),
            include_str!("../line/carry/answer.rs"),
            include_str!("../line/carry/attempt.rs"),
            include_str!("../line/carry/wait.rs"),
        ];
        // However the lines are broken.
        let line: String = line.concat().split_whitespace().collect::<Vec<_>>().join(" ");
        let pieces = ["latest = Refusal::own(\"", "latest: Refusal::own(\"", "latest = Refusal::own( \""];
        let codes: Vec<&str> = pieces
            .iter()
            .flat_map(|piece| line.split(piece).skip(1))
            .map(|rest| rest.split('"').next().unwrap_or_default())
            .collect();
        assert!(codes.len() >= 12, "{codes:?}");
        // Stripe's own, of a refusal that is everybody's.
        for code in codes.into_iter().chain(["stripe"]) {
            assert!(there.contains(&code), "{code}");
        }
    }
}
