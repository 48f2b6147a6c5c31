//! `convoke ping`: steps and certificate of an agent that is there, exit codes of one that is not.

use crate::world::{Tutorial, WORKER, World};

#[test]
fn a_ping_shows_steps_and_ends_as_a_call_would() {
    let tutorial = Tutorial::start();
    let socket = tutorial.world.socket("example.org");
    let address = tutorial.worker.address();
    let ping = |agent: &str, address: &str, more: &[&str]| {
        let mut args = vec!["ping", "--agent", agent, address, "--socket", &socket];
        args.extend(["--interval", "1ms"]);
        args.extend(more);
        tutorial.world.run(&args)
    };
    let report = ping(WORKER, &address, &["--count", "3", "--json"]).json();
    assert_eq!((&report["count"], &report["failed"]), (&3.into(), &0.into()), "{report}");
    assert_eq!((&report["agent"], &report["status"]), (&WORKER.into(), &200.into()), "{report}");
    assert!(report["svid_not_after"].as_str().unwrap().ends_with('Z'), "{report}");
    for step in ["connect_ms", "tls_ms", "answer_ms", "total_ms"] {
        let [min, median, max] =
            ["min", "median", "max"].map(|key| report[step][key].as_f64().unwrap());
        assert!(0.0 < min && min <= median && median <= max, "{step}: {report}");
    }

    let words = ping(WORKER, &address, &["--count", "2"]);
    assert_eq!((words.code, words.stdout.as_str()), (Some(0), ""), "{words:?}");
    for word in ["connect ", "TLS ", "answer ", WORKER, "median", "TLS 1.3"] {
        assert!(words.stderr.contains(word), "{word}: {words:?}");
    }

    ping("spiffe://example.org/Document-Worker", &address, &["--count", "1"]).failure(5);
    ping(WORKER, "https://localhost:9", &["--count", "1"]).failure(4);
    ping(WORKER, "localhost", &[]).failure(2);
}

#[test]
fn without_an_issuer_there_is_nobody_to_ping_as() {
    let world = World::new();
    let socket = world.socket("example.org");
    let done = world.run(&["ping", "--agent", WORKER, "https://localhost:9", "--socket", &socket]);
    done.failure(10);
}
