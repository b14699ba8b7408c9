//! To Stripe, or to a sandbox that is started here: what `issue` and `serve` begin with.

use secrecy::SecretString;

use crate::config::Config;
use crate::ledger::Scope;
use crate::sandbox::{self, Sandbox};
use crate::stripe::{Client, Mode};

/// Where calls go.
pub struct Connected {
    /// To Stripe.
    pub client: Client,
    /// Whose cards they are.
    pub scope: Scope,
    /// The sandbox, if it is one of our own.
    pub sandbox: Option<Sandbox>,
}

/// A client for Stripe, or with `sandbox` for one that is started here.
///
/// # Errors
/// A sentence for the operator.
pub async fn connect(
    sandbox: bool,
    config: &mut Config,
    api_key: Option<SecretString>,
) -> Result<Connected, String> {
    let account = config.stripe.account.clone();
    if !sandbox {
        let key = api_key.ok_or(
            "no API key: set STRIPE_API_KEY, or stripe.api_key_file to a file that holds it (or try --sandbox)",
        )?;
        let client = Client::new(&config.stripe, &key).map_err(|error| error.to_string())?;
        let mode = if client.mode() == Mode::Live { "live" } else { "test" };
        let scope = Scope::new(mode, &client.host(), account.as_deref());
        return Ok(Connected { client, scope, sandbox: None });
    }
    if api_key.as_ref().is_some_and(|key| Mode::of(key) == Mode::Live) {
        return Err(
            "--sandbox with a live key, or one whose beginning does not say that it is a test key (sk_test_…): unset \
             STRIPE_API_KEY; the sandbox needs none"
                .into(),
        );
    }
    let sandbox =
        Sandbox::start(sandbox::Options::default()).await.map_err(|error| format!("sandbox: {error}"))?;
    config.stripe.api_url = sandbox.api_url();
    config.stripe.key_url = sandbox.key_url();
    let client = Client::new(&config.stripe, &SecretString::from("sk_test_sandbox"))
        .map_err(|error| error.to_string())?;
    // A built-in sandbox has another port each time; its cards are one world all the same.
    Ok(Connected { client, scope: Scope::new("test", "sandbox", account.as_deref()), sandbox: Some(sandbox) })
}
