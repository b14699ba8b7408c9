//! HTTP to Stripe, which is reqwest's: one request and its whole answer.
//!
//! Never: to follow a redirect (the API key would travel along), or to send a request again that a server may have seen.
//! hyper, below reqwest, puts a request on another connection only where the one it was meant for had closed before it took it.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, StatusCode};
use reqwest::{Request, Response, redirect, retry};

use super::ClientError;
use crate::config::place::is_loopback;
use crate::config::{StripeConfig, seconds};
use crate::http_failure::{last_cause, sentence_of};

/// Who calls.
const AGENT: HeaderValue = HeaderValue::from_static(concat!("embosser/", env!("CARGO_PKG_VERSION")));
/// How long an idle connection is kept: below the 60 s after which load balancers tend to close theirs.
const IDLE_KEPT: Duration = Duration::from_secs(50);
/// A peer that vanished is noticed on an idle connection after about a minute (by TCP's keepalive), on a busy one after half
/// of it (by HTTP/2's pings, or by bytes that nobody acknowledges).
const KEEPALIVE: Duration = Duration::from_secs(15);
const KEEPALIVE_TRIES: u32 = 3;
#[cfg(target_os = "linux")]
const UNACKNOWLEDGED_MAX: Duration = Duration::from_secs(30);
/// Most bytes read of an answer. A page of 100 cards is about 400 KB; anything far beyond is not Stripe's.
const ANSWER_BYTES_MAX: usize = 8 << 20;

/// What a server answered; its body may have broken off.
#[derive(Debug)]
#[cfg_attr(not(feature = "killpoints"), expect(unreachable_pub, reason = "a simulation answers it"))]
pub struct Reply {
    /// Its status.
    pub status: StatusCode,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body, or why that broke off.
    pub body: Result<Bytes, String>,
}

/// reqwest's client for these addresses. No connection is opened yet.
pub(super) fn client(
    config: &StripeConfig,
    api_url: &url::Url,
    key_url: &url::Url,
) -> Result<reqwest::Client, ClientError> {
    // For every TLS client of the process; a second call finds one installed.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut builder = reqwest::Client::builder()
        .user_agent(AGENT)
        .redirect(redirect::Policy::none())
        .retry(retry::never())
        .connect_timeout(seconds(config.connect_timeout_seconds))
        .timeout(seconds(config.total_timeout_seconds))
        .pool_idle_timeout(IDLE_KEPT)
        .tcp_keepalive(KEEPALIVE)
        .tcp_keepalive_interval(KEEPALIVE)
        .tcp_keepalive_retries(KEEPALIVE_TRIES)
        .http2_keep_alive_interval(KEEPALIVE)
        .http2_keep_alive_timeout(KEEPALIVE);
    #[cfg(target_os = "linux")]
    {
        builder = builder.tcp_user_timeout(UNACKNOWLEDGED_MAX);
    }
    if is_loopback(api_url) {
        builder = builder.no_proxy();
        if api_url.scheme() == "http" && key_url.scheme() == "http" {
            // Nothing speaks TLS, and reading the system's certificate authorities takes a while.
            builder = builder.tls_certs_only([]);
        }
    }
    builder.build().map_err(|error| ClientError::Tls(last_cause(&error.without_url())))
}

/// Sends a request and reads its answer to the end.
pub(super) async fn send(http: &reqwest::Client, request: Request) -> Result<Reply, String> {
    let mut response = http.execute(request).await.map_err(sentence_of)?;
    let (status, headers) = (response.status(), std::mem::take(response.headers_mut()));
    Ok(Reply { status, headers, body: read(response).await })
}

async fn read(mut response: Response) -> Result<Bytes, String> {
    let mut whole = BytesMut::new();
    while let Some(piece) = response.chunk().await.map_err(sentence_of)? {
        if whole.len() + piece.len() > ANSWER_BYTES_MAX {
            return Err("the answer is too long to be Stripe's".into());
        }
        whole.extend_from_slice(&piece);
    }
    Ok(whole.freeze())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::super::{Answer, Client, Leave};
    use super::*;
    use crate::operation::{Operation, Request as Wanted};

    /// What a server does with a connection.
    #[derive(Clone, Copy)]
    enum Does {
        AnswersAndKeeps,
        AnswersAndCloses,
        /// Answers the first request, reads the second one and closes.
        AnswersOnce,
        /// Answers once a request has begun, and reads no further.
        AnswersEarly,
        /// Sends the client elsewhere.
        Redirects,
        /// Says more than is believed.
        TalksTooMuch,
    }

    const OK: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
    const ELSEWHERE: &[u8] = b"HTTP/1.1 307 Temporary Redirect\r\nlocation: /x\r\ncontent-length: 0\r\n\r\n";

    /// Its connections, and the requests on them.
    type Counts = Arc<[AtomicUsize; 2]>;

    async fn server(does: Does) -> (Client, Counts) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = client_of(&format!("http://{}/", listener.local_addr().unwrap()));
        let counts = Counts::default();
        let of_server = counts.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                of_server[0].fetch_add(1, Ordering::Relaxed);
                tokio::spawn(connection(stream, does, of_server.clone()));
            }
        });
        (client, counts)
    }

    fn client_of(api_url: &str) -> Client {
        let config =
            StripeConfig { api_url: api_url.into(), key_url: api_url.into(), ..StripeConfig::default() };
        Client::new(&config, &"sk_test_1".to_owned().into()).unwrap()
    }

    async fn connection(mut stream: tokio::net::TcpStream, does: Does, counts: Counts) {
        let (mut head, mut requests) = (Vec::new(), 0);
        while stream.read_buf(&mut head).await.is_ok_and(|read| read > 0) {
            if matches!(does, Does::AnswersEarly) {
                stream.write_all(OK).await.unwrap();
                return std::future::pending().await;
            }
            if !head.ends_with(b"\r\n\r\n") && !head.ends_with(b"body") {
                continue;
            }
            head.clear();
            counts[1].fetch_add(1, Ordering::Relaxed);
            requests += 1;
            match does {
                Does::AnswersOnce if requests > 1 => return,
                Does::Redirects => stream.write_all(ELSEWHERE).await.unwrap(),
                Does::TalksTooMuch => {
                    let length = ANSWER_BYTES_MAX + 1;
                    let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n");
                    stream.write_all(head.as_bytes()).await.unwrap();
                    let _ = stream.write_all(&vec![b'x'; length]).await;
                }
                _ => stream.write_all(OK).await.unwrap(),
            }
            if matches!(does, Does::AnswersAndCloses) {
                return;
            }
        }
    }

    fn wanted() -> Wanted {
        let pairs =
            [("type", "virtual"), ("currency", "eur")].map(|(path, value)| (path.into(), value.into()));
        Wanted::from_pairs(Operation::CreateCard, pairs.into()).unwrap()
    }

    async fn create(client: &Client, body: &str) -> Answer {
        client.change(&wanted(), "emb_1", body.as_bytes().to_vec().into(), || Leave::Go).await
    }

    fn counted(counts: &Counts) -> (usize, usize) {
        (counts[0].load(Ordering::Relaxed), counts[1].load(Ordering::Relaxed))
    }

    #[tokio::test]
    async fn one_call_after_another_is_on_one_connection() {
        let (client, counts) = server(Does::AnswersAndKeeps).await;
        for _ in 0..20 {
            assert_eq!(client.pin_key().await.unwrap(), "ok");
        }
        assert_eq!(counted(&counts), (1, 20));
    }

    #[tokio::test]
    async fn a_connection_that_was_closed_meanwhile_costs_no_call() {
        let (client, counts) = server(Does::AnswersAndCloses).await;
        for _ in 0..10 {
            assert_eq!(client.pin_key().await.unwrap(), "ok");
            // Until the close has come.
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        assert_eq!(counted(&counts), (10, 10));
    }

    #[tokio::test]
    async fn a_request_that_the_server_has_seen_is_never_sent_again() {
        let (client, counts) = server(Does::AnswersOnce).await;
        assert_eq!(client.pin_key().await.unwrap(), "ok");
        assert!(client.pin_key().await.is_err());
        assert_eq!(counted(&counts), (1, 2), "on the connection that was there, and on no other");
        assert_eq!(client.pin_key().await.unwrap(), "ok");
        let answer = create(&client, "body").await;
        assert!(matches!(answer, Answer::Unknown { heard: false, .. }), "{answer:?}");
        assert_eq!(counted(&counts), (2, 4));
    }

    #[tokio::test]
    async fn a_connection_whose_server_reads_no_further_costs_no_call() {
        /// More than the sockets of both sides take in.
        const LONG: usize = 32 << 20;
        let (client, counts) = server(Does::AnswersEarly).await;
        let long = "x".repeat(LONG);
        for _ in 0..3 {
            let answer = create(&client, &long).await;
            assert!(matches!(answer, Answer::Unknown { heard: true, .. }), "{answer:?}");
        }
        assert_eq!(counted(&counts).0, 3, "another call has another one");
    }

    #[tokio::test]
    async fn a_redirect_is_an_answer_and_not_followed() {
        let (client, counts) = server(Does::Redirects).await;
        let answer = create(&client, "body").await;
        assert!(matches!(answer, Answer::Unknown { heard: true, .. }), "{answer:?}");
        assert!(client.pin_key().await.is_err_and(|reason| reason.contains("307")));
        assert_eq!(counted(&counts).1, 2);
    }

    #[tokio::test]
    async fn an_answer_without_end_is_not_read_to_its_end() {
        let (client, _) = server(Does::TalksTooMuch).await;
        assert!(client.pin_key().await.is_err_and(|reason| reason.contains("too long")));
    }

    #[tokio::test]
    async fn without_a_server_nothing_was_sent() {
        let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let client = client_of(&format!("http://{nobody}/"));
        let answer = create(&client, "body").await;
        assert!(
            matches!(&answer, Answer::NotSent(reason) if reason.starts_with("cannot connect: ")),
            "{answer:?}"
        );
    }

    #[tokio::test]
    async fn a_call_that_is_given_up_before_it_could_leave_was_not_sent() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        // TLS that nobody answers: the connection is never there.
        let config = StripeConfig {
            api_url: format!("https://{address}/"),
            connect_timeout_seconds: 0.2,
            ..StripeConfig::default()
        };
        let client = Client::new(&config, &"sk_test_1".to_owned().into()).unwrap();
        assert_eq!(create(&client, "body").await, Answer::NotSent("connecting timed out".into()));
        let config = StripeConfig { total_timeout_seconds: 0.2, connect_timeout_seconds: 5.0, ..config };
        let client = Client::new(&config, &"sk_test_1".to_owned().into()).unwrap();
        assert_eq!(create(&client, "body").await, Answer::NotSent("no answer in time".into()));
    }
}
