//! What `convoke init` writes builds, passes its tests, runs and is called.

use crate::play::lossy;
use crate::world::World;

/// The issuer that the project's README has running.
const ISSUER: &str = "convoke identity serve --trust-domain example.org";

/// How the project is run. The ports and the socket of these tests are others than those that the
/// project has, so it is told them as it would be anywhere: by variables.
const RUN: &str = "\
export CONVOKE_IDENTITY__SPIRE_SOCKET=/tmp/spire-agent/public/api.sock
export CONVOKE_SERVER__PORT=8443 CONVOKE_OBSERVABILITY__METRICS__PORT=9090
cargo run --quiet";

fn check(template: &str) {
    // Projects that are built at one time in one target directory have names of their own.
    let name = format!("greeter-{template}");
    let mut world = World::new();
    let mut run = |script: &str| {
        let output = world.run(script);
        let (stdout, stderr) = (lossy(&output.stdout), lossy(&output.stderr));
        assert_eq!(output.status.code(), Some(0), "{template}: `{script}`\n{stdout}{stderr}");
        (stdout, stderr)
    };
    run("cd ..");
    let make = format!("convoke init greeter --name {name} --template {template}");
    run(&format!("{make} --convoke-path ../convoke/"));
    run("cd greeter");
    let (_, said) = run("convoke validate --strict config.yaml");
    assert!(said.starts_with("valid: config.yaml, policy "), "{said}");
    let policies = match template {
        "minimal" => "policy.rego policy_test.rego",
        _ => "policies",
    };
    let (_, tested) = run(&format!("convoke policy test {policies}"));
    assert!(tested.ends_with(" passed, 0 failed, 0 skipped\n"), "{tested}");
    assert!(!tested.starts_with("0 "), "{tested}");
    let (tests, _) = run("cargo test --offline --quiet");
    assert!(tests.contains("test result: ok."), "{tests}");
    run("test -f .gitignore && test -f README.md && test -f Cargo.lock");

    world.terminal(ISSUER, "Issuer started");
    world.terminal(RUN, "Agent server started");
    let call = format!(
        "convoke call --agent spiffe://example.org/{name} --address https://localhost:8443 \
         --capability greet --params '{{\"name\": \"Ada\"}}'"
    );
    let output = world.run(&call);
    let said = lossy(&output.stdout);
    let expected = format!("\"Hello Ada, this is {name}\"");
    assert_eq!(said.trim(), expected, "{}", lossy(&output.stderr));

    // What is there is never written over.
    let again = world.run(&format!("convoke init . --template {template}"));
    assert_eq!(again.status.code(), Some(2));
    assert!(lossy(&again.stderr).starts_with("error: . is not empty"), "{again:?}");
}

#[test]
fn the_small_project_builds_runs_and_passes_its_tests() {
    check("minimal");
}

#[test]
fn the_large_project_builds_runs_and_passes_its_tests() {
    check("full");
}
