//! One delivery from its body to its settlement.

use std::time::Duration;

use super::Worker;
use super::in_flight::InFlight;
use super::settle::{Settlement, settlement};
use crate::clock::Time;
use crate::job::Job;
use crate::ledger::State;
use crate::line::{Admitted, Options};
use crate::metrics;
use crate::outcome::Ended;
use crate::pin_links::EventWanted;
use crate::queue::delivery::{Delivery, GivenUp};
use crate::queue::event::Named;
use crate::queue::message::{self, Envelope, NoJob};

/// How much before its time a job may come from the ladder: two machines' clocks are not one.
const EARLY_MAX: Duration = Duration::from_millis(500);

/// What a delivery brings.
pub(super) struct Received {
    envelope: Envelope,
    job: Result<Admitted, Box<NoJob>>,
}

/// Reads a delivery from the jobs queue. Called for one after the other, as they come: so changes of one card keep their
/// order, whichever of their tasks runs first.
pub(super) fn receive(worker: &Worker, delivery: &Delivery) -> Received {
    let now = worker.line.parts().clock.now();
    let envelope = delivery.envelope(now);
    let job = read(worker, delivery, &envelope, now).map(|job| worker.line.in_order(job));
    Received { envelope, job }
}

/// A job from the jobs queue.
pub(super) async fn job(
    worker: &Worker,
    in_flight: &InFlight,
    delivery: &Delivery,
    Received { envelope, job }: Received,
) -> Settlement {
    let now = worker.line.parts().clock.now();
    let admitted = match job {
        Ok(admitted) => admitted,
        Err(no) => return refused(worker, &no, delivery, &envelope),
    };
    let job = admitted.job();
    let given_up = delivery.given_up().or_else(|| expired(job, &envelope, now));
    let early = delivery.early(now);
    if given_up.is_none() && early > EARLY_MAX {
        return Settlement::Early(early);
    }
    worker.batches.came(&worker.line, job, &envelope).await;
    in_flight.activate();
    let named = Named::of(job);
    if let Some(ended) = refused_before(worker, job, &envelope).await {
        return settlement(named, Some(&ended), None);
    }
    let way = recallable(in_flight, delivery, given_up);
    let ended = worker.line.carry(admitted, way).await;
    settlement(named, ended.as_ref(), in_flight.back())
}

/// What the broker gave up on: after so many deliveries, or past its time to live.
///
/// The ledger is asked first. A job that was never attempted is refused; one whose attempt began must be looked for at
/// Stripe, which is the active worker's to do: it goes back there by the ladder, without its ciphertext.
pub(super) async fn dead(worker: &Worker, in_flight: &InFlight, delivery: &Delivery) -> Settlement {
    let parts = worker.line.parts();
    let now = parts.clock.now();
    let envelope = delivery.envelope(now);
    let job = match read(worker, delivery, &envelope, now) {
        Ok(job) => job,
        Err(no) => return refused(worker, &no, delivery, &envelope),
    };
    let given_up = delivery.died_of();
    tracing::warn!(job = %job.id, code = %given_up.refusal().code, "the broker gave up on a job");
    let known = match parts.ledger.look_up(&parts.scope, &job.id).await {
        Ok(known) => known,
        // The session begins anew once the ledger answers.
        Err(_) => {
            in_flight.failed.cancel();
            return Settlement::HandBack;
        }
    };
    metrics::dead_letter();
    match known.map(|row| row.state) {
        Some(State::Begun) => Settlement::GiveUp(given_up),
        None | Some(State::Done(_) | State::Refused(_) | State::AwaitingPin) => {
            let named = Named::of(&job);
            let way = recallable(in_flight, delivery, Some(given_up));
            let ended = worker.line.carry(job, way).await;
            match settlement(named, ended.as_ref(), in_flight.back()) {
                // Given up once is given up for good, whatever this visit came to.
                Settlement::Retry => Settlement::GiveUp(given_up),
                settled => settled,
            }
        }
    }
}

/// Until the jobs in flight are recalled; not called for any more if it was given up. Its end is told by an event, now or later.
fn recallable<'f>(in_flight: &'f InFlight, delivery: &Delivery, given_up: Option<GivenUp>) -> Options<'f> {
    Options {
        recall: Some(&in_flight.recalled),
        given_up: given_up.map(GivenUp::refusal),
        event: Some(EventWanted { correlation: delivery.correlation() }),
        ..Options::default()
    }
}

fn read(worker: &Worker, delivery: &Delivery, envelope: &Envelope, now: Time) -> Result<Job, Box<NoJob>> {
    if let Some(published) = delivery.stamped(now) {
        metrics::queue_age(now.since(published), worker.account());
    }
    message::job_of(&delivery.body, envelope, &worker.terms)
}

/// Whether it is too late for the job.
fn expired(job: &Job, envelope: &Envelope, now: Time) -> Option<GivenUp> {
    let late = job.deadline.is_some_and(|deadline| now > deadline);
    let unknown = job.pin.is_some() && envelope.published.is_none();
    late.then_some(if unknown { GivenUp::AgeUnknown } else { GivenUp::Expired })
}

/// The refusal that another copy of the job was answered with after this one had been published: then this copy ends so, too.
/// A sender that was told "refused" sends the job again, and that one may be issued.
async fn refused_before(worker: &Worker, job: &Job, envelope: &Envelope) -> Option<Ended> {
    let parts = worker.line.parts();
    // A ledger that does not answer halts the line, which asks it next.
    let row = parts.ledger.look_up(&parts.scope, &job.id).await.ok().flatten()?;
    let State::Refused(refusal) = &row.state else { return None };
    let by_queue = matches!(refusal.code.as_ref(), "poison" | "expired");
    // AMQP's own timestamps are whole seconds: one of the second of the refusal may be of before or after it, and who sends a
    // job again at once is to be heard.
    let before = envelope.published.is_none_or(|published| {
        let is_whole = published.unix_ms() % 1000 == 0;
        published.plus(Duration::from_secs(u64::from(is_whole))) <= row.written
    });
    (by_queue && before).then(|| row.ended())
}

/// A message that is no job is refused on its first delivery.
fn refused(worker: &Worker, no: &NoJob, delivery: &Delivery, envelope: &Envelope) -> Settlement {
    tracing::warn!(job = no.id.as_deref().unwrap_or(""), code = %no.refusal.code, reason = no.refusal.message,
        "a message is no job");
    metrics::refused_message(no.refusal.label(), worker.account());
    // What its sender wrote beside the body names it where the body does not.
    let id = no.id.clone().or_else(|| delivery.message_id());
    let batch = no.batch.clone().or_else(|| delivery.batch());
    let named = Named { id, batch, place: envelope.place() };
    settlement(named, Some(&Ended::refused(no.refusal.clone())), None)
}
