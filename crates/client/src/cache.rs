//! Answers that are good for a while, and questions that are asked once for all who ask them.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use aws_lc_rs::digest::{Context, SHA256};
use convoke_agent::{AgentCallError, CallError};
use convoke_model::{CapabilityName, FaultCode, Json, SpiffeId, limits};
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
    kept_at: Instant,
    expires_at: Instant,
    age: u64,
}

/// One question: SHA-256 of who asks whom, where, and what, and since when the agent's trust domain is
/// trusted, so that no two are taken for one.
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
    /// too deep or have a key twice. `trusted_since` is as [`Material::trusted_since`] has it.
    ///
    /// [`Material::trusted_since`]: convoke_identity::Material::trusted_since
    pub(crate) fn new(
        caller: &SpiffeId,
        agent: &SpiffeId,
        trusted_since: u64,
        address: &str,
        capability: &CapabilityName,
        params: &Json,
    ) -> Option<Self> {
        let mut canonical = Vec::with_capacity(params.get().len());
        write_canonical(params.get(), limits::JSON_DEPTH_MAX, &mut canonical).ok()?;
        let mut digest = Context::new(&SHA256);
        let parts: [&[u8]; 6] = [
            &trusted_since.to_be_bytes(),
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
    /// The answer to `key`: the one that is kept, if neither who kept it nor who asks now, with
    /// `ttl`, finds it too old; else that of a call that is under way, and if there is none, of
    /// `call`. What comes is kept for `ttl`.
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
            if let Some(answer) = inner.kept(&key, Instant::now(), ttl) {
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
                // The agent stops when the time is over that the one who called it has.
                | AgentCallError::Remote { code: FaultCode::DeadlineExceeded, .. }
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
    fn kept(&mut self, key: &Key, now: Instant, ttl: Duration) -> Option<Json> {
        let kept = self.answers.get(key)?;
        if kept.expires_at <= now {
            self.forget(*key);
            return None;
        }
        // What is too old for one may be good enough for the next.
        let age = now.saturating_duration_since(kept.kept_at);
        (age < ttl).then(|| kept.answer.clone())
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
        self.answers.insert(key, Kept { answer: answer.clone(), kept_at: now, expires_at, age });
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

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use tokio::sync::oneshot;

    use super::*;

    fn key(params: &str) -> Option<Key> {
        let id = |path: &str| SpiffeId::parse(&format!("spiffe://example.org/{path}")).unwrap();
        let capability = CapabilityName::parse("count_words").unwrap();
        let params = Json::parse(params).unwrap();
        Key::new(&id("caller"), &id("worker"), 1, "https://worker", &capability, &params)
    }

    fn json(text: &str) -> Json {
        Json::parse(text).unwrap()
    }

    fn late() -> CallError {
        let agent = SpiffeId::parse("spiffe://example.org/worker").unwrap();
        let capability = CapabilityName::parse("count_words").unwrap();
        AgentCallError::TimedOut { agent, capability, after: Duration::ZERO }.into()
    }

    fn remote(code: FaultCode) -> CallError {
        let agent = SpiffeId::parse("spiffe://example.org/worker").unwrap();
        let capability = CapabilityName::parse("count_words").unwrap();
        AgentCallError::Remote { agent, capability, code, message: String::new() }.into()
    }

    fn refused() -> CallError {
        let agent = SpiffeId::parse("spiffe://example.org/worker").unwrap();
        AgentCallError::NoAddress { agent }.into()
    }

    #[test]
    fn the_same_question_has_the_same_key_and_no_other_has() {
        let check = |a: &str, b: &str, same: bool| assert_eq!(key(a) == key(b), same, "{a} {b}");
        check(r#"{"a":1,"b":[true,null]}"#, r#" { "b" : [ true , null ] , "a" : 1 } "#, true);
        check(r#"{"a":"\u0041\/"}"#, r#"{"\u0061":"A/"}"#, true);
        check(r#"{"a":{"c":1,"b":2}}"#, r#"{"a":{"b":2,"c":1}}"#, true);
        // Two spellings of a number may be two numbers to the agent.
        check(r#"{"a":1}"#, r#"{"a":1.0}"#, false);
        check(r#"{"a":12345678901234567890123}"#, r#"{"a":12345678901234567890124}"#, false);
        check(r#"{"a":1}"#, r#"{"a":"1"}"#, false);
        check(r#"[[1],2]"#, r#"[[1,2]]"#, false);
        check(r#"{"a":[1,2]}"#, r#"{"a":[2,1]}"#, false);
        check(r#"{"a":"b\",\"c\":\"d"}"#, r#"{"a":"b","c":"d"}"#, false);
        // What no agent takes has no key.
        assert_eq!(key(r#"{"a":1,"a":1}"#), None);
        assert_eq!(key(&format!("{}{}", "[".repeat(33), "]".repeat(33))), None);
        assert!(key(&format!("{}{}", "[".repeat(32), "]".repeat(32))).is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_is_good_for_its_time() {
        let (cache, key, ttl) = (Cache::default(), key("{}").unwrap(), Duration::from_secs(5));
        let get =
            async |answer: &str| cache.get(key, ttl, async || Ok(json(answer))).await.unwrap();
        assert_eq!(get("1").await, (json("1"), From::Agent));
        tokio::time::advance(ttl - Duration::from_millis(1)).await;
        assert_eq!(get("2").await, (json("1"), From::Kept));
        tokio::time::advance(Duration::from_millis(1)).await;
        assert_eq!(get("3").await, (json("3"), From::Agent));
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_is_no_older_than_who_asks_or_who_kept_it_allows() {
        let (cache, key, minute) = (Cache::default(), key("{}").unwrap(), Duration::from_secs(60));
        let check = async |ttl: Duration, answer: &str, expected: (&str, From)| {
            let got = cache.get(key, ttl, async || Ok(json(answer))).await.unwrap();
            assert_eq!(got, (json(expected.0), expected.1), "{ttl:?}");
        };
        check(60 * minute, "1", ("1", From::Agent)).await;
        tokio::time::advance(minute).await;
        check(minute + Duration::from_millis(1), "2", ("1", From::Kept)).await;
        check(minute, "3", ("3", From::Agent)).await;
        // What is too old for one who got no better answer is still there for others.
        tokio::time::advance(minute / 2).await;
        let failed = cache.get(key, minute / 4, async || Err(refused())).await;
        assert_eq!(failed, Err(refused()));
        check(minute, "4", ("3", From::Kept)).await;
        // It was kept for a minute, however long one who asks would have kept it.
        tokio::time::advance(minute / 2).await;
        check(60 * minute, "5", ("5", From::Agent)).await;
        // Nothing that was ever kept is young enough.
        check(Duration::ZERO, "6", ("6", From::Agent)).await;
    }

    #[tokio::test]
    async fn who_asks_the_same_is_answered_by_one_call() {
        let (cache, key, calls) = (Cache::default(), key("{}").unwrap(), Cell::new(0));
        let (answer, answered) = oneshot::channel::<Result<Json, CallError>>();
        let answered = Cell::new(Some(answered));
        let ask = || {
            cache.get(key, Duration::ZERO, || {
                calls.set(calls.get() + 1);
                let answered = answered.take();
                async { answered.unwrap().await.unwrap() }
            })
        };
        let answer = async { answer.send(Err(refused())).unwrap() };
        let (a, b, c, ()) = tokio::join!(ask(), ask(), ask(), answer);
        assert_eq!([a, b, c], [(); 3].map(|()| Err(refused())));
        assert_eq!(calls.get(), 1);
        assert!(cache.inner().flights.is_empty());
    }

    #[tokio::test]
    async fn who_gives_up_leaves_the_question_to_the_next() {
        let (cache, key, ttl) = (Cache::default(), key("{}").unwrap(), Duration::from_secs(5));
        // One has no time, one goes away, and one has no time either.
        let late = || cache.get(key, ttl, async || Err(late()));
        let gone = cache.get(key, ttl, std::future::pending);
        let asks = cache.get(key, ttl, async || Ok(json("1")));
        let mut gone = Box::pin(gone);
        assert!(poll_once(&mut gone).is_none());
        let (first, (), last, asks) = tokio::join!(late(), async { drop(gone) }, late(), asks);
        assert_eq!((first, last), (Err(self::late()), Err(self::late())));
        assert_eq!(asks, Ok((json("1"), From::Agent)));
        assert!(cache.inner().flights.is_empty());

        // Nothing is left of one who was alone.
        let other = self::key("[]").unwrap();
        let mut alone = Box::pin(cache.get(other, ttl, std::future::pending));
        assert!(poll_once(&mut alone).is_none());
        assert_eq!(cache.inner().flights.len(), 1);
        drop(alone);
        assert!(cache.inner().flights.is_empty());
    }

    #[tokio::test]
    async fn an_agent_that_stopped_in_the_time_of_one_is_asked_again_for_the_next() {
        let (cache, ttl) = (Cache::default(), Duration::from_secs(5));
        let check = async |code, expected: Result<(Json, From), CallError>| {
            let key = key("{}").unwrap();
            // The first to ask is waited for by the second, which has more time.
            let first = cache.get(key, ttl, async || {
                tokio::task::yield_now().await;
                Err(remote(code))
            });
            let second = cache.get(key, ttl, async || Ok(json("1")));
            let told = tokio::join!(first, second);
            assert_eq!(told, (Err(remote(code)), expected), "{code:?}");
        };
        // What is wrong with the agent is told to all who wait.
        check(FaultCode::Internal, Err(remote(FaultCode::Internal))).await;
        check(FaultCode::DeadlineExceeded, Ok((json("1"), From::Agent))).await;
    }

    /// What a future gives when it is asked once.
    fn poll_once<F: Future + Unpin>(future: &mut F) -> Option<F::Output> {
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        match std::pin::Pin::new(future).poll(&mut context) {
            std::task::Poll::Ready(output) => Some(output),
            std::task::Poll::Pending => None,
        }
    }

    #[tokio::test]
    async fn what_is_kept_is_bounded() {
        let (mut inner, now, ttl) = (Inner::default(), Instant::now(), Duration::from_secs(5));
        let number = |n: usize| {
            let mut bytes = [0; 32];
            bytes[..8].copy_from_slice(&n.to_be_bytes());
            Key(bytes)
        };
        for n in 0..2 * ANSWERS_MAX {
            inner.keep(number(n), &json("1"), now, ttl);
        }
        assert_eq!((inner.answers.len(), inner.bytes), (ANSWERS_MAX, ANSWERS_MAX));
        assert!(inner.kept(&number(ANSWERS_MAX - 1), now, ttl).is_none());
        assert!(inner.kept(&number(ANSWERS_MAX), now, ttl).is_some());

        // The same answer again and again is one.
        let large = json(&format!("\"{}\"", "x".repeat(ANSWER_BYTES_MAX - 2)));
        for _ in 0..100 {
            inner.keep(number(0), &large, now, ttl);
        }
        assert!(inner.answers.len() <= ANSWERS_MAX && inner.ages.len() == inner.answers.len());
        for n in 0..100 {
            inner.keep(number(n), &large, now, ttl);
        }
        assert_eq!(inner.bytes, BYTES_MAX);
        assert_eq!(inner.answers.len(), 16);

        let larger = json(&format!("\"{}\"", "x".repeat(ANSWER_BYTES_MAX - 1)));
        inner.keep(number(7), &larger, now, ttl);
        inner.keep(number(8), &json("1"), now, Duration::ZERO);
        inner.keep(number(9), &json("1"), now, Duration::MAX);
        assert!([7, 8, 9].iter().all(|&n| inner.kept(&number(n), now, ttl).is_none()));
    }
}
