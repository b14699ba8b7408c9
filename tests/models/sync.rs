//! In place of `tokio::sync`: tokio's own, which it models itself, and on request with a weakness.

use std::pin::Pin;
use std::task::{Context, Poll};

pub use real_tokio::sync::mpsc;

use super::checker::{Weakness, is_weak};

pub struct Mutex<T>(real_tokio::sync::Mutex<T>);

/// Somebody else has the lock.
#[derive(Debug)]
pub struct Taken;

impl<T> Mutex<T> {
    pub fn new(value: T) -> Self {
        Self(real_tokio::sync::Mutex::new(value))
    }

    pub async fn lock(&self) -> real_tokio::sync::MutexGuard<'_, T> {
        shuttle::future::yield_now().await;
        self.0.lock().await
    }

    pub fn try_lock(&self) -> Result<real_tokio::sync::MutexGuard<'_, T>, Taken> {
        shuttle::thread::yield_now();
        if is_weak(Weakness::LockIsTaken) { Err(Taken) } else { self.0.try_lock().map_err(|_| Taken) }
    }
}

#[derive(Debug, Default)]
pub struct Notify(real_tokio::sync::Notify);

pub struct Notified<'n> {
    notify: &'n Notify,
    inner: Option<Pin<Box<real_tokio::sync::futures::Notified<'n>>>>,
    waits: bool,
}

impl Notify {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn notified(&self) -> Notified<'_> {
        // Who listens late has heard nothing of what was said before it waits.
        let inner = (!is_weak(Weakness::ListensLate)).then(|| Box::pin(self.0.notified()));
        Notified { notify: self, inner, waits: false }
    }

    pub fn notify_waiters(&self) {
        shuttle::thread::yield_now();
        self.0.notify_waiters();
    }

    pub fn notify_one(&self) {
        shuttle::thread::yield_now();
        self.0.notify_one();
    }
}

impl<'n> Notified<'n> {
    pub fn enable(mut self: Pin<&mut Self>) -> bool {
        self.inner.as_mut().is_some_and(|inner| inner.as_mut().enable())
    }
}

impl Future for Notified<'_> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if !std::mem::replace(&mut self.waits, true) {
            // Whoever is waited for may come first.
            shuttle::thread::yield_now();
        }
        let notify = self.notify;
        self.inner.get_or_insert_with(|| Box::pin(notify.0.notified())).as_mut().poll(context)
    }
}

pub mod watch {
    use super::{Weakness, is_weak};

    #[derive(Debug)]
    pub struct Sender<T>(real_tokio::sync::watch::Sender<T>);
    pub struct Receiver<T>(real_tokio::sync::watch::Receiver<T>);

    impl<T> Sender<T> {
        pub fn new(value: T) -> Self {
            Self(real_tokio::sync::watch::Sender::new(value))
        }

        pub fn subscribe(&self) -> Receiver<T> {
            Receiver(self.0.subscribe())
        }

        pub fn send_replace(&self, value: T) -> T {
            shuttle::thread::yield_now();
            self.0.send_replace(value)
        }
    }

    impl<T> Receiver<T> {
        pub async fn changed(&mut self) -> Result<(), real_tokio::sync::watch::error::RecvError> {
            shuttle::thread::yield_now();
            if is_weak(Weakness::ListensLate) {
                self.0.mark_unchanged();
            }
            self.0.changed().await
        }
    }
}

pub mod oneshot {
    use std::pin::Pin;
    use std::task::{Context, Poll};

    pub use real_tokio::sync::oneshot::error;

    use super::{Weakness, is_weak};

    pub struct Sender<T>(real_tokio::sync::oneshot::Sender<T>);
    pub struct Receiver<T>(real_tokio::sync::oneshot::Receiver<T>);

    pub fn channel<T>() -> (Sender<T>, Receiver<T>) {
        let (sender, receiver) = real_tokio::sync::oneshot::channel();
        (Sender(sender), Receiver(receiver))
    }

    impl<T> Sender<T> {
        pub fn is_closed(&self) -> bool {
            self.0.is_closed()
        }

        pub fn send(self, value: T) -> Result<(), T> {
            // Whoever waits may leave at this very moment.
            shuttle::thread::yield_now();
            self.0.send(value)
        }
    }

    impl<T> Receiver<T> {
        pub fn try_recv(&mut self) -> Result<T, error::TryRecvError> {
            self.0.try_recv()
        }
    }

    impl<T> Future for Receiver<T> {
        type Output = Result<T, error::RecvError>;

        fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
            Pin::new(&mut self.0).poll(context)
        }
    }

    impl<T> Drop for Receiver<T> {
        fn drop(&mut self) {
            shuttle::thread::yield_now();
            if is_weak(Weakness::LosesWhatWasGiven)
                && let Ok(given) = self.0.try_recv()
            {
                std::mem::forget(given);
            }
        }
    }
}
