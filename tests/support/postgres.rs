//! A private PostgreSQL server on a free port, from the system's packages.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// A server that ends with the test.
pub struct Postgres {
    directory: tempfile::TempDir,
    port: u16,
    server: Child,
}

/// The newest installed server's programs.
fn programs() -> PathBuf {
    let mut versions: Vec<PathBuf> = std::fs::read_dir("/usr/lib/postgresql")
        .expect("PostgreSQL is installed (tests/run does it)")
        .map(|entry| entry.unwrap().path().join("bin"))
        .filter(|programs| programs.join("initdb").exists())
        .collect();
    versions.sort();
    versions.pop().expect("PostgreSQL's server is installed (tests/run does it)")
}

/// The server refuses to run as root: then it runs as the user that its package made.
fn command(program: &str) -> Command {
    let path = programs().join(program);
    if rustix::process::getuid().is_root() {
        let mut command = Command::new("runuser");
        command.args(["-u", "postgres", "--"]).arg(path);
        command
    } else {
        Command::new(path)
    }
}

fn run_server(directory: &Path, port: u16) -> Child {
    let mut server = command("postgres");
    server.arg("-D").arg(directory).args(["-p", &port.to_string(), "-h", "127.0.0.1", "-k", ""]);
    server.current_dir("/").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    server.spawn().unwrap()
}

impl Postgres {
    pub fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        if rustix::process::getuid().is_root() {
            let owned = Command::new("chown").arg("postgres").arg(directory.path()).status().unwrap();
            assert!(owned.success());
        }
        let data = directory.path().join("data");
        let mut init = command("initdb");
        init.current_dir("/")
            .args(["-U", "postgres", "-A", "trust", "--no-sync", "-E", "UTF8", "-D"])
            .arg(&data);
        let output = init.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let port = super::free_port();
        let server = run_server(&data, port);
        let postgres = Self { directory, port, server };
        postgres.wait_until_it_answers();
        postgres
    }

    pub fn url(&self) -> String {
        format!("postgres://postgres@127.0.0.1:{}/postgres", self.port)
    }

    pub fn data(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    /// Stops it as an administrator would who does not wait for sessions.
    pub fn stop(&mut self) {
        let stopped = command("pg_ctl")
            .current_dir("/")
            .args(["stop", "-w", "-m", "fast", "-D"])
            .arg(self.data())
            .stdout(Stdio::null())
            .status();
        assert!(stopped.unwrap().success());
        self.server.wait().unwrap();
    }

    /// Starts it again, on the same data and port.
    pub fn start_again(&mut self) {
        self.server = run_server(&self.data(), self.port);
        self.wait_until_it_answers();
    }

    fn wait_until_it_answers(&self) {
        for _ in 0..200 {
            let ready = command("pg_isready")
                .current_dir("/")
                .args(["-q", "-h", "127.0.0.1", "-p", &self.port.to_string()])
                .status();
            if ready.unwrap().success() {
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        panic!("PostgreSQL did not start");
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        let _ = command("pg_ctl")
            .current_dir("/")
            .args(["stop", "-m", "immediate", "-D"])
            .arg(self.data())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        let _ = self.server.wait();
    }
}
