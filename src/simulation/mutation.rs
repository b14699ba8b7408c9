//! Rules that a simulation breaks on purpose, one at a time, to see that it would be noticed (docs/simulation.md).

/// A rule that is broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mutation {
    /// An attempt counts as recorded though its row had changed.
    SkipCompareAndSet,
    /// Nothing found counts whenever the look began.
    BelieveAbsenceAtOnce,
    /// A call without an answer is repeated under the next key.
    NewKeyTooEarly,
    /// A key is trusted for ever.
    TrustKeyForEver,
    /// What was recorded leaves however late.
    DepartLate,
    /// The end is told and never recorded.
    TellBeforeRecord,
    /// An answer of 500 is a refusal.
    BelieveError,
    /// A job is refused while a call of it may be open.
    RefuseWhileOpen,
    /// The deadline of a PIN is not looked at again.
    ForgetDeadline,
    /// The account's lease is taken for ours once it was.
    KeepLostLease,
    /// Calls that are let go and have not left yet are not counted.
    ForgetUnderWay,
    /// A call that got no answer is taken for one that never left.
    TakeSilenceForNothing,
    /// Of a list only the first page is read.
    ReadFirstPageOnly,
    /// A change of a card is sent whatever later change was begun.
    ForgetLaterChange,
    /// A batch that is known at Stripe and not in the ledger is called for without a look.
    SkipVetting,
    /// Jobs of such a batch go on while it is looked for.
    GoOnDuringLook,
    /// A run with `--reconcile-first` looks for nothing.
    SkipReconcile,
    /// The calls of whoever held the lease before do not count.
    CallAtOnceAfterTakeover,
}

impl Mutation {
    /// All of them.
    pub const ALL: [Self; 18] = [
        Self::SkipCompareAndSet,
        Self::BelieveAbsenceAtOnce,
        Self::NewKeyTooEarly,
        Self::TrustKeyForEver,
        Self::DepartLate,
        Self::TellBeforeRecord,
        Self::BelieveError,
        Self::RefuseWhileOpen,
        Self::ForgetDeadline,
        Self::KeepLostLease,
        Self::ForgetUnderWay,
        Self::TakeSilenceForNothing,
        Self::ReadFirstPageOnly,
        Self::ForgetLaterChange,
        Self::SkipVetting,
        Self::GoOnDuringLook,
        Self::SkipReconcile,
        Self::CallAtOnceAfterTakeover,
    ];
}

/// Whether this thread's simulation breaks that rule.
#[inline]
pub(crate) fn is_broken(mutation: Mutation) -> bool {
    #[cfg(feature = "killpoints")]
    return BROKEN.get() == Some(mutation);
    #[cfg(not(feature = "killpoints"))]
    {
        let _ = mutation;
        false
    }
}

#[cfg(feature = "killpoints")]
thread_local! {
    static BROKEN: std::cell::Cell<Option<Mutation>> = const { std::cell::Cell::new(None) };
}

/// This thread breaks that rule from now on, or none.
#[cfg(feature = "killpoints")]
pub fn break_rule(mutation: Option<Mutation>) {
    BROKEN.set(mutation);
}
