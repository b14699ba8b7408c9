//! The table of all metrics, the series that are there from the start, and the bounds of buckets.

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
        $(pub(super) const $constant: &str = $name;)*
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
    LEDGER_AWAY, "embosser_ledger_connections_away", Gauge, [],
        "Connections to the ledger's database that wait for it, as it does not serve; 0 while all is well.";
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
    BLOCKED, "embosser_amqp_blocked", Gauge, [],
        "1 while RabbitMQ takes no messages of this process, for an alarm: it is short of memory or disk space.";
    UNSETTLED, "embosser_deliveries_unsettled", Gauge, [],
        "Deliveries whose end is decided and that the broker could not be told of yet.";
    UNSETTLED_OLDEST, "embosser_delivery_unsettled_oldest_seconds", Gauge, [],
        "For how long the oldest of them has been so; 0 if there is none.";
    ACCOUNT_INFO, "embosser_account_info", Gauge, ["account", "mode"],
        "1; the labels say which Stripe account this process calls for, and whether its cards are live or test.";
    WEBHOOK_DELIVERIES, "embosser_webhook_deliveries_total", Counter, ["result"],
        "Tries to tell an endpoint of an event: delivered, failed, or given_up, which counts the event's last failure once more.";
    WEBHOOKS_PENDING, "embosser_webhooks_pending", Gauge, [],
        "Events that endpoints have not been told yet, each endpoint counted by itself; without those given up.";
    WEBHOOK_OLDEST, "embosser_webhook_oldest_pending_seconds", Gauge, [],
        "Age of the oldest of these; 0 when there is none.";
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
pub(super) const FROM_START: &[(&str, &[Labels])] = &[
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
    (WEBHOOK_DELIVERIES, &[&[("result", "delivered")], &[("result", "failed")], &[("result", "given_up")]]),
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
pub(super) type Labels = &'static [(&'static str, &'static str)];

/// Bounds of the buckets of durations, in seconds: 5 ms to 60 s.
pub const SECONDS_BUCKETS: [f64; 13] =
    [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];
/// Bounds of the buckets of rows: up to the ledger's largest group.
pub const ROWS_BUCKETS: [f64; 8] = [1.0, 4.0, 16.0, 64.0, 128.0, 256.0, 512.0, 1024.0];
