//! RabbitMQ: connections, what travels over them, and publishing that is certain. The worker, `serve` and `submit` use it.
//!
//! [`topology`] names and declares the queues; [`message`] reads a job's message, [`send`] writes one, [`event`] is what a job's
//! end is told as; [`publisher`] publishes, and [`obstacle`] is what may keep it from that; [`subscription`] and [`follow`] are
//! delivered to, and [`delivery`] is what comes.
//!
//! Duty: to be connected, or to try for ever with growing waits. lapin's own recovery is not used: after it tags
//! restart and a consumer may be missing, so a connection that failed is thrown away whole, and everything on it is
//! built anew. Never: a password in a log or an error.

mod addresses;
pub mod delivery;
mod differs;
pub mod event;
pub mod follow;
pub mod message;
pub mod obstacle;
pub mod publisher;
pub mod send;
pub(crate) mod subscription;
pub mod topology;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use lapin::protocol::{AMQPErrorKind, AMQPHardError};
use lapin::tcp::OwnedTLSConfig;
use lapin::{Connection, ConnectionProperties};
use secrecy::ExposeSecret as _;

use crate::backoff::Backoff;
use crate::config::RabbitmqConfig;
use crate::trace;
use addresses::Address;

/// Most deliveries that a worker is given before it settles one. lapin buffers without bound, so this is the only backpressure;
/// at Stripe's highest pace these are some seconds of work.
pub(crate) const IN_FLIGHT_MAX: u16 = 300;

/// Waits before connecting again.
pub(crate) const RECONNECT: Backoff = Backoff::between(Duration::from_millis(200), Duration::from_secs(10));
/// Bound on one try to connect: a broker that accepts and says nothing must not hold us for ever.
const CONNECT_MAX: Duration = Duration::from_secs(15);
/// The same where there is another node to try: one that is well answers within a second.
const CONNECT_ONE_OF_MAX: Duration = Duration::from_secs(5);
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
/// short string that is not UTF-8, say, or headers that are larger than a frame may be, as these are never split.
pub(crate) fn is_unreadable(error: &lapin::Error) -> bool {
    const LARGE_FRAME: AMQPErrorKind = AMQPErrorKind::Hard(AMQPHardError::FRAMEERROR);
    match error.kind() {
        lapin::ErrorKind::ParsingError(_) => true,
        lapin::ErrorKind::ProtocolError(error) => *error.kind() == LARGE_FRAME,
        _ => false,
    }
}

/// What is said of it.
const UNREADABLE: &str = "a message that the AMQP library cannot read (a property that is not UTF-8, or headers that are too large?)";

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

/// Where the broker is, and how to get in. Clones share which of several nodes answered last.
#[derive(Clone)]
pub struct Broker {
    addresses: Arc<[Address]>,
    /// The node that answered last, which is tried first.
    latest: Arc<AtomicUsize>,
    ca: Option<String>,
    /// What queues and exchanges are called, and how large they may be.
    pub topology: topology::Topology,
}

impl Broker {
    /// Reads the addresses, from their file if one is named.
    ///
    /// # Errors
    /// Says which option is wrong.
    pub fn new(config: &RabbitmqConfig) -> Result<Self, BrokerError> {
        let addresses = addresses::configured(config)?.into();
        let ca = config.ca_file.as_ref().map(|file| {
            std::fs::read_to_string(file)
                .map_err(|error| BrokerError::Certificates(format!("{}: {error}", file.display())))
        });
        let (ca, topology) = (ca.transpose()?, topology::Topology::new(config));
        Ok(Self { addresses, latest: Arc::default(), ca, topology })
    }

    /// The same broker, with the queues of another prefix. The two share which node answered last.
    #[must_use]
    pub fn with_queues_of(&self, config: &RabbitmqConfig) -> Self {
        Self { topology: topology::Topology::new(config), ..self.clone() }
    }

    /// The same broker for a process with many connections to it. lapin keeps room for 64 frames on each: with the usual ones of
    /// 128 KiB that is 8 MiB, with these 1 MiB. A longer message goes in several; one with more headers than that is unreadable.
    #[must_use]
    pub fn with_small_frames(&self) -> Self {
        /// More than any job's headers: what observability tools add is 8 KiB at most.
        const FRAME_BYTES_MAX: u32 = 16 * 1024;
        let addresses = self.addresses.iter().map(|address| address.with_frames(FRAME_BYTES_MAX)).collect();
        Self { addresses, ..self.clone() }
    }

    /// Every address, without who enters.
    #[must_use]
    pub fn shown(&self) -> String {
        self.addresses.iter().map(Address::shown).collect::<Vec<_>>().join(", ")
    }

    /// That of the node which answered last.
    fn address(&self) -> &Address {
        &self.addresses[self.latest.load(Ordering::Relaxed) % self.addresses.len()]
    }

    /// The same, without who enters.
    #[must_use]
    pub fn shown_latest(&self) -> String {
        self.address().shown()
    }

    /// Where it is, for a trace's attributes.
    pub(crate) fn server(&self) -> trace::Server<'_> {
        self.address().server()
    }

    /// Connects, and makes or checks the queues. A node that answers and cannot do that (it is cut off from the others) is not
    /// the first to be tried next time.
    ///
    /// # Errors
    /// Why it could not.
    pub(crate) async fn open(&self, name: &str) -> Result<Connection, String> {
        let connection = self.connect(name).await?;
        if let Err(reason) = self.topology.ensure(&connection).await {
            self.latest.fetch_add(1, Ordering::Relaxed);
            let _ = bounded(connection.close(200, "of no use".into())).await;
            return Err(reason);
        }
        Ok(connection)
    }

    /// One try to connect to each node, beginning with the one that answered last, under a name that RabbitMQ's own tools show.
    ///
    /// # Errors
    /// lapin's reasons, which name no password.
    pub async fn connect(&self, name: &str) -> Result<Connection, String> {
        let (count, first) = (self.addresses.len(), self.latest.load(Ordering::Relaxed));
        let longest = if count > 1 { CONNECT_ONE_OF_MAX } else { CONNECT_MAX };
        let mut reasons = Vec::new();
        for index in (first..first.saturating_add(count)).map(|index| index % count) {
            let address = &self.addresses[index];
            match self.connect_to(address, name, longest).await {
                Ok(connection) => {
                    self.latest.store(index, Ordering::Relaxed);
                    return Ok(connection);
                }
                Err(reason) if count == 1 => reasons.push(reason),
                Err(reason) => reasons.push(format!("{}: {reason}", address.shown())),
            }
        }
        Err(reasons.join("; "))
    }

    async fn connect_to(
        &self,
        address: &Address,
        name: &str,
        longest: Duration,
    ) -> Result<Connection, String> {
        // One provider for every TLS client of the process; a second call finds it installed.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let properties = ConnectionProperties::default().with_connection_name(name.into());
        let tls = OwnedTLSConfig { identity: None, cert_chain: self.ca.clone() };
        let runtime = lapin::runtime::default_runtime().map_err(|error| error.to_string())?;
        let connecting =
            Connection::connect_with_config(address.url.expose_secret(), properties, tls, runtime);
        tokio::time::timeout(longest, connecting)
            .await
            .map_err(|_| "no answer in time".to_owned())?
            .map_err(|error| error.to_string())
    }
}
