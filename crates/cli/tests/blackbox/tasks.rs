//! Tasks over the wire: who may see one, and what can be done with it.

use serde_json::{Value, json};

use crate::wire::{Reply, Request, about_task, send_message};
use crate::world::{Agent, ORCHESTRATOR, Setup, Tutorial, World};

/// A call that makes a task and needs no worker.
fn no_work() -> Value {
    send_message("process_document", &json!({"text": "x", "operations": []}))
}

fn ask(agent: &Agent, body: &Value) -> Reply {
    Request::post(body.to_string()).send(agent.dev.unwrap())
}

#[test]
fn a_task_can_be_read_by_its_owner_and_an_ended_one_not_be_cancelled() {
    let world = World::new();
    let _issuer = world.issuer("example.org");
    let mut agent = world.orchestrator(&Setup { dev: true, ..Setup::default() });

    let task = ask(&agent, &no_work()).result()["task"].clone();
    assert_eq!(task["status"]["state"], "TASK_STATE_COMPLETED", "{task}");
    let result = &task["artifacts"][0]["parts"][0]["data"];
    assert_eq!(result["processed_by"], "Document Orchestrator Agent", "{task}");
    let id = task["id"].as_str().unwrap();

    let read = ask(&agent, &about_task("GetTask", id)).result();
    assert_eq!(read, task);
    let reply = ask(&agent, &about_task("CancelTask", id));
    assert_eq!(reply.error(), (-32002, "TASK_NOT_CANCELABLE".into()));
    assert_eq!(ask(&agent, &about_task("GetTask", id)).result(), task);

    let records = agent.final_audit();
    let operations: Vec<_> = records.iter().map(|record| &record["operation"]).collect();
    assert_eq!(operations, ["SendMessage", "GetTask", "CancelTask", "GetTask"]);
    assert!(records.iter().all(|record| record["task_id"] == *id), "{records:#?}");
    assert!(records.iter().all(|record| record["caller_spiffe_id"] == "anonymous"));
}

#[test]
fn a_task_that_is_not_waited_for_is_found_again_and_can_be_cancelled() {
    let world = World::new();
    let _issuer = world.issuer("example.org");
    let worker = world.worker(&Setup::default());
    let worker_port = Some(worker.port);
    let setup = Setup { worker_port, dev: true, ..Setup::default() };
    let agent = world.orchestrator(&setup);
    // A worker that hangs keeps a task at work for as long as the test likes.
    worker.signal("STOP");

    let at_once = |operations: &[&str]| {
        let params = json!({"text": "good", "operations": operations});
        let mut body = send_message("process_document", &params);
        body["params"]["configuration"] = json!({"returnImmediately": true});
        ask(&agent, &body).result()["task"].clone()
    };
    let (first, second) = (at_once(&["count"]), at_once(&["sentiment"]));
    for task in [&first, &second] {
        let state = task["status"]["state"].as_str().unwrap();
        assert!(["TASK_STATE_SUBMITTED", "TASK_STATE_WORKING"].contains(&state), "{task}");
    }
    let id = |task: &Value| task["id"].as_str().unwrap().to_owned();

    let cancelled = ask(&agent, &about_task("CancelTask", &id(&second))).result();
    assert_eq!(cancelled["status"]["state"], "TASK_STATE_CANCELED", "{cancelled}");
    let reply = ask(&agent, &about_task("CancelTask", &id(&second)));
    assert_eq!(reply.error().1, "TASK_NOT_CANCELABLE");

    worker.signal("CONT");
    agent.wait_for_message("Agent call completed");
    let deadline = std::time::Instant::now() + crate::process::PATIENCE;
    let done = loop {
        let task = ask(&agent, &about_task("GetTask", &id(&first))).result();
        if task["status"]["state"] == "TASK_STATE_COMPLETED" {
            break task;
        }
        assert!(std::time::Instant::now() < deadline, "{task}");
    };
    let result = &done["artifacts"][0]["parts"][0]["data"]["results"];
    assert_eq!(result["word_count"]["word_count"], 1, "{done}");
    let still = ask(&agent, &about_task("GetTask", &id(&second))).result();
    assert_eq!(still["status"]["state"], "TASK_STATE_CANCELED");
    agent.assert_unbroken();
}

#[test]
fn the_task_of_another_owner_looks_like_a_missing_one() {
    let world = World::new();
    let _issuer = world.issuer("example.org");
    let agent = world.orchestrator(&Setup { dev: true, ..Setup::default() });
    world.call(&agent, "process_document", r#"{"text": "x", "operations": []}"#, &[]).json();
    let record = agent.audit_of(1).remove(0);
    let theirs = record["task_id"].as_str().unwrap().to_owned();
    let missing = "00000000-0000-4000-8000-000000000000";
    assert_eq!(theirs.len(), missing.len());

    let mut message = no_work();
    for body in [about_task("GetTask", &theirs), about_task("CancelTask", &theirs), {
        message["params"]["message"]["taskId"] = json!(theirs);
        message
    }] {
        let foreign = ask(&agent, &body);
        assert_eq!(foreign.error(), (-32001, "TASK_NOT_FOUND".into()));
        let text = body.to_string().replace(&theirs, missing);
        let absent = Request::post(text).send(agent.dev.unwrap());
        assert_eq!(foreign.body.replace(&theirs, missing), absent.body);
        assert_eq!(
            (foreign.status, foreign.head_but_date()),
            (absent.status, absent.head_but_date())
        );
    }
}

#[test]
fn two_principals_do_not_see_each_others_tasks() {
    let tutorial = Tutorial::start();
    let agent = &tutorial.orchestrator;
    let socket = tutorial.world.socket("example.org");
    let ask = |who: &str, body: &Value| {
        let config = crate::tls::certified(&socket, who, ORCHESTRATOR);
        crate::tls::send(config, agent.mesh(), &Request::post(body.to_string()))
    };
    let (ann, bob) = ("spiffe://example.org/user/ann", "spiffe://example.org/user/bob");
    let task = ask(ann, &no_work()).result()["task"].clone();
    let read = about_task("GetTask", task["id"].as_str().unwrap());
    assert_eq!(ask(ann, &read).result(), task);
    assert_eq!(ask(bob, &read).error(), (-32001, "TASK_NOT_FOUND".into()));
    let cancel = about_task("CancelTask", task["id"].as_str().unwrap());
    assert_eq!(ask(bob, &cancel).error(), (-32001, "TASK_NOT_FOUND".into()));

    // A tenant in the request selects nothing.
    let mut foreign = no_work();
    foreign["params"]["tenant"] = json!("other.example");
    assert_eq!(ask(ann, &foreign).error(), (-32602, "INVALID_PARAMS".into()));
}
