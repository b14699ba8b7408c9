//! What Stripe's answer means for the job, the pace and all other jobs.

use std::time::Duration;

use super::Carried;
use super::attempt::Called;
use crate::line::decision::Answered;
use crate::line::refusals::{Meaning, OnSameRefusals, Whose};
use crate::line::{Halt, Stop, limiter_of};
use crate::metrics;
use crate::outcome::Refusal;
use crate::pace::Answered as Paced;
use crate::stripe::Answer;

impl Carried<'_> {
    /// What the answer means for the job, the pace and all other jobs; and the wait before going on.
    pub(super) async fn answered(
        &mut self,
        Called { permit, answer, had_begun }: Called,
    ) -> Result<(), Stop> {
        let now = self.now();
        if !matches!(answer, Answer::NotSent(_) | Answer::HeldBack | Answer::Unknown { heard: false, .. }) {
            self.line.has_answered();
        }
        let backoff = self.backoff();
        let (answered, paced, wait) = match answer {
            Answer::Done { found, request_id, .. } => {
                self.line.refusals.accepted();
                let operation = self.job.request.operation();
                if found.job(operation).is_some_and(|job| job != self.job.id.as_str()) {
                    // Keys follow from ids, so this cannot be; if it is, no conclusion may be drawn from it.
                    self.latest = Refusal::own("foreign_card", "Stripe answered with another job's card");
                    (Answered::Unknown, Paced::Accepted, Some(backoff))
                } else {
                    self.request_id = request_id;
                    self.made_with_this_pin();
                    (Answered::Done(found.output(operation, self.job.changed())), Paced::Accepted, None)
                }
            }
            Answer::Refused { refusal, request_id, replayed, same } => {
                let answered = self.refused(refusal, request_id, replayed, &same);
                (answered, Paced::Accepted, None)
            }
            Answer::Forbidden { refusal, request_id, same } => {
                let answered = self.refused(refusal, request_id, false, &same);
                (answered, Paced::Accepted, None)
            }
            Answer::KeyRejected(reason) => {
                self.latest = Refusal::own("api_key_rejected", reason.clone());
                self.decision.answered(Answered::NoEffect, now);
                permit.answered(Paced::Accepted);
                self.line.halt_with(Halt::Key(reason));
                return Err(Stop::Halted);
            }
            Answer::Limited(reason) => {
                metrics::rate_limited(reason.word());
                self.latest = Refusal::own("rate_limited", format!("Stripe limits: {}", reason.word()));
                (Answered::NoEffect, Paced::Limited(limiter_of(reason)), Some(Duration::ZERO))
            }
            Answer::NotSent(reason) => {
                self.latest = Refusal::own("stripe_unreachable", reason.clone());
                (Answered::NoEffect, Paced::Failed(reason), Some(backoff))
            }
            Answer::HeldBack => {
                self.latest =
                    Refusal::own("held_up", "the call came too late after its decision; it is made anew");
                self.decision.take_back();
                self.has_begun = had_begun;
                drop(permit);
                self.wait(backoff).await;
                return Ok(());
            }
            Answer::InUse(reason) => {
                self.latest = Refusal::own("still_running", reason);
                (Answered::InUse, Paced::Accepted, Some(backoff))
            }
            Answer::BodyDiffers => (Answered::BodyDiffers, Paced::Accepted, None),
            Answer::EndedBadly(reason) => {
                self.latest = Refusal::own("stripe_error", reason);
                (Answered::EndedBadly, Paced::Accepted, None)
            }
            Answer::Unknown { reason, trouble, heard: _ } => {
                self.latest = Refusal::own("no_answer", reason.clone());
                let paced = if trouble { Paced::Failed(reason) } else { Paced::Accepted };
                (Answered::Unknown, paced, Some(backoff))
            }
        };
        permit.answered(paced);
        self.decision.answered(answered, now);
        if let Some(wait) = wait {
            metrics::retried(self.latest.label());
            self.wait(wait).await;
        }
        Ok(())
    }

    /// A definite no; unless Stripe says the same of everybody, then it is nobody's.
    pub(super) fn refused(
        &mut self,
        refusal: Refusal,
        request_id: Option<String>,
        replayed: bool,
        same: &str,
    ) -> Answered {
        if replayed {
            self.request_id = request_id;
            return Answered::No { refusal, replayed };
        }
        let whose = if self.is_trial { Whose::Trial } else { Whose::UnderWay };
        let about = is_about_cardholder(same).then_some(self.job.request.cardholder.as_deref()).flatten();
        let meaning = self.line.refusals.refused(same, &refusal.message, whose, about);
        if meaning == Meaning::FinalAndLast && self.line.parts.same_refusals.1 == OnSameRefusals::Stop {
            self.line.halt_with(Halt::SameRefusals(refusal.message.clone()));
        } else if meaning == Meaning::FinalAndLast {
            tracing::error!(
                reason = refusal.message,
                "Stripe refuses every job alike; jobs wait, and one tries"
            );
        }
        if meaning == Meaning::Repeated {
            self.latest = Refusal {
                code: refusal.code,
                message: format!("Stripe says of every job: {}", refusal.message),
            };
            return Answered::NoEffect;
        }
        self.request_id = request_id;
        Answered::No { refusal, replayed }
    }

    /// Stripe answered with a card: the call that made it had this very body, and so this PIN.
    pub(super) fn made_with_this_pin(&mut self) {
        let pin = self.job.pin_digest();
        if let Some(known) = &mut self.known {
            known.pin = pin;
        }
    }
}

/// Whether a refusal's code or parameter is of the cardholder: those of others are not touched by it. (Status, code, parameter, message.)
fn is_about_cardholder(same: &str) -> bool {
    same.split(' ').skip(1).take(2).any(|word| word.starts_with("cardholder"))
}
