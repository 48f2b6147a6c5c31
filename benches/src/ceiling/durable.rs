//! `ceil_durable`: hyper, over TLS if there is an identity, and one thread that appends the same bytes
//! for each request to a file and syncs it, for all that have come together.

#![allow(clippy::disallowed_methods, reason = "a ceiling is what `net` is measured against")]

use std::fs::File;
use std::io::Write;
use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::time::{Duration, Instant};

use anyhow::Result;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio_rustls::TlsAcceptor;

use super::tls::server_config;
use super::{Reply, serve, until_input_ends};
use crate::authority::Leaf;

/// Most requests of one batch, the part of a sync's duration that is waited for more, and how much of
/// the recent peak is remembered: as the journal has them.
const BATCH_MAX: usize = 4096;
const GATHER_PART: u32 = 4;
const PEAK_KEPT: f64 = 0.9;

type Ack = oneshot::Sender<()>;

/// Serves the answer in the file `answer` on a free port, which it prints, once `bytes` bytes were
/// appended to `file` and synced.
pub(crate) fn run(answer: &Path, file: &Path, bytes: usize, identity: Option<&Path>) -> Result<()> {
    let reply = Reply::read(answer)?;
    let acceptor = match identity {
        None => None,
        Some(identity) => {
            let (own, root) = Leaf::load(identity)?;
            Some(TlsAcceptor::from(server_config(&own, &root)?))
        }
    };
    let file = File::options().create_new(true).append(true).open(file)?;
    let (sender, receiver) = channel();
    std::thread::spawn(move || Log { file, receiver, record: vec![b'x'; bytes] }.run());
    until_input_ends(async {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        crate::say(&listener.local_addr()?.to_string())?;
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            let (acceptor, reply, sender) = (acceptor.clone(), reply.clone(), sender.clone());
            tokio::spawn(async move {
                match acceptor {
                    None => keep(stream, reply, sender).await,
                    Some(acceptor) => {
                        // A caller that fails here finds out by itself, and the run is void.
                        if let Ok(stream) = acceptor.accept(stream).await {
                            keep(stream, reply, sender).await;
                        }
                    }
                }
            });
        }
    })
}

/// Answers every request of one connection once what it stands for is on the disk.
async fn keep(stream: impl AsyncRead + AsyncWrite + Unpin, reply: Reply, log: Sender<Ack>) {
    serve(stream, &reply, || {
        let (ack, acked) = oneshot::channel();
        let sent = log.send(ack).is_ok();
        async move { sent && acked.await.is_ok() }
    })
    .await;
}

struct Log {
    file: File,
    receiver: Receiver<Ack>,
    record: Vec<u8>,
}

impl Log {
    /// Appends and syncs until nobody is left; a disk that fails leaves everybody without an answer.
    fn run(mut self) {
        let (mut peak, mut last) = (0.0_f64, Duration::ZERO);
        let mut bytes = Vec::new();
        while let Ok(first) = self.receiver.recv() {
            let acks = self.gather(first, peak, last);
            peak = peak.max(acks.len() as f64) * PEAK_KEPT + acks.len() as f64 * (1.0 - PEAK_KEPT);
            let began = Instant::now();
            bytes.clear();
            for _ in &acks {
                bytes.extend_from_slice(&self.record);
            }
            if self.file.write_all(&bytes).and_then(|()| self.file.sync_data()).is_err() {
                return;
            }
            last = began.elapsed();
            for ack in acks {
                // Whoever asked may have gone.
                let _gone = ack.send(());
            }
        }
    }

    fn gather(&self, first: Ack, peak: f64, last: Duration) -> Vec<Ack> {
        let (mut acks, began) = (vec![first], Instant::now());
        while acks.len() < BATCH_MAX {
            match self.receiver.try_recv() {
                Ok(ack) => acks.push(ack),
                Err(TryRecvError::Empty)
                    if (acks.len() as f64) < peak.floor()
                        && began.elapsed() < last / GATHER_PART =>
                {
                    std::thread::yield_now();
                }
                Err(_) => break,
            }
        }
        acks
    }
}
