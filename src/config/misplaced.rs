//! A secret that stands where the name of its file belongs. An error about that file would show it.

use std::path::Path;

/// What is said of it.
pub(super) const NO_FILE: &str = "must be the name of a file that holds the secret, and not the secret itself (what stands there is not shown)";
/// No secret is shorter.
const SECRET_BYTES_MIN: usize = 16;

/// Whether it is a key of Stripe's, a webhook's secret, a token, or an address with a password: none of them is a file's name.
pub(super) fn is_secret(file: &Path) -> bool {
    let Some(text) = file.to_str() else { return false };
    let begins = |prefix: &str| text.starts_with(prefix);
    let is_word = text.len() >= SECRET_BYTES_MIN
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-+=".contains(&byte));
    begins("amqp://")
        || begins("amqps://")
        || (is_word && ["sk_", "rk_", "whsec_", "embosser_"].into_iter().any(begins))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_told_from_a_file() {
        for secret in [
            "sk_test_0123456789abcdef",
            "rk_live_0123456789abcdef",
            "whsec_0123456789abcdef",
            "embosser_0123456789abcdef",
            "amqps://user:password@host/",
        ] {
            assert!(is_secret(Path::new(secret)), "{secret}");
        }
        for file in
            ["/run/secrets/sk_live_key_of_company", "sk_live_key_of_company.txt", "sk_key", "amqp", ""]
        {
            assert!(!is_secret(Path::new(file)), "{file}");
        }
    }

    #[test]
    fn no_error_shows_one() {
        for toml in [
            "[stripe]\napi_key_file = \"sk_test_SECRET0123456789\"",
            "[http]\ntokens_file = \"embosser_SECRET0123456789\"",
            "[rabbitmq]\nurl_file = \"amqp://user:SECRET@host\"",
            "[stripe_events]\nsecret_file = \"whsec_SECRET0123456789\"",
            "[[webhooks.endpoints]]\nurl = \"https://a.example\"\nsecret_file = \"whsec_SECRET0123456789\"",
        ] {
            let error =
                toml::from_str::<crate::config::Config>(toml).unwrap().checked().unwrap_err().to_string();
            assert!(error.contains("the name of a file") && !error.contains("SECRET"), "{error}");
        }
    }
}
