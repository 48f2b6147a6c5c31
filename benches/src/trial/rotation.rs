//! Identities are replaced every few seconds while calls go on, and so are, less often, the
//! authorities that sign them: no call may fail, and none may be answered on a certificate that has
//! ended.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use convoke_client::Client;
use convoke_model::SpiffeId;
use serde_json::{Value, json};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout_at};

use super::Verdict;
use super::ground::{AGENT, Ground};
use crate::load::{Connection, Target};
use crate::wire;

/// Callers that go through the client, as agents do.
const CALLERS: usize = 64;

/// Calls of all callers together, each second. Source: R-30 of the reliability reference.
const CALLS_PER_SECOND: u64 = 2000;

/// How long a certificate of the authority is valid: the shortest that the life of the SVIDs allows.
/// Its successor is made at half of that, so one ends every twelve seconds.
const CA_TTL: &str = "24s";

/// Callers that hold a connection for as long as the agent lets them, and know its certificates.
const HOLDERS: usize = 16;

#[derive(Default)]
struct Counts {
    answered: AtomicU64,
    failed: AtomicU64,
    held: AtomicU64,
    expired: AtomicU64,
    authorities_ended: AtomicU64,
    connections: AtomicU64,
    first_failure: std::sync::Mutex<Option<String>>,
}

pub(super) fn trial(binary: &Path, time: Duration) -> Result<Verdict> {
    let ground = Ground::set(binary, &["--ttl", "6s", "--renew-after", "2s", "--ca-ttl", CA_TTL])?;
    let agent = ground.agent("rotation", json!({}))?;
    let counts = Arc::new(Counts::default());
    let first = ground.source.current().revision();
    let until = Instant::now() + time;
    let client = Client::with_source(Arc::clone(&ground.source));
    let address = format!("https://localhost:{}", agent.addr.port());
    let target = ground.target(&agent)?;
    let request = wire::send("echo", &json!({ "text": "held" }))?;
    ground.runtime.block_on(async {
        let mut all = tokio::task::JoinSet::new();
        all.spawn(watch(Arc::clone(&ground.source), Arc::clone(&counts), until));
        for _ in 0..CALLERS {
            all.spawn(call(client.clone(), address.clone(), Arc::clone(&counts), until));
        }
        for _ in 0..HOLDERS {
            let source = Arc::clone(&ground.source);
            let (target, request) = (target.clone(), request.clone());
            all.spawn(hold(source, target, request, Arc::clone(&counts), until));
        }
        while let Some(ended) = all.join_next().await {
            ended.context("a caller panicked")??;
        }
        Ok::<_, anyhow::Error>(())
    })?;

    let get = |count: &AtomicU64| count.load(Ordering::Relaxed);
    let rotations = ground.source.current().revision() - first;
    let mut verdict = Verdict::default();
    verdict.fact("seconds", time.as_secs());
    verdict.fact("rotations of the caller", rotations);
    verdict.fact("authorities that ended", get(&counts.authorities_ended));
    verdict.fact("calls answered", get(&counts.answered));
    verdict.fact("calls failed", get(&counts.failed));
    verdict.fact("answers on held connections", get(&counts.held));
    verdict.fact("connections held", get(&counts.connections));
    verdict.fact("answers on an expired certificate", get(&counts.expired));
    let why = counts.first_failure.lock().map_or(None, |mut why| why.take());
    verdict.rule(get(&counts.failed) == 0, || why.unwrap_or_default());
    verdict.rule(get(&counts.expired) == 0, || "a certificate was used after its end".to_owned());
    let least = time.as_secs() / 4;
    verdict.rule(rotations >= least, || format!("fewer than {least} rotations"));
    // The first ends after its whole life, and a trial of a minute sees two at least.
    let least = time.as_secs().saturating_sub(12) / 24;
    let ended = get(&counts.authorities_ended);
    verdict.rule(ended >= least, || format!("fewer than {least} authorities ended"));
    let least = CALLS_PER_SECOND * time.as_secs() / 2;
    verdict.rule(get(&counts.answered) >= least, || format!("fewer than {least} calls"));
    Ok(verdict)
}

/// Counts the authorities that go from the roots while calls go on.
async fn watch(
    source: Arc<convoke_identity::IdentitySource>,
    counts: Arc<Counts>,
    until: Instant,
) -> Result<()> {
    let (mut changes, mut before) = (source.changes(), source.current());
    while let Ok(changed) = timeout_at(until, changes.changed()).await {
        changed.context("the source has ended")?;
        let now = source.current();
        if !now.keeps_roots_of(&before) {
            counts.authorities_ended.fetch_add(1, Ordering::Relaxed);
        }
        before = now;
    }
    Ok(())
}

async fn call(client: Client, address: String, counts: Arc<Counts>, until: Instant) -> Result<()> {
    let agent = SpiffeId::parse(AGENT)?;
    let mut tick = interval(Duration::from_micros(1_000_000 * CALLERS as u64 / CALLS_PER_SECOND));
    tick.set_missed_tick_behavior(MissedTickBehavior::Burst);
    while Instant::now() < until {
        tick.tick().await;
        let call = client.call(&agent, "echo", json!({ "text": "called" })).address(&address);
        match call.into::<Value>().await {
            Ok(text) if text == "called" => counts.answered.fetch_add(1, Ordering::Relaxed),
            other => {
                let mut first = counts.first_failure.lock().map_err(|_| poisoned())?;
                first.get_or_insert_with(|| format!("{other:?}"));
                counts.failed.fetch_add(1, Ordering::Relaxed)
            }
        };
    }
    Ok(())
}

async fn hold(
    source: Arc<convoke_identity::IdentitySource>,
    target: Target,
    request: Vec<u8>,
    counts: Arc<Counts>,
    until: Instant,
) -> Result<()> {
    while Instant::now() < until {
        // Both certificates are at least as old as what is held now, and the agent's is renewed at
        // the same age as ours; so this is the latest instant at which either may end.
        let own = source.current();
        let own_end = own.not_after().0;
        let mut connection = Connection::open(&target).await?;
        if source.current().revision() != own.revision() {
            // Replaced meanwhile, and which of the two was shown is not known.
            continue;
        }
        counts.connections.fetch_add(1, Ordering::Relaxed);
        loop {
            // The agent may close a connection at any time between two answers.
            let Ok(extent) = connection.answer(&request).await else { break };
            let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis();
            counts.held.fetch_add(1, Ordering::Relaxed);
            if now > u128::from(own_end) {
                counts.expired.fetch_add(1, Ordering::Relaxed);
            }
            let head = String::from_utf8_lossy(&connection.received[..extent.head]);
            let last = head.to_ascii_lowercase().contains("connection: close");
            if last || Instant::now() >= until {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    Ok(())
}

fn poisoned() -> anyhow::Error {
    anyhow::anyhow!("a caller panicked")
}
