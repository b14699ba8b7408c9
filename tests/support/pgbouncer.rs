//! PgBouncer before a private PostgreSQL, on a free port, from the system's packages.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::postgres::{Postgres, as_its_user, owned_directory};

/// A pooler that ends with the test.
pub struct PgBouncer {
    _directory: tempfile::TempDir,
    port: u16,
    pooler: Child,
}

impl PgBouncer {
    /// One with this `pool_mode`.
    pub async fn before(postgres: &Postgres, pool_mode: &str) -> Self {
        let (directory, port) = (owned_directory(), super::free_port());
        let file = directory.path().join("pgbouncer.ini");
        let text = format!(
            "[databases]\npostgres = host=127.0.0.1 port={} user=postgres\n[pgbouncer]\nlisten_addr = 127.0.0.1\n\
             listen_port = {port}\nunix_socket_dir =\nauth_type = any\npool_mode = {pool_mode}\n",
            postgres.port()
        );
        std::fs::write(&file, text).unwrap();
        let mut command: Command = as_its_user("/usr/sbin/pgbouncer".as_ref());
        command.arg(&file).current_dir("/").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let pooler = command.spawn().expect("pgbouncer is installed (tests/run does it)");
        let started = Self { _directory: directory, port, pooler };
        for _ in 0..200 {
            if tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_ok() {
                return started;
            }
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
        panic!("PgBouncer did not start");
    }

    pub fn url(&self) -> String {
        format!("postgres://postgres@127.0.0.1:{}/postgres", self.port)
    }
}

impl Drop for PgBouncer {
    fn drop(&mut self) {
        // To whoever runs it as another user this is passed on.
        let _ = rustix::process::kill_process(
            rustix::process::Pid::from_child(&self.pooler),
            rustix::process::Signal::TERM,
        );
        let _ = self.pooler.wait();
    }
}
