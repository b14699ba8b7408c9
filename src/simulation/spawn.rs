//! Tasks that nobody waits for: tokio's, or a simulation's, which decides when each of them runs and ends them with their process.

/// Starts a task.
pub(crate) fn spawn(task: impl Future<Output = ()> + Send + 'static) {
    #[cfg(feature = "killpoints")]
    if let Some(spawner) = by::current() {
        spawner(Box::pin(task));
        return;
    }
    drop(tokio::spawn(task));
}

#[cfg(feature = "killpoints")]
pub use by::{Spawner, spawn_by};

#[cfg(feature = "killpoints")]
mod by {
    use std::cell::RefCell;
    use std::rc::Rc;

    use futures_util::future::BoxFuture;

    /// Takes a task over, to run it.
    pub type Spawner = Rc<dyn Fn(BoxFuture<'static, ()>)>;

    thread_local! {
        static SPAWNER: RefCell<Option<Spawner>> = const { RefCell::new(None) };
    }

    /// Tasks of this thread are started by this one from now on; by tokio again if there is none.
    pub fn spawn_by(spawner: Option<Spawner>) {
        SPAWNER.with_borrow_mut(|current| *current = spawner);
    }

    pub(super) fn current() -> Option<Spawner> {
        SPAWNER.with_borrow(Clone::clone)
    }
}
