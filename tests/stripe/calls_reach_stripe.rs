//! Promise: calls reach Stripe over TLS that its authority vouches for, over HTTP/2 where that is offered, and through a
//! proxy where the environment names one, which sees none of them; where none of it can be, the reason is said and nothing
//! is issued.

use crate::support;

use std::fmt::Write as _;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use embosser::sandbox::{Options, Sandbox};
use http::Version;
use support::tls::{Connections, asked_for_a_tunnel, with_tls, with_tls_and};
use support::{Program, certificates, expect_exit, one_card_each, write_manifest};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

#[tokio::test(flavor = "multi_thread")]
async fn over_tls_every_call_is_http2_on_a_few_warm_connections() {
    let sandbox = Sandbox::start(Options::default()).await.unwrap();
    let directory = tempfile::tempdir().unwrap();
    let expected = write_manifest(&directory.path().join("cards.csv"), &sandbox, 40).await;
    let (url, seen) = with_tls(directory.path(), &sandbox).await;
    let program = Program::new(directory.path(), &sandbox)
        .with("EMBOSSER__STRIPE__API_URL", &url)
        .with("EMBOSSER__STRIPE__KEY_URL", &format!("{url}/v1/keys"))
        .with("SSL_CERT_FILE", directory.path().join("ca.pem").to_str().unwrap());
    let output = program.run(&["issue", "cards.csv", "--rate", "100"]).await;
    expect_exit(&output, 0);
    one_card_each(&sandbox.account(), &expected);
    let versions = seen.versions.lock().unwrap().clone();
    let pins = expected.values().flatten().count();
    assert!(versions.len() >= expected.len() + pins, "a call for each card, and a key for each PIN");
    assert!(versions.iter().all(|version| *version == Version::HTTP_2), "{versions:?}");
    // Several may be opened before the first one is known to speak HTTP/2.
    let connections = seen.connections.load(Ordering::Relaxed);
    assert!(connections <= 8, "{connections} connections for {} requests", versions.len());
}

/// Questions count from when a connection takes them: those that had to wait for one do not come in one crowd.
#[tokio::test(flavor = "multi_thread")]
async fn questions_keep_the_limit_though_each_waits_for_a_connection_of_its_own() {
    const LIMIT: usize = 25;
    let sandbox = Sandbox::start(Options::default()).await.unwrap();
    let directory = tempfile::tempdir().unwrap();
    let mut rows = "row_id,cardholder,type,currency\n".to_owned();
    for row in 0..4 * LIMIT {
        writeln!(rows, "{row},ich_{row},virtual,eur").unwrap();
    }
    std::fs::write(directory.path().join("cards.csv"), rows).unwrap();
    let program = Program::new(directory.path(), &sandbox);
    expect_exit(&program.run(&["issue", "cards.csv", "--rate", "100"]).await, 0);
    // Those that begin in one second are made in the next, together with those that begin then.
    let handshake = |number: usize| Duration::from_secs(u64::from((number / LIMIT).is_multiple_of(2)));
    let (url, seen) = with_tls_and(Connections::ForOneRequest(handshake), directory.path(), &sandbox).await;
    let other_ledger = support::sqlite(&directory.path().join("other.db"));
    let program = program
        .with("EMBOSSER__LEDGER__URL", &other_ledger)
        .with("EMBOSSER__STRIPE__API_URL", &url)
        .with("EMBOSSER__STRIPE__KEY_URL", &format!("{url}/v1/keys"))
        .with("SSL_CERT_FILE", directory.path().join("ca.pem").to_str().unwrap());
    let rate = LIMIT.to_string();
    let output = program.run(&["issue", "cards.csv", "--reconcile-first", "--rate", &rate]).await;
    expect_exit(&output, 0);
    assert_eq!(sandbox.account().creates, 4 * LIMIT as u64, "all were there");
    let questions = seen.questions.lock().unwrap().clone();
    assert!(questions.len() >= 4 * LIMIT, "each row is looked for: {}", questions.len());
    // A tenth of it is left to a busy machine, on which a question may come late.
    let second = Duration::from_millis(900);
    let of_second =
        |first: &Instant| questions.iter().filter(|at| *at >= first && **at < *first + second).count();
    let most = questions.iter().map(of_second).max();
    assert!(most <= Some(LIMIT), "{most:?} questions in one second");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_nobody_vouches_for_gets_no_call() {
    let sandbox = Sandbox::start(Options::default()).await.unwrap();
    let directory = tempfile::tempdir().unwrap();
    write_manifest(&directory.path().join("cards.csv"), &sandbox, 2).await;
    let (url, seen) = with_tls(directory.path(), &sandbox).await;
    let program = Program::new(directory.path(), &sandbox)
        .with("EMBOSSER__STRIPE__API_URL", &url)
        .with("EMBOSSER__STRIPE__KEY_URL", &format!("{url}/v1/keys"))
        .with("EMBOSSER__RETRY__ATTEMPTS_MAX", "2");
    let output = program.run(&["issue", "cards.csv"]).await;
    expect_exit(&output, 3);
    assert!(seen.versions.lock().unwrap().is_empty(), "no request");
    assert_eq!(sandbox.account().creates, 0);
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("never answered") && said.contains("certificate"), "{said}");
}

/// A kind of proxy.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    /// HTTP, with a tunnel for each connection.
    Http,
    /// SOCKS 5, which looks names up itself (RFC 1928).
    Socks,
}

/// What a proxy was asked for, and whatever went through it on its way to the server.
#[derive(Default)]
struct Overheard {
    asked: Mutex<Vec<String>>,
    through: Mutex<Vec<u8>>,
}

/// A proxy that leads to one server, whatever name is asked for.
async fn proxy(kind: Kind, to: &str) -> (u16, Arc<Overheard>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let to = to.split_once("://").unwrap().1.to_owned();
    let overheard = Arc::new(Overheard::default());
    let of_proxy = overheard.clone();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let (to, overheard) = (to.clone(), of_proxy.clone());
            tokio::spawn(async move {
                let asked = match kind {
                    Kind::Http => asked_for_a_tunnel(&mut client).await,
                    Kind::Socks => asked_over_socks(&mut client).await,
                };
                overheard.asked.lock().unwrap().push(asked);
                let server = TcpStream::connect(to).await.unwrap();
                let ((mut from_client, mut to_client), (mut from_server, mut to_server)) =
                    (client.into_split(), server.into_split());
                tokio::spawn(async move { tokio::io::copy(&mut from_server, &mut to_client).await });
                let mut piece = vec![0; 64 << 10];
                while let Ok(read @ 1..) = from_client.read(&mut piece).await {
                    overheard.through.lock().unwrap().extend_from_slice(&piece[..read]);
                    to_server.write_all(&piece[..read]).await.unwrap();
                }
            });
        }
    });
    (port, overheard)
}

async fn asked_over_socks(client: &mut TcpStream) -> String {
    // Version and ways to log in; none is needed.
    let mut greeting = [0; 2];
    client.read_exact(&mut greeting).await.unwrap();
    let mut ways = vec![0; greeting[1].into()];
    client.read_exact(&mut ways).await.unwrap();
    client.write_all(&[5, 0]).await.unwrap();
    // Version, connect, reserved, a name of so many bytes, and its port.
    let mut request = [0; 5];
    client.read_exact(&mut request).await.unwrap();
    assert_eq!(request[..4], [5, 1, 0, 3]);
    let mut name = vec![0; request[4].into()];
    client.read_exact(&mut name).await.unwrap();
    let port = client.read_u16().await.unwrap();
    client.write_all(&[5, 0, 0, 1, 0, 0, 0, 0, 0, 0]).await.unwrap();
    format!("{}:{port}", String::from_utf8(name).unwrap())
}

/// Against a name that only a proxy can know.
fn far_away(directory: &Path, sandbox: &Sandbox, proxy: &str) -> Program {
    Program::new(directory, sandbox)
        .with("EMBOSSER__STRIPE__API_URL", "https://stripe.test")
        .with("EMBOSSER__STRIPE__KEY_URL", "https://stripe.test/v1/keys")
        .with("EMBOSSER__RETRY__ATTEMPTS_MAX", "2")
        .with("SSL_CERT_FILE", directory.join("ca.pem").to_str().unwrap())
        .with("HTTPS_PROXY", proxy)
        .with("NO_PROXY", "")
}

/// Issues through a proxy; what it was asked for.
async fn issued_through(kind: Kind, address: impl Fn(u16) -> String) -> Vec<String> {
    let sandbox = Sandbox::start(Options::default()).await.unwrap();
    let directory = tempfile::tempdir().unwrap();
    let expected = write_manifest(&directory.path().join("cards.csv"), &sandbox, 20).await;
    let (url, _) = with_tls(directory.path(), &sandbox).await;
    let (port, overheard) = proxy(kind, &url).await;
    let program = far_away(directory.path(), &sandbox, &address(port));
    expect_exit(&program.run(&["issue", "cards.csv", "--rate", "100"]).await, 0);
    one_card_each(&sandbox.account(), &expected);
    let through = overheard.through.lock().unwrap();
    assert!(!through.is_empty());
    for secret in ["sk_test", "encrypted_number", "/v1/issuing/cards"] {
        assert!(memchr::memmem::find(&through, secret.as_bytes()).is_none(), "the proxy saw {secret}");
    }
    let asked = overheard.asked.lock().unwrap().clone();
    assert!(!asked.is_empty());
    asked
}

#[tokio::test(flavor = "multi_thread")]
async fn through_a_proxy_every_connection_is_a_tunnel_with_its_password() {
    for head in issued_through(Kind::Http, |port| format!("http://who:secret@127.0.0.1:{port}")).await {
        assert!(head.starts_with("CONNECT stripe.test:443 HTTP/1.1\r\n"), "{head}");
        // "who:secret"
        assert!(head.to_lowercase().contains("proxy-authorization: basic d2hvonnly3jlda=="), "{head}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_socks_proxy_serves_as_well() {
    for name in issued_through(Kind::Socks, |port| format!("socks5h://127.0.0.1:{port}")).await {
        assert_eq!(name, "stripe.test:443");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_that_is_not_there_is_told_and_nothing_is_issued() {
    let sandbox = Sandbox::start(Options::default()).await.unwrap();
    let directory = tempfile::tempdir().unwrap();
    write_manifest(&directory.path().join("cards.csv"), &sandbox, 1).await;
    certificates::write(directory.path());
    for kind in ["http", "socks5"] {
        let program = far_away(directory.path(), &sandbox, &format!("{kind}://who:secret@127.0.0.1:1"));
        let output = program.run(&["issue", "cards.csv"]).await;
        expect_exit(&output, 3);
        assert_eq!(sandbox.account().creates, 0);
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(said.contains("never answered (cannot connect: "), "{kind}: {said}");
        assert!(!said.contains("secret"), "{kind}: {said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn this_machine_is_called_without_a_proxy() {
    let sandbox = Sandbox::start(Options::default()).await.unwrap();
    let directory = tempfile::tempdir().unwrap();
    let expected = write_manifest(&directory.path().join("cards.csv"), &sandbox, 2).await;
    let program = Program::new(directory.path(), &sandbox)
        .with("HTTP_PROXY", "http://127.0.0.1:1")
        .with("ALL_PROXY", "http://127.0.0.1:1")
        .with("NO_PROXY", "");
    expect_exit(&program.run(&["issue", "cards.csv"]).await, 0);
    one_card_each(&sandbox.account(), &expected);
}
