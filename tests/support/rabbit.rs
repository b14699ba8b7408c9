//! A private RabbitMQ node on free ports, from the system's packages; whatever listens on 5672 is left alone.

use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::free_port;

/// Longest that a node may take to start on a busy machine.
const START_MAX: Duration = Duration::from_secs(90);

/// What lets a client in: nothing that could be anywhere by chance.
pub const PASSWORD: &str = "TellingBrokerPasswordThatNobodyMayRead0815";

/// A node that ends with the test.
pub struct Rabbit {
    directory: tempfile::TempDir,
    port: u16,
    distribution_port: u16,
    epmd_port: u16,
    tls_port: u16,
    server: Child,
}

impl Rabbit {
    /// Starts a node and waits until it answers.
    pub async fn start() -> Self {
        Self::start_with(|_, _| String::new()).await
    }

    /// One with the settings of deploy/rabbitmq.
    pub async fn start_as_deployed() -> Self {
        Self::start_with(|_, _| {
            let deployed = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/rabbitmq/embosser.conf");
            std::fs::read_to_string(deployed).unwrap()
        })
        .await
    }

    /// One that speaks TLS, too, with a certificate of an authority that nobody else knows.
    pub async fn start_with_tls() -> Self {
        Self::start_with(|directory, port| {
            super::certificates::write(directory);
            let file = |name: &str| directory.join(name).display().to_string();
            format!(
                "listeners.ssl.default = 127.0.0.1:{port}\nssl_options.cacertfile = {}\n\
                 ssl_options.certfile = {}\nssl_options.keyfile = {}\nssl_options.verify = verify_none\n",
                file("ca.pem"),
                file("server.pem"),
                file("server.key")
            )
        })
        .await
    }

    async fn start_with(more: fn(&Path, u16) -> String) -> Self {
        tokio::task::spawn_blocking(move || {
            let directory = tempfile::tempdir().unwrap();
            let (port, distribution_port, epmd_port, tls_port) =
                (free_port(), free_port(), free_port(), free_port());
            let more = more(directory.path(), tls_port);
            std::fs::write(
                directory.path().join("rabbitmq.conf"),
                format!(
                    "loopback_users = none\ndefault_pass = {PASSWORD}\nlog.console = false\ncollect_statistics_interval = 5000\n{more}"
                ),
            )
            .unwrap();
            std::fs::write(directory.path().join("plugins"), "[].").unwrap();
            let server = run(&directory, port, distribution_port, epmd_port);
            let mut rabbit = Self { directory, port, distribution_port, epmd_port, tls_port, server };
            rabbit.wait();
            rabbit
        })
        .await
        .unwrap()
    }

    pub fn url(&self) -> String {
        self.url_by(self.port)
    }

    /// The same by way of another port of this machine.
    pub fn url_by(&self, port: u16) -> String {
        format!("amqp://guest:{PASSWORD}@127.0.0.1:{port}/%2f")
    }

    /// As [`Self::url`], over TLS.
    pub fn tls_url(&self) -> String {
        format!("amqps://guest:{PASSWORD}@localhost:{}/%2f", self.tls_port)
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn tls_port(&self) -> u16 {
        self.tls_port
    }

    /// The authority that vouches for its certificate.
    pub fn ca_file(&self) -> PathBuf {
        self.directory.path().join("ca.pem")
    }

    /// Where it keeps its messages.
    pub fn data(&self) -> PathBuf {
        self.directory.path().join("mnesia")
    }

    /// What it logs.
    pub fn log(&self) -> PathBuf {
        self.directory.path().join("log")
    }

    /// The names of its queues.
    pub async fn queues(&self) -> Vec<String> {
        let mut control = Command::new("/usr/lib/rabbitmq/bin/rabbitmqctl");
        control
            .env("HOME", self.directory.path())
            .env("RABBITMQ_NODENAME", node(self.port))
            .env("ERL_EPMD_PORT", self.epmd_port.to_string())
            .args(["--quiet", "list_queues", "name", "--no-table-headers"])
            .current_dir(self.directory.path())
            .stdin(Stdio::null());
        let output = tokio::task::spawn_blocking(move || control.output()).await.unwrap().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
    }

    /// Ends it as a service manager would, and waits until it has.
    pub fn stop(&mut self) {
        let pid = rustix::process::Pid::from_child(&self.server);
        rustix::process::kill_process_group(pid, rustix::process::Signal::TERM).unwrap();
        let began = Instant::now();
        while self.server.try_wait().unwrap().is_none() {
            assert!(began.elapsed() < START_MAX, "RabbitMQ did not stop");
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Ends it as a power cut would.
    pub fn kill(&mut self) {
        let pid = rustix::process::Pid::from_child(&self.server);
        let _ = rustix::process::kill_process_group(pid, rustix::process::Signal::KILL);
        let _ = self.server.wait();
    }

    /// Starts it again, on the same data and port.
    pub async fn start_again(&mut self) {
        self.server = run(&self.directory, self.port, self.distribution_port, self.epmd_port);
        tokio::task::block_in_place(|| self.wait());
    }

    fn wait(&mut self) {
        let began = Instant::now();
        while !answers(self.port) {
            assert!(began.elapsed() < START_MAX, "RabbitMQ did not start");
            assert_eq!(self.server.try_wait().unwrap(), None, "RabbitMQ ended; see its log");
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

fn node(port: u16) -> String {
    format!("embosser{port}@localhost")
}

/// A broker that is up greets a wrong protocol header with its own; before that it refuses the connection.
fn answers(port: u16) -> bool {
    use std::io::{Read as _, Write as _};
    let Ok(mut stream) = std::net::TcpStream::connect(("127.0.0.1", port)) else { return false };
    let _ = stream.set_read_timeout(Some(Duration::from_secs(2)));
    let mut greeting = [0; 4];
    stream.write_all(b"AMQP\x00\x00\x00\x00").is_ok() && stream.read_exact(&mut greeting).is_ok()
}

fn run(directory: &tempfile::TempDir, port: u16, distribution_port: u16, epmd_port: u16) -> Child {
    let path = |name: &str| directory.path().join(name);
    // The package's own script, past the wrapper that insists on the package's user.
    let mut server = Command::new("/usr/lib/rabbitmq/bin/rabbitmq-server");
    server
        .env("HOME", directory.path())
        .env("RABBITMQ_NODENAME", node(port))
        .env("RABBITMQ_NODE_IP_ADDRESS", "127.0.0.1")
        .env("RABBITMQ_NODE_PORT", port.to_string())
        .env("RABBITMQ_DIST_PORT", distribution_port.to_string())
        .env("ERL_EPMD_PORT", epmd_port.to_string())
        .env("RABBITMQ_MNESIA_BASE", path("mnesia"))
        .env("RABBITMQ_LOG_BASE", path("log"))
        .env("RABBITMQ_CONFIG_FILE", path("rabbitmq"))
        .env("RABBITMQ_ENABLED_PLUGINS_FILE", path("plugins"))
        .env("RABBITMQ_PID_FILE", path("pid"))
        .env("RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS", "+S 2:2 +sbwt none")
        .current_dir(directory.path())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0);
    server.spawn().expect("RabbitMQ is installed (tests/run does it)")
}

impl Drop for Rabbit {
    fn drop(&mut self) {
        self.kill();
        let _ = Command::new("epmd")
            .args(["-port", &self.epmd_port.to_string(), "-kill"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
    }
}
