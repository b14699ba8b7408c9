//! `embosser sandbox`: the stand-in for Stripe as a server of its own, for trials and for judging embosser from outside.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Map, Value};
use tokio::signal::unix::{SignalKind, signal};

use super::Exit;
use crate::sandbox::{Faults, Options, Sandbox};

/// Between two lines that say what was done.
const REPORT_EVERY: Duration = Duration::from_secs(10);

/// Options of `embosser sandbox`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "It is asked and steered over HTTP as well, under /_sandbox/: GET account (every card made, with \
    its PIN, for judging), GET requests; POST rotate, advance {\"seconds\": N} (its clock: \
    keys grow old, calls under way end), list_lag \
    {\"seconds\": N}, rate {\"endpoint\": N, \"account\": N}, \
    faults {\"NAME\": PROBABILITY}, force {\"status\": N, \"type\": …, \"code\": …, \"param\": …, \"message\": …} \
    (every create and change is answered so, without effect, with \"account\" those of that account; null ends it), key_endpoint \"up\", \"unavailable\" \
    (503) or \"silent\"; cards/CARD/enter_pin {\"pin\": \"1234\", \"where\": \"terminal\" or \"atm\", \"country\": \"GB\"} \
    (somebody pays with it, in the cardholder's country if none is given), cards/CARD/atm {\"action\": \"change\", \"pin\": …, \
    \"new_pin\": …} or {\"action\": \"unblock\", \"pin\": …}: both answer what came of it. Nothing of it is written to a disk. \
    docs/sandbox.md tells more."
)]
pub struct Args {
    /// Address and port to listen on; port 0 takes a free one.
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:12111")]
    pub listen: SocketAddr,
    /// Where the stand-in for Stripe.js listens, whose script is at /v3/ there [default: a free port of the same address].
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub elements_listen: Option<SocketAddr>,
    /// Strict limit on calls in any second, for an endpoint and for an account; 0 for none.
    #[arg(long, value_name = "N", default_value_t = 25)]
    pub rate: usize,
    /// The account's limit, if it is another one.
    #[arg(long, value_name = "N")]
    pub account_rate: Option<usize>,
    /// Most calls of one endpoint at once; 0 for any number.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub concurrency: usize,
    /// How long a card creation takes: milliseconds, or with a unit (200ms, 1.5s).
    #[arg(long, value_name = "TIME", default_value = "0", value_parser = time)]
    pub latency: Duration,
    /// Seed of the faults: with the same one, the n-th call meets the same fault.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,
    /// A fault and its probability, several times for several: error_before, error_after (500 without and with a card), drop_before,
    /// drop_after (the connection is cut), conflict (409), lock_timeout (429 of no limiter), rotate (the key, right
    /// after it was served), html, delay, half_body, empty, list_error
    /// (500), empty_page (a list that says there is more, and has nothing in it); or all=P for each of them.
    #[arg(long = "fault", value_name = "NAME=P", value_parser = fault)]
    pub faults: Vec<(String, f64)>,
    /// How much longer a call takes that meets the fault `delay`.
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = time)]
    pub delay: Duration,
    /// The only API key that is accepted, in a file [default: any secret or restricted key].
    #[arg(long, value_name = "FILE")]
    pub api_key_file: Option<PathBuf>,
    /// How long its PIN keys are, in bits.
    #[arg(long, value_name = "N", default_value_t = 2048, value_parser = clap::value_parser!(u32).range(2048..=4096))]
    pub key_bits: u32,
    /// Its key may not create or change anything: every such call is answered 403.
    #[arg(long)]
    pub read_only: bool,
    /// Its key may not ask whose it is: GET /v1/account is answered 403.
    #[arg(long)]
    pub no_account: bool,
    /// The key endpoint's answer cannot be read by pages of other origins, as if a firewall stood before it.
    #[arg(long)]
    pub no_cors: bool,
    /// An ephemeral key can be used for so long.
    #[arg(long, value_name = "TIME", default_value = "15m", value_parser = time)]
    pub ephemeral_key_lifetime: Duration,
    /// A new card is missing from lists for so long; by its id it is there at once.
    #[arg(long, value_name = "TIME", default_value = "0", value_parser = time)]
    pub list_lag: Duration,
    /// An idempotency key is forgotten after so long.
    #[arg(long, value_name = "TIME", default_value = "86400s", value_parser = time)]
    pub idempotency_window: Duration,
}

/// Milliseconds, or a number with a unit.
fn time(text: &str) -> Result<Duration, String> {
    let (number, unit) =
        text.split_at(text.find(|letter: char| letter.is_ascii_alphabetic()).unwrap_or(text.len()));
    let in_seconds = match unit {
        "" | "ms" => 0.001,
        "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return Err("a time is a number of milliseconds, or has one of the units ms, s, m, h".into()),
    };
    let number: f64 = number.parse().map_err(|_| "a time is a number, such as 200ms".to_owned())?;
    Duration::try_from_secs_f64(number * in_seconds).map_err(|error| error.to_string())
}

fn fault(text: &str) -> Result<(String, f64), String> {
    let (name, probability) = text.split_once('=').ok_or("a fault is NAME=PROBABILITY")?;
    let names = names();
    if name != "all" && !names.contains_key(name) {
        let known: Vec<&str> = names.keys().map(String::as_str).collect();
        return Err(format!("there is no fault {name}; there are {} and all", known.join(", ")));
    }
    let probability: f64 = probability.parse().map_err(|_| "a probability is a number from 0 to 1")?;
    if !(0.0..=1.0).contains(&probability) {
        return Err("a probability is a number from 0 to 1".into());
    }
    Ok((name.to_owned(), probability))
}

fn names() -> Map<String, Value> {
    match serde_json::to_value(Faults::default()) {
        Ok(Value::Object(members)) => members,
        _ => Map::new(),
    }
}

fn faults_of(given: &[(String, f64)]) -> Result<Faults, String> {
    let mut faults = names();
    for (name, probability) in given {
        if name == "all" {
            faults.values_mut().for_each(|fault| *fault = (*probability).into());
        } else {
            faults.insert(name.clone(), (*probability).into());
        }
    }
    serde_json::from_value(Value::Object(faults)).map_err(|error| error.to_string())
}

fn limit(per_second: usize) -> Option<usize> {
    (per_second > 0).then_some(per_second)
}

/// Serves until it is told to stop.
///
/// # Errors
/// If it cannot listen, or its key's file not be read.
pub async fn run(args: Args) -> Result<Exit, String> {
    let api_key = args.api_key_file.as_ref().map(|file| {
        let key = std::fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()))?;
        Ok::<_, String>(key.trim().to_owned())
    });
    let options = Options {
        listen: args.listen,
        elements_listen: args.elements_listen,
        endpoint_per_second: limit(args.rate),
        account_per_second: limit(args.account_rate.unwrap_or(args.rate)),
        endpoint_concurrency: limit(args.concurrency),
        latency: args.latency,
        seed: args.seed,
        faults: faults_of(&args.faults)?,
        delay: args.delay,
        api_key: api_key.transpose()?,
        key_bits: args.key_bits,
        may_write: !args.read_only,
        may_read_account: !args.no_account,
        cors: !args.no_cors,
        ephemeral_key_lifetime: args.ephemeral_key_lifetime,
        list_lag: args.list_lag,
        idempotency_window: args.idempotency_window,
        ..Options::default()
    };
    let mut terminate = signal(SignalKind::terminate()).map_err(|error| error.to_string())?;
    let sandbox = Sandbox::start(options).await.map_err(|error| format!("{}: {error}", args.listen))?;
    eprintln!(
        "Stripe's stand-in listens on {}. No card is real. For embosser in another terminal:\n\
         export STRIPE_API_KEY=sk_test_sandbox EMBOSSER__STRIPE__API_URL={} EMBOSSER__STRIPE__KEY_URL={}\n\
         Stripe.js's stand-in, for pages that show a card's PIN: {}/v3/",
        sandbox.address(),
        sandbox.api_url(),
        sandbox.key_url(),
        sandbox.elements_url()
    );
    let mut report = tokio::time::interval(REPORT_EVERY);
    let mut printed = summary(&sandbox);
    loop {
        tokio::select! {
            _ = tokio::signal::ctrl_c() => break,
            _ = terminate.recv() => break,
            _ = report.tick() => {
                let now = summary(&sandbox);
                if now != printed {
                    eprintln!("{now}");
                    printed = now;
                }
            }
        }
    }
    eprintln!("stopped: {}", summary(&sandbox));
    sandbox.stop().await;
    Ok(Exit::Success)
}

fn summary(sandbox: &Sandbox) -> String {
    let counts = sandbox.counts();
    format!(
        "{} cards made, {} create calls, {} replays, {} keys served, {} calls turned away by a limiter",
        counts.cards, counts.creates, counts.replays, counts.key_fetches, counts.limited
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_faults_are_read() {
        let times = [("200", 200), ("200ms", 200), ("1.5s", 1500), ("2m", 120_000), ("1h", 3_600_000)];
        for (text, ms) in times {
            assert_eq!(time(text), Ok(Duration::from_millis(ms)), "{text}");
        }
        for text in ["", "fast", "-1s", "5d"] {
            assert!(time(text).is_err(), "{text}");
        }
        assert_eq!(fault("html=0.5"), Ok(("html".to_owned(), 0.5)));
        assert!(fault("htm=0.5").unwrap_err().contains("error_before"));
        for text in ["html", "html=2", "html=x"] {
            assert!(fault(text).is_err(), "{text}");
        }
        let faults = faults_of(&[("all".into(), 0.1), ("empty".into(), 0.0)]).unwrap();
        assert_eq!((faults.html, faults.rotate, faults.empty), (0.1, 0.1, 0.0));
    }
}
