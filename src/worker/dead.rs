//! What the broker gave up on: after so many deliveries, a message comes here, and is answered all the same.
//!
//! The ledger is asked first. A job that was never attempted is refused `poison`; one whose attempt began is looked for
//! at Stripe, and only then answered. Either way its ciphertext is gone with the acknowledgement.

use std::sync::Arc;

use lapin::message::Delivery;
use zeroize::Zeroizing;

use super::Worker;
use super::event::Named;
use super::session::{read, refused};
use super::settle::{Original, Settlement, settlement};
use crate::metrics;
use crate::outcome::Refusal;

pub(super) async fn answer(worker: Arc<Worker>, delivery: Delivery) {
    let Delivery { data, properties, acker, .. } = delivery;
    let body = Zeroizing::new(data);
    let settlement = match read(&worker, &body, &properties) {
        Ok(job) => {
            let named = Named::of(&job);
            let poison = Refusal::own(
                "poison",
                "the broker delivered the job many times and it never came to an end; send it again",
            );
            let ended = worker.line.close_off(job, poison).await;
            match settlement(named, ended.as_ref()) {
                // The ladder leads back to the jobs queue, where a job that was given up must not go.
                Settlement::Retry => Settlement::HandBack,
                other => other,
            }
        }
        Err(no) => refused(&no),
    };
    if matches!(settlement, Settlement::Answer(_)) {
        metrics::dead_letter();
    } else {
        // It comes again at once, and its end is not known yet: not a hot loop.
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    }
    worker.settle(settlement, Original { body: &body, properties: &properties }, &acker).await;
}
