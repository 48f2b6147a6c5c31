//! Tasks that outlive the node that they were sent to, and tasks that wait for their turn.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests may")]

#[path = "durable/site.rs"]
mod site;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use convoke_agent::{Context, HandlerError, Host};
use convoke_macros::agent;
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use site::Site;

/// What outlives the agents of one test.
#[derive(Clone)]
struct Shared {
    /// One permit lets one `hold` end, or one step of `sum` go.
    gate: Arc<Semaphore>,
    /// How often a handler was begun.
    begun: Arc<AtomicU32>,
    /// What was begun, in order.
    order: Arc<std::sync::Mutex<Vec<String>>>,
}

struct Worker(Shared);

#[agent(crate = "convoke_agent")]
impl Worker {
    /// Wait until a test says so
    #[capability]
    async fn hold(&self, _context: &Context, name: String) -> String {
        self.0.begun.fetch_add(1, Ordering::SeqCst);
        self.0.order.lock().unwrap().push(name.clone());
        self.0.gate.acquire().await.unwrap().forget();
        name
    }

    /// Count, piece by piece
    #[capability]
    async fn count(&self, context: &Context, to: u32) -> Result<u32, HandlerError> {
        let mut numbers = context.artifact("numbers");
        for number in 1..=to {
            context.progress(format!("at {number}")).await?;
            numbers.text(format!("{number} ")).await?;
        }
        numbers.finish().await?;
        Ok(to)
    }

    /// Add numbers up, and go on where another one was
    #[capability(resume)]
    async fn sum(&self, context: &Context, to: u32) -> Result<u32, HandlerError> {
        self.0.begun.fetch_add(1, Ordering::SeqCst);
        let (mut next, mut sum) = context.last_checkpoint::<(u32, u32)>()?.unwrap_or((1, 0));
        while next <= to {
            self.0.gate.acquire().await.unwrap().forget();
            self.0.order.lock().unwrap().push(next.to_string());
            (next, sum) = (next + 1, sum + next);
            context.checkpoint(&(next, sum)).await?;
        }
        Ok(sum)
    }

    /// Ask twice, also after a restart
    #[capability(resume)]
    async fn interview(&self, context: &Context) -> Result<String, HandlerError> {
        self.0.begun.fetch_add(1, Ordering::SeqCst);
        let name: String = context.ask("name?").into().await?;
        let town: String = context.ask("town?").into().await?;
        Ok(format!("{name} of {town}"))
    }

    /// Ask for a number, after a restart only when a test says so
    #[capability(resume)]
    async fn age(&self, context: &Context) -> Result<u8, HandlerError> {
        if context.attempt() > 1 {
            self.0.gate.acquire().await.unwrap().forget();
        }
        Ok(context.ask("age?").into().await?)
    }

    /// Fail twice
    #[capability(retries = 2)]
    async fn flaky(&self, context: &Context) -> Result<u32, HandlerError> {
        self.0.begun.fetch_add(1, Ordering::SeqCst);
        match context.attempt() {
            attempt @ ..=2 => Err(HandlerError::new(format!("attempt {attempt} failed"))),
            attempt => Ok(attempt),
        }
    }

    /// Refuse
    #[capability(retries = 2)]
    async fn refuse(&self, _context: &Context) -> Result<(), HandlerError> {
        self.0.begun.fetch_add(1, Ordering::SeqCst);
        Err(HandlerError::rejected("not here"))
    }

    /// Have the caller sign in
    #[capability]
    async fn sign_in(&self, context: &Context) -> Result<String, HandlerError> {
        context.authorization("sign in at the desk").await?;
        Ok("in".to_owned())
    }
}

impl Shared {
    fn new() -> Self {
        let gate = Arc::new(Semaphore::new(0));
        Self { gate, begun: Arc::default(), order: Arc::default() }
    }

    fn host(&self) -> Host {
        Host::new(Worker(self.clone())).unwrap()
    }

    async fn has_begun(&self, count: u32) {
        while self.begun.load(Ordering::SeqCst) < count {
            tokio::time::sleep(std::time::Duration::from_millis(2)).await;
        }
    }

    fn order(&self) -> Vec<String> {
        self.order.lock().unwrap().clone()
    }
}

/// The parameters of a `SendMessage` that calls `capability`.
fn send(capability: &str, params: Value) -> Value {
    json!({"message": {
        "messageId": "m1", "role": "ROLE_USER", "parts": [{"data": params}],
        "metadata": {"urn:convoke:ext:capability:v1": {"name": capability}},
    }})
}

fn answer(id: &str, text: &str) -> Value {
    json!({"message": {
        "messageId": "m2", "role": "ROLE_USER", "taskId": id, "parts": [{"text": text}],
    }})
}

fn result(task: &Value) -> &Value {
    let artifacts = task["artifacts"].as_array().unwrap();
    &artifacts[artifacts.len() - 1]["parts"][0]["data"]
}

fn one_at_a_time(yaml: &mut Value) {
    yaml["tasks"] = json!({"concurrency_max": 1});
}

/// Waits until the node has found what an earlier one left: until then it says that it has not.
async fn is_found(life: &site::Life, id: &str) {
    loop {
        let wrong = life.ask("SendMessage", answer(id, "")).await;
        let said = wrong["error"]["message"].as_str().unwrap_or_default();
        if !said.contains("ask again") {
            return;
        }
    }
}

fn text(task: &Value) -> &str {
    task["status"]["message"]["parts"][0]["text"].as_str().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_and_its_stream_outlive_the_node() {
    let (site, shared) = (Site::new().await, Shared::new());
    let life = site.live(shared.host(), |_| {}).await;
    let done = life.ask("SendMessage", send("count", json!({"to": 20}))).await;
    let id = done["result"]["task"]["id"].as_str().unwrap().to_owned();
    let before = life.get(&id).await;
    let all = life.rest_of(&id, "1.0").await;
    // Everything has a number: the submission, which the task itself shows, is the first.
    let numbers: Vec<u64> =
        all.iter().map(|(id, _)| id.strip_prefix("1.").unwrap().parse().unwrap()).collect();
    assert_eq!(numbers, (2..2 + numbers.len() as u64).collect::<Vec<_>>());
    assert!(numbers.len() >= 43, "{numbers:?}");
    assert_eq!(all.last().unwrap().1["statusUpdate"]["status"]["state"], "TASK_STATE_COMPLETED");
    life.kill().await;

    let life = site.live(shared.host(), |_| {}).await;
    assert_eq!(life.get(&id).await, before);
    for seen in [1, 2, 17, numbers.len()] {
        let after = &all[seen - 1].0;
        assert_eq!(life.rest_of(&id, after).await, all[seen..], "after {after}");
    }
    // A place of another epoch means nothing here: the task as a whole is what there is.
    let reset = life.rest_of(&id, "7.3").await;
    assert_eq!(reset.len(), 1, "{reset:?}");
    assert_eq!((&reset[0].0, &reset[0].1["task"]), (&all.last().unwrap().0, &before));
    let ended = life.ask("SubscribeToTask", json!({"id": id})).await;
    assert_eq!(ended["error"]["code"], -32004, "{ended}");
    life.drain().await;
    site.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_runs_after_a_restart_and_what_cannot_go_on_fails() {
    let (site, shared) = (Site::new().await, Shared::new());
    let life = site.live(shared.host(), one_at_a_time).await;
    let at_work = life.begin("hold", json!({"name": "first"}), json!({})).await;
    shared.has_begun(1).await;
    let waiting = life.begin("hold", json!({"name": "second"}), json!({})).await;
    assert_eq!(life.get(&waiting).await["status"]["state"], "TASK_STATE_SUBMITTED");
    life.kill().await;

    shared.gate.add_permits(1);
    let life = site.live(shared.host(), one_at_a_time).await;
    let failed = life.comes_to(&at_work, "FAILED").await;
    assert!(text(&failed).contains("restarted while it worked on this task"), "{failed}");
    let done = life.comes_to(&waiting, "COMPLETED").await;
    assert_eq!(result(&done), "second");
    assert_eq!(shared.order(), ["first", "second"]);
    life.drain().await;
    site.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn work_goes_on_from_its_last_checkpoint() {
    let (site, shared) = (Site::new().await, Shared::new());
    let mut life = site.live(shared.host(), |_| {}).await;
    let id = life.begin("sum", json!({"to": 6}), json!({})).await;
    for lives in 1..=3 {
        shared.has_begun(lives).await;
        shared.gate.add_permits(2);
        while shared.gate.available_permits() > 0 || shared.order().len() < 2 * lives as usize {
            tokio::time::sleep(std::time::Duration::from_millis(2)).await;
        }
        if lives < 3 {
            // The checkpoint of the last step may not be kept yet, and then the step is done again.
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            life.kill().await;
            life = site.live(shared.host(), |_| {}).await;
        }
    }
    shared.gate.add_permits(6);
    let done = life.comes_to(&id, "COMPLETED").await;
    assert_eq!(result(&done), 21);
    life.drain().await;
    site.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_question_and_its_answer_outlive_the_node() {
    let (site, shared) = (Site::new().await, Shared::new());
    let life = site.live(shared.host(), |_| {}).await;
    let id = life.begin("interview", json!({}), json!({})).await;
    life.comes_to(&id, "INPUT_REQUIRED").await;
    let asked = life.ask("SendMessage", answer(&id, "ann")).await;
    assert_eq!(text(&asked["result"]["task"]), "town?", "{asked}");
    // In good order too: whoever is asked has all the time there is.
    life.drain().await;

    let life = site.live(shared.host(), |_| {}).await;
    shared.has_begun(2).await;
    let waits = life.get(&id).await;
    assert_eq!(text(&waits), "town?", "{waits}");
    // The handler may not be back at its question; then the answer waits for it.
    life.ask("SendMessage", answer(&id, "ulm")).await;
    let task = life.comes_to(&id, "COMPLETED").await;
    assert_eq!(result(&task), "ann of ulm", "{task}");
    assert_eq!(task["history"].as_array().unwrap().len(), 5, "{task}");
    life.drain().await;
    site.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_fits_its_question_also_before_it_is_asked_again() {
    let (site, shared) = (Site::new().await, Shared::new());
    let life = site.live(shared.host(), |_| {}).await;
    let id = life.begin("age", json!({}), json!({})).await;
    life.comes_to(&id, "INPUT_REQUIRED").await;
    life.kill().await;

    let life = site.live(shared.host(), |_| {}).await;
    is_found(&life, &id).await;
    let wrong = life.ask("SendMessage", answer(&id, "many")).await;
    assert_eq!(wrong["error"]["code"], -32_602, "{wrong}");
    shared.gate.add_permits(1);
    let mut right = answer(&id, "");
    right["message"]["parts"] = json!([{"data": 7}]);
    life.ask("SendMessage", right).await;
    assert_eq!(result(&life.comes_to(&id, "COMPLETED").await), 7);
    life.drain().await;
    site.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_comes_too_late_is_not_begun() {
    let (site, shared) = (Site::new().await, Shared::new());
    let life = site.live(shared.host(), |_| {}).await;
    for deadline in [json!(0), json!(1_000), json!("1970-01-01T00:00:01Z")] {
        let mut request = send("count", json!({"to": 1}));
        request["metadata"] = json!({"deadline": deadline});
        let failed = life.ask("SendMessage", request).await;
        let task = &failed["result"]["task"];
        assert_eq!(task["status"]["state"], "TASK_STATE_FAILED", "{failed}");
        assert!(task.get("artifacts").is_none(), "{failed}");
    }
    let soon = std::time::SystemTime::now() + std::time::Duration::from_millis(200);
    let soon = soon.duration_since(std::time::UNIX_EPOCH).unwrap().as_millis() as u64;
    let id = life.begin("hold", json!({"name": "x"}), json!({"deadline": soon})).await;
    let failed = life.comes_to(&id, "FAILED").await;
    assert!(text(&failed).contains("deadline"), "{failed}");
    life.drain().await;
    site.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_leaves_who_waits_for_an_answer() {
    let (site, shared) = (Site::new().await, Shared::new());
    let patient = |yaml: &mut Value| yaml["server"]["drain_timeout"] = json!("60s");
    let life = site.live(shared.host(), patient).await;
    let id = life.begin("interview", json!({}), json!({})).await;
    life.comes_to(&id, "INPUT_REQUIRED").await;
    // At once, or this would take a minute.
    assert_eq!(life.drain().await.left_tasks, 0);
    let life = site.live(shared.host(), patient).await;
    assert_eq!(text(&life.comes_to(&id, "INPUT_REQUIRED").await), "name?");
    life.drain().await;
    site.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_urgent_begin_first_and_a_deadline_ends_what_waits() {
    let (site, shared) = (Site::new().await, Shared::new());
    let life = site.live(shared.host(), one_at_a_time).await;
    let mut ids = vec![life.begin("hold", json!({"name": "first"}), json!({})).await];
    shared.has_begun(1).await;
    for priority in ["low", "whatever", "high", "urgent"] {
        let more = json!({"priority": priority});
        ids.push(life.begin("hold", json!({"name": priority}), more).await);
    }
    let soon = json!({"deadline": 1_000, "priority": "urgent"});
    let late = life.begin("hold", json!({"name": "late"}), soon).await;
    let failed = life.comes_to(&late, "FAILED").await;
    assert!(text(&failed).contains("deadline"), "{failed}");
    assert!(!shared.order().contains(&"late".to_owned()));
    let wrong = send("hold", json!({"name": "x"}));
    let wrong = json!({"message": wrong["message"], "metadata": {"deadline": "soon"}});
    let refused = life.ask("SendMessage", wrong).await;
    assert_eq!(refused["error"]["code"], -32602, "{refused}");

    let page = life.ask("ListTasks", json!({"status": "TASK_STATE_SUBMITTED"})).await;
    assert_eq!(page["result"]["totalSize"], 4, "{page}");
    let cancelled = ids.remove(1);
    let gone = life.ask("CancelTask", json!({"id": cancelled})).await;
    assert_eq!(gone["result"]["status"]["state"], "TASK_STATE_CANCELED", "{gone}");
    shared.gate.add_permits(4);
    for id in &ids {
        life.comes_to(id, "COMPLETED").await;
    }
    assert_eq!(shared.order(), ["first", "urgent", "high", "whatever"]);
    life.drain().await;
    site.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_that_is_sent_again_is_one_task() {
    let (site, shared) = (Site::new().await, Shared::new());
    let life = site.live(shared.host(), |_| {}).await;
    let copies: Vec<_> =
        (0..100).map(|_| life.send_again(send("hold", json!({"name": "x"})))).collect();
    shared.has_begun(1).await;
    shared.gate.add_permits(1);
    let mut ids = Vec::new();
    for copy in copies {
        let answered = copy.await.unwrap();
        let task = &answered["result"]["task"];
        assert_eq!(task["status"]["state"], "TASK_STATE_COMPLETED", "{answered}");
        ids.push(task["id"].clone());
    }
    ids.dedup();
    assert_eq!((ids.len(), shared.begun.load(Ordering::SeqCst)), (1, 1));
    life.kill().await;

    let life = site.live(shared.host(), |_| {}).await;
    let again = life.send_again(send("hold", json!({"name": "x"}))).await.unwrap();
    assert_eq!(again["result"]["task"]["id"], ids[0], "{again}");
    let other = life.send_again(send("hold", json!({"name": "y"}))).await.unwrap();
    assert_eq!(other["error"]["code"], -32602, "{other}");
    assert!(other["error"]["message"].as_str().unwrap().contains("sent before"), "{other}");
    // An answer that is sent again does not answer the next question.
    let asked = life.ask("SendMessage", send("interview", json!({}))).await;
    let id = asked["result"]["task"]["id"].as_str().unwrap();
    for _ in 0..2 {
        let told = life.send_again(answer(id, "ann")).await.unwrap();
        let task = &told["result"]["task"];
        assert_eq!(task["status"]["state"], "TASK_STATE_INPUT_REQUIRED", "{told}");
        assert_eq!(text(task), "town?", "{told}");
    }
    let other = life.send_again(answer(id, "ben")).await.unwrap();
    assert!(other["error"]["message"].as_str().unwrap().contains("sent before"), "{other}");
    // Who does not ask for it sends anew.
    shared.gate.add_permits(1);
    let anew = life.ask("SendMessage", send("hold", json!({"name": "x"}))).await;
    assert_ne!(anew["result"]["task"]["id"], ids[0], "{anew}");
    life.drain().await;
    site.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_fails_is_tried_again_as_often_as_it_says() {
    let (site, shared) = (Site::new().await, Shared::new());
    let life = site.live(shared.host(), |_| {}).await;
    let done = life.ask("SendMessage", send("flaky", json!({}))).await;
    let task = &done["result"]["task"];
    assert_eq!(
        (result(task), &task["status"]["state"]),
        (&json!(3), &json!("TASK_STATE_COMPLETED"))
    );
    assert_eq!(shared.begun.load(Ordering::SeqCst), 3);
    // What the agent will not do it is not asked again.
    let rejected = life.ask("SendMessage", send("refuse", json!({}))).await;
    let task = &rejected["result"]["task"];
    assert_eq!(task["status"]["state"], "TASK_STATE_REJECTED", "{rejected}");
    assert_eq!((text(task), shared.begun.load(Ordering::SeqCst)), ("not here", 4));
    life.drain().await;
    site.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_to_sign_in_is_told_and_goes_on() {
    let (site, shared) = (Site::new().await, Shared::new());
    let life = site.live(shared.host(), |_| {}).await;
    let waits = life.ask("SendMessage", send("sign_in", json!({}))).await;
    let task = &waits["result"]["task"];
    assert_eq!(task["status"]["state"], "TASK_STATE_AUTH_REQUIRED", "{waits}");
    assert_eq!(text(task), "sign in at the desk");
    let done = life.ask("SendMessage", answer(task["id"].as_str().unwrap(), "done")).await;
    assert_eq!(result(&done["result"]["task"]), "in", "{done}");
    life.drain().await;
    site.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lists_have_pages_and_filters() {
    let (site, shared) = (Site::new().await, Shared::new());
    let life = site.live(shared.host(), |_| {}).await;
    let mut made = Vec::new();
    for number in 0..7 {
        let mut request = send("count", json!({"to": number}));
        request["message"]["contextId"] = json!(format!("c{}", number % 2));
        let done = life.ask("SendMessage", request).await;
        made.push(done["result"]["task"]["id"].as_str().unwrap().to_owned());
    }
    made.reverse();
    let (mut seen, mut token) = (Vec::new(), json!(""));
    loop {
        let page = life.ask("ListTasks", json!({"pageSize": 3, "pageToken": token})).await;
        let page = &page["result"];
        assert_eq!((&page["totalSize"], &page["pageSize"]), (&json!(7), &json!(3)), "{page}");
        for task in page["tasks"].as_array().unwrap() {
            assert!(task.get("artifacts").is_none(), "{task}");
            seen.push(task["id"].as_str().unwrap().to_owned());
        }
        token = page["nextPageToken"].clone();
        if token == "" {
            break;
        }
    }
    assert_eq!(seen, made);
    let some = json!({"contextId": "c1", "includeArtifacts": true, "historyLength": 0});
    let some = life.ask("ListTasks", some).await;
    let tasks = some["result"]["tasks"].as_array().unwrap();
    assert_eq!(tasks.len(), 3, "{some}");
    assert!(tasks.iter().all(|task| task["artifacts"].is_array()), "{some}");
    assert!(tasks.iter().all(|task| task.get("history").is_none()), "{some}");
    for wrong in [json!({"pageToken": "x"}), json!({"pageSize": 101}), json!({"pageSize": 0})] {
        let refused = life.ask("ListTasks", wrong.clone()).await;
        assert_eq!(refused["error"]["code"], -32602, "{wrong}: {refused}");
    }
    life.drain().await;
    site.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_list_shows_what_policy_opens() {
    let (site, shared) = (Site::new().await, Shared::new());
    let life = site.live(shared.host(), |_| {}).await;
    for capability in ["count", "refuse", "count"] {
        life.ask("SendMessage", send(capability, json!({"to": 1}))).await;
    }
    let all = life.ask("ListTasks", json!({})).await;
    assert_eq!(all["result"]["totalSize"], 3, "{all}");
    life.kill().await;

    for (rule, expected) in [
        (r#"allow if input.request.method == "count""#, Some(2)),
        (r#"allow if input.request.operation != "ListTasks""#, None),
    ] {
        let policy = format!("package agentweave.authz\nimport rego.v1\n{rule}\n");
        std::fs::write(site.dir.path().join("policy.rego"), policy).unwrap();
        let by_policy = |yaml: &mut Value| {
            yaml["authorization"] =
                json!({"policy_path": site.dir.path(), "policy_file": "policy.rego"});
        };
        let life = site.live(shared.host(), by_policy).await;
        let (status, body) = life.ask_with("ListTasks", json!({}), &[]).await;
        let listed: Value = serde_json::from_slice(&body).unwrap();
        match expected {
            Some(total) => assert_eq!(listed["result"]["totalSize"], total, "{rule}: {listed}"),
            None => assert_eq!(status, 403, "{rule}: {listed}"),
        }
        life.drain().await;
    }
    site.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_does_not_wait_for_what_waits_in_line() {
    let (site, shared) = (Site::new().await, Shared::new());
    let patient = |yaml: &mut Value| {
        one_at_a_time(yaml);
        yaml["server"]["drain_timeout"] = json!("60s");
    };
    let life = site.live(shared.host(), patient).await;
    let first = life.begin("hold", json!({"name": "first"}), json!({})).await;
    shared.has_begun(1).await;
    // Its caller waits for its end.
    let second = life.send_again(send("hold", json!({"name": "second"})));
    let waiting = loop {
        let list = life.ask("ListTasks", json!({"status": "TASK_STATE_SUBMITTED"})).await;
        if let Some(task) = list["result"]["tasks"].get(0) {
            break task["id"].as_str().unwrap().to_owned();
        }
    };
    let draining = tokio::spawn(life.drain());
    let answered = second.await.unwrap();
    let state = &answered["result"]["task"]["status"]["state"];
    assert_eq!(state, "TASK_STATE_SUBMITTED", "{answered}");
    shared.gate.add_permits(1);
    assert_eq!(draining.await.unwrap().left_tasks, 0);

    shared.gate.add_permits(1);
    let life = site.live(shared.host(), patient).await;
    assert_eq!(life.get(&first).await["status"]["state"], "TASK_STATE_COMPLETED");
    life.comes_to(&waiting, "COMPLETED").await;
    life.drain().await;
    site.end().await;
}
