//! `convoke task`: sent, followed, found again, ended, saved, taken up again, left alone.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::process::{Done, PATIENCE, json_object};
use crate::world::{Agent, Setup, Tutorial, World};

/// A call that needs no worker.
const NO_WORK: &str = r#"{"text": "x", "operations": []}"#;

/// A call that needs the worker.
const WORK: &str = r#"{"text": "good", "operations": ["count"]}"#;

/// `convoke task` at the development listener.
fn task(world: &World, dev: SocketAddr, command: &str, args: &[&str]) -> Done {
    world.run(&line(command, &format!("http://{dev}"), args))
}

fn line<'a>(command: &'a str, address: &'a str, args: &[&'a str]) -> Vec<&'a str> {
    let mut line = vec!["task", command, "--address", address];
    line.extend(args);
    line
}

fn process<'a>(params: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let mut args = vec!["--capability", "process_document", "--params", params];
    args.extend(more);
    args
}

/// The events that a command wrote, in order.
fn events(done: &Done) -> Vec<Value> {
    done.stdout.lines().map(json_object).collect()
}

/// The number of the event that each stands for.
fn numbers(events: &[Value]) -> Vec<u64> {
    let number = |event: &Value| {
        let (_epoch, seq) = event["cursor"].as_str().unwrap().split_once('.').unwrap();
        seq.parse().unwrap()
    };
    events.iter().map(number).collect()
}

fn state(event: &Value) -> Option<&str> {
    event["task"]["status"]["state"].as_str().or(event["statusUpdate"]["status"]["state"].as_str())
}

/// An orchestrator with a development listener, and its worker.
fn agents(world: &World) -> (Agent, Agent) {
    let worker = world.worker(&Setup::default());
    let worker_port = Some(worker.port);
    let setup = Setup { worker_port, dev: true, ..Setup::default() };
    (world.orchestrator(&setup), worker)
}

#[test]
fn a_task_is_sent_found_again_and_saved() {
    let world = World::new();
    let _issuer = world.issuer("example.org");
    let agent = world.orchestrator(&Setup { dev: true, ..Setup::default() });
    let dev = agent.dev.unwrap();
    let sent = task(&world, dev, "send", &process(NO_WORK, &["--context", "c1"])).json();
    assert_eq!(sent["status"]["state"], "TASK_STATE_COMPLETED", "{sent}");
    let id = sent["id"].as_str().unwrap();

    let read = task(&world, dev, "get", &[id, "--history", "0"]).json();
    assert_eq!(read, sent);
    task(&world, dev, "send", &process(NO_WORK, &["--context", "c2"])).json();
    let page = task(&world, dev, "list", &["--context", "c1", "--state", "completed"]).json();
    assert_eq!((&page["totalSize"], &page["tasks"][0]["id"]), (&json!(1), &json!(id)), "{page}");
    assert_eq!(page["tasks"][0].get("artifacts"), None, "{page}");
    let first = task(&world, dev, "list", &["--page-size", "1"]).json();
    let next = first["nextPageToken"].as_str().unwrap();
    let second = task(&world, dev, "list", &["--page-size", "1", "--page", next]).json();
    assert_eq!((&second["tasks"][0]["id"], &second["nextPageToken"]), (&json!(id), &json!("")));
    let all = task(&world, dev, "list", &["--page-size", "1", "--all", "--since", "1h"]);
    let ids: Vec<_> = events(&all).iter().map(|task| task["id"].clone()).collect();
    assert_eq!(ids, [first["tasks"][0]["id"].clone(), json!(id)]);
    let (_, hint) = task(&world, dev, "list", &["--page", "none"]).failure(7);
    assert!(hint.contains("without --page"), "{hint}");
    // A reader that has gone, such as `head`, has seen enough.
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let address = format!("http://{dev}");
    let unread = world.command(&line("list", &address, &[])).stdout(writer).output().unwrap();
    assert_eq!((unread.status.code(), unread.stderr.as_slice()), (Some(0), &b""[..]));

    let named = ["--message-id", "m1", "--idempotent"];
    task(&world, dev, "send", &process(NO_WORK, &named)).json();
    let (_, hint) = task(&world, dev, "send", &process(WORK, &named)).failure(7);
    assert!(hint.contains("another --message-id"), "{hint}");

    let saved = task(&world, dev, "get", &[id, "--out", "saved"]);
    assert_eq!(saved.code, Some(0), "{saved:?}");
    let artifact = &sent["artifacts"][0];
    let file =
        world.path("saved").join(format!("{}.json", artifact["artifactId"].as_str().unwrap()));
    assert_eq!(json_object(&fs::read_to_string(&file).unwrap()), artifact["parts"][0]["data"]);
    let (_, hint) = task(&world, dev, "get", &[id, "--out", "saved"]).failure(1);
    assert!(hint.contains("--force"), "{hint}");

    let (_, hint) = task(&world, dev, "cancel", &[id]).failure(9);
    assert!(hint.contains("has ended"), "{hint}");
    let (error, _) = task(&world, dev, "subscribe", &["none"]).failure(9);
    assert!(error.contains("does not exist"), "{error}");
    task(&world, dev, "send", &[]).failure(2);
    task(&world, dev, "send", &process("{}", &[])).failure(7);
    task(&world, dev, "send", &["--capability", "none"]).failure(6);
    task(&world, "127.0.0.1:9".parse().unwrap(), "list", &[]).failure(4);
    world.run(&line("list", "https://localhost:9", &[])).failure(2);
}

#[test]
fn a_stream_is_one_line_for_each_event_and_goes_on_behind_any() {
    let tutorial = Tutorial::start();
    let (socket, address) = (tutorial.world.socket("example.org"), tutorial.orchestrator.address());
    let run = |command: &str, args: &[&str]| {
        let mut line = line(command, &address, args);
        line.extend(["--agent", tutorial.orchestrator.spiffe_id, "--socket", &socket]);
        tutorial.world.run(&line)
    };
    let stream = run("stream", &process(WORK, &[]));
    assert_eq!((stream.code, stream.stderr.as_str()), (Some(0), ""), "{stream:?}");
    let all = events(&stream);
    let seqs = numbers(&all);
    assert!(all[0]["task"].is_object(), "{stream:?}");
    assert!(seqs.windows(2).all(|two| two[1] == two[0] + 1), "{seqs:?}");
    assert_eq!(all.last().and_then(state), Some("TASK_STATE_COMPLETED"));

    let id = all[0]["task"]["id"].as_str().unwrap();
    for (index, event) in all.iter().enumerate().take(all.len() - 1) {
        let after = event["cursor"].as_str().unwrap();
        let rest = run("subscribe", &[id, "--after", after]);
        assert_eq!(rest.code, Some(0), "{rest:?}");
        assert_eq!(events(&rest), all[index + 1..], "behind {after}");
    }
    assert_eq!(run("subscribe", &[id, "--after", "12"]).code, Some(2));
}

#[test]
fn a_task_goes_on_without_the_command_that_sent_it_and_ends_when_asked() {
    let world = World::new();
    let _issuer = world.issuer("example.org");
    let (agent, worker) = agents(&world);
    let dev = agent.dev.unwrap();
    worker.signal("STOP");

    let address = format!("http://{dev}");
    let args = line("stream", &address, &process(WORK, &[]));
    let mut child =
        world.command(&args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stdout = child.stdout.take().unwrap();
    let (sender, first) = mpsc::channel();
    thread::spawn(move || {
        let mut bytes = vec![0; 64 * 1024];
        let read = stdout.read(&mut bytes).unwrap_or(0);
        let _test_is_over = sender.send(String::from_utf8_lossy(&bytes[..read]).into_owned());
    });
    let first = json_object(first.recv_timeout(PATIENCE).unwrap().lines().next().unwrap());
    let id = first["task"]["id"].as_str().unwrap().to_owned();
    let interrupted =
        Command::new("kill").args(["-s", "INT", &child.id().to_string()]).status().unwrap();
    assert!(interrupted.success());
    let output = child.wait_with_output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(130), "{told}");
    let after = format!("{id} --after {}", first["cursor"].as_str().unwrap());
    assert!(told.contains(&after) && told.contains("convoke task cancel"), "{told}");

    let no_wait = process(WORK, &["--no-wait"]);
    let second = task(&world, dev, "send", &no_wait).json()["id"].as_str().unwrap().to_owned();
    let cancelled = task(&world, dev, "cancel", &[&second]).json();
    assert_eq!(cancelled["status"]["state"], "TASK_STATE_CANCELED");
    let followed = task(&world, dev, "subscribe", &[&second]);
    assert_eq!(followed.code, Some(12), "{followed:?}");

    worker.signal("CONT");
    let followed =
        task(&world, dev, "subscribe", &[&id, "--after", first["cursor"].as_str().unwrap()]);
    assert_eq!(followed.code, Some(0), "{followed:?}");
    assert_eq!(numbers(&events(&followed))[0], numbers(&[first])[0] + 1);
}

/// Carries connections to `to`, and cuts the first one once an event has passed.
fn cutting_proxy(to: SocketAddr, on_second: impl FnOnce() + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        let mut on_second = Some(on_second);
        for (number, client) in listener.incoming().enumerate() {
            let (Ok(client), Ok(server)) = (client, TcpStream::connect(to)) else { return };
            if number == 1
                && let Some(on_second) = on_second.take()
            {
                on_second();
            }
            let (mut up_from, mut up_to) =
                (client.try_clone().unwrap(), server.try_clone().unwrap());
            thread::spawn(move || std::io::copy(&mut up_from, &mut up_to));
            thread::spawn(move || carry(server, client, number == 0));
        }
    });
    address
}

fn carry(mut from: TcpStream, mut to: TcpStream, cut: bool) {
    let mut seen = Vec::new();
    let mut bytes = [0; 4096];
    while let Ok(read @ 1..) = from.read(&mut bytes) {
        if to.write_all(&bytes[..read]).is_err() {
            break;
        }
        seen.extend_from_slice(&bytes[..read]);
        let event_has_passed = seen.windows(5).any(|five| five == b"\nid: ")
            && seen.windows(2).any(|two| two == b"\n\n");
        if cut && event_has_passed {
            break;
        }
    }
    let _gone = (from.shutdown(std::net::Shutdown::Both), to.shutdown(std::net::Shutdown::Both));
}

#[test]
fn a_stream_that_is_cut_is_taken_up_again_without_gap_or_repeat() {
    let world = World::new();
    let _issuer = world.issuer("example.org");
    let (agent, worker) = agents(&world);
    worker.signal("STOP");
    let pid = worker.pid().to_string();
    let proxy = cutting_proxy(agent.dev.unwrap(), move || {
        let woken = Command::new("kill").args(["-s", "CONT", &pid]).status();
        assert!(woken.unwrap().success());
    });
    let done = task(&world, proxy, "stream", &process(WORK, &["--out", "saved"]));
    assert_eq!(done.code, Some(0), "{done:?}");
    assert!(done.stderr.contains("taking it up again"), "{done:?}");
    let all = events(&done);
    let seqs = numbers(&all);
    assert!(seqs.windows(2).all(|two| two[1] == two[0] + 1), "{seqs:?}");
    assert_eq!(all.iter().filter(|event| event["task"].is_object()).count(), 1, "{done:?}");
    assert_eq!(all.last().and_then(state), Some("TASK_STATE_COMPLETED"));
    assert_eq!(fs::read_dir(world.path("saved")).unwrap().count(), 1);
    drop(worker);
}

/// Carries connections to wherever the agent is now.
fn moving_proxy(to: Arc<Mutex<SocketAddr>>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for client in listener.incoming() {
            let to = *to.lock().unwrap();
            // Where nobody is, the connection ends.
            let (Ok(client), Ok(server)) = (client, TcpStream::connect(to)) else { continue };
            let (mut up_from, mut up_to) =
                (client.try_clone().unwrap(), server.try_clone().unwrap());
            thread::spawn(move || std::io::copy(&mut up_from, &mut up_to));
            thread::spawn(move || carry(server, client, false));
        }
    });
    address
}

#[test]
fn whoever_follows_a_task_hears_how_it_ended_after_the_agent_was_killed() {
    let world = World::new();
    let _issuer = world.issuer("example.org");
    let (mut agent, worker) = agents(&world);
    worker.signal("STOP");
    let place = Arc::new(Mutex::new(agent.dev.unwrap()));
    let proxy = moving_proxy(Arc::clone(&place));
    let sent = task(&world, proxy, "send", &process(WORK, &["--no-wait"])).json();
    let id = sent["id"].as_str().unwrap().to_owned();

    let mut following = {
        let address = format!("http://{proxy}");
        let mut command = world.command(&line("subscribe", &address, &[&id]));
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    };
    // The command ends by itself at the latest when it has no more patience.
    let mut stdout = BufReader::new(following.stdout.take().unwrap());
    let mut text = String::new();
    stdout.read_line(&mut text).unwrap();
    agent.kill();
    drop(agent);
    let setup = Setup { worker_port: Some(worker.port), dev: true, ..Setup::default() };
    let agent = world.orchestrator(&setup);
    *place.lock().unwrap() = agent.dev.unwrap();

    stdout.read_to_string(&mut text).unwrap();
    let output = following.wait_with_output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    let done = Done { code: output.status.code(), stdout: text, stderr };
    assert_eq!(done.code, Some(9), "{done:?}");
    // However often it was tried, it is said once.
    for once in ["the stream broke off: ", "; taking it up again\n", "the stream is back\n"] {
        assert_eq!(done.stderr.matches(once).count(), 1, "{once} {done:?}");
    }
    let all = events(&done);
    let seqs = numbers(&all);
    assert!(seqs.windows(2).all(|two| two[1] == two[0] + 1), "{seqs:?}");
    assert_eq!(all.last().and_then(state), Some("TASK_STATE_FAILED"), "{done:?}");
    worker.signal("CONT");
}

/// An agent of somebody else: it answers each request, in order, with a result, as a stream of events
/// where there are several. Gives the methods that it was asked for.
fn stranger(answers: Vec<Vec<Value>>) -> (SocketAddr, mpsc::Receiver<Value>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (sender, asked) = mpsc::channel();
    thread::spawn(move || {
        for answer in answers {
            let Ok((mut client, _)) = listener.accept() else { return };
            let request = request_of(&mut client);
            let response = |result: &Value| {
                json!({"jsonrpc": "2.0", "id": request["id"], "result": result}).to_string()
            };
            let (media, body) = match answer.as_slice() {
                [one] => ("application/json", response(one)),
                many => {
                    let events = many.iter().map(|one| format!("data: {}\n\n", response(one)));
                    ("text/event-stream", events.collect())
                }
            };
            let head = format!(
                "HTTP/1.1 200 OK\r\ncontent-type: {media}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
                body.len()
            );
            let _gone = client.write_all((head + &body).as_bytes());
            let _test_is_over = sender.send(request);
        }
    });
    (address, asked)
}

fn request_of(client: &mut TcpStream) -> Value {
    client.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let mut text = Vec::new();
    let deadline = Instant::now() + PATIENCE;
    loop {
        assert!(Instant::now() < deadline, "a whole request");
        let mut bytes = [0; 4096];
        let read = client.read(&mut bytes).unwrap();
        text.extend_from_slice(&bytes[..read]);
        if let Some(at) = text.windows(4).position(|four| four == b"\r\n\r\n")
            && let Ok(request) = serde_json::from_slice(&text[at + 4..])
        {
            return request;
        }
    }
}

#[test]
fn a_task_that_asks_is_answered() {
    let world = World::new();
    let status = |state: &str, text: &str| {
        let message = json!({"messageId": text, "role": "ROLE_AGENT", "parts": [{"text": text}]});
        json!({"state": state, "message": message})
    };
    let shown = |status: &Value| json!({"id": "t;1", "contextId": "c", "status": status});
    let update = |status: &Value| json!({"statusUpdate": {"taskId": "t;1", "contextId": "c", "status": status}});
    let piece = |text: &str, append: bool| {
        let artifact = json!({"artifactId": "a", "name": "../story.md", "parts": [{"text": text}]});
        json!({"artifactUpdate": {"taskId": "t;1", "contextId": "c", "artifact": artifact, "append": append}})
    };
    let asks = status("TASK_STATE_INPUT_REQUIRED", "which one?");
    let works = status("TASK_STATE_WORKING", "on it");
    let done = status("TASK_STATE_COMPLETED", "done");

    let (address, _) = stranger(vec![vec![json!({"task": shown(&works)}), update(&asks)]]);
    let waits = task(&world, address, "stream", &["hello", "--json"]);
    assert_eq!(waits.code, Some(11), "{waits:?}");
    let told = &json_object(&waits.stderr)["error"];
    assert_eq!(told["code"], "task_waits");
    assert_eq!(told["message"], "the task waits for an answer: which one?");
    let hint = format!("convoke task input --address http://{address} 't;1' 'ANSWER'");
    assert_eq!(told["hint"], hint);

    let (address, asked) = stranger(vec![
        vec![shown(&asks)],
        vec![
            // The question that was answered may be shown once more.
            json!({"task": shown(&asks)}),
            update(&works),
            piece("once ", false),
            piece("upon", true),
            update(&done),
        ],
    ]);
    let answered = task(&world, address, "input", &["t;1", "the first", "--out", "saved"]);
    assert_eq!(answered.code, Some(0), "{answered:?}");
    assert_eq!(events(&answered).len(), 5);
    assert_eq!(fs::read_to_string(world.path("saved/story.md")).unwrap(), "once upon");
    let asked: Vec<Value> = asked.iter().collect();
    assert_eq!(asked[0]["method"], "GetTask");
    let message = &asked[1]["params"]["message"];
    assert_eq!(
        (&message["taskId"], &message["parts"][0]["text"]),
        (&json!("t;1"), &json!("the first"))
    );

    // What is asked for is no text, so a text that is JSON is meant as such.
    let mut yes_or_no = asks;
    yes_or_no["message"]["metadata"] =
        json!({"urn:convoke:ext:capability:v1": {"answerSchema": {"type": "boolean"}}});
    let (address, asked) = stranger(vec![
        vec![shown(&yes_or_no)],
        vec![json!({"task": shown(&works)}), update(&done)],
    ]);
    let answered = task(&world, address, "input", &["t;1", "true"]);
    assert_eq!(answered.code, Some(0), "{answered:?}");
    let part = &asked.iter().nth(1).unwrap()["params"]["message"]["parts"][0];
    assert_eq!(part["data"], true, "{part}");
    let (address, _) = stranger(vec![vec![json!({"task": shown(&works)}), update(&yes_or_no)]]);
    let waits = task(&world, address, "stream", &["hello"]);
    assert_eq!(waits.code, Some(11), "{waits:?}");
    assert!(waits.stderr.ends_with(" 't;1' --data true\n"), "{waits:?}");

    let signs_in = status("TASK_STATE_AUTH_REQUIRED", "over there");
    let (address, _) = stranger(vec![vec![json!({"task": shown(&works)}), update(&signs_in)]]);
    let waits = task(&world, address, "stream", &["hello"]);
    assert_eq!(waits.code, Some(11), "{waits:?}");
    let on = format!("\n      convoke task input --address http://{address} 't;1' done\n");
    assert!(waits.stderr.ends_with(&on), "{waits:?}");
    let (address, _) = stranger(vec![vec![shown(&done)]]);
    let (_, hint) = task(&world, address, "input", &["t;1", "x"]).failure(9);
    assert!(hint.contains("--reference 't;1'"), "{hint}");

    let failed = status("TASK_STATE_FAILED", "no\u{1b}[2J");
    let (address, _) = stranger(vec![vec![json!({"task": shown(&works)}), update(&failed)]]);
    let failed = task(&world, address, "stream", &["hello"]);
    assert_eq!(failed.code, Some(9), "{failed:?}");
    assert!(!failed.stderr.contains('\u{1b}'), "{failed:?}");
}
