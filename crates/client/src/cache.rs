//! Answers that are good for a while, and questions that are asked once for all who ask them.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use aws_lc_rs::digest::{Context, SHA256};
use convoke_agent::{AgentCallError, CallError};
use convoke_model::{CapabilityName, Json, SpiffeId, limits};
use serde::Deserialize;
use serde::de::{Deserializer, Error as _, MapAccess, Visitor};
use serde_json::value::RawValue;
use tokio::sync::OnceCell;
use tokio::time::Instant;

/// Most answers that a client keeps, and most bytes of their JSON texts together.
const ANSWERS_MAX: usize = 1024;
const BYTES_MAX: usize = 16 * 1024 * 1024;

/// Largest answer that is kept, in bytes: one should not push out all others.
const ANSWER_BYTES_MAX: usize = BYTES_MAX / 16;

/// The answers that one client keeps.
#[derive(Default)]
pub(crate) struct Cache(Mutex<Inner>);

#[derive(Default)]
struct Inner {
    answers: HashMap<Key, Kept>,
    /// The keys by the age of their answers.
    ages: BTreeMap<u64, Key>,
    next_age: u64,
    bytes: usize,
    /// Questions that are under way.
    flights: HashMap<Key, Flight>,
}

struct Flight {
    cell: Arc<Answered>,
    askers: usize,
}

/// Holds what all who ask are told, once it is known.
type Answered = OnceCell<Result<Json, CallError>>;

struct Kept {
    answer: Json,
    expires_at: Instant,
    age: u64,
}

/// One question: SHA-256 of who asks whom, where, and what, so that no two are taken for one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Key([u8; 32]);

/// Where an answer came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum From {
    /// This call, or another that was under way.
    Agent,
    /// What was kept.
    Kept,
}

impl Key {
    /// The key of a question; `None` for parameters that no agent of ours takes, because they nest
    /// too deep or have a key twice.
    pub(crate) fn new(
        caller: &SpiffeId,
        agent: &SpiffeId,
        address: &str,
        capability: &CapabilityName,
        params: &Json,
    ) -> Option<Self> {
        let mut canonical = Vec::with_capacity(params.get().len());
        write_canonical(params.get(), limits::JSON_DEPTH_MAX, &mut canonical).ok()?;
        let mut digest = Context::new(&SHA256);
        let parts: [&[u8]; 5] = [
            caller.as_str().as_bytes(),
            agent.as_str().as_bytes(),
            address.as_bytes(),
            capability.as_str().as_bytes(),
            &canonical,
        ];
        for part in parts {
            // Lengths first, so that the parts cannot run into each other.
            digest.update(&(part.len() as u64).to_be_bytes());
            digest.update(part);
        }
        let digest = digest.finish();
        <[u8; 32]>::try_from(digest.as_ref()).ok().map(Self)
    }
}

impl Cache {
    /// The answer to `key`: the one that is kept, if it is not too old; else that of a call that is
    /// under way, and if there is none, of `call`. What comes is kept for `ttl`.
    ///
    /// A failure is told to all who wait, but for one that is the asker's own matter, such as
    /// having no more time: then the next one calls.
    ///
    /// # Errors
    ///
    /// That of the call, whoever made it.
    pub(crate) async fn get<Call>(
        &self,
        key: Key,
        ttl: Duration,
        call: impl FnOnce() -> Call,
    ) -> Result<(Json, From), CallError>
    where
        Call: Future<Output = Result<Json, CallError>>,
    {
        let cell = {
            let mut inner = self.inner();
            if let Some(answer) = inner.kept(&key, Instant::now()) {
                return Ok((answer, From::Kept));
            }
            let flight = inner.flights.entry(key).or_default();
            flight.askers += 1;
            Arc::clone(&flight.cell)
        };
        let asker = Asker { cache: self, key, cell };
        let answered = asker.cell.get_or_try_init(async || {
            let result = call().await;
            if let Ok(answer) = &result {
                self.inner().keep(key, answer, Instant::now(), ttl);
            }
            match result {
                Err(error) if is_own(&error) => Err(error),
                shared => Ok(shared),
            }
        });
        answered.await?.clone().map(|answer| (answer, From::Agent))
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether a failure says nothing to others who ask the same.
fn is_own(error: &CallError) -> bool {
    matches!(
        error,
        CallError::Failed(
            AgentCallError::TimedOut { .. }
                | AgentCallError::Canceled { .. }
                | AgentCallError::Busy { .. }
        )
    )
}

/// One who asks. The flight is over when one of them has the answer, or the last has gone.
struct Asker<'a> {
    cache: &'a Cache,
    key: Key,
    cell: Arc<Answered>,
}

impl Drop for Asker<'_> {
    fn drop(&mut self) {
        let mut inner = self.cache.inner();
        // Another flight may have begun since this one was over.
        let Some(flight) = inner.flights.get_mut(&self.key) else { return };
        if !Arc::ptr_eq(&flight.cell, &self.cell) {
            return;
        }
        flight.askers -= 1;
        if flight.askers == 0 || self.cell.initialized() {
            inner.flights.remove(&self.key);
        }
    }
}

impl Default for Flight {
    fn default() -> Self {
        Self { cell: Arc::new(OnceCell::new()), askers: 0 }
    }
}

impl Inner {
    fn kept(&mut self, key: &Key, now: Instant) -> Option<Json> {
        let kept = self.answers.get(key)?;
        if kept.expires_at > now {
            return Some(kept.answer.clone());
        }
        self.forget(*key);
        None
    }

    fn keep(&mut self, key: Key, answer: &Json, now: Instant, ttl: Duration) {
        let bytes = answer.get().len();
        // A time beyond the clock's end is none that anybody means.
        let Some(expires_at) = now.checked_add(ttl) else { return };
        if bytes > ANSWER_BYTES_MAX || ttl.is_zero() {
            return;
        }
        self.forget(key);
        while self.answers.len() >= ANSWERS_MAX || self.bytes + bytes > BYTES_MAX {
            match self.ages.first_key_value() {
                Some((_, &oldest)) => self.forget(oldest),
                None => break,
            }
        }
        let age = self.next_age;
        self.next_age += 1;
        self.bytes += bytes;
        self.ages.insert(age, key);
        self.answers.insert(key, Kept { answer: answer.clone(), expires_at, age });
    }

    fn forget(&mut self, key: Key) {
        if let Some(kept) = self.answers.remove(&key) {
            self.bytes -= kept.answer.get().len();
            self.ages.remove(&kept.age);
        }
    }
}

/// Writes a JSON text so that texts of the same value come out the same, as far as that is safe:
/// without spaces, with sorted keys and one spelling of each string. Numbers stay as they are
/// written, since two spellings may be two values to whoever reads them.
fn write_canonical(text: &str, depth: usize, out: &mut Vec<u8>) -> Result<(), serde_json::Error> {
    let text = text.trim_ascii();
    let below = || depth.checked_sub(1).ok_or_else(|| serde_json::Error::custom("nested too deep"));
    match text.as_bytes().first() {
        Some(b'{') => {
            let depth = below()?;
            let Members(mut members) = serde_json::from_str(text)?;
            members.sort_by(|(a, _), (b, _)| a.cmp(b));
            if members.windows(2).any(|pair| pair[0].0 == pair[1].0) {
                return Err(serde_json::Error::custom("a key twice"));
            }
            out.push(b'{');
            for (key, value) in members {
                serde_json::to_writer(&mut *out, &key)?;
                out.push(b':');
                write_canonical(value.get(), depth, out)?;
                out.push(b',');
            }
            out.push(b'}');
        }
        Some(b'[') => {
            let depth = below()?;
            let items: Vec<&RawValue> = serde_json::from_str(text)?;
            out.push(b'[');
            for item in items {
                write_canonical(item.get(), depth, out)?;
                out.push(b',');
            }
            out.push(b']');
        }
        Some(b'"') => {
            let string: String = serde_json::from_str(text)?;
            serde_json::to_writer(out, &string)?;
        }
        _ => out.extend_from_slice(text.as_bytes()),
    }
    Ok(())
}

/// The members of an object in their order, also those whose key is there twice.
struct Members<'a>(Vec<(String, &'a RawValue)>);

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Collect;

        impl<'de> Visitor<'de> for Collect {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::with_capacity(map.size_hint().unwrap_or_default());
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }

        deserializer.deserialize_map(Collect)
    }
}
