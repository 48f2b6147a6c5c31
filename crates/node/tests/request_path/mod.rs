//! What happens to requests before their handler: policies that change, too many requests, requests
//! that two readers could read in two ways, deadlines, and the end of the node.

mod drain;
mod intake;
mod overload;
mod policy;
mod start;
mod wire;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use convoke_agent::{Context, Host};
use convoke_macros::agent;
use tokio::sync::{Notify, Semaphore};

/// An agent whose handlers wait for the test.
pub(crate) struct Held {
    gate: Arc<Gate>,
}

/// What the test sees of the handlers, and how it lets them go on.
pub(crate) struct Gate {
    pub(crate) at_work: AtomicUsize,
    pub(crate) most: AtomicUsize,
    pub(crate) begun: AtomicUsize,
    pub(crate) changed: Notify,
    pub(crate) open: Semaphore,
}

/// Counts a handler while it is there, however it ends.
struct Here(Arc<Gate>);

impl Here {
    fn new(gate: &Arc<Gate>) -> Self {
        let now = gate.at_work.fetch_add(1, Ordering::SeqCst) + 1;
        gate.most.fetch_max(now, Ordering::SeqCst);
        gate.begun.fetch_add(1, Ordering::SeqCst);
        gate.changed.notify_one();
        Self(Arc::clone(gate))
    }
}

impl Drop for Here {
    fn drop(&mut self) {
        self.0.at_work.fetch_sub(1, Ordering::SeqCst);
        self.0.changed.notify_one();
    }
}

impl Gate {
    fn closed() -> Arc<Self> {
        Arc::new(Self {
            at_work: AtomicUsize::new(0),
            most: AtomicUsize::new(0),
            begun: AtomicUsize::new(0),
            changed: Notify::new(),
            open: Semaphore::new(0),
        })
    }

    /// Waits until so many handlers are at work.
    pub(crate) async fn at_work(&self, count: usize) {
        let there = async {
            while self.at_work.load(Ordering::SeqCst) != count {
                self.changed.notified().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), there).await.unwrap();
    }
}

#[agent(crate = "convoke_agent")]
impl Held {
    /// Echo a text
    #[capability(ephemeral)]
    async fn echo(&self, _context: &Context, text: String) -> String {
        text
    }

    /// Echo a text, under another name
    #[capability(ephemeral)]
    async fn other(&self, _context: &Context, text: String) -> String {
        text
    }

    /// Echo a text to one caller alone
    #[capability(ephemeral, requires_peer = "spiffe://example.org/user/bob")]
    async fn guarded(&self, _context: &Context, text: String) -> String {
        text
    }

    /// Wait until the test opens the gate
    #[capability(ephemeral)]
    async fn hold(&self, context: &Context) -> Option<u64> {
        let _here = Here::new(&self.gate);
        if let Ok(permit) = self.gate.open.acquire().await {
            permit.forget();
        }
        context.remaining().map(|left| u64::try_from(left.as_millis()).unwrap())
    }

    /// Work for a few milliseconds
    #[capability(ephemeral)]
    async fn work(&self, _context: &Context) -> bool {
        let _here = Here::new(&self.gate);
        tokio::time::sleep(Duration::from_millis(5)).await;
        true
    }

    /// Compute for a few milliseconds, which keeps a thread of the runtime
    #[capability(ephemeral)]
    async fn compute(&self, _context: &Context) -> u64 {
        let begun = std::time::Instant::now();
        let mut sum = 0_u64;
        while begun.elapsed() < Duration::from_millis(5) {
            sum = std::hint::black_box(sum.wrapping_mul(31).wrapping_add(7));
        }
        sum
    }

    /// Wait, as a task
    #[capability]
    async fn hold_task(&self, context: &Context) -> bool {
        let _here = Here::new(&self.gate);
        if let Ok(permit) = self.gate.open.acquire().await {
            permit.forget();
        }
        context.deadline().is_some()
    }
}

/// The agent, and the gate that its handlers wait at.
pub(crate) fn held() -> (Host, Arc<Gate>) {
    let gate = Gate::closed();
    (Host::new(Held { gate: Arc::clone(&gate) }).unwrap(), gate)
}

pub(crate) const EVERYBODY: &str = "package agentweave.authz\ndefault allow := true\n";
