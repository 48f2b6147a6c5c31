//! `convoke logs`: what two agents wrote, read as one.

use serde_json::{Value, json};

use crate::process::run;
use crate::world::{Setup, Tutorial, WORKER, World};

#[test]
fn one_request_is_found_in_the_logs_and_trails_of_two_agents() {
    let mut tutorial = Tutorial::start();
    tutorial.ask("process_document", &json!({"text": "good"}));
    tutorial.ask("process_document", &json!({"text": "bad"}));
    let trace = tutorial.orchestrator.final_audit()[0]["trace_id"].as_str().unwrap().to_owned();
    assert_eq!(tutorial.worker.final_audit()[0]["trace_id"], *trace, "the trace goes on");

    let world = &tutorial.world;
    let mut files = Vec::new();
    for (name, agent) in [("worker", &tutorial.worker), ("orchestrator", &tutorial.orchestrator)] {
        let log = agent.lines().iter().map(|line| line.clone() + "\n").collect::<String>();
        world.write(&format!("{name}.log"), &log);
        world.write(&format!("{name}.jsonl"), &agent.audit_text());
        files.extend([format!("{name}.log"), format!("{name}.jsonl")]);
    }
    let read = |more: &[&str]| {
        let args = ["logs"].iter().copied().chain(files.iter().map(String::as_str));
        let args: Vec<&str> = args.chain(more.iter().copied()).collect();
        let done = world.run(&args);
        assert_eq!((done.code, &*done.stderr), (Some(0), ""));
        done.stdout
    };
    let of_trace = read(&["--trace-id", &trace, "--json"]);
    let lines: Vec<Value> =
        of_trace.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let has = |key: &str, value: &str| lines.iter().filter(|line| line[key] == value).count();
    assert_eq!(has("message", "Request completed"), 2, "{of_trace}");
    assert_eq!(has("event_type", "authorization"), 2, "{of_trace}");
    assert_eq!(has("message", "Calling agent"), 1, "{of_trace}");
    assert!(lines.is_sorted_by_key(|line| line["timestamp"].as_str().unwrap().to_owned()));

    let shown = read(&["--trace-id", &trace]);
    assert!(shown.contains("allowed spiffe://example.org/orchestrator → "), "{shown}");
    assert!(shown.contains("Request completed capability=process_document"), "{shown}");
    let all = read(&[]);
    assert!(all.contains(&format!("event   {WORKER} shutdown finished=")), "{all}");
    let refused = read(&["--level", "warn"]);
    assert!(!refused.contains("Request completed") && refused.contains("decides"), "{refused}");
}

#[test]
fn lines_of_what_went_well_are_left_out_when_the_configuration_says_so() {
    let world = World::new();
    let _issuer = world.issuer("example.org");
    let config = world.config(document_pipeline::WORKER_CONFIG);
    let logging = "  logging:\n    sampling_rate: 0\n";
    let config = config.replacen("  logging:\n", logging, 1);
    assert!(config.contains("sampling_rate"), "{config}");
    world.write("config/worker.yaml", &config);
    world.write("policies/worker_policy.rego", document_pipeline::WORKER_POLICY);
    let setup = Setup::default();
    let mut worker = world.serve("document-worker", "config/worker.yaml", WORKER, &setup);
    let text = json!({"text": "good"}).to_string();
    world.call(&worker, "analyze_document", &text, &[]).json();
    // One that fails shows all of its lines.
    world.call(&worker, "analyze_document", "{}", &[]).failure(7);
    assert!(worker.stop().success());
    let of_requests: Vec<Value> =
        worker.json_lines().into_iter().filter(|line| line["request_id"].is_string()).collect();
    let messages: Vec<_> = of_requests.iter().map(|line| &line["message"]).collect();
    assert_eq!(messages, ["Request failed"], "{of_requests:#?}");
}

#[test]
fn standard_input_is_read_and_foreign_lines_stay() {
    let world = World::new();
    let line = r#"{"timestamp":"2026-11-20T10:00:00.000Z","level":"INFO","message":"m","x":1}"#;
    let input = format!("foreign \u{1b}[2J\n{line}\nend");
    let done = run(&mut world.command(&["logs"]), input.as_bytes());
    assert_eq!(
        done.stdout,
        "foreign \\u001b[2J\n── 2026-11-20 (UTC) ──\n10:00:00.000 INFO    m x=1\nend\n"
    );
    let done = run(&mut world.command(&["logs", "-", "--json"]), input.as_bytes());
    assert_eq!((done.stdout, done.stderr), (format!("{line}\n"), String::new()));
    // Silence could be a mistake in the question.
    let none = ["logs", "-", "--caller", "nobody"];
    let done = run(&mut world.command(&none), line.as_bytes());
    assert_eq!((done.code, &*done.stdout), (Some(0), ""), "{done:?}");
    assert_eq!(done.stderr, "no line is as asked for\n");
    world.run(&["logs", "nowhere.log"]).failure(1);
}
