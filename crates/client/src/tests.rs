//! Calls over the real wire, to an agent that does as the test says.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use convoke_a2a::jsonrpc::{decode, encode_fault, encode_message};
use convoke_agent::{AgentCallError, BreakerSettings, RetrySettings};
use convoke_identity::Bundle;
use convoke_model::{
    Content, Fault, FaultCode, Json, Message, MessageId, Operation, Part, Role, TraceContext,
    TrustDomain,
};
use convoke_net::server::{
    Body, ConnectionInfo, Handler, Limits, Opened, Refuse, ResponseBody, Server, read_body,
};
use http::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use http::{HeaderMap, Request, Response, StatusCode};
use rcgen::{
    BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};
use rustls::pki_types::PrivatePkcs8KeyDer;
use tokio::sync::Notify;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::*;

/// What the agent does with one request.
#[derive(Debug, Clone, Copy)]
enum Does {
    Answers,
    /// Nothing, until the caller has gone.
    Hangs,
    /// A fault with its status, and `Retry-After` if it says so.
    Fails(FaultCode, StatusCode, Option<&'static str>),
    /// A page of something between us and the agent.
    Page(StatusCode),
}

/// What the agent is to do, in order, and then answer; and what it saw.
#[derive(Default)]
struct Seen {
    script: Mutex<VecDeque<Does>>,
    requests: Mutex<Vec<(HeaderMap, MessageId)>>,
    entered: Notify,
    left: Notify,
}

struct Agent(Arc<Seen>);

struct Left<'a>(&'a Notify);

impl Drop for Left<'_> {
    fn drop(&mut self) {
        self.0.notify_one();
    }
}

impl Handler for Agent {
    type Connection = ();

    fn connected(&self, _: &ConnectionInfo) -> Result<Opened<()>, Refuse> {
        Ok(Opened { connection: (), expires_in: None })
    }

    async fn call(&self, _: &Arc<()>, request: Request<Body>) -> Response<ResponseBody> {
        let (head, body) = request.into_parts();
        if head.method == http::Method::GET {
            return Response::new(ResponseBody::from("{}"));
        }
        let body = read_body(body, 1 << 20).await.unwrap();
        let call = decode(&head.headers, None, &body).unwrap();
        let Operation::SendMessage(send) = call.operation else { panic!("not a call") };
        let params = match &send.message.parts[0].content {
            Content::Data(data) => data.clone(),
            other => panic!("{other:?}"),
        };
        self.0.requests.lock().unwrap().push((head.headers, send.message.message_id.clone()));
        self.0.entered.notify_one();
        let does = self.0.script.lock().unwrap().pop_front().unwrap_or(Does::Answers);
        let (status, body, after) = match does {
            Does::Answers => {
                let id = MessageId::parse("m").unwrap();
                let part = Part::new(Content::Data(params));
                let message = Message::new(id, Role::Agent, vec![part]);
                (StatusCode::OK, encode_message(&call.id, &message), None)
            }
            Does::Fails(code, status, after) => {
                (status, encode_fault(Some(&call.id), &Fault::new(code, "not now")), after)
            }
            Does::Hangs => {
                let _left = Left(&self.0.left);
                std::future::pending().await
            }
            Does::Page(status) => {
                let mut response = Response::new(ResponseBody::from("<html>"));
                *response.status_mut() = status;
                return response;
            }
        };
        let mut response = Response::new(ResponseBody::from(body));
        *response.status_mut() = status;
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(after) = after {
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static(after));
        }
        response
    }
}

/// An authority that makes identities for a test.
pub(crate) struct Authority {
    domain: TrustDomain,
    bundle: Bundle,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    pub(crate) fn new() -> Self {
        Self::of("example.org")
    }

    fn of(domain: &str) -> Self {
        let domain = TrustDomain::parse(domain).unwrap();
        let mut params = params(&domain.uri());
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().unwrap();
        let authorities = vec![params.self_signed(&key).unwrap().der().clone()];
        let bundle = Bundle { trust_domain: domain.clone(), authorities };
        Self { domain, bundle, issuer: Issuer::new(params, key) }
    }

    pub(crate) fn source(&self, name: &str) -> Arc<IdentitySource> {
        let id = self.domain.member(name).unwrap();
        let mut params = params(id.as_str());
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate().unwrap();
        let chain = vec![params.signed_by(&key, &self.issuer).unwrap().der().clone()];
        let key = PrivatePkcs8KeyDer::from(key.serialize_der()).into();
        let material = Material::from_der(id, chain, key, [self.bundle.clone()]).unwrap();
        Arc::new(IdentitySource::from_material(material))
    }
}

fn params(uri: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.subject_alt_names = vec![SanType::URI(uri.try_into().unwrap())];
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    let hour = Duration::from_secs(3600);
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    (params.not_before, params.not_after) = (epoch + (now - hour), epoch + (now + hour));
    params
}

/// An agent, and a client that calls it.
struct World {
    authority: Authority,
    seen: Arc<Seen>,
    /// The agent's own.
    source: Arc<IdentitySource>,
    worker: SpiffeId,
    address: String,
    client: Client,
    told: Arc<Told>,
    _server: DropGuard,
}

#[derive(Default)]
struct Told(Mutex<Vec<String>>);

impl CallObserver for Told {
    fn observe(&self, to: CallTarget<'_>, event: CallEvent<'_>) {
        let line = match event {
            CallEvent::Attempted { number, error, .. } => {
                format!("{} {number} {}", to.capability, if error.is_none() { "ok" } else { "no" })
            }
            CallEvent::Retrying { .. } => "again".into(),
            CallEvent::Cached => "cached".into(),
            CallEvent::Breaker(state) => format!("{state:?}"),
            other => format!("{other:?}"),
        };
        self.0.lock().unwrap().push(line);
    }
}

impl World {
    fn new(script: &[Does]) -> Self {
        let authority = Authority::new();
        let seen = Arc::new(Seen::default());
        seen.script.lock().unwrap().extend(script);
        let source = authority.source("/worker");
        let tls = convoke_identity::tls::server_config(&source).unwrap();
        let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
        let handler = Agent(Arc::clone(&seen));
        let server = Server::bind(any, Some(tls), Limits::default(), handler).unwrap();
        let address = format!("https://localhost:{}", server.local_addr().port());
        let shutdown = CancellationToken::new();
        tokio::spawn(server.serve(shutdown.clone(), Duration::ZERO));
        let told = Arc::new(Told::default());
        let observer = Some(Arc::clone(&told) as _);
        let client = Client::new(authority.source("/caller"), settings(), observer);
        let worker = source.spiffe_id().clone();
        let _server = shutdown.drop_guard();
        Self { authority, seen, source, worker, address, client, told, _server }
    }

    fn call(&self) -> ClientCall {
        let params = serde_json::json!({ "b": 1, "a": 2 });
        self.client.call(&self.worker, "count_words", params).address(&self.address)
    }

    fn requests(&self) -> usize {
        self.seen.requests.lock().unwrap().len()
    }
}

/// Pauses that cost a test no time.
pub(crate) fn settings() -> CallSettings {
    let millis = Duration::from_millis(1);
    CallSettings {
        retry: RetrySettings {
            backoff_min: millis,
            backoff_max: millis,
            ..RetrySettings::default()
        },
        ..CallSettings::default()
    }
}

const BUSY: StatusCode = StatusCode::SERVICE_UNAVAILABLE;

#[tokio::test]
async fn an_attempt_says_how_long_it_waits_and_where_it_belongs() {
    let again = Does::Fails(FaultCode::Unavailable, BUSY, Some("0"));
    let world = World::new(&[again]);
    let trace = TraceContext::root(7, 9, true);
    let answer = world.call().trace(trace).timeout(Duration::from_secs(20)).json().await.unwrap();
    assert_eq!(answer, Json::parse(r#"{"a":2,"b":1}"#).unwrap());

    let requests = world.seen.requests.lock().unwrap();
    let spans: Vec<_> = requests
        .iter()
        .map(|(headers, _)| {
            let left = headers["grpc-timeout"].to_str().unwrap();
            let millis: u64 = left.strip_suffix('m').unwrap().parse().unwrap();
            assert!((1..=20_000).contains(&millis), "{left}");
            let span = headers["traceparent"].to_str().unwrap();
            TraceContext::parse(span).unwrap()
        })
        .collect();
    assert_eq!(spans.len(), 2);
    assert!(spans.iter().all(|span| span.trace_id() == 7 && span.is_sampled()));
    assert!(spans[0] != trace && spans[1] != trace && spans[0] != spans[1], "{spans:?}");
    // By its message an agent knows the call again.
    assert_eq!(requests[0].1, requests[1].1);
    let told = world.told.0.lock().unwrap();
    assert_eq!(*told, ["count_words 1 no", "again", "count_words 2 ok"]);
}

/// How many requests the agent sees of a call that it answers like this each time.
async fn check_requests(does: Does, idempotent: bool, expected: usize) {
    let world = World::new(&[does; 3]);
    let call = if idempotent { world.call().idempotent() } else { world.call() };
    let error = call.json().await.unwrap_err();
    assert_eq!(world.requests(), expected, "{does:?}, idempotent {idempotent}: {error}");
}

#[tokio::test]
async fn what_an_agent_answers_decides_whether_it_is_asked_again() {
    use FaultCode as C;
    let (ok, many) = (StatusCode::OK, StatusCode::TOO_MANY_REQUESTS);
    for (does, plain, idempotent) in [
        // It says that nothing was done.
        (Does::Fails(C::Unavailable, BUSY, Some("0")), 3, 3),
        (Does::Fails(C::ResourceExhausted, many, Some("0")), 3, 3),
        (Does::Fails(C::Unavailable, BUSY, Some("Sun, 06 Nov 1994 08:49:37 GMT")), 3, 3),
        // Longer than anybody waits.
        (Does::Fails(C::Unavailable, BUSY, Some("99999999999999999999999")), 1, 1),
        // It may have been done.
        (Does::Fails(C::Unavailable, BUSY, None), 1, 3),
        (Does::Fails(C::ResourceExhausted, many, None), 1, 3),
        (Does::Fails(C::Internal, ok, None), 1, 3),
        (Does::Fails(C::DeadlineExceeded, StatusCode::GATEWAY_TIMEOUT, None), 1, 3),
        (Does::Page(StatusCode::BAD_GATEWAY), 1, 3),
        // It would be answered the same way.
        (Does::Fails(C::PermissionDenied, StatusCode::FORBIDDEN, None), 1, 1),
        (Does::Fails(C::PermissionDenied, StatusCode::FORBIDDEN, Some("0")), 1, 1),
        (Does::Fails(C::InvalidParams, ok, None), 1, 1),
        (Does::Fails(C::CapabilityFailed, ok, Some("0")), 1, 1),
        (Does::Fails(C::ResourceExhausted, StatusCode::PAYLOAD_TOO_LARGE, None), 1, 1),
        (Does::Page(StatusCode::NOT_FOUND), 1, 1),
    ] {
        check_requests(does, false, plain).await;
        check_requests(does, true, idempotent).await;
    }
}

#[tokio::test]
async fn an_attempt_that_hangs_leaves_time_for_another() {
    let world = World::new(&[Does::Hangs, Does::Hangs]);
    let (short, long) = (Duration::from_millis(750), Duration::from_secs(60));
    let settings = CallSettings { attempt_timeout: Some(short), ..settings() };
    let client = Client::new(world.authority.source("/caller"), settings, None);
    let call =
        || client.call(&world.worker, "count_words", ()).address(&world.address).timeout(long);
    // What may have been done is not done again.
    let error = call().json().await.unwrap_err();
    let CallError::Failed(AgentCallError::TimedOut { after, .. }) = &error else {
        panic!("{error}")
    };
    assert!(*after <= short, "{after:?}");
    assert_eq!(world.requests(), 1);
    call().idempotent().json().await.unwrap();
    assert_eq!(world.requests(), 3);
    for (headers, _) in world.seen.requests.lock().unwrap().iter() {
        let left = headers["grpc-timeout"].to_str().unwrap();
        let millis: u64 = left.strip_suffix('m').unwrap().parse().unwrap();
        assert!(millis <= 750, "{left}");
    }
}

#[tokio::test]
async fn who_gives_up_is_noticed() {
    let world = World::new(&[Does::Hangs]);
    {
        let mut call = std::pin::pin!(world.call().json());
        tokio::select! {
            _ = &mut call => panic!("it does not answer"),
            () = world.seen.entered.notified() => {}
        }
    }
    world.seen.left.notified().await;
    // Nothing was learned of the agent, and the next call is as any other.
    world.call().json().await.unwrap();
    assert_eq!(*world.told.0.lock().unwrap(), ["count_words 1 ok"]);
}

#[tokio::test]
async fn an_agent_that_is_not_there_is_named_and_then_left_alone() {
    let world = World::new(&[]);
    // A port that was free a moment ago.
    let free = {
        let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
        let seen = Arc::new(Seen::default());
        Server::bind(any, None, Limits::default(), Agent(seen)).unwrap().local_addr().port()
    };
    let address = format!("https://localhost:{free}");
    let breaker = BreakerSettings { failures_max: 3, open_for: Duration::from_secs(3600) };
    let settings = CallSettings { breaker, ..settings() };
    let client = Client::new(world.authority.source("/caller"), settings, None);
    let call = || client.call(&world.worker, "count_words", ()).address(&address).json();

    let error = call().await.unwrap_err().to_string();
    let worker = &world.worker;
    assert_eq!(
        error,
        format!(
            "cannot reach {worker} at {address}: connection refused; nothing listens there: check \
             that the agent runs, and its `server.port`"
        )
    );
    // Its three attempts have opened the breaker.
    let error = call().await.unwrap_err();
    match &error {
        CallError::Failed(AgentCallError::CircuitOpen { retry_after, .. }) => {
            assert!(*retry_after > Duration::from_secs(3500));
        }
        other => panic!("{other}"),
    }
    assert!(error.to_string().contains("the last time because connection refused; "), "{error}");
    // Another address of the same agent is another matter.
    client.call(worker, "count_words", ()).address(&world.address).json().await.unwrap();
}

#[tokio::test]
async fn somebody_else_is_asked_once_and_blamed_for_nothing() {
    let world = World::new(&[]);
    let other = world.authority.domain.member("/other").unwrap();
    for _ in 0..10 {
        let call = world.client.call(&other, "count_words", ()).address(&world.address);
        let error = call.json().await.unwrap_err();
        assert!(matches!(error, CallError::Failed(AgentCallError::WrongPeer { .. })), "{error}");
    }
    assert_eq!(world.requests(), 0);
    assert_eq!(*world.told.0.lock().unwrap(), ["count_words 1 no"; 10]);
}

#[tokio::test]
async fn connections_are_counted_while_they_are_kept() {
    let world = World::new(&[]);
    assert_eq!(world.client.open_connections(), 0);
    world.call().json().await.unwrap();
    world.call().json().await.unwrap();
    assert_eq!(world.client.open_connections(), 1);
    // One that breaks is not kept.
    world.seen.script.lock().unwrap().push_back(Does::Hangs);
    world.call().timeout(Duration::from_millis(100)).json().await.unwrap_err();
    assert_eq!(world.client.open_connections(), 0);
}

#[tokio::test]
async fn answers_to_idempotent_calls_are_kept() {
    let world = World::new(&[]);
    let (hour, call) = (Duration::from_secs(3600), || world.call().idempotent());
    let first = call().cache_ttl(hour).json().await.unwrap();
    assert_eq!(call().cache_ttl(hour).json().await.unwrap(), first);
    assert_eq!(world.requests(), 1);
    // Other parameters, no time to keep it for, and a call that does something.
    let other = world.client.call(&world.worker, "count_words", [1]).address(&world.address);
    other.idempotent().cache_ttl(hour).json().await.unwrap();
    call().json().await.unwrap();
    world.call().cache_ttl(hour).json().await.unwrap();
    assert_eq!(world.requests(), 4);
    let cached = world.told.0.lock().unwrap().iter().filter(|line| *line == "cached").count();
    assert_eq!(cached, 1);
}

#[tokio::test]
async fn what_is_kept_of_an_agent_is_good_while_its_trust_domain_is_trusted_without_a_break() {
    let world = World::new(&[]);
    let own = Authority::of("elsewhere.example").source("/caller");
    let (alone, agents) = (own.current(), world.source.current());
    let trusting = || alone.also_trusting(&agents);
    world.source.publish(agents.also_trusting(&alone)).unwrap();
    own.publish(trusting()).unwrap();
    let client = Client::new(Arc::clone(&own), settings(), Some(Arc::clone(&world.told) as _));
    let call = || {
        let call = client.call(&world.worker, "count_words", ()).address(&world.address);
        call.idempotent().cache_ttl(Duration::from_secs(3600)).json()
    };
    let answer = call().await.unwrap();
    assert_eq!(call().await, Ok(answer.clone()));

    // Nobody beside itself.
    own.publish(alone.also_trusting(&alone)).unwrap();
    let error = call().await.unwrap_err();
    assert!(matches!(error, CallError::Failed(AgentCallError::WrongPeer { .. })), "{error}");
    assert!(error.to_string().contains("trust domain `example.org` is not trusted"), "{error}");

    // Trust is taken away for a reason: what was said under it before is asked for again.
    own.publish(trusting()).unwrap();
    assert_eq!(call().await, Ok(answer.clone()));
    assert_eq!(call().await, Ok(answer));
    assert_eq!(world.requests(), 2);
    let told = world.told.0.lock().unwrap();
    let expected = ["count_words 1 ok", "cached", "count_words 1 no", "count_words 1 ok", "cached"];
    assert_eq!(*told, expected);
}

#[tokio::test]
async fn a_ping_says_where_the_time_goes() {
    let world = World::new(&[]);
    let ping = world.client.ping(&world.worker, &world.address).await.unwrap();
    assert_eq!(ping.status, 200);
    assert_eq!(ping.connect + ping.tls + ping.answer, ping.total);
    assert!(ping.tls > Duration::ZERO && ping.answer > Duration::ZERO, "{ping:?}");
    assert_eq!(ping.svid_not_after, world.client.material().not_after());
    let other = world.authority.domain.member("/other").unwrap();
    let error = world.client.ping(&other, &world.address).await.unwrap_err();
    assert!(matches!(error, CallError::Failed(AgentCallError::WrongPeer { .. })), "{error}");
    // Somebody whom the agent does not trust learns it from the answer that does not come.
    let stranger = Authority::new().source("/caller");
    let trusting = stranger.current().also_trusting(&world.client.material());
    let client = Client::with_source(Arc::new(IdentitySource::from_material(trusting)));
    let error = client.ping(&world.worker, &world.address).await.unwrap_err();
    assert!(matches!(error, CallError::Refused(_)), "{error}");
}

#[tokio::test]
async fn no_more_is_kept_of_agents_than_a_bound() {
    let world = World::new(&[]);
    // One that is in trouble, which must not be forgotten for others that are well.
    let breaker = BreakerSettings { failures_max: 1, open_for: Duration::from_secs(3600) };
    let settings = CallSettings { breaker, ..settings() };
    let client = Client::new(world.authority.source("/caller"), settings, None);
    world.seen.script.lock().unwrap().push_back(Does::Fails(FaultCode::Internal, BUSY, None));
    let call = || client.call(&world.worker, "count_words", ()).address(&world.address).json();
    call().await.unwrap_err();
    for port in 1..3000 {
        client.endpoint(&world.worker, &format!("https://elsewhere:{port}"), 1).unwrap();
        assert!(client.0.endpoints.len() <= endpoint::ENDPOINTS_MAX);
    }
    let error = call().await.unwrap_err();
    assert!(matches!(error, CallError::Failed(AgentCallError::CircuitOpen { .. })), "{error}");
}
