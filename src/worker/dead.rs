//! What the broker gave up on, taken by every worker, active or not, on a connection of its own: one that kills
//! the connection must not touch the jobs. One at a time, so that none costs another one a delivery.
//!
//! There is that connection only while there are dead letters, and a while longer: the session of the jobs looks for them beside its
//! queue, so that an account without any has no connection, thread and heartbeats for them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use lapin::Connection;
use tokio_util::sync::CancellationToken;

use super::deliveries::{self, Of};
use super::in_flight::{Back, InFlight};
use super::looks::{LOOK_EVERY, Looks};
use super::{Restarts, Worker};
use crate::metrics;
use crate::queue::bounded;
use crate::queue::subscription::{Lost, Subscription};

/// Dead letters in flight.
const IN_FLIGHT_MAX: u16 = 1;
/// How long the connection is kept without any.
const KEPT: Duration = Duration::from_secs(30);

/// Drains the dead letters until the worker is told to stop, or the line halts.
pub(super) async fn run(worker: Arc<Worker>, stop: CancellationToken) {
    let (mut restarts, mut waiting) = (Restarts::default(), worker.dead_letters.subscribe());
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = worker.line.stopped() => return,
            found = waiting.wait_for(|messages| *messages > 0) => if found.is_err() { return },
        }
        let began = Instant::now();
        let ended = tokio::select! {
            ended = session(&worker, &stop) => ended,
            () = worker.line.stopped() => return,
        };
        let Err(lost) = ended else { continue };
        if !restarts.wait(&worker, "dead letters", &lost, began.elapsed(), &stop).await {
            return;
        }
    }
}

async fn session(worker: &Arc<Worker>, stop: &CancellationToken) -> Result<(), Lost> {
    let opening = tokio::select! {
        opening = open(worker) => opening,
        () = stop.cancelled() => return Ok(()),
    };
    let (connection, mut dead_letters) = opening?;
    let lost = CancellationToken::new();
    let in_flight = InFlight::new(&lost);
    let ended = take(worker, &mut dead_letters, &in_flight, stop).await;
    in_flight.recall(Back::Queue);
    if ended.is_ok() {
        let _ = dead_letters.cancel().await;
        in_flight.tasks.close();
        let _ = tokio::time::timeout(worker.drain, in_flight.tasks.wait()).await;
    }
    lost.cancel();
    let _ = bounded(connection.close(200, "done".into())).await;
    ended
}

async fn open(worker: &Worker) -> Result<(Connection, Subscription), String> {
    let connection = worker.connect("embosser worker: dead letters").await?;
    let topology = &worker.broker.topology;
    worker.can_record().await?;
    let dead_letters = Subscription::begin(&connection, &topology.dead, IN_FLIGHT_MAX).await?;
    Ok((connection, dead_letters))
}

async fn take(
    worker: &Arc<Worker>,
    dead_letters: &mut Subscription,
    in_flight: &InFlight,
    stop: &CancellationToken,
) -> Result<(), Lost> {
    let topology = &worker.broker.topology;
    let mut look = tokio::time::interval(LOOK_EVERY);
    let (mut looks, mut latest) = (Looks::default(), Instant::now());
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => return Ok(()),
            () = worker.line.stopped() => return Ok(()),
            () = in_flight.failed.cancelled() => return Err(Lost::Other("a dead letter was not settled".into())),
            delivery = dead_letters.next() => {
                if looks.rest(latest.elapsed(), Instant::now()) > LOOK_EVERY {
                    look.reset_after(LOOK_EVERY);
                }
                latest = Instant::now();
                deliveries::take(worker, in_flight, delivery?, Of::Dead, None);
            }
            _ = look.tick() => {
                let (dead, parked) = (dead_letters.look(&topology.dead).await?, dead_letters.look(&topology.parked).await?);
                looks.found(dead.message_count() + parked.message_count(), Instant::now());
                metrics::queue("dead", dead.message_count(), worker.account());
                metrics::parked(parked.message_count(), worker.account());
                if dead.message_count() == 0 && in_flight.tasks.is_empty() && latest.elapsed() >= KEPT {
                    worker.dead_letters.send_replace(0);
                    return Ok(());
                }
                look.reset_after(looks.rest(latest.elapsed(), Instant::now()));
            }
        }
    }
}
