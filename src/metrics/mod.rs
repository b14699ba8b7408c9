//! Every metric: its name, its labels, its unit and what it means, in one place.
//!
//! Duty: the rest of embosser says what happened by calling a function here, in words and numbers; nobody else names a
//! metric, and nobody's types are known here. Never: a label whose values are without bound (no job, batch or card id). docs/metrics.md is the table of [`METRICS`], and a
//! test holds the two together.

pub mod exporter;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// What a metric counts or measures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only ever grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Durations, sorted into buckets.
    Seconds,
    /// Counts, sorted into buckets.
    Rows,
}

/// A metric, as documented.
#[derive(Debug, Clone, Copy)]
pub struct Metric {
    /// Its name.
    pub name: &'static str,
    /// What it is.
    pub kind: Kind,
    /// Its labels.
    pub labels: &'static [&'static str],
    /// What it means.
    pub help: &'static str,
}

macro_rules! metrics {
    ($($constant:ident, $name:literal, $kind:ident, [$($label:literal),*], $help:literal;)*) => {
        $(const $constant: &str = $name;)*
        /// Every metric of embosser's own; the process's (`process_*`) come beside them.
        pub const METRICS: &[Metric] = &[$(
            Metric { name: $name, kind: Kind::$kind, labels: &[$($label),*], help: $help },
        )*];
    };
}

metrics! {
    JOBS, "embosser_jobs_total", Counter, ["outcome", "code"],
        "Jobs that ended: outcome issued, updated, created, refused, unresolved or awaiting_pin; code says why not issued.";
    JOBS_RECORDED, "embosser_jobs_recorded_before_total", Counter, [],
        "Duplicates suppressed: jobs that came again and were answered from the ledger.";
    JOBS_IN_FLIGHT, "embosser_jobs_in_flight", Gauge, [],
        "Jobs taken that have not ended.";
    JOB_DURATION, "embosser_job_duration_seconds", Seconds, ["stage"],
        "Time of a job in a stage; stage total is from taken to ended.";
    RETRIES, "embosser_retries_total", Counter, ["reason"],
        "Calls that did not end their job, by why.";
    RECONCILIATIONS, "embosser_reconciliations_total", Counter, ["verdict"],
        "Looks for a job's card at Stripe: found, absent or failed.";
    STRIPE_REQUEST, "embosser_stripe_request_duration_seconds", Seconds, ["operation", "status"],
        "Requests to Stripe: operation create_card, create_cardholder, update_card, list_cards, list_cardholders, get_card, get_cardholder, get_design, get_account, ephemeral_key or pin_key; status 2xx to 5xx, or none without an answer.";
    RATE_LIMITED, "embosser_stripe_rate_limited_total", Counter, ["reason"],
        "429s of Stripe's limiters, by the reason they give.";
    KEY_FAILURES, "embosser_pin_key_failures_total", Counter, [],
        "PIN keys that could not be fetched or read.";
    STALE_KEYS, "embosser_stale_keys_total", Counter, [],
        "PINs that were encrypted under a key that is not Stripe's current one.";
    PIN_AGE, "embosser_pin_age_seconds", Seconds, [],
        "How long a PIN's ciphertext had been in our hands when it was sent to Stripe.";
    PIN_LINKS, "embosser_pin_links_total", Counter, ["event"],
        "Cardholders' links: made, looked_at, used, revoked, or unusable where somebody came with one that is not.";
    PINS_AWAITED, "embosser_pins_awaited", Gauge, ["age"],
        "Jobs that wait for their cardholder to choose a PIN, by how long: hour, day, week or older.";
    PERMITS, "embosser_permits_total", Counter, [],
        "Permits used: calls sent. Its rate is the pace in use.";
    PERMIT_WAIT, "embosser_permit_wait_seconds", Seconds, [],
        "Wait of a prepared call for its moment.";
    PACE_CONFIGURED, "embosser_pace_configured_per_second", Gauge, [],
        "Calls a second that are configured for an endpoint, and no more than for the account.";
    PACE_CURRENT, "embosser_pace_current_per_second", Gauge, [],
        "Calls a second that Stripe was found to accept, of the endpoint where that is least.";
    CONCURRENCY, "embosser_concurrency", Gauge, [],
        "Most calls in flight at this moment.";
    PACE_PAUSED, "embosser_pace_paused", Gauge, [],
        "1 while everybody waits after a limiter's 429.";
    STRIPE_DOWN, "embosser_stripe_down", Gauge, [],
        "1 while Stripe's API does not answer and only a probe calls now and then.";
    KEY_ENDPOINT_DOWN, "embosser_pin_key_endpoint_down", Gauge, [],
        "1 while the endpoint of PIN keys does not answer: jobs with a PIN wait, those without go on.";
    REFUSED_ALIKE, "embosser_refused_alike", Gauge, [],
        "1 while Stripe refuses every job for the same reason: all wait, and one tries now and then.";
    ACCOUNT_WAITS, "embosser_account_waits", Gauge, [],
        "1 while jobs wait for another process that calls for the same account.";
    LEDGER_COMMIT, "embosser_ledger_commit_duration_seconds", Seconds, [],
        "One commit of the ledger, its flush included.";
    LEDGER_ROWS, "embosser_ledger_commit_rows", Rows, [],
        "Rows that shared one commit.";
    QUEUE, "embosser_queue_messages", Gauge, ["queue"],
        "Messages that wait in a queue: jobs, or dead.";
    PARKED, "embosser_parked_messages", Gauge, [],
        "Messages that were put aside since nobody could answer them, not even as dead letters; somebody must look at them.";
    QUEUE_AGE, "embosser_queue_oldest_seconds", Gauge, [],
        "Age of the job that was taken last, which is the oldest of its queue; 0 when the queue is empty.";
    SETTLEMENTS, "embosser_settlements_total", Counter, ["settlement"],
        "Deliveries settled: answered, retried, parked, early, given_up or handed_back.";
    UNHEARD, "embosser_results_unheard_total", Counter, [],
        "Result events that no queue was bound for; the ledger has them.";
    DEAD_LETTERS, "embosser_dead_letters_total", Counter, [],
        "Jobs that the broker gave up on and embosser answered.";
    CONSUMING, "embosser_amqp_consuming", Gauge, [],
        "1 while this worker is subscribed to the jobs queue, standing by included; 0 while it is not.";
    RECONNECTS, "embosser_amqp_reconnects_total", Counter, [],
        "Times that consuming had to begin anew: a broker, a connection, a channel or a consumer was gone.";
    ACKS_LOST, "embosser_amqp_acks_lost_total", Counter, [],
        "Acknowledgements that came too late; their jobs come again and are recognised.";
    UNCONFIRMED, "embosser_amqp_publishes_unconfirmed_total", Counter, [],
        "Publishes without a confirm, which were published again.";
    LOG_DROPPED, "embosser_log_lines_dropped_total", Counter, [],
        "Lines of the log that were dropped, as nobody read them as fast as they came.";
    BUILD, "embosser_build_info", Gauge, ["version"],
        "1; the label says which embosser this is.";
}

/// Series of the counters with labels that are there from the start, at 0. What appears at 1 has never increased, as
/// Prometheus sees it: an alert on any first event would stay silent.
///
/// Of refusals only those that say something of embosser or its senders as a whole; the codes of a single card's
/// parameters are too many.
const FROM_START: &[(&str, &[Labels])] = &[
    (
        PIN_LINKS,
        &[
            &[("event", "made")],
            &[("event", "looked_at")],
            &[("event", "used")],
            &[("event", "revoked")],
            &[("event", "unusable")],
        ],
    ),
    (
        JOBS,
        &[
            &[("outcome", "issued"), ("code", "")],
            &[("outcome", "updated"), ("code", "")],
            &[("outcome", "created"), ("code", "")],
            &[("outcome", "refused"), ("code", "stripe")],
            &[("outcome", "refused"), ("code", "stale_key")],
            &[("outcome", "refused"), ("code", "expired")],
            &[("outcome", "refused"), ("code", "poison")],
            &[("outcome", "refused"), ("code", "job_conflict")],
            &[("outcome", "refused"), ("code", "superseded")],
            &[("outcome", "refused"), ("code", "message_invalid")],
            &[("outcome", "refused"), ("code", "message_not_json")],
            &[("outcome", "unresolved"), ("code", "interrupted")],
            &[("outcome", "unresolved"), ("code", "stripe")],
            &[("outcome", "unresolved"), ("code", "other_process")],
            &[("outcome", "unresolved"), ("code", "other_change")],
            &[("outcome", "unresolved"), ("code", "pin_key_unavailable")],
            &[("outcome", "unresolved"), ("code", "foreign_card")],
            &[("outcome", "unresolved"), ("code", "api_key_rejected")],
            &[("outcome", "unresolved"), ("code", "rate_limited")],
            &[("outcome", "unresolved"), ("code", "stripe_unreachable")],
            &[("outcome", "unresolved"), ("code", "held_up")],
            &[("outcome", "unresolved"), ("code", "still_running")],
            &[("outcome", "unresolved"), ("code", "stripe_error")],
            &[("outcome", "unresolved"), ("code", "no_answer")],
            &[("outcome", "unresolved"), ("code", "not_reconciled")],
        ],
    ),
    (
        RETRIES,
        &[
            &[("reason", "pin_key_unavailable")],
            &[("reason", "foreign_card")],
            &[("reason", "rate_limited")],
            &[("reason", "stripe_unreachable")],
            &[("reason", "still_running")],
            &[("reason", "no_answer")],
        ],
    ),
    (
        RECONCILIATIONS,
        &[
            &[("verdict", "found")],
            &[("verdict", "other")],
            &[("verdict", "absent")],
            &[("verdict", "failed")],
        ],
    ),
    (
        RATE_LIMITED,
        &[
            &[("reason", "global-rate")],
            &[("reason", "global-concurrency")],
            &[("reason", "endpoint-rate")],
            &[("reason", "endpoint-concurrency")],
            &[("reason", "resource-specific")],
            &[("reason", "other")],
        ],
    ),
    (
        SETTLEMENTS,
        &[
            &[("settlement", "answered")],
            &[("settlement", "retried")],
            &[("settlement", "parked")],
            &[("settlement", "early")],
            &[("settlement", "given_up")],
            &[("settlement", "handed_back")],
        ],
    ),
];

/// Labels of one series.
type Labels = &'static [(&'static str, &'static str)];

/// Bounds of the buckets of durations, in seconds: 5 ms to 60 s.
pub const SECONDS_BUCKETS: [f64; 13] =
    [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];
/// Bounds of the buckets of rows: up to the ledger's largest group.
pub const ROWS_BUCKETS: [f64; 8] = [1.0, 4.0, 16.0, 64.0, 128.0, 256.0, 512.0, 1024.0];

/// Whether anybody records: until then a job's many durations cost nothing, not even their labels.
static RECORDED: AtomicBool = AtomicBool::new(false);

fn recorded() -> bool {
    RECORDED.load(Ordering::Relaxed)
}

/// A job's time in this process, from taken to ended; dropped without an end, it was left.
pub(crate) struct InFlight(Instant);

impl InFlight {
    pub(crate) fn begin() -> Self {
        metrics::gauge!(JOBS_IN_FLIGHT).increment(1.0);
        Self(Instant::now())
    }

    /// How long it took so far.
    pub(crate) fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }

    pub(crate) fn ended(self, outcome: &'static str, code: &'static str, recorded_before: bool) {
        metrics::counter!(JOBS, "outcome" => outcome, "code" => code).increment(1);
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

/// The pace at this moment.
#[expect(clippy::cast_precision_loss, reason = "a bound on calls in flight")]
pub(crate) fn pace(pace: &Pace) {
    metrics::gauge!(PACE_CONFIGURED).set(pace.configured_per_second);
    metrics::gauge!(PACE_CURRENT).set(pace.current_per_second);
    metrics::gauge!(CONCURRENCY).set(pace.concurrency as f64);
    metrics::gauge!(PACE_PAUSED).set(f64::from(u8::from(pace.is_paused)));
    metrics::gauge!(STRIPE_DOWN).set(f64::from(u8::from(pace.is_stripe_down)));
    metrics::gauge!(KEY_ENDPOINT_DOWN).set(f64::from(u8::from(pace.is_key_endpoint_down)));
}

/// Whether Stripe refuses every job for the same reason.
pub(crate) fn refused_alike(refused: bool) {
    metrics::gauge!(REFUSED_ALIKE).set(f64::from(u8::from(refused)));
}

/// Whether jobs wait for another process that calls for the same account.
pub(crate) fn account_waits(waits: bool) {
    metrics::gauge!(ACCOUNT_WAITS).set(f64::from(u8::from(waits)));
}

/// So many lines of the log were dropped, ever.
pub(crate) fn log_dropped(lines: u64) {
    metrics::counter!(LOG_DROPPED).absolute(lines);
}

/// So many messages wait in a queue.
pub(crate) fn queue(queue: &'static str, messages: u32) {
    metrics::gauge!(QUEUE, "queue" => queue).set(f64::from(messages));
}

/// So many messages are parked.
pub(crate) fn parked(messages: u32) {
    metrics::gauge!(PARKED).set(f64::from(messages));
}

/// The oldest job of the queue is so old.
pub(crate) fn queue_age(age: Duration) {
    metrics::gauge!(QUEUE_AGE).set(age.as_secs_f64());
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
pub(crate) fn consuming(consuming: bool) {
    metrics::gauge!(CONSUMING).set(f64::from(u8::from(consuming)));
}

/// Consuming begins anew.
pub(crate) fn reconnected() {
    metrics::counter!(RECONNECTS).increment(1);
}

/// An acknowledgement came too late.
pub(crate) fn ack_lost() {
    metrics::counter!(ACKS_LOST).increment(1);
}

/// A publish was not confirmed.
pub(crate) fn publish_unconfirmed() {
    metrics::counter!(UNCONFIRMED).increment(1);
}

/// A message was refused that is no job.
pub(crate) fn refused_message(code: &'static str) {
    metrics::counter!(JOBS, "outcome" => "refused", "code" => code).increment(1);
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
