//! Tasks that neither their handler nor their owner ends.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use convoke_agent::{Agent, AskError, Capability, Context, HandlerError, Host, OutputError};
use convoke_macros::agent;
use convoke_model::{Message, TaskState};
use serde_json::{Value, json};
use tokio::sync::{Semaphore, oneshot};
use tokio::time::timeout;

use super::wire::Wire;
use super::{EVERYBODY, Stage};
use crate::world::{World, send};

const PATIENCE: Duration = Duration::from_secs(20);

/// Panics before there is a handler that could be contained.
struct Brittle;

impl Agent for Brittle {
    fn capabilities() -> Vec<Capability<Self>> {
        vec![Capability::new("shatter", json!({"type": "object"}), |_, _, _| panic!("as asked"))]
    }
}

/// What the node noted of tasks that it ended.
fn ended(trail: &[Value]) -> Vec<&Value> {
    trail.iter().filter(|record| record["event_type"] == "task_ended").collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn work_that_breaks_off_beside_its_handler_fails_its_task() {
    const WHY: &str = "capability `shatter` broke off unexpectedly";
    let world = World::start(Host::new(Brittle).unwrap(), EVERYBODY).await;
    let mut wire = Wire::open(&world, "SendStreamingMessage", send("shatter", json!({}))).await;
    let followed = wire.task().await.id.to_string();
    assert_eq!(wire.rest().await, [format!("failed {WHY}")]);
    // Who waits for it is answered with the same.
    let waited = world.dev("SendMessage", send("shatter", json!({}))).await;
    let task = &waited["result"]["task"];
    assert_eq!(task["status"]["state"], TaskState::Failed.as_str(), "{waited}");
    assert_eq!(task["status"]["message"]["parts"][0]["text"], WHY);
    for id in [json!(followed), task["id"].clone()] {
        let stored = world.dev("GetTask", json!({"id": id})).await;
        assert_eq!(stored["result"]["status"]["state"], TaskState::Failed.as_str());
    }
    let (summary, trail) = world.end_with_trail().await;
    assert_eq!(summary.lost_tasks, 0, "their places are free");
    let noted: Vec<_> = ended(&trail).iter().map(|it| it["task_id"].clone()).collect();
    assert_eq!(noted, [json!(followed), task["id"].clone()]);
    for record in ended(&trail) {
        assert_eq!(
            (&record["reason"], &record["capability"]),
            (&json!("broke_off"), &json!("shatter"))
        );
        assert_eq!(record["caller_spiffe_id"], "anonymous");
    }
}

/// Goes on asking when its handler has ended, which it does when a permit comes.
struct Absent {
    ends: Arc<Semaphore>,
    told: Mutex<Option<oneshot::Sender<Result<Message, AskError>>>>,
}

#[agent(crate = "convoke_agent")]
impl Absent {
    /// Ask from elsewhere, and do not wait for the answer
    #[capability]
    async fn ask_elsewhere(&self, context: &Context) -> Result<(), HandlerError> {
        let (asking, told) = (context.clone(), self.told.lock().unwrap().take().unwrap());
        tokio::spawn(async move { told.send(asking.ask("anybody?").await).unwrap() });
        let _permit = self.ends.acquire().await;
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_still_asks_when_the_task_has_ended_is_told() {
    let (ends, (told, hears)) = (Arc::new(Semaphore::new(0)), oneshot::channel());
    let absent = Absent { ends: Arc::clone(&ends), told: Mutex::new(Some(told)) };
    let world = World::start(Host::new(absent).unwrap(), EVERYBODY).await;
    let asked = world.dev("SendMessage", send("ask_elsewhere", json!({}))).await;
    let state = &asked["result"]["task"]["status"]["state"];
    assert_eq!(state, TaskState::InputRequired.as_str(), "{asked}");
    ends.add_permits(1);
    let told = timeout(PATIENCE, hears).await.expect("it waits for ever").unwrap();
    assert_eq!(told, Err(AskError::Output(OutputError::Ended)));
    world.end().await;
}

/// A drain waits for work, not for people: who is to answer is no longer let in.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_does_not_wait_for_answers() {
    // Longer than the test may take.
    let stage = Stage::set_with(|yaml| yaml["server"]["drain_timeout"] = json!("5m")).await;
    let asked = stage.world.dev("SendMessage", send("paint", json!({}))).await;
    let id = asked["result"]["task"]["id"].as_str().unwrap();
    let mut watcher = stage.subscribe(id).await;
    assert_eq!(watcher.shown().await, "task input_required");
    // A task that asks only when the drain has begun.
    let mut later = stage.stream("ask_late", json!({})).await;
    later.task().await;
    let step = Arc::clone(&stage.step);
    let ending = tokio::spawn(stage.world.end_with_trail());
    let why = "failed the agent ends, and takes no answer to this task any more; send what you \
               want done again";
    assert_eq!(watcher.rest().await, [why]);
    step.add_permits(1);
    assert_eq!(later.rest().await, ["input_required shall I?"]);
    let (summary, trail) = ending.await.unwrap();
    assert_eq!((summary.cut, summary.lost_tasks), (0, 0));
    let reasons: Vec<_> = ended(&trail).iter().map(|it| it["reason"].clone()).collect();
    assert_eq!(reasons, ["drain", "drain"]);
}
