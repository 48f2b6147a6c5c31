//! How much of large requests and answers an agent holds at a time, over all its connections.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use convoke_model::{Fault, FaultCode, limits};
use futures_util::FutureExt;
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
    /// What may be held already by those who wait for room to send it.
    held: Semaphore,
}

/// Room that is held until it is dropped; none for what is small.
#[derive(Debug, Default)]
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
            held: Semaphore::new(all / OWNERS_PART),
        }
    }

    /// The largest piece that there can be room for, in bytes.
    pub(crate) fn largest(&self) -> usize {
        self.owner_permits * PERMIT_BYTES
    }

    /// Waits for room for `bytes` of `owner`'s.
    ///
    /// # Errors
    ///
    /// [`FaultCode::ResourceExhausted`] if there was none in time, and
    /// [`FaultCode::UnsupportedOperation`] at once if there never can be.
    pub(crate) async fn room(&self, owner: &Arc<str>, bytes: usize) -> Result<Room, Fault> {
        if bytes <= limits::SMALL_BODY_BYTES_MAX {
            return Ok(Room(None));
        }
        if bytes > self.largest() {
            return Err(too_large("it", bytes, self.largest(), "ask for less at a time"));
        }
        let permits = permits(bytes);
        let own = self.owner(owner);
        let acquired = timeout(limits::LARGE_BODY_WAIT, async {
            // First the owner's own part, so that what waits holds nothing of the others'.
            let own = own.acquire_many_owned(permits).await.ok()?;
            Some([own, Arc::clone(&self.all).acquire_many_owned(permits).await.ok()?])
        });
        match acquired.await {
            Ok(Some(held)) => Ok(Room(Some(held))),
            _ => Err(busy()),
        }
    }

    /// As [`Budget::room`], for what is there already and is held while this waits. What waits like
    /// that is bounded too, over all owners; beyond it nobody waits.
    ///
    /// # Errors
    ///
    /// As [`Budget::room`].
    pub(crate) async fn room_for_held(
        &self,
        owner: &Arc<str>,
        bytes: usize,
    ) -> Result<Room, Fault> {
        let at_once = self.room(owner, bytes).now_or_never();
        if let Some(room) = at_once {
            return room;
        }
        let Ok(_waiting) = self.held.try_acquire_many(permits(bytes)) else { return Err(busy()) };
        self.room(owner, bytes).await
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

/// The refusal of an answer about `what`, which takes `bytes` and can have no more than `largest`:
/// trying again does not help, `cure` does.
pub(crate) fn too_large(what: &str, bytes: usize, largest: usize, cure: &str) -> Fault {
    let text = format!(
        "{what} is too large to be sent whole: {bytes} bytes, and an answer has at most {largest}; \
         {cure}"
    );
    Fault::new(FaultCode::UnsupportedOperation, text)
}

fn busy() -> Fault {
    Fault::new(
        FaultCode::ResourceExhausted,
        "too many large requests or answers at once; try again later",
    )
}

fn permits(bytes: usize) -> u32 {
    u32::try_from(bytes.div_ceil(PERMIT_BYTES)).unwrap_or(u32::MAX)
}

impl Room {
    /// Whether this is enough for `bytes`.
    pub(crate) fn fits(&self, bytes: usize) -> bool {
        match &self.0 {
            None => bytes <= limits::SMALL_BODY_BYTES_MAX,
            Some([own, _]) => bytes.div_ceil(PERMIT_BYTES) <= own.num_permits(),
        }
    }

    /// Gives back what is more than `bytes` need.
    fn shrink(&mut self, bytes: usize) {
        if let Some(held) = &mut self.0 {
            for permit in held {
                let spare = permit.num_permits().saturating_sub(bytes.div_ceil(PERMIT_BYTES));
                // Dropped here, where it goes back.
                drop(permit.split(spare));
            }
        }
    }

    /// `bytes`, which hold the room until the last of them is dropped, wherever they are then.
    ///
    /// Room that they do not need is given back.
    pub(crate) fn hold(mut self, bytes: Bytes) -> Bytes {
        self.shrink(bytes.len());
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

    #[tokio::test(start_paused = true)]
    async fn what_can_never_fit_is_refused_at_once_and_not_as_busy() {
        let budget = Budget::new(ALL, LARGE);
        let refused = budget.room(&owner("ann"), budget.largest() + 1).now_or_never().unwrap();
        assert_eq!(refused.map(drop).unwrap_err().code, FaultCode::UnsupportedOperation);
        assert!(budget.room(&owner("ann"), budget.largest()).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn room_that_turns_out_not_to_be_needed_is_given_back() {
        let budget = Budget::new(4 * LARGE, LARGE);
        let ann = owner("ann");
        let room = budget.room(&ann, LARGE).await.unwrap();
        assert!(room.fits(LARGE) && !room.fits(LARGE + 1));
        let _held = room.hold(Bytes::from(vec![b' '; LARGE / 4]));
        assert!(budget.room(&ann, LARGE * 3 / 4).await.is_ok());
        assert!(budget.room(&ann, LARGE).await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_held_while_it_waits_is_bounded() {
        let budget = Budget::new(ALL, LARGE);
        let (ann, ben) = (owner("ann"), owner("ben"));
        // Twice this is what may wait, and what one owner may have.
        let sent = budget.room(&ann, 2 * LARGE).await.unwrap();
        let mut first = Box::pin(budget.room_for_held(&ann, LARGE));
        let mut second = Box::pin(budget.room_for_held(&ann, LARGE));
        assert!((&mut first).now_or_never().is_none() && (&mut second).now_or_never().is_none());
        let third = budget.room_for_held(&ann, LARGE).now_or_never().unwrap();
        assert_eq!(third.map(drop).unwrap_err().code, FaultCode::ResourceExhausted);
        let other = budget.room_for_held(&ben, LARGE).now_or_never().unwrap();
        assert!(other.is_ok(), "who need not wait is not in the way");
        drop(sent);
        assert!(first.await.is_ok() && second.await.is_ok());
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
