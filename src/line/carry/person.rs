//! Before a person's cardholder is created: whether there is one.

use super::Carried;
use crate::line::decision::Verdict;
use crate::line::look;
use crate::line::people::{self, Known, Match, Other};
use crate::line::{Stop, Vet};
use crate::outcome::{Cardholder, Output, Refusal};

impl Carried<'_> {
    /// Whether a cardholder may be created: a person who has one at Stripe keeps it.
    pub(super) async fn is_new_person(&mut self) -> Result<bool, Stop> {
        let lease = self.line.lease.times();
        if self.is_searched() {
            return Ok(true);
        }
        // On the heap: most jobs are about nobody who is to be searched for, and each one's future would have room for it.
        Box::pin(self.has_none(lease)).await
    }

    /// Whether the person has no cardholder at Stripe, by a look that began while the lease had been taken so often.
    async fn has_none(&mut self, lease: u64) -> Result<bool, Stop> {
        let other = people::other(self.line, &self.job).await?;
        if matches!(other, Some(Other::Open)) {
            // It may create the cardholder that this one would be: nobody is to wait for this one meanwhile.
            self.alone.clear();
            self.unknown(
                "other_row",
                "the end of another row's call for this person is not known yet".into(),
            )
            .await;
            return Ok(false);
        }
        let person = self.job.request.person();
        let mut found = people::find(self.line, &self.job.request, &person, &self.recall).await?;
        if let (Ok(Match::None), Some(Other::Created(cardholder, by))) = (&found, other) {
            found = Ok(people::created(&cardholder, by, &self.job.request));
        }
        match found {
            Ok(Match::None) => {
                self.searched = Some(lease);
                return Ok(true);
            }
            Ok(Match::One(cardholder, by)) => {
                tracing::info!(by = by.word(), "this person has a cardholder at Stripe");
                self.note = Some(people::note(&cardholder, by, &person));
                let Known { id, status, needs, .. } = cardholder;
                let output = Output::Created(Cardholder { id, status, needs });
                self.decision.looked(Verdict::Found(output), self.now().boot);
            }
            Ok(Match::Doubtful(cardholder, by)) => {
                self.decision.give_up(people::doubtful(&cardholder, by));
            }
            Ok(Match::Several(cardholders, by)) => {
                self.decision.give_up(people::several(&cardholders, by));
            }
            Err(reason) => self.unknown("not_reconciled", reason).await,
        }
        Ok(false)
    }

    /// Whether none of those who may be its person has the job's card, where somebody has to say who it is. If one has, as another
    /// ledger knew, the job is looked for there.
    pub(super) async fn has_no_card_of_its_person(&mut self) -> Result<bool, Stop> {
        let is_known = self.known.as_deref().is_some_and(|row| !row.was_never_begun());
        if is_known || self.line.parts.vet == Vet::No {
            return Ok(true);
        }
        let Some(person) = &self.person else { return Ok(true) };
        let lease = self.line.lease.times();
        let found = people::find(self.line, person, &person.person(), &self.recall).await?;
        let from = self.decision.absence_counts_from();
        let mut unread = found.as_ref().err().cloned();
        for candidate in found.into_iter().flat_map(Match::candidates) {
            match look::has_card(self.line, &self.job, &candidate.id, from, &self.recall).await? {
                Ok(false) => {}
                Ok(true) => {
                    self.job.request.set_cardholder(&candidate.id);
                    // By the lease under which it was looked.
                    self.vetted = Some(lease);
                    self.decision.settle_first();
                    return Ok(false);
                }
                Err(reason) => unread = Some(reason),
            }
        }
        let Some(reason) = unread else { return Ok(true) };
        self.unknown("not_reconciled", reason).await;
        Ok(false)
    }

    /// Whether nobody else can have created a cardholder since it was looked for one; or a call of its own may have.
    pub(super) fn is_searched(&self) -> bool {
        !self.job.request.reuses()
            || self.decision.may_have_effect()
            || self.searched == Some(self.line.lease.times())
    }

    async fn unknown(&mut self, code: &'static str, reason: String) {
        self.tries += 1;
        self.latest = Refusal::own(code, reason);
        self.wait(self.backoff()).await;
    }
}
