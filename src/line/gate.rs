//! Whether a batch's jobs may begin: open, held back, or called off.
//!
//! A gate stands before a job's first call of a run only: what has begun goes on to its end whatever the gate says.

use tokio::sync::watch;

/// How a gate stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Jobs may begin.
    Open,
    /// They wait.
    Shut,
    /// They are refused.
    CalledOff,
}

/// One for many jobs.
#[derive(Debug)]
pub struct Gate(watch::Sender<Standing>);

/// What those who wait at the gate are told in the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Passed {
    /// Jobs may begin.
    Through,
    /// They are refused.
    CalledOff,
}

impl Default for Gate {
    fn default() -> Self {
        Self(watch::Sender::new(Standing::Open))
    }
}

impl Gate {
    /// How it stands.
    #[must_use]
    pub fn standing(&self) -> Standing {
        *self.0.borrow()
    }

    /// Changes how it stands. What was called off stays so.
    pub fn stand(&self, standing: Standing) {
        self.0.send_if_modified(|now| {
            let change = *now != Standing::CalledOff && *now != standing;
            if change {
                *now = standing;
            }
            change
        });
    }

    /// Waits until jobs may begin or are called off.
    pub async fn passed(&self) -> Passed {
        let mut watched = self.0.subscribe();
        let standing = watched.wait_for(|standing| *standing != Standing::Shut).await;
        // The sender lives as long as the gate that is waited at.
        match standing.as_deref() {
            Ok(Standing::CalledOff) => Passed::CalledOff,
            _ => Passed::Through,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_was_called_off_stays_so() {
        let gate = Gate::default();
        gate.stand(Standing::Shut);
        gate.stand(Standing::CalledOff);
        gate.stand(Standing::Open);
        assert_eq!(gate.standing(), Standing::CalledOff);
        assert_eq!(gate.passed().await, Passed::CalledOff);
    }
}
