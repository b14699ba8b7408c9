//! What the tests share: manifests with PINs, runs of the program, and judging by the sandbox's own account.
#![allow(dead_code, unreachable_pub, reason = "each test file is a crate of its own and uses a part of this")]

pub mod asking;
pub mod browser;
pub mod certificates;
pub mod choosing;
pub mod issuing;
pub mod line;
pub mod office;
pub mod people;
pub mod pgbouncer;
pub mod postgres;
pub mod proxy;
pub mod rabbit;
pub mod raw_amqp;
pub mod receiver;
pub mod scene;
pub mod secrets;
pub mod serve;
pub mod strict;
pub mod time;
pub mod tls;
pub mod tokens;
pub mod verdict;

use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use embosser::config::StripeConfig;
use embosser::encrypt::encrypt_pin;
use embosser::sandbox::{Account, Sandbox};
use embosser::stripe::Client;

/// Longer than any run here may take; a run that hangs fails its test instead of the whole suite.
const RUN_MAX: Duration = Duration::from_secs(240);

/// A row as the sandbox must have made it: its job, and its PIN if it has one.
pub type Expected = BTreeMap<String, Option<String>>;

/// The PIN that the n-th row's cardholder chose; every fifth row has none.
pub fn pin_of(row: usize) -> Option<String> {
    (!row.is_multiple_of(5)).then(|| format!("{:04}", row * 37 % 10_000))
}

/// A port that nobody listens on at this moment, and that no connection is given as its own: one that was would keep a server
/// that is started again from its port, and who connects to that port meanwhile could even reach itself.
pub fn free_port() -> u16 {
    /// Systems give connections ports from 32768 on.
    const PORTS: std::ops::Range<u16> = 15_000..32_000;
    let mut random = rand::rng();
    loop {
        let port = rand::Rng::random_range(&mut random, PORTS);
        if std::net::TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// A plain HTTP client.
pub fn http_client() -> reqwest::Client {
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder().no_proxy().build().unwrap()
}

/// A client for a sandbox.
pub fn client_of(sandbox: &Sandbox) -> Client {
    let config =
        StripeConfig { api_url: sandbox.api_url(), key_url: sandbox.key_url(), ..StripeConfig::default() };
    Client::new(&config, &"sk_test_of_the_tests".to_owned().into()).unwrap()
}

/// Writes a manifest of `rows` rows with PINs under the sandbox's current key, and says what must come of it. The
/// same rows come each time, their PINs encrypted anew.
pub async fn write_manifest(path: &Path, sandbox: &Sandbox, rows: usize) -> Expected {
    let key = client_of(sandbox).pin_key().await.unwrap();
    let batch = path.file_stem().unwrap().to_string_lossy().into_owned();
    let path = path.to_owned();
    tokio::task::spawn_blocking(move || {
        let mut expected = Expected::new();
        let mut text =
            "row_id,cardholder,type,currency,metadata[department],pin[encrypted_number]\n".to_owned();
        for row in 1..=rows {
            let pin = pin_of(row);
            let jwe = pin.as_deref().map(|pin| encrypt_pin(pin, &key).unwrap()).unwrap_or_default();
            text += &format!("r{row},ich_{:02},virtual,eur,\"a, b\",{jwe}\n", row % 7);
            expected.insert(format!("{batch}/r{row}"), pin);
        }
        std::fs::write(path, text).unwrap();
        expected
    })
    .await
    .unwrap()
}

/// Fails unless there is one card for each expected job, with its PIN, and no other.
pub fn one_card_each(account: &Account, expected: &Expected) {
    let mut made: BTreeMap<String, Vec<Option<String>>> = BTreeMap::new();
    for card in &account.cards {
        made.entry(card.job.clone().unwrap_or_default()).or_default().push(card.pin.clone());
    }
    let twice: Vec<_> = made.iter().filter(|(_, pins)| pins.len() > 1).collect();
    assert!(twice.is_empty(), "more than one card: {twice:?}");
    let made: Expected = made.into_iter().map(|(job, mut pins)| (job, pins.pop().unwrap())).collect();
    assert_eq!(&made, expected, "left: cards made, right: cards asked for");
}

/// `embosser`, in a directory of its own, against a sandbox.
#[derive(Clone)]
pub struct Program {
    pub directory: PathBuf,
    pub environment: Vec<(String, String)>,
}

impl Program {
    pub fn new(directory: &Path, sandbox: &Sandbox) -> Self {
        let environment = [
            ("EMBOSSER__STRIPE__API_URL", sandbox.api_url()),
            ("EMBOSSER__STRIPE__KEY_URL", sandbox.key_url()),
            ("STRIPE_API_KEY", "sk_test_of_the_tests".to_owned()),
            // The sandbox's calls end soon and its lists lag by nothing, unless a test has them slower: a look for a card
            // that was not made need not wait as long as with Stripe.
            ("EMBOSSER__STRIPE__CALL_SECONDS_MAX", "2".to_owned()),
            ("EMBOSSER__STRIPE__LIST_LAG_SECONDS", "0.5".to_owned()),
            // The ledger's default place is the test's own, and no port is waited for.
            ("XDG_STATE_HOME", directory.display().to_string()),
            ("EMBOSSER__WORKER__LISTEN", "127.0.0.1:0".to_owned()),
        ];
        Self {
            directory: directory.to_owned(),
            environment: environment.map(|(name, value)| (name.to_owned(), value)).into(),
        }
    }

    /// With another variable in its environment.
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Starts it.
    pub fn spawn(&self, arguments: &[&str]) -> Running {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_embosser"));
        command.args(arguments).current_dir(&self.directory).env_remove("RUST_LOG");
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Running::of(command.spawn().unwrap())
    }

    /// Runs it to its end.
    pub async fn run(&self, arguments: &[&str]) -> Output {
        self.spawn(arguments).ended().await
    }
}

/// What a run prints, read as it comes: a full pipe would stop the run.
struct Printed {
    bytes: Arc<Mutex<Vec<u8>>>,
    reader: std::thread::JoinHandle<()>,
}

impl Printed {
    fn by(mut pipe: impl std::io::Read + Send + 'static) -> Self {
        let bytes = Arc::new(Mutex::new(Vec::new()));
        let into = bytes.clone();
        let reader = std::thread::spawn(move || {
            let mut buffer = [0; 8192];
            while let Ok(length @ 1..) = pipe.read(&mut buffer) {
                into.lock().unwrap().extend_from_slice(&buffer[..length]);
            }
        });
        Self { bytes, reader }
    }

    fn until_now(&self) -> Vec<u8> {
        self.bytes.lock().unwrap().clone()
    }

    /// All of it, once nothing can write to it any more.
    fn whole(self) -> Vec<u8> {
        self.reader.join().unwrap();
        std::mem::take(&mut self.bytes.lock().unwrap())
    }
}

/// A run under way; it is killed when this is dropped.
pub struct Running {
    child: std::process::Child,
    printed: Option<(Printed, Printed)>,
}

impl Running {
    fn of(mut child: std::process::Child) -> Self {
        let printed =
            Some((Printed::by(child.stdout.take().unwrap()), Printed::by(child.stderr.take().unwrap())));
        Self { child, printed }
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: rustix::process::Signal) {
        rustix::process::kill_process(rustix::process::Pid::from_child(&self.child), signal).unwrap();
    }

    /// Waits until it has said this on stderr.
    pub async fn until_it_says(&self, text: &str) {
        let began = std::time::Instant::now();
        loop {
            let (_, stderr) = self.printed.as_ref().expect("it has not ended");
            let said = String::from_utf8_lossy(&stderr.until_now()).into_owned();
            if said.contains(text) {
                return;
            }
            assert!(began.elapsed() < RUN_MAX, "it never says {text:?}: {said}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Ends it as a power cut would.
    pub async fn killed(self) -> Output {
        self.signal(rustix::process::Signal::KILL);
        self.ended().await
    }

    /// Waits for its end.
    pub async fn ended(mut self) -> Output {
        let began = std::time::Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            if began.elapsed() >= RUN_MAX {
                self.child.kill().unwrap();
                let hung = self.child.wait().unwrap();
                let Output { stdout, stderr, .. } = self.output(hung).await;
                let said = [stdout, stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
                panic!("the program hangs; until now it said: {}\n{}", said[0], said[1]);
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        };
        self.output(status).await
    }

    async fn output(&mut self, status: std::process::ExitStatus) -> Output {
        let (stdout, stderr) = self.printed.take().expect("read once");
        let joined = tokio::task::spawn_blocking(move || (stdout.whole(), stderr.whole()));
        let (stdout, stderr) = joined.await.unwrap();
        Output { status, stdout, stderr }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The exit code; what the program said, if there is none or it is another.
pub fn expect_exit(output: &Output, code: i32) {
    assert_eq!(
        output.status.code(),
        Some(code),
        "{:?}\n{}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

/// Whether it was killed by SIGKILL.
pub fn was_killed(output: &Output) -> bool {
    output.status.signal() == Some(9)
}

/// The address of a ledger in this file.
pub fn sqlite(path: &Path) -> String {
    format!("sqlite://{}", path.to_str().unwrap().replace('%', "%25").replace(' ', "%20"))
}
