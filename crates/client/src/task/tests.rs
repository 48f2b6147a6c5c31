//! Tasks over the real wire, at an agent that does as the test says.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use convoke_a2a::jsonrpc::stream::{EVENT_STREAM, Head, fault_event, task_tail, update_tail};
use convoke_a2a::jsonrpc::{
    Call, RequestIdJson, TaskList, decode, encode_fault, encode_list, encode_task,
};
use convoke_model::{
    Artifact, ArtifactId, Content, ContextId, Cursor, Fault, FaultCode, Message, MessageId,
    Operation, Part, Role, SendConfiguration, TaskEvent, TaskId, TaskState, TaskStatus, UnixMillis,
};
use convoke_net::server::{
    Body, ConnectionInfo, Handler, Limits, Opened, Refuse, ResponseBody, Server, read_body,
};
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Request, Response};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::*;
use crate::BreakerState;
use crate::tests::{Authority, settings};

/// What the agent answers to one request.
type Does = Box<dyn FnOnce(&Call) -> Answered + Send>;

enum Answered {
    Plain(Bytes),
    /// Events; the stream ends with them.
    Stream(Vec<Bytes>),
}

#[derive(Default)]
struct Seen {
    script: Mutex<VecDeque<Does>>,
    operations: Mutex<Vec<Operation>>,
}

struct Agent(Arc<Seen>);

impl Handler for Agent {
    type Connection = ();

    fn connected(&self, _: &ConnectionInfo) -> Result<Opened<()>, Refuse> {
        Ok(Opened { connection: (), expires_in: None })
    }

    async fn call(&self, _: &Arc<()>, request: Request<Body>) -> Response<ResponseBody> {
        let (head, body) = request.into_parts();
        let body = read_body(body, 1 << 20).await.unwrap();
        let call = decode(&head.headers, None, &body).unwrap();
        self.0.operations.lock().unwrap().push(call.operation.clone());
        let does = self.0.script.lock().unwrap().pop_front().expect("another request");
        let (media, body) = match does(&call) {
            Answered::Plain(body) => (HeaderValue::from_static("application/json"), body),
            Answered::Stream(events) => (EVENT_STREAM, events.concat().into()),
        };
        let mut response = Response::new(ResponseBody::from(body));
        response.headers_mut().insert(CONTENT_TYPE, media);
        response
    }
}

/// An agent, and a caller's tasks there.
struct World {
    seen: Arc<Seen>,
    tasks: Tasks,
    _server: DropGuard,
}

impl World {
    fn mesh(script: Vec<Does>) -> Self {
        let authority = Authority::new();
        let source = authority.source("/worker");
        let tls = convoke_identity::tls::server_config(&source).unwrap();
        let (seen, port, server) = serve(script, Some(tls));
        let client = Client::new(authority.source("/caller"), settings(), None);
        let tasks = client.task(source.spiffe_id(), &format!("https://localhost:{port}")).unwrap();
        Self { seen, tasks, _server: server }
    }

    fn open(script: Vec<Does>) -> Self {
        let (seen, port, server) = serve(script, None);
        let tasks = Tasks::open(&format!("http://127.0.0.1:{port}")).unwrap();
        Self { seen, tasks: tasks.retry(settings().retry), _server: server }
    }

    fn operations(&self) -> Vec<Operation> {
        assert!(self.seen.script.lock().unwrap().is_empty(), "all of the script was played");
        std::mem::take(&mut self.seen.operations.lock().unwrap())
    }
}

fn serve(script: Vec<Does>, tls: Option<Arc<rustls::ServerConfig>>) -> (Arc<Seen>, u16, DropGuard) {
    let seen = Arc::new(Seen { script: Mutex::new(script.into()), ..Seen::default() });
    let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
    let server = Server::bind(any, tls, Limits::default(), Agent(Arc::clone(&seen))).unwrap();
    let port = server.local_addr().port();
    let shutdown = CancellationToken::new();
    tokio::spawn(server.serve(shutdown.clone(), Duration::ZERO));
    (seen, port, shutdown.drop_guard())
}

fn task(state: TaskState) -> Task {
    Task {
        id: TaskId::parse("t").unwrap(),
        context_id: ContextId::parse("c").unwrap(),
        status: status(state),
        artifacts: Vec::new(),
        history: Vec::new(),
        metadata: None,
    }
}

fn status(state: TaskState) -> TaskStatus {
    TaskStatus { state, message: None, timestamp: UnixMillis(1) }
}

fn message() -> SendMessage {
    let id = MessageId::parse("m").unwrap();
    SendMessage {
        tenant: None,
        message: Message::new(id, Role::User, vec![Part::new(Content::Text("hi".into()))]),
        configuration: SendConfiguration::default(),
        metadata: None,
    }
}

fn at(seq: u64) -> Cursor {
    Cursor { epoch: 1, seq }
}

fn subscribe(after: Option<Cursor>) -> SubscribeToTask {
    SubscribeToTask { tenant: None, id: TaskId::parse("t").unwrap(), after }
}

/// An event of a stream, made for the request that asks for it.
type Told = Box<dyn Fn(&RequestIdJson) -> Bytes + Send>;

fn shown(id: &RequestIdJson, tail: &[u8]) -> Bytes {
    [Head::new(id).bytes(), tail].concat().into()
}

fn snapshot(state: TaskState, seq: u64) -> Told {
    Box::new(move |id| shown(id, &task_tail(&task(state), at(seq))))
}

fn update(event: TaskEvent, seq: u64) -> Told {
    let task = task(TaskState::Working);
    Box::new(move |id| {
        let current = status(TaskState::Working);
        shown(id, &update_tail(&task.id, &task.context_id, &event, &current, at(seq)).unwrap())
    })
}

fn moved(state: TaskState, seq: u64) -> Told {
    update(TaskEvent::Status(status(state)), seq)
}

fn chunk(text: &str, seq: u64) -> Told {
    let artifact = Artifact {
        artifact_id: ArtifactId::parse("a").unwrap(),
        name: None,
        description: None,
        parts: vec![Part::new(Content::Text(text.into()))],
        metadata: None,
        extensions: Vec::new(),
        unknown: Vec::new(),
    };
    update(TaskEvent::Artifact { artifact, append: true, last: false }, seq)
}

fn failing(code: FaultCode) -> Told {
    Box::new(move |id| fault_event(id, &Fault::new(code, "not now")))
}

fn stream(told: Vec<Told>) -> Does {
    Box::new(move |call| Answered::Stream(told.iter().map(|told| told(&call.id)).collect()))
}

fn refusal(code: FaultCode) -> Does {
    Box::new(move |call| {
        Answered::Plain(encode_fault(Some(&call.id), &Fault::new(code, "not now")))
    })
}

fn plain(task: Task) -> Does {
    Box::new(move |call| Answered::Plain(encode_task(&call.id, call.operation.kind(), &task)))
}

/// Everything that is heard, one word each: the number of the event, `reset`, `cut`, or the error.
async fn heard(mut following: Following) -> Vec<String> {
    let mut words = Vec::new();
    loop {
        let word = match following.next().await {
            Ok(None) => return words,
            Ok(Some(Followed::Event { event, reset })) => {
                let seq = event.cursor.map_or("-".into(), |cursor| cursor.seq.to_string());
                if reset { format!("reset {seq}") } else { seq }
            }
            Ok(Some(Followed::Cut { .. })) => "cut".to_owned(),
            Ok(Some(Followed::Resumed)) => "back".to_owned(),
            Err(error) => {
                words.push(match &error {
                    TaskError::Lost { .. } => "lost".to_owned(),
                    TaskError::Unnamed { .. } => "unnamed".to_owned(),
                    other => format!("{:?}", other.code()),
                });
                return words;
            }
        };
        words.push(word);
    }
}

#[tokio::test]
async fn tasks_are_sent_read_listed_and_ended_both_ways() {
    let script = || -> Vec<Does> {
        vec![
            plain(task(TaskState::Working)),
            plain(task(TaskState::Working)),
            plain(task(TaskState::Canceled)),
            refusal(FaultCode::TaskNotFound),
        ]
    };
    for world in [World::mesh(script()), World::open(script())] {
        let tasks = &world.tasks;
        let sent = tasks.send(&message()).await.unwrap();
        assert_eq!(sent, Answer::Task(task(TaskState::Working)));
        let id = TaskId::parse("t").unwrap();
        let get = GetTask { tenant: None, id: id.clone(), history_length: Some(2) };
        assert_eq!(tasks.get(&get).await.unwrap(), task(TaskState::Working));
        let cancel = CancelTask { tenant: None, id, metadata: None };
        assert_eq!(tasks.cancel(&cancel).await.unwrap(), task(TaskState::Canceled));
        let error = tasks.get(&get).await.unwrap_err();
        assert_eq!(error.code(), Some(FaultCode::TaskNotFound), "{error}");
        assert_eq!(
            world.operations(),
            [
                Operation::SendMessage(message()),
                Operation::GetTask(get.clone()),
                Operation::CancelTask(cancel),
                Operation::GetTask(get),
            ]
        );
    }
}

#[tokio::test]
async fn pages_follow_each_other_to_the_last() {
    let page = |next: Option<&'static str>| -> Does {
        Box::new(move |call| {
            let tasks = [task(TaskState::Completed)];
            let list =
                TaskList { tasks: &tasks, next_page_token: next, page_size: 1, total_size: 2 };
            Answered::Plain(encode_list(&call.id, &list))
        })
    };
    let world = World::mesh(vec![page(Some("x")), page(None), page(Some("y")), page(Some("y"))]);
    let first = ListTasks { page_size: Some(1), ..ListTasks::default() };
    let mut pages = world.tasks.pages(first.clone());
    let mut total = 0;
    while let Some(page) = pages.next().await.unwrap() {
        total += page.tasks.len();
    }
    assert_eq!(total, 2);
    // A list without an end is no list.
    let mut pages = world.tasks.pages(first.clone());
    assert!(pages.next().await.unwrap().is_some());
    let error = pages.next().await.unwrap_err();
    assert!(error.to_string().contains("followed by itself"), "{error}");
    let behind = |token: &str| {
        Operation::ListTasks(ListTasks { page_token: Some(token.into()), ..first.clone() })
    };
    let begun = || Operation::ListTasks(first.clone());
    assert_eq!(world.operations(), [begun(), behind("x"), begun(), behind("y")]);
}

#[tokio::test]
async fn a_stream_that_breaks_is_taken_up_behind_what_was_heard() {
    use TaskState as S;
    let script = || -> Vec<Does> {
        vec![
            stream(vec![snapshot(S::Working, 2), chunk("a", 3)]),
            refusal(FaultCode::Unavailable),
            // What was heard already is told again by some.
            stream(vec![chunk("a", 3), chunk("b", 4), failing(FaultCode::ResourceExhausted)]),
            stream(vec![moved(S::Completed, 5), chunk("behind the end", 6)]),
        ]
    };
    for world in [World::mesh(script()), World::open(script())] {
        let words = heard(world.tasks.stream_resuming(message())).await;
        assert_eq!(words, ["2", "3", "cut", "cut", "back", "4", "cut", "back", "5"]);
        assert_eq!(
            world.operations(),
            [
                Operation::SendStreamingMessage(message()),
                Operation::SubscribeToTask(subscribe(Some(at(3)))),
                Operation::SubscribeToTask(subscribe(Some(at(3)))),
                Operation::SubscribeToTask(subscribe(Some(at(4)))),
            ]
        );
    }
}

#[tokio::test]
async fn a_task_as_it_stands_says_that_events_were_lost() {
    use TaskState as S;
    let world = World::mesh(vec![
        stream(vec![snapshot(S::Working, 2), chunk("a", 3)]),
        stream(vec![snapshot(S::Working, 9), moved(S::Failed, 10)]),
    ]);
    let words = heard(world.tasks.subscribe_resuming(subscribe(None))).await;
    assert_eq!(words, ["2", "3", "cut", "back", "reset 9", "10"]);

    // A task that ended meanwhile, at an agent that keeps no events.
    let world = World::open(vec![
        stream(vec![snapshot(S::Working, 2)]),
        refusal(FaultCode::UnsupportedOperation),
        plain(task(S::Completed)),
    ]);
    let words = heard(world.tasks.subscribe_resuming(subscribe(Some(at(1))))).await;
    assert_eq!(words, ["2", "cut", "reset -"]);
}

#[tokio::test]
async fn what_cannot_be_taken_up_is_an_error() {
    use TaskState as S;
    // Where nothing has begun, the caller hears at once.
    let world = World::open(vec![refusal(FaultCode::Unavailable)]);
    let words = heard(world.tasks.subscribe_resuming(subscribe(None))).await;
    assert_eq!(words, ["Some(Unavailable)"]);
    // A right that is gone stays gone.
    let world = World::open(vec![
        stream(vec![snapshot(S::Working, 2), failing(FaultCode::Unavailable)]),
        refusal(FaultCode::PermissionDenied),
    ]);
    let words = heard(world.tasks.subscribe_resuming(subscribe(None))).await;
    assert_eq!(words, ["2", "cut", "Some(PermissionDenied)"]);
    // Nobody knows what to follow, and sending again could make a second task.
    let world = World::open(vec![stream(Vec::new())]);
    assert_eq!(heard(world.tasks.stream_resuming(message())).await, ["unnamed"]);
    assert_eq!(world.operations().len(), 1);
    // Who sends so that twice is once sends again.
    let mut again = message();
    again.message.extensions = vec![IDEMPOTENT_SEND_EXTENSION.to_owned()];
    let world = World::open(vec![
        stream(Vec::new()),
        refusal(FaultCode::Unavailable),
        stream(vec![snapshot(S::Completed, 4)]),
    ]);
    assert_eq!(heard(world.tasks.stream_resuming(again)).await, ["cut", "cut", "back", "4"]);
    // Without retries, once is all.
    let world = World::open(vec![stream(vec![snapshot(S::Working, 2)])]);
    let once = RetrySettings { attempts_max: 1, ..RetrySettings::default() };
    let words = heard(world.tasks.clone().retry(once).subscribe_resuming(subscribe(None))).await;
    assert_eq!(words, ["2", "None"]);
}

#[tokio::test]
async fn patience_ends_where_nothing_new_comes() {
    let world = World::open(vec![stream(vec![snapshot(TaskState::Working, 2)])]);
    let impatient = world.tasks.clone().patience(Duration::ZERO);
    assert_eq!(heard(impatient.subscribe_resuming(subscribe(None))).await, ["2", "lost"]);
}

#[tokio::test]
async fn whoever_follows_on_is_not_held_by_the_breaker_and_does_not_open_it() {
    use TaskState as S;
    let refused = || refusal(FaultCode::Unavailable);
    let mut script = vec![stream(vec![snapshot(S::Working, 2)])];
    script.extend(std::iter::repeat_with(refused).take(8));
    script.push(stream(vec![moved(S::Working, 3)]));
    script.push(plain(task(S::Working)));
    // Calls that fail open it, which nobody who follows hears of.
    script.extend(std::iter::repeat_with(refused).take(5));
    script.push(stream(vec![moved(S::Completed, 4)]));
    let world = World::mesh(script);
    let gate = || match &world.tasks.way {
        Way::Mesh { endpoint, .. } => endpoint.gate.state(),
        Way::Open(_) => unreachable!("this world is a mesh"),
    };
    let mut following = world.tasks.subscribe_resuming(subscribe(None));
    let mut words = Vec::new();
    let get = GetTask { tenant: None, id: TaskId::parse("t").unwrap(), history_length: None };
    let once = RetrySettings { attempts_max: 1, ..settings().retry };
    let caller = world.tasks.clone().retry(once);
    while let Some(followed) = following.next().await.unwrap() {
        match followed {
            Followed::Event { event, .. } => words.push(event.cursor.unwrap().seq),
            Followed::Cut { .. } | Followed::Resumed => {}
        }
        if words == [2, 3] && gate() == BreakerState::Closed {
            caller.get(&get).await.unwrap();
            while gate() == BreakerState::Closed {
                caller.get(&get).await.unwrap_err();
            }
        }
    }
    assert_eq!(words, [2, 3, 4]);
    assert_eq!(gate(), BreakerState::Open);
    assert_eq!(world.operations().len(), 17);
}

#[tokio::test]
async fn a_stream_may_end_where_its_task_waits() {
    let world = World::open(vec![stream(vec![
        snapshot(TaskState::Working, 2),
        moved(TaskState::InputRequired, 3),
    ])]);
    assert_eq!(heard(world.tasks.stream_resuming(message())).await, ["2", "3"]);
}

#[tokio::test]
async fn a_development_listener_is_on_this_machine() {
    for wrong in ["http://example.org:1", "http://10.0.0.1:1", "127.0.0.1", ""] {
        let error = Tasks::open(wrong).err();
        assert!(
            matches!(error, Some(OpenError::NotLoopback(_) | OpenError::Address(_))),
            "{wrong}"
        );
    }
}
