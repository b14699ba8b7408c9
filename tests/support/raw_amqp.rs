//! Publishing as no client library would: AMQP 0-9-1 by hand, so that a property may hold any bytes.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::rabbit::{PASSWORD, Rabbit};

const METHOD: u8 = 1;
const HEADER: u8 = 2;
const BODY: u8 = 3;

/// Publishes a durable message whose correlation id is these bytes, and waits until the broker has it.
pub async fn publish(rabbit: &Rabbit, queue: &str, correlation_id: &[u8], body: &[u8]) {
    let mut broker = TcpStream::connect(("127.0.0.1", rabbit.port())).await.unwrap();
    broker.write_all(b"AMQP\x00\x00\x09\x01").await.unwrap();
    until(&mut broker, (10, 10)).await;
    // connection.start-ok: no client properties, PLAIN, user and password, a locale.
    let login = format!("\0guest\0{PASSWORD}");
    let start_ok = [&[0, 0, 0, 0][..], &short(b"PLAIN"), &long(login.as_bytes()), &short(b"en_US")].concat();
    method(&mut broker, 0, (10, 11), &start_ok).await;
    until(&mut broker, (10, 30)).await;
    // connection.tune-ok: a few channels, 128 KiB frames, no heartbeat; connection.open.
    method(&mut broker, 0, (10, 31), &[0, 8, 0, 2, 0, 0, 0, 0]).await;
    method(&mut broker, 0, (10, 40), &[&short(rabbit.virtual_host().as_bytes())[..], &[0, 0]].concat()).await;
    until(&mut broker, (10, 41)).await;
    method(&mut broker, 1, (20, 10), &[0]).await;
    until(&mut broker, (20, 11)).await;
    method(&mut broker, 1, (85, 10), &[0]).await;
    until(&mut broker, (85, 11)).await;
    // basic.publish on the default exchange.
    let publish = [&[0, 0][..], &short(b""), &short(queue.as_bytes()), &[0]].concat();
    method(&mut broker, 1, (60, 40), &publish).await;
    // The flags say which properties follow: delivery mode and correlation id.
    let size = u64::try_from(body.len()).unwrap().to_be_bytes();
    let header = [&[0, 60, 0, 0][..], &size, &[0b0001_0100, 0, 2], &short(correlation_id)].concat();
    frame(&mut broker, HEADER, 1, &header).await;
    frame(&mut broker, BODY, 1, body).await;
    until(&mut broker, (60, 80)).await;
}

fn short(text: &[u8]) -> Vec<u8> {
    [&[u8::try_from(text.len()).unwrap()], text].concat()
}

fn long(text: &[u8]) -> Vec<u8> {
    [&u32::try_from(text.len()).unwrap().to_be_bytes()[..], text].concat()
}

async fn method(broker: &mut TcpStream, channel: u16, (class, method): (u16, u16), arguments: &[u8]) {
    let payload = [&class.to_be_bytes()[..], &method.to_be_bytes(), arguments].concat();
    frame(broker, METHOD, channel, &payload).await;
}

async fn frame(broker: &mut TcpStream, kind: u8, channel: u16, payload: &[u8]) {
    let size = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let frame = [&[kind][..], &channel.to_be_bytes(), &size, payload, &[0xCE]].concat();
    broker.write_all(&frame).await.unwrap();
}

/// Reads frames until this method comes.
async fn until(broker: &mut TcpStream, (class, method): (u16, u16)) {
    let wanted = [class.to_be_bytes(), method.to_be_bytes()].concat();
    loop {
        let mut head = [0; 7];
        broker.read_exact(&mut head).await.expect("the broker goes on");
        let size = u32::from_be_bytes([head[3], head[4], head[5], head[6]]);
        let mut rest = vec![0; usize::try_from(size).unwrap() + 1];
        broker.read_exact(&mut rest).await.unwrap();
        if head[0] == METHOD && rest.starts_with(&wanted) {
            return;
        }
    }
}
