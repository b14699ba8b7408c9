//! Options in the environment: `EMBOSSER__SECTION__OPTION`.

use serde::de::IntoDeserializer as _;
use serde::{Deserialize, Deserializer};

use super::Config;

/// What all of embosser's own variables begin with.
const PREFIX: &str = "EMBOSSER_";

/// A variable that names an option with one underscore for two, and what is meant: it would be left out without a word. (Of options
/// that have no value as long as nobody gives one, nothing is told.)
pub(super) fn misspelt(names: impl Iterator<Item = String>) -> Option<(String, String)> {
    let Ok(toml::Value::Table(sections)) = toml::Value::try_from(Config::default()) else { return None };
    names.into_iter().find_map(|name| {
        let rest = name.strip_prefix(PREFIX)?;
        let own = rest.strip_prefix('_').unwrap_or(rest).to_lowercase();
        let (section, option) = sections.iter().find_map(|(section, options)| {
            let option = own.strip_prefix(section.as_str())?.strip_prefix('_')?.trim_start_matches('_');
            options.get(option).is_some().then_some((section, option))
        })?;
        let meant = format!("{PREFIX}_{}__{}", section.to_uppercase(), option.to_uppercase());
        (meant != name).then_some((name, meant))
    })
}

/// Reads an option that is one of several words. From the environment all values are texts, of which the library would say in
/// its own terms that a word is none of them.
pub(super) fn word<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    T::deserialize(String::deserialize(deserializer)?.into_deserializer())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_option_with_too_few_underscores_is_named_and_what_is_none_is_left_alone() {
        for (found, meant) in [
            ("EMBOSSER_APPROVAL__REQUIRED", Some("EMBOSSER__APPROVAL__REQUIRED")),
            ("EMBOSSER__APPROVAL_REQUIRED", Some("EMBOSSER__APPROVAL__REQUIRED")),
            ("EMBOSSER_LEDGER_URL", Some("EMBOSSER__LEDGER__URL")),
            ("EMBOSSER_PIN_PAGE__LINK_DAYS", Some("EMBOSSER__PIN_PAGE__LINK_DAYS")),
            ("EMBOSSER_STRIPE_KEY", None),
            ("EMBOSSER__PIN_PAGE__URL", None),
            ("EMBOSSER__RETRY__ATTEMPTS_MAX", None),
            ("EMBOSSER_WEBHOOK_SECRET", None),
            ("EMBOSSER_BATCH", None),
            ("EMBOSSER__NONSENSE__URL", None),
            ("PATH", None),
        ] {
            let suggestion = misspelt(std::iter::once(found.to_owned())).map(|(_, meant)| meant);
            assert_eq!(suggestion.as_deref(), meant, "{found}");
        }
    }
}
