//! RabbitMQ: connections, what travels over them, and publishing that is certain. The worker, `serve` and `submit` use it.
//!
//! [`topology`] names and declares the queues; [`message`] reads a job's message, [`send`] writes one, [`event`] is what a job's
//! end is told as; [`publisher`] publishes, [`subscription`] and [`follow`] are delivered to, and [`delivery`] is what comes.
//!
//! Duty: to be connected, or to try for ever with growing waits. lapin's own recovery is not used: after it tags
//! restart and a consumer may be missing, so a connection that failed is thrown away whole, and everything on it is
//! built anew. Never: a password in a log or an error.

pub(crate) mod delivery;
pub mod event;
pub mod follow;
pub mod message;
pub mod publisher;
pub mod send;
pub(crate) mod subscription;
pub mod topology;

use std::time::Duration;

use lapin::tcp::OwnedTLSConfig;
use lapin::{Connection, ConnectionProperties};
use secrecy::{ExposeSecret as _, SecretString};

use crate::backoff::Backoff;
use crate::config::RabbitmqConfig;
use crate::trace;

/// Most deliveries that a worker is given before it settles one. lapin buffers without bound, so this is the only backpressure;
/// at Stripe's highest pace these are some seconds of work.
pub(crate) const IN_FLIGHT_MAX: u16 = 300;

/// Waits before connecting again.
pub(crate) const RECONNECT: Backoff = Backoff::between(Duration::from_millis(200), Duration::from_secs(10));
/// Bound on one try to connect: a broker that accepts and says nothing must not hold us for ever.
const CONNECT_MAX: Duration = Duration::from_secs(15);
/// Seconds of silence after which a connection is dead, where the address does not say.
const HEARTBEAT_SECONDS: u16 = 10;

/// Bound on one question to the broker: a connection can look well and be dead.
const ANSWER_MAX: Duration = Duration::from_secs(10);

/// Waits for the broker's answer, but not for ever.
///
/// # Errors
/// Why there is none.
pub async fn bounded<T>(question: impl Future<Output = Result<T, lapin::Error>>) -> Result<T, String> {
    tokio::time::timeout(ANSWER_MAX, question)
        .await
        .map_err(|_| "the broker does not answer".to_owned())?
        .map_err(|error| reason(&error))
}

/// Why something failed, in words that hold nothing of a message.
pub(crate) fn reason(error: &lapin::Error) -> String {
    if is_unreadable(error) { UNREADABLE.to_owned() } else { error.to_string() }
}

/// Whether the AMQP library could not read what the broker sent. That ends the connection, and it is a message's doing: a
/// short string that is not UTF-8, say.
pub(crate) fn is_unreadable(error: &lapin::Error) -> bool {
    matches!(error.kind(), lapin::ErrorKind::ParsingError(_))
}

/// What is said of it.
const UNREADABLE: &str = "a message that the AMQP library cannot read (a property that is not UTF-8?)";

/// The broker cannot be used as configured; trying again will not help.
#[derive(Debug, thiserror::Error)]
pub enum BrokerError {
    /// The address, or the file that holds it.
    #[error("rabbitmq.url: {0}")]
    Address(String),
    /// The file of certificates.
    #[error("rabbitmq.ca_file: {0}")]
    Certificates(String),
}

/// Where the broker is, and how to get in.
#[derive(Clone)]
pub struct Broker {
    url: SecretString,
    scheme: &'static str,
    host: String,
    port: Option<u16>,
    ca: Option<String>,
    /// What queues and exchanges are called, and how large they may be.
    pub topology: topology::Topology,
}

impl Broker {
    /// Reads the address, from its file if one is named.
    ///
    /// # Errors
    /// Says which option is wrong.
    pub fn new(config: &RabbitmqConfig) -> Result<Self, BrokerError> {
        let address = match &config.url_file {
            None => config.url.expose().to_owned(),
            Some(file) => std::fs::read_to_string(file)
                .map_err(|error| BrokerError::Address(format!("{}: {error}", file.display())))?,
        };
        let mut url =
            url::Url::parse(address.trim()).map_err(|error| BrokerError::Address(error.to_string()))?;
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
        let ca = config.ca_file.as_ref().map(|file| {
            std::fs::read_to_string(file)
                .map_err(|error| BrokerError::Certificates(format!("{}: {error}", file.display())))
        });
        let (port, ca, topology) = (url.port(), ca.transpose()?, topology::Topology::new(config));
        Ok(Self { url: String::from(url).into(), scheme, host, port, ca, topology })
    }

    /// The address without who enters.
    #[must_use]
    pub fn shown(&self) -> String {
        let port = self.port.map(|port| format!(":{port}")).unwrap_or_default();
        format!("{}://{}{port}", self.scheme, self.host)
    }

    /// Where it is, for a trace's attributes.
    pub(crate) fn server(&self) -> trace::Server<'_> {
        let usual = if self.scheme == "amqps" { 5671 } else { 5672 };
        trace::Server { address: &self.host, port: self.port.unwrap_or(usual) }
    }

    /// One try to connect, under a name that RabbitMQ's own tools show.
    ///
    /// # Errors
    /// lapin's reason, which names no password.
    pub async fn connect(&self, name: &str) -> Result<Connection, String> {
        // One provider for every TLS client of the process; a second call finds it installed.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let properties = ConnectionProperties::default().with_connection_name(name.into());
        let tls = OwnedTLSConfig { identity: None, cert_chain: self.ca.clone() };
        let runtime = lapin::runtime::default_runtime().map_err(|error| error.to_string())?;
        let connecting = Connection::connect_with_config(self.url.expose_secret(), properties, tls, runtime);
        tokio::time::timeout(CONNECT_MAX, connecting)
            .await
            .map_err(|_| "no answer in time".to_owned())?
            .map_err(|error| error.to_string())
    }
}
