//! Room for so many at once, in order of arrival, that can be made larger or smaller while it is in use.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore};

/// A semaphore whose size changes.
pub(super) struct Room {
    semaphore: Arc<Semaphore>,
    size: AtomicUsize,
}

impl Room {
    pub(super) fn new(size: usize) -> Self {
        Self { semaphore: Arc::new(Semaphore::new(size)), size: AtomicUsize::new(size) }
    }

    /// Waits for a place.
    ///
    /// # Errors
    /// If the room is closed.
    pub(super) async fn enter(&self) -> Result<OwnedSemaphorePermit, AcquireError> {
        self.semaphore.clone().acquire_owned().await
    }

    /// How many may be in it.
    pub(super) fn size(&self) -> usize {
        self.size.load(Ordering::Relaxed)
    }

    /// How many are in it.
    pub(super) fn taken(&self) -> usize {
        self.size().saturating_sub(self.semaphore.available_permits())
    }

    /// Makes it larger at once, or smaller as far as places are free now: nobody is sent out. Callers hold the
    /// pace's state, so that no two do this at once.
    pub(super) fn resize(&self, wanted: usize) {
        let size = self.size();
        let now = if wanted >= size {
            self.semaphore.add_permits(wanted - size);
            wanted
        } else {
            size - self.semaphore.forget_permits(size - wanted)
        };
        self.size.store(now, Ordering::Relaxed);
    }

    /// Nobody enters any more, and who waits is told.
    pub(super) fn close(&self) {
        self.semaphore.close();
    }

    pub(super) fn is_closed(&self) -> bool {
        self.semaphore.is_closed()
    }
}
