//! `embosser serve`: the HTTP API and its page, with the line in this process, or before RabbitMQ.

use std::net::SocketAddr;
use std::sync::Arc;

use secrecy::{ExposeSecret as _, SecretString};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

use super::Exit;
use super::connect::{Connected, connect};
use crate::broker::Broker;
use crate::clock::Clock;
use crate::config::{Config, JobsTo};
use crate::ledger::{Ledger, Scope};
use crate::line::course::Rules;
use crate::line::{Line, LookFirst, Parts};
use crate::metrics::exporter::Exporter;
use crate::pace::Pace;
use crate::sandbox::Sandbox;
use crate::serve::access::{Role, Tokens, new_token};
use crate::serve::intake::{Intake, Queue};
use crate::serve::{self, Server};

/// Options of `embosser serve`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Issue against a built-in stand-in for Stripe; no account needed, no card is real.
    #[arg(long)]
    pub sandbox: bool,
    /// Address and port to listen on [default: 127.0.0.1:8080].
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub listen: Option<SocketAddr>,
    /// Where outcomes are recorded: sqlite://FILE or postgres://… [default: sqlite://embosser.db].
    #[arg(long, value_name = "URL")]
    pub ledger: Option<String>,
    /// Calls per second, for the endpoint and the account.
    #[arg(long, value_name = "N")]
    pub rate: Option<f64>,
    /// Look for each row's card at Stripe before the first call: after the ledger was lost.
    #[arg(long)]
    pub reconcile_first: bool,
}

/// Options of `embosser token`.
#[derive(Debug, clap::Args)]
pub struct TokenArgs {
    /// Whose it is; stands in the log when the token lacks a role.
    #[arg(value_parser = token_name)]
    pub name: String,
    /// What it allows; give it several times for several.
    #[arg(long = "role", required = true, value_enum)]
    pub roles: Vec<Role>,
}

fn token_name(text: &str) -> Result<String, String> {
    let fine = |character: char| character.is_ascii_alphanumeric() || "._-@".contains(character);
    if text.is_empty() || text.len() > 64 || !text.chars().all(fine) {
        return Err("a name has 1 to 64 letters, digits, and . _ - @".into());
    }
    Ok(text.to_owned())
}

/// Makes a token: the token itself on standard output, once; its line for the file on standard error.
///
/// # Errors
/// Never.
pub fn token(args: &TokenArgs) -> Result<Exit, String> {
    let mut roles = args.roles.clone();
    roles.dedup();
    let (token, line) = new_token(&args.name, &roles);
    eprintln!("# Add this line to http.tokens_file; the token itself is printed once and stored nowhere:");
    eprintln!("{line}");
    println!("{}", token.as_str());
    Ok(Exit::Success)
}

/// Serves until it is told to stop.
///
/// # Errors
/// A sentence for the operator; nothing was served then.
pub async fn run(args: Args, mut config: Config, api_key: Option<SecretString>) -> Result<Exit, String> {
    if let Some(rate) = args.rate {
        config.pace.endpoint_per_second = rate;
        config.pace.account_per_second = rate;
    }
    if let Some(listen) = args.listen {
        config.http.listen = listen;
    }
    if let Some(ledger) = &args.ledger {
        config.ledger.url.clone_from(ledger);
    }
    let mut config = config.checked().map_err(|error| error.to_string())?;
    let tokens = match &config.http.tokens_file {
        Some(file) => Tokens::read(file).map_err(|error| error.to_string())?,
        None => Tokens::none(),
    };
    let listen = config.http.listen;
    if tokens.is_none() && !listen.ip().is_loopback() {
        return Err(format!(
            "{listen} can be reached from other machines: name a file of tokens in http.tokens_file (see `embosser token`)"
        ));
    }
    let (mode, to_queue) = match (args.sandbox, config.http.jobs_to) {
        (true, _) => ("sandbox", None),
        (false, JobsTo::Line) if is_live(api_key.as_ref()) => ("live", None),
        (false, JobsTo::Line) => ("test", None),
        (false, JobsTo::RabbitmqTest) => ("test", Some("test")),
        (false, JobsTo::RabbitmqLive) => ("live", Some("live")),
    };
    if mode == "live" && tokens.is_none() {
        return Err(
            "live cards need tokens: whoever is on this machine could issue them. Name a file of tokens in \
             http.tokens_file (see `embosser token`)"
                .into(),
        );
    }
    let exporter = Exporter::install()?;
    exporter.sweep();
    let open = async |url: &str| Ledger::open(url).await.map_err(|error| error.to_string());
    let (intake, ledger, sandbox) = match to_queue {
        Some(mode) => (queue(&config, mode).await?, None, None),
        None => {
            let connected = connect(args.sandbox, &mut config, api_key).await?;
            let ledger = open(&config.ledger.url).await?;
            let look_first = if args.reconcile_first { LookFirst::Yes } else { LookFirst::No };
            let (intake, sandbox) = line(&config, connected, ledger.clone(), look_first);
            (intake, Some(ledger), sandbox)
        }
    };
    let views = open(&config.ledger.url).await?;
    let listener = TcpListener::bind(listen).await.map_err(|error| format!("{listen}: {error}"))?;
    let address = listener.local_addr().map_err(|error| error.to_string())?;
    let account = config.stripe.account;
    let parts =
        serve::Parts { config: config.http, tokens, intake, views: views.clone(), mode, account, exporter };
    let server = Server::new(parts);
    stop_on_signal(server.clone())?;
    println!("embosser serves on http://{address} ({mode})");
    server.run(listener).await;
    if let Some(ledger) = ledger {
        ledger.close().await;
    }
    views.close().await;
    if let Some(sandbox) = sandbox {
        sandbox.stop().await;
    }
    Ok(Exit::Success)
}

fn is_live(api_key: Option<&SecretString>) -> bool {
    api_key.is_some_and(|key| key.expose_secret().contains("_live_"))
}

/// The line in this process.
fn line(
    config: &Config,
    connected: Connected,
    ledger: Ledger,
    look_first: LookFirst,
) -> (Intake, Option<Sandbox>) {
    let Connected { client, scope, sandbox } = connected;
    let line = Line::new(Parts {
        client,
        pace: Pace::start(&config.pace),
        ledger,
        scope,
        clock: Clock::system(),
        retry: config.retry.clone(),
        rules: Rules::default(),
        look_first,
    });
    (Intake::Line(Arc::new(line)), sandbox)
}

/// The queue of a worker with a key of this mode.
async fn queue(config: &Config, mode: &str) -> Result<Intake, String> {
    let broker = Broker::new(&config.rabbitmq).map_err(|error| error.to_string())?;
    let api = url::Url::parse(&config.stripe.api_url).map_err(|error| format!("stripe.api_url: {error}"))?;
    let host = api.host_str().unwrap_or("");
    let host = api.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
    let scope = Scope::new(mode, &host, config.stripe.account.as_deref());
    let per_second = config.pace.endpoint_per_second.min(config.pace.account_per_second);
    let queue = Queue::open(&broker, scope, Clock::system(), per_second).await;
    Ok(Intake::Queue(Arc::new(queue.map_err(|error| format!("{}: {error}", broker.shown()))?)))
}

fn stop_on_signal(server: Server) -> Result<(), String> {
    let of = |kind| signal(kind).map_err(|error| error.to_string());
    let (mut interrupt, mut terminate) = (of(SignalKind::interrupt())?, of(SignalKind::terminate())?);
    tokio::spawn(async move {
        let told = async || {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
        };
        let mut told = told;
        told().await;
        eprintln!("stopping: calls in flight are finished (again to stop at once)");
        server.stop();
        told().await;
        std::process::exit(i32::from(Exit::Unfinished.code()));
    });
    Ok(())
}
