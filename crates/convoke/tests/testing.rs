//! The test utilities as users use them, and what only a whole mesh can show: guards, hooks, and
//! calls in trouble.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests may")]

use std::sync::{Arc, Mutex};
use std::time::Duration;

use convoke::testing::{Mesh, MeshError, MockCallee, TestPolicy, context};
use convoke::{AgentCallError, CallError, Context, FaultCode, HandlerError, UnixMillis, agent};
use serde_json::{Value, json};
use tokio::sync::Notify;

/// Has everything done by `worker`.
#[derive(Default, Clone)]
struct Boss {
    seen: Arc<Mutex<Vec<String>>>,
    refusing: bool,
    renewed: Arc<Notify>,
}

#[agent]
impl Boss {
    /// Ask the worker for something
    #[capability(ephemeral)]
    async fn delegate(&self, context: &Context, what: String) -> Result<Value, HandlerError> {
        let worker = context.config().registry("worker")?;
        let call = context.call_agent(worker, &what, json!({"n": 1}));
        Ok(call.timeout(Duration::from_secs(2)).into().await?)
    }

    /// Say what only some may hear
    #[capability(ephemeral, requires_peer = ["spiffe://example.org/user/*", "spiffe://example.org/cto"])]
    async fn secret(&self, _context: &Context) -> String {
        "42".to_owned()
    }

    /// Ask the caller
    #[capability]
    async fn confirm(&self, context: &Context) -> Result<u8, HandlerError> {
        context.progress("thinking").await?;
        let n: u8 = context.ask("how many?").into().await?;
        Ok(n + 1)
    }

    #[on_start]
    async fn begin(&self, context: &Context) -> Result<(), HandlerError> {
        if self.refusing {
            return Err(HandlerError::new("the model is missing"));
        }
        let name = context.caller().name();
        self.seen.lock().unwrap().push(format!("start as {name}"));
        Ok(())
    }

    #[on_svid_update]
    async fn renew(&self, not_after: UnixMillis) {
        self.seen.lock().unwrap().push(format!("until {not_after}"));
        self.renewed.notify_one();
    }

    #[on_stop]
    async fn end(&self) {
        self.seen.lock().unwrap().push("stop".to_owned());
    }
}

fn code(error: &CallError) -> Option<FaultCode> {
    match error {
        CallError::Failed(AgentCallError::Remote { code, .. }) => Some(*code),
        _ => None,
    }
}

#[tokio::test]
async fn a_stand_in_does_what_the_test_says() {
    let worker = MockCallee::new()
        .answers("count", json!({"count": 3}))
        .refuses("shred")
        .fails("break", FaultCode::ResourceExhausted, "no paper")
        .never_answers("sleep")
        .hangs_up("vanish");
    let log = worker.log();
    let mesh = Mesh::new("example.org")
        .agent("boss", Boss::default(), TestPolicy::allow_all())
        .mock("worker", worker)
        .start()
        .await
        .unwrap();
    let worker = |capability: &'static str| mesh.call_as("boss", "worker", capability, json!({}));

    let ask =
        |what: &'static str| mesh.call_as("user/ann", "boss", "delegate", json!({"what": what}));
    assert_eq!(ask("count").await.unwrap().get(), r#"{"count":3}"#);
    let calls = log.calls();
    assert_eq!(calls.len(), 1);
    assert_eq!(calls[0].caller.name(), "spiffe://example.org/boss");
    assert_eq!(calls[0].params.get(), r#"{"n":1}"#);

    let refused = worker("shred").await.unwrap_err();
    assert!(matches!(refused, CallError::Refused(_)), "{refused}");
    let failed = worker("break").await.unwrap_err();
    assert_eq!(code(&failed), Some(FaultCode::ResourceExhausted), "{failed}");
    let late = ask("sleep").await.unwrap_err().to_string();
    assert!(late.contains("did not answer `sleep`"), "{late}");
    let gone = worker("vanish").await.unwrap_err();
    assert!(matches!(gone, CallError::Failed(_)) && code(&gone).is_none(), "{gone}");
    // The connections were cut, not the agent.
    assert_eq!(worker("count").await.unwrap().get(), r#"{"count":3}"#);
    assert!(!log.capabilities().contains(&"shred".to_owned()));
    mesh.stop().await;
}

#[tokio::test]
async fn an_agent_off_the_network_cannot_be_reached() {
    let mesh = Mesh::new("example.org")
        .mock("worker", MockCallee::new().answers("count", 1))
        .start()
        .await
        .unwrap();
    let ask = || mesh.call_as("user/ann", "worker", "count", json!({}));
    ask().await.unwrap();
    mesh.unplug("worker").unwrap();
    let error = ask().await.unwrap_err();
    assert!(matches!(error, CallError::Failed(_)), "{error}");
    mesh.plug_in("worker").unwrap();
    ask().await.unwrap();
}

#[tokio::test]
async fn a_guard_takes_away_from_what_policy_allows() {
    let policy = "package agentweave.authz\n\ndefault allow = false\n\nallow {\n    \
                  input.caller.spiffe_id != \"spiffe://example.org/user/eve\"\n}\n";
    let mesh =
        Mesh::new("example.org").agent("boss", Boss::default(), policy).start().await.unwrap();
    let ask = |who: &'static str| mesh.call_as(who, "boss", "secret", json!({}));
    assert_eq!(ask("user/ann").await.unwrap().get(), r#""42""#);
    assert_eq!(ask("cto").await.unwrap().get(), r#""42""#);
    for who in ["intern", "user/eve", "user/ann/laptop", "cto/x"] {
        let error = ask(who).await.unwrap_err();
        assert!(matches!(error, CallError::Refused(_)), "{who}: {error}");
    }

    let records = mesh.audit("boss").unwrap();
    let of = |who: &str| {
        let id = format!("spiffe://example.org/{who}");
        records.iter().map(Value::to_string).find(|it| it.contains(&format!("\"{id}\""))).unwrap()
    };
    let text = of("intern");
    assert!(text.contains("\"guard\""), "{text}");
    assert!(text.contains("spiffe://example.org/user/*, spiffe://example.org/cto"), "{text}");
    // Policy comes first.
    let text = of("user/eve");
    assert!(text.contains("data.agentweave.authz.allow"), "{text}");
    mesh.stop().await;
}

#[tokio::test]
async fn hooks_run_around_an_agents_life() {
    let boss = Boss::default();
    let (seen, renewed) = (Arc::clone(&boss.seen), Arc::clone(&boss.renewed));
    let mesh =
        Mesh::new("example.org").agent("boss", boss, TestPolicy::deny_all()).start().await.unwrap();
    assert_eq!(*seen.lock().unwrap(), ["start as spiffe://example.org/boss"]);
    let error = mesh.call_as("user/ann", "boss", "secret", json!({})).await.unwrap_err();
    assert!(matches!(error, CallError::Refused(_)), "{error}");
    mesh.renew("boss").unwrap();
    renewed.notified().await;
    mesh.stop().await;
    let seen = seen.lock().unwrap();
    let [_start, until, stop] = seen.as_slice() else { panic!("three hooks: {seen:?}") };
    assert!(until.starts_with("until 21"), "{until}");
    assert_eq!(stop, "stop");
}

#[tokio::test]
async fn what_keeps_a_mesh_from_starting_is_named() {
    let refused = async |mesh: Mesh, expected: &str| {
        let error = mesh.start().await.map(drop).unwrap_err();
        assert_eq!(error.to_string(), expected);
    };
    let boss = || Boss { refusing: true, ..Boss::default() };
    let mesh = || Mesh::new("example.org").agent("boss", boss(), TestPolicy::allow_all());
    refused(mesh(), "agent `boss` does not start: the agent does not start: the model is missing")
        .await;
    refused(
        mesh().agent("boss", boss(), TestPolicy::allow_all()),
        "two agents of the mesh have the path `boss`",
    )
    .await;
    refused(
        Mesh::new("Example"),
        "`Example`: trust domain has `E`; only a-z, 0-9, `.`, `-` and `_` are allowed",
    )
    .await;
    refused(
        Mesh::new("example.org").mock("worker", MockCallee::new()),
        "agent `worker`: the agent has no capability",
    )
    .await;
    refused(
        Mesh::new("example.org").configure("worker", |_| {}),
        "no agent of the mesh has the path `worker`; there are ",
    )
    .await;
}

#[tokio::test]
async fn a_handler_is_tested_by_itself() {
    let test = context().task().replies(6);
    assert_eq!(Boss::default().confirm(&test.build()).await.unwrap(), 7);
    assert_eq!(test.progress(), ["thinking"]);

    let test = context().task().replies("many");
    let error = Boss::default().confirm(&test.build()).await.unwrap_err();
    assert!(error.to_string().contains("must be of type integer"), "{error}");
    let error = Boss::default().confirm(&context().build()).await.unwrap_err();
    assert!(error.to_string().contains("ephemeral"), "{error}");

    let test = context()
        .knows("worker", "spiffe://example.org/worker")
        .answers("count", 3)
        .refuses("shred", "not yours");
    let boss = Boss::default();
    assert_eq!(boss.delegate(&test.build(), "count".into()).await.unwrap(), 3);
    let error = boss.delegate(&test.build(), "shred".into()).await.unwrap_err();
    assert_eq!(error.to_string(), "spiffe://example.org/worker refused `shred`: not yours");
    assert!(boss.delegate(&test.build(), "dance".into()).await.is_err());
    assert_eq!(test.calls().capabilities(), ["count", "shred", "dance"]);
}

#[tokio::test(start_paused = true)]
async fn a_call_that_is_never_answered_times_out() {
    let test = context().knows("worker", "spiffe://example.org/worker").never_answers("sleep");
    let error = Boss::default().delegate(&test.build(), "sleep".into()).await.unwrap_err();
    assert!(error.to_string().contains("did not answer `sleep`"), "{error}");
}

#[tokio::test]
async fn agents_are_configured_as_a_test_needs() {
    let mesh = Mesh::new("example.org")
        .agent("boss", Boss::default(), TestPolicy::allow_all())
        .mock("worker", MockCallee::new().answers("count", 1))
        .configure("boss", |config| {
            config.agent_registry.clear();
        })
        .start()
        .await
        .unwrap();
    let error =
        mesh.call_as("user/ann", "boss", "delegate", json!({"what": "count"})).await.unwrap_err();
    assert!(error.to_string().contains("does not know an agent"), "{error}");
    assert!(matches!(mesh.address("nobody"), Err(MeshError::Unknown { .. })));
}
