//! `embosser health`: whether the `serve` or `worker` of this machine lives, for images that have no other HTTP client.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use super::Exit;
use crate::config::Config;

/// Longest wait for the answer.
const ANSWER_MAX: Duration = Duration::from_secs(5);

/// Options of `embosser health`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Where it listens [default: http.listen, with --worker worker.listen].
    #[arg(value_name = "ADDRESS:PORT", value_parser = super::arguments::address)]
    pub address: Option<SocketAddr>,
    /// Ask the worker, not the server.
    #[arg(long)]
    pub worker: bool,
    /// Ask whether it takes work, too, instead of whether it lives.
    #[arg(long)]
    pub ready: bool,
}

/// 0 if it does, 1 if it does not.
///
/// # Errors
/// If no client can be made.
pub async fn run(args: &Args, config: &Config) -> Result<Exit, String> {
    let configured = if args.worker { config.worker.listen } else { config.http.listen };
    let address = reachable(args.address.unwrap_or(configured));
    let path = if args.ready { "readyz" } else { "healthz" };
    // reqwest wants one even where it speaks plain HTTP; a second call finds it set.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = reqwest::Client::builder()
        .no_proxy()
        .timeout(ANSWER_MAX)
        .build()
        .map_err(|error| error.to_string())?;
    match client.get(format!("http://{address}/{path}")).send().await {
        Ok(answer) if answer.status().is_success() => Ok(Exit::Success),
        Ok(answer) => {
            eprintln!("{address}/{path}: {}", answer.status());
            Ok(Exit::Refused)
        }
        Err(error) => {
            eprintln!("{address}/{path}: {}", error.without_url());
            Ok(Exit::Refused)
        }
    }
}

/// Who listens on every address is asked on the loopback one.
fn reachable(mut address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        address.set_ip(match address.ip() {
            IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        });
    }
    address
}
