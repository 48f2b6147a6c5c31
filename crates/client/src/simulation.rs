//! Calls against agents that fail in every way, by the thousand, on a clock that costs no time.
//!
//! The figures are those of the reference's; `--nocapture` shows them. A failure
//! names its seed.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use convoke_a2a::client::AnswerError;
use convoke_agent::{AgentCallError, BreakerSettings, CallError, CallSettings};
use convoke_model::{CapabilityName, Fault, FaultCode, SpiffeId};
use convoke_net::client::{Address, Provenance, SendError};
use http::{HeaderMap, StatusCode};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout_at};

use crate::attempts::{Attempts, Call, Failed};
use crate::error::{At, Head, of_answer, of_send};
use crate::gate::Gate;
use crate::observe::{BreakerState, CallEvent, CallObserver, CallTarget};
use crate::random::Random;

const ANSWERS_IN: Duration = Duration::from_millis(10);

/// How an agent fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trouble {
    /// Nothing listens.
    Down,
    /// Every second call gets a fault of the agent's.
    Half,
    /// Every call is one too many.
    TooMany,
    /// A hundred times slower than it was, which is more than callers wait.
    Slow,
    /// Down for two seconds of each four.
    Flapping,
}

/// Two agents, of which the first is in trouble for a while, and whoever calls them.
struct World {
    attempts: Attempts,
    gates: [Gate; 2],
    addresses: [Address; 2],
    agent: SpiffeId,
    capability: CapabilityName,
    settings: CallSettings,
    trouble: Trouble,
    /// From when to when, since the beginning.
    trouble_from: Duration,
    trouble_until: Duration,
    begun: Instant,
    log: Arc<Log>,
    chance: Random,
}

/// What happened, when, and to which agent.
#[derive(Default)]
struct Log(Mutex<Vec<(Instant, bool, Happened)>>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Happened {
    Worked,
    Failed,
    Breaker(BreakerState),
}

impl CallObserver for Log {
    fn observe(&self, to: CallTarget<'_>, event: CallEvent<'_>) {
        let happened = match event {
            CallEvent::Attempted { error: None, .. } => Happened::Worked,
            CallEvent::Attempted { .. } => Happened::Failed,
            CallEvent::Breaker(state) => Happened::Breaker(state),
            _ => return,
        };
        let is_first = to.address.ends_with("first:443");
        self.0.lock().unwrap().push((Instant::now(), is_first, happened));
    }
}

impl World {
    fn new(
        seed: u64,
        settings: CallSettings,
        trouble: Trouble,
        from: u64,
        until: u64,
    ) -> Arc<Self> {
        let log = Arc::new(Log::default());
        let address = |text| Address::parse(text, Provenance::Operator).unwrap();
        Arc::new(Self {
            attempts: Attempts::new(Random::seeded(seed), Some(Arc::clone(&log) as _)),
            gates: [0; 2].map(|_| Gate::new(settings.concurrency_max)),
            addresses: [address("https://first"), address("https://second")],
            agent: SpiffeId::parse("spiffe://example.org/worker").unwrap(),
            capability: CapabilityName::parse("count_words").unwrap(),
            settings,
            trouble,
            trouble_from: Duration::from_secs(from),
            trouble_until: Duration::from_secs(until),
            begun: Instant::now(),
            log,
            chance: Random::seeded(!seed),
        })
    }

    /// Calls `calls` times a second until `end`, each on its own, whatever became of the others.
    async fn run(self: &Arc<Self>, calls: u64, which: &[usize], end: Duration) {
        let mut under_way = JoinSet::new();
        let mut made = 0;
        for millis in 0..end.as_millis() as u64 {
            sleep_until(self.begun + Duration::from_millis(millis)).await;
            let due = calls * (millis + 1) / 1000;
            for _ in made..due {
                for &which in which {
                    let world = Arc::clone(self);
                    under_way.spawn(async move { drop(world.call(which).await) });
                }
            }
            made = due;
            while under_way.try_join_next().is_some() {}
        }
        while under_way.join_next().await.is_some() {}
    }

    async fn call(&self, which: usize) -> Result<(), CallError> {
        let shown = self.addresses[which].to_string();
        let call = Call {
            agent: &self.agent,
            address: &shown,
            capability: &self.capability,
            settings: &self.settings,
            idempotent: true,
            trace: None,
            deadline: Instant::now() + self.settings.timeout,
        };
        let answer = |_span| async {
            let answer = timeout_at(call.deadline, self.answer(which, &call)).await;
            answer.unwrap_or_else(|_elapsed| {
                let address = self.addresses[which].clone();
                let late = SendError::TimedOut { address, sent: true };
                Err(of_send(at(&call), &late, self.settings.timeout))
            })
        };
        self.attempts.run(&self.gates[which], &call, answer).await
    }

    /// What the agent does.
    async fn answer(&self, which: usize, call: &Call<'_>) -> Result<(), Failed> {
        let since = self.begun.elapsed();
        let in_trouble = which == 0 && since >= self.trouble_from && since < self.trouble_until;
        let down = || {
            let source = std::io::ErrorKind::ConnectionRefused.into();
            let error = SendError::Connect { address: self.addresses[which].clone(), source };
            Err(of_send(at(call), &error, self.settings.timeout))
        };
        let fault = |code, status| {
            let (fault, headers) = (Fault::new(code, "not now"), HeaderMap::new());
            let head = Head { status, headers: &headers };
            Err(of_answer(at(call), AnswerError::Fault(fault), &head))
        };
        match self.trouble {
            _ if !in_trouble => {}
            Trouble::Down => return down(),
            Trouble::Flapping if (since - self.trouble_from).as_secs() % 4 < 2 => return down(),
            Trouble::Half if self.chance.next().is_multiple_of(2) => {
                return fault(FaultCode::Internal, StatusCode::OK);
            }
            Trouble::TooMany => {
                return fault(FaultCode::ResourceExhausted, StatusCode::TOO_MANY_REQUESTS);
            }
            Trouble::Slow => sleep(ANSWERS_IN * 100).await,
            Trouble::Flapping | Trouble::Half => {}
        }
        sleep(ANSWERS_IN).await;
        Ok(())
    }

    /// What happened to the first agent, or to the second, with the time since the beginning.
    fn happened(&self, to_first: bool) -> Vec<(Duration, Happened)> {
        let log = self.log.0.lock().unwrap();
        let of = log.iter().filter(|(_, first, _)| *first == to_first);
        of.map(|&(at, _, happened)| (at - self.begun, happened)).collect()
    }
}

fn at<'a>(call: &Call<'a>) -> At<'a> {
    At { agent: call.agent, address: call.address, capability: call.capability }
}

fn attempts(happened: &[(Duration, Happened)], from: Duration, until: Duration) -> u64 {
    let is_attempt = |(at, what): &&(Duration, Happened)| {
        !matches!(what, Happened::Breaker(_)) && *at >= from && *at < until
    };
    happened.iter().filter(is_attempt).count() as u64
}

/// everything fails for a minute, and then nothing does.
async fn retries_stay_within_their_budget(name: &str, breaker: BreakerSettings, seed: u64) {
    const CALLS: u64 = 5_000;
    const DOWN: u64 = 60;
    let settings = CallSettings { breaker, concurrency_max: 5_000, ..CallSettings::default() };
    let world = World::new(seed, settings, Trouble::Down, 0, DOWN);
    let (down, end) = (Duration::from_secs(DOWN), Duration::from_secs(DOWN + 10));
    world.run(CALLS, &[0], end).await;

    let happened = world.happened(true);
    let made = attempts(&happened, Duration::ZERO, down);
    let bound = CALLS * DOWN * 12 / 10 + 10 * DOWN;
    // In windows of a second, each beginning a tenth after the one before.
    let overshoot = (0..90).map(|tenths| {
        let from = down + Duration::from_millis(100 * tenths);
        attempts(&happened, from, from + Duration::from_secs(1))
    });
    let overshoot = overshoot.max().unwrap();
    let ratio = |number: u64, of: u64| number as f64 / of as f64;
    println!(
        "R-21 {name}: {} calls, {made} attempts ({:.3} x, bound {bound}); after it most in one \
         second {overshoot} ({:.3} x)",
        CALLS * DOWN,
        ratio(made, CALLS * DOWN),
        ratio(overshoot, CALLS),
    );
    assert!(made <= bound, "{name}: {made} attempts, seed {seed}");
    assert!(overshoot * 10 <= CALLS * 11, "{name}: {overshoot} in a second, seed {seed}");
    // All of what is offered gets through again.
    let last = attempts(&happened, end - Duration::from_secs(1), end);
    assert!(last * 100 >= CALLS * 99, "{name}: {last} in the last second, seed {seed}");
}

#[tokio::test(start_paused = true)]
async fn r_21_without_a_breaker() {
    let off = BreakerSettings { failures_max: 0, ..BreakerSettings::default() };
    retries_stay_within_their_budget("without a breaker", off, 21).await;
}

#[tokio::test(start_paused = true)]
async fn r_21_with_a_breaker() {
    let breaker =
        BreakerSettings { open_for: Duration::from_secs(1), ..BreakerSettings::default() };
    retries_stay_within_their_budget("with a breaker", breaker, 22).await;
}

/// an agent in trouble for a minute, and another that is well.
async fn breaker_opens_probes_and_closes(trouble: Trouble, seed: u64) {
    const CALLS: u64 = 100;
    const FROM: u64 = 5;
    const UNTIL: u64 = 65;
    let open_for = Duration::from_secs(1);
    let settings = CallSettings {
        timeout: ANSWERS_IN * 50,
        breaker: BreakerSettings { open_for, ..BreakerSettings::default() },
        ..CallSettings::default()
    };
    let world = World::new(seed, settings, trouble, FROM, UNTIL);
    let end = Duration::from_secs(UNTIL + 15);
    world.run(CALLS, &[0, 1], end).await;
    let (from, until) = (Duration::from_secs(FROM), Duration::from_secs(UNTIL));
    let happened = world.happened(true);
    let told = format!("{trouble:?}, seed {seed}");

    let opened = happened.iter().position(|(_, it)| *it == Happened::Breaker(BreakerState::Open));
    let opened = opened.unwrap_or_else(|| panic!("{told}: never opened"));
    let opened_after = happened[opened].0 - from;
    let failures = happened[..=opened].iter().filter(|(_, it)| *it == Happened::Failed).count();
    // Half of the calls may fail for a while without seven in a row, so that is asked by time.
    let in_time = match trouble {
        Trouble::Half => opened_after <= Duration::from_secs(1),
        _ => failures <= 7,
    };
    assert!(in_time, "{told}: opened after {failures} failures and {opened_after:?}");

    // Between opening and letting through: one call, and not before its time.
    let (mut opened_at, mut half_open_at) = (None::<Duration>, None::<Duration>);
    let (mut probes, mut shortest, mut longest) = (0, Duration::MAX, Duration::ZERO);
    let mut closed_at = None;
    for &(at, what) in &happened {
        match what {
            Happened::Breaker(BreakerState::Open) => {
                opened_at = Some(at);
                half_open_at = None;
            }
            Happened::Breaker(BreakerState::HalfOpen) => {
                let waited = at - opened_at.expect("opens before it is half open");
                probes += 1;
                (shortest, longest) = (shortest.min(waited), longest.max(waited));
                half_open_at = Some(at);
            }
            Happened::Breaker(BreakerState::Closed) => {
                (opened_at, half_open_at) = (None, None);
                closed_at = Some(at);
            }
            Happened::Worked | Happened::Failed => {
                // Those that were let through before it opened may still end.
                let early = opened_at.is_some_and(|open| at <= open + world.settings.timeout);
                let is_probe = half_open_at.is_some();
                assert!(opened_at.is_none() || early || is_probe, "{told}: a call at {at:?}");
            }
        }
    }
    assert!(shortest >= open_for, "{told}: a probe after {shortest:?}");
    let closed_at = closed_at.unwrap_or_else(|| panic!("{told}: never closed"));
    let closed_after = closed_at.saturating_sub(until);
    assert!(closed_after <= 2 * longest, "{told}: closed {closed_after:?} after it healed");
    assert_eq!(world.gates[0].state(), BreakerState::Closed, "{told}");
    let last = attempts(&happened, end - Duration::from_secs(1), end);
    assert!(last >= CALLS - 2, "{told}: {last} calls in the last second");

    // The other agent never noticed.
    let other = world.happened(false);
    assert!(other.iter().all(|(_, it)| *it == Happened::Worked), "{told}");
    assert_eq!(other.len() as u64, CALLS * end.as_secs(), "{told}");
    println!(
        "R-22 {trouble:?}, seed {seed}: opened after {failures} failures, {} ms; {probes} probes, \
         the waits before them {:.1} to {:.1} s; closed {:.1} s after it healed",
        opened_after.as_millis(),
        shortest.as_secs_f64(),
        longest.as_secs_f64(),
        closed_after.as_secs_f64(),
    );
}

async fn in_every_world(trouble: Trouble) {
    for seed in 0..4 {
        breaker_opens_probes_and_closes(trouble, seed).await;
    }
}

#[tokio::test(start_paused = true)]
async fn r_22_down() {
    in_every_world(Trouble::Down).await;
}

#[tokio::test(start_paused = true)]
async fn r_22_half_of_the_calls_fail() {
    in_every_world(Trouble::Half).await;
}

#[tokio::test(start_paused = true)]
async fn r_22_too_many_requests() {
    in_every_world(Trouble::TooMany).await;
}

#[tokio::test(start_paused = true)]
async fn r_22_slow() {
    in_every_world(Trouble::Slow).await;
}

#[tokio::test(start_paused = true)]
async fn r_22_flapping() {
    in_every_world(Trouble::Flapping).await;
}

/// Who is in a hurry does not shut others out; who waited long enough does.
#[tokio::test(start_paused = true)]
async fn a_caller_without_time_opens_no_breaker() {
    let world = World::new(1, CallSettings::default(), Trouble::Slow, 0, 60);
    for (part, expected) in [(3, BreakerState::Closed), (2, BreakerState::Open)] {
        for _ in 0..5 {
            let call = Call {
                agent: &world.agent,
                address: "https://first",
                capability: &world.capability,
                settings: &world.settings,
                idempotent: false,
                trace: None,
                deadline: Instant::now() + world.settings.timeout / part,
            };
            let answer = |_span| async {
                sleep_until(call.deadline).await;
                let late = SendError::TimedOut { address: world.addresses[0].clone(), sent: true };
                Err::<(), _>(of_send(at(&call), &late, world.settings.timeout))
            };
            world.attempts.run(&world.gates[0], &call, answer).await.unwrap_err();
        }
        assert_eq!(world.gates[0].state(), expected);
    }
}

/// As many as are allowed are under way, and the next wait for their turn, within their time.
#[tokio::test(start_paused = true)]
async fn calls_wait_for_their_turn() {
    let timeout = ANSWERS_IN * 3 / 2;
    let settings = CallSettings { timeout, concurrency_max: 2, ..CallSettings::default() };
    let world = World::new(1, settings, Trouble::Down, 60, 60);
    let mut calls = JoinSet::new();
    for _ in 0..6 {
        let world = Arc::clone(&world);
        calls.spawn(async move { world.call(0).await });
    }
    let mut ended = [0; 3];
    for result in calls.join_all().await {
        match result {
            Ok(()) => ended[0] += 1,
            // Its turn came, and not its answer.
            Err(CallError::Failed(AgentCallError::TimedOut { .. })) => ended[1] += 1,
            Err(CallError::Failed(AgentCallError::Busy { concurrency_max: 2, after, .. })) => {
                assert_eq!(after, timeout);
                ended[2] += 1;
            }
            Err(other) => panic!("{other}"),
        }
    }
    assert_eq!(ended, [2, 2, 2]);
}
