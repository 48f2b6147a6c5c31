//! Requests that no good client sends: each is refused clearly, and the agent goes on.

use std::io::Write;
use std::net::SocketAddr;
use std::thread;

use serde_json::{Value, json};

use crate::process::Process;
use crate::wire::{Reply, Request, connect, read_reply, send_message};
use crate::world::{Agent, Setup, World};

/// An agent with a development listener, which takes what a mesh listener would take from a peer
/// with a certificate.
struct Target {
    agent: Agent,
    _issuer: Process,
    _world: World,
}

impl Target {
    fn start() -> Self {
        let world = World::new();
        let issuer = world.issuer("example.org");
        let agent = world.orchestrator(&Setup { dev: true, ..Setup::default() });
        Self { agent, _issuer: issuer, _world: world }
    }

    fn at(&self) -> SocketAddr {
        self.agent.dev.unwrap()
    }

    /// Asserts that the agent works as if nothing had happened.
    fn assert_unharmed(&self) {
        let task = Request::post(honest().to_string()).send(self.at()).result();
        assert_eq!(task["task"]["status"]["state"], "TASK_STATE_COMPLETED", "{task}");
        self.agent.assert_sound();
    }
}

/// A call that succeeds without a worker.
fn honest() -> Value {
    send_message("process_document", &json!({"text": "x", "operations": []}))
}

#[test]
fn bodies_that_are_no_requests_are_refused_by_name() {
    let target = Target::start();
    let honest = honest().to_string();
    let params = |text: &str| honest.replace(r#"{"operations":[],"text":"x"}"#, text);
    let with = |from: &str, to: &str| crate::world::replaced(&honest, from, to);
    let depth = |count: usize| params(&format!("{}{}", "[".repeat(count), "]".repeat(count)));
    assert_ne!(params("{}"), honest);

    let check = |body: &str, code: i64, reason: &str| {
        let reply = Request::post(body).send(target.at());
        let shown: String = body.chars().take(300).collect();
        assert_eq!(reply.error(), (code, reason.into()), "{shown} {reply:?}");
        // JSON-RPC answers are 200; only the transport's own refusals are not.
        assert_eq!(reply.status, 200, "{shown} {reply:?}");
        assert!(reply.body.len() < 16 * 1024, "an answer is small: {shown}");
        target.assert_unharmed();
    };
    let parse = |body: &str| check(body, -32700, "PARSE_ERROR");
    let invalid = |body: &str| check(body, -32600, "INVALID_REQUEST");
    let wrong = |body: &str| check(body, -32602, "INVALID_PARAMS");

    for body in ["", " ", "{", "nonsense", "{\"a\" 1}", "\u{feff}{}", "{}{}", "'x'", "NaN"] {
        parse(body);
    }
    parse(&honest[..honest.len() - 1]);
    parse(&format!("{honest}x"));
    parse(&with(r#""id":1"#, r#""id":1,"id":2"#));
    parse(&params(r#"{"text":"a","text":"b"}"#));
    parse(&params(r#"{"text":"a","\u0074ext":"b"}"#));
    parse(&params(r#"{"text":"\ud800"}"#));
    parse(&params(r#"{"text":01}"#));
    parse(&params(&format!(r#"{{"text":{}}}"#, "9".repeat(100_000))));
    parse(&depth(33));
    parse(&depth(1_000_000));
    parse(&"[".repeat(4_000_000));
    parse(&r#"{"a":"#.repeat(600_000));

    for body in ["[]", "[[]]", "null", "7", "\"x\"", "{}", r#"{"jsonrpc":"1.0","id":1}"#] {
        invalid(body);
    }
    invalid(&format!("[{honest}]"));
    invalid(&with(r#""id":1,"#, ""));
    invalid(&with(r#""id":1"#, r#""id":{}"#));
    invalid(&with(r#""id":1"#, &format!(r#""id":"{}""#, "i".repeat(10_000))));
    invalid(&with(r#""method":"SendMessage""#, r#""method":7"#));
    invalid(&with(r#""method":"#, r#""Method":"#));

    check(&with("SendMessage", "NoSuchMethod"), -32601, "METHOD_NOT_FOUND");
    check(&with("SendMessage", "message/send"), -32601, "METHOD_NOT_FOUND");
    check(&with("SendMessage", &"m".repeat(500_000)), -32601, "METHOD_NOT_FOUND");
    check(&with("SendMessage", "GetExtendedAgentCard"), -32004, "UNSUPPORTED_OPERATION");

    wrong(r#"{"jsonrpc":"2.0","id":1,"method":"SendMessage"}"#);
    wrong(r#"{"jsonrpc":"2.0","id":1,"method":"ListTasks","params":{"pageSize":101}}"#);
    wrong(r#"{"jsonrpc":"2.0","id":1,"method":"ListTasks","params":{"pageToken":"none"}}"#);
    wrong(r#"{"jsonrpc":"2.0","id":1,"method":"SendMessage","params":[]}"#);
    wrong(r#"{"jsonrpc":"2.0","id":1,"method":"SendMessage","params":{"message":7}}"#);
    wrong(r#"{"jsonrpc":"2.0","id":1,"method":"GetTask","params":{"id":7}}"#);
    wrong(&with("ROLE_USER", "ROLE_GOD"));
    wrong(&with(r#""messageId":"m-1","#, ""));
    wrong(&with(r#""name":"process_document""#, r#""name":7"#));
    wrong(&params(r#"{"text":7}"#));
    wrong(&params(r#"{"text":"x","operations":"count"}"#));
    wrong(&params("[]"));
    check(&with("process_document", "no_such"), -32602, "CAPABILITY_NOT_FOUND");
}

#[test]
fn header_fields_that_do_not_fit_are_refused() {
    let target = Target::start();
    let post = || Request::post(honest().to_string());
    let check = |request: Request, status: u16, code: i64, reason: &str| {
        let reply = request.send(target.at());
        assert_eq!((reply.status, reply.error()), (status, (code, reason.into())), "{reply:?}");
        target.assert_unharmed();
    };
    for content_type in
        ["text/plain", "application/x-www-form-urlencoded", "", "application/json; charset=utf-16"]
    {
        let request = post().header("content-type", content_type);
        check(request, 200, -32005, "CONTENT_TYPE_NOT_SUPPORTED");
    }
    check(post().without("content-type"), 200, -32005, "CONTENT_TYPE_NOT_SUPPORTED");
    check(post().without("a2a-version"), 200, -32009, "VERSION_NOT_SUPPORTED");
    for version in ["0.3", "2.0", "one", ""] {
        let request = post().header("a2a-version", version);
        check(request, 200, -32009, "VERSION_NOT_SUPPORTED");
    }

    let status = |request: Request, expected: u16| {
        let reply = request.send(target.at());
        assert_eq!(reply.status, expected, "{reply:?}");
        target.assert_unharmed();
    };
    // A page of the web that reaches loopback says so in one of the two.
    for host in
        ["evil.example", "evil.example:80", "localhost.evil.example", "127.0.0.1.evil.example", ""]
    {
        status(post().header("host", host), 403);
    }
    for origin in ["https://evil.example", "null", "http://localhost.evil.example"] {
        status(post().header("origin", origin), 403);
        status(Request::get("/.well-known/agent-card.json").header("origin", origin), 403);
    }
    status(post().header("origin", "http://localhost:3000"), 200);
    status(post().header("host", &target.at().to_string()), 200);
    status(Request::get("/"), 405);
    status(Request::get("/no/such/path"), 404);
    status(Request::get("/health").header("x-long", &"x".repeat(64 * 1024)), 431);

    for head in [
        "nonsense\r\n\r\n",
        "GET / HTTP/9.9\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: localhost\r\nno colon\r\n\r\n",
        "POST / HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nxx",
        "POST / HTTP/1.1\r\nhost: localhost\r\ncontent-length: -1\r\n\r\n",
    ] {
        let mut stream = connect(target.at());
        stream.write_all(head.as_bytes()).unwrap();
        assert_eq!(read_reply(&mut stream).status, 400, "{head}");
        target.assert_unharmed();
    }
}

#[test]
fn bodies_of_64_mib_are_refused_without_being_kept() {
    const SIZE: usize = 64 * 1024 * 1024;
    let target = Target::start();
    target.assert_unharmed();
    let before = target.agent.peak_memory_kib();

    let chunked =
        Request::post("").without("content-length").header("transfer-encoding", "chunked");
    let announced = Request::post("").header("content-length", &SIZE.to_string());
    let small = Request::post("").header("content-length", &(4 * 1024 * 1024 + 1).to_string());
    let huge = Request::post("").header("content-length", &i64::MAX.to_string());
    for (request, is_chunked) in
        [(announced, false), (chunked, true), (small, false), (huge, false)]
    {
        let reply = pour(&request, is_chunked, SIZE, target.at());
        assert_eq!(reply.status, 413, "{reply:?}");
        assert_eq!(reply.error().1, "RESOURCE_EXHAUSTED");
        assert_eq!(reply.header("connection"), Some("close"));
        target.assert_unharmed();
    }

    let grown = target.agent.peak_memory_kib() - before;
    // One body of the largest size that is taken, and what the allocator rounds up to.
    assert!(grown < 16 * 1024, "the agent took {grown} KiB more");
}

/// Sends a body of `size` bytes for as long as the other side takes it, and reads the answer
/// meanwhile.
fn pour(request: &Request, chunked: bool, size: usize, to: SocketAddr) -> Reply {
    let mut stream = connect(to);
    let mut sink = stream.try_clone().unwrap();
    let head = request.head();
    let pouring = thread::spawn(move || {
        let piece = vec![b' '; 64 * 1024];
        let framed = [b"10000\r\n", &piece[..], b"\r\n"].concat();
        let piece = if chunked { framed } else { piece };
        let pieces = size / (64 * 1024);
        // An error is the other side's right: it has had enough.
        let _had_enough = sink
            .write_all(&head)
            .and_then(|()| (0..pieces).try_for_each(|_| sink.write_all(&piece)));
    });
    let reply = read_reply(&mut stream);
    drop(stream);
    pouring.join().unwrap();
    reply
}

#[test]
fn a_body_of_the_largest_size_is_taken() {
    let target = Target::start();
    // Within every bound: 4 MiB in all, in strings of less than one.
    let strings: Vec<String> = vec!["s".repeat(1000 * 1000); 4];
    let params = json!({"text": strings[0], "operations": [strings[1], strings[2], strings[3]]});
    let body = send_message("process_document", &params).to_string();
    assert!(body.len() < 4 * 1024 * 1024);
    let reply = Request::post(body).send(target.at());
    let results = &reply.result()["task"]["artifacts"][0]["parts"][0]["data"]["results"];
    assert_eq!(results[&strings[1]]["error"], "Unknown operation");
    target.assert_unharmed();
}
