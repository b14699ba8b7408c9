//! Every delivery gets its task: read, carried, settled.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures_util::FutureExt as _;
use lapin::message::Delivery;
use tracing::Instrument as _;

use super::delivery::Delivery;
use super::hand::Hand;
use super::{Worker, carry};
use crate::clock::Time;
use crate::trace;

/// Which queue a delivery is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Of {
    Jobs,
    Dead,
}

/// Gives a delivery its task. `published_after`: see [`super::marks`].
pub(super) fn take(
    worker: &Arc<Worker>,
    hand: &Hand,
    delivery: Delivery,
    of: Of,
    published_after: Option<Time>,
) {
    let delivery = Delivery::open(delivery, published_after);
    let topology = &worker.broker.topology;
    let queue = match of {
        Of::Jobs => &topology.jobs,
        Of::Dead => &topology.dead,
    };
    let span = trace::delivered(&worker.broker, queue, delivery.headers(), delivery.body.len());
    let task = {
        let (worker, hand) = (worker.clone(), hand.clone());
        async move {
            let settled = AssertUnwindSafe(async {
                let settlement = match of {
                    Of::Jobs => carry::job(&worker, &hand, &delivery).await,
                    Of::Dead => carry::dead(&worker, &hand, &delivery).await,
                };
                worker.settle(&hand, settlement, delivery).await;
            });
            if settled.catch_unwind().await.is_err() {
                hand.fail();
            }
        }
    };
    worker.tasks.spawn(hand.tasks().track_future(task.instrument(span)));
}
