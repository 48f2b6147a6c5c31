//! Calls that are answered with a message now, and with another one whenever it changes.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use futures_util::Stream;
use tokio::sync::watch;
use tonic::{Response, Status};

use super::super::socket::Pass;
use super::Caller;

/// Longest sleep before a look at the clock. What is due, is due by the calendar, and a machine
/// that was suspended finds that its timers have not counted the time.
const SLEEP_MAX: Duration = Duration::from_secs(30);

/// What a stream of pushes sends.
pub(super) trait Push: Send + Copy + 'static {
    /// The empty message that asks for it.
    type Request: Send + 'static;
    /// The message that is sent.
    type Message: Send + 'static;
    /// Whatever the message is made of, apart from time: a new message is due when it changes.
    type Basis: PartialEq + Send + 'static;

    /// What a message would be made of now.
    fn basis(self, caller: &Caller) -> Result<Self::Basis, Status>;
    /// Makes a message, and says when it is due to be replaced.
    fn message(
        self,
        caller: &Caller,
        basis: &Self::Basis,
        now: SystemTime,
    ) -> Result<(Self::Message, Option<SystemTime>), Status>;
}

/// A streaming method as tonic wants to have it.
pub(super) struct Method<P>(pub(super) Caller, pub(super) P);

type Pushes<M> = Pin<Box<dyn Stream<Item = Result<M, Status>> + Send>>;

impl<P: Push> tower_service::Service<tonic::Request<P::Request>> for Method<P> {
    type Response = Response<Pushes<P::Message>>;
    type Error = Status;
    type Future = std::future::Ready<Result<Self::Response, Status>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Status>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: tonic::Request<P::Request>) -> Self::Future {
        let pushes = Pusher::start(self.0.clone(), self.1);
        std::future::ready(pushes.map(|pusher| Response::new(pusher.into_stream())))
    }
}

/// One open stream.
struct Pusher<P: Push> {
    caller: Caller,
    push: P,
    changes: watch::Receiver<u64>,
    basis: P::Basis,
    /// The message that is ready to go.
    ready: Option<P::Message>,
    due: Option<SystemTime>,
    /// Only held: the stream counts until it ends.
    _pass: Pass,
}

impl<P: Push> Pusher<P> {
    fn start(caller: Caller, push: P) -> Result<Self, Status> {
        let pass = caller.watch()?;
        // The subscription comes first: a change that comes while the message is made is not lost.
        let changes = caller.shared.changes.subscribe();
        let basis = push.basis(&caller)?;
        let (message, due) = push.message(&caller, &basis, SystemTime::now())?;
        Ok(Self { caller, push, changes, basis, ready: Some(message), due, _pass: pass })
    }

    fn into_stream(self) -> Pushes<P::Message> {
        Box::pin(futures_util::stream::unfold(Some(self), async |state| {
            let mut pusher = state?;
            match pusher.next().await {
                Ok(Some(message)) => Some((Ok(message), Some(pusher))),
                Ok(None) => None,
                // An error is the last thing that is sent.
                Err(status) => Some((Err(status), None)),
            }
        }))
    }

    /// Waits until a message is due; `None` when the issuer ends.
    async fn next(&mut self) -> Result<Option<P::Message>, Status> {
        if let Some(message) = self.ready.take() {
            return Ok(Some(message));
        }
        loop {
            let rotate = tokio::select! {
                () = until(self.due) => true,
                changed = self.changes.changed() => match changed {
                    Ok(()) => false,
                    Err(_) => return Ok(None),
                },
                () = self.caller.shutdown.cancelled() => return Ok(None),
            };
            let basis = self.push.basis(&self.caller)?;
            if rotate || basis != self.basis {
                let (message, due) = self.push.message(&self.caller, &basis, SystemTime::now())?;
                (self.basis, self.due) = (basis, due);
                return Ok(Some(message));
            }
        }
    }
}

/// Sleeps until an instant of the calendar, or for ever.
async fn until(due: Option<SystemTime>) {
    let Some(due) = due else { return std::future::pending().await };
    while let Ok(left) = due.duration_since(SystemTime::now()) {
        if left.is_zero() {
            return;
        }
        tokio::time::sleep(left.min(SLEEP_MAX)).await;
    }
}
