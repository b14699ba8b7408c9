//! Which keys may call the API, and what they may not.

use super::World;
use crate::sandbox::request::{ApiRequest, api_key_of};
use crate::sandbox::response::Fault;

impl World {
    /// Lets in a secret or restricted key, for what it may do.
    pub(super) fn authenticate(&self, request: &ApiRequest) -> Result<(), Fault> {
        let key = request.authorization.as_deref().and_then(api_key_of);
        let accepted = match (&key, &self.options.api_key) {
            (Some(key), Some(only)) => key == only,
            (Some(key), None) => key.starts_with("sk_") || key.starts_with("rk_"),
            (None, _) => false,
        };
        if !accepted {
            let message = "Invalid API Key provided";
            return Err(Fault::of(401, "invalid_request_error", None, message));
        }
        if request.method == "POST" && !self.options.may_write {
            return Err(may_not("rak_issuing_card_write"));
        }
        Ok(())
    }
}

/// What a key without a permission is answered.
pub(super) fn may_not(permission: &str) -> Fault {
    let message = format!(
        "The provided key does not have the required permissions for this endpoint. Having the '{permission}' \
         permission would allow this request to continue."
    );
    Fault::of(403, "invalid_request_error", Some("more_permissions_required"), &message)
}
