//! How much of request bodies an agent holds at a time.

use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use convoke_model::{Fault, FaultCode, limits};
use convoke_net::server::{Body, BodyError, read_body};
use http_body::Body as _;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::timeout;

/// Bytes that one permit stands for: a semaphore has fewer permits than a machine has bytes.
const PERMIT_BYTES: usize = 1024;

/// Bounds the bytes of large bodies over all connections of an agent. Each body is bounded by
/// itself already; a thousand connections with a large one each are what this is against.
pub(crate) struct Bodies {
    permits: Semaphore,
    body_bytes_max: usize,
}

/// The share of the bound that a large body has, until it is given back.
#[derive(Default)]
pub(crate) struct Room<'a>(Mutex<Option<SemaphorePermit<'a>>>);

/// Why a body is not there.
#[derive(Debug)]
pub(crate) enum Unread {
    /// It broke a bound of its own.
    Body(BodyError),
    /// There was no room for it in time.
    Busy(Fault),
}

impl Bodies {
    /// Bodies of at most `body_bytes_max` each.
    pub(crate) fn new(body_bytes_max: usize) -> Self {
        // One body of the largest size must always fit.
        let bytes = limits::LARGE_BODIES_BYTES_MAX.max(body_bytes_max);
        Self { permits: Semaphore::new(bytes.div_ceil(PERMIT_BYTES)), body_bytes_max }
    }

    /// Reads `body`, which has to wait for its turn if it is large. One without a length counts as
    /// large as it may become.
    pub(crate) async fn read(&self, body: Body) -> Result<(Bytes, Room<'_>), Unread> {
        let declared =
            body.size_hint().exact().map(|bytes| usize::try_from(bytes).unwrap_or(usize::MAX));
        let bytes = declared.unwrap_or(self.body_bytes_max);
        if bytes > self.body_bytes_max {
            return Err(Unread::Body(BodyError::TooLarge { max: self.body_bytes_max }));
        }
        let permit = if bytes <= limits::SMALL_BODY_BYTES_MAX {
            None
        } else {
            Some(self.room(bytes).await.map_err(Unread::Busy)?)
        };
        let bytes = read_body(body, self.body_bytes_max).await.map_err(Unread::Body)?;
        Ok((bytes, Room(Mutex::new(permit))))
    }

    async fn room(&self, bytes: usize) -> Result<SemaphorePermit<'_>, Fault> {
        let permits = u32::try_from(bytes.div_ceil(PERMIT_BYTES)).unwrap_or(u32::MAX);
        match timeout(limits::LARGE_BODY_WAIT, self.permits.acquire_many(permits)).await {
            Ok(Ok(permit)) => Ok(permit),
            _ => Err(Fault::new(
                FaultCode::ResourceExhausted,
                "too many large requests at once; try again later",
            )),
        }
    }
}

impl Room<'_> {
    /// Gives the room back before the request ends, because the journal now bounds what it holds.
    pub(crate) fn give_back(&self) {
        drop(self.0.lock().unwrap_or_else(PoisonError::into_inner).take());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LARGE: usize = 4 * 1024 * 1024;

    #[tokio::test(start_paused = true)]
    async fn large_bodies_wait_for_room_and_small_ones_do_not() {
        let bodies = Bodies::new(LARGE);
        let body = |bytes: usize| Body::from(Bytes::from(vec![b' '; bytes]));
        let mut held = Vec::new();
        for _ in 0..limits::LARGE_BODIES_BYTES_MAX / LARGE {
            held.push(bodies.read(body(LARGE)).await.unwrap());
        }
        assert!(bodies.read(body(limits::SMALL_BODY_BYTES_MAX)).await.is_ok());
        match bodies.read(body(LARGE)).await {
            Err(Unread::Busy(fault)) => assert_eq!(fault.code, FaultCode::ResourceExhausted),
            _ => panic!("there was no room"),
        }
        held[0].1.give_back();
        assert_eq!(bodies.read(body(LARGE)).await.unwrap().0.len(), LARGE);
    }

    #[tokio::test]
    async fn a_body_over_its_own_bound_is_refused_without_reading() {
        let body = Body::from(Bytes::from(vec![b' '; LARGE + 1]));
        match Bodies::new(LARGE).read(body).await {
            Err(Unread::Body(BodyError::TooLarge { max })) => assert_eq!(max, LARGE),
            _ => panic!("it was read"),
        }
    }
}
