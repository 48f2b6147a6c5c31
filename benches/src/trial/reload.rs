//! The policy is replaced several times a second, by invalid ones among others, while calls go on:
//! every decision has to be the one of the policy that it names.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::Verdict;
use super::ground::Ground;
use crate::load::Connection;
use crate::wire;

/// How often the policy changes. Source: the issue asks for five times a second.
const EVERY: Duration = Duration::from_millis(200);

const CALLERS: usize = 16;

/// What the file says for a while: by its number, `echo` is open and `spin` is not, or the other
/// way round, or the file is no policy.
fn policy(number: u64) -> String {
    let open = if number.is_multiple_of(2) { "echo" } else { "spin" };
    match number % 5 {
        4 => {
            format!("package agentweave.authz\n\n# {number}\nallow if {{ input.request.method == ")
        }
        _ => format!(
            "package agentweave.authz\n\n# {number}\ndefault allow := false\n\nallow if input.request.method == \"{open}\"\n"
        ),
    }
}

pub(super) fn trial(binary: &Path, time: Duration) -> Result<Verdict> {
    let ground = Ground::set(binary, &[])?;
    let agent =
        ground.agent("reload", json!({ "authorization": { "reload_interval": "100ms" } }))?;
    let target = ground.target(&agent)?;
    let echo = Arc::new(wire::send("echo", &json!({ "text": "a" }))?);
    let spin = Arc::new(wire::send("spin", &json!({ "micros": 1 }))?);
    let until = Instant::now() + time;
    let written = std::thread::spawn({
        let path = agent.policy.clone();
        move || -> Result<u64> {
            let mut number = 0;
            while Instant::now() < until {
                // Half of the writers of the world replace a file, the other half write into it.
                if number % 2 == 0 {
                    let beside = path.with_extension("new");
                    std::fs::write(&beside, policy(number))?;
                    std::fs::rename(&beside, &path)?;
                } else {
                    std::fs::write(&path, policy(number))?;
                }
                number += 1;
                std::thread::sleep(EVERY);
            }
            Ok(number)
        }
    });
    let answers = ground.runtime.block_on(async {
        let mut all = tokio::task::JoinSet::new();
        for _ in 0..CALLERS {
            let (target, echo, spin) = (target.clone(), Arc::clone(&echo), Arc::clone(&spin));
            all.spawn(async move {
                let mut connection = Connection::open(&target).await?;
                let mut answers = [0_u64; 2];
                while Instant::now() < until {
                    for request in [&echo, &spin] {
                        let extent = connection.answer(request).await?;
                        let body = &connection.received[extent.head..extent.total];
                        let body: Value = serde_json::from_slice(body)?;
                        let refused = body["error"]["message"].as_str();
                        match refused {
                            None => answers[0] += 1,
                            Some(why) => {
                                ensure!(why.contains("authorization denied"), "{body}");
                                answers[1] += 1;
                            }
                        }
                    }
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
                Ok::<_, anyhow::Error>(answers)
            });
        }
        let mut sum = [0; 2];
        while let Some(ended) = all.join_next().await {
            let answers = ended.context("a caller panicked")??;
            sum = [sum[0] + answers[0], sum[1] + answers[1]];
        }
        Ok::<_, anyhow::Error>(sum)
    })?;
    let written = written.join().map_err(|_| anyhow::anyhow!("the writer panicked"))??;
    let mut agent = agent;
    agent.child.ask_to_end();
    agent.child.ended(Duration::from_secs(40))?;

    // By revision: what it said of `echo` and of `spin`.
    let mut said: BTreeMap<String, BTreeMap<(String, bool), u64>> = BTreeMap::new();
    for line in std::fs::read_to_string(&agent.audit)?.lines() {
        let record: Value = serde_json::from_str(line)?;
        let Some(capability) = record["capability"].as_str() else { continue };
        let revision = record["policy_revision"].as_str().context("no revision")?.to_owned();
        let allowed = record["decision"] == "allow";
        // Refusals of one kind share a record.
        let count = 1 + record["repeated"].as_u64().unwrap_or(0);
        let says = said.entry(revision).or_default();
        *says.entry((capability.to_owned(), allowed)).or_default() += count;
    }
    let log = std::fs::read_to_string(&agent.log)?;
    let refused = log.lines().filter(|line| line.contains("Policy was not reloaded")).count();
    let of = |allowed| -> u64 {
        said.values()
            .flatten()
            .filter(|((_, was), _)| *was == allowed)
            .map(|(_, count)| count)
            .sum()
    };
    let wrong: Vec<_> = said
        .iter()
        .filter(|(_, says)| {
            // The policy that the agent started with allows both.
            let contradicts = |capability: &str| {
                says.contains_key(&(capability.to_owned(), true))
                    && says.contains_key(&(capability.to_owned(), false))
            };
            contradicts("echo") || contradicts("spin")
        })
        .map(|(revision, says)| format!("revision {revision} said {says:?}"))
        .collect();

    let mut verdict = Verdict::default();
    verdict.fact("seconds", time.as_secs());
    verdict.fact("policies written", written);
    verdict.fact("revisions that decided", said.len());
    verdict.fact("invalid policies refused", refused);
    verdict.fact("calls allowed", answers[0]);
    verdict.fact("calls refused", answers[1]);
    verdict.fact("wrong decisions", wrong.len());
    verdict.rule(wrong.is_empty(), || wrong.join("; "));
    verdict.rule((of(true), of(false)) == (answers[0], answers[1]), || {
        format!("on record are {} allowed and {} refused", of(true), of(false))
    });
    verdict.rule(said.len() as u64 >= written / 3, || "too few revisions decided".to_owned());
    verdict.rule(refused > 0, || "no invalid policy was refused".to_owned());
    Ok(verdict)
}
