//! Fills a store as a node would have, through the journal's own door, many tasks at a time.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Result, ensure};
use convoke_journal::{
    Created, Durability, Journal, JsonLinesSink, NewTask, Retention, Scope, SqliteJournal,
    SqliteOptions, Step,
};
use convoke_model::{
    Artifact, ArtifactId, CapabilityName, Content, ContextId, Json, Message, MessageId, Part,
    Principal, Role, SpiffeId, TaskEvent, TaskId, TaskRecord, TaskState, TaskStatus, Terms,
    UnixMillis,
};
use futures_util::stream::{self, StreamExt, TryStreamExt};
use serde_json::json;

use super::TEXT;
use crate::options::Fill;
use crate::stage::{CALLER, WORKER};

/// How many tasks are under way at a time: a batch of the writer.
const AT_A_TIME: usize = 1024;

/// When the first task was made; the others follow by the millisecond. It is yesterday, so that
/// nothing is too old to be kept.
fn first_at() -> Result<u64> {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?;
    Ok(u64::try_from(now.as_millis())? - 86_400_000)
}

/// How many names begin alike, as the node's do.
const RUN: u64 = 256;

/// The name of task `index`: as random as the node's are, and known beforehand.
pub(crate) fn task_id(index: u64) -> String {
    name(2 * index)
}

fn name(number: u64) -> String {
    let run = mixed(u64::MAX - number / (2 * RUN) * 2 - number % 2);
    uuid(run & !u64::from(u32::MAX) | mixed(number) >> 32, mixed(!number))
}

/// Makes a store in `directory` with `count` tasks of `kind`.
pub(crate) fn fill(directory: &Path, kind: Fill, count: u64) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    std::fs::create_dir_all(directory)?;
    let lines = directory.join("filling.jsonl");
    let sink = Arc::new(JsonLinesSink::open(&lines, false)?);
    let options = SqliteOptions {
        directory: directory.to_owned(),
        durability: Durability::Relaxed,
        retention: Retention { ended_after: None, tasks_max: None, ..Retention::default() },
        fatal: Box::new(|why| tracing::error!(why, "the store cannot be filled")),
    };
    let journal = Arc::new(SqliteJournal::open(options, sink)?);
    let agent = SpiffeId::parse(WORKER)?;
    let caller = Principal::from_verified_svid(SpiffeId::parse(CALLER)?, &agent);
    let owner = caller.spiffe_id.as_str().into();
    let scope = Arc::new(Scope { agent, tenant: caller.tenant, app: caller.app, owner });
    let began = first_at()?;
    runtime.block_on(async {
        let tasks = stream::iter(0..count).map(Ok::<_, anyhow::Error>);
        tasks
            .try_for_each_concurrent(AT_A_TIME, |index| {
                let (journal, scope) = (Arc::clone(&journal), Arc::clone(&scope));
                async move { make(&journal, &scope, kind, index, UnixMillis(began + index)).await }
            })
            .await?;
        journal.close().await;
        Ok(())
    })
}

async fn make(
    journal: &SqliteJournal,
    scope: &Scope,
    kind: Fill,
    index: u64,
    at: UnixMillis,
) -> Result<()> {
    let id = TaskId::parse(&task_id(index))?;
    let context_id = ContextId::parse(&name(2 * index + 1))?;
    // Tasks that go on go on waiting.
    let capability = CapabilityName::parse(if kind == Fill::Ended { "note" } else { "hold" })?;
    let message = asked(&capability, &id, &context_id)?;
    let mut events = vec![TaskEvent::Submitted { message, at }];
    let mut records = Vec::new();
    if kind != Fill::Waiting {
        events.push(status(TaskState::Working, at));
        records.push(TaskRecord::Started { attempt: 1, at });
    }
    let task = NewTask {
        id: id.clone(),
        context_id,
        capability,
        subject: None,
        terms: Terms::default(),
        events,
        records,
        send: None,
    };
    let created = journal.create(scope, task, None).await?;
    let Created::New { last_seq, fence } = created else { anyhow::bail!("a task twice") };
    if kind == Fill::Ended {
        let events = vec![result()?, status(TaskState::Completed, at)];
        let step = Step { expected_seq: last_seq, fence, events, records: Vec::new() };
        let last_seq = journal.append(scope, &id, step, None).await?;
        ensure!(last_seq == 4, "task {id} is at event {last_seq}");
    }
    Ok(())
}

fn asked(capability: &CapabilityName, id: &TaskId, context_id: &ContextId) -> Result<Message> {
    let extension = "urn:convoke:ext:capability:v1";
    let named = json!({ extension: { "name": capability.as_str() } });
    Ok(Message {
        message_id: MessageId::parse("bench-1")?,
        context_id: Some(context_id.clone()),
        task_id: Some(id.clone()),
        role: Role::User,
        parts: vec![data(&json!({ "text": TEXT }))?],
        metadata: Some(Json::of(&named)?),
        extensions: vec![extension.to_owned()],
        reference_task_ids: Vec::new(),
        unknown: Vec::new(),
    })
}

fn status(state: TaskState, timestamp: UnixMillis) -> TaskEvent {
    TaskEvent::Status(TaskStatus { state, message: None, timestamp })
}

fn result() -> Result<TaskEvent> {
    let artifact = Artifact {
        artifact_id: ArtifactId::parse("result")?,
        name: None,
        description: None,
        parts: vec![data(&json!({ "result": TEXT }))?],
        metadata: None,
        extensions: Vec::new(),
        unknown: Vec::new(),
    };
    Ok(TaskEvent::Artifact { artifact, append: false, last: true })
}

fn data(value: &serde_json::Value) -> Result<Part> {
    Ok(Part::new(Content::Data(Json::of(value)?)))
}

/// A version 4 UUID of these bits.
fn uuid(high: u64, low: u64) -> String {
    format!(
        "{:08x}-{:04x}-4{:03x}-{:04x}-{:012x}",
        high >> 32,
        high >> 16 & 0xffff,
        high & 0xfff,
        low >> 48 & 0x3fff | 0x8000,
        low & 0xffff_ffff_ffff
    )
}

/// One number for another, far apart for neighbours. Source: SplitMix64, by Steele, Lea and Flood.
fn mixed(index: u64) -> u64 {
    let mut z = index.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ z >> 31
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_uuids_of_version_4_and_differ() {
        let names: std::collections::HashSet<String> = (0..1000).map(task_id).collect();
        assert_eq!(names.len(), 1000);
        for name in names {
            assert_eq!(name.len(), 36);
            assert_eq!(&name[14..15], "4");
            assert!(matches!(&name[19..20], "8" | "9" | "a" | "b"), "{name}");
        }
    }
}
