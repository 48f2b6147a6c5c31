//! The address of an agent, known before the agent runs, and a place to cut its connections.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

/// A loopback port that hands connections on as they are, still encrypted. Dropped, it closes all.
pub(crate) struct Door {
    address: SocketAddr,
    /// Where the agent itself listens.
    target: Arc<OnceLock<SocketAddr>>,
    cutter: Cutter,
    _task: AbortOnDropHandle<()>,
}

/// What cuts the connections of a door.
#[derive(Debug, Clone, Default)]
pub(crate) struct Cutter(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    /// Cancelled when the connections that are open now are cut.
    open: CancellationToken,
    is_shut: bool,
}

impl Door {
    pub(crate) async fn open(cutter: Cutter) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let target = Arc::<OnceLock<SocketAddr>>::default();
        let serving = serve(listener, Arc::clone(&target), cutter.clone());
        let task = AbortOnDropHandle::new(tokio::spawn(serving));
        Ok(Self { address, target, cutter, _task: task })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Hands on to `target` from now on; the first call counts.
    pub(crate) fn lead_to(&self, target: SocketAddr) {
        self.target.get_or_init(|| target);
    }

    pub(crate) fn cutter(&self) -> &Cutter {
        &self.cutter
    }
}

impl Cutter {
    /// Cuts the connections that are open now.
    pub(crate) fn cut(&self) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut state.open).cancel();
    }

    /// Closes new connections at once while `is_shut`.
    pub(crate) fn shut(&self, is_shut: bool) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).is_shut = is_shut;
    }

    /// What ends a new connection; `None` if there is to be none.
    fn admit(&self) -> Option<CancellationToken> {
        let state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        (!state.is_shut).then(|| state.open.clone())
    }
}

async fn serve(listener: TcpListener, target: Arc<OnceLock<SocketAddr>>, cutter: Cutter) {
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_ended) = connections.join_next() => continue,
        };
        // A connection that is not handed on is closed by being dropped.
        let Ok((inward, _)) = accepted else { continue };
        let (Some(target), Some(cut)) = (target.get().copied(), cutter.admit()) else { continue };
        connections.spawn(async move {
            let handed_on = async {
                let mut inward = inward;
                let mut outward = TcpStream::connect(target).await?;
                inward.set_nodelay(true)?;
                outward.set_nodelay(true)?;
                copy_bidirectional(&mut inward, &mut outward).await
            };
            tokio::select! {
                // Whoever is at either end sees how it ended.
                _ended = handed_on => {}
                () = cut.cancelled() => {}
            }
        });
    }
}
