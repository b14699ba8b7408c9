//! Promise: uploads stay within their bounds: memory as documented, whatever is uploaded; slow uploads hold nobody up,
//! nor does a crowd of connections.

use crate::support;

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use embosser::sandbox::{Options, Sandbox};
use rand::{RngCore as _, SeedableRng as _};
use support::serve::Served;
use support::tokens::people;
use support::{Program, write_manifest};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// What the program needs besides the rows that it holds, by its documentation.
const BESIDE_MIB: u64 = 64;

/// Rows of a large rollout, made while they are sent: each as long as any other, with a JWE that does not compress.
struct Rollout {
    rows: u64,
    made: u64,
    random: rand::rngs::StdRng,
}

const HEADER: &str = "row_id,cardholder,type,currency,pin[encrypted_number],shipping[name],shipping[address][line1],\
    shipping[address][city],shipping[address][postal_code],shipping[address][country],metadata[department]\n";

impl Rollout {
    fn new(rows: u64) -> Self {
        Self { rows, made: 0, random: rand::rngs::StdRng::seed_from_u64(5) }
    }

    fn row(&mut self) -> String {
        self.made += 1;
        let header =
            URL_SAFE_NO_PAD.encode(r#"{"alg":"RSA-OAEP","enc":"A128CBC-HS256","kid":"sandbox-demo-1"}"#);
        let mut part = |bytes: usize| {
            let mut noise = vec![0; bytes];
            self.random.fill_bytes(&mut noise);
            URL_SAFE_NO_PAD.encode(noise)
        };
        let (key, iv, text, tag) = (part(256), part(16), part(16), part(16));
        let n = self.made;
        format!(
            "employee-{n:08},ich_1NfzVq2eZvKYlo2C{n:08},physical,eur,{header}.{key}.{iv}.{text}.{tag},Employee Number {n:08},\
             {n:08} Long Example Street Building,Example City,D02 X285,IE,\"Department of the {n:08}th example, which has a \
             name of the usual length, and a place to be\"\n"
        )
    }

    fn bytes(&self) -> u64 {
        HEADER.len() as u64 + self.rows * Self::new(1).row().len() as u64
    }

    /// Sends all of it; answers the status and the body.
    fn upload(mut self, address: &str, path: &str) -> (u16, String) {
        let mut connection = TcpStream::connect(address).unwrap();
        let bytes = self.bytes();
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: {address}\r\nContent-Type: text/csv\r\nContent-Length: {bytes}\r\n\
             Connection: close\r\n\r\n{HEADER}"
        );
        connection.write_all(head.as_bytes()).unwrap();
        let mut chunk = String::new();
        while self.made < self.rows {
            chunk += &self.row();
            if chunk.len() > 1 << 20 || self.made == self.rows {
                connection.write_all(chunk.as_bytes()).unwrap();
                chunk.clear();
            }
        }
        answer(connection)
    }
}

fn answer(mut connection: TcpStream) -> (u16, String) {
    let mut text = String::new();
    connection.read_to_string(&mut text).unwrap();
    let status = text.split_whitespace().nth(1).unwrap().parse().unwrap();
    (status, text)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn half_a_million_rows_are_accepted_or_refused_within_the_documented_memory() {
    let directory = tempfile::tempdir().unwrap();
    let sandbox = Sandbox::start(Options::default()).await.unwrap();
    let rollout = || Rollout::new(500_000);
    eprintln!("an upload of {} MB", rollout().bytes() / 1_000_000);
    let send = async |served: &Served, path: &str| {
        let (address, path) = (served.address().to_owned(), path.to_owned());
        let began = Instant::now();
        let answer = tokio::task::spawn_blocking(move || rollout().upload(&address, &path)).await.unwrap();
        eprintln!("{} in {:.1?}", answer.0, began.elapsed());
        answer
    };
    // Accepted, with its rows in the memory that is documented for them.
    let program = Program::new(directory.path(), &sandbox);
    let served = Served::start(&program, &["--rate", "25"]);
    let (status, text) = send(&served, "/v1/batches?name=rollout").await;
    assert_eq!(status, 202, "{text}");
    let accepted = served.peak_mib();
    eprintln!("{accepted} MiB at most, accepted");
    assert!(accepted <= 256 + BESIDE_MIB, "{accepted} MiB");
    assert!(served.get("/v1/batches/rollout").await.expect(200).json()["rows"] == 500_000);
    served.killed();
    // Refused where there is less, with less.
    let program = Program::new(directory.path(), &sandbox).with("EMBOSSER__HTTP__HELD_MIB_MAX", "32");
    let served = Served::start(&program, &["--rate", "25"]);
    let (status, text) = send(&served, "/v1/batches?name=rollout").await;
    assert_eq!(status, 413, "{text}");
    assert!(text.contains("do not fit into the memory"), "{text}");
    let refused = served.peak_mib();
    eprintln!("{refused} MiB at most, refused");
    assert!(refused <= 32 + BESIDE_MIB, "{refused} MiB");
    // What it held is free again.
    let file = directory.path().join("small.csv");
    write_manifest(&file, &sandbox, 3).await;
    served.upload_file(&file).await.expect(202);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sixty_four_slow_uploads_hold_nobody_up_and_are_ended_when_they_bring_nothing() {
    const SLOW: usize = 64;
    let directory = tempfile::tempdir().unwrap();
    let sandbox = Sandbox::start(Options::default()).await.unwrap();
    let program = Program::new(directory.path(), &sandbox).with("EMBOSSER__HTTP__IDLE_SECONDS_MAX", "6");
    let served = Served::start(&program, &["--rate", "200"]);
    let file = directory.path().join("staff.csv");
    write_manifest(&file, &sandbox, 100).await;
    let csv = std::fs::read(&file).unwrap();
    let mut slow: Vec<TcpStream> = (0..SLOW)
        .map(|number| {
            let mut connection = TcpStream::connect(served.address()).unwrap();
            let head = format!(
                "POST /v1/batches?name=slow{number} HTTP/1.1\r\nHost: {}\r\nContent-Type: text/csv\r\n\
                 Content-Length: {}\r\nConnection: close\r\n\r\n",
                served.address(),
                csv.len()
            );
            connection.write_all(head.as_bytes()).unwrap();
            connection.write_all(&csv[..csv.len() / 3]).unwrap();
            connection
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(300)).await;
    // Meanwhile one that is not slow is checked, issued to its end and looked at.
    let began = Instant::now();
    served.upload_file(&file).await.expect(202);
    let view = served.until_ended("staff").await;
    assert_eq!(view["issued"], 100, "{view}");
    served.get("/").await.expect(200);
    assert!(began.elapsed() < Duration::from_secs(5), "took {:.1?} beside slow uploads", began.elapsed());
    // Half of them go on slowly and end well; the same rows under other names are refused only at the end.
    for connection in &mut slow[..SLOW / 2] {
        connection.write_all(&csv[csv.len() / 3..]).unwrap();
    }
    let silent = slow.split_off(SLOW / 2);
    for connection in slow {
        let (status, text) = answer(connection);
        assert!(status == 409 && text.contains("issued_before"), "{text}");
    }
    for connection in silent {
        let (status, text) = answer(connection);
        assert!(status == 408 && text.contains("too_slow"), "{text}");
    }
}

/// Idle connections without a token, as many as there is room for and more, from several addresses.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crowd_without_tokens_keeps_nobody_out_who_has_one() {
    let mut limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    limit.current = limit.maximum;
    rustix::process::setrlimit(rustix::process::Resource::Nofile, limit).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let sandbox = Sandbox::start(Options::default()).await.unwrap();
    let people = people(Program::new(directory.path(), &sandbox), &[("reader", &["read"])]).await;
    let served = Served::start(&people.program, &[]);
    let address: std::net::SocketAddr = served.address().parse().unwrap();
    // Somebody with a token rests between two requests.
    let request = format!(
        "GET /v1/server HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {}\r\n\r\n",
        people.tokens["reader"]
    );
    let mut resting = tokio::net::TcpStream::connect(address).await.unwrap();
    let ask = async |connection: &mut tokio::net::TcpStream| {
        connection.write_all(request.as_bytes()).await.unwrap();
        let mut head = [0; 12];
        connection.read_exact(&mut head).await.unwrap();
        assert_eq!(&head, b"HTTP/1.1 200");
        // The rest of the answer is there with it.
        let mut rest = [0; 64 << 10];
        let _ = connection.read(&mut rest).await.unwrap();
    };
    ask(&mut resting).await;
    let mut crowd = Vec::new();
    for number in 0..1040_u16 {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        let from = std::net::Ipv4Addr::new(127, 0, 1, u8::try_from(number % 5).unwrap() + 1);
        socket.bind((from, 0).into()).unwrap();
        crowd.push(socket.connect(address).await.unwrap());
    }
    let began = Instant::now();
    people.get(&served, "reader", "/v1/server").await.expect(200);
    assert!(began.elapsed() < Duration::from_secs(3), "let in after {:?}", began.elapsed());
    ask(&mut resting).await;
    // The first of the crowd went when the last came.
    let mut rest = [0; 1];
    let first = tokio::time::timeout(Duration::from_secs(3), crowd[0].read(&mut rest)).await;
    assert!(matches!(first, Ok(Ok(0) | Err(_))), "{first:?}");
    let last = crowd.last_mut().unwrap().try_read(&mut rest);
    assert_eq!(last.unwrap_err().kind(), std::io::ErrorKind::WouldBlock, "the last of it is still there");
    served.stopped().await;
}

#[tokio::test]
async fn what_passes_a_bound_is_refused_with_the_bound() {
    let directory = tempfile::tempdir().unwrap();
    let sandbox = Sandbox::start(Options::default()).await.unwrap();
    let program = Program::new(directory.path(), &sandbox)
        .with("EMBOSSER__HTTP__UPLOAD_MIB_MAX", "1")
        .with("EMBOSSER__HTTP__ROWS_MAX", "1000")
        .with("EMBOSSER__HTTP__UPLOADS_MAX", "2")
        .with("EMBOSSER__HTTP__HEADER_SECONDS_MAX", "1");
    let served = Served::start(&program, &["--rate", "200"]);
    let rows = |rows: usize| format!("type,currency\n{}", "virtual,eur\n".repeat(rows)).into_bytes();
    served.upload("/v1/checks", rows(1000)).await.expect(200);
    let problem = served.upload("/v1/checks", rows(1001)).await.expect(413).json();
    assert!(problem["detail"].as_str().unwrap().contains("at most 1000 rows"), "{problem}");
    let large = vec![b'a'; (1 << 20) + 1];
    let problem = served.upload("/v1/checks", large.clone()).await.expect(413).json();
    assert!(problem["detail"].as_str().unwrap().contains("at most 1 MiB"), "{problem}");
    // Without a length it is told by counting.
    let mut chunked = TcpStream::connect(served.address()).unwrap();
    let head = format!(
        "POST /v1/checks HTTP/1.1\r\nHost: {}\r\nContent-Type: text/csv\r\nTransfer-Encoding: chunked\r\n\
         Connection: close\r\n\r\n{:x}\r\n",
        served.address(),
        large.len()
    );
    chunked.write_all(head.as_bytes()).unwrap();
    chunked.write_all(&rows(100_000)[..large.len()]).unwrap();
    chunked.write_all(b"\r\n0\r\n\r\n").unwrap();
    let (status, text) = tokio::task::spawn_blocking(|| answer(chunked)).await.unwrap();
    assert_eq!(status, 413, "{text}");
    let job = vec![b' '; 300 << 10];
    let json = [("content-type", "application/json")];
    served.ask(reqwest::Method::POST, "/v1/jobs", &json, job).await.expect(413);
    // More uploads than there is room for.
    let open: Vec<TcpStream> = (0..2)
        .map(|_| {
            let mut connection = TcpStream::connect(served.address()).unwrap();
            let head = format!(
                "POST /v1/checks HTTP/1.1\r\nHost: {}\r\nContent-Type: text/csv\r\nContent-Length: 100\r\n\r\ntype,",
                served.address()
            );
            connection.write_all(head.as_bytes()).unwrap();
            connection
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(300)).await;
    let busy = served.upload("/v1/checks", rows(1)).await.expect(503);
    assert_eq!(busy.headers["retry-after"], "5");
    drop(open);
    tokio::time::sleep(Duration::from_millis(300)).await;
    served.upload("/v1/checks", rows(1)).await.expect(200);
    // A head that does not come, or is too long.
    let mut head = TcpStream::connect(served.address()).unwrap();
    head.write_all(b"GET / HTTP/1.1\r\nHost: ").unwrap();
    head.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let mut rest = Vec::new();
    tokio::task::spawn_blocking(move || head.read_to_end(&mut rest)).await.unwrap().unwrap();
    let long = "a".repeat(200_000);
    let headers = [("x-long", long.as_str())];
    let refused = served.try_ask(reqwest::Method::GET, "/healthz", &headers, Vec::new()).await;
    assert!(refused.is_err() || refused.is_ok_and(|answer| answer.status.as_u16() == 431));
}
