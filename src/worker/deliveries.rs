//! Every delivery gets its task: read, carried, settled.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures_util::FutureExt as _;
use tracing::Instrument as _;

use super::in_flight::InFlight;
use super::{Worker, carry};
use crate::clock::Time;
use crate::queue::delivery::Delivery;
use crate::trace;

/// Which queue a delivery is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Of {
    Jobs,
    Dead,
}

/// Gives a delivery its task. `published_after`: see [`super::last_empty`].
pub(super) fn take(
    worker: &Arc<Worker>,
    in_flight: &InFlight,
    delivery: lapin::message::Delivery,
    of: Of,
    published_after: Option<Time>,
) {
    let delivery = Delivery::open(delivery, published_after);
    let topology = &worker.broker.topology;
    let queue = match of {
        Of::Jobs => &topology.jobs,
        Of::Dead => &topology.dead,
    };
    let span = trace::delivered(worker.broker.server(), queue, delivery.headers(), delivery.body.len());
    let received = match of {
        Of::Jobs => {
            let receive = || carry::receive(worker, &delivery);
            let Ok(received) = std::panic::catch_unwind(AssertUnwindSafe(receive)) else {
                return in_flight.failed.cancel();
            };
            Some(received)
        }
        Of::Dead => None,
    };
    let task = {
        let (worker, in_flight) = (worker.clone(), in_flight.clone());
        async move {
            let settled = AssertUnwindSafe(async {
                let settlement = match received {
                    Some(received) => carry::job(&worker, &in_flight, &delivery, received).await,
                    None => carry::dead(&worker, &in_flight, &delivery).await,
                };
                worker.settle(&in_flight, settlement, delivery).await;
            });
            if settled.catch_unwind().await.is_err() {
                in_flight.failed.cancel();
            }
        }
    };
    worker.tasks.spawn(in_flight.tasks.track_future(task.instrument(span).in_current_span()));
}
