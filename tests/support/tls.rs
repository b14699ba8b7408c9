//! The sandbox behind TLS, and at an address of Stripe's own, which is the only kind that a live key is sent to.

use std::convert::Infallible;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use embosser::sandbox::Sandbox;
use http::{Method, Request, Response, Version};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use super::{Program, certificates};

/// An address that Stripe does not use: what would leave this machine finds nobody.
pub const STRIPES_OWN: &str = "embosser-tests.stripe.com";

/// What the server before the sandbox saw.
#[derive(Default)]
pub struct Seen {
    pub connections: AtomicUsize,
    pub versions: Mutex<Vec<Version>>,
    /// When each question came.
    pub questions: Mutex<Vec<Instant>>,
}

/// How the server takes its connections.
#[derive(Clone, Copy)]
pub enum Connections {
    /// At once, and for as long as the client likes.
    Kept,
    /// For one request each, over HTTP/1.1; the handshake of the n-th takes so long.
    ForOneRequest(fn(usize) -> Duration),
}

/// Hands a request on to the sandbox, as it came.
async fn hand_on(request: Request<Incoming>, sandbox: &str, seen: &Seen) -> Response<Full<Bytes>> {
    let (head, body) = request.into_parts();
    seen.versions.lock().unwrap().push(head.version);
    if head.method == Method::GET && head.uri.path() != "/v1/keys" {
        seen.questions.lock().unwrap().push(Instant::now());
    }
    let body = body.collect().await.unwrap().to_bytes();
    let url = format!("{sandbox}{}", head.uri.path_and_query().unwrap());
    let mut headers = head.headers;
    headers.remove("host");
    let answer =
        super::http_client().request(head.method, url).headers(headers).body(body).send().await.unwrap();
    let mut response = Response::builder().status(answer.status());
    for name in ["content-type", "request-id", "idempotent-replayed", "stripe-rate-limited-reason"] {
        if let Some(value) = answer.headers().get(name) {
            response = response.header(name, value);
        }
    }
    response.body(Full::new(answer.bytes().await.unwrap())).unwrap()
}

/// A server with TLS and HTTP/2 before the sandbox; its address.
pub async fn with_tls(directory: &Path, sandbox: &Sandbox) -> (String, Arc<Seen>) {
    with_tls_and(Connections::Kept, directory, sandbox).await
}

/// The same with connections of that kind.
pub async fn with_tls_and(
    connections: Connections,
    directory: &Path,
    sandbox: &Sandbox,
) -> (String, Arc<Seen>) {
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
    config.alpn_protocols = match connections {
        Connections::Kept => vec![b"h2".to_vec(), b"http/1.1".to_vec()],
        Connections::ForOneRequest(_) => vec![b"http/1.1".to_vec()],
    };
    let tls = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://localhost:{}", listener.local_addr().unwrap().port());
    let seen = Arc::new(Seen::default());
    let (sandbox, of_server) = (sandbox.api_url(), seen.clone());
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let number = of_server.connections.fetch_add(1, Ordering::Relaxed);
            let (tls, sandbox, seen) = (tls.clone(), sandbox.clone(), of_server.clone());
            tokio::spawn(async move {
                if let Connections::ForOneRequest(handshake) = connections {
                    tokio::time::sleep(handshake(number)).await;
                }
                let Ok(stream) = tls.accept(stream).await else { return };
                let service = service_fn(|request| {
                    let (sandbox, seen) = (sandbox.clone(), seen.clone());
                    async move { Ok::<_, Infallible>(hand_on(request, &sandbox, &seen).await) }
                });
                let mut builder = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
                builder.http1().keep_alive(matches!(connections, Connections::Kept));
                let _ = builder.serve_connection(TokioIo::new(stream), service).await;
            });
        }
    });
    (url, seen)
}

/// What a proxy is asked for by whoever wants a tunnel through it.
pub async fn asked_for_a_tunnel(client: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(client.read_u8().await.unwrap());
    }
    client.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
    String::from_utf8(head).unwrap()
}

/// The program with a live key, for which the sandbox is at Stripe's own address: by a proxy that leads nowhere else.
pub async fn live(program: Program, directory: &Path, sandbox: &Sandbox) -> Program {
    let (url, _) = with_tls(directory, sandbox).await;
    let to = url.replace("https://localhost", "127.0.0.1");
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let to = to.clone();
            tokio::spawn(async move {
                let asked = asked_for_a_tunnel(&mut client).await;
                assert!(asked.starts_with(&format!("CONNECT {STRIPES_OWN}:443 ")), "{asked}");
                let mut server = TcpStream::connect(to).await.unwrap();
                let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
            });
        }
    });
    program
        .with("EMBOSSER__STRIPE__API_URL", &format!("https://{STRIPES_OWN}"))
        .with("EMBOSSER__STRIPE__KEY_URL", &format!("https://{STRIPES_OWN}/v1/keys"))
        .with("STRIPE_API_KEY", "sk_live_of_the_tests")
        .with("SSL_CERT_FILE", directory.join("ca.pem").to_str().unwrap())
        .with("HTTPS_PROXY", &format!("http://127.0.0.1:{port}"))
        .with("NO_PROXY", "")
}
