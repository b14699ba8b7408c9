//! Who is told by a command that ends: webhooks and the notify command, while it runs and for a moment after.

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::signals::say;
use crate::clock::Clock;
use crate::ledger::Ledger;
use crate::manifest::counted;
use crate::webhooks::{DELIVER_AT_END, Receivers, Webhooks};

/// What tells them.
pub(super) struct Telling {
    webhooks: Webhooks,
    stop: CancellationToken,
    sending: JoinHandle<()>,
}

impl Telling {
    /// Begins to deliver; also what earlier runs have left.
    ///
    /// # Errors
    /// A sentence for the operator.
    pub(super) fn begin(receivers: Receivers, ledger: &Ledger) -> Result<Self, String> {
        let webhooks = Webhooks::new(receivers, ledger, &Clock::system())?;
        let stop = CancellationToken::new();
        let sending = tokio::spawn(webhooks.clone().run(stop.clone()));
        Ok(Self { webhooks, stop, sending })
    }

    pub(super) fn webhooks(&self) -> &Webhooks {
        &self.webhooks
    }

    /// Delivers for a moment more, and says what is left. The command's own end is waited for.
    pub(super) async fn end(self) {
        self.stop.cancel();
        let _ = self.sending.await;
        match self.webhooks.deliver_for(DELIVER_AT_END).await {
            Ok(left) if left.pending > 0 => say(&format!(
                "{} could not be told to webhooks yet: the next `embosser issue` or `serve` with this ledger and configuration \
                 goes on, or `embosser webhooks --deliver`",
                counted(left.pending as u64, "event")
            )),
            Ok(_) => {}
            Err(error) => say(&format!("what is left to tell webhooks cannot be read: {error}")),
        }
        self.webhooks.commands_ended().await;
    }
}
