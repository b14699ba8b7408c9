//! `embosser serve` as a process of its own, and requests to it.

use std::io::{BufRead as _, BufReader, Read as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use reqwest::{Method, StatusCode};
use serde_json::Value;

use super::Program;

/// Longer than anything here may take.
const WAIT_MAX: Duration = Duration::from_secs(60);

/// A server; it is killed when this is dropped.
pub struct Served {
    child: Child,
    /// `http://127.0.0.1:PORT`
    pub url: String,
    token: Option<String>,
    client: reqwest::Client,
    log: Option<std::thread::JoinHandle<String>>,
}

/// An answer, read.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: reqwest::header::HeaderMap,
    pub text: String,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// Fails unless it has this status.
    pub fn expect(self, status: u16) -> Self {
        assert_eq!(self.status.as_u16(), status, "{}", self.text);
        self
    }
}

impl Served {
    /// Starts it in the program's directory and waits until it listens.
    pub fn start(program: &Program, arguments: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_embosser"));
        command.arg("serve").args(arguments);
        if !arguments.contains(&"--listen") {
            command.args(["--listen", "127.0.0.1:0"]);
        }
        command.current_dir(&program.directory).env_remove("RUST_LOG");
        command.envs(program.environment.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut stderr = child.stderr.take().unwrap();
        let log = std::thread::spawn(move || {
            let mut text = String::new();
            let _ = stderr.read_to_string(&mut text);
            text
        });
        let mut line = String::new();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        stdout.read_line(&mut line).unwrap();
        let Some(url) = line.split_whitespace().find(|word| word.starts_with("http://")) else {
            let _ = child.wait();
            panic!("it does not serve: {line} {}", log.join().unwrap());
        };
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = reqwest::Client::builder().no_proxy().timeout(WAIT_MAX).build().unwrap();
        Self { child, url: url.to_owned(), token: None, client, log: Some(log) }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The most memory that it ever had, in MiB.
    pub fn peak_mib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() / 1024
    }

    /// With this token on every request that follows.
    pub fn with_token(mut self, token: &str) -> Self {
        self.token = Some(token.to_owned());
        self
    }

    /// `host:port`
    pub fn address(&self) -> &str {
        self.url.strip_prefix("http://").unwrap()
    }

    pub async fn ask(&self, method: Method, path: &str, headers: &[(&str, &str)], body: Vec<u8>) -> Answer {
        self.try_ask(method, path, headers, body).await.unwrap_or_else(|error| panic!("{path}: {error:?}"))
    }

    /// As [`Self::ask`], of a server that may be killed meanwhile.
    pub async fn try_ask(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Vec<u8>,
    ) -> Result<Answer, reqwest::Error> {
        let mut request = self.client.request(method, format!("{}{path}", self.url)).body(body);
        if let Some(token) = &self.token {
            request = request.bearer_auth(token);
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = request.send().await?;
        let (status, headers) = (response.status(), response.headers().clone());
        Ok(Answer { status, headers, text: response.text().await? })
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.ask(Method::GET, path, &[], Vec::new()).await
    }

    pub async fn post(&self, path: &str) -> Answer {
        self.ask(Method::POST, path, &[], Vec::new()).await
    }

    pub async fn upload(&self, path: &str, csv: Vec<u8>) -> Answer {
        self.ask(Method::POST, path, &[("content-type", "text/csv")], csv).await
    }

    /// Uploads the file under its own name.
    pub async fn upload_file(&self, file: &Path) -> Answer {
        let name = file.file_stem().unwrap().to_string_lossy();
        self.upload(&format!("/v1/batches?name={name}"), std::fs::read(file).unwrap()).await
    }

    /// Asks for a batch until it is as wanted.
    pub async fn until(&self, batch: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let began = Instant::now();
        loop {
            let view = self.get(&format!("/v1/batches/{batch}")).await.expect(200).json();
            if wanted(&view) {
                return view;
            }
            assert!(began.elapsed() < WAIT_MAX, "never came: {view}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Asks for a job that was sent alone until it has ended.
    pub async fn until_job(&self, id: &str) -> Value {
        let began = Instant::now();
        loop {
            let view = self.get(&format!("/v1/jobs/{id}")).await.expect(200).json();
            if view["state"] != "waiting" {
                return view;
            }
            assert!(began.elapsed() < WAIT_MAX, "never came: {view}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits until the batch is no more under way.
    pub async fn until_ended(&self, batch: &str) -> Value {
        self.until(batch, |view| !matches!(view["state"].as_str(), Some("running" | "paused" | "cancelling")))
            .await
    }

    /// Ends it with SIGKILL; answers what it logged.
    pub fn killed(mut self) -> String {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.log.take().unwrap().join().unwrap()
    }

    /// Ends it with SIGTERM, as a service manager would; answers its exit code and what it logged.
    pub async fn stopped(self) -> (Option<i32>, String) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        self.ended().await
    }

    /// Waits until it has ended by itself; its exit code, none if a signal ended it, and what it logged.
    pub async fn ended(mut self) -> (Option<i32>, String) {
        let began = Instant::now();
        let status = loop {
            match self.child.try_wait().unwrap() {
                Some(status) => break status,
                None if began.elapsed() > WAIT_MAX => panic!("it does not end"),
                // The sandbox is in this process: it must go on answering.
                None => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        };
        (status.code(), self.log.take().unwrap().join().unwrap())
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
