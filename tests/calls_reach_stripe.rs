//! Promise: calls reach Stripe over TLS that its authority vouches for, over HTTP/2 where that is offered, and through a
//! proxy where the environment names one; where none of it can be, the reason is said and nothing is issued.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::convert::Infallible;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use embosser::sandbox::{Options, Sandbox};
use http::{Request, Response, Version};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use support::{Program, certificates, expect_exit, one_card_each, write_manifest};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

/// What the server before the sandbox saw.
#[derive(Default)]
struct Seen {
    connections: AtomicUsize,
    versions: Mutex<Vec<Version>>,
}

/// Hands a request on to the sandbox, as it came.
async fn hand_on(request: Request<Incoming>, sandbox: &str, seen: &Seen) -> Response<Full<Bytes>> {
    let (head, body) = request.into_parts();
    seen.versions.lock().unwrap().push(head.version);
    let body = body.collect().await.unwrap().to_bytes();
    let url = format!("{sandbox}{}", head.uri.path_and_query().unwrap());
    let mut headers = head.headers;
    headers.remove("host");
    let answer =
        support::http_client().request(head.method, url).headers(headers).body(body).send().await.unwrap();
    let mut response = Response::builder().status(answer.status());
    for name in ["content-type", "request-id", "idempotent-replayed", "stripe-rate-limited-reason"] {
        if let Some(value) = answer.headers().get(name) {
            response = response.header(name, value);
        }
    }
    response.body(Full::new(answer.bytes().await.unwrap())).unwrap()
}

/// A server with TLS and HTTP/2 before the sandbox; its address.
async fn with_tls(directory: &Path, sandbox: &Sandbox) -> (String, Arc<Seen>) {
    certificates::write(directory);
    let chain = vec![CertificateDer::from_pem_file(directory.join("server.pem")).unwrap()];
    let key = PrivateKeyDer::from_pem_file(directory.join("server.key")).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let tls = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://localhost:{}", listener.local_addr().unwrap().port());
    let seen = Arc::new(Seen::default());
    let (sandbox, of_server) = (sandbox.api_url(), seen.clone());
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            of_server.connections.fetch_add(1, Ordering::Relaxed);
            let (tls, sandbox, seen) = (tls.clone(), sandbox.clone(), of_server.clone());
            tokio::spawn(async move {
                let Ok(stream) = tls.accept(stream).await else { return };
                let service = service_fn(|request| {
                    let (sandbox, seen) = (sandbox.clone(), seen.clone());
                    async move { Ok::<_, Infallible>(hand_on(request, &sandbox, &seen).await) }
                });
                let builder = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
                let _ = builder.serve_connection(TokioIo::new(stream), service).await;
            });
        }
    });
    (url, seen)
}

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

/// A proxy that tunnels to the sandbox, whatever name is asked for; what it was asked.
async fn tunnel(sandbox: &Sandbox) -> (u16, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let to = sandbox.api_url().trim_start_matches("http://").to_owned();
    let asked: Arc<Mutex<Vec<String>>> = Arc::default();
    let of_server = asked.clone();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let (to, asked) = (to.clone(), of_server.clone());
            tokio::spawn(async move {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    head.push(client.read_u8().await.unwrap());
                }
                asked.lock().unwrap().push(String::from_utf8(head).unwrap());
                let mut server = TcpStream::connect(to).await.unwrap();
                client.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
                let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
            });
        }
    });
    (port, asked)
}

/// Against a name that only a proxy can know.
fn far_away(directory: &Path, sandbox: &Sandbox, proxy: &str) -> Program {
    Program::new(directory, sandbox)
        .with("EMBOSSER__STRIPE__API_URL", "http://stripe.test")
        .with("EMBOSSER__STRIPE__KEY_URL", "http://stripe.test/v1/keys")
        .with("EMBOSSER__RETRY__ATTEMPTS_MAX", "2")
        .with("HTTP_PROXY", proxy)
        .with("NO_PROXY", "")
}

#[tokio::test(flavor = "multi_thread")]
async fn through_a_proxy_every_connection_is_a_tunnel_with_its_password() {
    let sandbox = Sandbox::start(Options::default()).await.unwrap();
    let directory = tempfile::tempdir().unwrap();
    let expected = write_manifest(&directory.path().join("cards.csv"), &sandbox, 20).await;
    let (port, asked) = tunnel(&sandbox).await;
    let program = far_away(directory.path(), &sandbox, &format!("http://who:secret@127.0.0.1:{port}"));
    expect_exit(&program.run(&["issue", "cards.csv", "--rate", "100"]).await, 0);
    one_card_each(&sandbox.account(), &expected);
    let asked = asked.lock().unwrap();
    assert!(!asked.is_empty());
    for head in asked.iter() {
        assert!(head.starts_with("CONNECT stripe.test:80 HTTP/1.1\r\n"), "{head}");
        // "who:secret"
        assert!(head.to_lowercase().contains("proxy-authorization: basic d2hvonnly3jlda=="), "{head}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_of_another_kind_is_refused_with_the_reason() {
    let sandbox = Sandbox::start(Options::default()).await.unwrap();
    let directory = tempfile::tempdir().unwrap();
    write_manifest(&directory.path().join("cards.csv"), &sandbox, 1).await;
    let program = far_away(directory.path(), &sandbox, "socks5://127.0.0.1:1");
    let output = program.run(&["issue", "cards.csv"]).await;
    expect_exit(&output, 3);
    assert_eq!(sandbox.account().creates, 0);
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("a proxy must be http://"), "{said}");
}
