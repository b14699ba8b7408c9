//! The server that answers at once.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

/// A server that answers at once: the key document to a GET, a card to a POST.
pub(crate) struct Server {
    pub(crate) url: String,
    pub(crate) creates: Arc<AtomicUsize>,
    /// Woken by each request for the key.
    pub(crate) asked: Arc<Notify>,
    /// When the create calls of batch [`NOTED`] came, by their jobs' numbers.
    pub(crate) noted: Arc<Mutex<HashMap<usize, Instant>>>,
}

/// The batch whose calls' moments are kept.
pub(crate) const NOTED: &str = "added";

pub(crate) async fn serve(key: Arc<str>) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("http://{}", listener.local_addr().expect("it is bound"));
    let creates = Arc::new(AtomicUsize::new(0));
    let asked = Arc::new(Notify::new());
    let noted = Arc::default();
    let server = Server { url, creates, asked, noted };
    let seen = (server.creates.clone(), server.asked.clone(), server.noted.clone());
    tokio::spawn(async move {
        let key = answer(&key);
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(connection(stream, key.clone(), seen.clone()));
        }
    });
    server
}

/// The number of a noted batch's job.
fn number_of(body: &[u8]) -> Option<usize> {
    const JOB: &[u8] = b"[embosser_job]=added%2F";
    let at = memchr::memmem::find(body, JOB)? + JOB.len();
    let digits = body[at..].iter().take_while(|byte| byte.is_ascii_digit());
    Some(digits.fold(0, |number, digit| number * 10 + usize::from(digit - b'0')))
}

fn answer(body: &str) -> Arc<[u8]> {
    let length = body.len();
    format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}")
        .into_bytes()
        .into()
}

type Seen = (Arc<AtomicUsize>, Arc<Notify>, Arc<Mutex<HashMap<usize, Instant>>>);

async fn connection(mut stream: TcpStream, key: Arc<[u8]>, (creates, asked, noted): Seen) {
    let _ = stream.set_nodelay(true);
    let card = answer(
        r#"{"id":"ic_00000001","object":"issuing.card","last4":"4242","exp_month":8,"exp_year":2030,"status":"inactive","metadata":{}}"#,
    );
    let mut read = Vec::with_capacity(16 << 10);
    loop {
        if let Some(whole) = whole_request(&read) {
            let created = read.starts_with(b"POST");
            if created && let Some(number) = number_of(&read[..whole]) {
                noted.lock().expect("nobody panics").insert(number, Instant::now());
            }
            read.drain(..whole);
            creates.fetch_add(usize::from(created), Ordering::Relaxed);
            if !created {
                asked.notify_waiters();
            }
            if stream.write_all(if created { &card } else { &key }).await.is_err() {
                return;
            }
        } else if !matches!(stream.read_buf(&mut read).await, Ok(1..)) {
            return;
        }
    }
}

/// The length of the request that is there in whole.
fn whole_request(read: &[u8]) -> Option<usize> {
    let head = memchr::memmem::find(read, b"\r\n\r\n")? + 4;
    let length = memchr::memmem::find(&read[..head], b"content-length: ").map_or(0, |at| {
        let digits = read[at + 16..].iter().take_while(|byte| byte.is_ascii_digit());
        digits.fold(0, |length, digit| length * 10 + usize::from(digit - b'0'))
    });
    (read.len() >= head + length).then_some(head + length)
}
