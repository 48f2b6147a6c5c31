use std::time::SystemTime;

use convoke_model::{Secret, TraceContext};
use tracing::{info, info_span};

use super::*;
use crate::observe::logging::{LogExporter, LogOptions, dispatch};
use crate::observe::trace::{Kind, Value};

#[path = "../../../tests/collector/mod.rs"]
mod collector;

use collector::{Collector, text};

fn config(endpoint: &str) -> TracingConfig {
    TracingConfig {
        otlp_endpoint: endpoint.to_owned(),
        sampling_rate: 1.0,
        service_name: Some("the service".to_owned()),
        headers: [("authorization".to_owned(), Secret::new("Bearer abc"))].into(),
        logs: true,
    }
}

fn agent() -> AgentConfig {
    AgentConfig {
        spiffe_id: SpiffeId::parse("spiffe://example.org/worker").unwrap(),
        metadata: convoke_agent::Metadata { version: "1.2.3".into(), ..Default::default() },
        agent_registry: Default::default(),
        calls: Default::default(),
    }
}

fn span(number: u64) -> Ended {
    Ended {
        name: "x".into(),
        kind: Kind::Client,
        place: TraceContext::root(7, number, true),
        parent: Some(9),
        begun: SystemTime::UNIX_EPOCH + Duration::from_secs(5),
        took: Duration::from_millis(250),
        end: Some(Err("refused".to_owned())),
        attributes: vec![("agent.capability", Value::from("count")), ("n", Value::from(2))],
    }
}

#[tokio::test]
async fn a_span_arrives_whole() {
    let collector = Collector::start().await;
    let spans = Spans::start(&config(&collector.endpoint), &agent()).unwrap();
    spans.exporter.queue().leave(span(8));
    spans.close().await;
    let got = collector.wait_for(|got| !got.spans.is_empty()).await;
    let (service, span) = got.all_spans()[0].clone();
    assert_eq!(service, "the service");
    let resource = &got.spans[0].resource.as_ref().unwrap().attributes;
    assert_eq!(text(resource, "service.version").as_deref(), Some("1.2.3"));
    assert_eq!(span.trace_id, 7_u128.to_be_bytes());
    assert_eq!((span.span_id.clone(), span.parent_span_id.clone()), {
        (8_u64.to_be_bytes().to_vec(), 9_u64.to_be_bytes().to_vec())
    });
    assert_eq!((&*span.name, span.kind, span.flags), ("x", 3, 1));
    assert_eq!(span.start_time_unix_nano, 5_000_000_000);
    assert_eq!(span.end_time_unix_nano, 5_250_000_000);
    assert_eq!(text(&span.attributes, "agent.capability").as_deref(), Some("count"));
    assert_eq!(text(&span.attributes, "n").as_deref(), Some("IntValue(2)"));
    let status = span.status.as_ref().unwrap();
    assert_eq!((status.code, &*status.message), (2, "refused"));
    assert_eq!(got.headers[0]["authorization"], "Bearer abc");
}

#[tokio::test]
async fn log_lines_arrive_without_secrets_and_within_their_trace() {
    let collector = Collector::start().await;
    let exporter = LogExporter::start(&config(&collector.endpoint), "worker", "1").unwrap();
    let options = LogOptions { export: Some(exporter.lines()), ..LogOptions::default() };
    let (dispatch, guard) = dispatch(&options, std::io::sink()).unwrap();
    tracing::dispatcher::with_default(&dispatch, || {
        let trace_id = "4bf92f3577b34da6a3ce929d0e0e4736";
        let _span =
            info_span!("r", trace_id, span_id = "1234567890123456", who = "outer").entered();
        info!(target: "app", port = 8443, password = "hunter2", who = "inner", "say \"hi\"\n password=hunter2");
    });
    drop((dispatch, guard));
    exporter.close().await;
    let got = collector.wait_for(|got| !got.logs.is_empty()).await;
    let record = &got.logs[0].scope_logs[0].log_records[0];
    let body = record.body.as_ref().unwrap().value.as_ref().unwrap();
    assert_eq!(format!("{body:?}"), r#"StringValue("say \"hi\"\n password=[redacted]")"#);
    assert_eq!(record.trace_id[..2], [0x4b, 0xf9]);
    assert_eq!(record.span_id, 0x1234_5678_9012_3456_u64.to_be_bytes());
    assert_eq!((record.severity_number, &*record.severity_text), (9, "INFO"));
    let attribute = |name: &str| text(&record.attributes, name);
    assert_eq!(attribute("port").as_deref(), Some("IntValue(8443)"));
    assert_eq!(attribute("password").as_deref(), Some("[redacted]"));
    assert_eq!(attribute("who").as_deref(), Some("inner"));
    assert_eq!(attribute("logger").as_deref(), Some("app"));
}

#[tokio::test(start_paused = true)]
async fn what_may_pass_is_sent_again_and_what_will_not_is_dropped_and_counted() {
    let collector = Collector::start().await;
    let check = async |refusals: &[u32], arrives: bool| {
        *collector.refusals.lock().unwrap() = refusals.to_vec();
        let before = collector.wait_for(|_| true).await.spans.len();
        let spans = Spans::start(&config(&collector.endpoint), &agent()).unwrap();
        let (queue, drops) = (spans.exporter.queue(), spans.drops());
        queue.leave(span(1));
        if arrives {
            collector.wait_for(|got| got.spans.len() > before).await;
            assert_eq!(drops.dropped(), 0);
        } else {
            while drops.dropped() == 0 {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            assert_eq!(drops.dropped(), 1);
        }
        assert_eq!(collector.refusals.lock().unwrap().len(), 0);
        spans.close().await;
    };
    check(&[14], true).await;
    check(&[14, 4], true).await;
    // Unauthenticated, and three times unavailable.
    check(&[16], false).await;
    check(&[14, 14, 14], false).await;
}

#[tokio::test(start_paused = true)]
#[allow(clippy::disallowed_methods, reason = "a collector is no part of the node")]
async fn a_collector_that_is_away_holds_nobody_up() {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", silent.local_addr().unwrap());
    let spans = Spans::start(&config(&endpoint), &agent()).unwrap();
    let (queue, drops) = (spans.exporter.queue(), spans.drops());
    // Nothing awaits here, so nobody takes anything out.
    for number in 0..QUEUE_MAX + 10 {
        queue.leave(span(number as u64));
    }
    assert_eq!(drops.dropped(), 10);
    spans.close().await;
    queue.leave(span(1));
    assert_eq!(drops.dropped(), 11);
}

#[tokio::test]
async fn what_cannot_be_sent_to_is_refused() {
    let check = |config: &TracingConfig, expected: &str| {
        let error = Spans::start(config, &agent()).err().unwrap().to_string();
        assert_eq!(error, expected);
    };
    let plain = config("localhost:4317");
    check(
        &plain,
        "`observability.tracing.otlp_endpoint`: address `localhost:4317` does not begin with \
         https://",
    );
    for name in ["with blank", "x-bin", "grpc-timeout", "te"] {
        let headers = [(name.to_owned(), Secret::new("x"))].into();
        check(
            &TracingConfig { headers, ..config("http://localhost:4317") },
            &format!("`observability.tracing.headers.{name}` is no header that gRPC can carry"),
        );
    }
}
