use convoke_model::{FaultCode, Reason, Revision};

use super::*;
use crate::path_metrics::ServerAnswer;

const MILLI: Duration = Duration::from_millis(1);

fn id(text: &str) -> SpiffeId {
    SpiffeId::parse(text).unwrap()
}

fn worker() -> SpiffeId {
    id("spiffe://example.org/worker")
}

fn metrics() -> Metrics {
    let own = id("spiffe://example.org/me");
    let started = UnixMillis(1_500);
    Metrics::new(&own, "Agent \"A\"\n", ["analyze", "count"], [&worker()], started)
}

fn check(metrics: &Metrics, lines: &[&str]) {
    let text = metrics.encode(UnixMillis(0)).unwrap();
    for line in lines {
        let line = line.replace("NAME", r#"agent_name="Agent \"A\"\n""#);
        assert!(text.lines().any(|found| found == line), "{line}\n{text}");
    }
    assert!(text.ends_with("# EOF\n"));
}

fn decision(reason: Reason) -> Decision {
    let (rule, revision) = ("data.authz.allow".into(), Revision("r".into()));
    Decision { reason, rule, revision, took: Duration::from_micros(3) }
}

#[test]
fn requests_are_counted_by_capability_status_and_domain() {
    let metrics = metrics();
    let known = metrics.peer(Some(&id("spiffe://example.org/somebody")));
    let stranger = metrics.peer(Some(&id("spiffe://evil.example/x")));
    let fault = Fault::new(FaultCode::Internal, "no");
    metrics.request(Some(1), known, None, Status::Success, MILLI);
    metrics.request(Some(1), stranger, None, Status::Denied, MILLI);
    metrics.request(Some(7), known, Some(&fault), Status::Error, MILLI);
    metrics.request(None, known, Some(&fault), Status::Error, MILLI);
    let working = [metrics.in_flight(), metrics.in_flight()];
    check(
        &metrics,
        &[
            r#"agentweave_requests_total{NAME,capability="count",status="success",caller_trust_domain="example.org"} 1"#,
            r#"agentweave_requests_total{NAME,capability="count",status="denied",caller_trust_domain="other"} 1"#,
            r#"agentweave_requests_total{NAME,capability="analyze",status="success",caller_trust_domain="example.org"} 0"#,
            r#"agentweave_requests_total{NAME,capability="other",status="error",caller_trust_domain="example.org"} 2"#,
            r#"agentweave_capability_calls_total{NAME,capability="count",status="denied"} 1"#,
            r#"agentweave_request_duration_seconds_bucket{NAME,le="0.0005",capability="count",status="success"} 0"#,
            r#"agentweave_request_duration_seconds_bucket{NAME,le="0.001",capability="count",status="success"} 1"#,
            r#"agentweave_request_duration_seconds_bucket{NAME,le="+Inf",capability="count",status="success"} 1"#,
            r#"agentweave_request_duration_seconds_count{NAME,capability="count",status="success"} 1"#,
            r#"agentweave_errors_total{NAME,error_type="INTERNAL_ERROR",capability="other"} 2"#,
            "agentweave_requests_in_flight{NAME} 2.0",
        ],
    );
    drop(working);
    check(&metrics, &["agentweave_requests_in_flight{NAME} 0.0"]);
    assert!(!metrics.encode(UnixMillis(0)).unwrap().contains("evil"));
}

#[test]
fn calls_are_counted_under_names_that_have_proved_real() {
    let metrics = metrics();
    let stranger = id("spiffe://example.org/stranger");
    metrics.call(&worker(), "evil\n", Status::Error, MILLI);
    metrics.call(&worker(), "count", Status::Error, MILLI);
    metrics.call(&worker(), "count", Status::Success, MILLI);
    metrics.call(&worker(), "count", Status::Denied, MILLI);
    metrics.call(&stranger, "count", Status::Success, MILLI);
    let target = r#"target_agent="spiffe://example.org/worker""#;
    let line = |rest: &str| format!("agentweave_agent_calls_total{{NAME,{target},{rest}");
    check(
        &metrics,
        &[
            &line(r#"capability="other",status="error"} 2"#),
            &line(r#"capability="count",status="success"} 1"#),
            &line(r#"capability="count",status="denied"} 1"#),
            r#"agentweave_agent_calls_total{NAME,target_agent="other",capability="other",status="success"} 1"#,
            &format!("agentweave_agent_call_duration_seconds_count{{NAME,{target}}} 4"),
        ],
    );
    for number in 0..2 * CALLED_CAPABILITIES_MAX {
        metrics.call(&worker(), &format!("c{number}"), Status::Success, MILLI);
    }
    let text = metrics.encode(UnixMillis(0)).unwrap();
    let series = text.lines().filter(|line| {
        line.starts_with("agentweave_agent_calls_total{") && line.contains("/worker")
    });
    assert_eq!(series.count(), 3 * (CALLED_CAPABILITIES_MAX + 1));
    assert!(!text.contains("evil") && !text.contains("stranger"));
}

#[test]
fn decisions_are_counted_once_and_read_under_many_names() {
    let metrics = metrics();
    let peer = metrics.peer(Some(&worker()));
    metrics.decision(Some(0), peer, &decision(Reason::Allowed(None)));
    metrics.decision(Some(0), peer, &decision(Reason::Denied(None)));
    metrics.decision(None, metrics.peer(None), &decision(Reason::Undefined));
    metrics.refused("no_credential");
    metrics.refused("what nobody knows");
    let of_worker = r#"NAME,peer_id="spiffe://example.org/worker",capability="analyze""#;
    check(
        &metrics,
        &[
            r#"agentweave_authz_decisions_total{NAME,decision="allow"} 1"#,
            r#"agentweave_authz_decisions_total{NAME,decision="deny"} 2"#,
            r#"convoke_authz_decisions_total{NAME,decision="deny"} 2"#,
            r#"agentweave_authorization_checks_total{NAME,decision="deny"} 2"#,
            "agentweave_authz_allowed_total{NAME} 1",
            &format!(r#"agentweave_auth_decisions_total{{{of_worker},decision="deny"}} 1"#),
            r#"agentweave_auth_decisions_total{NAME,peer_id="other",capability="other",decision="deny"} 1"#,
            r#"agentweave_authz_denied_total{NAME,reason="denied"} 1"#,
            r#"agentweave_authz_denied_total{NAME,reason="undefined"} 1"#,
            r#"agentweave_authz_denied_total{NAME,reason="no_credential"} 1"#,
            r#"agentweave_authz_denied_total{NAME,reason="other"} 1"#,
            "agentweave_authz_duration_seconds_count{NAME} 3",
            r#"agentweave_authz_duration_seconds_bucket{NAME,le="0.000005"} 3"#,
            "agentweave_auth_check_duration_seconds_count{NAME} 3",
            "agentweave_authz_check_duration_seconds_count{NAME} 3",
        ],
    );
}

#[test]
fn the_node_is_counted() {
    let metrics = metrics();
    metrics.audit_refused();
    metrics.rotated();
    metrics.set_svid_valid_until(UnixMillis(90_999));
    metrics.set_rotation_errors(3);
    let peer = metrics.peer(Some(&worker()));
    let open = [metrics.connection(peer), metrics.connection(metrics.peer(None))];
    check(
        &metrics,
        &[
            "agentweave_audit_refused_total{NAME} 1",
            "agentweave_identity_renewals_total{NAME} 1",
            "agentweave_svid_rotation_total{NAME} 1",
            "agentweave_identity_ttl_seconds{NAME} 90.0",
            "convoke_identity_ttl_seconds{NAME} 90.0",
            "agentweave_svid_ttl_seconds{NAME} 90.0",
            "agentweave_identity_renewal_errors_total{NAME} 3",
            "agentweave_svid_rotation_errors_total{NAME} 3",
            "agentweave_connection_pool_active{NAME} 0.0",
            r#"agentweave_active_connections{NAME,peer_id="spiffe://example.org/worker"} 1.0"#,
            r#"agentweave_active_connections{NAME,peer_id="other"} 1.0"#,
            "agentweave_otlp_dropped_total{NAME} 0",
            "process_start_time_seconds{NAME} 1.5",
            &format!(r#"agentweave_build_info{{NAME,version="{}"}} 1"#, env!("CARGO_PKG_VERSION")),
        ],
    );
    drop(open);
    check(&metrics, &[r#"agentweave_active_connections{NAME,peer_id="other"} 0.0"#]);
    metrics.set_svid_valid_until(UnixMillis(0));
    check(&metrics, &["agentweave_identity_ttl_seconds{NAME} 0.0"]);
}

#[test]
fn tasks_are_counted_by_their_end() {
    let metrics = metrics();
    let ended = [TaskState::Completed, TaskState::Canceled, TaskState::Completed];
    // What goes on has no end to count.
    for state in ended.into_iter().chain([TaskState::Working, TaskState::InputRequired]) {
        metrics.task_ended(state, Duration::from_secs(20));
    }
    check(
        &metrics,
        &[
            r#"agentweave_tasks_total{NAME,status="completed"} 2"#,
            r#"agentweave_tasks_total{NAME,status="canceled"} 1"#,
            r#"agentweave_tasks_total{NAME,status="failed"} 0"#,
            r#"convoke_tasks_total{NAME,status="rejected"} 0"#,
            r#"agentweave_task_duration_seconds_bucket{NAME,le="10.0"} 0"#,
            r#"agentweave_task_duration_seconds_bucket{NAME,le="30.0"} 3"#,
            "agentweave_task_duration_seconds_count{NAME} 3",
        ],
    );
}

#[test]
fn a_policy_server_is_counted_under_the_names_of_alert_rules_too() {
    let metrics = metrics();
    for answer in [ServerAnswer::Answered, ServerAnswer::Failed, ServerAnswer::Spared] {
        metrics.path.server(answer);
    }
    metrics.path.policy_server_breaker.set(2);
    check(
        &metrics,
        &[
            "agentweave_opa_requests_total{NAME} 2",
            "agentweave_opa_errors_total{NAME} 1",
            "agentweave_authz_circuit_breaker_state{NAME} 2.0",
        ],
    );
}

/// Every name that the reference's code exports, its tutorial lists or its alert rules read.
const PROMISED: [(&str, &str); 30] = [
    ("agentweave_active_connections", "gauge"),
    ("agentweave_agent_call_duration_seconds", "histogram"),
    ("agentweave_agent_calls", "counter"),
    ("agentweave_auth_check_duration_seconds", "histogram"),
    ("agentweave_auth_decisions", "counter"),
    ("agentweave_authorization_checks", "counter"),
    ("agentweave_authz_allowed", "counter"),
    ("agentweave_authz_check_duration_seconds", "histogram"),
    ("agentweave_authz_circuit_breaker_state", "gauge"),
    ("agentweave_authz_decisions", "counter"),
    ("agentweave_authz_denied", "counter"),
    ("agentweave_authz_duration_seconds", "histogram"),
    ("agentweave_capability_calls", "counter"),
    ("agentweave_circuit_breaker_state", "gauge"),
    ("agentweave_connection_pool_active", "gauge"),
    ("agentweave_errors", "counter"),
    ("agentweave_identity_renewals", "counter"),
    ("agentweave_identity_ttl_seconds", "gauge"),
    ("agentweave_opa_errors", "counter"),
    ("agentweave_opa_requests", "counter"),
    ("agentweave_request_duration_seconds", "histogram"),
    ("agentweave_requests", "counter"),
    ("agentweave_requests_in_flight", "gauge"),
    ("agentweave_svid_rotation", "counter"),
    ("agentweave_svid_rotation_errors", "counter"),
    ("agentweave_svid_ttl_seconds", "gauge"),
    ("agentweave_task_duration_seconds", "histogram"),
    ("agentweave_tasks", "counter"),
    ("convoke_requests", "counter"),
    ("convoke_tasks", "counter"),
];

#[test]
fn every_promised_name_is_there() {
    let text = metrics().encode(UnixMillis(0)).unwrap();
    for (name, kind) in PROMISED {
        let line = format!("# TYPE {name} {kind}");
        assert!(text.lines().any(|found| found == line), "{line}\n{text}");
    }
}

#[test]
fn every_metric_has_two_names_and_no_name_comes_twice() {
    let text = metrics().encode(UnixMillis(0)).unwrap();
    let names: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")).collect();
    let mut once = names.clone();
    once.sort_unstable();
    once.dedup();
    assert_eq!(once.len(), names.len(), "{names:?}");
    for name in &names {
        let Some(rest) = name.strip_prefix("agentweave_") else { continue };
        let is_alias = render::ALIASES.iter().any(|alias| name.starts_with(alias));
        let ours = format!("convoke_{rest}");
        assert_eq!(names.contains(&ours.as_str()), !is_alias, "{name}");
    }
    let samples = |prefix: &str| text.lines().filter(|line| line.starts_with(prefix)).count();
    assert!(samples("convoke_requests_total{") > 0);
    assert_eq!(samples("convoke_requests_total{"), samples("agentweave_requests_total{"));
    assert_eq!(text.matches("# EOF").count(), 1);
}
