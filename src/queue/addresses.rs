//! Where the broker is: one address, or those of a cluster's nodes, which are tried in turn.

use secrecy::{ExposeSecret as _, SecretString};

use super::{BrokerError, HEARTBEAT_SECONDS};
use crate::config::RabbitmqConfig;
use crate::trace;

/// One node's address.
#[derive(Clone)]
pub(super) struct Address {
    /// With who enters.
    pub(super) url: SecretString,
    scheme: &'static str,
    host: String,
    port: Option<u16>,
}

/// Those that are configured: in the file, as a list, or as one.
pub(super) fn configured(config: &RabbitmqConfig) -> Result<Vec<Address>, BrokerError> {
    let texts = match &config.url_file {
        Some(file) => vec![
            std::fs::read_to_string(file)
                .map_err(|error| BrokerError::Address(format!("{}: {error}", file.display())))?,
        ],
        None if config.urls.is_empty() => vec![config.url.expose().to_owned()],
        None => config.urls.iter().map(|url| url.expose().to_owned()).collect(),
    };
    let addresses: Result<Vec<_>, _> =
        texts.iter().flat_map(|text| split(text)).map(Address::parse).collect();
    addresses.and_then(|addresses| {
        if addresses.is_empty() { Err(BrokerError::Address("it is empty".into())) } else { Ok(addresses) }
    })
}

/// Several addresses in one text stand on lines of their own, or between commas. A comma may also be part of a password, so
/// that only one before another address counts.
fn split(text: &str) -> Vec<&str> {
    let mut found = Vec::new();
    for word in text.split_whitespace() {
        let mut rest = word;
        let next =
            |rest: &str| rest.match_indices(',').map(|(at, _)| at).find(|at| begins_address(&rest[at + 1..]));
        while let Some(at) = next(rest) {
            found.push(&rest[..at]);
            rest = &rest[at + 1..];
        }
        found.push(rest.trim_end_matches(','));
    }
    found.retain(|address| !address.is_empty());
    found
}

fn begins_address(text: &str) -> bool {
    text.starts_with("amqp://") || text.starts_with("amqps://")
}

impl Address {
    fn parse(text: &str) -> Result<Self, BrokerError> {
        let mut url = url::Url::parse(text).map_err(|error| BrokerError::Address(error.to_string()))?;
        let (scheme, host) = match (url.scheme(), url.host_str()) {
            ("amqp", Some(host)) => ("amqp", host.to_owned()),
            ("amqps", Some(host)) => ("amqps", host.to_owned()),
            _ => return Err(BrokerError::Address("it needs amqp:// or amqps:// and a host".into())),
        };
        if url.path() == "/" {
            // To AMQP this is a virtual host without a name; what is meant is the default one.
            url.set_path("/%2f");
        }
        if !url.query_pairs().any(|(name, _)| name == "heartbeat") {
            url.query_pairs_mut().append_pair("heartbeat", &HEARTBEAT_SECONDS.to_string());
        }
        let port = url.port();
        Ok(Self { url: String::from(url).into(), scheme, host, port })
    }

    /// With buffers for frames of that size, unless the address itself says how large they are.
    pub(super) fn with_frames(&self, bytes_max: u32) -> Self {
        let Ok(mut url) = url::Url::parse(self.url.expose_secret()) else { return self.clone() };
        if !url.query_pairs().any(|(name, _)| name == "frame_max") {
            url.query_pairs_mut().append_pair("frame_max", &bytes_max.to_string());
        }
        Self { url: String::from(url).into(), ..self.clone() }
    }

    /// Without who enters.
    pub(super) fn shown(&self) -> String {
        let port = self.port.map(|port| format!(":{port}")).unwrap_or_default();
        format!("{}://{}{port}", self.scheme, self.host)
    }

    /// For a trace's attributes.
    pub(super) fn server(&self) -> trace::Server<'_> {
        let usual = if self.scheme == "amqps" { 5671 } else { 5672 };
        trace::Server { address: &self.host, port: self.port.unwrap_or(usual) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(config: &RabbitmqConfig) -> Vec<String> {
        configured(config).unwrap().iter().map(Address::shown).collect()
    }

    #[test]
    fn addresses_stand_in_a_list_on_lines_or_between_commas() {
        let two = ["amqp://one:5671", "amqps://two"];
        let list = RabbitmqConfig {
            urls: vec!["amqp://u:p,w@one:5671/v".into(), "amqps://u:p@two".into()],
            ..RabbitmqConfig::default()
        };
        assert_eq!(shown(&list), two);
        for text in ["amqp://u:p,w@one:5671/v,amqps://u:p@two", "amqp://one:5671\n amqps://two\n"] {
            let one = RabbitmqConfig { url: text.into(), ..RabbitmqConfig::default() };
            assert_eq!(shown(&one), two, "{text}");
        }
    }

    #[test]
    fn an_address_that_names_its_frames_keeps_them() {
        let with_small_ones = |text: &str| Address::parse(text).unwrap().with_frames(8192);
        for (text, frames) in
            [("amqp://one", "frame_max=8192"), ("amqp://one?frame_max=65536", "frame_max=65536")]
        {
            let url = with_small_ones(text).url;
            assert_eq!(url.expose_secret().matches("frame_max").count(), 1);
            assert!(url.expose_secret().contains(frames), "{frames}");
        }
        assert_eq!(with_small_ones("amqps://u:p@two:5671/v").shown(), "amqps://two:5671");
    }

    #[test]
    fn none_and_what_is_no_address_are_refused_without_their_password() {
        for text in ["", " \n", "http://u:SECRET@one", "amqp://u:SECRET@one:99999"] {
            let config = RabbitmqConfig { url: text.into(), ..RabbitmqConfig::default() };
            let error = configured(&config).err().unwrap().to_string();
            assert!(!error.contains("SECRET"), "{error}");
        }
    }
}
