//! `convoke data`: looking after the journal of an agent that runs, and of one that does not.

use serde_json::Value;

use crate::process::Done;
use crate::world::{Setup, WORKER, World};

const CONFIG: &str = "config/worker.yaml";

/// `convoke data` with the agent's configuration.
fn data(world: &World, args: &[&str]) -> Done {
    let args = [&["data"], args, &["--config", CONFIG]].concat();
    world.run(&args)
}

fn json(world: &World, args: &[&str]) -> Value {
    let done = data(world, &[args, &["--json"]].concat());
    assert_eq!((done.code, &*done.stderr), (Some(0), ""), "{args:?}");
    serde_json::from_str(&done.stdout).unwrap()
}

#[test]
fn a_journal_is_looked_after_beside_its_agent_and_without() {
    let world = World::new();
    let _issuer = world.issuer("example.org");
    let config = world.config(document_pipeline::WORKER_CONFIG);
    world.write(CONFIG, &format!("{config}journal:\n  durability: strict\n"));
    world.write("policies/worker_policy.rego", document_pipeline::WORKER_POLICY);
    let none = data(&world, &["stats"]);
    assert_eq!(none.code, Some(2), "{}", none.stderr);
    assert!(none.stderr.contains("is no store"), "{}", none.stderr);

    let mut agent = world.serve("document-worker", CONFIG, WORKER, &Setup::default());
    let tasks = json(&world, &["query", "SELECT count(*) AS tasks FROM tasks"]);
    assert_eq!(tasks["columns"][0], "tasks");
    let count = &tasks["rows"][0][0];
    let check = json(&world, &["check"]);
    assert_eq!((&check["whole"], &check["tasks"]), (&true.into(), count));
    assert_eq!(json(&world, &["stats"])["format"], 1);
    let backup = json(&world, &["backup", "--to", "backup.db"]);
    assert_eq!(&backup["tasks"], count);
    let again = data(&world, &["backup", "--to", "backup.db"]);
    assert_eq!(again.code, Some(1), "{}", again.stderr);
    for args in [&["vacuum"][..], &["restore", "--from", "backup.db"]] {
        let refused = data(&world, args);
        assert_eq!(refused.code, Some(1), "{}", refused.stderr);
        assert!(refused.stderr.contains("in use by process"), "{}", refused.stderr);
    }
    let wrong = data(&world, &["query", "DELETE FROM tasks"]);
    assert_eq!(wrong.code, Some(2), "{}", wrong.stderr);

    assert!(agent.stop().success());
    assert!(json(&world, &["vacuum"])["bytes_after"].as_u64().unwrap() > 0);
    let refused = data(&world, &["restore", "--from", "backup.db"]);
    assert!(refused.stderr.contains("is there already"), "{}", refused.stderr);
    let to = ["data", "restore", "--from", "backup.db", "--journal", "other"];
    let restored = world.run(&to);
    assert_eq!(restored.code, Some(0), "{}", restored.stderr);
    let checked = world.run(&["data", "check", "--journal", "other"]);
    assert!(checked.stderr.starts_with("whole: other, "), "{}", checked.stderr);
}
