//! A place that stays where it is while the agent behind it comes and goes, and that cuts
//! connections if it is told to.

#![allow(
    clippy::disallowed_methods,
    reason = "it plays a network, which obeys no limits and belongs to nobody"
)]

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::task::AbortOnDropHandle;

use crate::random::Random;

/// A listener on this machine that carries bytes to wherever the agent is.
pub struct Proxy {
    address: SocketAddr,
    inside: Arc<Inside>,
    _listening: AbortOnDropHandle<()>,
}

struct Inside {
    target: Mutex<Option<SocketAddr>>,
    /// How many bytes of an answer pass at most before a connection is cut; zero cuts none.
    pass_max: AtomicU64,
    random: Mutex<Random>,
    cuts: AtomicU64,
}

impl Proxy {
    /// A proxy that leads nowhere yet.
    ///
    /// # Errors
    ///
    /// If the machine has no port.
    pub async fn open(random: Random) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await;
        let listener = listener.context("cannot listen on this machine")?;
        let address = listener.local_addr().context("cannot tell where it listens")?;
        let inside = Arc::new(Inside {
            target: Mutex::default(),
            pass_max: AtomicU64::new(0),
            random: Mutex::new(random),
            cuts: AtomicU64::new(0),
        });
        let within = Arc::clone(&inside);
        let listening = tokio::spawn(async move {
            loop {
                let Ok((client, _)) = listener.accept().await else {
                    // Too many files are open; some are closed soon.
                    tokio::task::yield_now().await;
                    continue;
                };
                tokio::spawn(carry(client, Arc::clone(&within)));
            }
        });
        Ok(Self { address, inside, _listening: AbortOnDropHandle::new(listening) })
    }

    /// Where it is.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Leads to `target` from now on; `None` closes connections at once.
    pub fn lead_to(&self, target: Option<SocketAddr>) {
        *lock(&self.inside.target) = target;
    }

    /// Cuts each further connection after as many bytes of its answers as chance says, below `max`;
    /// zero cuts none.
    pub fn cut_below(&self, max: u64) {
        self.inside.pass_max.store(max, Ordering::Relaxed);
    }

    /// How many connections were cut.
    #[must_use]
    pub fn cuts(&self) -> u64 {
        self.inside.cuts.load(Ordering::Relaxed)
    }
}

/// Carries one connection, until either end is gone or it is cut.
async fn carry(client: TcpStream, inside: Arc<Inside>) {
    let target = *lock(&inside.target);
    let Some(target) = target else { return };
    let Ok(server) = TcpStream::connect(target).await else { return };
    if client.set_nodelay(true).and(server.set_nodelay(true)).is_err() {
        return;
    }
    let pass_max = inside.pass_max.load(Ordering::Relaxed);
    let passes = (pass_max > 0).then(|| 1 + lock(&inside.random).below(pass_max));
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let up = pass(from_client, to_server, None);
    let down = pass(from_server, to_client, passes);
    // Whichever ends first ends both, as when a cable is pulled.
    tokio::select! {
        _ = up => {}
        cut = down => {
            if cut {
                inside.cuts.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

/// Passes bytes on, at most as many as given; whether that was the end.
async fn pass(
    mut from: impl AsyncReadExt + Unpin,
    mut to: impl AsyncWriteExt + Unpin,
    mut left: Option<u64>,
) -> bool {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let read = match from.read(&mut buffer).await {
            Ok(read) if read > 0 => read,
            _ => return false,
        };
        let passes = left.map_or(read, |left| read.min(usize::try_from(left).unwrap_or(read)));
        if to.write_all(buffer.get(..passes).unwrap_or_default()).await.is_err() {
            return false;
        }
        if let Some(left) = &mut left {
            *left -= passes as u64;
            if *left == 0 {
                return true;
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // Nothing panics while one is held.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
