//! Test keys and live keys.

use secrecy::{ExposeSecret, SecretString};

/// Whether a key moves real money.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Any key whose prefix does not prove that it is a test key: `sk_live_…`, and `sk_org…`, which tells neither.
    Live,
    /// `sk_test_…`, `rk_test_…` and the like.
    Test,
}

impl Mode {
    /// Of a key.
    #[must_use]
    pub fn of(api_key: &SecretString) -> Self {
        let (kind, rest) = api_key.expose_secret().trim_start().split_once('_').unwrap_or_default();
        let is_kind = !kind.is_empty() && kind.bytes().all(|byte| byte.is_ascii_lowercase());
        if is_kind && rest.starts_with("test_") { Self::Test } else { Self::Live }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_live_unless_its_prefix_proves_that_it_is_a_test_key() {
        let mode = |key: &str| Mode::of(&key.to_owned().into());
        for key in ["sk_test_1", "rk_test_1", "pk_test_1", "\nsk_test_1"] {
            assert_eq!(mode(key), Mode::Test, "{key}");
        }
        for key in [
            "sk_live_1",
            "rk_live_1",
            "sk_org_1",
            "sk_org_test_1",
            "test_1",
            "_test_1",
            "sk1_test_1",
            "sk_tests",
            "",
        ] {
            assert_eq!(mode(key), Mode::Live, "{key}");
        }
    }
}
