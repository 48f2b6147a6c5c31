//! How much of large requests and answers an agent holds at a time, over all its connections.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use convoke_model::{Fault, FaultCode, limits};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

/// Bytes that one permit stands for: a semaphore has fewer permits than a machine has bytes.
const PERMIT_BYTES: usize = 1024;

/// The part of all room that one owner may have: the others are not to wait for it.
const OWNERS_PART: usize = 4;

/// Owners that are remembered without holding anything; beyond, they are forgotten together.
const IDLE_OWNERS_MAX: usize = 1024;

/// Bounds bytes over all connections. Each body is bounded by itself already; a thousand
/// connections with a large one each are what this is against. Small ones need no room.
pub(crate) struct Budget {
    all: Arc<Semaphore>,
    owners: Mutex<HashMap<Arc<str>, Arc<Semaphore>>>,
    owner_permits: usize,
}

/// Room that is held until it is dropped; none for what is small.
#[derive(Default)]
pub(crate) struct Room(Option<[OwnedSemaphorePermit; 2]>);

impl Budget {
    /// `bytes` for everybody together, in pieces of at most `largest`.
    pub(crate) fn new(bytes: usize, largest: usize) -> Self {
        // The largest piece must fit into one owner's part.
        let all = bytes.max(largest * OWNERS_PART).div_ceil(PERMIT_BYTES);
        Self {
            all: Arc::new(Semaphore::new(all)),
            owners: Mutex::default(),
            owner_permits: all / OWNERS_PART,
        }
    }

    /// Waits for room for `bytes` of `owner`'s.
    ///
    /// # Errors
    ///
    /// [`FaultCode::ResourceExhausted`] if there was none in time.
    pub(crate) async fn room(&self, owner: &Arc<str>, bytes: usize) -> Result<Room, Fault> {
        if bytes <= limits::SMALL_BODY_BYTES_MAX {
            return Ok(Room(None));
        }
        let permits = u32::try_from(bytes.div_ceil(PERMIT_BYTES)).unwrap_or(u32::MAX);
        let own = self.owner(owner);
        let acquired = timeout(limits::LARGE_BODY_WAIT, async {
            // First the owner's own part, so that what waits holds nothing of the others'.
            let own = own.acquire_many_owned(permits).await.ok()?;
            Some([own, Arc::clone(&self.all).acquire_many_owned(permits).await.ok()?])
        });
        match acquired.await {
            Ok(Some(held)) => Ok(Room(Some(held))),
            _ => Err(Fault::new(
                FaultCode::ResourceExhausted,
                "too many large requests or answers at once; try again later",
            )),
        }
    }

    fn owner(&self, owner: &Arc<str>) -> Arc<Semaphore> {
        let mut owners = self.owners.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(own) = owners.get(owner) {
            return Arc::clone(own);
        }
        if owners.len() >= IDLE_OWNERS_MAX {
            // Whoever holds or waits has a reference.
            owners.retain(|_, own| Arc::strong_count(own) > 1);
        }
        let own = Arc::new(Semaphore::new(self.owner_permits));
        owners.insert(Arc::clone(owner), Arc::clone(&own));
        own
    }
}

impl Room {
    /// `bytes`, which hold the room until the last of them is dropped, wherever they are then.
    pub(crate) fn hold(self, bytes: Bytes) -> Bytes {
        if self.0.is_none() { bytes } else { Bytes::from_owner(Holding { bytes, _room: self }) }
    }
}

struct Holding {
    bytes: Bytes,
    _room: Room,
}

impl AsRef<[u8]> for Holding {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LARGE: usize = 1024 * 1024;
    const ALL: usize = 8 * LARGE;

    fn owner(name: &str) -> Arc<str> {
        name.into()
    }

    #[tokio::test(start_paused = true)]
    async fn one_owner_has_a_part_and_the_others_the_rest() {
        let budget = Budget::new(ALL, LARGE);
        let (ann, ben) = (owner("ann"), owner("ben"));
        let first = budget.room(&ann, LARGE).await.unwrap();
        let _second = budget.room(&ann, LARGE).await.unwrap();
        let refused = budget.room(&ann, LARGE).await.map(drop).unwrap_err();
        assert_eq!(refused.code, FaultCode::ResourceExhausted);
        assert!(budget.room(&ben, LARGE).await.is_ok(), "ann's part is not ben's");
        assert!(budget.room(&ann, limits::SMALL_BODY_BYTES_MAX).await.is_ok(), "small needs none");
        drop(first);
        assert!(budget.room(&ann, LARGE).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn all_owners_together_have_no_more_than_all() {
        let budget = Budget::new(ALL, LARGE);
        let mut held = Vec::new();
        for index in 0..8 {
            held.push(budget.room(&owner(&index.to_string()), LARGE).await.unwrap());
        }
        assert!(budget.room(&owner("one more"), LARGE).await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn bytes_hold_their_room_until_the_last_of_them_is_gone() {
        let budget = Budget::new(4 * LARGE, LARGE);
        let ann = owner("ann");
        let bytes = budget.room(&ann, LARGE).await.unwrap().hold(Bytes::from(vec![b' '; LARGE]));
        let tail = bytes.slice(LARGE - 1..);
        drop(bytes);
        assert!(budget.room(&ann, LARGE).await.is_err());
        drop(tail);
        assert!(budget.room(&ann, LARGE).await.is_ok());
    }

    #[tokio::test]
    async fn owners_are_forgotten_when_they_hold_nothing() {
        let budget = Budget::new(ALL, LARGE);
        for index in 0..3 * IDLE_OWNERS_MAX {
            drop(budget.room(&owner(&index.to_string()), LARGE).await.unwrap());
        }
        assert!(budget.owners.lock().unwrap().len() <= IDLE_OWNERS_MAX);
    }
}
