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
pub fn as_its_user(program: &Path) -> Command {
    if rustix::process::getuid().is_root() {
        let mut command = Command::new("runuser");
        command.args(["-u", "postgres", "--"]).arg(program);
        command
    } else {
        Command::new(program)
    }
}

fn command(program: &str) -> Command {
    as_its_user(&programs().join(program))
}

fn run_server(directory: &Path, port: u16) -> Child {
    let mut server = command("postgres");
    // -F: nothing is flushed to the disk. No test cuts the machine's power, and what a process wrote outlives its end.
    server.arg("-D").arg(directory).args(["-F", "-p", &port.to_string(), "-h", "127.0.0.1", "-k", ""]);
    server.current_dir("/").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    server.spawn().unwrap()
}

/// A directory that the server may use.
pub fn owned_directory() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    if rustix::process::getuid().is_root() {
        let owned = Command::new("chown").arg("postgres").arg(directory.path()).status().unwrap();
        assert!(owned.success());
    }
    directory
}

/// A new data directory, made once for all tests: initdb takes a second or two of a processor.
fn template() -> PathBuf {
    let version = programs().parent().unwrap().file_name().unwrap().to_string_lossy().into_owned();
    let kept = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("postgresql-{version}"));
    // One process makes it, and the others wait for that.
    let lock = std::fs::File::create(kept.with_extension("lock")).unwrap();
    lock.lock().unwrap();
    if !kept.exists() {
        // Not made where it is kept: the server's user need not be let in there.
        let directory = owned_directory();
        let data = directory.path().join("data");
        let mut init = command("initdb");
        init.current_dir("/")
            .args(["-U", "postgres", "-A", "trust", "--no-sync", "-E", "UTF8", "-D"])
            .arg(&data);
        let output = init.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let half = kept.with_extension("half");
        let _ = std::fs::remove_dir_all(&half);
        copy(&data, &half);
        std::fs::rename(half, &kept).unwrap();
    }
    kept
}

/// With owners and permissions, which the server insists on.
fn copy(from: &Path, to: &Path) {
    let copied = Command::new("cp").arg("-a").arg(from).arg(to).status().unwrap();
    assert!(copied.success(), "{} cannot be copied", from.display());
}

impl Postgres {
    pub fn start() -> Self {
        let directory = owned_directory();
        let data = directory.path().join("data");
        copy(&template(), &data);
        let port = super::free_port();
        let server = run_server(&data, port);
        let postgres = Self { directory, port, server };
        postgres.wait_until_it_answers();
        postgres
    }

    pub fn url(&self) -> String {
        format!("postgres://postgres@127.0.0.1:{}/postgres", self.port)
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// A standby of this server, which follows it.
    pub fn standby(&self) -> Self {
        let directory = owned_directory();
        let data = directory.path().join("data");
        let mut copy = command("pg_basebackup");
        copy.current_dir("/").args(["-h", "127.0.0.1", "-U", "postgres", "-R", "-X", "stream", "-c", "fast"]);
        let output = copy.args(["-p", &self.port.to_string(), "-D"]).arg(&data).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let port = super::free_port();
        let standby = Self { directory, port, server: run_server(&data, port) };
        standby.wait_until_it_answers();
        standby
    }

    /// Makes a primary of a standby.
    pub fn promote(&self) {
        let promoted =
            command("pg_ctl").current_dir("/").args(["promote", "-w", "-D"]).arg(self.data()).output();
        assert!(promoted.unwrap().status.success());
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
            let ready = Command::new(programs().join("pg_isready"))
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
