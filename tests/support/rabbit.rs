//! Private RabbitMQ nodes on free ports, from the system's packages; whatever listens on 5672 is left alone.
//!
//! A node takes some 8 s of a processor to start. So the tests of a binary share one, each with a virtual host of its own,
//! unless they kill it or need settings of their own; and where tests/in_parallel.py runs several binaries, all of them do.

use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::{Duration, Instant};

use serde_json::json;

use super::free_port;

/// Longest that a node may take to start on a busy machine.
const START_MAX: Duration = Duration::from_secs(180);

/// Nodes start one after the other: several at once all take as long as the last.
static STARTING: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// What lets a client in: nothing that could be anywhere by chance.
pub const PASSWORD: &str = "TellingBrokerPasswordThatNobodyMayRead0815";

/// Virtual hosts that a run's node has, and a process's. They are there from its start, as making one later takes a tool of
/// Erlang's, which starts for seconds. More than there are tests with a broker; one more would start another node.
const OF_A_RUN: usize = 96;
const OF_A_PROCESS: usize = 24;

/// Names the folder in which the processes of a run find the node that they share; tests/in_parallel.py ends it with the run.
const RUN: &str = "EMBOSSER_TESTS_RUN";

/// The node that the tests of this process share, if there is no such folder; it ends with the last of them that is under way.
static SHARED: tokio::sync::Mutex<Weak<Node>> = tokio::sync::Mutex::const_new(Weak::new());

/// A broker for one test: a node, or a virtual host of one.
pub struct Rabbit {
    node: Arc<Node>,
    virtual_host: String,
}

/// A node that ends with the last that uses it, unless it is the run's.
struct Node {
    directory: PathBuf,
    /// Removes that directory.
    _temporary: Option<tempfile::TempDir>,
    port: u16,
    distribution_port: u16,
    epmd_port: u16,
    tls_port: u16,
    /// None of the run's node.
    server: Mutex<Option<Child>>,
    /// Virtual hosts that were given to tests.
    given: AtomicUsize,
}

impl Rabbit {
    /// A virtual host of a shared node: nobody else sees its queues, and nobody may end it.
    pub async fn shared() -> Self {
        if let Some(run) = std::env::var_os(RUN) {
            let of_the_run = move || Self::of_the_run(Path::new(&run));
            if let Some(rabbit) = tokio::task::spawn_blocking(of_the_run).await.unwrap() {
                return rabbit;
            }
        }
        let mut shared = SHARED.lock().await;
        if let Some(node) = shared.upgrade() {
            let number = node.given.fetch_add(1, Ordering::Relaxed);
            if number < OF_A_PROCESS {
                return Self { node, virtual_host: virtual_host(number) };
            }
        }
        let node = Node::start(OF_A_PROCESS, |_, _| String::new()).await;
        *shared = Arc::downgrade(&node);
        let number = node.given.fetch_add(1, Ordering::Relaxed);
        Self { node, virtual_host: virtual_host(number) }
    }

    /// A virtual host of the run's node, which whoever is first starts; none if all were given away.
    fn of_the_run(folder: &Path) -> Option<Self> {
        let lock = std::fs::File::create(folder.join("lock")).unwrap();
        lock.lock().unwrap();
        let (kept, directory) = (folder.join("broker.json"), folder.join("broker"));
        let keep = |node: &RunsNode| std::fs::write(&kept, serde_json::to_vec(node).unwrap()).unwrap();
        let found = std::fs::read(&kept).ok().map(|text| serde_json::from_slice(&text).unwrap());
        let mut kept_node = match found {
            Some(node @ RunsNode { is_up: true, .. }) => node,
            not_up => {
                if let Some(RunsNode { process_group, .. }) = not_up {
                    // Whoever started it ended before it was up.
                    let group = rustix::process::Pid::from_raw(process_group).unwrap();
                    let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
                    std::fs::remove_dir_all(&directory).unwrap();
                }
                std::fs::create_dir(&directory).unwrap();
                let node = Node::begin_in(directory, None, OF_A_RUN, |_, _| String::new());
                let process_group = node.server().as_ref().unwrap().id().cast_signed();
                let of_run = RunsNode {
                    process_group,
                    port: node.port,
                    epmd_port: node.epmd_port,
                    given: 0,
                    is_up: false,
                };
                // Before it is up, so that tests/in_parallel.py ends it whatever becomes of this process.
                keep(&of_run);
                node.wait();
                node.server().take();
                RunsNode { is_up: true, ..of_run }
            }
        };
        let number = kept_node.given;
        kept_node.given += 1;
        keep(&kept_node);
        let node = Node {
            directory: folder.join("broker"),
            _temporary: None,
            port: kept_node.port,
            distribution_port: 0,
            epmd_port: kept_node.epmd_port,
            tls_port: 0,
            server: Mutex::new(None),
            given: AtomicUsize::new(0),
        };
        (number < OF_A_RUN).then(|| Self { node: Arc::new(node), virtual_host: virtual_host(number) })
    }

    /// Starts a node of the test's own and waits until it answers.
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
        let rabbit = Self::start_with(|directory, port| {
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
        .await;
        // It listens there a while after it answers at its other port.
        let (began, port) = (Instant::now(), rabbit.tls_port());
        while tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_err() {
            assert!(began.elapsed() < START_MAX, "RabbitMQ does not listen for TLS");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        rabbit
    }

    /// Three nodes of one cluster, each with every queue.
    pub async fn cluster() -> [Self; 3] {
        let _starting = STARTING.lock().await;
        let nodes = tokio::task::spawn_blocking(|| {
            let first = Node::begin_member(free_port(), free_port(), None);
            first.wait();
            let members = [0, 1].map(|_| Node::begin_member(free_port(), first.epmd_port, Some(first.port)));
            members.iter().for_each(Node::wait);
            let [second, third] = members;
            [first, second, third]
        });
        nodes.await.unwrap().map(|node| Self { node: Arc::new(node), virtual_host: "/".to_owned() })
    }

    async fn start_with(more: fn(&Path, u16) -> String) -> Self {
        Self { node: Node::start(0, more).await, virtual_host: "/".to_owned() }
    }

    pub fn url(&self) -> String {
        self.url_by(self.node.port)
    }

    /// The same by way of another port of this machine.
    pub fn url_by(&self, port: u16) -> String {
        let virtual_host = self.virtual_host.replace('/', "%2f");
        format!("amqp://guest:{PASSWORD}@127.0.0.1:{port}/{virtual_host}")
    }

    /// As [`Self::url`], over TLS.
    pub fn tls_url(&self) -> String {
        format!("amqps://guest:{PASSWORD}@localhost:{}/%2f", self.node.tls_port)
    }

    pub fn port(&self) -> u16 {
        self.node.port
    }

    pub fn tls_port(&self) -> u16 {
        self.node.tls_port
    }

    pub fn virtual_host(&self) -> &str {
        &self.virtual_host
    }

    /// The authority that vouches for its certificate.
    pub fn ca_file(&self) -> PathBuf {
        self.node.directory.join("ca.pem")
    }

    /// Where it keeps its messages.
    pub fn data(&self) -> PathBuf {
        self.node.directory.join("mnesia")
    }

    /// What it logs.
    pub fn log(&self) -> PathBuf {
        self.node.directory.join("log")
    }

    /// The names of its queues.
    pub async fn queues(&self) -> Vec<String> {
        let listed =
            self.node.control(&["list_queues", "-p", &self.virtual_host, "name", "--no-table-headers"]).await;
        listed.lines().map(str::to_owned).collect()
    }

    /// What `rabbitmqctl` does to the whole node, and prints.
    pub async fn control(&self, arguments: &[&str]) -> String {
        self.own().control(arguments).await
    }

    /// Ends it as a service manager would, and waits until it has.
    pub fn stop(&mut self) {
        let mut server = self.own().server();
        let server = server.as_mut().unwrap();
        let pid = rustix::process::Pid::from_child(server);
        rustix::process::kill_process_group(pid, rustix::process::Signal::TERM).unwrap();
        let began = Instant::now();
        while server.try_wait().unwrap().is_none() {
            assert!(began.elapsed() < START_MAX, "RabbitMQ did not stop");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Ends it as a power cut would.
    pub fn kill(&mut self) {
        self.own().kill();
    }

    /// Starts it again, on the same data and port.
    pub async fn start_again(&mut self) {
        let node = self.own();
        *node.server() = Some(run(&node.directory, node.port, node.distribution_port, node.epmd_port));
        tokio::task::block_in_place(|| node.wait());
    }

    /// What is done to a node is done to all who use it.
    fn own(&self) -> &Node {
        assert_eq!(self.virtual_host, "/", "the node is shared: a test that does this needs one of its own");
        &self.node
    }
}

impl Node {
    async fn start(virtual_hosts: usize, more: fn(&Path, u16) -> String) -> Arc<Self> {
        let _starting = STARTING.lock().await;
        tokio::task::spawn_blocking(move || {
            let temporary = tempfile::tempdir().unwrap();
            let node = Self::begin_in(temporary.path().to_owned(), Some(temporary), virtual_hosts, more);
            node.wait();
            Arc::new(node)
        })
        .await
        .unwrap()
    }

    /// Starts one that does not answer yet.
    fn begin_in(
        directory: PathBuf,
        temporary: Option<tempfile::TempDir>,
        virtual_hosts: usize,
        more: fn(&Path, u16) -> String,
    ) -> Self {
        let tls_port = free_port();
        let more = more(&directory, tls_port);
        Self::begin_at((free_port(), free_port(), tls_port), directory, temporary, virtual_hosts, &more)
    }

    /// Starts a cluster's node, which joins the one at `first`. All of them share a cookie and where their names are known.
    fn begin_member(port: u16, epmd_port: u16, first: Option<u16>) -> Self {
        use std::io::Write as _;
        use std::os::unix::fs::OpenOptionsExt as _;
        let temporary = tempfile::tempdir().unwrap();
        let directory = temporary.path().to_owned();
        let mut cookie = std::fs::OpenOptions::new();
        let cookie = cookie.write(true).create_new(true).mode(0o400).open(directory.join(".erlang.cookie"));
        cookie.unwrap().write_all(b"CLUSTEROFTHETESTS").unwrap();
        let members = first.map(|first| {
            format!(
                "cluster_formation.peer_discovery_backend = classic_config\n\
                 cluster_formation.classic_config.nodes.1 = {}\ncluster_formation.classic_config.nodes.2 = {}\n",
                node(first),
                node(port)
            )
        });
        // A node that is alone among three takes nothing.
        let more = format!("cluster_partition_handling = pause_minority\n{}", members.unwrap_or_default());
        Self::begin_at((port, epmd_port, free_port()), directory, Some(temporary), 0, &more)
    }

    fn begin_at(
        (port, epmd_port, tls_port): (u16, u16, u16),
        directory: PathBuf,
        temporary: Option<tempfile::TempDir>,
        virtual_hosts: usize,
        more: &str,
    ) -> Self {
        let distribution_port = free_port();
        let definitions = directory.join("definitions.json");
        let settings = format!(
            "loopback_users = none\nload_definitions = {}\nlog.console = false\ncollect_statistics_interval = 5000\n{more}",
            definitions.display()
        );
        std::fs::write(directory.join("rabbitmq.conf"), settings).unwrap();
        std::fs::write(definitions, who_may_come_in(virtual_hosts)).unwrap();
        std::fs::write(directory.join("plugins"), "[].").unwrap();
        let server = Mutex::new(Some(run(&directory, port, distribution_port, epmd_port)));
        let (_temporary, given) = (temporary, AtomicUsize::new(0));
        Self { directory, _temporary, port, distribution_port, epmd_port, tls_port, server, given }
    }

    fn server(&self) -> MutexGuard<'_, Option<Child>> {
        self.server.lock().unwrap()
    }

    async fn control(&self, arguments: &[&str]) -> String {
        let mut control = Command::new("/usr/lib/rabbitmq/bin/rabbitmqctl");
        control
            .env("HOME", &self.directory)
            .env("RABBITMQ_NODENAME", node(self.port))
            .env("ERL_EPMD_PORT", self.epmd_port.to_string())
            .arg("--quiet")
            .args(arguments)
            .current_dir(&self.directory)
            .stdin(Stdio::null());
        let output = tokio::task::spawn_blocking(move || control.output()).await.unwrap().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    fn kill(&self) {
        let mut server = self.server();
        let Some(server) = server.as_mut() else { return };
        let pid = rustix::process::Pid::from_child(server);
        let _ = rustix::process::kill_process_group(pid, rustix::process::Signal::KILL);
        let _ = server.wait();
    }

    fn wait(&self) {
        let began = Instant::now();
        while !answers(self.port) {
            assert!(began.elapsed() < START_MAX, "RabbitMQ did not start");
            let ended = self.server().as_mut().unwrap().try_wait().unwrap();
            assert_eq!(ended, None, "RabbitMQ ended; see its log");
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

/// What the processes of a run know of the node that they share.
#[derive(serde::Serialize, serde::Deserialize)]
struct RunsNode {
    process_group: i32,
    port: u16,
    epmd_port: u16,
    /// Virtual hosts that were given to tests.
    given: usize,
    /// Whether it has answered.
    is_up: bool,
}

fn virtual_host(number: usize) -> String {
    format!("test{number}")
}

/// The node's one user, and its virtual hosts.
fn who_may_come_in(virtual_hosts: usize) -> String {
    let names = || (0..virtual_hosts).map(virtual_host).chain(["/".to_owned()]);
    let of = |name| json!({"user": "guest", "vhost": name, "configure": ".*", "write": ".*", "read": ".*"});
    json!({
        "users": [{"name": "guest", "password": PASSWORD, "tags": "administrator"}],
        "vhosts": names().map(|name| json!({ "name": name })).collect::<Vec<_>>(),
        "permissions": names().map(of).collect::<Vec<_>>(),
    })
    .to_string()
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

fn run(directory: &Path, port: u16, distribution_port: u16, epmd_port: u16) -> Child {
    let path = |name: &str| directory.join(name);
    // The package's own script, past the wrapper that insists on the package's user.
    let mut server = Command::new("/usr/lib/rabbitmq/bin/rabbitmq-server");
    server
        .env("HOME", directory)
        .env("RABBITMQ_NODENAME", node(port))
        .env("RABBITMQ_NODE_IP_ADDRESS", "127.0.0.1")
        .env("RABBITMQ_NODE_PORT", port.to_string())
        .env("RABBITMQ_DIST_PORT", distribution_port.to_string())
        .env("ERL_EPMD_PORT", epmd_port.to_string())
        // Else it could not be ended before it has noticed that its node is gone.
        .env("ERL_EPMD_RELAXED_COMMAND_CHECK", "1")
        .env("RABBITMQ_MNESIA_BASE", path("mnesia"))
        .env("RABBITMQ_LOG_BASE", path("log"))
        .env("RABBITMQ_CONFIG_FILE", path("rabbitmq"))
        .env("RABBITMQ_ENABLED_PLUGINS_FILE", path("plugins"))
        .env("RABBITMQ_PID_FILE", path("pid"))
        .env("RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS", "+S 2:2 +sbwt none")
        .current_dir(directory)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0);
    server.spawn().expect("RabbitMQ is installed (tests/run does it)")
}

impl Drop for Node {
    fn drop(&mut self) {
        if self.server().is_none() {
            return;
        }
        self.kill();
        let _ = Command::new("epmd")
            .args(["-port", &self.epmd_port.to_string(), "-kill"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
    }
}
