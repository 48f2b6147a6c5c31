//! The tutorial's files as they stand: fixed ports, the socket of a SPIRE agent, shell blocks.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::namespace::alone;
use crate::process::{Process, run};
use crate::tutorial::{batched, processed};
use crate::world::{BINARY, World};

/// The files that the tutorial has its readers write.
const FILES: [&str; 4] = [
    "config/worker.yaml",
    "policies/worker_policy.rego",
    "config/orchestrator.yaml",
    "policies/orchestrator_policy.rego",
];

#[test]
fn seed_files_run_unchanged() {
    let name = "seeds::seed_files_run_unchanged";
    let Some(directory) = directory() else {
        println!("skipped: {name}: CONVOKE_SEEDS names no directory");
        return;
    };
    let tutorial = tutorial(&directory);
    let Some(tutorial) = tutorial else {
        println!("skipped: {name}: {} has no tutorial", directory.display());
        return;
    };
    let text = std::fs::read_to_string(&tutorial).unwrap();
    alone(name, &[&directory], || {
        let world = World::new();
        // `mkdir multi-agent-demo`, `cd multi-agent-demo` and what else there is to prepare.
        shell(&world, &world.path(""), &block(&text, "## Step 1", "bash"));
        let project = world.path("multi-agent-demo");
        for file in FILES {
            let language = if file.ends_with(".yaml") { "yaml" } else { "rego" };
            let heading = text.lines().find(|line| is_heading(line) && line.contains(file));
            let written = block(&text, heading.expect("a heading that names the file"), language);
            std::fs::write(project.join(file), written).unwrap();
        }
        play(
            &world,
            &project,
            &block(&text, "### Terminal 3: Test the System", "bash"),
            &block(&text, "### Test Batch Processing", "bash"),
        );
    });
}

#[test]
fn the_examples_files_run_unchanged() {
    alone("seeds::the_examples_files_run_unchanged", &[&example()], || {
        let world = World::new();
        for file in FILES {
            let text = std::fs::read_to_string(example().join(file)).unwrap();
            world.write(&format!("project/{file}"), &text);
        }
        let call = |capability: &str, params: &Value| {
            format!(
                "convoke call --agent spiffe://example.org/orchestrator \
                 --address https://localhost:8444 --capability {capability} --params '{params}'"
            )
        };
        let text = crate::world::SENTENCE;
        let params = serde_json::json!({"text": text, "operations": ["analyze", "sentiment"]});
        let batch = call("batch_process", &crate::tutorial::batch());
        play(&world, &world.path("project"), &call("process_document", &params), &batch);
    });
}

/// Starts issuer and agents on the files in `project`, and runs the two calls.
fn play(world: &World, project: &Path, process: &str, batch: &str) {
    for name in ["agentweave-cli", "convoke"] {
        std::fs::create_dir_all(world.path("bin")).unwrap();
        symlink(BINARY, world.path("bin").join(name)).unwrap();
    }
    let start = |name: &str, args: &[&str], ready: &str| {
        let mut command = world.command(args);
        command.arg("--until-stdin-ends").current_dir(project);
        let process = Process::start(name, &mut command);
        (process.wait_for_message(ready), process)
    };
    let (started, _issuer) =
        start("issuer", &["identity", "serve", "--trust-domain", "example.org"], "Issuer started");
    assert_eq!(started["socket"], "/tmp/spire-agent/public/api.sock");
    for config in ["config/worker.yaml", "config/orchestrator.yaml"] {
        let done = run(world.command(&["validate", config]).current_dir(project), b"");
        assert_eq!(done.code, Some(0), "{done:?}");
    }
    let (started, mut worker) = start(
        "worker",
        &["serve", "--agent", "document-worker", "config/worker.yaml"],
        "Agent server started",
    );
    assert_eq!(started["port"], 8443);
    let (started, mut orchestrator) = start(
        "orchestrator",
        &["serve", "--agent", "document-orchestrator", "config/orchestrator.yaml"],
        "Agent server started",
    );
    assert_eq!(started["port"], 8444);

    assert_eq!(shell(world, project, process), processed());
    assert_eq!(shell(world, project, batch), batched());
    assert!(orchestrator.stop().success());
    assert!(worker.stop().success());
}

/// Runs a shell block that has to succeed without a word, and gives the JSON that it prints.
fn shell(world: &World, directory: &Path, block: &str) -> Value {
    let path = std::env::var("PATH").unwrap();
    let mut command = world.program(Path::new("sh"), &["-e", "-c", block]);
    command.current_dir(directory).env("PATH", format!("{}:{path}", world.path("bin").display()));
    let done = run(&mut command, b"");
    if done.stdout.is_empty() {
        assert_eq!((done.code, done.stderr.as_str()), (Some(0), ""), "{block}");
        return Value::Null;
    }
    done.json()
}

/// The first fenced block in `language` below the first heading that begins with `heading`.
fn block(text: &str, heading: &str, language: &str) -> String {
    let mut lines = text.lines();
    lines.find(|line| is_heading(line) && line.starts_with(heading)).expect(heading);
    let fence = format!("```{language}");
    lines.find(|line| *line == fence).expect(heading);
    lines.take_while(|line| *line != "```").map(|line| format!("{line}\n")).collect()
}

fn is_heading(line: &str) -> bool {
    line.starts_with('#')
}

/// The directory of the seeds: what `CONVOKE_SEEDS` names, else the one beside the workspace.
fn directory() -> Option<PathBuf> {
    let beside = || workspace().join("../shared/seeds");
    let named = std::env::var_os("CONVOKE_SEEDS").map_or_else(beside, PathBuf::from);
    named.is_dir().then_some(named)
}

/// The seed that is the tutorial of two agents: the first by name.
fn tutorial(directory: &Path) -> Option<PathBuf> {
    let entries = std::fs::read_dir(directory).unwrap();
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|end| end == "txt"));
    paths.sort();
    paths.into_iter().next()
}

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn example() -> PathBuf {
    workspace().join("examples/document-pipeline")
}
