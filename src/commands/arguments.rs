//! How arguments are read that several commands have; what cannot be used is answered with what can.

use std::net::{IpAddr, SocketAddr};

use crate::config::range::{PER_SECOND_MAX, above_zero_up_to, grouped};
use crate::config::{Config, place};

/// `--rate`: calls a second.
///
/// # Errors
/// Says the range.
pub fn rate(text: &str) -> Result<f64, String> {
    let rate = text.parse().ok().filter(|rate| above_zero_up_to(*rate, PER_SECOND_MAX));
    rate.ok_or_else(|| format!("calls a second are a number above 0 and up to {}", grouped(PER_SECOND_MAX)))
}

/// An address with a port.
///
/// # Errors
/// Gives an example, of the port or address that was given where it was one.
pub fn address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| {
        let port = text.strip_prefix(':').unwrap_or(text).parse::<u16>().ok();
        let example = match (text.parse::<IpAddr>(), port) {
            (Ok(ip), _) => SocketAddr::from((ip, 8080)),
            (Err(_), Some(port)) => SocketAddr::from(([127, 0, 0, 1], port)),
            (Err(_), None) => SocketAddr::from(([127, 0, 0, 1], 8080)),
        };
        format!("an address and a port are needed, for example {example}")
    })
}

/// The configuration with what the command line says instead, checked, and with the ledger's place found. Warns of
/// what it names and every user of the machine can read.
///
/// # Errors
/// What is wrong with it, for the operator.
pub fn with_options(mut config: Config, rate: Option<f64>, ledger: Option<&str>) -> Result<Config, String> {
    if let Some(rate) = rate {
        config.pace.endpoint_per_second = rate;
        config.pace.account_per_second = rate;
    }
    if let Some(ledger) = ledger {
        ledger.clone_into(&mut config.ledger.url);
    }
    let mut config = config.checked().map_err(|error| error.to_string())?;
    config.ledger.url = place::ledger_url(&config.ledger.url).map_err(|error| error.to_string())?;
    super::exposed::warn(&config);
    Ok(config)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_used_is_answered_with_what_can() {
        assert_eq!(rate("0.5"), Ok(0.5));
        for wrong in ["0", "-1", "nan", "inf", "fast", "100001", ""] {
            assert!(rate(wrong).unwrap_err().contains("above 0 and up to 100,000"), "{wrong}");
        }
        assert!(address("[::1]:80").is_ok());
        for (wrong, example) in [
            ("8099", "127.0.0.1:8099"),
            (":8099", "127.0.0.1:8099"),
            ("10.0.0.1", "10.0.0.1:8080"),
            ("::1", "[::1]:8080"),
            ("localhost:1", "127.0.0.1:8080"),
        ] {
            assert!(address(wrong).unwrap_err().ends_with(example), "{wrong}: {:?}", address(wrong));
        }
    }
}
