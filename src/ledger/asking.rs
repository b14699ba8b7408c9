//! A question to the ledger whose answer's type is known to who asks only: put until it is answered, and told.

use futures_util::future::BoxFuture;
use tokio::sync::oneshot;

use super::database::Store;
use super::group::{Asked, View};
use super::servers::Work;
use super::{Ledger, LedgerError};

impl Ledger {
    /// Asks anything; the question is put again where the connection was lost before its answer came.
    pub(super) async fn ask<T: Send + 'static>(
        &self,
        work: Work,
        question: impl for<'s> Fn(&'s mut Store) -> BoxFuture<'s, Result<T, LedgerError>> + Send + 'static,
    ) -> Result<T, LedgerError> {
        let (answer, answered) = oneshot::channel();
        let asking = Box::new(Asking { work, question, found: None, answer });
        self.views.send(View::Asked(asking)).await.map_err(|_| LedgerError::Closed)?;
        answered.await.map_err(|_| LedgerError::Closed)?
    }
}

/// A question, what was found, and who is to be told.
struct Asking<T, Q> {
    work: Work,
    question: Q,
    found: Option<T>,
    answer: oneshot::Sender<Result<T, LedgerError>>,
}

impl<T, Q> Asked for Asking<T, Q>
where
    T: Send + 'static,
    Q: for<'s> Fn(&'s mut Store) -> BoxFuture<'s, Result<T, LedgerError>> + Send + 'static,
{
    fn put<'s>(&'s mut self, store: &'s mut Store) -> BoxFuture<'s, Result<(), LedgerError>> {
        let Self { question, found, .. } = self;
        let answer = question(store);
        Box::pin(async move {
            *found = Some(answer.await?);
            Ok(())
        })
    }

    fn work(&self) -> Work {
        self.work
    }

    fn unwanted(&mut self) -> BoxFuture<'_, ()> {
        Box::pin(self.answer.closed())
    }

    fn is_wanted(&self) -> bool {
        !self.answer.is_closed()
    }

    fn tell(self: Box<Self>, asked: Result<(), LedgerError>) {
        let Self { found, answer, .. } = *self;
        let _ = answer.send(asked.and_then(|()| found.ok_or(LedgerError::Closed)));
    }
}
