//! Handlers that say things before their end, ask, and see that nobody wants them any more.

#![allow(
    clippy::disallowed_methods,
    reason = "these clients misbehave, which a client of ours cannot"
)]

mod backlog;
mod ending;
mod resuming;
mod rights;
mod wire;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use convoke_agent::{AskError, Context, HandlerError, Host, OutputError};
use convoke_macros::agent;
use convoke_model::TaskState;
use serde_json::{Value, json};
use tokio::sync::{Notify, Semaphore};

use crate::world::{World, send};
use wire::Wire;

const EVERYBODY: &str = "package agentweave.authz\ndefault allow := true\n";

/// Tells what it does, and does it when a test says so.
struct Talker {
    /// One permit lets one step of `steps` go.
    step: Arc<Semaphore>,
    tidied: Arc<AtomicBool>,
    dropped: Arc<Notify>,
}

/// Notifies when it goes.
struct Last(Arc<Notify>);

impl Drop for Last {
    fn drop(&mut self) {
        self.0.notify_one();
    }
}

#[agent(crate = "convoke_agent")]
impl Talker {
    /// Count, in words and in pieces of an artifact
    #[capability]
    async fn count(&self, context: &Context, to: u32) -> Result<u32, HandlerError> {
        let mut numbers = context.artifact("numbers");
        for number in 1..=to {
            let share = f64::from(number) / f64::from(to);
            context.progress(format!("at {number}")).fraction(share).await?;
            numbers.text(format!("{number} ")).await?;
        }
        numbers.finish().await?;
        Ok(to)
    }

    /// Give text as fast as can be
    #[capability]
    async fn flood(
        &self,
        context: &Context,
        pieces: u32,
        bytes: usize,
    ) -> Result<(), HandlerError> {
        let mut text = context.artifact("text");
        for _ in 0..pieces {
            text.text("x".repeat(bytes)).await?;
        }
        text.finish().await?;
        Ok(())
    }

    /// Give pieces of text as fast as can be, and more of them when a permit comes
    #[capability]
    async fn pour(
        &self,
        context: &Context,
        first: u32,
        then: u32,
        bytes: usize,
    ) -> Result<(), HandlerError> {
        let mut text = context.artifact("text");
        for number in 0..first + then {
            if number == first {
                let permit = self.step.acquire().await;
                permit.map_err(|_| HandlerError::new("no more steps"))?.forget();
            }
            text.text(format!("{number} {}", "x".repeat(bytes))).await?;
        }
        text.finish().await?;
        Ok(())
    }

    /// Come to a result that takes many bytes
    #[capability]
    async fn vast(&self, _context: &Context, megabytes: usize) -> Vec<String> {
        vec!["x".repeat(1_000_000); megabytes]
    }

    /// Say something whenever a permit comes
    #[capability]
    async fn steps(&self, context: &Context, count: u32) -> Result<(), HandlerError> {
        for number in 1..=count {
            let permit = tokio::select! {
                biased;
                () = context.cancelled().cancelled() => return Ok(()),
                permit = self.step.acquire() => permit,
            };
            permit.map_err(|_| HandlerError::new("no more steps"))?.forget();
            context.progress(format!("step {number}")).await?;
        }
        Ok(())
    }

    /// Ask for a colour, until it is one
    #[capability]
    async fn paint(&self, context: &Context) -> Result<String, HandlerError> {
        let schema = json!({"enum": ["red", "blue"]});
        let colour = context.ask("which colour?").schema(schema).text().await?;
        context.progress(format!("painting it {colour}")).await?;
        let gloss: bool = context.ask("glossy?").into().await?;
        Ok(format!("{colour} {gloss}"))
    }

    /// Ask, and lose patience when a permit comes
    #[capability]
    async fn ask_in_vain(&self, context: &Context) -> Result<&'static str, HandlerError> {
        tokio::select! {
            answer = context.ask("anybody?") => answer.map(|_| "answered").map_err(Into::into),
            _permit = self.step.acquire() => {
                context.progress("never mind").await?;
                let _permit = self.step.acquire().await;
                Ok("alone")
            }
        }
    }

    /// Ask when a permit comes
    #[capability]
    async fn ask_late(&self, context: &Context) -> Result<String, HandlerError> {
        let _permit = self.step.acquire().await;
        context.ask("shall I?").text().await.map_err(Into::into)
    }

    /// Ask two questions at a time
    #[capability]
    async fn ask_twice(&self, context: &Context) -> Result<String, HandlerError> {
        let (first, second) = tokio::join!(context.ask("one?").text(), context.ask("two?").text());
        match (first, second) {
            (Ok(answer), Err(AskError::Busy)) => Ok(answer),
            other => Err(HandlerError::new(format!("{other:?}"))),
        }
    }

    /// Tidy up when cancelled
    #[capability]
    async fn tidy(&self, context: &Context) -> Result<(), HandlerError> {
        let _last = Last(Arc::clone(&self.dropped));
        context.cancelled().cancelled().await;
        tokio::task::yield_now().await;
        let said = context.progress("too late").await;
        let asked = context.ask("too late?").await;
        let ended = said == Err(OutputError::Ended)
            && asked == Err(AskError::Output(OutputError::Ended))
            && context.is_cancelled();
        self.tidied.store(ended, Ordering::SeqCst);
        Ok(())
    }

    /// Never end, cancelled or not
    #[capability]
    async fn stay(&self, _context: &Context) {
        let _last = Last(Arc::clone(&self.dropped));
        std::future::pending::<()>().await;
    }

    /// Answer at once
    #[capability(ephemeral)]
    async fn echo(&self, context: &Context, text: String) -> Result<String, HandlerError> {
        context.progress("nobody sees this").await?;
        match context.ask("what?").await {
            Err(AskError::Ephemeral) => Ok(text),
            other => Err(HandlerError::new(format!("{other:?}"))),
        }
    }
}

struct Stage {
    world: World,
    step: Arc<Semaphore>,
    tidied: Arc<AtomicBool>,
    dropped: Arc<Notify>,
}

impl Stage {
    async fn set() -> Self {
        Self::set_with(|_| {}).await
    }

    async fn set_with(change: impl FnOnce(&mut Value)) -> Self {
        let step = Arc::new(Semaphore::new(0));
        let (tidied, dropped) = (Arc::default(), Arc::default());
        let talker = Talker {
            step: Arc::clone(&step),
            tidied: Arc::clone(&tidied),
            dropped: Arc::clone(&dropped),
        };
        let world = World::start_with(Host::new(talker).unwrap(), EVERYBODY, change).await;
        Self { world, step, tidied, dropped }
    }

    async fn stream(&self, capability: &str, params: Value) -> Wire {
        let wire = Wire::open(&self.world, "SendStreamingMessage", send(capability, params)).await;
        assert_eq!((wire.status, wire.content_type.as_str()), (200, "text/event-stream"));
        wire
    }

    async fn subscribe(&self, id: &str) -> Wire {
        Wire::open(&self.world, "SubscribeToTask", json!({"id": id})).await
    }

    /// Starts a task without waiting for it, and gives its id.
    async fn begin(&self, capability: &str, params: Value) -> String {
        let mut params = send(capability, params);
        params["configuration"] = json!({"returnImmediately": true});
        let sent = self.world.dev("SendMessage", params).await;
        sent["result"]["task"]["id"].as_str().unwrap().to_owned()
    }

    async fn tell(&self, method: &str, id: &str, part: Value) -> Value {
        self.world.dev(method, answer(id, part)).await
    }

    async fn get(&self, id: &str) -> Value {
        self.world.dev("GetTask", json!({"id": id})).await["result"].clone()
    }
}

/// The parameters of a message that answers the question of task `id`.
fn answer(id: &str, part: Value) -> Value {
    json!({"message": {"messageId": "a1", "taskId": id, "role": "ROLE_USER", "parts": [part]}})
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_shows_the_task_and_all_that_becomes_of_it() {
    let stage = Stage::set().await;
    let mut wire = stage.stream("count", json!({"to": 2})).await;
    let task = wire.task().await;
    assert_eq!((task.status.state, task.history.len()), (TaskState::Working, 1));
    assert_eq!(
        wire.rest().await,
        [
            "working at 1",
            "numbers begins 1",
            "working at 2",
            "numbers goes on 2",
            "numbers ends",
            "result is 2",
            "completed"
        ]
    );
    // Submitted and working were one and two.
    assert_eq!(wire.seq, 9);
    let stored = stage.get(task.id.as_str()).await;
    assert_eq!(stored["artifacts"][0]["parts"], json!([{"text": "1 2 "}]));
    assert_eq!(stored["artifacts"][1]["parts"], json!([{"data": 2}]));
    stage.world.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_without_a_task_is_one_message_and_a_refusal_is_plain() {
    let stage = Stage::set().await;
    let mut wire = stage.stream("echo", json!({"text": "hi"})).await;
    assert_eq!(wire.rest().await, [r#"message "hi""#]);
    for (method, params, code) in [
        ("SendStreamingMessage", send("count", json!({"to": "x"})), -32602),
        ("SendStreamingMessage", send("nothing", json!({})), -32602),
        ("SubscribeToTask", json!({"id": "missing"}), -32001),
        ("SubscribeToTask", json!({}), -32602),
    ] {
        let refused = stage.world.dev(method, params).await;
        assert_eq!(refused["error"]["code"], code, "{refused}");
    }
    stage.world.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_is_followed_by_its_owner_until_its_end() {
    let stage = Stage::set().await;
    let id = stage.begin("steps", json!({"count": 2})).await;
    let ann = stage.world.client("/user/ann").await;
    let foreign = stage.world.raw(&ann, "SubscribeToTask", json!({"id": id})).await;
    let missing = stage.world.raw(&ann, "SubscribeToTask", json!({"id": "missing"})).await;
    let text = |answer: &Value, id: &str| answer["error"].to_string().replace(id, "ID");
    assert_eq!(text(&foreign, &id), text(&missing, "missing"));

    let mut early = stage.subscribe(&id).await;
    assert_eq!(early.shown().await, "task working");
    stage.step.add_permits(1);
    assert_eq!(early.shown().await, "working step 1");
    let mut late = stage.subscribe(&id).await;
    assert_eq!(late.shown().await, "task working");
    assert_eq!((early.seq, late.seq), (3, 3));
    stage.step.add_permits(1);
    let end = ["working step 2", "result is null", "completed"];
    assert_eq!(
        (early.rest().await, late.rest().await),
        (end.map(str::to_owned).into(), end.map(str::to_owned).into())
    );
    let ended = stage.world.dev("SubscribeToTask", json!({"id": id})).await;
    assert_eq!(ended["error"]["code"], -32004, "{ended}");
    stage.world.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_asks_and_its_caller_answers() {
    let stage = Stage::set().await;
    let asked = stage.world.dev("SendMessage", send("paint", json!({}))).await;
    let task = &asked["result"]["task"];
    let id = task["id"].as_str().unwrap();
    assert_eq!(task["status"]["state"], TaskState::InputRequired.as_str());
    let question = &task["status"]["message"];
    assert_eq!(question["parts"][0]["text"], "which colour?");
    let schema = &question["metadata"]["urn:convoke:ext:capability:v1"]["answerSchema"];
    assert_eq!(schema, &json!({"enum": ["red", "blue"]}));

    let wrong = stage.tell("SendMessage", id, json!({"text": "green"})).await;
    assert_eq!(wrong["error"]["code"], -32602, "{wrong}");
    assert_eq!(stage.get(id).await["status"], task["status"], "it goes on waiting");
    // Somebody else's answer is to no task.
    let ann = stage.world.client("/user/ann").await;
    let foreign = stage.world.raw(&ann, "SendMessage", answer(id, json!({"text": "red"}))).await;
    assert_eq!(foreign["error"]["code"], -32001, "{foreign}");

    // A watcher sees the conversation go on; a stream that answers ends with the next question.
    let mut watcher = stage.subscribe(id).await;
    assert_eq!(watcher.shown().await, "task input_required");
    let params = answer(id, json!({"text": "red"}));
    let mut wire = Wire::open(&stage.world, "SendStreamingMessage", params).await;
    // How much of it the task itself shows depends on how quick the handler was.
    let seen = wire.rest().await;
    assert!(seen[0].starts_with("task "), "{seen:?}");
    assert!(seen[seen.len() - 1].contains("input_required"), "{seen:?}");
    // The answer is shown too, as the status that came with it.
    for expected in ["working", "working", "working painting it red", "input_required glossy?"] {
        assert_eq!(watcher.shown().await, expected);
    }
    let done = stage.tell("SendMessage", id, json!({"data": true})).await;
    let task = &done["result"]["task"];
    assert_eq!(task["status"]["state"], TaskState::Completed.as_str(), "{done}");
    assert_eq!(task["artifacts"][0]["parts"][0]["data"], "red true");
    let said = |message: &Value| message["parts"][0].clone();
    let history: Vec<_> = task["history"].as_array().unwrap().iter().map(said).collect();
    assert_eq!(
        history[1..],
        [
            json!({"text": "which colour?"}),
            json!({"text": "red"}),
            json!({"text": "glossy?"}),
            json!({"data": true})
        ]
    );
    let last = ["working", "working", r#"result is "red true""#, "completed"];
    assert_eq!(watcher.rest().await, last);
    let more = stage.tell("SendMessage", id, json!({"text": "red"})).await;
    assert_eq!(more["error"]["code"], -32004, "{more}");
    stage.world.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_question_is_open_once_and_can_be_taken_back() {
    let stage = Stage::set().await;
    let asked = stage.world.dev("SendMessage", send("ask_twice", json!({}))).await;
    let id = asked["result"]["task"]["id"].as_str().unwrap();
    let done = stage.tell("SendMessage", id, json!({"text": "both"})).await;
    assert_eq!(done["result"]["task"]["artifacts"][0]["parts"][0]["data"], "both", "{done}");

    let mut wire = stage.stream("ask_in_vain", json!({})).await;
    let id = wire.task().await.id;
    assert_eq!(wire.rest().await, ["input_required anybody?"]);
    let mut watcher = stage.subscribe(id.as_str()).await;
    assert_eq!(watcher.shown().await, "task input_required");
    stage.step.add_permits(1);
    assert_eq!(watcher.shown().await, "working");
    assert_eq!(watcher.shown().await, "working never mind");
    let late = stage.tell("SendMessage", id.as_str(), json!({"text": "me"})).await;
    assert_eq!(late["error"]["code"], -32004, "{late}");
    stage.step.add_permits(1);
    assert_eq!(watcher.rest().await, [r#"result is "alone""#, "completed"]);
    stage.world.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancelled_handler_may_tidy_up_and_is_then_dropped() {
    let stage = Stage::set().await;
    for capability in ["tidy", "stay"] {
        let mut wire = stage.stream(capability, json!({})).await;
        let id = wire.task().await.id;
        let cancelled = stage.world.dev("CancelTask", json!({"id": id})).await;
        assert_eq!(cancelled["result"]["status"]["state"], TaskState::Canceled.as_str());
        assert_eq!(wire.rest().await, ["canceled"]);
        tokio::time::timeout(Duration::from_secs(20), stage.dropped.notified()).await.unwrap();
    }
    assert!(stage.tidied.load(Ordering::SeqCst));

    // A task that waits for its caller can be cancelled like any other.
    let asked = stage.world.dev("SendMessage", send("paint", json!({}))).await;
    let id = asked["result"]["task"]["id"].clone();
    let cancelled = stage.world.dev("CancelTask", json!({"id": id})).await;
    assert_eq!(cancelled["result"]["status"]["state"], TaskState::Canceled.as_str());
    stage.world.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn completion_and_cancellation_have_one_winner() {
    let stage = Stage::set().await;
    let (mut completed, mut canceled) = (0, 0);
    for _ in 0..40 {
        let mut wire = stage.stream("steps", json!({"count": 1})).await;
        let id = wire.task().await.id;
        let (answer, ()) = tokio::join!(stage.world.dev("CancelTask", json!({"id": id})), async {
            stage.step.add_permits(1)
        });
        let events = wire.rest().await;
        let ends: Vec<_> =
            events.iter().filter(|it| *it == "completed" || *it == "canceled").collect();
        assert_eq!((ends.len(), events.last()), (1, ends.last().copied()), "{events:?}");
        let stored = &stage.get(id.as_str()).await["status"]["state"];
        if ends[0] == "completed" {
            completed += 1;
            assert_eq!(
                (answer["error"]["code"].as_i64(), stored),
                (Some(-32002), &json!("TASK_STATE_COMPLETED"))
            );
        } else {
            canceled += 1;
            assert_eq!(stored, "TASK_STATE_CANCELED", "{answer}");
            // The permit that the cancelled handler did not take is not for the next one.
            stage.step.forget_permits(1);
            assert_eq!(stage.step.available_permits(), 0);
        }
    }
    assert_eq!(completed + canceled, 40);
    stage.world.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_follow_one_task_and_see_the_same() {
    let stage = Stage::set().await;
    let id = stage.begin("steps", json!({"count": 20})).await;
    let mut wires = Vec::new();
    for _ in 0..100 {
        let mut wire = stage.subscribe(&id).await;
        wire.task().await;
        wires.push(wire);
    }
    stage.step.add_permits(20);
    let mut expected: Vec<_> = (1..=20).map(|step| format!("working step {step}")).collect();
    expected.extend(["result is null".to_owned(), "completed".to_owned()]);
    for wire in &mut wires {
        assert_eq!(wire.rest().await, expected);
        assert_eq!(wire.seq, 24);
    }
    stage.world.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_keeps_up_gets_ten_thousand_events() {
    let stage = Stage::set().await;
    let mut wire = stage.stream("flood", json!({"pieces": 10_000, "bytes": 10})).await;
    let id = wire.task().await.id;
    assert_eq!(wire.rest().await.len(), 10_000 + 3);
    // However many pieces, it is read as few.
    let stored = stage.get(id.as_str()).await;
    assert_eq!(stored["artifacts"][0]["parts"].as_array().unwrap().len(), 1);
    assert_eq!(stored["artifacts"][0]["parts"][0]["text"].as_str().unwrap().len(), 100_000);
    stage.world.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_does_not_read_is_cut_and_the_others_go_on() {
    let stage = Stage::set().await;
    let params = send("flood", json!({"pieces": 200, "bytes": 100_000}));
    let mut slow = Wire::open_narrow(&stage.world, "SendStreamingMessage", params).await;
    let id = slow.task().await.id;
    let mut quick = stage.subscribe(id.as_str()).await;
    assert_eq!(quick.shown().await, "task working");
    let events = quick.rest().await;
    assert_eq!(events.last().map(String::as_str), Some("completed"));
    let events = slow.rest().await;
    assert_eq!(events.last().map(String::as_str), Some("fault RESOURCE_EXHAUSTED"));
    assert!(events.len() < 200, "{}", events.len());
    stage.world.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_hangs_up_does_not_end_the_task() {
    let stage = Stage::set().await;
    let mut wire = stage.stream("steps", json!({"count": 1})).await;
    let id = wire.task().await.id;
    drop(wire);
    let mut watcher = stage.subscribe(id.as_str()).await;
    assert_eq!(watcher.shown().await, "task working");
    stage.step.add_permits(1);
    assert_eq!(watcher.rest().await, ["working step 1", "result is null", "completed"]);
    stage.world.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_ends_when_its_right_does() {
    let stage =
        Stage::set_with(|yaml| yaml["authorization"]["reload_interval"] = json!("100ms")).await;
    let mut wire = stage.stream("steps", json!({"count": 1})).await;
    let id = wire.task().await.id;
    let nobody = "package agentweave.authz\ndefault allow := false\n\
                  allow if input.request.operation != \"SendStreamingMessage\"\n";
    stage.world.set_policy(nobody);
    assert_eq!(wire.rest().await, ["fault PERMISSION_DENIED"]);
    let mut watcher = stage.subscribe(id.as_str()).await;
    assert_eq!(watcher.shown().await, "task working", "the task itself goes on");
    stage.step.add_permits(1);
    assert_eq!(watcher.rest().await.last().map(String::as_str), Some("completed"));
    let records = stage.world.end().await;
    let denied: Vec<_> = records.iter().filter(|it| it["decision"] == "deny").collect();
    assert_eq!(denied.len(), 1, "{records:?}");
    assert_eq!(denied[0]["operation"], "SendStreamingMessage");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_ends_before_its_connection_does() {
    let stage = Stage::set_with(|yaml| {
        yaml["server"]["limits"]["connection_age_max"] = json!("2s");
    })
    .await;
    let mut wire = stage.stream("steps", json!({"count": 1})).await;
    wire.task().await;
    assert_eq!(wire.rest().await, ["fault UNAUTHENTICATED"]);
    stage.step.add_permits(1);
    stage.world.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_draining_node_shows_the_end_of_what_ends_and_then_ends_the_rest() {
    let stage = Stage::set_with(|yaml| yaml["server"]["drain_timeout"] = json!("2s")).await;
    let mut ends = stage.stream("steps", json!({"count": 1})).await;
    let mut stays = stage.stream("stay", json!({})).await;
    stays.task().await;
    ends.task().await;
    let step = Arc::clone(&stage.step);
    let ending = tokio::spawn(stage.world.end_with_summary());
    step.add_permits(1);
    assert_eq!(ends.rest().await, ["working step 1", "result is null", "completed"]);
    assert_eq!(stays.rest().await, ["fault UNAVAILABLE"]);
    let (summary, _records) = ending.await.unwrap();
    // The journal has what did not end.
    assert_eq!((summary.cut, summary.lost_tasks), (0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_has_only_so_many_streams() {
    let stage = Stage::set().await;
    let id = stage.begin("steps", json!({"count": 1})).await;
    let mut wires = Vec::new();
    for _ in 0..256 {
        wires.push(stage.subscribe(&id).await);
    }
    let refused = stage.subscribe(&id).await;
    assert_eq!(refused.status, 429);
    let refused =
        Wire::open(&stage.world, "SendStreamingMessage", send("steps", json!({"count": 1})));
    assert_eq!(refused.await.status, 429);
    let ann = stage.world.client("/user/ann").await;
    let other = stage.world.raw(&ann, "SubscribeToTask", json!({"id": id})).await;
    assert_eq!(other["error"]["code"], -32001, "another caller has streams of its own");
    stage.step.add_permits(1);
    for wire in &mut wires {
        assert_eq!(wire.rest().await.last().map(String::as_str), Some("completed"));
    }
    stage.world.end().await;
}
