//! A network between a client and a server that can be cut, or go dead without a word.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// A proxy on a free port.
pub struct Proxy {
    port: u16,
    cuts: Arc<AtomicU64>,
    stalled: watch::Sender<bool>,
}

impl Proxy {
    pub async fn before(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let own_port = listener.local_addr().unwrap().port();
        let cuts = Arc::new(AtomicU64::new(0));
        let (stalled, watching) = watch::channel(false);
        let counted = cuts.clone();
        tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                let Ok(far) = TcpStream::connect(("127.0.0.1", port)).await else { continue };
                let (near_in, near_out) = near.into_split();
                let (far_in, far_out) = far.into_split();
                tokio::spawn(carry(near_in, far_out, counted.clone(), watching.clone()));
                tokio::spawn(carry(far_in, near_out, counted.clone(), watching.clone()));
            }
        });
        Self { port: own_port, cuts, stalled }
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// Ends every connection.
    pub fn cut(&self) {
        self.cuts.fetch_add(1, Ordering::SeqCst);
    }

    /// From now on nothing is carried, or it is again.
    pub fn stall(&self, stalled: bool) {
        let _ = self.stalled.send(stalled);
    }
}

async fn carry(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    cuts: Arc<AtomicU64>,
    mut stalled: watch::Receiver<bool>,
) {
    let cuts_before = cuts.load(Ordering::SeqCst);
    let mut bytes = vec![0; 64 << 10];
    loop {
        if cuts.load(Ordering::SeqCst) != cuts_before {
            return;
        }
        if *stalled.borrow() {
            let _ = tokio::time::timeout(Duration::from_millis(50), stalled.changed()).await;
            continue;
        }
        match tokio::time::timeout(Duration::from_millis(20), from.read(&mut bytes)).await {
            Err(_) => {}
            Ok(Ok(length @ 1..)) => {
                // What was read just then is not carried either.
                while *stalled.borrow() {
                    if cuts.load(Ordering::SeqCst) != cuts_before {
                        return;
                    }
                    let _ = tokio::time::timeout(Duration::from_millis(50), stalled.changed()).await;
                }
                if to.write_all(&bytes[..length]).await.is_err() {
                    return;
                }
            }
            Ok(_) => return,
        }
    }
}
