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
    assert!(none.stderr.contains("there is no directory"), "{}", none.stderr);
    assert!(none.stderr.contains("journal.durability"), "{}", none.stderr);

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

    looked_at_where_it_lies(&world);
    damage_is_told_with_a_way_out(&world);
}

/// A backup is read without being restored, and what a table means is read in one go.
fn looked_at_where_it_lies(world: &World) {
    let at = |args: &[&str]| world.run(&[&["data"], args, &["--journal", "backup.db"]].concat());
    let checked = at(&["check"]);
    assert_eq!(checked.code, Some(0), "{}", checked.stderr);
    assert!(checked.stderr.starts_with("whole: backup.db, "), "{}", checked.stderr);
    assert_eq!(at(&["stats"]).code, Some(0));
    let sql = "SELECT sql FROM sqlite_schema WHERE name = 'tasks'";
    let schema = at(&["query", sql]).stdout;
    assert!(schema.starts_with("sql\nCREATE TABLE tasks (\n"), "{schema}");
    assert!(schema.contains("-- 0 low, 1 normal, 2 high, 3 urgent\n"), "{schema}");
    let view = at(&["query", "SELECT state, created FROM task_view"]);
    assert_eq!(view.code, Some(0), "{}", view.stderr);
    let none = at(&["query", "--rows", "0", "SELECT 1"]);
    assert_eq!(none.code, Some(2), "{}", none.stderr);
    assert!(none.stderr.contains("at least one row"), "{}", none.stderr);
    let nowhere = at(&["backup", "--to", "none/below/backup.db"]);
    let told = "`none` cannot be used: there is no such file or directory";
    assert!(nowhere.stderr.contains(told), "{}", nowhere.stderr);
    let missing = ["data", "restore", "--from", "none.db", "--journal", "third"];
    let missing = world.run(&missing).stderr;
    assert!(missing.contains("`none.db` cannot be used: there is no such"), "{missing}");
    assert!(!missing.contains("journal.durability"), "{missing}");
}

/// No hint leads back to where it was given.
fn damage_is_told_with_a_way_out(world: &World) {
    let file = world.path("other/journal.db");
    let whole = std::fs::read(&file).unwrap();
    for (content, cure) in [
        (&whole[..whole.len() / 2], ".recover"),
        (b"no database at all".as_slice(), ".recover"),
        (b"", "begin anew"),
    ] {
        std::fs::write(&file, content).unwrap();
        let checked = world.run(&["data", "check", "--journal", "other"]);
        assert_eq!(checked.code, Some(1), "{}", checked.stderr);
        assert!(checked.stderr.contains("`convoke data restore`"), "{}", checked.stderr);
        assert!(checked.stderr.contains(cure), "{}", checked.stderr);
        assert!(!checked.stderr.contains("data check"), "{}", checked.stderr);
        let stats = world.run(&["data", "stats", "--journal", "other"]);
        assert!(stats.stderr.contains("`convoke data check`"), "{}", stats.stderr);
        std::fs::write(world.path("damaged.db"), content).unwrap();
        let from = ["data", "restore", "--from", "damaged.db", "--journal", "third"];
        let refused = world.run(&from);
        assert_eq!(refused.code, Some(1), "{}", refused.stderr);
        assert!(refused.stderr.contains("use another backup"), "{}", refused.stderr);
        let checked = world.run(&["data", "check", "--journal", "damaged.db"]);
        assert!(checked.stderr.contains("use another backup"), "{}", checked.stderr);
        assert!(!checked.stderr.contains("data check"), "{}", checked.stderr);
    }
}
