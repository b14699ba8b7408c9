//! The time watched by a task instead of a thread: in a simulation, where one thread does everything.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;

use super::{Shared, Watched, now};

/// The least sleep. Simulated time stands still while anything runs: who may go exactly now, by a rule that wants it to be past, is
/// looked at again when it is.
const TICK: Duration = Duration::from_millis(1);

/// Wakes the task.
#[derive(Default)]
pub(super) struct Woken(Notify);

impl Woken {
    pub(super) fn wake(&self) {
        self.0.notify_one();
    }
}

/// Empties the queues, however the task ends: what waits in them holds them.
struct Clears(Arc<Shared>);

impl Drop for Clears {
    fn drop(&mut self) {
        self.0.clear();
    }
}

/// Sleeps until somebody may go.
pub(super) async fn watch(shared: Arc<Shared>) {
    let clears = Clears(shared);
    let shared = &clears.0;
    let Watched::Task(woken) = &shared.watched else { unreachable!("a simulation has no pacer") };
    loop {
        let until = {
            let mut state = shared.state();
            if state.ended {
                return;
            }
            state.looked_at = shared.let_through(&mut state);
            state.looked_at
        };
        let Some(until) = until else {
            woken.0.notified().await;
            continue;
        };
        tokio::select! {
            biased;
            () = woken.0.notified() => {}
            () = tokio::time::sleep_until(until.max(now() + TICK).into()) => {
                let now = now();
                shared.state().gate.woke_late(now.saturating_duration_since(until), now);
            }
        }
    }
}
