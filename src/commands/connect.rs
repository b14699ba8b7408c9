//! To Stripe, or to a sandbox that is started here.

use std::time::Duration;

use secrecy::SecretString;

use crate::account::Access;
use crate::config::Config;
use crate::sandbox::{self, Sandbox};
use crate::stripe::Mode;

/// How long a first contact is tried for before a command that ends gives up.
pub const FIRST_CONTACT_MAX: Duration = Duration::from_secs(60);

/// Access to Stripe with the key, or with `sandbox` to one that is started here.
///
/// # Errors
/// A sentence for the operator.
pub async fn connect(
    sandbox: bool,
    config: &mut Config,
    api_key: Option<SecretString>,
) -> Result<(Access, Option<Sandbox>), String> {
    if !sandbox {
        let key = api_key.ok_or(
            "no API key: set STRIPE_API_KEY, or stripe.api_key_file to a file that holds it (or try --sandbox)",
        )?;
        let access = Access::with_key(&config.stripe, &key).map_err(|error| error.to_string())?;
        return Ok((access, None));
    }
    if api_key.as_ref().is_some_and(|key| Mode::of(key) == Mode::Live) {
        return Err("--sandbox with a live key: unset STRIPE_API_KEY; the sandbox needs none".into());
    }
    let sandbox =
        Sandbox::start(sandbox::Options::default()).await.map_err(|error| format!("sandbox: {error}"))?;
    config.stripe.api_url = sandbox.api_url();
    config.stripe.key_url = sandbox.key_url();
    let access = Access::to_sandbox(&config.stripe).map_err(|error| error.to_string())?;
    Ok((access, Some(sandbox)))
}
